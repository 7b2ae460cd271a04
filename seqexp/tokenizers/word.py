"""One token per word or sign, from which the text comes back exactly as it was.

Whether a space stands before a token is known from the token itself. The usual case carries no mark:
a word has a space before it, a sign has none; at the start of a line, and after an apostrophe, a hyphen or
an opening bracket, a word has none either. Other cases carry a mark: ``▁?`` is a question mark with
a space before it, as in French, and ``￭C`` a word without one, as in "20°C".
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from seqexp.config.tokenizer import WordConfig
from seqexp.errors import UserError
from seqexp.tokenizers.base import Ids, Tokenizer

BOUNDARY, UNKNOWN, FIRST = 0, 1, 2
SPACED, JOINED = "▁", "￭"

# English endings ('s, n't's t), then elisions (l', qu'), words, and any other single character.
ENDING = r"['’](?:s|t|m|d|re|ve|ll)\b"
WORD = re.compile(rf"(?<=\w){ENDING}|\w+['’](?=\w)(?!(?<=['’])(?:s|t|m|d|re|ve|ll)\b)|\w+|[^\w]")
# After these a word usually follows without a space.
JOINING = ("'", "’", "-", "(", "[", "\n")


def split_words(text: str) -> Iterator[str]:
    """The tokens of `text`, with their marks."""
    spaces, before = 0, "\n"
    for match in WORD.finditer(text):
        token = match[0]
        if token == " " and spaces == 0:
            spaces = 1
            continue
        usual = _usually_spaced(before, token)
        if spaces and not usual:
            yield SPACED + token
        elif (usual and not spaces) or token in (SPACED, JOINED):
            yield JOINED + token
        else:
            yield token
        spaces, before = 0, token
    if spaces:
        yield SPACED


def join_words(tokens: Iterable[str]) -> str:
    """The inverse of `split_words`."""
    text, before = [], "\n"
    for token in tokens:
        if token.startswith(SPACED):
            text.append(" ")
            token = token[1:]
        elif token.startswith(JOINED) and len(token) > 1:
            token = token[1:]
        elif _usually_spaced(before, token):
            text.append(" ")
        text.append(token)
        before = token or before
    return "".join(text)


def _usually_spaced(before: str, token: str) -> bool:
    return (token[:1].isalnum() or token[:1] == "_") and not before.endswith(JOINING)


class WordTokenizer(Tokenizer):
    """Token 0 is the boundary, 1 the unknown word, then the words from the most frequent on."""

    name = "word"
    bos_id = eos_id = BOUNDARY
    unk_id = UNKNOWN
    word_start = ""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.vocab_size = FIRST + len(self.words)
        self._numbers = {word: number for number, word in enumerate(self.words, start=FIRST)}

    @classmethod
    def fit(cls, config: WordConfig, texts: Iterable[str]) -> Self:
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text))
        # By count, then in alphabetical order, so that the same text gives the same numbers.
        often = sorted((-n, word) for word, n in counts.items() if n >= config.min_count)
        return cls([word for _, word in often[: config.vocab_size]])

    def encode(self, text: str) -> Ids:
        return np.array([self._numbers.get(word, UNKNOWN) for word in split_words(text)], dtype=np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        return join_words(self._word(number) for number in ids if number != BOUNDARY)

    def _word(self, number: int) -> str:
        return self.words[number - FIRST] if number >= FIRST else "\ufffd"

    def pieces(self, text: str) -> list[str]:
        return list(split_words(text))

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        """Each word or sign, without the space before it."""
        found, begin = [], 0
        for token in split_words(text):
            bare = token[1:] if len(token) > 1 and token[0] in (SPACED, JOINED) else token
            if bare == SPACED:  # spaces at the end of the text
                found.append((begin, len(text)))
                continue
            begin = text.index(bare, begin)
            found.append((begin, begin + len(bare)))
            begin += len(bare)
        return found

    def piece(self, number: int) -> str:
        return self.words[number - FIRST] if number >= FIRST else super().piece(number)

    def ends_word(self, number: int) -> bool:
        """Every token but the unknown one and those that are joined to the word before."""
        return number != UNKNOWN and not self.piece(number).startswith(JOINED)

    def join(self, pieces: Sequence[str]) -> str:
        return join_words(pieces)

    def unknown_characters(self, text: str) -> str:
        unknown = (word for word in split_words(text) if word not in self._numbers)
        return "".join(dict.fromkeys("".join(word.lstrip(SPACED + JOINED) for word in unknown)))

    def state(self) -> dict[str, Any]:
        return {"words": self.words}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        words = state.get("words")
        if (
            not isinstance(words, list)
            or not all(isinstance(word, str) and word for word in words)
            or len(set(words)) != len(words)
        ):
            raise UserError("the saved word tokenizer is damaged: its words are not distinct.")
        return cls(words)
