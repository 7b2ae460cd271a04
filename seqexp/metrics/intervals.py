"""Confidence intervals of proportions and of mean credits."""

import math

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

# The 97.5 % point of the normal distribution: two-sided 95 %.
Z = 1.959963984540054


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Return the 95 % score interval of the proportion successes / n, for n independent trials (Wilson 1927).

    Unlike p ± 1.96 sqrt(p (1-p) / n) it stays within [0, 1] and has a positive width if all trials agree.
    """
    p = successes / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    margin = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return max(0.0, centre - margin), min(1.0, centre + margin)


def clustered_wilson(shares: float, squares: float, clusters: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion whose trials come in equally large, correlated clusters.

    `shares` and `squares` are the sums over clusters of the proportion of successes and of its square. The
    variance between clusters gives the number of independent trials with the same standard error (Kish 1965:
    the design effect): at least one per cluster, and at most all `trials`.
    """
    p = shares / clusters
    within = clusters * p * (1 - p)
    spread = (squares - clusters * p * p) / max(1, clusters - 1)  # between clusters
    independent = within / max(spread, within / trials) if within > 1e-9 else clusters
    n = max(float(clusters), independent)
    return wilson(p * n, n)


def accuracy_interval(credits: Values, clusters: Numbers) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `credits` in [0, 1], correlated within `clusters`, (N,) both.

    The variance of the mean over clusters of any sizes (Cochran 1977, section 11.8, large populations) gives
    the number of independent trials with the same standard error, for Wilson's interval: at least one per
    cluster, and at most N.
    """
    p, n = float(credits.mean()), len(credits)
    sums = np.bincount(clusters, credits - p)
    m = len(np.unique(clusters))
    variance = float((sums**2).sum()) / n**2 * m / max(1, m - 1)
    within = p * (1 - p)
    # If all are right, or all wrong, the correlation within clusters is unknown: count one trial per cluster.
    independent = within / max(variance, within / n) if within > 1e-9 else m
    effective = max(float(m), independent)
    return wilson(p * effective, effective)


def paired_difference(
    credits: Values, others: Values, clusters: Numbers
) -> tuple[float, tuple[float, float]]:
    """Return the mean of `credits` - `others`, (N,) each, on the same questions, and its 95 % interval.

    Credits are correlated within `clusters`, (N,).
    """
    difference = credits - others
    mean, n = float(difference.mean()), len(difference)
    sums = np.bincount(clusters, difference - mean)
    m = len(np.unique(clusters))
    margin = Z * math.sqrt(float((sums**2).sum()) / n**2 * m / max(1, m - 1))
    return mean, (mean - margin, mean + margin)
