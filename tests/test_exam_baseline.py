"""The character 5-gram model against a plain implementation with dictionaries."""

import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seqexp.exams.ngram import CharNgram

BOUNDARY, OTHER = "<boundary>", "<other>"


class Dictionaries:
    """Interpolated Witten–Bell by the equations of Chen & Goodman (1999)."""

    def __init__(self, documents: Sequence[str], order: int) -> None:
        self.order = order
        self.characters = set("".join(documents))
        tokens = [token for text in documents for token in (BOUNDARY, *text)]
        self.counts = Counter(
            tuple(tokens[i - length + 1 : i + 1])
            for length in range(1, order + 1)
            for i in range(length - 1, len(tokens))
        )
        self.totals: Counter[tuple[str, ...]] = Counter()
        self.kinds: Counter[tuple[str, ...]] = Counter()
        for n_gram, n in self.counts.items():
            self.totals[n_gram[:-1]] += n
            self.kinds[n_gram[:-1]] += 1

    def p(self, token: str, history: tuple[str, ...]) -> float:
        shorter = self.p(token, history[1:]) if history else 1 / (len(self.characters) + 2)
        N, T = self.totals[history], self.kinds[history]
        return (self.counts[(*history, token)] + T * shorter) / (N + T) if N else shorter

    def sum_of(self, text: str, words: bool) -> float:
        known = [c if c in self.characters else OTHER for c in (" " + text if words else text)]
        tokens = [BOUNDARY, *known]
        total = 0.0
        for i in range(1, len(tokens)):
            total += math.log(self.p(tokens[i], tuple(tokens[max(0, i - self.order + 1) : i])))
        if words:
            last = tuple(tokens[-(self.order - 1) :])
            ends = [BOUNDARY, *(c for c in self.characters if not c.isalpha())]
            total += math.log(sum(self.p(end, last) for end in ends))
        return total


ALPHABET = "abé .'"
DOCUMENTS = st.lists(st.text(ALPHABET, min_size=1, max_size=30), min_size=1, max_size=4)


@given(
    documents=DOCUMENTS.filter(lambda documents: sum(len(text) + 1 for text in documents) >= 5),
    order=st.integers(2, 5),
    texts=st.lists(st.text(ALPHABET + "xé", max_size=12), min_size=1, max_size=5),
)
@example(documents=["abab", "bbaa"], order=5, texts=["aba", "", "x", "xaxa", "abab"])
@example(documents=["aaaaa"], order=5, texts=["aaaaaaa", "é"])
def test_against_dictionaries(documents: list[str], order: int, texts: list[str]) -> None:
    model, plain = CharNgram(documents, order), Dictionaries(documents, order)
    for words in (False, True):
        found = model.log_probabilities(texts, words=words)
        assert found == pytest.approx([plain.sum_of(text, words) for text in texts], abs=1e-9)


@given(documents=st.lists(st.text(ALPHABET, min_size=1, max_size=3), min_size=1, max_size=2))
def test_very_short_documents(documents: list[str]) -> None:
    """Documents may be shorter than the model's order."""
    found = CharNgram(documents).log_probabilities(["ab", "x"], words=False)
    plain = Dictionaries(documents, 5)
    assert found == pytest.approx([plain.sum_of("ab", False), plain.sum_of("x", False)], abs=1e-9)


@given(
    documents=DOCUMENTS.filter(lambda documents: sum(map(len, documents)) > 5),
    history=st.text(ALPHABET + "x", max_size=8),
)
def test_the_probabilities_of_the_next_character_sum_to_one(documents: list[str], history: str) -> None:
    """Over every letter, an unseen character, and the end of a word."""
    model = CharNgram(documents)
    letters = [letter for letter in "abé" if letter in "".join(documents)]
    before, *after = model.log_probabilities(
        [f" {history}", *(f" {history}{following}" for following in [*letters, "☃"])], words=False
    )
    end = model.log_probabilities([history], words=True)[0]
    assert sum(math.exp(value - before) for value in [*after, end]) == pytest.approx(1, abs=1e-9)


def test_unseen_characters_are_one_symbol() -> None:
    model = CharNgram(["abcabcab", "bca"])
    one, other, two, known = model.log_probabilities(["ax", "a☃", "axx", "ab"], words=False)
    assert one == other
    assert -math.inf < two < one < known


def test_documents_meet_at_the_boundary_alone() -> None:
    """The end of a document is not a history of the next one; the boundary is."""
    model = CharNgram(["xxab", "cdyy"] * 20)
    after_b, start, across, inside = model.log_probabilities(["b", "c", "bc", "cd"], words=False)
    assert across - after_b < math.log(0.01)
    assert start > math.log(0.4)
    assert inside - start > math.log(0.9)


def test_texts_may_come_twice_and_in_any_order() -> None:
    model = CharNgram(["the old door", "a door"])
    texts = ["door", "old", "door", "a", "", "old"]
    found = model.log_probabilities(texts, words=True)
    single = [model.log_probabilities([text], words=True)[0] for text in texts]
    assert found == pytest.approx(single, abs=1e-12)
    assert len(model.log_probabilities([], words=True)) == 0


def test_more_characters_than_fit_into_the_keys() -> None:
    """With the alphabet of Chinese text the rarest characters become unknown, and keys do not overflow."""
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 7000)))
    model = CharNgram([many, "abcabc" * 50])
    assert model.size**5 < 2**63
    usual, rare = model.log_probabilities(["abcab", "丂丂丂"], words=False)
    assert math.isfinite(rare)
    assert rare < usual < 0
