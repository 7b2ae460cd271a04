"""`seqexp train`: from a configuration to a run folder with a trained model."""

import logging
import sys
import time
import traceback
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from seqexp import registry
from seqexp.commands.hydra_app import run_app
from seqexp.config.root import TrainConfig, to_plain
from seqexp.errors import UserError
from seqexp.quoting import quote, unquote

if TYPE_CHECKING:
    from seqexp.tracking.metrics import MetricsLog
    from seqexp.tracking.run_folder import RunFolder
    from seqexp.training.loop import Trainer

log = logging.getLogger(__name__)

# What may be changed when a run goes on: how long, how fast, what is shown. The rest decides what the
# numbers mean.
RESUMABLE = (
    "trainer.", "optimizer.", "scheduler.", "device.", "generation.", "data.path", "data.source_path",
    "data.target_path",
)  # fmt: skip


def main() -> None:
    resume = next((w.partition("=")[2] for w in sys.argv if w.lstrip("+").startswith("resume=")), None)
    if resume and resume.strip("'") != "null":
        _type_saved_configuration(resume)
    jobs: list[tuple[str, Any]] = []

    def job(config: TrainConfig) -> float | None:
        return train(config, jobs)

    run_app("train", job, run_name=lambda run: run, afterwards=lambda: _draw_sweep(jobs))


def _type_saved_configuration(resume: str) -> None:
    """Put the words of the run's own configuration before the ones typed."""
    from seqexp.tracking.run_folder import find_run

    if {"-m", "--multirun"} & set(sys.argv):
        raise UserError("resume= goes on with one run; it cannot be used with -m.")
    quoted = resume.startswith("'") and resume.endswith("'")
    run = find_run(unquote(resume) if quoted else resume, key="resume")
    saved = run.read_config()
    typed = [word for word in sys.argv[1:] if not word.lstrip("+").startswith("resume=")]
    groups = {word.partition("=")[0] for word in typed}
    for word in typed:
        key = word.partition("=")[0].lstrip("+")
        if "=" in word and not key.startswith(RESUMABLE) and key != "device":
            raise UserError(
                f"{word} cannot be changed when a run goes on; settings such as trainer.max_steps= and "
                "optimizer.lr= can, and those of scheduler and device. Start a new run for the rest."
            )
    words = []
    for spec in fields(TrainConfig):
        value = getattr(saved, spec.name)
        if spec.name in ("resume", "sweep") or spec.name in groups:
            continue
        if is_dataclass(value):
            if spec.name in registry.ENTRIES:
                words.append(f"{spec.name}=base_{getattr(value, 'name')}")  # noqa: B009
            plain = to_plain(value)
            words += [_word(f"{spec.name}.{key}", item) for key, item in plain.items()]
        else:
            words.append(_word(spec.name, value))
    sys.argv = [sys.argv[0], *words, *typed, f"resume={quote(str(run.path))}"]


def _word(key: str, value: Any) -> str:
    """An override that gives exactly this value back."""
    if isinstance(value, str):
        return f"{key}={quote(value)}"
    if value is None:
        return f"{key}=null"
    if isinstance(value, list):
        return f"{key}=[{','.join(map(str, value))}]"
    return f"{key}={value}"


def train(config: TrainConfig, jobs: "list[tuple[str, RunFolder]] | None" = None) -> float | None:
    """Make or reopen the run folder and train in it; the best value of `trainer.monitor`.

    In a sweep, the folder is added to `jobs` with the words that this job differs in, but for the seed.
    """
    from seqexp.tracking.run_folder import RunFolder

    resuming = config.resume is not None
    if config.resume:
        run = RunFolder(Path(config.resume))
    else:
        run = RunFolder.create("train", config.name, _sweep_job(config))
    if jobs is not None and _sweep_job(config):
        words = [word for word in HydraConfig.get().overrides.task if not word.startswith("seed=")]
        jobs.append((" ".join(words), run))
    handler = run.log_to_file("train")
    before = run.read_status()
    run.write_status("running")
    try:
        best, ending = _train_in(run, config)
    except KeyboardInterrupt:
        run.write_status("interrupted")
        raise
    except Exception as error:
        if resuming and isinstance(error, UserError):
            run.restore_status(before)  # nothing was done to the run
        else:
            text = str(error) if isinstance(error, UserError) else traceback.format_exc()
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
    return best


