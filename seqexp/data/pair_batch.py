"""Pairs of sentences as tensors, and which pairs share a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seqexp.data.shuffle import ROUNDS, permute

Lengths = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class PairBatch:
    """`source` is (B, S), padded after `source_lengths` (B,); `inputs` (B, T) is what the decoder reads.

    Of its B * T outputs, flattened, those at `places` (N,) are real, and `targets` (N,) is what comes next
    there; `rows` (N,) says in which sentence. `count` is N.
    """

    source: Tensor
    source_lengths: Tensor
    inputs: Tensor
    target_lengths: Tensor
    targets: Tensor
    places: Tensor
    rows: Tensor
    count: int
    continues: bool = False

    @classmethod
    def from_ids(
        cls, sources: Sequence[npt.ArrayLike], targets: Sequence[npt.ArrayLike], end: int
    ) -> "PairBatch":
        """Token numbers of B sources and B targets; all end with `end`, which begins targets too."""
        source, source_lengths = _pad([np.append(ids, end) for ids in sources])
        outputs, target_lengths = _pad([np.append(ids, end) for ids in targets])
        inputs = torch.cat((torch.full((len(outputs), 1), end), outputs[:, :-1]), dim=1)
        return cls._assembled(source, source_lengths, inputs, outputs, target_lengths)

    @classmethod
    def _assembled(
        cls, source: Tensor, source_lengths: Tensor, inputs: Tensor, outputs: Tensor, target_lengths: Tensor
    ) -> "PairBatch":
        real = torch.arange(outputs.shape[1]) < target_lengths[:, None]
        rows, places = real.nonzero()[:, 0], real.flatten().nonzero()[:, 0]
        return cls(
            source, source_lengths, inputs, target_lengths, outputs[real], places, rows, count=len(places)
        )

    def to(self, device: torch.device) -> "PairBatch":
        if device.type == "cpu":
            return self
        names = ("source", "source_lengths", "inputs", "target_lengths", "targets", "places", "rows")
        moved = {}
        for name in names:
            tensor = getattr(self, name)
            tensor = tensor.pin_memory() if device.type == "cuda" else tensor
            moved[name] = tensor.to(device, non_blocking=True)
        return replace(self, **moved)

    def split(self, pieces: int) -> Iterator["PairBatch"]:
        """At most `pieces` batches of consecutive rows, which together are this one."""
        if pieces == 1:
            yield self
            return
        outputs = torch.zeros_like(self.inputs).flatten().index_copy(0, self.places, self.targets)
        parts = (
            self.source,
            self.source_lengths,
            self.inputs,
            outputs.view_as(self.inputs),
            self.target_lengths,
        )
        for some in zip(*(part.tensor_split(pieces) for part in parts), strict=True):
            if len(some[0]):
                yield self._assembled(*some)


def _pad(sentences: list[npt.NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Sentences as rows (B, longest), zeros after each, and their lengths (B,)."""
    lengths = np.array([len(ids) for ids in sentences])
    padded = np.zeros((len(sentences), lengths.max()), dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(sentences)
    return torch.from_numpy(padded), torch.from_numpy(lengths)


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
        for place, length in enumerate(longer.tolist()):
            longest = max(longest, length)
            rows = place - self.cuts[-1] + 1
            full = rows > batch_size if batch_size else rows * longest > batch_tokens
            if full and rows > 1:
                self.cuts.append(place)
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
        epoch, place = divmod(step, len(self))
        order, keys = self._order(seed, epoch)
        number = int(permute(place, len(self), keys))
        return order[self.cuts[number] : self.cuts[number + 1]]

    def _ordered(self, seed: int, epoch: int) -> tuple[npt.NDArray[np.int64], Keys]:
        """Pairs by length, those of equal lengths shuffled; and the keys of the batches' order."""
        sequence = np.random.SeedSequence([seed, epoch])
        keys: Keys = sequence.generate_state(ROUNDS, np.uint64).astype(np.uint64)
        ties = np.random.default_rng(sequence).permutation(len(self.source_lengths))
        order = np.lexsort((ties, self.source_lengths, self.target_lengths))
        return order.astype(np.int64), keys
