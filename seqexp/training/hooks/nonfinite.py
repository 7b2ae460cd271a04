"""Losses and gradients that are infinite or NaN: noticed without waiting for a GPU, kept, reported."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seqexp.config.root import TrainConfig
from seqexp.data.base import Data
from seqexp.errors import RunFailedError
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints
from seqexp.training.hooks.base import Hook, RollBack, Update

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer

log = logging.getLogger(__name__)

# So many batches in twice as many steps may be skipped because their loss is not finite.
MOST_SKIPPED = 5


class NonFiniteLossError(RunFailedError):
    """The loss became infinite or NaN."""


class NonFinite(Hook):
    """Stops a run whose loss or gradient is not finite, or skips its batch (`trainer.nonfinite`).

    `skipped` are the steps that made no update.
    """

    name = "nonfinite"

    def __init__(
        self, config: TrainConfig, data: Data, run: RunFolder, checkpoints: Checkpoints, device: torch.device
    ) -> None:
        self.config, self.data, self.run, self.checkpoints = config, data, run, checkpoints
        self.skipped: list[int] = []
        # On the device, so that no step waits for it.
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def before_update(self, trainer: "Trainer", update: Update) -> bool:
        """Note a bad step; with ``skip`` or ``rollback``, which wait for a GPU at each step, act at once."""
        if self.config.trainer.nonfinite == "stop":
            step = trainer.step
            self._first_bad = torch.where((self._first_bad < 0) & update.bad, step, self._first_bad)
            return True
        if not bool(update.bad):
            return True
        kept = self.skip(trainer.step)
        if self.config.trainer.nonfinite == "rollback":
            self.checkpoints.wait()
            if "last" in self.checkpoints.index:
                log.warning(
                    "step %d  loss or gradient is not finite: back to step %d, and on without the batch (%s)",
                    trainer.step, self.checkpoints.index["last"]["step"], kept,
                )  # fmt: skip
                raise RollBack
            log.warning("step %d  no checkpoint yet to roll back to", trainer.step)
        log.warning(
            "step %d  loss or gradient is not finite: no update from this batch (%s)", trainer.step, kept
        )
        return False

    def after_step(self, trainer: "Trainer", update: Update) -> None:
        if trainer.device.torch.type == "cpu" or trainer.log_due():
            self.check()

    def check(self) -> None:
        """Wait for what was noted.

        Raises:
            NonFiniteLossError: a step was bad; its batch is kept.
        """
        bad = int(self._first_bad)
        if bad < 0:
            return
        last = self.checkpoints.last_good
        good = f"step {last['step']} ({last['file']})" if last else "none yet"
        raise NonFiniteLossError(
            f"the loss is not finite at step {bad}; the last good checkpoint is {good}, the batch is in "
            f"{self._keep_batch(bad)}. {self._advice()}"
        )

    def skip(self, step: int) -> Path:
        """Remember that this step makes no update, and keep its batch; return the batch's file.

        Raises:
            NonFiniteLossError: too many steps near it were skipped already.
        """
        kept = self._keep_batch(step)
        self.skipped = [*self.skipped, step]
        recent = [other for other in self.skipped if other > step - 2 * MOST_SKIPPED]
        if len(recent) > MOST_SKIPPED:
            raise NonFiniteLossError(
                f"the loss or its gradient is not finite at step {step}, although {len(recent)} batches "
                f"near it were skipped (they are in {kept.parent}). {self._advice()}"
            )
        return kept

    def state(self) -> dict[str, Any]:
        """The skipped steps; weights that a bad step has touched are not saved.

        Raises:
            NonFiniteLossError: a step was bad.
        """
        self.check()
        return {"skipped": self.skipped}

    def load_state(self, state: dict[str, Any], trainer: "Trainer") -> None:
        skipped = state.get("skipped", [])
        if not isinstance(skipped, list) or not all(type(step) is int for step in skipped):
            raise TypeError("the skipped steps are not whole numbers")
        # After a roll back, the steps skipped since the checkpoint stay skipped.
        self.skipped = sorted({*skipped, *self.skipped})

    def _keep_batch(self, step: int) -> Path:
        """Write a batch for inspection: plain tensors, which `torch.load(weights_only=True)` reads."""
        file = self.run.subfolder("nonfinite") / f"step_{step:08d}.pt"
        batch = self.data.train_batch(step)
        lengths = {f"{name}_lengths": lengths for name, lengths in batch.lengths.items()}
        torch.save({"step": step, "seed": self.config.seed, **batch.tensors, **lengths}, file)
        return file

    def _advice(self) -> str:
        clipping = "a smaller" if self.config.trainer.max_grad_norm else "clipping with"
        return (
            f"Try a lower optimizer.lr, a longer scheduler.warmup_steps, {clipping} trainer.max_grad_norm, "
            "device.precision=fp32, or trainer.nonfinite=skip."
        )
