"""`seqexp train`: from a configuration to a run folder with a trained model."""

import contextlib
import logging
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqexp import registry
from seqexp.commands.hydra_app import run_app
from seqexp.commands.pictures import try_to_draw
from seqexp.commands.resume import find_unfinished, load_last, type_saved_configuration
from seqexp.config.checks import check_choice
from seqexp.config.root import TrainConfig, to_plain
from seqexp.errors import UserError
from seqexp.files import user_path
from seqexp.sweeps.job import SweepJob
from seqexp.tracking.catalog import flatten

if TYPE_CHECKING:
    from seqexp.tracking.run_folder import RunFolder
    from seqexp.training.loop import Trainer

log = logging.getLogger(__name__)


def main() -> None:
    resume = next((w.partition("=")[2] for w in sys.argv if w.lstrip("+").startswith("resume=")), None)
    if resume and resume.strip("'") not in ("null", "auto"):
        type_saved_configuration(resume)
    run_app("train", train, run_name=lambda run: run)


def train(config: TrainConfig, job: SweepJob | None = None) -> "list[float] | str | None":
    """Train in a folder of its own, in the run's that goes on, or in that of a sweep's job.

    Returns, in a sweep, the values of the objectives, by default the best of `trainer.monitor`; or
    ``pruned``; or ``failed``, if there are none; or ``elsewhere``, where another process works on the job.
    """
    from seqexp.tracking.run_folder import RunFolder

    todo = "new"
    if job:
        todo, run = job.open(config), job.run
        assert run is not None
        if todo == "elsewhere":
            log.info("job %d is worked on by another process: %s", job.number, run.path)
            job.record("elsewhere")
            return "elsewhere"
        if todo == "finished":
            log.info("job %d is finished already: %s", job.number, run.path)
            return _job_result(config, job, run, before=True)
        if todo == "resume":
            config.resume = str(run.path)
        if job.threads and config.device.threads is None:
            config.device.threads = job.threads
    elif config.sweep.method != "grid":
        raise UserError(f"sweep={config.sweep.method} is for several runs; add -m.")
    else:
        if config.resume == "auto":
            unfinished = find_unfinished(config)
            config.resume = str(unfinished.path) if unfinished else None
        run = RunFolder(Path(config.resume)) if config.resume else RunFolder.create("train", config.name)
    started = time.perf_counter()
    with run.owned():
        if todo == "again":
            log.info("job %d is tried again (it was %s before)", job.number if job else 0, run.state())
            run.clear()
        _train_and_say(run, config, job)
    return _job_result(config, job, run, seconds=time.perf_counter() - started) if job else None


def _train_and_say(run: "RunFolder", config: TrainConfig, job: SweepJob | None) -> None:
    """Train, with the run's status before, during and after in its folder."""
    resuming = config.resume is not None
    handler = run.log_to_file("train")
    before = run.read_status()
    run.write_status("running")
    try:
        ending = _train_in(run, config, job)
    except KeyboardInterrupt:
        run.write_status("interrupted")
        raise
    except Exception as error:
        if resuming and isinstance(error, UserError):
            run.restore_status(before)  # nothing was done to the run
        else:
            text = str(error) if isinstance(error, UserError) else traceback.format_exc()
            with contextlib.suppress(OSError):  # the disk may be full, and that the reason
                run.write_status("failed", error=text)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    if ending == "interrupted":
        run.write_status("interrupted")
        print(f"interrupted; go on with: seqexp train resume={run.path}", file=sys.stderr)
        raise KeyboardInterrupt
    run.write_status("finished", ending=ending)


def _job_result(config: TrainConfig, job: SweepJob, run: "RunFolder", **more: Any) -> "list[float] | str":
    """What the sweep is told of a finished job; see `train`."""
    from seqexp.tracking.catalog import measured

    objectives = config.sweep.objectives or [config.trainer.monitor]
    found = measured(run)
    values = [found.get(name) for name in objectives]
    status = "pruned" if run.read_status().get("ending") == "pruned" else "finished"
    job.record(status, metric=objectives[0], value=values[0], **more)
    if status == "pruned":
        return "pruned"
    return "failed" if None in values else [float(value) for value in values if value is not None]


