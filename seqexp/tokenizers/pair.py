"""What translation knows of its two languages: a tokenizer for each, and how long translations get."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seqexp.errors import UserError
from seqexp.tokenizers.base import Ids, Tokenizer, tokenizer_from_plain

# Added to a source's length before the ratio: short sentences may grow more.
LENGTH_OFFSET = 5


def length_ratio(source_lengths: npt.NDArray[np.int64], target_lengths: npt.NDArray[np.int64]) -> float:
    """The least ratio with which 99.9 % of these translations fit (see `PairTokenizer`)."""
    ratios = target_lengths / (source_lengths + LENGTH_OFFSET)
    return max(0.01, float(np.quantile(ratios, 0.999, method="higher")))


@dataclass(frozen=True)
class PairTokenizer:
    """`source` and `target` are the same where one vocabulary serves both languages.

    Of the training pairs, 99.9 % have at most `length_ratio` * (source tokens + 5) target tokens.
    """

    source: Tokenizer
    target: Tokenizer
    length_ratio: float

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
        """The parts of a source that its tokens stand for, unknown ones too."""
        return self.source.pieces(self.source.sentence_start + text)

    def decode_target(self, ids: Sequence[int]) -> str:
        return self.target.decode(ids).removeprefix(self.target.sentence_start)

    def longest_target(self, source_tokens: int, ratio: float | None = None) -> int:
        """How many tokens a translation may have, its end not counted."""
        return max(1, math.ceil((ratio or self.length_ratio) * (source_tokens + LENGTH_OFFSET)))

    def to_plain(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        target = None if self.joint else self.target.to_plain()
        state = {"source": self.source.to_plain(), "target": target, "length_ratio": self.length_ratio}
        return {"name": "pair", "state": state}

    @classmethod
    def from_plain(cls, plain: Any) -> "PairTokenizer":
        """The inverse of `to_plain`.

        Raises:
            UserError: the data is not that of two tokenizers.
        """
        state = plain.get("state") if isinstance(plain, dict) else None
        ratio = state.get("length_ratio") if isinstance(state, dict) else None
        if not isinstance(state, dict) or not isinstance(ratio, float) or not 0 < ratio < 1000:
            raise UserError("the checkpoint holds no pair of tokenizers.")
        source = tokenizer_from_plain(state.get("source"))
        target = source if state.get("target") is None else tokenizer_from_plain(state["target"])
        return cls(source, target, ratio)
