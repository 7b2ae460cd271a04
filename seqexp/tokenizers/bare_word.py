"""Lower-case words without the signs between them: what word embeddings are trained on.

A word is a run of letters and digits, with apostrophes inside (``don't``, ``o'clock``). The text does not
come back from its words, so language models do not read them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from seqexp.config.tokenizer import BareWordConfig
from seqexp.tokenizers.base import Ids
from seqexp.tokenizers.word import BOUNDARY, UNKNOWN, WordTokenizer

BARE_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def bare_words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return BARE_WORD.findall(text.lower().replace("’", "'"))


class BareWordTokenizer(WordTokenizer):
    """Token 0 is the boundary, 1 the unknown word, then the words from the most frequent on."""

    name = "bare_word"
    lossy = True

    @classmethod
    def fit(cls, config: BareWordConfig, texts: Iterable[str]) -> Self:  # type: ignore[override]
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(bare_words(text))
        often = sorted((-n, word) for word, n in counts.items() if n >= config.min_count)
        return cls([word for _, word in often[: config.vocab_size]])

    def encode(self, text: str) -> Ids:
        return np.array([self._numbers.get(word, UNKNOWN) for word in bare_words(text)], dtype=np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self._word(number) for number in ids if number != BOUNDARY)

    def pieces(self, text: str) -> list[str]:
        return bare_words(text)

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        """Each word, without what is between words."""
        lower = text.lower().replace("’", "'")
        if len(lower) != len(text):  # a few capitals have longer lower-case forms
            return None
        return [match.span() for match in BARE_WORD.finditer(lower)]

    def ends_word(self, number: int) -> bool:
        return number != UNKNOWN

    def join(self, pieces: Sequence[str]) -> str:
        return " ".join(pieces)

    def unknown_characters(self, text: str) -> str:
        unknown = (word for word in bare_words(text) if word not in self._numbers)
        return "".join(dict.fromkeys("".join(unknown)))
