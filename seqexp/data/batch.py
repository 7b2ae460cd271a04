"""What a model is trained and judged on, one step at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

# Targets with this number are padding: no loss, no count (torch's own default).
IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """`inputs` and `targets` are (B, T) int64; `count` is the number of targets that are not padding."""

    inputs: torch.Tensor
    targets: torch.Tensor
    count: int

    @classmethod
    def from_windows(cls, windows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Self:
        """From (B, T + 1) tokens, of which row b has `lengths[b]` targets; the rest is padding."""
        tokens = torch.from_numpy(windows)
        targets = tokens[:, 1:].clone()
        beyond = torch.arange(targets.shape[1]) >= torch.from_numpy(lengths)[:, None]
        targets[beyond] = IGNORE
        return cls(tokens[:, :-1].contiguous(), targets, int(lengths.sum()))

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        pin = device.type == "cuda"
        move = [(t.pin_memory() if pin else t) for t in (self.inputs, self.targets)]
        return Batch(move[0].to(device, non_blocking=True), move[1].to(device, non_blocking=True), self.count)

    def split(self, pieces: int) -> Iterator["Batch"]:
        """At most `pieces` batches of consecutive rows, which together are this one."""
        for inputs, targets in zip(
            self.inputs.tensor_split(pieces), self.targets.tensor_split(pieces), strict=True
        ):
            if len(inputs):
                yield Batch(inputs, targets, int((targets != IGNORE).sum()))
