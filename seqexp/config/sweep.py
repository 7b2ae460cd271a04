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
    """Raises UserError if `name` could be another place than a folder in ``outputs/sweeps/``."""
    check_rule(
        is_folder_name(name),
        f"sweep.name={name!r} cannot name a folder; use letters, digits, '.', '_' and '-', "
        "at most 100, not starting with '.'.",
    )


@dataclass
class SweepConfig:
    """The folder of a sweep, ``outputs/sweeps/<name>``, and for ``sweep=optuna`` how to search.

    `objectives` are the metrics to better, `trainer.monitor` if none is named. `batch_size` trials are
    drawn at once, by default as many as the launcher runs side by side. `trial` is set by the sweeper: the
    number of the trial that a job belongs to.
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
        check_rule(self.n_trials is not None, "sweep.n_trials=null is no number; write sweep.n_trials=30.")
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
            f"sweep.pruner={self.pruner} looks at validations, and sweep.objectives={self.objectives} is not "
            "measured there; use sweep.pruner=none, or a metric such as val/loss.",
        )
