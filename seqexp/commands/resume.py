"""Resume a run: its saved configuration with the overrides typed, and its last checkpoint."""

import logging
import re
import sys
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from seqexp import registry
from seqexp.config.root import TrainConfig, to_plain
from seqexp.errors import UserError
from seqexp.quoting import quote, unquote
from seqexp.tracking.catalog import flatten

if TYPE_CHECKING:
    from seqexp.tracking.run_folder import RunFolder
    from seqexp.training.loop import Trainer

log = logging.getLogger(__name__)

# Settings that may be changed when a run is resumed: length, speed and what is shown. Changing other settings
# would make the results incomparable.
RESUMABLE = (
    "trainer.", "optimizer.", "scheduler.", "device.", "generation.", "exams.", "data.path",
    "data.source_path", "data.target_path", "data.val_", "data.test_",
)  # fmt: skip
FIXED = (
    "trainer.freeze",
    "trainer.unfreeze_every",
    "trainer.ema_decay",
    "optimizer.lr_scale",
    "optimizer.layer_decay",
)


def insert_saved_overrides(resume: str) -> None:
    """Insert overrides with the run's saved configuration before those in ``sys.argv``.

    Raises:
        UserError: there is no such run, or an override cannot be changed when a run is resumed.
    """
    from seqexp.tracking.run_folder import find_run

    if {"-m", "--multirun"} & set(sys.argv):
        raise UserError("resume= is for one run; it cannot be used with -m.")
    quoted = resume.startswith("'") and resume.endswith("'")
    run = find_run(unquote(resume) if quoted else resume, key="resume")
    saved = run.read_config()
    typed = [one for one in sys.argv[1:] if not one.lstrip("+").startswith("resume=")]
    groups = {override.partition("=")[0] for override in typed}
    for override in typed:
        key = override.partition("=")[0].lstrip("+")
        resumable = key.startswith(RESUMABLE) and not key.startswith(FIXED)
        if "=" in override and not resumable and key not in ("device", "exams"):
            raise UserError(
                f"{override} cannot be changed when a run is resumed; settings such as trainer.max_steps= "
                "and optimizer.lr= can, and those of scheduler and device. Start a new run for the rest."
            )
    inserted = []
    for spec in fields(TrainConfig):
        value = getattr(saved, spec.name)
        if spec.name in ("resume", "init_from", "sweep") or spec.name in groups:
            continue
        inserted += (
            group_overrides(spec.name, value) if is_dataclass(value) else [_override(spec.name, value)]
        )
    sys.argv = [sys.argv[0], *inserted, *typed, f"resume={quote(str(run.path))}"]


def group_overrides(group: str, settings: Any) -> list[str]:
    """Return overrides that choose the option of a group (if it has options) and set all its settings."""
    chosen = [f"{group}=base_{settings.name}"] if group in registry.ENTRIES else []
    found = []
    for spec in fields(settings):
        value = getattr(settings, spec.name)
        key = f"{group}.{spec.name}"
        found += group_overrides(key, value) if is_dataclass(value) else [_override(key, value)]
    return [*chosen, *found]


def _override(key: str, value: Any) -> str:
    """Return an override that sets exactly this value."""
    if isinstance(value, str):
        return f"{key}={quote(value)}"
    if value is None:
        return f"{key}=null"
    if isinstance(value, list):
        return f"{key}=[{','.join(quote(one) if isinstance(one, str) else str(one) for one in value)}]"
    if isinstance(value, dict):
        # Hydra's grammar has no quotes around the keys of a mapping, and takes new keys with ++ alone.
        pairs = (f"{_escape(name)}:{one}" for name, one in value.items())
        return f"++{key}={{{','.join(pairs)}}}"
    return f"{key}={value}"


def _escape(name: str) -> str:
    """A key of a mapping in Hydra's grammar."""
    return re.sub(r"([\\()\[\]{}:=,\s])", r"\\\1", name)


def find_unfinished(config: TrainConfig) -> "RunFolder | None":
    """Return the newest interrupted or killed run of this name and configuration, for ``resume=auto``.

    Raises:
        UserError: such a run is running.
    """
    from seqexp.tracking.run_folder import OUTPUTS, RunFolder

    found = []
    for path in OUTPUTS.glob(f"train/{config.name}/*"):
        run = RunFolder(path)
        if not run.has_checkpoint() or run.manifest().get("fingerprint") != config.fingerprint():
            continue
        if run.state() == "running":
            raise UserError(
                f"resume=auto: {run.path} is running; wait for it, stop it, or give another name=."
            )
        if run.state() in ("interrupted", "killed"):
            found.append(run)
    return max(found, key=lambda run: str(run.read_status().get("started", "")), default=None)


def log_changes(saved: TrainConfig, config: TrainConfig) -> None:
    """Log which settings were changed, and how the learning rate continues."""
    before, now = flatten(to_plain(saved)), flatten(to_plain(config))
    changed = [
        f"{key} {before[key]} → {now[key]}" for key in now
        if key in before and before[key] != now[key] and not key.startswith(("sweep.", "resume", "name"))
    ]  # fmt: skip
    if not changed:
        return
    log.info("changed %s", "; ".join(changed))
    if any(change.startswith(("trainer.max_", "scheduler.", "optimizer.lr")) for change in changed):
        log.info(
            "        the learning rate follows the new schedule from here on, as if it had always been so"
        )


def load_last(trainer: "Trainer", run: "RunFolder", manifest: dict[str, Any]) -> None:
    """Load the newest intact checkpoint and record the resume in the run's manifest.

    Raises:
        UserError: the corpus or the tokenizers differ from those that the run was trained with.
    """
    from seqexp.data.base import check_same_corpus

    before = run.manifest()
    check_same_corpus(before, manifest["corpus"], "start a new run")
    state = trainer.checkpoints.load_newest()
    if state.get("preprocessor") != trainer.data.preprocessor.to_plain():
        raise UserError(
            "the tokenizers of this run are not the ones that its training split gives now, perhaps because "
            "of another version of a library (see versions in manifest.json); start a new run."
        )
    trainer.load_state(state)
    saved = run.read_config()
    # Runs of schema 1 did not save the name of the metric with the best value.
    trainer.checkpoints.index.setdefault("monitor", saved.trainer.monitor)
    trainer.monitor_again()
    log_changes(saved, trainer.config)
    keys = ("command_line", "versions", "git_commit", "device", "precision", "threads", "compiled")
    entry = {"step": trainer.step, **{key: manifest[key] for key in keys}}
    before["resumed"] = [*before.get("resumed", []), entry]
    before["planned_steps"] = manifest["planned_steps"]
    before["reproducible"] = before.get("reproducible", True) and manifest["reproducible"]
    run.write_manifest(before)
