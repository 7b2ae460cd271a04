"""The base of data sets whose batches hold examples of similar length."""

import logging
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from seqexp.data.base import Data, View
from seqexp.data.batch import Batch
from seqexp.data.pair_batch import LengthBatches

log = logging.getLogger(__name__)


class LengthBatchedData(Data):
    """Batches of `config.batch_size` examples, or of up to `config.batch_tokens` tokens with padding.

    A subclass sets `config`, `seed` and `splits`, whose values have the `lengths` of their examples, calls
    `_cut_batches`, and makes a batch of given examples.
    """

    seed: int
    splits: dict[str, Any]

    def _cut_batches(self, similar_lengths: bool = True) -> None:
        """Choose which examples share a batch; in training, by length or at random."""
        self.default_split = "test" if "test" in self.splits else next(iter(self.splits))
        rows = None if self.config.batch_tokens else self.config.batch_size
        self._batches = {}
        for name, part in self.splits.items():
            # Examples of equal lengths are shuffled: with zeros, all of them.
            mixed = name == "train" and not similar_lengths
            lengths = np.zeros_like(part.lengths) if mixed else part.lengths
            self._batches[name] = LengthBatches(lengths, lengths, self.config.batch_tokens or 1, rows)

    @abstractmethod
    def _batch(self, split: str, members: npt.NDArray[np.int64]) -> Batch:
        """Return the batch of examples by their numbers in the split."""

    @abstractmethod
    def notes(self) -> list[str]:
        """Return notes on what was read, cut, or is also in training."""

    def tell_notes(self) -> None:
        """Log the notes."""
        for note in self.notes():
            log.warning("NOTE: %s", note)

    @property
    def steps_per_epoch(self) -> float:
        return len(self._batches["train"])

    def train_batch(self, step: int) -> Batch:
        return self._batch("train", self._batches["train"].members(self.seed, step))

    def eval_batches(self, split: str) -> Iterator[Batch]:
        batches = self._batches[split]
        for number in range(len(batches)):
            yield self._batch(split, batches.in_order(number))

    def views(self, max_len: int | None) -> tuple[list[View], list[str]]:
        views, _ = super().views(max_len)
        return views, self.notes()
