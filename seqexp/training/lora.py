"""Low-rank updates of linear layers (LoRA, Hu et al. 2022): W + (alpha / rank) B A, where only A and B train.

A layer stays an `nn.Linear` whose `weight` is the sum, so that every use of it sees the update. B starts as
zero: a new update changes nothing.
"""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.utils import parametrize

from seqexp.errors import UserError
from seqexp.models.lora_options import LoRAConfig

# The names of a layer's own weight and of its update, which `parametrize` gives to a state.
OWN, UPDATE = "parametrizations.weight.original", "parametrizations.weight.0"


class LowRank(nn.Module):
    """W (M, N) to W + `scale` B A, with A (rank, N) and B (M, rank)."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.A = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.B @ self.A)


def add_lora(model: nn.Module, config: LoRAConfig) -> None:
    """Give the linear layers that match `config.layers` a low-rank update, but not the head; none at rank 0.

    Raises:
        UserError: a pattern matches no such layer, or the rank is not below that of a layer.
    """
    if not config.rank:
        return
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "head" not in name.split(".")
    }
    chosen: dict[str, nn.Linear] = {}
    for pattern in config.layers:
        matched = {name: layer for name, layer in layers.items() if fnmatchcase(name, pattern)}
        if not matched:
            there = ", ".join(list(layers)[:8]) or "none besides the head"
            raise UserError(f"model.lora.layers: {pattern!r} matches no linear layer; there are {there}.")
        chosen |= matched
    for name, layer in chosen.items():
        most = min(layer.weight.shape)
        if config.rank >= most:
            raise UserError(
                f"model.lora.rank={config.rank} is not below the rank of {name} ({most}); lower it, or name "
                "other layers in model.lora.layers=."
            )
        update = LowRank(layer.weight, config.rank, config.alpha / config.rank)
        parametrize.register_parametrization(layer, "weight", update)


def own_names(model: nn.Module) -> dict[str, str]:
    """Return the names that parameters have without updates, and those that they have here."""
    names = [name for name in model.state_dict() if UPDATE not in name]
    return {name.replace(OWN, "weight"): name for name in names}


def merge_lora(state: Mapping[str, Tensor], config: LoRAConfig) -> dict[str, Tensor]:
    """Return the state of the model without updates: they are added to the weights."""
    merged = {name.replace(OWN, "weight"): value for name, value in state.items() if UPDATE not in name}
    for name in state:
        if name.endswith(OWN):
            A, B = (state[name.replace(OWN, f"{UPDATE}.{matrix}")] for matrix in "AB")
            merged[name.replace(OWN, "weight")] = state[name] + config.alpha / config.rank * (B @ A)
    return merged


def freeze_given(model: nn.Module, new: list[str]) -> list[str]:
    """Freeze all parameters but the updates and those named in `new`; return the names of all frozen ones."""
    for name, parameter in model.named_parameters():
        if UPDATE not in name and name.replace(OWN, "weight") not in new:
            parameter.requires_grad_(False)
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
