"""Spans of tags and their scores, against cases by hand and the rules of conlleval word by word."""

import random
from collections.abc import Sequence

import pytest

from seqexp.data.span_schemes import find_scheme, invalid_steps, is_span_scheme
from seqexp.metrics.spans import Span, SpanScores, find_spans, score_spans


def spans_of(tags: str) -> list[tuple[int, int, str]]:
    return [(span.first, span.end, span.type) for span in find_spans(tags.split())]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O O", []),
        ("B-X", [(0, 1, "X")]),
        ("B-X I-X O B-Y", [(0, 2, "X"), (3, 4, "Y")]),
        ("B-X B-X I-X", [(0, 1, "X"), (1, 3, "X")]),
        ("B-X I-X I-X", [(0, 3, "X")]),
        # broken: I without B begins a span
        ("I-X", [(0, 1, "X")]),
        ("O I-X I-X O", [(1, 3, "X")]),
        # another type begins a span
        ("B-X I-Y", [(0, 1, "X"), (1, 2, "Y")]),
        ("B-X I-X I-Y I-Y", [(0, 2, "X"), (2, 4, "Y")]),
        ("I-X I-Y B-Y", [(0, 1, "X"), (1, 2, "Y"), (2, 3, "Y")]),
        # IOB1: B only between neighbours of one type
        ("I-X I-X B-X I-X O I-Y", [(0, 2, "X"), (2, 4, "X"), (5, 6, "Y")]),
        # IOBES
        ("S-X O B-Y I-Y E-Y", [(0, 1, "X"), (2, 5, "Y")]),
        ("B-X E-X S-X S-X B-X E-X", [(0, 2, "X"), (2, 3, "X"), (3, 4, "X"), (4, 6, "X")]),
        # broken IOBES: after E and S a span begins, and E without B is one
        ("E-X E-X", [(0, 1, "X"), (1, 2, "X")]),
        ("S-X I-X E-X I-X", [(0, 1, "X"), (1, 3, "X"), (3, 4, "X")]),
        ("B-X I-X S-X E-X", [(0, 2, "X"), (2, 3, "X"), (3, 4, "X")]),
        ("O E-X O", [(1, 2, "X")]),
        # a type with hyphens, and tags of no scheme
        ("B-creative-work I-creative-work I-work", [(0, 2, "creative-work"), (2, 3, "work")]),
        ("B-X NOUN I-X", [(0, 1, "X"), (2, 3, "X")]),
    ],
)  # fmt: skip
def test_spans_of_a_sentence(tags: str, expected: list[tuple[int, int, str]]) -> None:
    assert spans_of(tags) == expected


def test_no_words_no_spans() -> None:
    assert find_spans([]) == []
    assert score_spans([], [])[0] == SpanScores(0, 0, 0)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "B-X", "I-X"], True),
        (["B-X", "E-X", "S-Y", "I-Z-z", "O"], True),
        (["I-X"], True),
        (["O"], False),
        ([], False),
        (["NOUN", "VERB"], False),
        (["O", "B-X", "NOUN"], False),
        (["B", "I", "O"], False),
        (["B-", "O"], False),
        (["X-LOC", "O"], False),
    ],
)
def test_what_is_a_span_scheme(tags: list[str], expected: bool) -> None:
    assert is_span_scheme(tags) is expected


def test_scores_by_hand() -> None:
    """Spans: X right, Y of the wrong length, Z missing; and one X too many."""
    true = [["B-X", "I-X", "O", "B-Y", "I-Y", "O", "B-Z"], ["O", "O"]]
    predicted = [["B-X", "I-X", "O", "B-Y", "O", "O", "O"], ["O", "I-X"]]
    total, by_type = score_spans(true, predicted)
    assert total == SpanScores(correct=1, predicted=3, true=3)
    assert (total.precision, total.recall, total.f1) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert by_type == {"X": SpanScores(1, 2, 1), "Y": SpanScores(0, 1, 1), "Z": SpanScores(0, 0, 1)}
    assert by_type["X"].f1 == pytest.approx(2 / 3)
    assert (by_type["Z"].precision, by_type["Z"].recall, by_type["Z"].f1) == (0, 0, 0)


def test_a_span_of_another_type_is_wrong() -> None:
    total, _ = score_spans([["B-X", "I-X"]], [["B-Y", "I-Y"]])
    assert total == SpanScores(0, 1, 1)


def test_sentences_do_not_share_spans() -> None:
    total, _ = score_spans([["B-X"], ["I-X"]], [["B-X"], ["B-X"]])
    assert total == SpanScores(2, 2, 2)


# The rules of conlleval as tables of the prefixes before and now, and its count in one pass over the words.
ENDS = {"BB", "BO", "BS", "IB", "IO", "IS", "EE", "EI", "EO", "EB", "ES", "SE", "SI", "SO", "SB", "SS"}
BEGINS = {
    "BB", "IB", "OB", "EB", "SB", "BS", "IS", "OS", "ES", "SS", "OI", "OE", "EE", "EI", "SE", "SI",
}  # fmt: skip


