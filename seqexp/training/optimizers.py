"""Optimizers over parameters grouped by their role in the model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from seqexp import registry
from seqexp.config.optimizer import AdamConfig, MuonConfig, RMSpropConfig, SGDConfig
from seqexp.errors import UserError
from seqexp.training.checkpoint import refuse_misfit

Parameters = list[nn.Parameter]
Roles = dict[str, Parameters]


def parameter_roles(model: nn.Module) -> Roles:
    """Every trainable parameter once: `embedding`, `head`, `matrix` (other 2-D ones), `vector` (the rest).

    A head that is tied to the embedding is an embedding. A head is a module of that name.
    """
    roles: Roles = {"embedding": [], "head": [], "matrix": [], "vector": []}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in embeddings:
            role = "embedding"
        elif parameter.ndim < 2:
            role = "vector"
        else:
            role = "head" if "head" in name.split(".") else "matrix"
        roles[role].append(parameter)
    grouped = [id(parameter) for group in roles.values() for parameter in group]
    wanted = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(grouped) == len(wanted)
    assert set(grouped) == wanted
    return roles


def _decay_groups(roles: Roles, weight_decay: float, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Decay for all but vectors (norms and biases), which only shrink what keeps the scale."""
    decayed = [p for name in names if name != "vector" for p in roles[name]]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": roles["vector"], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


ALL = ("embedding", "head", "matrix", "vector")


def adamw(config: AdamConfig, roles: Roles) -> list[torch.optim.Optimizer]:
    groups = _decay_groups(roles, config.weight_decay, ALL)
    betas = (config.betas[0], config.betas[1])
    return [torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)]


def adam(config: AdamConfig, roles: Roles) -> list[torch.optim.Optimizer]:
    groups = _decay_groups(roles, config.weight_decay, ALL)
    betas = (config.betas[0], config.betas[1])
    return [torch.optim.Adam(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)]


def sgd(config: SGDConfig, roles: Roles) -> list[torch.optim.Optimizer]:
    groups = _decay_groups(roles, config.weight_decay, ALL)
    return [torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)]


def rmsprop(config: RMSpropConfig, roles: Roles) -> list[torch.optim.Optimizer]:
    groups = _decay_groups(roles, config.weight_decay, ALL)
    return [
        torch.optim.RMSprop(
            groups, lr=config.lr, alpha=config.decay, eps=config.eps, momentum=config.momentum
        )
    ]


def muon(config: MuonConfig, roles: Roles) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the body, AdamW for everything else.

    Raises:
        UserError: the model has no matrices besides embeddings and head.
    """
    if not roles["matrix"]:
        raise UserError("optimizer=muon needs a model with matrices; use optimizer=adamw.")
    groups = _decay_groups(roles, config.weight_decay, ("embedding", "head", "vector"))
    betas = (config.betas[0], config.betas[1])
    return [
        torch.optim.Muon(
            roles["matrix"],
            lr=config.lr,
            momentum=config.momentum,
            ns_steps=config.ns_steps,
            weight_decay=config.weight_decay,
        ),
        torch.optim.AdamW(groups, lr=config.adamw_lr, betas=betas, eps=config.eps, fused=True),
    ]


class Optimizers:
    """One or more torch optimizers that share a schedule and step together."""

    def __init__(self, config: Any, model: nn.Module) -> None:
        build: Callable[..., list[torch.optim.Optimizer]] = registry.load("optimizer", config.name)
        self.parts = build(config, parameter_roles(model))
        self.base = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def set_factor(self, factor: float) -> None:
        for part, rates in zip(self.parts, self.base, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * factor

    def step(self, scaler: torch.amp.GradScaler) -> None:
        for part in self.parts:
            scaler.step(part)

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state(self, states: list[dict[str, Any]]) -> None:
        """Take what `state` gave.

        Raises:
            TypeError, ValueError: it is that of other parameters.
        """
        for part, state in zip(self.parts, states, strict=True):
            # The settings stay those of the configuration, which may be newly typed; the state is loaded.
            typed = [{k: v for k, v in group.items() if k != "params"} for group in part.param_groups]
            fresh = _state_after_a_step(part)
            part.load_state_dict(state)
            for group, settings in zip(part.param_groups, typed, strict=True):
                group.update(settings)
            for parameter, wanted in fresh.items():
                loaded = part.state.get(parameter)
                if loaded:  # else there was no step yet
                    # What only the settings typed now need, such as a momentum, begins anew.
                    part.state[parameter] = {**wanted, **{k: v for k, v in loaded.items() if v is not None}}
                    for key, value in wanted.items():
                        refuse_misfit(f"optimizers.{key}", value, part.state[parameter][key])


def _state_after_a_step(part: torch.optim.Optimizer) -> dict[torch.Tensor, dict[str, Any]]:
    """What the optimizer keeps of each parameter; the step has length zero, and the rates are zero now."""
    for group in part.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    part.step()
    part.zero_grad()
    return {parameter: dict(state) for parameter, state in part.state.items()}
