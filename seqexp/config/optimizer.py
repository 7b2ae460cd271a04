"""Options of optimizers and learning-rate schedules."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from seqexp.config.checks import SWITCH, check_choice, check_range, check_rule


def _check_betas(key: str, betas: list[float]) -> None:
    check_rule(len(betas) == 2, f"{key}={betas} must be two numbers, such as [0.9,0.95].")
    for beta in betas:
        check_range(key, beta, 0, below=1)


@dataclass
class OptimizerConfig:
    """Options of all optimizers.

    `weight_decay` applies to matrices and embeddings, not to norms and biases. `lr_scale` maps patterns of
    parameter names, such as ``embedding.*``, to factors of the learning rate. `layer_decay` multiplies the
    rate once for every layer between a parameter and the output (Howard & Ruder 2018 divide by 2.6).
    `sparse_embeddings` lets updates of embeddings touch only the rows that the batch reads (``auto``: if the
    model suggests it).
    """

    ADDED: ClassVar[dict[str, Any]] = {"lr_scale": {}, "layer_decay": 1.0, "sparse_embeddings": "auto"}

    name: str = MISSING
    lr: float = 1e-3
    weight_decay: float = 0.0
    lr_scale: dict[str, float] = field(default_factory=dict)
    layer_decay: float = 1.0
    sparse_embeddings: str = "auto"

    def __post_init__(self) -> None:
        self.sparse_embeddings = self.sparse_embeddings.lower()  # true on the command line arrives as "True"
        check_choice("optimizer.sparse_embeddings", self.sparse_embeddings, SWITCH)
        for pattern, factor in self.lr_scale.items():
            check_range(f"optimizer.lr_scale[{pattern}]", factor, 0)
        check_range("optimizer.layer_decay", self.layer_decay, above=0, high=1)
        check_range("optimizer.lr", self.lr, above=0)
        check_range("optimizer.weight_decay", self.weight_decay, 0)


@dataclass
class AdamConfig(OptimizerConfig):
    """Kingma & Ba 2015; decoupled decay (adamw) from Loshchilov & Hutter 2019."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_betas("optimizer.betas", self.betas)
        check_range("optimizer.eps", self.eps, above=0)


@dataclass
class SGDConfig(OptimizerConfig):
    """Gradient descent with momentum."""

    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("optimizer.momentum", self.momentum, 0, below=1)
        check_rule(
            not self.nesterov or self.momentum > 0,
            "optimizer.nesterov=true needs optimizer.momentum above 0.",
        )


@dataclass
class RMSpropConfig(OptimizerConfig):
    """Gradients divided by a running root mean square; `decay` is the weight of the past."""

    decay: float = 0.9
    eps: float = 1e-5
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("optimizer.decay", self.decay, 0, below=1)
        check_range("optimizer.eps", self.eps, above=0)
        check_range("optimizer.momentum", self.momentum, 0, below=1)


@dataclass
class AdaGradConfig(OptimizerConfig):
    """Gradients divided by the root of the sum of their squares so far, which begins with `initial`."""

    lr: float = 0.05
    initial: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("optimizer.initial", self.initial, 0, 1e30)


@dataclass
class MuonConfig(OptimizerConfig):
    """Muon (Jordan et al. 2024) with `lr` for matrices; AdamW with `adamw_lr` for other parameters."""

    momentum: float = 0.95
    ns_steps: int = 5
    adamw_lr: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("optimizer.momentum", self.momentum, 0, below=1)
        check_range("optimizer.ns_steps", self.ns_steps, 1, 100)
        check_range("optimizer.adamw_lr", self.adamw_lr, above=0)
        _check_betas("optimizer.betas", self.betas)
        check_range("optimizer.eps", self.eps, above=0)


@dataclass
class SchedulerConfig:
    """The learning rate from warm-up to `min_lr`; `decay_fraction` is the decaying share of wsd.

    `USES` are the settings, besides the warm-up, that have an effect.
    """

    USES: ClassVar[tuple[str, ...]] = ("min_lr",)

    name: str = MISSING
    warmup_steps: int = 0
    min_lr: float = 0.0
    decay_fraction: float = 0.2

    def __post_init__(self) -> None:
        check_range("scheduler.warmup_steps", self.warmup_steps, 0)
        check_range("scheduler.min_lr", self.min_lr, 0)
        check_range("scheduler.decay_fraction", self.decay_fraction, 0, 1)

    def without_effect(self) -> list[str]:
        """Return notes on settings that this schedule does not read."""
        defaults = {"min_lr": 0.0, "decay_fraction": 0.2}
        return [
            f"scheduler.{key}={getattr(self, key):g} has no effect with scheduler={self.name}"
            for key, default in defaults.items()
            if key not in self.USES and getattr(self, key) != default
        ]


@dataclass
class ConstantConfig(SchedulerConfig):
    """No decay."""

    USES: ClassVar[tuple[str, ...]] = ()


@dataclass
class WSDConfig(SchedulerConfig):
    """Warm-up, stable, decay."""

    USES: ClassVar[tuple[str, ...]] = ("min_lr", "decay_fraction")
