"""Lower-case words without the signs between them: what word embeddings are trained on.

A word is a run of letters and digits, with apostrophes inside (``don't``, ``o'clock``). The text does not
come back from its words, so language models do not read them.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Any, Self

import numpy as np

from seqexp.config.tokenizer import BareWordConfig
from seqexp.tokenizers.base import Ids
from seqexp.tokenizers.word import BOUNDARY, UNKNOWN, WordTokenizer

BARE_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def bare_words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return BARE_WORD.findall(text.lower().replace("’", "'"))


def phrase_scores(texts: Iterable[str], min_count: int) -> dict[tuple[str, str], float]:
    """Return the score of each pair of neighbours seen more than `min_count` times.

    It is (count of the pair - min_count) * words / (count of the one * count of the other); the discount
    keeps rare pairs out (word2phrase.c of Mikolov et al.). Only words seen `min_count` times or more count.
    """
    numbers: dict[str, int] = {}
    pieces = [
        np.array([numbers.setdefault(word, len(numbers)) for word in bare_words(text)], dtype=np.int64)
        for text in texts
    ]
    words = list(numbers)
    counts = sum((np.bincount(piece, minlength=len(words)) for piece in pieces), np.zeros(len(words), int))
    frequent = counts >= min_count
    total = int(counts[frequent].sum())
    pairs: list[Any] = []
    for piece in pieces:
        near = frequent[piece[:-1]] & frequent[piece[1:]]
        pairs.append(piece[:-1][near] * len(words) + piece[1:][near])
    keys, often = np.unique(np.concatenate([*pairs, np.zeros(0, np.int64)]), return_counts=True)
    some = often > min_count
    left, right = np.divmod(keys[some], max(1, len(words)))
    scores = (often[some] - min_count) * total / (counts[left] * counts[right])
    return {(words[i], words[j]): float(score) for i, j, score in zip(left, right, scores, strict=True)}


def merged(words: Sequence[str], phrases: Container[str]) -> list[tuple[int, int]]:
    """Return the beginning and end of each token: one of the words, or the two of a phrase, from the left."""
    found, at = [], 0
    while at < len(words):
        pair = at + 1 < len(words) and f"{words[at]}_{words[at + 1]}" in phrases
        found.append((at, at + 1 + pair))
        at += 1 + pair
    return found


class BareWordTokenizer(WordTokenizer):
    """Token 0 is the boundary, 1 the unknown word, then the words from the most frequent on.

    Words have no ``_``, so that a token with one is a phrase.
    """

    name = "bare_word"
    lossy = True

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(words)
        self._phrases = frozenset(word for word in words if "_" in word)

    @classmethod
    def fit(cls, config: BareWordConfig, texts: Iterable[str]) -> Self:  # type: ignore[override]
        phrases: frozenset[str] = frozenset()
        if config.phrases:
            texts = list(texts)
            scores = phrase_scores(texts, config.min_count)
            phrases = frozenset(f"{a}_{b}" for (a, b), score in scores.items() if score > config.phrases)
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_tokens(bare_words(text), phrases))
        often = sorted((-n, word) for word, n in counts.items() if n >= config.min_count)
        return cls([word for _, word in often[: config.vocab_size]])

    def encode(self, text: str) -> Ids:
        return np.array([self._numbers.get(word, UNKNOWN) for word in self.pieces(text)], dtype=np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self._word(number) for number in ids if number != BOUNDARY)

    def pieces(self, text: str) -> list[str]:
        return _tokens(bare_words(text), self._phrases)

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        """Each word or phrase, without what is between them."""
        lower = text.lower().replace("’", "'")
        if len(lower) != len(text):  # a few capitals have longer lower-case forms
            return None
        spans = [match.span() for match in BARE_WORD.finditer(lower)]
        words = [lower[first:last] for first, last in spans]
        return [(spans[first][0], spans[last - 1][1]) for first, last in merged(words, self._phrases)]

    def ends_word(self, number: int) -> bool:
        return number != UNKNOWN

    def join(self, pieces: Sequence[str]) -> str:
        return " ".join(pieces)

    def unknown_characters(self, text: str) -> str:
        unknown = (word for word in self.pieces(text) if word not in self._numbers)
        return "".join(dict.fromkeys("".join(unknown)))


def _tokens(words: list[str], phrases: Container[str]) -> list[str]:
    return ["_".join(words[first:last]) for first, last in merged(words, phrases)] if phrases else words
