"""Measured metrics, and their declarations: unit and direction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from seqexp.errors import UserError, suggest

Interval = tuple[float, float]


@dataclass(frozen=True)
class Metric:
    """A measured value, the number of items it averages over, its 95 % interval or None, unit and direction.

    If `higher_is_better` is None, the direction was not declared: the metric is logged, and cannot rank runs.
    """

    value: float
    count: int
    interval: Interval | None = None
    unit: str = ""
    higher_is_better: bool | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON and checkpoints, also where a task computed with numpy's numbers."""
        return {
            "value": float(self.value),
            "count": int(self.count),
            "interval": [float(end) for end in self.interval] if self.interval else None,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
        }


@dataclass(frozen=True)
class MetricSpec:
    """Unit and direction of a metric, declared before anything is measured."""

    unit: str = ""
    higher_is_better: bool | None = None

    def of(self, value: float, count: int, interval: Interval | None = None) -> Metric:
        """Return a measured value of this metric."""
        return Metric(value, count, interval, self.unit, self.higher_is_better)

    @property
    def mode(self) -> str:
        """The direction as ``max`` or ``min``.

        Raises:
            ValueError: the direction was not declared.
        """
        if self.higher_is_better is None:
            raise ValueError("a metric without a declared direction has no mode")
        return "max" if self.higher_is_better else "min"


# Metrics of every run, beside those of its task.
RUN_METRICS: Mapping[str, MetricSpec] = {
    "parameters": MetricSpec("parameters", higher_is_better=False),
    "minutes": MetricSpec("minutes", higher_is_better=False),
    "steps": MetricSpec("steps", higher_is_better=False),
    "speed/tokens_per_s": MetricSpec("tokens per second", higher_is_better=True),
}


def check_monitor(key: str, name: str, declared: Mapping[str, MetricSpec]) -> MetricSpec:
    """Return the declaration of the metric that `key` names.

    Raises:
        UserError: the metric is not measured, or its direction was not declared.
    """
    if name not in declared:
        raise UserError(
            f"{key}={name} is not known; it must be one of {', '.join(declared)}." + suggest(name, declared)
        )
    if declared[name].higher_is_better is None:
        ranked = ", ".join(other for other, spec in declared.items() if spec.higher_is_better is not None)
        raise UserError(
            f"{key}={name}: its task does not declare whether higher is better, so it cannot rank runs; use "
            f"one of {ranked}."
        )
    return declared[name]


def better(value: float, than: float, mode: str) -> bool:
    """Whether `value` is strictly better than `than`; `mode` is ``max`` or ``min``."""
    return value > than if mode == "max" else value < than


def best(values: Iterable[float], mode: str) -> float:
    """Return the best value; `mode` is ``max`` or ``min``."""
    return max(values) if mode == "max" else min(values)
