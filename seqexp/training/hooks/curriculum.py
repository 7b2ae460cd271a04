"""Let the data change with the training loss, as a curriculum does."""

import logging
from typing import TYPE_CHECKING, Any

import torch

from seqexp.data.base import Data
from seqexp.training.hooks.base import Hook, Update
from seqexp.training.misfit import refuse_misfit

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer

log = logging.getLogger(__name__)


class Curriculum(Hook):
    """Every `data.review_every` steps, tell the data the mean training loss since the last time."""

    name = "curriculum"

    def __init__(self, data: Data, device: torch.device) -> None:
        self.data = data
        # Kept on the device, so that no step waits for it.
        self._nll = torch.zeros((), device=device)
        self._count = 0

    def after_step(self, trainer: "Trainer", update: Update) -> None:
        if not update.skipped:
            self._nll += update.nll
            self._count += update.count
        every = self.data.review_every
        if every is None or trainer.step % every or not self._count:
            return
        message = self.data.review(float(self._nll) / self._count)
        self._nll.zero_()
        self._count = 0
        if message:
            log.info("step %d  %s", trainer.step, message)

    def state(self) -> dict[str, Any]:
        return {"nll": self._nll, "count": self._count}

    def load_state(self, state: dict[str, Any], trainer: "Trainer") -> None:
        state = state or {"nll": torch.zeros(()), "count": 0}
        refuse_misfit("curriculum", {"nll": torch.zeros(()), "count": 0}, state)
        self._nll, self._count = state["nll"].to(self._nll.device), state["count"]
