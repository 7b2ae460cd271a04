"""Carry a recurrent model's state from batch to batch."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from seqexp.data.batch import Batch
from seqexp.tasks.carried import CarriedState
from seqexp.training.hooks.base import Hook, Update

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer


class Carry(Hook):
    """Begin each batch from the state after the one before, unless that batch was skipped."""

    name = "carried"

    def __init__(self, carried: CarriedState) -> None:
        self.carried = carried
        self._before: tuple[Tensor, ...] | None = None

    def before_step(self, trainer: "Trainer", batch: Batch) -> None:
        self.carried.begin(batch)
        self._before = self.carried.state

    def after_step(self, trainer: "Trainer", update: Update) -> None:
        if update.skipped:  # its state may be NaN, and every later one with it
            self.carried.state = self._before

    def state(self) -> dict[str, Any]:
        return {"state": self.carried.state}

    def load_state(self, state: dict[str, Any], trainer: "Trainer") -> None:
        self.carried.load(state["state"], trainer.device.torch)
        with trainer.device.autocast():
            self.carried.try_out(trainer.config.data.batch_size)
