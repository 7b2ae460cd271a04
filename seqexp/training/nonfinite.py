"""Losses and gradients that are infinite or NaN: noticed without waiting for a GPU, kept, told."""

from pathlib import Path

import torch
from torch import Tensor

from seqexp.config.root import TrainConfig
from seqexp.data.base import Data
from seqexp.errors import RunFailedError
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints

# So many batches in twice as many steps may be left out because their loss is not finite.
MOST_LEFT_OUT = 5


class NonFiniteLossError(RunFailedError):
    """The loss became infinite or NaN."""


class NonFiniteWatch:
    """Remembers the first step whose loss or gradient is not finite, and the steps left out for it."""

    def __init__(
        self, config: TrainConfig, data: Data, run: RunFolder, checkpoints: Checkpoints, device: torch.device
    ) -> None:
        self.config, self.data, self.run, self.checkpoints = config, data, run, checkpoints
        self.left_out: list[int] = []
        # On the device, so that no step waits for it.
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def note(self, step: int, bad: Tensor) -> None:
        """Whether the step was `bad`, as a tensor that need not be known yet."""
        self._first_bad = torch.where((self._first_bad < 0) & bad, step, self._first_bad)

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

    def leave_out(self, step: int) -> Path:
        """Remember that this step makes no update, and keep its batch; the file it is in.

        Raises:
            NonFiniteLossError: too many steps near it were left out already.
        """
        kept = self._keep_batch(step)
        self.left_out = [*self.left_out, step]
        recent = [other for other in self.left_out if other > step - 2 * MOST_LEFT_OUT]
        if len(recent) > MOST_LEFT_OUT:
            raise NonFiniteLossError(
                f"the loss or its gradient is not finite at step {step}, although {len(recent)} batches "
                f"near it were left out (they are in {kept.parent}). {self._advice()}"
            )
        return kept

    def _keep_batch(self, step: int) -> Path:
        """Write a batch down for inspection: plain tensors, which `torch.load(weights_only=True)` reads."""
        file = self.run.subfolder("nonfinite") / f"step_{step:08d}.pt"
        fields = {"step": step, "seed": self.config.seed, **vars(self.data.train_batch(step))}
        plain = {key: value for key, value in fields.items() if isinstance(value, Tensor | int | float | str)}
        torch.save(plain, file)
        return file

    def _advice(self) -> str:
        clipping = "a smaller" if self.config.trainer.max_grad_norm else "clipping with"
        return (
            f"Try a lower optimizer.lr, a longer scheduler.warmup_steps, {clipping} trainer.max_grad_norm, "
            "device.precision=fp32, or trainer.nonfinite=skip."
        )
