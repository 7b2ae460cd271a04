"""Length and coverage penalties of beam search, as pure functions."""

import torch
from torch import Tensor


def wu_length(length: int, alpha: float) -> float:
    """Return lp(Y) = ((5 + |Y|) / 6)^alpha, the divisor of log-probabilities (Wu et al. 2016, eq. 14)."""
    return ((5 + length) / 6) ** alpha


def average_length(length: int, alpha: float) -> float:
    """Return |Y|^alpha; with alpha = 1 the score is the mean log-probability of a token."""
    return float(length) ** alpha


def no_length(length: int, alpha: float) -> float:
    """Return 1: the score is the log-probability."""
    del length, alpha
    return 1.0


LENGTH_PENALTIES = {"wu": wu_length, "average": average_length, "none": no_length}


def wu_coverage(coverage: Tensor, beta: float) -> Tensor:
    """Return cp = beta * sum over source positions of log(min(coverage, 1)) (Wu et al. 2016, eq. 14).

    `coverage` (..., S) is the attention to each real source token, summed over the target. cp is at most 0.
    """
    # Without a lower limit, one token without attention makes all scores equal, minus infinity.
    return beta * torch.log(coverage.clamp(min=1e-6, max=1.0)).sum(dim=-1)
