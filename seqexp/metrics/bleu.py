"""Corpus scores of translations, by sacreBLEU, with the signatures that say how they were reckoned."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A score from 0 to 100 (TER: 0 is best, and it has no upper end), and its signature (Post 2018)."""

    value: float
    signature: str


def corpus_scores(
    hypotheses: Sequence[str], references: Sequence[str], names: Sequence[str] = ("bleu", "chrf", "ter")
) -> dict[str, Score]:
    """BLEU (Papineni et al. 2002), chrF (Popović 2015), TER (Snover et al. 2006) with one reference each."""
    from sacrebleu.metrics import BLEU, CHRF, TER

    kinds = {"bleu": BLEU, "chrf": CHRF, "ter": TER}
    scores = {}
    for name in names:
        metric = kinds[name]()
        score = metric.corpus_score(list(hypotheses), [list(references)]).score
        scores[name] = Score(float(score), str(metric.get_signature()))
    return scores
