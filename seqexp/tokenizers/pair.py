"""How translation uses its two tokenizers: sentences that stand alone, and how long translations get."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqexp.tokenizers.base import Ids, Tokenizer

# Added to a source's length before the ratio: short sentences may grow more.
LENGTH_OFFSET = 5


def length_ratio(source_lengths: npt.NDArray[np.int64], target_lengths: npt.NDArray[np.int64]) -> float:
    """The least ratio with which 99.9 % of these translations fit (see `PairTokenizer`)."""
    ratios = target_lengths / (source_lengths + LENGTH_OFFSET)
    return max(0.01, float(np.quantile(ratios, 0.999, method="higher")))


@dataclass(frozen=True)
class PairTokenizer:
    """A view of the tokenizers of two languages; they are the same where one vocabulary serves both.

    Of the training pairs, 99.9 % have at most `length_ratio` * (source tokens + 5) target tokens.
    `typographic_spaces` says whether training sources had non-breaking spaces and the like.
    """

    source: Tokenizer
    target: Tokenizer
    length_ratio: float
    typographic_spaces: bool = False

    @property
    def sides(self) -> tuple[Tokenizer, Tokenizer]:
        return self.source, self.target

    @property
    def joint(self) -> bool:
        return self.source is self.target

    def encode_source(self, text: str) -> Ids:
        return self.source.encode(self.source.sentence_start + text)

    def encode_target(self, text: str) -> Ids:
        return self.target.encode(self.target.sentence_start + text)

    def source_pieces(self, text: str) -> list[str]:
        """The strings that the tokens of a source stand for, unknown ones included."""
        return self.source.pieces(self.source.sentence_start + text)

    def decode_target(self, ids: Sequence[int]) -> str:
        return self.target.decode(ids).removeprefix(self.target.sentence_start)

    def longest_target(self, source_tokens: int, ratio: float | None = None) -> int:
        """The greatest number of tokens of a translation, its end not counted."""
        return max(1, math.ceil((ratio or self.length_ratio) * (source_tokens + LENGTH_OFFSET)))
