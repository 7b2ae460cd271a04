"""What a model is trained and judged on, one step at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

# Targets with this number are padding: no loss, no count (torch's own default).
IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """`inputs` and `targets` are (B, T) int64; `count` is the number of targets that are not padding.

    `padded_targets` says whether there is padding at all; `continues`, that each row goes on where that
    row of the batch before ended, so that a recurrent model may carry its state over.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    count: int
    padded_targets: bool = False
    continues: bool = False

    @classmethod
    def from_windows(cls, windows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Self:
        """From (B, T + 1) tokens, of which row b has `lengths[b]` targets; the rest is padding."""
        tokens = torch.from_numpy(windows)
        return cls.padded(tokens[:, :-1].contiguous(), tokens[:, 1:].clone(), lengths)

    @classmethod
    def padded(cls, inputs: torch.Tensor, targets: torch.Tensor, lengths: npt.NDArray[np.int64]) -> Self:
        """Of row b the first `lengths[b]` targets count; the rest become padding, in place."""
        beyond = torch.arange(targets.shape[1]) >= torch.from_numpy(lengths)[:, None]
        targets[beyond] = IGNORE
        count = int(lengths.sum())
        return cls(inputs, targets, count, padded_targets=count < targets.numel())

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        pin = device.type == "cuda"
        move = [(t.pin_memory() if pin else t) for t in (self.inputs, self.targets)]
        inputs, targets = (t.to(device, non_blocking=True) for t in move)
        return replace(self, inputs=inputs, targets=targets)

    def last_targets(self) -> "Batch":
        """The same with only the last real target of each row."""
        last = (self.targets != IGNORE).sum(1, keepdim=True) - 1
        steps = torch.arange(self.targets.shape[1], device=self.targets.device)
        targets = self.targets.masked_fill(steps != last, IGNORE)
        return replace(self, targets=targets, count=len(targets), padded_targets=True)

    def rows(self, n: int) -> "Batch":
        """The first `n` rows."""
        inputs, targets = self.inputs[:n], self.targets[:n]
        return replace(self, inputs=inputs, targets=targets, count=int((targets != IGNORE).sum()))

    def split(self, pieces: int) -> Iterator["Batch"]:
        """At most `pieces` batches of consecutive rows, which together are this one."""
        if pieces == 1:
            yield self
            return
        for inputs, targets in zip(
            self.inputs.tensor_split(pieces), self.targets.tensor_split(pieces), strict=True
        ):
            if len(inputs):
                count = int((targets != IGNORE).sum())
                yield replace(self, inputs=inputs, targets=targets, count=count)