def _sweep_job(config: TrainConfig) -> tuple[str, str] | None:
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return config.sweep.name, f"{HydraConfig.get().job.num}_{config.fingerprint()}"


def _draw_sweep(jobs: "list[tuple[str, RunFolder]]") -> None:
    """The validation loss of every job of a sweep, in the sweep's folder."""
    if len(jobs) < 2:
        return
    from seqexp.tracking.metrics import read_metrics
    from seqexp.tracking.plots import save, sweep_figure

    # What all jobs have in common says nothing in a legend.
    common = set.intersection(*(set(label.split()) for label, _ in jobs))
    rows = [
        (" ".join(word for word in label.split() if word not in common), read_metrics(run.metrics_file))
        for label, run in jobs
    ]
    folder = jobs[0][1].path.parent
    try:
        save(sweep_figure(rows, "val/loss", folder.name), folder / "curves.png")
    except Exception as error:
        print(f"the curves of all jobs could not be drawn: {error!r}", file=sys.stderr)
        return
    print(f"curves of all jobs: {folder / 'curves.png'}", file=sys.stderr)


def _train_in(run: "RunFolder", config: TrainConfig) -> tuple[float | None, str]:
    """The training itself; returns the best value of the monitor and how it ended."""
    import torch

    from seqexp.commands.build import build_model, build_task, parameter_report, set_up_device
    from seqexp.tracking.manifest import environment
    from seqexp.tracking.metrics import MetricsLog
    from seqexp.training.loop import Trainer

    fingerprint = config.fingerprint()
    for key in ("path", "source_path", "target_path"):
        if getattr(config.data, key, None):
            # Later commands may be typed in another folder.
            setattr(config.data, key, str(Path(getattr(config.data, key)).expanduser().absolute()))
    if torch.are_deterministic_algorithms_enabled() != config.trainer.deterministic:
        torch.use_deterministic_algorithms(config.trainer.deterministic)
    device = set_up_device(config.device, config)
    torch.manual_seed(config.seed)
    data = registry.load("data", config.data.name).build(config.data, config.tokenizer, config.seed)
    described = data.describe()
    if described["stand_in"]:
        log.warning("NOTE: %s", described["stand_in"])
    model = build_model(config.model, data.sizes(data.tokenizer)).to(device.torch)
    if data.carries_state and not hasattr(model, "continue_from"):
        raise UserError(
            "data.carry_state=true needs a recurrent model (model=rnn, lstm or gru), and "
            f"model={config.model.name} was given."
        )
    task = build_task(config.task)
    parameters = parameter_report(model)
    forward, compiled = _compile(config, model, task, data, device, parameters["total"])
    trainer = Trainer(config, model, forward, task, data, device, run)
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
    resumed = config.resume is not None
    config.resume = None
    if resumed:
        _load_last(trainer, run, manifest)
    else:
        run.write_manifest(manifest)
    run.write_config(to_plain(config))
    _say_what_begins(config, run, manifest, trainer)
    if resumed and trainer.done():
        log.info(
            "this run is finished (step %d); raise its length (trainer.max_steps=) to go on.",
            trainer.step,
        )
        return trainer.checkpoints.best_value, "finished"
    metrics = MetricsLog(
        run.metrics_file, run.path / "tensorboard", after_step=trainer.step if resumed else None
    )
    try:
        metrics.text("config", run.config_file.read_text(encoding="utf-8"), trainer.step)
        ending = trainer.fit(metrics)
        _conclude(run, config, trainer, manifest, ending)
        if ending != "interrupted" and not _sweep_job(config):
            # A sweep's jobs are short and many: their pictures would take longer than they do.
            _draw(run, config, trainer, metrics)
    finally:
        metrics.close()
    if ending != "interrupted":
        word = {"parity": "prompt=0110100"}.get(config.task.name, 'prompt="The "')
        if config.task.name == "translation":
            word = f'text="{data.parts["val"].pairs[0][0]}"'
        log.info("next    seqexp eval run=latest   or   seqexp generate run=latest %s", word)
    return trainer.checkpoints.best_value, ending


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


