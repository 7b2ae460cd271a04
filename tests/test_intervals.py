"""95 % intervals of shares: published figures, clusters, coverage."""

import numpy as np
import pytest

from seqexp.intervals import clustered_wilson, wilson


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
