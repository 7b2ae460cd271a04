"""Spans of tagged words, and their precision, recall and F1 as conlleval counts them (Tjong Kim Sang 2000).

The rules read IOB1, IOB2 (BIO) and IOBES alike (`data/span_schemes.py`), and find the spans of any sequence
of tags: a model also predicts broken ones.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seqexp.data.span_schemes import OUTSIDE, tag_parts


@dataclass(frozen=True, order=True)
class Span:
    """Words `first` to `end` - 1 of a sentence, and the type of the span."""

    first: int
    end: int
    type: str


@dataclass(frozen=True)
class SpanScores:
    """Numbers of correct, predicted and true spans, and their ratios; an undefined ratio is 0."""

    correct: int
    predicted: int
    true: int

    @property
    def precision(self) -> float:
        return self.correct / max(1, self.predicted)

    @property
    def recall(self) -> float:
        return self.correct / max(1, self.true)

    @property
    def f1(self) -> float:
        return 2 * self.correct / max(1, self.predicted + self.true)


def find_spans(tags: Sequence[str]) -> list[Span]:
    """Return the spans of a sentence in order.

    A tag other than O begins a span if it is B or S, if the tag before is O, E or S, or if that has another
    type. A span ends before the next span, or before O. A tag of no span scheme counts as O.
    """
    found: list[Span] = []
    first: int | None = None
    prefix, kind = OUTSIDE, ""
    for position, tag in enumerate([*tags, OUTSIDE]):
        before, before_kind = prefix, kind
        prefix, kind = tag_parts(tag)
        begins = prefix != OUTSIDE and (prefix in "BS" or before in "OES" or kind != before_kind)
        if first is not None and (begins or prefix == OUTSIDE):
            found.append(Span(first, position, before_kind))
            first = None
        if begins:
            first = position
    return found


def score_spans(
    true: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]
) -> tuple[SpanScores, dict[str, SpanScores]]:
    """Compare the tags of sentences: the scores of all spans (micro average), and those of each type.

    A predicted span is correct if a true one has the same words and the same type.
    """
    counts: dict[str, Counter[str]] = {"correct": Counter(), "predicted": Counter(), "true": Counter()}
    for one, other in zip(true, predicted, strict=True):
        spans = {"true": set(find_spans(one)), "predicted": set(find_spans(other))}
        spans["correct"] = spans["true"] & spans["predicted"]
        for name, some in spans.items():
            counts[name].update(span.type for span in some)
    types = sorted(counts["true"] | counts["predicted"])
    by_type = {
        kind: SpanScores(counts["correct"][kind], counts["predicted"][kind], counts["true"][kind])
        for kind in types
    }
    return SpanScores(*(counts[name].total() for name in ("correct", "predicted", "true"))), by_type