def conlleval(true: Sequence[str], predicted: Sequence[str]) -> tuple[int, int, int]:
    """Correct, predicted and true spans of a sentence."""

    def cut(tag: str) -> tuple[str, str]:
        return tag[0], tag[2:]

    def ends(before: tuple[str, str], now: tuple[str, str]) -> bool:
        return before[0] + now[0] in ENDS or (before[0] != "O" and before[1] != now[1])

    def begins(before: tuple[str, str], now: tuple[str, str]) -> bool:
        return before[0] + now[0] in BEGINS or (now[0] != "O" and before[1] != now[1])

    correct = guesses = wanted = 0
    last, last_guess = ("O", ""), ("O", "")
    inside = False  # of two spans that began together, with one type
    for tag, guess in zip(map(cut, [*true, "O"]), map(cut, [*predicted, "O"]), strict=True):
        over, guess_over = ends(last, tag), ends(last_guess, guess)
        if inside:
            if over and guess_over and last[1] == last_guess[1]:
                inside, correct = False, correct + 1
            elif over != guess_over or tag[1] != guess[1]:
                inside = False
        new, guess_new = begins(last, tag), begins(last_guess, guess)
        inside = inside or (new and guess_new and tag[1] == guess[1])
        wanted, guesses = wanted + new, guesses + guess_new
        last, last_guess = tag, guess
    return correct, guesses, wanted


@pytest.mark.parametrize("prefixes", ["BI", "I", "BIES"])
def test_random_tags_are_counted_as_conlleval_does(prefixes: str) -> None:
    draw = random.Random(prefixes)
    tags = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in "XY")]
    together = [0, 0, 0]
    sentences = []
    for _ in range(3000):
        length = draw.randint(1, 9)
        true = draw.choices(tags, k=length)
        predicted = [tag if draw.random() < 0.7 else draw.choice(tags) for tag in true]
        total, _ = score_spans([true], [predicted])
        expected = conlleval(true, predicted)
        assert (total.correct, total.predicted, total.true) == expected, (true, predicted)
        together = [a + b for a, b in zip(together, expected, strict=True)]
        sentences.append((true, predicted))
    total, by_type = score_spans(*zip(*sentences, strict=True))
    assert [total.correct, total.predicted, total.true] == together
    assert total.correct > 1000
    assert sum(one.correct for one in by_type.values()) == total.correct
    precision, recall = total.correct / total.predicted, total.correct / total.true
    assert total.f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_spans_cover_all_words_that_are_not_outside() -> None:
    draw = random.Random(1)
    tags = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "XY")]
    for _ in range(500):
        sentence = draw.choices(tags, k=8)
        covered = [position for span in find_spans(sentence) for position in range(span.first, span.end)]
        assert covered == [position for position, tag in enumerate(sentence) if tag != "O"]
        for span in find_spans(sentence):
            assert {tag[2:] for tag in sentence[span.first : span.end]} == {span.type}
            assert isinstance(span, Span)


@pytest.mark.parametrize(
    ("tags", "valid"),
    [
        ("O B-X I-X O B-X B-X I-X", ["IOB2"]),
        ("O I-X I-X B-X I-Y", ["IOB1"]),
        ("B-X E-X S-X S-Y O B-Y I-Y E-Y", ["IOBES"]),
        ("O O", ["IOB2", "IOB1", "IOBES"]),
        ("B-X", ["IOB2"]),
        ("B-X I-Y", []),
        ("B-X I-X O I-X", []),
        ("B-X O", ["IOB2"]),
        ("B-X E-Y", []),
        ("I-X E-X", []),
        ("B-X I-X S-X", []),
        ("S-X E-X", []),
        ("I-X", ["IOB1"]),
        ("B-a-b I-a-b", ["IOB2"]),
    ],
)
def test_which_schemes_allow_a_sentence(tags: str, valid: list[str]) -> None:
    found = [scheme for scheme in ("IOB2", "IOB1", "IOBES") if not invalid_steps(scheme, [tags.split()])]
    assert found == valid


def test_the_scheme_of_many_sentences() -> None:
    """A few broken ones do not change it; without spans there is none."""
    good = [["B-X", "I-X", "O", "B-X"]] * 5
    assert find_scheme([*good, ["O", "I-X"]]) == "IOB2"
    assert invalid_steps("IOB2", [*good, ["O", "I-X"]]) == 1
    assert find_scheme([["I-X", "B-X", "O", "I-X"]]) == "IOB1"
    assert find_scheme([["B-X", "E-X"], ["S-X"]]) == "IOBES"
    assert find_scheme([["NOUN", "O"]]) is None
    assert find_scheme([["O"]]) is None