def _train_in(run: "RunFolder", config: TrainConfig, job: SweepJob | None) -> str:
    """The training itself; returns how it ended."""
    import torch

    from seqexp.commands.build import (
        build_model,
        build_task,
        check_carried_state,
        parameter_report,
        set_up_device,
    )
    from seqexp.exams.sitting import Sitting
    from seqexp.tracking.manifest import environment
    from seqexp.tracking.metrics import MetricsLog
    from seqexp.training.loop import Trainer

    fingerprint = config.fingerprint()
    for key in ("path", "source_path", "target_path"):
        if getattr(config.data, key, None):
            # Later commands may be typed in another folder.
            setattr(config.data, key, str(user_path(getattr(config.data, key)).absolute()))
    if config.exams.path:
        config.exams.path = str(user_path(config.exams.path).absolute())
    if torch.are_deterministic_algorithms_enabled() != config.trainer.deterministic:
        torch.use_deterministic_algorithms(config.trainer.deterministic)
    device = set_up_device(config.device, config)
    torch.manual_seed(config.seed)
    data = registry.load("data", config.data.name).build(config.data, config.tokenizer, config.seed)
    described = data.describe()
    if described["stand_in"]:
        log.warning("NOTE: %s", described["stand_in"])
    model = build_model(config.model, data.sizes(data.tokenizer)).to(device.torch)
    check_carried_state(config, model)
    task = build_task(config.task)
    parameters = parameter_report(model)
    forward, compiled = _compile(config, model, task, data, device, parameters["total"])
    exams = Sitting(config.exams, data, config.seed, in_training=True) if config.exams.wanted else None
    trainer = Trainer(config, model, forward, task, data, device, run, _pruning(config, job, task), exams)
    manifest = {
        "command": "train",
        **environment(),
        "fingerprint": fingerprint,
        "seed": config.seed,
        "corpus": described,
        "device": device.name,
        "precision": device.precision,
        "threads": device.threads,
        "compiled": compiled,
        "parameters": parameters,
        "planned_steps": trainer.total,
        # Where minutes decide, the number of steps depends on the machine's speed that day.
        "reproducible": trainer.total is not None,
    }
    if job:
        manifest["sweep"] = {"name": job.sweep.name, "job": job.number, "words": job.words}
    resumed = config.resume is not None
    config.resume = None
    if resumed:
        load_last(trainer, run, manifest)
    else:
        run.write_manifest(manifest)
    run.write_config(to_plain(config))
    _say_what_begins(config, run, manifest, trainer)
    if resumed and trainer.done() and trainer.is_validated():
        log.info(
            "this run is finished (step %d); raise its length (trainer.max_steps=) to go on.",
            trainer.step,
        )
        return "finished"
    metrics = MetricsLog(
        run.metrics_file,
        run.path / "tensorboard",
        after_step=trainer.step if resumed else None,
        validated=trainer.is_validated() or not trainer.validation_due(),
    )
    try:
        metrics.text("config", run.config_file.read_text(encoding="utf-8"), trainer.step)
        if job:
            metrics.settings(_swept_settings(config, job))
        ending = trainer.fit(metrics)
        _conclude(run, config, trainer, manifest, ending)
        if job and ending != "interrupted":
            best = run.result()
            metrics.conclude(best.get("metrics", {}), best.get("step", trainer.step))
        if ending != "interrupted" and not job:
            # A sweep's jobs are short and many: their pictures would take longer than they do.
            try_to_draw(run, config, trainer, metrics)
    finally:
        metrics.close()
        if metrics.failure or trainer.nonfinite.left_out:
            with contextlib.suppress(OSError):
                told = {"log_failure": metrics.failure, "batches_left_out": trainer.nonfinite.left_out}
                run.write_manifest({**run.manifest(), **told})
    if ending != "interrupted" and not job:
        word = {"parity": "prompt=0110100"}.get(config.task.name, 'prompt="The "')
        if config.task.name == "translation":
            word = f'text="{data.parts["val"].pairs[0][0]}"'
        log.info("next    seqexp eval run=latest   or   seqexp generate run=latest %s", word)
    return ending


def _swept_settings(config: TrainConfig, job: SweepJob) -> dict[str, Any]:
    """The settings in which the jobs of this sweep differ; ``experiment=``, which sets none, as it is."""
    flat = flatten(to_plain(config))
    settings = {}
    for word in job.sweep.swept_words(job.words):
        key, _, value = word.partition("=")
        key = key.lstrip("+")
        named = f"{key}.name" if key not in flat and f"{key}.name" in flat else key
        settings[named] = flat.get(named, value)
    return settings


