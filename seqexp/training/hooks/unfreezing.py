"""Gradual unfreezing: train the output layer first, and one layer more every few epochs."""

import logging
from typing import TYPE_CHECKING

from torch import nn

from seqexp.data.batch import Batch
from seqexp.training.depth import depth_groups
from seqexp.training.hooks.base import Hook

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer

log = logging.getLogger(__name__)


class GradualUnfreezing(Hook):
    """Train layers from the output on, one more every `every` epochs (Howard & Ruder 2018, section 3.3).

    Which layers train is a function of the step. Parameters that `trainer.freeze` froze stay frozen.
    """

    def __init__(self, model: nn.Module, every: float) -> None:
        trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
        groups = [[name for name in group if name in trained] for group in depth_groups(model)]
        self.every, self.names = every, [group for group in groups if group][::-1]
        self.groups = [[trained[name] for name in group] for group in self.names]
        self.open = 0  # groups that are trained

    def notes(self, trainer: "Trainer") -> list[str]:
        if trainer.total is None:
            return []
        groups = len(self.groups)
        left = groups - self._open_at(trainer.total - 1, trainer)
        if not left:
            return []
        return [
            f"trainer.unfreeze_every={self.every:g}: {left} of {groups} groups of layers stay frozen to the "
            f"end, such as {self.names[-1][0]}"
        ]

    def _open_at(self, step: int, trainer: "Trainer") -> int:
        epochs = step / trainer.data.steps_per_epoch
        return min(len(self.groups), 1 + int(epochs / self.every))

    def before_step(self, trainer: "Trainer", batch: Batch) -> None:
        del batch
        wanted = self._open_at(trainer.step, trainer)
        if wanted == self.open:
            return
        for number, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad_(number < wanted)
        if trainer.step and wanted > self.open:
            added = [name for group in self.names[self.open : wanted] for name in group]
            log.info("step %d  %d more parameters train, such as %s", trainer.step, len(added), added[0])
        self.open = wanted
