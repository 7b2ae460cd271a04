"""Running text with the counts of its words: what every kind of word vectors begins with."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seqexp.data.base import Data
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.text import TextData
from seqexp.errors import UserError

# Entries of the table from which negatives are drawn.
TABLE = 1 << 20
# Words that are counted at a time.
BLOCK = 1 << 22


class Vocabulary:
    """The counts (V,) of the tokens of the training split; special tokens are no words and count nothing.

    Raises:
        UserError: there are fewer than two words.
    """

    def __init__(self, counts: npt.NDArray[np.int64]) -> None:
        self.counts = counts
        if (counts > 0).sum() < 2:
            raise UserError(
                f"the vocabulary has {(counts > 0).sum()} words, and word vectors need two; give more "
                "text, or lower tokenizer.min_count= (words seen less often are left out)."
            )

    @classmethod
    def of_training(cls, text: TextData) -> "Vocabulary":
        """Count the words of the training split."""
        size = text.tokenizer.vocab_size
        counts = sum(np.bincount(block, minlength=size) for block in text.splits["train"].blocks(BLOCK))
        assert not isinstance(counts, int)
        counts[list(text.tokenizer.special_tokens().values())] = 0
        return cls(counts)

    def keep(self, sample: float) -> npt.NDArray[np.float32]:
        """Return the probability (V,) that a word stays in the text: sqrt(s / f) + s / f, at most 1.

        Source: word2vec.c; f is the word's share of the text.
        """
        share = self.counts / self.counts.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(share > 0, sample / share, 0.0)
        kept = np.minimum(1.0, np.sqrt(ratio) + ratio) if sample else np.ones_like(share)
        return np.where(self.counts > 0, kept, 0.0).astype(np.float32)

    def table(self, exponent: float) -> npt.NDArray[np.int32]:
        """Return a table in which each word has a share of entries proportional to count^exponent."""
        weights = np.zeros(len(self.counts))
        there = self.counts > 0
        weights[there] = self.counts[there].astype(np.float64) ** exponent
        ends = np.cumsum(weights / weights.sum())
        positions = (np.arange(TABLE) + 0.5) / TABLE
        return np.minimum(np.searchsorted(ends, positions), np.flatnonzero(there)[-1]).astype(np.int32)


class WordData(Data):
    """A `text` and the counts (V,) of its tokens; a subclass makes examples for a model with `options`."""

    def __init__(self, text: TextData, options: Any, preprocessor: Preprocessor | None = None) -> None:
        self.text, self.options, self.config, self.seed = text, options, text.config, text.seed
        saved = (preprocessor.values if preprocessor else {}).get("counts")
        if saved is None:
            self.counts = Vocabulary.of_training(text).counts
        else:
            self.counts = Vocabulary(_checked_counts(saved, text.tokenizer.vocab_size)).counts
        self.preprocessor = Preprocessor({"text": text.tokenizer}, values={"counts": self.counts.tolist()})
        self.splits = text.splits

    @classmethod
    def build(cls, config: Any, tokenizer: Any = None, seed: int = 1, preprocessor: Any = None) -> Self:
        raise NotImplementedError("made from a text by the task")

    def describe(self) -> dict[str, Any]:
        described = self.text.describe()
        return {**described, "preprocessor": self.preprocessor.describe()}


def _checked_counts(saved: Any, size: int) -> npt.NDArray[np.int64]:
    """Return the counts in a preprocessor, which is untrusted."""
    well_formed = (
        isinstance(saved, list)
        and len(saved) == size
        and all(type(count) is int and 0 <= count < 1 << 50 for count in saved)
    )
    if not well_formed:
        raise UserError("the checkpoint holds no counts of the words of its vocabulary.")
    return np.array(saved, dtype=np.int64)
