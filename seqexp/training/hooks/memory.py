"""Bound what the allocator keeps of freed memory where batches vary in shape."""

from typing import TYPE_CHECKING

from seqexp.metrics.metric import Metric
from seqexp.training.device import release_freed_memory, resident_bytes
from seqexp.training.hooks.base import Hook, Update

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer

CHECK_EVERY = 25  # steps
# Growth over what the steps after the last release needed.
GROWTH = 1.15


class FreedMemory(Hook):
    """Release freed memory to the system when the process has grown by `GROWTH`.

    `keep_freed_memory` makes every step find its memory again. Where shapes vary, blocks of new sizes fit
    badly into the freed ones, and the heap grows without need. Releasing is rare, since it costs a step its
    pages.
    """

    def __init__(self) -> None:
        self._settled: int | None = None
        self._released = True  # the next check measures what the steps need

    def after_step(self, trainer: "Trainer", update: Update) -> None:
        if trainer.step % CHECK_EVERY == 0:
            self.check()

    def at_validation(self, trainer: "Trainer", results: dict[str, Metric]) -> None:
        """What evaluation and generation left is of no use to the steps."""
        self.check()

    def check(self) -> None:
        """Release what is free if the process has grown since it was measured."""
        resident = resident_bytes()
        if resident is None:
            return
        if self._released:
            self._settled, self._released = max(resident, self._settled or 0), False
        elif self._settled and resident > GROWTH * self._settled:
            release_freed_memory()
            self._released = True
