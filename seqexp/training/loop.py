"""The training loop: batches by step number, exact averages, no waiting for the device inside a step."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from seqexp import registry
from seqexp.config.checks import check_choice
from seqexp.config.root import TrainConfig, to_plain
from seqexp.data.base import Data
from seqexp.errors import UserError
from seqexp.evaluation.recurrence import gradient_flow, is_recurrent
from seqexp.evaluation.split import evaluate_split
from seqexp.evaluation.written import written_metrics
from seqexp.exams.scoring import Scorer
from seqexp.exams.sitting import Sitting
from seqexp.tasks.base import Task
from seqexp.tasks.carried import CarriedState
from seqexp.tracking.direction import better_when
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.plots import save
from seqexp.tracking.progress import Progress
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import (
    MISFIT,
    CheckpointError,
    Checkpoints,
    random_state,
    refuse_misfit,
    set_random_state,
)
from seqexp.training.device import Device
from seqexp.training.interrupt import StopRequest
from seqexp.training.nonfinite import NonFiniteWatch
from seqexp.training.optimizers import Optimizers
from seqexp.training.schedules import lr_factor

log = logging.getLogger(__name__)

# Held-out rows on which the gradient through time is measured at each validation.
GRADIENT_FLOW_ROWS = 16


def planned_steps(config: TrainConfig, steps_per_epoch: float) -> int | None:
    """How many steps the configuration asks for; None if it asks for minutes."""
    trainer = config.trainer
    if trainer.max_minutes is not None:
        return None
    if trainer.max_epochs is not None:
        return math.ceil(trainer.max_epochs * steps_per_epoch)
    return trainer.max_steps


class Trainer:
    """Trains `model` on `data` until the length in the configuration, a stop request, or patience's end.

    `forward` is what the loss calls: the model, or its compiled form. `prune` is told step and results of
    every validation, and may end a trial of a search. `exams` are sat at every validation.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        forward: Callable[[Tensor], Tensor],
        task: Task,
        data: Data,
        device: Device,
        run: RunFolder,
        prune: Callable[[int, dict[str, float]], bool] | None = None,
        exams: Sitting | None = None,
    ) -> None:
        self.config, self.settings = config, config.trainer
        self.model, self.forward, self.task, self.data = model, forward, task, data
        self.device, self.run, self._prune, self.exams = device, run, prune, exams
        self.total = planned_steps(config, data.steps_per_epoch)
        self.optimizers = Optimizers(config.optimizer, model)
        self.schedule = registry.load("scheduler", config.scheduler.name)
        self.scaler = torch.amp.GradScaler(device.torch.type, enabled=device.precision == "fp16")
        self.mode = better_when(config.trainer.monitor)
        self.checkpoints = Checkpoints(
            run, config.trainer.keep_last, config.trainer.keep_best, best_is_max=self.mode == "max"
        )
        self.measured = [f"val/{name}" for name in task.metric_names]
        self.measured += [f"exam/{exam.name}" for exam in exams.exams] if exams else []
        check_choice("trainer.monitor", config.trainer.monitor, self.measured)
        self.carried = CarriedState(model) if data.carries_state else None
        self.step = 0
        self._elapsed_before = 0.0  # in processes before this one
        self._started = self._saved = time.perf_counter()
        self.latest: dict[str, float] = {}
        # Sums since the last log line, kept on the device so that no step waits for them.
        self._window_started = time.perf_counter()
        self._window_tokens = 0
        self._nll = torch.zeros((), device=device.torch)
        self._count = 0
        # The same since the data was last asked whether it wants to change.
        self._review_nll = torch.zeros((), device=device.torch)
        self._review_count = 0
        self._norm = torch.zeros((), device=device.torch)
        self.lr = 0.0
        self.nonfinite = NonFiniteWatch(config, data, run, self.checkpoints, device.torch)

    # State

    def state(self) -> dict[str, Any]:
        """Everything a resume needs, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizers": self.optimizers.state(),
            "scaler": self.scaler.state_dict(),
            "random": random_state(),
            "elapsed": self.elapsed,
            "config": to_plain(self.config),
            "tokenizer": self.data.tokenizer.to_plain(),
            "data": self.data.state(),
            "review": {"nll": self._review_nll, "count": self._review_count},
            "window": {"nll": self._nll, "count": self._count},
            "left_out": self.nonfinite.left_out,
            "carried": self.carried.state if self.carried else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state as `state` gives it.

        Raises:
            UserError: it is that of another run, or of none.
        """
        try:
            self._load_state(state)
        except MISFIT as error:
            raise UserError(
                f"the checkpoint of step {state['step']} in {self.run.path} does not fit the run "
                f"({str(error).splitlines()[0][:200]}); start a new one."
            ) from error

    def _load_state(self, state: dict[str, Any]) -> None:
        own = self.state()
        for key in ("elapsed", "review", "window"):  # a run of an older version may lack one
            refuse_misfit(key, own[key], state.get(key, own[key]))
        left_out = state.get("left_out", [])
        if not all(type(step) is int for step in left_out):
            raise TypeError("left_out holds what are no steps")
        self.optimizers.load_state(state["optimizers"])
        self.model.load_state_dict(state["model"])
        if self.carried:
            self.carried.load(state["carried"], self.device.torch)
            with self.device.autocast():
                self.carried.try_out(self.config.data.batch_size)
        self.scaler.load_state_dict(state["scaler"])
        set_random_state(state["random"])
        self.data.load_state(state.get("data", {}))
        review = state.get("review") or {"nll": torch.zeros(()), "count": 0}
        self._review_nll = review["nll"].to(self.device.torch)
        self._review_count = review["count"]
        window = state.get("window") or {"nll": torch.zeros(()), "count": 0}
        self._nll, self._count = window["nll"].to(self.device.torch), window["count"]
        self.nonfinite.left_out = list(left_out)
        self.step, self._elapsed_before = state["step"], state["elapsed"]

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, validation included, in this process and those before it."""
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
            # Stopped between a checkpoint and its validation.
            self._validate()
        self._started = self._window_started = time.perf_counter()
        with StopRequest() as stop, progress.logging():
            try:
                ending = self._run(stop, progress)
            except BaseException:
                with suppress(CheckpointError):
                    self.checkpoints.wait()  # what was saved before it is on the disk
                raise
            finally:
                progress.close()
        self.checkpoints.wait()
        return ending

    def _run(self, stop: StopRequest, progress: Progress) -> str:
        if self.step == 0:
            self._record_gradient_flow()
        if self.step == 0 and self.done():  # asked for no steps: judge the untrained model
            self._save()
            self._validate()
        if self.step and not self.done() and self.is_validated() and self._out_of_patience():
            return "stopped early"  # the run was stopped between this validation and its consequence
        for done in self.steps(progress):
            interrupted = stop.requested and not done
            validation_due = done or self._due(self.settings.eval_every)
            if validation_due or interrupted or self._checkpoint_due():
                self._save()
            if interrupted:
                return "interrupted"
            if validation_due:
                self._validate()
                if not done and (ending := self._ends_early()):
                    return ending
        return "finished"

    def _ends_early(self) -> str | None:
        """How the run ends after the validation of this step, if it does."""
        if self._out_of_patience():
            return "stopped early"
        if self._prune and self._prune(self.step, self.latest):
            log.info("step %d  worse than other trials at this step: pruned", self.step)
            return "pruned"
        return None

    def _checkpoint_due(self) -> bool:
        minutes = self.settings.checkpoint_minutes
        late = minutes is not None and time.perf_counter() - self._saved >= minutes * 60
        return late or self._due(self.settings.checkpoint_every)

    def steps(self, progress: Progress) -> Iterator[bool]:
        """Train step by step, logging every so often; yields whether that was the last one."""
        # Asked once a step: where the clock decides, the answer may change from one line to the next.
        done = self.done()
        while not done:
            self._train_step()
            self.step += 1
            if self.device.torch.type == "cpu":
                self.nonfinite.check()
            self._review()
            done = self.done()
            if self.step % self.settings.log_every == 0 or done:
                self._log(progress, done)
            yield done

    def done(self) -> bool:
        """Whether the length in the configuration is reached."""
        if self.settings.max_minutes is not None:
            return self.elapsed >= self.settings.max_minutes * 60
        return self.step >= (self.total or 0)

    def is_validated(self) -> bool:
        """Whether the last checkpoint was judged; a run may have been stopped before it was."""
        return bool(self.checkpoints.index.get("validated", -1) >= self.step)

    def validation_due(self) -> bool:
        """Whether a run is validated at this step."""
        return self._due(self.settings.eval_every) or self.done()

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _progress_of_schedule(self) -> float:
        """0 at the end of the warm-up, 1 at the end of the run; by time where minutes are the limit."""
        if self.settings.max_minutes is not None:
            return self.elapsed / (self.settings.max_minutes * 60)
        warmup = self.config.scheduler.warmup_steps
        return (self.step - warmup) / max(1, (self.total or 0) - warmup)

    def _train_step(self) -> None:
        """One update from one batch; nothing here waits for a GPU."""
        factor = lr_factor(
            self.schedule, self.config.scheduler, self.config.optimizer.lr, self.step,
            self._progress_of_schedule(),
        )  # fmt: skip
        self.optimizers.set_factor(factor)
        self.lr = factor * self.config.optimizer.lr
        if self.step in self.nonfinite.left_out:
            return
        batch = self.data.train_batch(self.step)
        count = self.task.count(batch)
        nll = torch.zeros((), device=self.device.torch)
        if self.carried:
            self.carried.begin(batch)
        for piece in batch.split(self.settings.accumulate):
            with self.device.autocast():
                output = self.task.loss(self.carried or self.forward, piece.to(self.device.torch))
            # Divided by the count of the whole batch: pieces of any size add up to its exact average.
            self.scaler.scale(output.loss_sum / count).backward()
            nll += output.nll_sum
        for part in self.optimizers.parts:
            self.scaler.unscale_(part)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        self._norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        # Loss scaling expects gradients that overflow, and leaves out the update itself.
        bad = ~torch.isfinite(nll if self.scaler.is_enabled() else nll + self._norm)
        # The one setting that waits for a GPU at each step.
        if self.settings.nonfinite != "stop" and bool(bad):
            self._leave_out_batch()
            return
        self._nll += nll
        self._review_nll += nll
        self._count += count
        self._review_count += count
        self._window_tokens += batch.count
        if self.settings.max_grad_norm:
            nn.utils.clip_grads_with_norm_(parameters, self.settings.max_grad_norm, self._norm)
        self.optimizers.step(self.scaler)
        self.scaler.update()
        self.optimizers.zero_grad()
        self.nonfinite.note(self.step, bad)

    def _leave_out_batch(self) -> None:
        """No update from this batch; with ``rollback``, from the last checkpoint on.

        Raises:
            NonFiniteLossError: it does not help.
        """
        kept = self.nonfinite.leave_out(self.step)
        self.optimizers.zero_grad()
        self.scaler.update()
        if self.settings.nonfinite == "skip":
            log.warning(
                "step %d  loss or gradient is not finite: no update from this batch (%s)", self.step, kept
            )
            return
        self.checkpoints.wait()
        if "last" not in self.checkpoints.index:
            log.warning(
                "step %d  not finite, and no checkpoint yet: no update from this batch (%s)", self.step, kept
            )
            return
        left_out, bad, elapsed = self.nonfinite.left_out, self.step, self.elapsed
        self.load_state(self.checkpoints.load_newest())
        self.nonfinite.left_out = left_out
        self._elapsed_before, self._started = elapsed, time.perf_counter()
        self.metrics.cut_back(self.step)
        log.warning(
            "step %d  not finite: back to step %d, and on without that batch (%s)", bad, self.step, kept
        )
        self.step -= 1  # the caller counts the step that was not made

    def _review(self) -> None:
        """Every so often, let the data change with the loss, as a curriculum does."""
        every = self.data.review_every
        if every is None or self.step % every:
            return
        told = self.data.review(float(self._review_nll) / self._review_count)
        self._review_nll.zero_()
        self._review_count = 0
        if told:
            log.info("step %d  %s", self.step, told)

    def _log(self, progress: Progress, last: bool) -> None:
        self.device.synchronize()
        self.nonfinite.check()
        now = time.perf_counter()
        seconds = now - self._window_started
        row = {
            "train/loss": float(self._nll) / self._count if self._count else math.nan,
            "train/lr": self.lr,
            "train/grad_norm": float(self._norm),
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
        self.nonfinite.check()
        with self._outside_the_window():
            self.checkpoints.save(self.step, self.state())
        self._saved = time.perf_counter()

    @contextmanager
    def _outside_the_window(self) -> Iterator[None]:
        """What happens inside does not count as training time when the speed is logged."""
        started = time.perf_counter()
        yield
        self._window_started += time.perf_counter() - started

    def _validate(self) -> None:
        """Validate the model that was just saved, mark it as best if it is, write a sample."""
        with self._outside_the_window():
            results = self.validate()
            if math.isfinite(results["val/loss"]):
                self._sample()
            self._record_gradient_flow()
        self.metrics.write(self.step, results)
        self.latest.update(results)
        value, stage = results[self.settings.monitor], self.data.state()
        best = self.checkpoints.best_value
        # What an earlier stage of a curriculum did best at is not what the run is about.
        grown = self.checkpoints.best_stage not in (None, stage)
        better = math.isfinite(value) and (
            best is None or grown or (value < best if self.mode == "min" else value > best)
        )
        self.checkpoints.record_validation(self.step, value, better, stage)
        log.info(
            "step %d  %s%s", self.step,
            "  ".join(f"{name} {number:.4g}" for name, number in results.items()),
            "  (best)" if better else "",
        )  # fmt: skip
        self.metrics.flush()

    def validate(self) -> dict[str, float]:
        found = evaluate_split(
            self.task, self.model, self.data, "val", self.device.torch, self.device.autocast
        )
        if math.isfinite(found["val/loss"].value):
            with self.device.autocast():
                found |= written_metrics(self.task, self.model, self.data, "val", self.device.torch)
        results = {name: metric.value for name, metric in found.items()}
        if math.isfinite(found["val/loss"].value) and self.exams:
            results |= self.exams.accuracies(Scorer(self.model, self.data.tokenizer, self.device.autocast))
        # Where nothing can be written or read, what would have been measured is no number.
        return dict.fromkeys(self.measured, math.nan) | results

    def _record_gradient_flow(self) -> None:
        """Of a recurrent model: how the gradient of some held-out rows comes back through time."""
        if not is_recurrent(self.model):
            return
        batch = next(self.data.eval_batches("val")).rows(GRADIENT_FLOW_ROWS).to(self.device.torch)
        norms = gradient_flow(self.task, self.model, batch)
        self.metrics.gradient_flow(self.step, norms)

    def _sample(self) -> None:
        if not self.settings.sample_tokens:
            return
        self.model.eval()
        generation = replace(
            self.config.generation, max_new_tokens=self.settings.sample_tokens, num_samples=1
        )
        text = self.task.sample(self.model, self.data, generation, self.config.seed)
        pictures = self.task.sample_pictures(self.model, self.data)
        self.model.train()
        file = self.run.subfolder("samples") / f"step_{self.step:08d}.txt"
        file.write_text(text + "\n", encoding="utf-8")
        self.metrics.text("sample", text, self.step)
        for name, figure in pictures.items():
            picture = self.run.subfolder("samples") / f"step_{self.step:08d}_{name}.png"
            self.metrics.image(f"sample/{name}", save(figure, picture), self.step)

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        since = self.checkpoints.index.get("since_best", 0)
        if patience is None or since < patience:
            return False
        log.info("no better %s for %d validations: stopping early", self.settings.monitor, since)
        return True
