"""How the gradient of a recurrent model comes back through time, at every validation."""

from typing import TYPE_CHECKING

from seqexp.data.batch import Batch
from seqexp.metrics.metric import Metric
from seqexp.tasks.recurrence import gradient_flow
from seqexp.training.hooks.base import Hook

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer

# Held-out rows on which it is measured.
ROWS = 16


class GradientFlow(Hook):
    """Append gradient norms per time step to ``gradient_flow.jsonl``, at the start and at validations."""

    def before_step(self, trainer: "Trainer", batch: Batch) -> None:
        if trainer.step == 0:
            self._record(trainer)

    def at_validation(self, trainer: "Trainer", results: dict[str, Metric]) -> None:
        self._record(trainer)

    def _record(self, trainer: "Trainer") -> None:
        batch = next(trainer.data.eval_batches("val")).rows(0, ROWS).to(trainer.device.torch)
        trainer.metrics.gradient_flow(trainer.step, gradient_flow(trainer.task, trainer.model, batch))
