"""Bound what the allocator keeps of freed memory where batches vary in shape."""

from typing import TYPE_CHECKING

from seqexp.metrics.metric import Metric
from seqexp.training.device import release_freed_memory, resident_bytes
from seqexp.training.hooks.base import Hook, Update

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer

CHECK_EVERY = 5  # steps
# Checks after a release that measure what the steps need.
MEASURED = 5
# Growth over that need.
GROWTH = 1.1


class FreedMemory(Hook):
    """Release freed memory to the system when the process has grown by `GROWTH`.

    `keep_freed_memory` lets every step reuse the memory of the step before. If shapes vary, blocks of new
    sizes fit badly into the freed ones, and the heap grows. A release costs the next step its pages, so it is
    rare.
    """

    def __init__(self) -> None:
        self._need, self._to_measure = 0, MEASURED

    def after_step(self, trainer: "Trainer", update: Update) -> None:
        if trainer.step % CHECK_EVERY == 0:
            self.check()

    def at_validation(self, trainer: "Trainer", results: dict[str, Metric]) -> None:
        """What evaluation and generation left is of no use to the steps."""
        self.check()

    def check(self) -> None:
        """Release what is free if the process has grown since its need was measured."""
        resident = resident_bytes()
        if resident is None:
            return
        if self._to_measure:
            self._need = max(self._need, resident)
            self._to_measure -= 1
        elif resident > GROWTH * self._need:
            release_freed_memory()
            self._to_measure = MEASURED
