"""What each example adds to a metric, so that two runs can be compared on the same examples.

A metric here is a function of sums over the examples of a split. N examples, K numbers of each, G groups.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from seqexp.errors import UserError
from seqexp.metrics.bleu import ORDER, bleu_of_sums
from seqexp.metrics.classification import mcnemar

Floats = npt.NDArray[np.float64]

# The file of an evaluation.
OUTCOMES = "outcomes.safetensors"

# Samples of a bootstrap: many, but of large splits as many as take seconds.
RESAMPLES, FEWEST_RESAMPLES, MOST_DRAWS = 10_000, 1_000, 100_000_000
# Numbers drawn at once.
CHUNK = 4_000_000


def mean_of_ratios(sums: Floats) -> Floats:
    """Return the mean over groups of numerator / denominator, (R,), from sums (R, 2 G).

    The numerators of all groups come first. Groups without denominator are left out.
    """
    numerators, denominators = np.split(sums, 2, axis=1)
    some = denominators > 0
    ratios = np.divide(numerators, denominators, where=some, out=np.zeros_like(numerators))
    means: Floats = ratios.sum(axis=1) / np.maximum(1, some.sum(axis=1))
    return means


# How a metric (R,) follows from sums (R, K).
FORMULAS: Mapping[str, Callable[[Floats], Floats]] = {"ratio": mean_of_ratios, "bleu": bleu_of_sums}
# Numbers of an example; of other formulas an even number.
WIDTHS = {"bleu": (2 + 2 * ORDER,)}


@dataclass(frozen=True)
class Outcome:
    """The numbers (N, K) that each example adds to a metric, and the name of its formula."""

    values: npt.NDArray[Any]
    formula: str = "ratio"

    @property
    def value(self) -> float:
        """The metric over all examples."""
        return float(FORMULAS[self.formula](self.values.sum(axis=0, dtype=np.float64)[None])[0])

    @property
    def right(self) -> npt.NDArray[np.bool_] | None:
        """Which examples are right, (N,), if each counts once and is right or wrong."""
        counts_once = self.formula == "ratio" and self.values.shape[1] == 2 and (self.values[:, 1] == 1).all()
        if not counts_once or not np.isin(self.values[:, 0], (0, 1)).all():
            return None
        found: npt.NDArray[np.bool_] = self.values[:, 0] == 1
        return found


def ratio(numerators: npt.NDArray[Any], denominators: npt.NDArray[Any] | int = 1) -> Outcome:
    """Return the outcome of a ratio of sums, from (N,) each, or of the mean of G ratios, from (N, G) each.

    Accuracy is such a ratio (right, 1), and so is F1 (2 * correct, predicted + true).
    """
    parts = [numerators.astype(np.int64), np.zeros_like(numerators, dtype=np.int64) + denominators]
    return Outcome(np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1))


@dataclass(frozen=True)
class Difference:
    """A metric of two runs on the same examples, and second - first with its 95 % interval.

    For examples that are right or wrong, also how many only one of the two gets right, and McNemar's p.
    """

    first: float
    second: float
    interval: tuple[float, float]
    only_first: int | None = None
    only_second: int | None = None
    p: float | None = None

    @property
    def value(self) -> float:
        return self.second - self.first


def resamples(n: int) -> int:
    """The number of samples that are drawn of `n` examples."""
    return max(FEWEST_RESAMPLES, min(RESAMPLES, MOST_DRAWS // n))


def paired_differences(
    first: Mapping[str, Outcome], second: Mapping[str, Outcome], seed: int = 1
) -> dict[str, Difference]:
    """Compare two runs by every metric that both have, on the same N examples.

    The interval is the percentile interval of the paired bootstrap (Efron & Tibshirani 1993, chapter 13;
    Koehn 2004): examples are drawn with replacement, the same for both runs and all metrics.
    """
    names = [name for name in first if name in second and first[name].formula == second[name].formula]
    pairs = [(first[name], second[name]) for name in names]
    if not names:
        return {}
    n, total = len(pairs[0][0].values), resamples(len(pairs[0][0].values))
    widths = [one.values.shape[1] for pair in pairs for one in pair]
    table = np.concatenate([one.values for pair in pairs for one in pair], axis=1).astype(np.float64)
    draw = np.random.default_rng(seed)
    found: list[list[Floats]] = [[] for _ in names]
    rows = max(1, CHUNK // n)
    for begin in range(0, total, rows):
        count = min(rows, total - begin)
        chosen = draw.integers(0, n, (count, n)) + np.arange(count)[:, None] * n
        weights = np.bincount(chosen.ravel(), minlength=count * n).reshape(count, n)
        sums = np.split(weights @ table, np.cumsum(widths)[:-1], axis=1)
        for number, (one, other) in enumerate(pairs):
            formulas = FORMULAS[one.formula], FORMULAS[other.formula]
            values = [formula(sums[2 * number + side]) for side, formula in enumerate(formulas)]
            found[number].append(values[1] - values[0])
    differences = {}
    for name, (one, other), drawn in zip(names, pairs, found, strict=True):
        low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975))
        right, other_right = one.right, other.right
        counts = () if right is None or other_right is None else mcnemar(right, other_right)
        differences[name] = Difference(one.value, other.value, (float(low), float(high)), *counts)
    return differences


# As a file


def to_bytes(outcomes: Mapping[str, Outcome]) -> bytes:
    """Return outcomes as safetensors, in the smallest type of each; names are those of the metrics."""
    tensors = {}
    for name, outcome in outcomes.items():
        values = outcome.values
        if values.dtype.kind in "biu":
            values = values.astype(np.min_scalar_type(values.max(initial=0)))
        tensors[f"{outcome.formula}/{name}"] = np.ascontiguousarray(values)
    return safetensors.numpy.save(tensors)


def from_bytes(data: bytes) -> dict[str, Outcome]:
    """The inverse of `to_bytes`; the file is untrusted.

    Raises:
        UserError: the file is damaged.
    """
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"it is not a file of outcomes ({error}).") from error
    found = {}
    for key, values in sorted(tensors.items()):
        formula, _, name = key.partition("/")
        sound = formula in FORMULAS and bool(name) and values.ndim == 2 and len(values) > 0
        sound = sound and values.dtype.kind in "uif" and bool((np.isfinite(values) & (values >= 0)).all())
        if not sound or values.shape[1] not in WIDTHS.get(formula, range(2, values.shape[1] + 1, 2)):
            raise UserError(f"its entry {key[:60]!r} is damaged.")
        found[name] = Outcome(values, formula)
    if len({len(one.values) for one in found.values()}) != 1:
        raise UserError("its metrics have different numbers of examples.")
    return found
