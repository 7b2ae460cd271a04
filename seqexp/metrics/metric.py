"""What a measured number carries, and what is declared of it before it is measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from seqexp.errors import UserError, suggest

Interval = tuple[float, float]


@dataclass(frozen=True)
class Metric:
    """A value, the number of items behind it, its 95 % interval or None, its unit, and its direction.

    `higher_is_better` None means that nobody declared the direction; such a metric is logged, and nothing is
    ranked by it.
    """

    value: float
    count: int
    interval: Interval | None = None
    unit: str = ""
    higher_is_better: bool | None = None

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "value": self.value,
            "count": self.count,
            "interval": list(self.interval) if self.interval else None,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
        }


@dataclass(frozen=True)
class MetricSpec:
    """Unit and direction of a metric, declared before anything is measured."""

    unit: str = ""
    higher_is_better: bool | None = None

    def of(self, value: float, count: int, interval: Interval | None = None) -> Metric:
        """A measured value of this metric."""
        return Metric(value, count, interval, self.unit, self.higher_is_better)

    @property
    def mode(self) -> str:
        """``max`` or ``min``.

        Raises:
            ValueError: the direction was not declared.
        """
        if self.higher_is_better is None:
            raise ValueError("a metric without a declared direction has no mode")
        return "max" if self.higher_is_better else "min"


# What every run can be compared by, beside the metrics of its task.
RUN_METRICS: Mapping[str, MetricSpec] = {
    "parameters": MetricSpec("parameters", higher_is_better=False),
    "minutes": MetricSpec("minutes", higher_is_better=False),
    "steps": MetricSpec("steps", higher_is_better=False),
    "speed/tokens_per_s": MetricSpec("tokens per second", higher_is_better=True),
}


def check_monitor(key: str, name: str, declared: Mapping[str, MetricSpec]) -> MetricSpec:
    """Return the declaration of the metric that `key` names.

    Raises:
        UserError: it is not measured, or its direction was not declared.
    """
    if name not in declared:
        raise UserError(
            f"{key}={name} is not known; it must be one of {', '.join(declared)}." + suggest(name, declared)
        )
    if declared[name].higher_is_better is None:
        ranked = ", ".join(other for other, spec in declared.items() if spec.higher_is_better is not None)
        raise UserError(
            f"{key}={name}: its task does not declare whether higher is better, so nothing can be ranked by "
            f"it; use one of {ranked}."
        )
    return declared[name]


def better(value: float, than: float, mode: str) -> bool:
    """Whether `value` is strictly better; `mode` is ``max`` or ``min``."""
    return value > than if mode == "max" else value < than


def best(values: Iterable[float], mode: str) -> float:
    """The best of some values; `mode` is ``max`` or ``min``."""
    return max(values) if mode == "max" else min(values)
