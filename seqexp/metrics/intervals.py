"""Confidence intervals of shares: what a count of successes says about the rate behind it."""

import math

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

# The 97.5 % point of the normal distribution: two-sided 95 %.
Z = 1.959963984540054


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927), for n independent trials.

    Unlike p ± 1.96 sqrt(p (1-p) / n) it stays within [0, 1] and is not empty when all trials agree.
    """
    p = successes / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_wilson(shares: float, squares: float, clusters: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share whose trials come in equally large clusters that go together.

    `shares` and `squares` are the sums over clusters of the share of successes and of its square. The
    spread between clusters gives the number of independent trials with the same standard error
    (Kish 1965: the design effect): at least one a cluster, and at most all `trials`.
    """
    p = shares / clusters
    within = clusters * p * (1 - p)
    spread = (squares - clusters * p * p) / max(1, clusters - 1)  # between clusters
    independent = within / max(spread, within / trials) if within > 1e-9 else clusters
    n = max(float(clusters), independent)
    return wilson(p * n, n)


def accuracy_interval(credits: Values, clusters: Numbers) -> tuple[float, float]:
    """The 95 % interval of the mean of `credits` in [0, 1], where those of a cluster go together, (N,) both.

    The variance of the mean between clusters of any sizes (Cochran 1977, section 11.8, large populations)
    gives the number of independent trials with the same standard error, for Wilson's interval: at least one a
    cluster, and at most all.
    """
    p, n = float(credits.mean()), len(credits)
    sums = np.bincount(clusters, credits - p)
    m = len(np.unique(clusters))
    variance = float((sums**2).sum()) / n**2 * m / max(1, m - 1)
    within = p * (1 - p)
    # Where all are right, or all wrong, nothing tells whether those of a cluster differ.
    independent = within / max(variance, within / n) if within > 1e-9 else m
    effective = max(float(m), independent)
    return wilson(p * effective, effective)


def paired_difference(
    credits: Values, others: Values, clusters: Numbers
) -> tuple[float, tuple[float, float]]:
    """The mean of `credits` - `others` on the same questions, and its 95 % interval, clustered as above."""
    difference = credits - others
    mean, n = float(difference.mean()), len(difference)
    sums = np.bincount(clusters, difference - mean)
    m = len(np.unique(clusters))
    half = Z * math.sqrt(float((sums**2).sum()) / n**2 * m / max(1, m - 1))
    return mean, (mean - half, mean + half)
