"""One token per word between white space, for texts that are cut into words already.

Unlike `word.py` it does not cut words itself, and the text comes back with single spaces.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from seqexp.config.tokenizer import WhitespaceConfig
from seqexp.errors import UserError
from seqexp.tokenizers.base import Ids, Tokenizer

BOUNDARY, UNKNOWN, FIRST = 0, 1, 2
WORD = re.compile(r"\S+")


class WhitespaceTokenizer(Tokenizer):
    """Token 0 is the boundary, 1 the unknown word, then the words of training from the most frequent on.

    With `lower`, words are read in lower case.
    """

    name = "whitespace"
    bos_id = eos_id = BOUNDARY
    unk_id = UNKNOWN
    word_start = ""

    def __init__(self, words: Sequence[str], lower: bool = False) -> None:
        self.words, self.lower = list(words), lower
        self.vocab_size = FIRST + len(self.words)
        self._numbers = {word: number for number, word in enumerate(self.words, start=FIRST)}

    @classmethod
    def fit(cls, config: WhitespaceConfig, texts: Iterable[str], more: Sequence[str] = ()) -> Self:
        """Keep frequent words, and then those of `more` that are not among them, up to `vocab_size`."""
        tokenizer = cls([], config.lower)
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(tokenizer.pieces(text))
        often = sorted((-n, word) for word, n in counts.items() if n >= config.min_count)
        others = (word for one in more for word in tokenizer.pieces(one))
        words = dict.fromkeys([*(word for _, word in often), *others])
        return cls(list(words)[: config.vocab_size], config.lower)

    def encode(self, text: str) -> Ids:
        return np.array([self._numbers.get(word, UNKNOWN) for word in self.pieces(text)], dtype=np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        return self.join([self._word(number) for number in ids if number != BOUNDARY])

    def _word(self, number: int) -> str:
        return self.words[number - FIRST] if number >= FIRST else "\ufffd"

    def pieces(self, text: str) -> list[str]:
        return WORD.findall(text.lower() if self.lower else text)

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        """Each word, without the space around it."""
        return [match.span() for match in WORD.finditer(text)]

    def piece(self, number: int) -> str:
        return self.words[number - FIRST] if number >= FIRST else super().piece(number)

    def ends_word(self, number: int) -> bool:
        del number
        return True

    def join(self, pieces: Sequence[str]) -> str:
        return " ".join(pieces)

    def unknown_characters(self, text: str) -> str:
        unknown = (word for word in self.pieces(text) if word not in self._numbers)
        return "".join(dict.fromkeys("".join(unknown)))

    def state(self) -> dict[str, Any]:
        return {"words": self.words, "lower": self.lower}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        words, lower = state.get("words"), state.get("lower")
        if (
            not isinstance(words, list)
            or not isinstance(lower, bool)
            or not all(isinstance(word, str) and word for word in words)
            or len(set(words)) != len(words)
        ):
            raise UserError("the saved whitespace tokenizer is damaged: its words are not distinct.")
        return cls(words, lower)
