"""`seqexp train`: train a model from a configuration, and write a run folder."""

import contextlib
import logging
import shlex
import sys
import time
import traceback
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqexp import registry
from seqexp.commands.hydra_app import run_app
from seqexp.commands.init_from import insert_source_overrides
from seqexp.commands.pictures import try_to_draw
from seqexp.commands.resume import find_unfinished, insert_saved_overrides, load_last
from seqexp.config.effects import without_effect
from seqexp.config.root import TrainConfig, to_plain
from seqexp.errors import UserError
from seqexp.files import as_utf8, user_path, write_atomically
from seqexp.files import number as finite
from seqexp.sweeps.job import SweepJob
from seqexp.tracking.catalog import flatten

if TYPE_CHECKING:
    from seqexp.tracking.run_folder import RunFolder
    from seqexp.training.loop import Trainer

log = logging.getLogger(__name__)


def main() -> None:
    resume, init_from = (
        next((w.partition("=")[2] for w in sys.argv if w.lstrip("+").startswith(f"{key}=")), "").strip()
        for key in ("resume", "init_from")
    )
    if resume.strip("'") not in ("", "null", "auto"):
        insert_saved_overrides(resume)
    elif init_from.strip("'") not in ("", "null"):
        insert_source_overrides(init_from)
    run_app("train", train, run_name=lambda run: run)


def train(config: TrainConfig, job: SweepJob | None = None) -> "list[float] | str | None":
    """Train in a new folder, the folder of a resumed run, or the folder of a sweep's job.

    Returns, in a sweep, the values of the objectives (default: the best `trainer.monitor`); or ``pruned``;
    ``failed`` if a value is missing; or ``elsewhere`` if another process works on the job.

    Raises:
        UserError: the configuration, the data or the run to resume is invalid.
    """
    from seqexp.tracking.run_folder import OUTPUTS, RunFolder

    place = str(OUTPUTS.absolute())
    if as_utf8(place) != place:  # TensorBoard cannot write there
        raise UserError(f"{as_utf8(place)}: the name of this folder is not UTF-8; work in another folder.")
    todo = "new"
    if job:
        todo, run = job.open(config), job.run
        assert run is not None
        if todo == "elsewhere":
            log.info("another process works on job %d: %s", job.number, run.path)
            job.record("elsewhere")
            return "elsewhere"
        if todo == "finished":
            log.info("job %d is already finished: %s", job.number, run.path)
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
            log.info("job %d starts again (it was %s before)", job.number if job else 0, run.state())
            run.clear()
        _train_with_status(run, config, job)
    return _job_result(config, job, run, seconds=time.perf_counter() - started) if job else None


def _train_with_status(run: "RunFolder", config: TrainConfig, job: SweepJob | None) -> None:
    """Train, and write the run's status before and after."""
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
            run.restore_status(before)  # the run is unchanged
        else:
            text = str(error) if isinstance(error, UserError) else traceback.format_exc()
            with contextlib.suppress(OSError):  # a full disk may be the reason of the failure
                run.write_status("failed", error=text)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    if ending == "interrupted":
        run.write_status("interrupted")
        print(f"interrupted; resume with: seqexp train resume={run.path}", file=sys.stderr)
        raise KeyboardInterrupt
    run.write_status("finished", ending=ending)


def _job_result(config: TrainConfig, job: SweepJob, run: "RunFolder", **more: Any) -> "list[float] | str":
    """Record a finished job in the ledger; return its result for the sweeper, as `train` does."""
    from seqexp.tracking.catalog import measured, read_run

    objectives = config.sweep.objectives or [config.trainer.monitor]
    found = measured(run)
    values = [found.get(name) for name in objectives]
    status = "pruned" if run.read_status().get("ending") == "pruned" else "finished"
    mode = read_run(run.path, "train").directions.get(objectives[0])
    job.record(status, metric=objectives[0], mode=mode, value=values[0], **more)
    if status == "pruned":
        return "pruned"
    return "failed" if None in values else [float(value) for value in values if value is not None]


