"""Options of a sweep: a grid, or a search by Optuna."""

import re
from dataclasses import dataclass

from omegaconf import MISSING

from seqexp.config.checks import check_choice, check_range, check_rule

SAMPLERS = ("tpe", "cmaes", "random", "grid")
PRUNERS = ("none", "median", "hyperband")


def is_folder_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name) is not None and not name.startswith(".")


def check_sweep_name(name: str) -> None:
    """Raise UserError if `name` is not a valid name of a folder in ``outputs/sweeps/``."""
    check_rule(
        is_folder_name(name),
        f"sweep.name={name!r} cannot name a folder; use letters, digits, '.', '_' and '-', "
        "at most 100, not starting with '.'.",
    )


@dataclass
class SweepConfig:
    """The folder of a sweep, ``outputs/sweeps/<name>``, and the options of a search (``sweep=optuna``).

    `objectives` are the metrics to optimise (default: `trainer.monitor`). `batch_size` trials are drawn at
    once (default: the number of parallel jobs of the launcher). The sweeper sets `trial`, the number of the
    job's trial.
    """

    name: str = MISSING
    method: str = "grid"
    n_trials: int | None = None
    sampler: str | None = None
    pruner: str | None = None
    objectives: list[str] | None = None
    batch_size: int | None = None
    trial: int | None = None

    def __post_init__(self) -> None:
        if self.name != MISSING:
            check_sweep_name(self.name)
        check_choice("sweep.method", self.method, ("grid", "optuna"))
        search = ("n_trials", "sampler", "pruner", "objectives", "batch_size", "trial")
        for key in search if self.method == "grid" else ():
            value = getattr(self, key)
            check_rule(value is None, f"sweep.{key}={value} is for a search; add sweep=optuna.")
        if self.method == "grid":
            return
        check_rule(self.n_trials is not None, "sweep.n_trials=null is not a number; write sweep.n_trials=30.")
        check_range("sweep.n_trials", self.n_trials, 1)
        check_range("sweep.batch_size", self.batch_size, 1)
        check_choice("sweep.sampler", str(self.sampler), SAMPLERS)
        check_choice("sweep.pruner", str(self.pruner), PRUNERS)
        check_rule(
            self.pruner == "none" or len(self.objectives or ()) < 2,
            f"sweep.pruner={self.pruner} goes with one objective; use sweep.pruner=none for several.",
        )
        check_rule(
            self.pruner == "none" or all(name.startswith("val/") for name in self.objectives or ()),
            f"sweep.pruner={self.pruner} needs validation metrics, which sweep.objectives={self.objectives} "
            "are not; use sweep.pruner=none, or a metric such as val/loss.",
        )
