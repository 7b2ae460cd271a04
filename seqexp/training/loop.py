"""The training loop: batches by step number, exact averages, no synchronisation with the device in a step.

Everything else, from curricula to samples, is done by hooks (`training/hooks/`).
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from seqexp import registry
from seqexp.config.root import TrainConfig, to_plain
from seqexp.data.base import Data
from seqexp.data.batch import Batch
from seqexp.errors import UserError
from seqexp.metrics.metric import Metric, better, check_monitor
from seqexp.tasks.base import EvalOptions, Task
from seqexp.tasks.carried import CarriedState
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.progress import Progress
from seqexp.tracking.run_folder import RunFolder, read_numbers
from seqexp.training.checkpoint import CheckpointError, Checkpoints
from seqexp.training.device import Device
from seqexp.training.hooks.base import Hook, RollBack, Update
from seqexp.training.hooks.carried import Carry
from seqexp.training.hooks.curriculum import Curriculum
from seqexp.training.hooks.nonfinite import NonFinite
from seqexp.training.interrupt import StopRequest
from seqexp.training.misfit import MISFIT, refuse_misfit
from seqexp.training.optimizers import Optimizers
from seqexp.training.random_state import random_state, set_random_state
from seqexp.training.rowwise import clip, gradients
from seqexp.training.schedules import lr_factor

log = logging.getLogger(__name__)


def planned_steps(config: TrainConfig, steps_per_epoch: float) -> int | None:
    """Return the maximal number of steps in the configuration; None if only minutes are given."""
    trainer = config.trainer
    limits = [] if trainer.max_steps is None else [trainer.max_steps]
    if trainer.max_epochs is not None:
        limits.append(math.ceil(trainer.max_epochs * steps_per_epoch))
    return min(limits, default=None)


class Trainer:
    """Train `model` on `data` until a limit in the configuration, a stop request, or the end of patience.

    `forward` is the function that the loss calls: the model, or its compiled form. `hooks` run after those of
    every training: non-finite losses, curriculum, and the carried state of a recurrent model.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        forward: Callable[..., Tensor],
        task: Task,
        data: Data,
        device: Device,
        run: RunFolder,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.config, self.settings = config, config.trainer
        self.model, self.forward, self.task, self.data = model, forward, task, data
        self.device, self.run = device, run
        self.total = planned_steps(config, data.steps_per_epoch)
        self.optimizers = Optimizers(config.optimizer, model)
        self.updater, self.note = task.updater(model, config, self.optimizers)
        self.schedule = registry.load("scheduler", config.scheduler.name)
        self.scaler = torch.amp.GradScaler(device.torch.type, enabled=device.precision == "fp16")
        self.declared = {f"val/{name}": spec for name, spec in task.metrics.items()}
        for hook in hooks:
            self.declared |= hook.declared()
        self.mode = check_monitor("trainer.monitor", config.trainer.monitor, self.declared).mode
        self.checkpoints = Checkpoints(
            run, config.trainer.keep_last, config.trainer.keep_best, config.trainer.monitor, self.mode
        )
        self.nonfinite = NonFinite(config, data, run, self.checkpoints, device.torch)
        own: list[Hook] = [self.nonfinite, Curriculum(data, device.torch)]
        if data.carries_state:
            carried = CarriedState(model)
            self.forward = carried
            own.append(Carry(carried))
        self.hooks = [*own, *hooks]
        self.step = 0
        self.end_as: str | None = None  # set by a hook to end the run
        self._elapsed_before = 0.0  # seconds in earlier processes
        self._started = self._saved = time.perf_counter()
        self.latest: dict[str, float] = {}
        # Sums since the last log line, kept on the device to avoid synchronisation.
        self._window_started = time.perf_counter()
        self._window_tokens = 0
        self._nll = torch.zeros((), device=device.torch)
        self._count = 0
        self._norm = torch.zeros((), device=device.torch)
        self.lr = 0.0

    # State

    def state(self) -> dict[str, Any]:
        """Return the state for a resume, as tensors and plain values.

        Raises:
            NonFiniteLossError: a loss or gradient since the last check was not finite.
        """
        return {
            "hooks": {hook.name: hook.state() for hook in self.hooks if hook.name},
            "model": self.model.state_dict(),
            "optimizers": self.optimizers.state(),
            "scaler": self.scaler.state_dict(),
            "random": random_state(),
            "elapsed": self.elapsed,
            "config": to_plain(self.config),
            "preprocessor": self.data.preprocessor.to_plain(),
            "data": self.data.state(),
            "window": {"nll": self._nll, "count": self._count},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Load a state that `state` returned.

        Raises:
            UserError: the state does not fit this run.
        """
        try:
            self._load_state(state)
        except MISFIT as error:
            raise UserError(
                f"the checkpoint of step {state['step']} in {self.run.path} does not fit the run "
                f"({str(error).splitlines()[0][:200]}); start a new one."
            ) from error

    def _load_state(self, state: dict[str, Any]) -> None:
        window = {"nll": torch.zeros(()), "count": 0}
        for key, own in (("elapsed", 0.0), ("window", window)):
            refuse_misfit(key, own, state[key])
        self.optimizers.load_state(state["optimizers"])
        self.model.load_state_dict(state["model"])
        self.scaler.load_state_dict(state["scaler"])
        set_random_state(state["random"])
        self.data.load_state(state["data"])
        for hook in self.hooks:
            if hook.name:
                hook.load_state(state["hooks"].get(hook.name, {}), self)
        self._nll, self._count = state["window"]["nll"].to(self.device.torch), state["window"]["count"]
        self.step, self._elapsed_before = state["step"], state["elapsed"]

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, with validation, in this process and earlier ones."""
        return self._elapsed_before + time.perf_counter() - self._started

    # The loop

    def fit(self, metrics: MetricsLog) -> str:
        """Train; return how it ended: ``finished``, ``stopped early``, ``pruned`` or ``interrupted``.

        Raises:
            NonFiniteLossError: the loss is infinite or NaN.
        """
        self.metrics = metrics
        progress = Progress(self.step, self.total, self.settings.max_minutes)
        self.model.train()
        if self.step and not self.is_validated() and self.validation_due():
            # The run was stopped between a checkpoint and its validation.
            self._validate()
        self._started = self._window_started = time.perf_counter()
        with StopRequest() as stop, progress.logging():
            try:
                ending = self._run(stop, progress)
            except BaseException:
                with suppress(CheckpointError):
                    self.checkpoints.wait()  # finish writing the last checkpoint
                raise
            finally:
                progress.close()
        self.checkpoints.wait()
        return ending

    def _run(self, stop: StopRequest, progress: Progress) -> str:
        if self.step == 0 and self.done():  # no steps: validate the untrained model
            self._save()
            self._validate()
        if self.step and not self.done() and self.is_validated() and self._out_of_patience():
            return "stopped early"  # the run was interrupted right after this validation
        for done in self.steps(progress):
            interrupted = stop.requested and not done
            validation_due = done or self._due(self.settings.eval_every)
            if validation_due or interrupted or self._checkpoint_due():
                self._save()
            if interrupted:
                return "interrupted"
            if validation_due:
                self._validate()
                if not done and self._out_of_patience():
                    return "stopped early"
                if self.end_as:
                    return self.end_as
        return "finished"

    def _checkpoint_due(self) -> bool:
        minutes = self.settings.checkpoint_minutes
        late = minutes is not None and time.perf_counter() - self._saved >= minutes * 60
        return late or self._due(self.settings.checkpoint_every)

    def steps(self, progress: Progress) -> Iterator[bool]:
        """Train and log step by step; yield after each step whether it was the last one."""
        # Call `done` once per step: with a time limit its value may change between two calls.
        done = self.done()
        while not done:
            try:
                self._train_step()
            except RollBack:
                # The step that training returns to is already logged, saved and validated.
                self._roll_back()
                continue
            done = self.done()
            if self.log_due() or done:
                self._log(progress, done)
            yield done

    def done(self) -> bool:
        """Return whether a limit in the configuration is reached: minutes, steps or epochs."""
        minutes = self.settings.max_minutes
        if minutes is not None and self.elapsed >= minutes * 60:
            return True
        return self.total is not None and self.step >= self.total

    def is_validated(self) -> bool:
        """Return whether the last checkpoint was validated."""
        return bool(self.checkpoints.index.get("validated", -1) >= self.step)

    def validation_due(self) -> bool:
        """Return whether this step is to be validated."""
        return self._due(self.settings.eval_every) or self.done()

    def log_due(self) -> bool:
        """Return whether this step is to be logged (every `trainer.log_every` steps)."""
        return self._due(self.settings.log_every)

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _progress_of_schedule(self) -> float:
        """Return 0 at the end of the warm-up, 1 at the end of the run, by the limit that is nearest."""
        progress = 0.0
        if self.settings.max_minutes is not None:
            progress = self.elapsed / (self.settings.max_minutes * 60)
        if self.total is not None:
            warmup = self.config.scheduler.warmup_steps
            progress = max(progress, (self.step - warmup) / max(1, self.total - warmup))
        return progress

    def _train_step(self) -> None:
        """Update the weights with one batch, without synchronisation with a GPU.

        Raises:
            RollBack: a hook requests to return to the last checkpoint.
        """
        factor = lr_factor(
            self.schedule, self.config.scheduler, self.config.optimizer.lr, self.step,
            self._progress_of_schedule(),
        )  # fmt: skip
        self.optimizers.set_factor(factor)
        self.lr = factor * self.config.optimizer.lr
        batch = self.data.train_batch(self.step)
        for hook in self.hooks:
            hook.before_step(self, batch)
        if self.step in self.nonfinite.skipped:
            zero = torch.zeros((), device=self.device.torch)
            self._norm = zero * math.nan  # not that of the step before
            update = Update(batch, 0, zero, self._norm, zero.bool(), skipped=True)
        else:
            update = self._update(batch)
        self.step += 1
        for hook in self.hooks:
            hook.after_step(self, update)

    def _update(self, batch: Batch) -> Update:
        """Gradients and, unless a hook objects, the step of the optimizers; or the task's updater."""
        update = self._update_in_place(batch) if self.updater else self._backward(batch)
        answers = [hook.before_update(self, update) for hook in self.hooks]
        update.skipped = not all(answers)
        if update.skipped:
            self.scaler.update()
        else:
            self._nll += update.nll
            self._count += update.count
            self._window_tokens += batch.count if batch.tokens_read is None else batch.tokens_read
            if self.settings.max_grad_norm:
                clip(gradients(self.model), self.settings.max_grad_norm, update.norm)
            if not self.updater:
                self.optimizers.step(self.scaler)
            self.scaler.update()
        self.optimizers.zero_grad()
        return update

    def _backward(self, batch: Batch) -> Update:
        """Gradients of the mean loss of a batch, in `trainer.accumulate` micro-batches."""
        count = self.task.count(batch)
        nll = torch.zeros((), device=self.device.torch)
        for micro_batch in batch.split(self.settings.accumulate):
            with self.device.autocast():
                output = self.task.loss(self.forward, micro_batch.to(self.device.torch), training=True)
            # Divide by the count of the batch, so that micro-batches of any size sum to its exact mean.
            self.scaler.scale(output.loss_sum / count).backward()
            nll += output.nll_sum
        for part in self.optimizers.parts:
            self.scaler.unscale_(part)
        self._norm = nn.utils.get_total_norm(gradients(self.model))
        # With loss scaling, gradients may overflow, and the scaler skips the update.
        bad = ~torch.isfinite(nll if self.scaler.is_enabled() else nll + self._norm)
        return Update(batch, count, nll, self._norm, bad)

    def _update_in_place(self, batch: Batch) -> Update:
        """Have the task's updater change the weights, without gradients; hooks come too late to object."""
        assert self.updater is not None
        loss, count = self.updater(batch, self.lr)
        nll = torch.tensor(loss, dtype=torch.float32)
        return Update(batch, count, nll, self._norm, ~torch.isfinite(nll))

    def _roll_back(self) -> None:
        """Return to the last checkpoint, and remove later rows of the metrics."""
        self.optimizers.zero_grad()
        elapsed = self.elapsed
        self.load_state(self.checkpoints.load_newest())
        self._elapsed_before, self._started = elapsed, time.perf_counter()
        self.metrics.cut_back(self.step)

    def _log(self, progress: Progress, last: bool) -> None:
        self.device.synchronize()
        self.nonfinite.check()
        now = time.perf_counter()
        seconds = now - self._window_started
        row = {
            "train/loss": float(self._nll) / self._count if self._count else math.nan,
            "train/lr": self.lr,
            **({} if self.updater else {"train/grad_norm": float(self._norm)}),
            **self.data.metrics(),
            "speed/tokens_per_s": self._window_tokens / seconds,
            "memory/peak_mb": self.device.peak_memory_mb(),
        }
        self.metrics.write(self.step, row)
        self.latest.update(row)
        self._nll.zero_()
        self._count = 0
        self._window_started, self._window_tokens = now, 0
        progress.update(self.step, self.elapsed, self.latest, last)

    # Checkpoints and validation

    def _save(self) -> None:
        with self._outside_the_window():
            self.checkpoints.save(self.step, self.state())
        self._saved = time.perf_counter()

    @contextmanager
    def _outside_the_window(self) -> Iterator[None]:
        """Return a context whose time is excluded from the logged training speed."""
        started = time.perf_counter()
        yield
        self._window_started += time.perf_counter() - started

    def _validate(self) -> None:
        """Validate the last checkpoint, and mark it if it is the best."""
        with self._outside_the_window():
            results = self.validate()
        values = {name: float(metric.value) for name, metric in results.items()}
        self.metrics.write(self.step, values)
        self.latest.update(values)
        value, stage = values[self.settings.monitor], self.data.state()
        best = self.checkpoints.best_value
        # Ignore the best value of an earlier stage of a curriculum.
        grown = self.checkpoints.best_stage not in (None, stage)
        is_best = math.isfinite(value) and (best is None or grown or better(value, best, self.mode))
        details = {name: metric.to_plain() for name, metric in results.items()}
        self.checkpoints.record_validation(self.step, value, is_best, stage, details)
        log.info(
            "step %d  %s%s", self.step,
            "  ".join(f"{name} {number:.4g}" for name, number in values.items()),
            "  (best)" if is_best else "",
        )  # fmt: skip
        self.metrics.flush()

    def validate(self) -> dict[str, Metric]:
        """Return the metrics of the validation split and the hooks by name, such as ``val/loss``."""
        options = EvalOptions(self.device.autocast, seed=self.config.seed)
        evaluation = self.task.evaluate(self.model, self.data, "val", options)
        results = {f"val/{name}": metric for name, metric in evaluation.items()}
        for hook in self.hooks:
            hook.at_validation(self, results)
        # A declared metric that could not be measured is NaN.
        missing = {name: spec.of(math.nan, 0) for name, spec in self.declared.items() if name not in results}
        return {**results, **missing}

    def logged(self, step: int) -> dict[str, float]:
        """The validation of a step as it was logged."""
        rows = [row for row in read_numbers(self.run.metrics_file) if row["step"] == step]
        return {name: row[name] for row in rows for name in self.declared if name in row}

    def monitor_again(self) -> None:
        """After a resume with another `trainer.monitor`, choose the best of the kept checkpoints by it."""
        before = self.checkpoints.monitored
        if before in (None, self.settings.monitor):
            return
        validated = self.checkpoints.index.get("validated", -1)
        values = {
            int(row["step"]): row[self.settings.monitor]
            for row in read_numbers(self.run.metrics_file)
            if row["step"] <= validated and self.settings.monitor in row
        }
        best = self.checkpoints.rank_again(values)
        found = f"best at step {best['step']} ({best['value']:.4g})" if best else "not measured yet"
        log.info("trainer.monitor was %s and is %s: %s", before, self.settings.monitor, found)

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        since = self.checkpoints.index.get("since_best", 0)
        if patience is None or since < patience:
            return False
        log.info("no better %s for %d validations: stopping early", self.settings.monitor, since)
        return True
