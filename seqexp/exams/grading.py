"""Grade exams: a pair is right if its good side is more likely than its bad side; a tie counts half."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from seqexp.exams.questions import BANDS, NEW_STRETCHES, Exam, MinimalPair, band_of
from seqexp.metrics.intervals import accuracy_interval, paired_difference

Credits = npt.NDArray[np.float64]
MISTAKES = 10


def credits_of(good: Credits, bad: Credits) -> Credits:
    """Return the credit of each pair: 1, 1/2 for a tie, or 0; NaN if a side has no score.

    `good` and `bad` are the log-probabilities of the sides, (N,).
    """
    right = (good > bad) + 0.5 * (good == bad)
    return np.where(np.isnan(good) | np.isnan(bad), np.nan, right)


def grade(
    exam: Exam,
    good: Credits,
    bad: Credits,
    unknown: Sequence[str],
    baseline: tuple[Credits, Credits] | None = None,
) -> dict[str, Any]:
    """Return the report of an exam as plain values.

    `good`, `bad` and the two arrays of `baseline` are log-probabilities in nats, (N,). `unknown` holds the
    characters of each pair that the model cannot generate: such pairs are counted and skipped, also for the
    baseline. Intervals are 95 % confidence intervals, clustered by word if a word has several pairs.
    """
    credits = credits_of(good, bad)
    judged = ~np.isnan(credits)
    baseline_credits = credits_of(*baseline) if baseline else None
    clusters = np.unique([pair.good for pair in exam.pairs], return_inverse=True)[1]

    def cell(chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
        chosen = chosen & judged
        if not chosen.any():
            return {"pairs": 0}
        found: dict[str, Any] = {"pairs": int(chosen.sum()), **_share(credits[chosen], clusters[chosen])}
        if baseline_credits is not None:
            others = baseline_credits[chosen]
            found["baseline"] = _share(others, clusters[chosen])
            ahead, interval = paired_difference(credits[chosen], others, clusters[chosen])
            found["ahead"] = {"value": ahead, "interval": interval}
        return found

    skipped = [characters for characters in unknown if characters]
    report: dict[str, Any] = {
        "name": exam.name,
        "origin": exam.origin,
        "questions": len(exam.pairs),
        "words": len(np.unique(clusters)) if exam.of_words else None,
        "overall": cell(np.ones(len(exam.pairs), dtype=bool)),
        "groups": [
            {"by": by, "name": name, **cell(np.array([key(pair) == name for pair in exam.pairs]))}
            for by, key, names in _groupings(exam.pairs)
            for name in names
        ],
        "ties": int((credits == 0.5).sum()),
        "skipped": len(skipped),
        "unknown_characters": "".join(dict.fromkeys("".join(skipped)))[:100],
        "mistakes": _mistakes(exam.pairs, good, bad),
        "notes": list(exam.notes),
    }
    if skipped:
        shown = report["unknown_characters"]
        report["notes"].append(
            f"{len(skipped):,} of {len(exam.pairs):,} pairs were skipped: the model cannot generate {shown}"
        )
    return report


def _share(credits: Credits, clusters: npt.NDArray[np.int64]) -> dict[str, Any]:
    low, high = accuracy_interval(credits, clusters)
    return {"accuracy": float(credits.mean()), "interval": [low, high]}


def _groupings(
    pairs: list[MinimalPair],
) -> list[tuple[str, Callable[[MinimalPair], str | None], list[str]]]:
    """Return the ways to group pairs: the name, the group of a pair, and the groups in order."""
    found: list[tuple[str, Callable[[MinimalPair], str | None], list[str]]] = []
    if any(pair.seen is not None for pair in pairs):
        found.append(("training", lambda pair: "seen" if pair.seen else "unseen", ["seen", "unseen"]))
        # The first band is the group "unseen" above.
        found.append(("frequency", lambda pair: band_of(pair.seen or 0), [name for _, _, name in BANDS[1:]]))
    if any(pair.new_stretch is not None for pair in pairs):
        names = list(NEW_STRETCHES.values())
        found.append(("non-word", lambda pair: NEW_STRETCHES.get(pair.new_stretch or 0), names))
    for by in ("field", "phenomenon", "paradigm"):
        names = list(dict.fromkeys(getattr(pair, by) for pair in pairs if getattr(pair, by)))
        if len(names) > 1:
            found.append((by, lambda pair, by=by: getattr(pair, by), names))  # type: ignore[misc]
    return found


def _mistakes(pairs: list[MinimalPair], good: Credits, bad: Credits) -> list[dict[str, Any]]:
    """Return the pairs with the largest margins of the bad side, the largest first."""
    margin = np.nan_to_num(good - bad, nan=math.inf)
    worst = [i for i in np.argsort(margin, kind="stable")[:MISTAKES] if margin[i] < 0]
    return [
        {
            "good": pairs[i].good,
            "bad": pairs[i].bad,
            "phenomenon": pairs[i].phenomenon,
            "log_probability_good": float(good[i]),
            "log_probability_bad": float(bad[i]),
        }
        for i in worst
    ]
