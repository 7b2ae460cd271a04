"""Optimizers over parameters grouped by their role in the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from seqexp import registry
from seqexp.config.optimizer import AdaGradConfig, AdamConfig, MuonConfig, RMSpropConfig, SGDConfig
from seqexp.errors import UserError
from seqexp.training.depth import depth_groups
from seqexp.training.misfit import refuse_misfit
from seqexp.training.rowwise import SGD, AdaGrad, Adam, AdamW, RMSprop, use_sparse_gradients


@dataclass(frozen=True)
class Parameter:
    """A trainable parameter with its role, and the factor of its learning rate (`optimizer.lr_scale`)."""

    value: nn.Parameter
    role: str
    lr_scale: float = 1.0


Parameters = list[Parameter]


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Freeze the parameters whose names match a pattern, such as ``blocks.0.*``; return their names.

    Raises:
        UserError: a pattern matches no parameter, or all parameters are frozen.
    """
    frozen = []
    for pattern in patterns:
        matched = _matching(model, "trainer.freeze", pattern)
        for name in matched:
            model.get_parameter(name).requires_grad_(False)
        frozen += matched
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"trainer.freeze={list(patterns)} leaves no parameter to train; freeze fewer.")
    return list(dict.fromkeys(frozen))


def _matching(model: nn.Module, key: str, pattern: str) -> list[str]:
    names = [name for name, _ in model.named_parameters()]
    matched = [name for name in names if fnmatchcase(name, pattern)]
    if not matched:
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise UserError(f"{key}: {pattern!r} matches no parameter; there are {shown}.")
    return matched


def trainable_parameters(
    model: nn.Module, lr_scale: Mapping[str, float] | None = None, layer_decay: float = 1.0
) -> Parameters:
    """Return every trainable parameter once, in order, with its role and the factor of its learning rate.

    Roles are ``embedding``, ``head`` (in a module of that name), ``matrix`` (others with two or more
    dimensions) and ``vector``. A head that is tied to the embedding has the role ``embedding``. The last
    pattern that matches a name decides its factor, which `layer_decay` multiplies once for every layer
    (`depth_groups`) between the parameter and the output.

    Raises:
        UserError: a pattern matches no parameter.
    """
    scales = {
        name: factor
        for pattern, factor in (lr_scale or {}).items()
        for name in _matching(model, "optimizer.lr_scale", pattern)
    }
    depths = {
        name: layer_decay**depth
        for depth, group in enumerate(reversed(depth_groups(model)))
        for name in group
    }
    found: Parameters = []
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in embeddings:
            role = "embedding"
        elif parameter.ndim < 2:
            role = "vector"
        else:
            role = "head" if "head" in name.split(".") else "matrix"
        found.append(Parameter(parameter, role, scales.get(name, 1.0) * depths[name]))
    assert len({id(one.value) for one in found}) == len(found)
    return found


def _groups(
    parameters: Parameters,
    lr: float,
    weight_decay: float,
    roles: tuple[str, ...] = ("embedding", "head", "matrix", "vector"),
) -> list[dict[str, Any]]:
    """Return parameter groups: weight decay applies to matrices and embeddings, not to norms and biases.

    Parameters with different learning rates are in different groups.
    """
    # Keep the order of roles, by which a saved optimizer finds its parameters.
    ordered = [one for role in roles for one in parameters if one.role == role]
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for one in ordered:
        decays = one.role != "vector"
        new = {"params": [], "weight_decay": weight_decay if decays else 0.0, "lr": lr * one.lr_scale}
        groups.setdefault((decays, one.lr_scale), new)["params"].append(one.value)
    return list(groups.values())


def adamw(config: AdamConfig, parameters: Parameters) -> list[torch.optim.Optimizer]:
    groups = _groups(parameters, config.lr, config.weight_decay)
    betas = (config.betas[0], config.betas[1])
    return [AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)]


def adam(config: AdamConfig, parameters: Parameters) -> list[torch.optim.Optimizer]:
    groups = _groups(parameters, config.lr, config.weight_decay)
    betas = (config.betas[0], config.betas[1])
    return [Adam(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)]


def sgd(config: SGDConfig, parameters: Parameters) -> list[torch.optim.Optimizer]:
    groups = _groups(parameters, config.lr, config.weight_decay)
    return [SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)]


def rmsprop(config: RMSpropConfig, parameters: Parameters) -> list[torch.optim.Optimizer]:
    groups = _groups(parameters, config.lr, config.weight_decay)
    return [RMSprop(groups, lr=config.lr, alpha=config.decay, eps=config.eps, momentum=config.momentum)]


def adagrad(config: AdaGradConfig, parameters: Parameters) -> list[torch.optim.Optimizer]:
    groups = _groups(parameters, config.lr, config.weight_decay)
    return [AdaGrad(groups, lr=config.lr, initial_accumulator_value=config.initial, eps=1e-10)]


def muon(config: MuonConfig, parameters: Parameters) -> list[torch.optim.Optimizer]:
    """Muon for matrices, AdamW for embeddings, head and vectors.

    Raises:
        UserError: the model has no matrices besides embeddings and head.
    """
    matrices = _groups(parameters, config.lr, config.weight_decay, ("matrix",))
    if not matrices:
        raise UserError("optimizer=muon needs a model with matrices; use optimizer=adamw.")
    groups = _groups(parameters, config.adamw_lr, config.weight_decay, ("embedding", "head", "vector"))
    betas = (config.betas[0], config.betas[1])
    found: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            matrices,
            lr=config.lr,
            momentum=config.momentum,
            ns_steps=config.ns_steps,
            weight_decay=config.weight_decay,
        )
    ]
    if groups:  # empty if all of these are frozen
        found.append(AdamW(groups, lr=config.adamw_lr, betas=betas, eps=config.eps, fused=True))
    return found


class Optimizers:
    """One or more torch optimizers that share a schedule and step together.

    `sparse` are the names of embeddings whose updates touch the rows of the batch alone.
    """

    def __init__(self, config: Any, model: nn.Module) -> None:
        build: Callable[..., list[torch.optim.Optimizer]] = registry.load("optimizer", config.name)
        self.parts = build(config, trainable_parameters(model, config.lr_scale, config.layer_decay))
        self.sparse = use_sparse_gradients(model, config.sparse_embeddings, self.parts)
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
        """Load what `state` returned; options such as betas stay those of the configuration.

        Raises:
            TypeError, ValueError: the state belongs to other parameters.
        """
        for part, state in zip(self.parts, states, strict=True):
            typed = [{k: v for k, v in group.items() if k != "params"} for group in part.param_groups]
            fresh = _state_after_a_step(part)
            part.load_state_dict(state)
            for group, settings in zip(part.param_groups, typed, strict=True):
                group.update(settings)
            for parameter, wanted in fresh.items():
                loaded = part.state.get(parameter)
                if loaded:  # empty before the first step
                    # State that only the new options need, such as a momentum, starts from its initial value.
                    part.state[parameter] = {**wanted, **{k: v for k, v in loaded.items() if v is not None}}
                    for key, value in wanted.items():
                        refuse_misfit(f"optimizers.{key}", value, part.state[parameter][key])


def _state_after_a_step(part: torch.optim.Optimizer) -> dict[torch.Tensor, dict[str, Any]]:
    """Return the optimizer's state per parameter after a step without gradients, at learning rate 0.

    The learning rates stay 0.
    """
    for group in part.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    part.step()
    part.zero_grad()
    return {parameter: dict(state) for parameter, state in part.state.items()}
