"""What a model is trained and judged on, one step at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Targets with this number are padding: no loss, no count (torch's own default).
IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """Named tensors with one row an example, (B, ...) each; ``batch.inputs`` is ``batch.tensors["inputs"]``.

    `lengths` (B,) says how many positions of a tensor are real, by the tensor's name, where rows are padded.
    `counts` (B,) is the number of items of each row that the loss averages over, and `count` their sum, known
    before the forward pass. `continues` says that each row goes on where that row of the batch before ended,
    so that a recurrent model may carry its state over. `tokens_read` is given where a model reads more
    tokens than the loss counts; the speed is computed from it.
    """

    tensors: Mapping[str, Tensor]
    counts: npt.NDArray[np.int64]
    lengths: Mapping[str, Tensor] = field(default_factory=dict)
    continues: bool = False
    tokens_read: int | None = None

    def __getattr__(self, name: str) -> Tensor:
        try:
            tensor: Tensor = self.__dict__["tensors"][name]
        except KeyError:
            raise AttributeError(f"the batch has no tensor {name!r}") from None
        return tensor

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def count(self) -> int:
        """The number of items that the loss averages over."""
        return int(self.counts.sum())

    @property
    def padded(self) -> bool:
        """Whether some targets are padding."""
        return self.count < self.targets.numel()

    def to(self, device: torch.device) -> "Batch":
        """The same on a device; the copy to a GPU does not wait for it."""
        if device.type == "cpu":
            return self

        def move(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            pinned = {name: t.pin_memory() if device.type == "cuda" else t for name, t in tensors.items()}
            return {name: tensor.to(device, non_blocking=True) for name, tensor in pinned.items()}

        return replace(self, tensors=move(self.tensors), lengths=move(self.lengths))

    def rows(self, first: int, last: int) -> "Batch":
        """Rows `first` to `last` - 1, padded as here."""
        return replace(
            self,
            tensors={name: tensor[first:last] for name, tensor in self.tensors.items()},
            lengths={name: lengths[first:last] for name, lengths in self.lengths.items()},
            counts=self.counts[first:last],
        )

    def split(self, pieces: int) -> Iterator["Batch"]:
        """At most `pieces` micro-batches of consecutive rows, which together are this batch."""
        if pieces == 1:
            yield self
            return
        for rows in np.array_split(np.arange(len(self)), pieces):
            if len(rows):
                yield self.rows(int(rows[0]), int(rows[-1]) + 1)

    @classmethod
    def of_targets(cls, inputs: Tensor, targets: Tensor, lengths: npt.NDArray[np.int64]) -> Self:
        """A batch of inputs and targets (B, T) int64; in row b all but the first `lengths[b]` are padding.

        `targets` is changed in place.
        """
        real = torch.from_numpy(lengths)
        if lengths.min(initial=targets.shape[1]) < targets.shape[1]:
            targets[torch.arange(targets.shape[1]) >= real[:, None]] = IGNORE
        return cls({"inputs": inputs, "targets": targets}, lengths, {"targets": real})

    @classmethod
    def from_windows(cls, windows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Self:
        """Make a batch from (B, T + 1) tokens; row b has `lengths[b]` targets."""
        tokens = torch.from_numpy(windows)
        return cls.of_targets(tokens[:, :-1].contiguous(), tokens[:, 1:].clone(), lengths)