def _train_in(run: "RunFolder", config: TrainConfig, job: SweepJob | None) -> str:
    """Build everything and train; return how the training ended, as `Trainer.fit` does."""
    import torch

    from seqexp.commands.build import (
        build_model_for,
        build_task,
        check_carried_state,
        parameter_report,
        set_up_device,
    )
    from seqexp.commands.init_from import Source
    from seqexp.commands.vectors import take_vectors
    from seqexp.tracking.manifest import environment
    from seqexp.tracking.metrics import MetricsLog
    from seqexp.training.loop import Trainer
    from seqexp.training.lora import freeze_given
    from seqexp.training.optimizers import freeze

    resumed = config.resume is not None
    config.init_from = run.read_config().init_from if resumed else config.init_from
    fingerprint = config.fingerprint()
    _make_paths_absolute(config)
    if torch.are_deterministic_algorithms_enabled() != config.trainer.deterministic:
        torch.use_deterministic_algorithms(config.trainer.deterministic)
    device = set_up_device(config.device, config)
    torch.manual_seed(config.seed)
    source = Source.load(config.init_from) if config.init_from and not resumed else None
    taken = _saved_preprocessor(run) if resumed and config.init_from else None
    taken = source.preprocessor_for(config) if source else taken
    kind = registry.load("data", config.data.name)
    task = build_task(config.task)
    data = task.prepare(kind.build(config.data, config.tokenizer, config.seed, taken), config.model)
    described = data.describe()
    if described.get("stand_in"):
        log.warning("NOTE: %s", described["stand_in"])
    model = build_model_for(task, config.model, data.preprocessor)
    vectors = None if resumed else take_vectors(model, config.model, data.preprocessor, config.seed)
    initialised = source.initialise(model) if source else None
    model = model.to(device.torch)
    check_carried_state(config, model)
    notes = task.check(data, "val")
    parameters = parameter_report(model)  # of the model, whatever trainer.freeze leaves to train
    frozen = freeze(model, config.trainer.freeze)
    if getattr(config.model, "lora", None) and config.model.lora.rank:
        given = initialised or run.manifest()["init_from"]
        frozen = freeze_given(model, [*given["new"], *given["other_shape"]])
    if frozen:
        parameters["trained"] = parameter_report(model)["total"]
    forward, compiled = _compile(config, model, task, data, device, parameters["total"])
    hooks = _hooks(config, job, model, task, data)
    trainer = Trainer(config, model, forward, task, data, device, run, hooks)
    unused = without_effect(config, trainer.total)
    notes += [note for hook in trainer.hooks for note in hook.notes(trainer)]
    updater = trainer.updater
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
        "sparse_embeddings": trainer.optimizers.sparse,
        # With a time limit, the number of steps depends on the speed of the machine.
        "reproducible": config.trainer.max_minutes is None and (not updater or updater.repeats),
        "without_effect": unused,
        "notes": [*notes, trainer.note] if trainer.note else notes,
        **({"updates": updater.about} if updater else {}),
        **({"vectors": vectors} if vectors else {}),
        **({"init_from": initialised} if initialised else {}),
        **({"frozen": frozen} if frozen else {}),
    }
    if job:
        manifest["sweep"] = {"name": job.sweep.name, "job": job.number, "words": job.overrides}
    config.resume = None
    if resumed:
        load_last(trainer, run, manifest)
    else:
        run.write_manifest(manifest)
    run.write_config(to_plain(config))
    for tokenizer in data.preprocessor.tokenizers.values():
        for name, content in tokenizer.files().items():
            write_atomically(run.path / name, content)
    _log_start(config, run, manifest, trainer)
    if resumed and trainer.done() and trainer.is_validated():
        log.info(
            "this run is finished (step %d); raise its length (trainer.max_steps=) to continue.",
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
            # Not for the jobs of a sweep: drawing would take longer than their training.
            try_to_draw(run, config, trainer, metrics)
    finally:
        metrics.close()
        if metrics.failure or trainer.nonfinite.skipped:
            with contextlib.suppress(OSError):
                problems = {"log_failure": metrics.failure, "batches_skipped": trainer.nonfinite.skipped}
                run.write_manifest({**run.manifest(), **problems})
    if ending != "interrupted" and not job:
        example = task.example_input(data)
        override = f" {task.input_key}={shlex.quote(example)}" if example else ""
        log.info("next    seqexp eval run=latest   or   seqexp generate run=latest%s", override)
    return ending


def _make_paths_absolute(config: TrainConfig) -> None:
    """Make paths absolute, because later commands may run in another folder."""
    for settings in (config.data, config.exams, config.tokenizer):
        for spec in fields(settings):
            value = getattr(settings, spec.name)
            if spec.name.endswith("path") and value:
                setattr(settings, spec.name, str(user_path(value).absolute()))


def _saved_preprocessor(run: "RunFolder") -> Any:
    """Return the preprocessor of a resumed run, which may come from another run (`init_from`)."""
    from seqexp.data.preprocessor import Preprocessor
    from seqexp.training.checkpoint import Checkpoints

    return Preprocessor.from_plain(Checkpoints(run).load_newest().get("preprocessor"))


def _hooks(config: TrainConfig, job: SweepJob | None, model: Any, task: Any, data: Any) -> list[Any]:
    """Return the hooks of the run, in the order in which they run at a validation."""
    from seqexp.exams.runner import ExamRunner
    from seqexp.tasks.recurrence import is_recurrent
    from seqexp.training.hooks.ema import EMA
    from seqexp.training.hooks.exams import Exams
    from seqexp.training.hooks.gradient_flow import GradientFlow
    from seqexp.training.hooks.memory import FreedMemory
    from seqexp.training.hooks.pruning import Pruning
    from seqexp.training.hooks.samples import Samples
    from seqexp.training.hooks.unfreezing import GradualUnfreezing

    hooks: list[Any] = [FreedMemory()]
    if config.trainer.unfreeze_every is not None:
        hooks.append(GradualUnfreezing(model, config.trainer.unfreeze_every))
    if config.trainer.ema_decay is not None:
        hooks.append(EMA(model, task, config.trainer.ema_decay))
    if config.exams.wanted:
        hooks.append(Exams(ExamRunner(config.exams, data, config.seed, in_training=True)))
    if config.trainer.sample_tokens:
        hooks.append(Samples())
    if is_recurrent(model):
        hooks.append(GradientFlow())
    prune = _pruning(config, job)
    return [*hooks, Pruning(prune)] if prune else hooks


def _swept_settings(config: TrainConfig, job: SweepJob) -> dict[str, Any]:
    """Return the settings in which the jobs of this sweep differ; ``experiment=`` counts as a setting."""
    flat = flatten(to_plain(config))
    settings = {}
    for override in job.sweep.swept_overrides(job.overrides):
        key, _, value = override.partition("=")
        key = key.lstrip("+")
        named = f"{key}.name" if key not in flat and f"{key}.name" in flat else key
        settings[named] = flat.get(named, value)
    return settings


def _pruning(config: TrainConfig, job: SweepJob | None) -> Any:
    """Return the function that decides whether a trial of a search is pruned, or None."""
    from seqexp.metrics.metric import check_monitor
    from seqexp.tasks.declared import declared_metrics

    declared = declared_metrics(config)
    for name in config.sweep.objectives or ():
        check_monitor("sweep.objectives", name, declared)
    if job is None or config.sweep.trial is None or config.sweep.pruner == "none":
        return None
    from seqexp.sweeps.search import PruningWatch

    metric = (config.sweep.objectives or [config.trainer.monitor])[0]
    return PruningWatch(job.sweep, config.sweep, metric, config.trainer.eval_every)


def _compile(
    config: TrainConfig, model: Any, task: Any, data: Any, device: Any, parameters: int
) -> tuple[Any, dict[str, Any]]:
    """Return the model or its compiled form, and the manifest's entry about compilation."""
    from seqexp.training.device import compile_or_not, wants_compile
    from seqexp.training.loop import planned_steps

    if data.carries_state:
        return model, {"compiled": False, "reason": "a model whose state is carried over is not compiled"}
    if not getattr(model, "compilable", True):
        return model, {"compiled": False, "reason": "compiling the graph of this model gains nothing"}
    timed = config.trainer.max_minutes is not None
    steps = None if timed else planned_steps(config, data.steps_per_epoch)
    example = next(iter(data.train_batch(0).split(config.trainer.accumulate)))
    per_step = 6.0 * parameters * data.train_batch(0).count
    wanted, reason = wants_compile(config.device, device, per_step * steps if steps else None)
    if not wanted:
        return model, {"compiled": False, "reason": reason}

    def trial(forward: Any) -> None:
        with device.autocast():
            loss = task.loss(forward, example.to(device.torch), training=True).loss_sum
        loss.backward()

    log.info("compiling the model (%s) …", reason)
    started = time.perf_counter()
    forward, failure = compile_or_not(model, trial)
    seconds = time.perf_counter() - started
    if failure:
        log.warning("compiling failed, so training continues without: %s", failure)
        return model, {"compiled": False, "reason": f"the compiler failed: {failure}"}
    log.info("compiled in %.0f s", seconds)
    return forward, {"compiled": True, "reason": reason, "seconds": round(seconds, 1)}


def _log_start(config: TrainConfig, run: "RunFolder", manifest: dict[str, Any], trainer: "Trainer") -> None:
    corpus, minutes = manifest["corpus"], config.trainer.max_minutes
    # The first number of a split's description is its size.
    unit = next(iter(next(iter(corpus["splits"].values()))))
    splits = ", ".join(f"{name} {split[unit]:,}" for name, split in corpus["splits"].items())
    limits = [] if trainer.total is None else [f"{trainer.total:,} steps"]
    if minutes is not None:
        limits.append(f"{minutes:g} minutes (not reproducible: the number of steps depends on the machine)")
    length = ", or ".join(limits)
    for note in [*manifest["without_effect"], *manifest["notes"]]:
        log.warning("NOTE: %s", note)
    log.info("run     %s", run.path)
    log.info("data    %s: %s; %s: %s", corpus["name"], corpus["origin"], unit, splits)
    parameters = manifest["parameters"]
    trained = f", {parameters['trained']:,} of them trained" if "trained" in parameters else ""
    log.info("model   %s, %s parameters%s", config.model.name, f"{parameters['total']:,}", trained)
    if manifest["sparse_embeddings"]:
        names = ", ".join(manifest["sparse_embeddings"])
        log.info("rows    of %s: only those of the batch are updated (optimizer.sparse_embeddings)", names)
    eager = "compiled" if manifest["compiled"]["compiled"] else "eager"
    log.info("device  %s, %s, %s", manifest["device"], manifest["precision"], manifest.get("updates", eager))
    log.info("length  %s%s", length, f", from step {trainer.step}" if trainer.step else "")


def _conclude(
    run: "RunFolder", config: TrainConfig, trainer: "Trainer", manifest: dict[str, Any], ending: str
) -> None:
    """Write ``result.json``: the metrics of the best checkpoint."""
    best = trainer.checkpoints.index.get("best")
    if best is None:
        return
    details = best.get("metrics", {})
    values = {name: finite(metric["value"]) for name, metric in details.items()}
    run.write_result(
        {
            "command": "train",
            "run": str(run.path),
            "checkpoint": "best",
            "step": best["step"],
            "split": "val",
            # Checkpoints of schema 1 have the value of `trainer.monitor` alone.
            "metrics": values or trainer.logged(best["step"]),
            # Unit, direction, count and interval of each.
            "details": {
                name: {**metric, "value": finite(metric["value"])} for name, metric in details.items()
            },
            "monitor": {
                "name": config.trainer.monitor,
                "mode": trainer.mode,
                "best": best["value"],
                "step": best["step"],
            },
            "ending": ending,
            "minutes": round(trainer.elapsed / 60, 2),
            "stand_in": manifest["corpus"].get("stand_in"),
            "reproducible": run.manifest().get("reproducible"),
        }
    )
    log.info(
        "%s after %d steps in %.0f s; best %s %.4g at step %d", ending, trainer.step, trainer.elapsed,
        config.trainer.monitor, best["value"], best["step"],
    )  # fmt: skip
    if manifest["corpus"].get("stand_in"):
        log.warning("NOTE: %s", manifest["corpus"]["stand_in"])
