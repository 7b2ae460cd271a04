"""95 % intervals of shares: published figures, clusters, coverage."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from seqexp.metrics.intervals import accuracy_interval, clustered_wilson, paired_difference, wilson

Values = npt.NDArray[np.float64]


def test_wilson_by_a_published_figure() -> None:
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0000, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, n), bounds in published.items():
        assert wilson(successes, n) == pytest.approx(bounds, abs=5e-5)


def test_clusters_that_go_together_count_once() -> None:
    """Clusters of equal trials are as good as one trial each; independent trials count each for itself."""
    draw = np.random.default_rng(0)
    whole = draw.integers(0, 2, 400).astype(float)
    low, high = clustered_wilson(whole.sum(), (whole**2).sum(), 400, 40_000)
    assert (low, high) == pytest.approx(wilson(whole.sum(), 400), abs=1e-3)
    shares = draw.binomial(100, 0.3, 400) / 100
    low, high = clustered_wilson(shares.sum(), (shares**2).sum(), 400, 40_000)
    expected = wilson(shares.sum() * 100, 40_000)
    assert (low, high) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("share", [1 / 3, 0.66, 2 / 3])
def test_clusters_that_are_all_alike(share: float) -> None:
    """However the sums are rounded, the interval is that of all trials: there are no more than these."""
    shares = np.full(1000, share)
    low, high = clustered_wilson(shares.sum(), (shares**2).sum(), 1000, 50_000)
    assert (low, high) == pytest.approx(wilson(share * 50_000, 50_000), abs=1e-6)


def test_the_clustered_interval_covers_the_truth() -> None:
    """Of 1,000 samples with clusters that differ, about 95 % of the intervals hold the true share."""
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        rates = draw.beta(4, 2, 60)
        shares = draw.binomial(30, rates) / 30
        low, high = clustered_wilson(shares.sum(), (shares**2).sum(), 60, 1800)
        covered += low <= 4 / 6 <= high
    assert 930 <= covered <= 970


# Questions one by one, of which some are about the same word


def test_questions_that_stand_alone_have_wilsons_interval() -> None:
    for n, right in ((40, 13), (40, 0), (40, 40), (7, 6), (1, 1), (1, 0)):
        credits = np.array([1.0] * right + [0.0] * (n - right))
        assert accuracy_interval(credits, np.arange(n)) == pytest.approx(wilson(right, n), abs=1e-12)
        assert accuracy_interval(credits, np.arange(n)[::-1] * 3) == pytest.approx(
            wilson(right, n), abs=1e-12
        )


def test_questions_that_go_together_count_less() -> None:
    """Four that always agree are as good as one; four that do not, as four; never more than that."""
    draw = np.random.default_rng(0)
    words = np.repeat(np.arange(300), 4)
    agreeing = np.repeat(draw.integers(0, 2, 300).astype(float), 4)
    share = float(agreeing.mean())
    assert accuracy_interval(agreeing, words) == pytest.approx(wilson(share * 300, 300), abs=1e-3)
    single = draw.integers(0, 2, 1200).astype(float)
    expected = wilson(float(single.sum()), 1200)
    assert accuracy_interval(single, words) == pytest.approx(expected, abs=2e-3)
    order = draw.permutation(1200)
    assert accuracy_interval(agreeing[order], words[order]) == pytest.approx(
        accuracy_interval(agreeing, words), abs=1e-12
    )


@pytest.mark.parametrize("clusters", [299, 300])
def test_words_that_are_all_alike(clusters: int) -> None:
    """One right and one wrong of each: as many trials as there are, with one that differs or without."""
    credits = np.tile([1.0, 0.0], 300)
    credits[2 * clusters :] = 1
    interval = accuracy_interval(credits, np.repeat(np.arange(300), 2))
    assert interval == pytest.approx(wilson(float(credits.sum()), 600), abs=1e-3)


def some_answers(draw: np.random.Generator, words: int = 60) -> tuple[Values, Values, npt.NDArray[np.int64]]:
    """Two models' credits on words of one to five questions; each model has words that it knows."""
    sizes = draw.integers(1, 6, words)
    clusters = np.repeat(np.arange(words), sizes)
    one, other = (draw.random(len(clusters)) < draw.beta(a, 1, words)[clusters] for a in (1.5, 1.0))
    return one.astype(float), other.astype(float), clusters


def test_intervals_of_questions_cover_the_truth() -> None:
    """Of 600 exams about 95 % of the intervals hold the true share and the true difference."""
    draw = np.random.default_rng(2)
    truth, of_other = 1.5 / 2.5, 1 / 2  # the means of the two beta distributions
    shares = differences = 0
    for _ in range(600):
        one, other, clusters = some_answers(draw)
        low, high = accuracy_interval(one, clusters)
        shares += low <= truth <= high
        _, (low, high) = paired_difference(one, other, clusters)
        differences += low <= truth - of_other <= high
    assert 0.92 * 600 <= shares <= 0.98 * 600
    assert 0.92 * 600 <= differences <= 0.98 * 600


def test_paired_differences_by_a_bootstrap_of_words() -> None:
    one, other, clusters = some_answers(np.random.default_rng(3), 200)
    mean, (low, high) = paired_difference(one, other, clusters)
    assert mean == pytest.approx(one.mean() - other.mean())
    assert low < mean < high
    assert mean - low == pytest.approx(high - mean)
    sums, sizes = np.bincount(clusters, one - other), np.bincount(clusters)
    chosen = np.random.default_rng(4).integers(0, 200, (4000, 200))
    again = sums[chosen].sum(1) / sizes[chosen].sum(1)
    assert high - low == pytest.approx(2 * 1.96 * again.std(), rel=0.06)


def test_paired_differences_of_questions_that_stand_alone() -> None:
    """The textbook's interval: the mean and 1.96 standard errors of the differences."""
    one, other, _ = some_answers(np.random.default_rng(5))
    mean, (_, high) = paired_difference(one, other, np.arange(len(one)))
    error = float((one - other).std(ddof=1)) / math.sqrt(len(one))
    assert (mean, high - mean) == pytest.approx((float((one - other).mean()), 1.959964 * error), rel=1e-6)
    assert paired_difference(one, one, np.arange(len(one))) == (0, (0, 0))
