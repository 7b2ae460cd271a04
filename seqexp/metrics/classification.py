"""Metrics of classifiers, from true and predicted labels or from probabilities; pure functions of arrays.

N texts, C labels. Labels are numbers from 0 to C - 1; with several labels a text they are zeros and ones
(N, C).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

# Bins of equal width for calibration (Guo et al. 2017 use 15).
BINS = 15


@dataclass(frozen=True)
class LabelScores:
    """Precision, recall, F1, support and number of predictions of each label, (C,) each.

    An undefined ratio is 0.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    support: Numbers
    predicted: Numbers

    @property
    def macro_f1(self) -> float:
        """The mean over the labels that occur, in truth or in predictions."""
        seen = self.support + self.predicted > 0
        return float(self.f1[seen].mean()) if seen.any() else 0.0

    @property
    def weighted_f1(self) -> float:
        """The mean weighted by support."""
        return float((self.f1 * self.support).sum() / max(1, self.support.sum()))


def confusion_matrix(true: Numbers, predicted: Numbers, labels: int) -> Numbers:
    """Count texts by true label (rows) and predicted label (columns), (C, C)."""
    return np.bincount(true * labels + predicted, minlength=labels * labels).reshape(labels, labels)


def label_scores(hits: Numbers, predicted: Numbers, support: Numbers) -> LabelScores:
    """Return scores from counts by label, (C,) each: right predictions, predictions, true labels."""
    precision = hits / np.maximum(1, predicted)
    recall = hits / np.maximum(1, support)
    f1 = 2 * hits / np.maximum(1, predicted + support)
    return LabelScores(precision, recall, f1, support, predicted)


def scores_of_labels(true: Numbers, predicted: Numbers, labels: int) -> LabelScores:
    """Return the scores of each label, for one label a text."""
    matrix = confusion_matrix(true, predicted, labels)
    return label_scores(matrix.diagonal(), matrix.sum(0), matrix.sum(1))


def scores_of_sets(true: Numbers, predicted: Numbers) -> LabelScores:
    """Return the scores of each label, for zeros and ones (N, C)."""
    return label_scores((true * predicted).sum(0), predicted.sum(0), true.sum(0))


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Return probabilities (N, C) of logits divided by a temperature."""
    scaled = logits / temperature
    exps = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Floats = exps / exps.sum(axis=1, keepdims=True)
    return probabilities


@dataclass(frozen=True)
class Calibration:
    """Accuracy, mean confidence and number of texts by bin of confidence, and their weighted difference."""

    edges: Floats
    confidence: Floats
    accuracy: Floats
    counts: Numbers

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al. 2015): the mean of |accuracy - confidence|."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((gaps * self.counts).sum() / max(1, self.counts.sum()))


def calibration(confidence: Floats, right: npt.NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """Compare the confidence of predictions, (N,), with how many are right, in bins (a, b]."""
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    some = np.maximum(1, counts)
    return Calibration(
        edges,
        np.bincount(index, confidence, minlength=bins) / some,
        np.bincount(index, right.astype(np.float64), minlength=bins) / some,
        counts,
    )


def negative_log_likelihood(logits: Floats, true: Numbers, temperature: float = 1.0) -> float:
    """Return the mean of -log p(true label), in nats."""
    scaled = logits / temperature
    top = scaled.max(axis=1)
    log_sum = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
    return float((log_sum - scaled[np.arange(len(true)), true]).mean())


def fit_temperature(logits: Floats, true: Numbers) -> float:
    """Return the temperature that minimises the negative log-likelihood (Guo et al. 2017, section 4.2).

    The search is a golden section over log T from 1/20 to 20, in which the function has one minimum.
    """
    golden = (math.sqrt(5) - 1) / 2
    low, high = -math.log(20), math.log(20)
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        at_left, at_right = (negative_log_likelihood(logits, true, math.exp(t)) for t in (left, right))
        low, high = (low, right) if at_left < at_right else (left, high)
    return math.exp((low + high) / 2)


def rejection_curve(confidence: Floats, right: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return (share of texts kept, accuracy on them), rejecting the least confident, from all to a tenth."""
    order = np.argsort(-confidence, kind="stable")
    sums = np.cumsum(right[order])
    kept = [max(1, round(len(order) * share / 10)) for share in range(10, 0, -1)]
    return [(n / len(order), float(sums[n - 1] / n)) for n in kept]


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[int, int, float]:
    """Compare two classifiers on the same texts by which they get right, (N,) each (McNemar 1947).

    Returns how many only the first gets right, how many only the second, and the exact two-sided p-value: the
    probability of so unequal a division if both were equally good.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n, least = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 0, 0, 1.0
    log_half = n * math.log(2)
    tail = sum(
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - log_half)
        for k in range(least + 1)
    )
    return only_first, only_second, min(1.0, 2 * tail)
