"""Metrics of classifiers against scikit-learn, SciPy, and cases worked by hand."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest  # type: ignore[import-untyped]
from sklearn import metrics as sk

from seqexp.metrics.baseline import majority, tfidf_logistic
from seqexp.metrics.classification import (
    calibration,
    confusion_matrix,
    fit_temperature,
    label_scores,
    mcnemar,
    negative_log_likelihood,
    rejection_curve,
    scores_of_labels,
    scores_of_sets,
    softmax,
)

# (texts, labels, labels that may occur): some labels never occur, in truth, in predictions or in both.
CASES = [(1, 2, 2), (40, 2, 2), (60, 5, 5), (25, 9, 4), (200, 77, 60), (3, 6, 6)]


def drawn(n: int, labels: int, used: int, seed: int) -> tuple[Any, Any]:
    """Labels and predictions that are right about half of the time."""
    draw = np.random.default_rng([n, labels, seed])
    some = draw.permutation(labels)[:used]
    true = draw.choice(some, n)
    return true, np.where(draw.random(n) < 0.5, true, draw.choice(draw.permutation(some)[: used - 1], n))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "labels", "used"), CASES)
def test_one_label_a_text(n: int, labels: int, used: int, seed: int) -> None:
    true, predicted = drawn(n, labels, used, seed)
    every = list(range(labels))
    ours = scores_of_labels(true, predicted, labels)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        true, predicted, labels=every, zero_division=0
    )
    np.testing.assert_allclose(ours.precision, precision, atol=1e-12)
    np.testing.assert_allclose(ours.recall, recall, atol=1e-12)
    np.testing.assert_allclose(ours.f1, f1, atol=1e-12)
    np.testing.assert_array_equal(ours.support, support)
    np.testing.assert_array_equal(ours.predicted, np.bincount(predicted, minlength=labels))
    matrix = confusion_matrix(true, predicted, labels)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(true, predicted, labels=every))
    assert matrix.trace() / n == pytest.approx(sk.accuracy_score(true, predicted))
    assert ours.macro_f1 == pytest.approx(sk.f1_score(true, predicted, average="macro", zero_division=0))
    weighted = sk.f1_score(true, predicted, average="weighted", zero_division=0)
    assert ours.weighted_f1 == pytest.approx(weighted)


@pytest.mark.parametrize("seed", range(4))
def test_several_labels_a_text(seed: int) -> None:
    """The first label never occurs, the second only in predictions, the third only in the truth."""
    draw = np.random.default_rng(seed)
    true, predicted = ((draw.random((50, 7)) < share).astype(np.int64) for share in (0.3, 0.4))
    true[:, :2] = predicted[:, [0, 2]] = 0
    ours = scores_of_sets(true, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sk.precision_recall_fscore_support(true, predicted, zero_division=0)
        macro = sk.f1_score(true, predicted, average="macro", labels=range(1, 7), zero_division=0)
        weighted = sk.f1_score(true, predicted, average="weighted", zero_division=0)
    for name, expected in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        np.testing.assert_allclose(getattr(ours, name), expected, atol=1e-12)
    assert ours.macro_f1 == pytest.approx(macro)
    assert ours.weighted_f1 == pytest.approx(weighted)


def test_scores_of_nothing_are_zero() -> None:
    nothing = np.zeros(3, dtype=np.int64)
    scores = label_scores(nothing, nothing, nothing)
    assert (scores.macro_f1, scores.weighted_f1) == (0.0, 0.0)
    assert not scores.precision.any()


# Calibration


def test_softmax_of_large_logits() -> None:
    p = softmax(np.array([[1000.0, 1000.0], [0.0, -2000.0], [0.0, 2 * math.log(3)]]))
    np.testing.assert_allclose(p, np.array([[0.5, 0.5], [1, 0], [0.1, 0.9]]))
    np.testing.assert_allclose(softmax(np.array([[0.0, 2 * math.log(3)]]), 2.0), [[0.25, 0.75]])


def test_calibration_of_a_case_worked_by_hand() -> None:
    """Five bins of width 0.2, closed above: (0.4, 0.6] has 0.5 and 0.6, (0.8, 1] the other three."""
    confidence = np.array([0.5, 0.6, 0.9, 1.0, 0.81])
    right = np.array([True, False, True, True, False])
    found = calibration(confidence, right, 5)
    np.testing.assert_allclose(found.edges, [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_array_equal(found.counts, [0, 0, 2, 0, 3])
    np.testing.assert_allclose(found.confidence, [0, 0, 0.55, 0, 2.71 / 3])
    np.testing.assert_allclose(found.accuracy, [0, 0, 0.5, 0, 2 / 3])
    assert found.error == pytest.approx(2 / 5 * 0.05 + 3 / 5 * (2.71 / 3 - 2 / 3))
    assert calibration(np.array([0.0, 1.0]), np.array([False, True])).error == 0


def calibrated(n: int, labels: int, scale: float = 2.0) -> tuple[Any, Any]:
    """Logits, and labels drawn from their softmax."""
    draw = np.random.default_rng(0)
    logits = scale * draw.normal(size=(n, labels))
    cumulated = softmax(logits).cumsum(axis=1)
    return logits, (draw.random((n, 1)) > cumulated).sum(axis=1).clip(max=labels - 1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_scaling_recovers_a_known_temperature(temperature: float) -> None:
    """Logits from whose softmax the labels were drawn, multiplied by it."""
    logits, true = calibrated(20_000, 4)
    found = fit_temperature(logits * temperature, true)
    assert found == pytest.approx(temperature, rel=0.03)
    assert found == pytest.approx(temperature * fit_temperature(logits, true), rel=1e-5)
    best = negative_log_likelihood(logits * temperature, true, found)
    for other in (0.98 * found, 1.02 * found):
        assert negative_log_likelihood(logits * temperature, true, other) > best


def test_temperature_scaling_calibrates() -> None:
    logits, true = calibrated(20_000, 4)
    right = logits.argmax(axis=1) == true
    before, after = (calibration(softmax(5 * logits, t).max(axis=1), right).error for t in (1.0, 5.0))
    assert before > 0.1
    assert after < 0.015


def test_the_log_likelihood_is_that_of_scikit_learn() -> None:
    logits, true = calibrated(50, 3)
    for temperature in (0.5, 1.0, 3.0):
        expected = sk.log_loss(true, softmax(logits, temperature), labels=range(3))
        assert negative_log_likelihood(logits, true, temperature) == pytest.approx(expected)
    assert negative_log_likelihood(np.array([[2000.0, 0.0]]), np.array([1])) == 2000


def test_temperature_stays_in_its_range() -> None:
    """Without a mistake the best temperature is 0, and with mistakes alone it is infinite."""
    logits, right = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([0, 1])
    assert fit_temperature(logits, right) == pytest.approx(1 / 20, rel=0.01)
    assert fit_temperature(logits, 1 - right) == pytest.approx(20, rel=0.01)


def test_the_rejection_curve() -> None:
    """Ten texts; the less sure are more often wrong."""
    confidence = np.array([0.55, 0.95, 0.6, 0.9, 0.65, 0.85, 0.7, 0.8, 0.75, 0.99])
    right = np.array([False, True, False, True, True, True, True, False, True, True])
    # From the surest on: right, right, right, right, wrong, right, right, right, wrong, wrong.
    assert rejection_curve(confidence, right) == [
        (1.0, 0.7), (0.9, pytest.approx(7 / 9)), (0.8, pytest.approx(7 / 8)), (0.7, pytest.approx(6 / 7)),
        (0.6, pytest.approx(5 / 6)), (0.5, 0.8), (0.4, 1), (0.3, 1), (0.2, 1), (0.1, 1),
    ]  # fmt: skip
    assert rejection_curve(np.array([0.7]), np.array([True])) == [(1.0, 1.0)] * 10


# Comparison


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1), (1, 0), (3, 3), (5, 12), (0, 30), (400, 460), (5000, 5200)]
)
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    """With texts that both get right, and texts that neither gets right."""
    right = np.array([[True, False]] * first + [[False, True]] * second + [[True, True], [False, False]] * 9)
    only_first, only_second, p = mcnemar(right[:, 0], right[:, 1])
    assert (only_first, only_second) == (first, second)
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert p == pytest.approx(expected, rel=1e-6)
    assert mcnemar(right[:, 1], right[:, 0]) == (second, first, p)


# Baselines


def test_the_most_frequent_label() -> None:
    np.testing.assert_array_equal(majority(np.array([2, 0, 2, 1, 2]), 3), [2, 2, 2])
    sets = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(majority(sets, 2), [[1, 0, 0]] * 2)


def test_tfidf_with_logistic_regression() -> None:
    """Pairs of words are features, and case is not."""
    train = ["not good", "good", "not bad", "bad"] * 10
    labels = np.array([0, 1, 1, 0] * 10)
    np.testing.assert_array_equal(tfidf_logistic(train, labels, ["NOT bad", "Not Good", "new"])[:2], [1, 0])
    sets = np.stack([labels, 1 - labels, np.array([1, 0, 1, 0] * 10)], axis=1)
    np.testing.assert_array_equal(tfidf_logistic(train, sets, ["not good", "bad"]), sets[[0, 3]])
