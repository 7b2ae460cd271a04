"""The points of the training loop at which something may be added to it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from seqexp.data.batch import Batch
from seqexp.metrics.metric import Metric, MetricSpec

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer


@dataclass
class Update:
    """One step: its batch, summed loss and gradient norm (on the device), and whether it was skipped.

    `bad` tells, on the device, whether loss or gradient are infinite or NaN.
    """

    batch: Batch
    count: int
    nll: Tensor
    norm: Tensor
    bad: Tensor
    skipped: bool = False


class RollBack(Exception):
    """Raised in `before_update`: go on from the last checkpoint, without this step."""


class Hook:
    """A part of a training that is not the loop itself; every method may be left as it is.

    `name` is the key of the hook's state in checkpoints.
    """

    name = ""

    def declared(self) -> dict[str, MetricSpec]:
        """The metrics that `at_validation` adds, by name."""
        return {}

    def notes(self, trainer: "Trainer") -> list[str]:
        """Notes for the user and the manifest, before the first step."""
        del trainer
        return []

    def before_step(self, trainer: "Trainer", batch: Batch) -> None:
        """Before the forward pass of step `trainer.step`."""

    def before_update(self, trainer: "Trainer", update: Update) -> bool:
        """After the backward pass; False skips the update.

        Raises:
            RollBack: the step cannot be made from here.
        """
        del trainer, update
        return True

    def after_step(self, trainer: "Trainer", update: Update) -> None:
        """After the update, or after it was skipped; `trainer.step` steps are made."""

    def at_validation(self, trainer: "Trainer", results: dict[str, Metric]) -> None:
        """After the split was evaluated; `results` may be added to. `trainer.end_as` ends the run."""

    def state(self) -> dict[str, Any]:
        """Tensors and plain values for a checkpoint; called before each is written."""
        return {}

    def load_state(self, state: dict[str, Any], trainer: "Trainer") -> None:
        """Take what `state` gave; an empty one is that of a run without this hook."""
