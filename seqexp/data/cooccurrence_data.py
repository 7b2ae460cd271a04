"""Co-occurrences of the words of a text as examples for GloVe."""

import os
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqexp.data.batch import Batch
from seqexp.data.cache import cache_dir
from seqexp.data.cooccurrences import BLOCK, RUN, Window, count_pairs, harmonic
from seqexp.data.fitting import cached, encoding_key
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.shuffle import ROUNDS, permute
from seqexp.data.text import TextData
from seqexp.data.word_data import WordData
from seqexp.errors import UserError

# In the key of counted pairs: raise it when they are counted in another way.
COUNT_VERSION = 1
# Pairs in a batch of validation.
EVAL_PAIRS = 1 << 16


class CooccurrenceData(WordData):
    """The pairs of words that stand near each other in `text`, for a model with `options` (`GloVeConfig`).

    They are counted once a split and kept in the cache, on disk. A batch holds as many of them as
    ``data.batch_size`` passages of ``data.seq_len`` words have words; each epoch reads each pair (i, j) and
    (j, i) once, in another order. Tensors of a batch, (R,) each: `words`, `contexts`, `logs` (of the
    co-occurrences) and `weights`.

    Co-occurrences of a held-out split are multiplied so that they stand for as many words as the training.
    """

    def __init__(self, text: TextData, options: Any, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(text, options, preprocessor)
        self.validated_on = f"co-occurrences within {options.window} words"
        self._pairs: dict[str, npt.NDArray[np.void]] = {}

    def pairs(self, split: str) -> npt.NDArray[np.void]:
        """Return (key, weight) of the pairs i <= j of a split, sorted by key, which is i * V + j.

        Raises:
            UserError: there are none.
        """
        if split not in self._pairs:
            self._pairs[split] = self._counted(split)
        return self._pairs[split]

    def _counted(self, split: str) -> npt.NDArray[np.void]:
        tokenizer, part = self.text.tokenizer, self.text.splits[split]
        key = [
            COUNT_VERSION, part.sha256, *encoding_key(tokenizer), self.options.window,
            np.flatnonzero(self.counts == 0).tolist(),
        ]  # fmt: skip
        file = cached("cooccurrences", key, ".bin")
        if not file.is_file():
            numbers = np.where(self.counts > 0, np.arange(len(self.counts)), -1)
            window = Window(numbers, len(numbers), harmonic(self.options.window), tokenizer.bos_id)
            with tempfile.TemporaryDirectory(dir=cache_dir("cooccurrences")) as folder:
                if not len(count_pairs(part.blocks(BLOCK), window, Path(folder))):
                    raise UserError(
                        f"the {split} split has no two known words within model.window={self.options.window} "
                        "words; give more text, or lower tokenizer.min_count=."
                    )
                os.replace(Path(folder) / "pairs.bin", file)
        return np.memmap(file, dtype=RUN, mode="r")

    @cached_property
    def _examples(self) -> int:
        """Each pair in both orders."""
        return 2 * len(self.pairs("train"))

    @property
    def _batch_size(self) -> int:
        return int(self.config.batch_size * self.config.seq_len)

    @property
    def steps_per_epoch(self) -> float:
        return self._examples / self._batch_size

    def train_batch(self, step: int) -> Batch:
        count = np.arange(step * self._batch_size, (step + 1) * self._batch_size, dtype=np.int64)
        epochs, positions = np.divmod(count, self._examples)
        chosen = np.empty(len(count), dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            keys = np.random.SeedSequence([self.seed, int(epoch)]).generate_state(ROUNDS, np.uint64)
            chosen[here] = permute(positions[here], self._examples, keys.astype(np.uint64))
        return self._batch(self.pairs("train"), chosen, 1.0)

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """The pairs of the whole split, in order."""
        pairs = self.pairs(split)
        scale = float(self.counts.sum()) / max(1, self._words_in(split))
        for first in range(0, 2 * len(pairs), EVAL_PAIRS):
            yield self._batch(pairs, np.arange(first, min(first + EVAL_PAIRS, 2 * len(pairs))), scale)

    def _words_in(self, split: str) -> int:
        """Return how many words of a split are in the vocabulary."""
        known = self.counts > 0
        return sum(int(np.count_nonzero(known[block])) for block in self.text.splits[split].blocks(BLOCK))

    def _batch(self, pairs: npt.NDArray[np.void], chosen: npt.NDArray[np.int64], scale: float) -> Batch:
        """Return examples by their numbers: those of (i, j), then those of (j, i), which (i, i) has not."""
        swapped = chosen >= len(pairs)
        rows = pairs[chosen % len(pairs)]
        first, second = np.divmod(rows["key"], len(self.counts))
        alike = first == second
        real = ~(swapped & alike)
        words, contexts = np.where(swapped, second, first)[real], np.where(swapped, first, second)[real]
        # Two of the same word are neighbours of each other, in both orders.
        weights = (rows["weight"].astype(np.float64) * np.where(alike, 2, 1))[real] * scale
        share = np.minimum(1.0, (weights / self.options.x_max) ** self.options.alpha)
        tensors = {
            "words": words.astype(np.int32),
            "contexts": contexts.astype(np.int32),
            "logs": np.log(weights).astype(np.float32),
            "weights": share.astype(np.float32),
        }
        return Batch(
            {name: torch.from_numpy(array) for name, array in tensors.items()},
            np.ones(len(words), np.int64),
        )