def _load_last(trainer: "Trainer", run: "RunFolder", manifest: dict[str, Any]) -> None:
    """Load the last checkpoint and note in the run's manifest that it went on.

    Raises:
        UserError: the corpus is not the one that the run was trained on.
    """
    before = run.manifest()
    was, now = before.get("corpus", {}).get("sha256"), manifest["corpus"]["sha256"]
    if was != now:
        raise UserError(
            f"the corpus has changed: this run was trained on sha256 {str(was)[:12]}…, and "
            f"{manifest['corpus']['origin']} has {now[:12]}…. Put the files back, or start a new run."
        )
    state = trainer.checkpoints.load("last")
    if state.get("tokenizer") != trainer.data.tokenizer.to_plain():
        raise UserError(
            "the tokenizer of this run is not the one that its training part gives now, perhaps because of "
            "another version of a library (see versions in manifest.json); start a new run."
        )
    trainer.load_state(state)
    keys = ("command_line", "versions", "git_commit", "device", "precision", "threads", "compiled")
    entry = {"step": trainer.step, **{key: manifest[key] for key in keys}}
    before["resumed"] = [*before.get("resumed", []), entry]
    before["planned_steps"] = manifest["planned_steps"]
    before["reproducible"] = before.get("reproducible", True) and manifest["reproducible"]
    run.write_manifest(before)


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


def _draw(run: "RunFolder", config: TrainConfig, trainer: "Trainer", metrics: "MetricsLog") -> None:
    """The pictures; the run is finished, and stays so whatever happens here."""
    try:
        draw_run(run, config, trainer, metrics)
    except KeyboardInterrupt:
        log.warning("interrupted while drawing: pictures are missing in %s", run.path / "plots")
    except Exception:
        log.warning("pictures are missing in %s:\n%s", run.path / "plots", traceback.format_exc())


def draw_run(run: "RunFolder", config: TrainConfig, trainer: "Trainer", metrics: "MetricsLog") -> None:
    """The pictures of a finished run, in its ``plots/`` and in TensorBoard; of its best checkpoint."""
    from seqexp.commands.eval import judge_views, trained_length
    from seqexp.evaluation.recurrence import hidden_states, is_recurrent
    from seqexp.tracking import plots
    from seqexp.tracking.metrics import read_metrics

    title, model, data = config.name, trainer.model, trainer.data
    model.load_state_dict(trainer.checkpoints.load("best")["model"])
    validated_on = f"{trained_length(config)} bits" if config.task.name == "parity" else None
    rows = read_metrics(run.metrics_file)
    figures = {"loss": plots.loss_figure(rows, title, trainer.task.loss_unit, validated_on)}
    if is_recurrent(model):
        figures["gradient_flow"] = plots.gradient_flow_figure(read_metrics(run.gradient_flow_file), title)
        batch = next(data.eval_batches("val"))
        tokens, targets = batch.inputs[0], batch.targets[0].tolist()
        hidden = hidden_states(model, tokens.to(trainer.device.torch))
        truth = targets if config.task.name == "parity" else None
        figures["hidden_states"] = plots.hidden_states_figure(hidden, tokens.tolist(), truth, title)
    views, _ = data.views(getattr(model, "max_len", None))
    if len(views) > 1:
        lengths = ", ".join(str(view.label["length"]) for view in views)
        log.info("judging the best checkpoint on lengths %s", lengths)
        rows = judge_views(trainer.task, model, trainer.device, views, "val")
        figures["accuracy_by_length"] = plots.accuracy_by_length_figure(rows, trained_length(config), title)
    folder = run.subfolder("plots")
    for name, figure in figures.items():
        metrics.image(name, plots.save(figure, folder / f"{name}.png"), trainer.step)


def _conclude(
    run: "RunFolder", config: TrainConfig, trainer: "Trainer", manifest: dict[str, Any], ending: str
) -> None:
    """The result."""
    from seqexp.tracking.metrics import read_metrics

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