def _pruning(config: TrainConfig, job: SweepJob | None, task: Any) -> Any:
    """What ends a trial of a search early, or None."""
    for name in config.sweep.objectives or ():
        known = [f"val/{metric}" for metric in task.metric_names]
        known += [f"exam/{exam}" for exam in config.exams.wanted]
        known += ["parameters", "minutes", "steps", "speed/tokens_per_s"]
        check_choice("sweep.objectives", name, known)
    if job is None or config.sweep.trial is None or config.sweep.pruner == "none":
        return None
    from seqexp.sweeps.search import PruningWatch

    metric = (config.sweep.objectives or [config.trainer.monitor])[0]
    return PruningWatch(job.sweep, config.sweep, metric, config.trainer.eval_every)


def _compile(
    config: TrainConfig, model: Any, task: Any, data: Any, device: Any, parameters: int
) -> tuple[Any, dict[str, Any]]:
    """The function that the loss calls, and what the manifest says about compiling."""
    from seqexp.training.device import compile_or_not, wants_compile
    from seqexp.training.loop import planned_steps

    if data.carries_state:
        return model, {"compiled": False, "reason": "a model whose state is carried over is not compiled"}
    steps = planned_steps(config, data.steps_per_epoch)
    example = next(iter(data.train_batch(0).split(config.trainer.accumulate)))
    per_step = 6.0 * parameters * data.train_batch(0).count
    wanted, reason = wants_compile(config.device, device, per_step * steps if steps else None)
    if not wanted:
        return model, {"compiled": False, "reason": reason}

    def trial(forward: Any) -> None:
        with device.autocast():
            loss = task.loss(forward, example.to(device.torch)).loss_sum
        loss.backward()

    log.info("compiling the model (%s) …", reason)
    started = time.perf_counter()
    forward, failure = compile_or_not(model, trial)
    seconds = time.perf_counter() - started
    if failure:
        log.warning("compiling failed, so training goes on without: %s", failure)
        return model, {"compiled": False, "reason": f"the compiler failed: {failure}"}
    log.info("compiled in %.0f s", seconds)
    return forward, {"compiled": True, "reason": reason, "seconds": round(seconds, 1)}


def _say_what_begins(
    config: TrainConfig, run: "RunFolder", manifest: dict[str, Any], trainer: "Trainer"
) -> None:
    corpus = manifest["corpus"]
    unit = next(unit for unit in ("pairs", "tokens", "sequences") if unit in corpus["parts"]["val"])
    parts = ", ".join(f"{name} {part[unit]:,}" for name, part in corpus["parts"].items())
    if trainer.total is not None:
        length = f"{trainer.total:,} steps"
    else:
        length = (
            f"{config.trainer.max_minutes:g} minutes (not reproducible: the number of steps depends "
            "on the machine)"
        )
    log.info("run     %s", run.path)
    log.info("data    %s: %s; %s: %s", corpus["name"], corpus["origin"], unit, parts)
    log.info("model   %s, %s parameters", config.model.name, f"{manifest['parameters']['total']:,}")
    log.info(
        "device  %s, %s, %s", manifest["device"], manifest["precision"],
        "compiled" if manifest["compiled"]["compiled"] else "eager",
    )  # fmt: skip
    log.info("length  %s%s", length, f", from step {trainer.step}" if trainer.step else "")


def _conclude(
    run: "RunFolder", config: TrainConfig, trainer: "Trainer", manifest: dict[str, Any], ending: str
) -> None:
    """The result."""
    from seqexp.tracking.run_folder import read_metrics

    rows = read_metrics(run.metrics_file)
    best = trainer.checkpoints.index.get("best")
    if best is None:
        return
    measured = [row for row in rows if row["step"] == best["step"] and "val/loss" in row]
    run.write_result(
        {
            "command": "train",
            "run": str(run.path),
            "checkpoint": "best",
            "step": best["step"],
            "split": "val",
            "metrics": {key: value for key, value in measured[-1].items() if key != "step"},
            "monitor": {
                "name": config.trainer.monitor,
                "mode": trainer.mode,
                "best": best["value"],
                "step": best["step"],
            },
            "ending": ending,
            "minutes": round(trainer.elapsed / 60, 2),
            "stand_in": manifest["corpus"]["stand_in"],
            "reproducible": run.manifest().get("reproducible"),
        }
    )
    log.info(
        "%s after %d steps in %.0f s; best %s %.4g at step %d", ending, trainer.step, trainer.elapsed,
        config.trainer.monitor, best["value"], best["step"],
    )  # fmt: skip
    if manifest["corpus"]["stand_in"]:
        log.warning("NOTE: %s", manifest["corpus"]["stand_in"])
