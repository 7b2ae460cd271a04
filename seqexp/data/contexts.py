"""Running text as examples for word vectors: each word, the words around it, and words that are not there."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from seqexp.data.base import Data
from seqexp.data.batch import Batch
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.text import TextData
from seqexp.errors import UserError

Tokens = npt.NDArray[np.int64]

# Seeds of the draws for held-out splits, which are the same in every run.
HELD_OUT = 0x5EED
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


class ContextData(Data):
    """The examples of `text` that a model with `options` (`Word2VecConfig`) reads.

    A batch holds the words of ``data.batch_size`` passages of ``data.seq_len`` words; contexts end where a
    passage or a document ends. Its tensors are `contexts` (R, C) and `outputs` (R, O), filled up with -1, and
    `labels` (R, O): 1 for the word itself, 0 for the others.
    """

    def __init__(self, text: TextData, options: Any, preprocessor: Preprocessor | None = None) -> None:
        self.text, self.options, self.config, self.seed = text, options, text.config, text.seed
        saved = (preprocessor.values if preprocessor else {}).get("counts")
        if saved is None:
            vocabulary = Vocabulary.of_training(text)
        else:
            vocabulary = Vocabulary(_checked_counts(saved, text.tokenizer.vocab_size))
        self.counts = vocabulary.counts
        self.preprocessor = Preprocessor(
            {"text": text.tokenizer}, values={"counts": vocabulary.counts.tolist()}
        )
        self.splits, self.validated_on = text.splits, f"contexts of {options.window} words"
        self._keep, self._table = vocabulary.keep(options.sample), vocabulary.table(options.exponent)
        near = np.arange(1, options.window + 1)
        self._offsets = np.concatenate([-near[::-1], near])

    @classmethod
    def build(cls, config: Any, tokenizer: Any = None, seed: int = 1, preprocessor: Any = None) -> Self:
        raise NotImplementedError("made from a text by the task")

    @property
    def steps_per_epoch(self) -> float:
        return self.text.steps_per_epoch

    def train_batch(self, step: int) -> Batch:
        draw = np.random.Generator(np.random.SFC64([self.seed, step]))
        return self.batch(self.text.train_batch(step).inputs.numpy(), draw)

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """The whole split once, in order, with the same draws each time."""
        for number, windows in enumerate(self.text.eval_batches(split)):
            # Padding after the end of the split is no word.
            tokens = windows.inputs.numpy().copy()
            tokens[np.arange(tokens.shape[1]) >= windows.lengths["targets"].numpy()[:, None]] = -1
            yield self.batch(tokens, np.random.Generator(np.random.SFC64([HELD_OUT, number])))

    def batch(self, tokens: Tokens, draw: np.random.Generator) -> Batch:
        """Return the examples of passages (B, T) of tokens; negative tokens are padding."""
        words, passage = self._thinned(tokens, draw)
        n, reach = len(words), self.options.window
        near = draw.integers(1, reach + 1, n, dtype=np.int32)
        others = draw.integers(0, TABLE, (n, self.options.negative), dtype=np.int32)
        # Beyond both ends: passages that no word is in.
        padded = np.pad(words, reach, constant_values=-1)
        around = np.pad(passage, reach, constant_values=-1)
        positions = np.arange(reach, n + reach)[:, None] + self._offsets
        inside = (np.abs(self._offsets) <= near[:, None]) & (around[positions] == passage[:, None])
        contexts = np.where(inside, padded[positions], -1)
        negatives = self._table[others]
        outputs = np.concatenate(
            [words[:, None], np.where(negatives == words[:, None], -1, negatives)], axis=1
        )
        return self._of(contexts, outputs, tokens.size)

    def _thinned(self, tokens: Tokens, draw: np.random.Generator) -> tuple[npt.NDArray[np.int32], Any]:
        """Return the words that stay in the text, (n,), and the number of the passage of each."""
        flat = tokens.ravel()
        kept = draw.random(len(flat), dtype=np.float32) < self._keep[flat]
        kept &= flat >= 0
        # A passage ends where a document ends.
        begins = flat == self.text.tokenizer.bos_id
        begins[:: tokens.shape[1]] = True
        return flat[kept].astype(np.int32), np.cumsum(begins)[kept]

    def _of(self, contexts: Any, outputs: Any, read: int) -> Batch:
        size = (contexts >= 0).sum(axis=1)
        some = size > 0
        contexts, outputs, size = contexts[some], outputs[some], size[some]
        labels = np.zeros(outputs.shape, dtype=np.float32)
        labels[:, 0] = 1
        counts = size if self.options.architecture == "skipgram" else np.ones_like(size)
        tensors = {"contexts": contexts, "outputs": outputs, "labels": labels}
        return Batch(
            {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()},
            counts.astype(np.int64),
            tokens_read=read,
        )

    def eval_count(self, split: str) -> int | None:
        return None

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
