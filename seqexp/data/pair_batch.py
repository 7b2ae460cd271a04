"""Pairs of sentences as tensors, and which pairs share a batch."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seqexp.data.batch import Batch
from seqexp.data.shuffle import ROUNDS, permute

Lengths = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


def pair_batch(sources: Sequence[npt.ArrayLike], targets: Sequence[npt.ArrayLike], end: int) -> Batch:
    """Token numbers of B sources and B targets as a batch; all end with `end`, which also begins targets.

    Its tensors are `source` (B, S) and what the decoder reads and should give, `inputs` and `targets` (B, T).
    """
    source, source_lengths = pad([np.append(ids, end) for ids in sources])
    outputs, target_lengths = pad([np.append(ids, end) for ids in targets])
    inputs = torch.cat((torch.full((len(outputs), 1), end), outputs[:, :-1]), dim=1)
    return Batch(
        {"source": source, "inputs": inputs, "targets": outputs},
        target_lengths.numpy(),
        {"source": source_lengths, "targets": target_lengths},
    )


def pad(sentences: list[npt.NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Sentences as rows (B, longest), zeros after each, and their lengths (B,)."""
    lengths = np.array([len(ids) for ids in sentences])
    padded = np.zeros((len(sentences), lengths.max()), dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(sentences)
    return torch.from_numpy(padded), torch.from_numpy(lengths)


class Sequences:
    """Many sequences in one array, to pad some of them as `pad` does without a Python loop over them."""

    def __init__(self, sequences: Sequence[npt.NDArray[np.int64]]) -> None:
        self.lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.all = np.concatenate([*sequences, np.zeros(1, np.int64)])  # the last zero is padding

    def pad(self, members: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the sequences of these numbers as rows (B, longest), and their lengths (B,)."""
        lengths = self.lengths[members]
        offsets = np.arange(lengths.max())
        places = np.where(
            offsets < lengths[:, None], self.starts[members][:, None] + offsets, len(self.all) - 1
        )
        return torch.from_numpy(self.all[places]), torch.from_numpy(lengths)


class LengthBatches:
    """Which pairs make batch 0, 1, 2, …: a pure function of the seed and the number.

    Pairs are ordered by length and cut into batches once, up to `batch_tokens` tokens of the longer side with
    padding, or `batch_size` pairs. In each epoch, which pairs of equal lengths lie where, and in which order
    the batches come, are drawn anew; their shapes stay.
    """

    def __init__(
        self, source_lengths: Lengths, target_lengths: Lengths, batch_tokens: int, batch_size: int | None
    ) -> None:
        self.source_lengths, self.target_lengths = source_lengths, target_lengths
        self._sorted = np.lexsort((source_lengths, target_lengths)).astype(np.int64)
        longer = np.maximum(source_lengths, target_lengths)[self._sorted]
        self.cuts = [0]
        longest = 0
        for position, length in enumerate(longer.tolist()):
            longest = max(longest, length)
            rows = position - self.cuts[-1] + 1
            full = rows > batch_size if batch_size else rows * longest > batch_tokens
            if full and rows > 1:
                self.cuts.append(position)
                longest = length
        self.cuts.append(len(longer))
        self._order = lru_cache(maxsize=2)(self._ordered)

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def in_order(self, number: int) -> npt.NDArray[np.int64]:
        """The members of batch `number` by length, for evaluation: the same always."""
        return self._sorted[self.cuts[number] : self.cuts[number + 1]]

    def members(self, seed: int, step: int) -> npt.NDArray[np.int64]:
        """The indices of the pairs of training step `step`."""
        epoch, position = divmod(step, len(self))
        order, numbers = self._order(seed, epoch)
        number = numbers[position]
        return order[self.cuts[number] : self.cuts[number + 1]]

    def _ordered(self, seed: int, epoch: int) -> tuple[npt.NDArray[np.int64], list[int]]:
        """Pairs by length, those of equal lengths shuffled; and the batches' order."""
        sequence = np.random.SeedSequence([seed, epoch])
        keys: Keys = sequence.generate_state(ROUNDS, np.uint64).astype(np.uint64)
        ties = np.random.default_rng(sequence).permutation(len(self.source_lengths))
        order = np.lexsort((ties, self.source_lengths, self.target_lengths))
        return order.astype(np.int64), permute(np.arange(len(self)), len(self), keys).tolist()
