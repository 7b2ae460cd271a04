"""The early end of a trial that does worse than others."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from seqexp.metrics.metric import Metric
from seqexp.training.hooks.base import Hook

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer

log = logging.getLogger(__name__)


class Pruning(Hook):
    """End the run when `prune(step, results)` says so."""

    def __init__(self, prune: Callable[[int, dict[str, float]], bool]) -> None:
        self.prune = prune

    def at_validation(self, trainer: "Trainer", results: dict[str, Metric]) -> None:
        values = {name: metric.value for name, metric in results.items()}
        if not trainer.done() and self.prune(trainer.step, values):
            log.info("step %d  worse than other trials at this step: pruned", trainer.step)
            trainer.end_as = "pruned"
