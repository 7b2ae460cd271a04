"""The runs and sweeps in ``outputs/`` as rows that can be listed, filtered and compared.

Folders may be incomplete, damaged or untrusted: everything that is read is checked.
"""

import os
import re
import statistics
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from seqexp.errors import UserError
from seqexp.files import number, read_bounded, read_json, user_path
from seqexp.metrics.metric import RUN_METRICS
from seqexp.metrics.metric import best as best_value
from seqexp.tracking.run_folder import OUTPUTS, RunFolder, read_numbers
from seqexp.tracking.sweep_folder import SweepFolder, is_sweep

# libyaml parses a configuration ten times as fast as the Python parser.
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MOST_CONFIG_BYTES = 1_000_000
MOST_ERROR = 20_000


@dataclass
class Entry:
    """A run, or a sweep, as one row."""

    path: Path
    kind: str  # train, eval, generate, sweep
    name: str
    model: str
    data: str
    status: str
    started: datetime | None
    metric: str = ""
    best: float | None = None
    directions: dict[str, str] = field(default_factory=dict)  # metric → max or min, if declared
    error: str = ""
    config: dict[str, Any] = field(default_factory=dict)  # flat: model.n_layer → 4
    jobs: dict[str, int] = field(default_factory=dict)  # of a sweep: status → number of jobs

    @property
    def mode(self) -> str:
        """Direction of `metric`: ``max`` or ``min``."""
        return self.directions.get(self.metric, "min")

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return folder_size(self.path)


def folder_size(path: Path) -> int:
    """Return the bytes of all files below a folder; unreadable folders count as empty."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += folder_size(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    except OSError:
        return total
    return total


def flatten(values: Any, parent: str = "") -> dict[str, Any]:
    """Flatten ``{"model": {"n_layer": 4}}`` to ``{"model.n_layer": 4}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            flat |= flatten(value, f"{parent}{key}.")
        else:
            flat[f"{parent}{key!s}"] = value
    return flat


def read_flat_config(run: RunFolder) -> dict[str, Any]:
    """Return the saved configuration, flattened; empty if it is missing or damaged."""
    try:
        text = read_bounded(run.config_file, MOST_CONFIG_BYTES).decode()
        # Nested aliases can expand to gigabytes; configurations are written without aliases.
        if re.search(r"(?:^|[\s\[,{:-])\*\w", text):
            tokens = yaml.scan(text, Loader=SafeLoader)
            if any(isinstance(token, yaml.AliasToken) for token in tokens):
                return {}
        flat = {key: _setting(value) for key, value in flatten(yaml.load(text, Loader=SafeLoader)).items()}
    except (OSError, yaml.YAMLError, ValueError, RecursionError, OverflowError):
        return {}
    flat.pop("schema_version", None)
    return flat


def _setting(value: Any) -> Any:
    """Convert values that a setting cannot have, such as a YAML date, to text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return [_setting(item) for item in value] if isinstance(value, list) else str(value)


def read_run(path: Path, kind: str) -> Entry:
    """Return the row of a run's folder; an unreadable folder has the status ``damaged``."""
    try:
        return _read_run(path, kind)
    except OSError as error:
        name = path.parent.name
        return Entry(
            path.absolute(), kind, name, "", "", "damaged", None, error=f"it cannot be read: {error}"
        )


def _read_run(path: Path, kind: str) -> Entry:
    run = RunFolder(path)
    status, result = run.read_status(), run.result()
    monitor = result.get("monitor")
    monitor = monitor if isinstance(monitor, dict) else {}
    config = read_flat_config(run)
    return Entry(
        path=run.path,
        kind=kind,
        name=str(config.get("name") or path.parent.name),
        model=str(config.get("model.name", "")),
        data=str(config.get("data.name", "")),
        status=run.state(),
        started=_time(status.get("started")),
        metric=str(monitor.get("name", "")),
        best=number(monitor.get("best")),
        directions=_directions(result),
        error=str(status.get("error") or "")[:MOST_ERROR],
        config=config,
    )


def _directions(result: dict[str, Any]) -> dict[str, str]:
    """Return the directions of a result's metrics, as its task declared them, and of the common metrics."""
    details, monitor = result.get("details"), result.get("monitor")
    found = {name: spec.mode for name, spec in RUN_METRICS.items()}
    for name, detail in details.items() if isinstance(details, dict) else ():
        higher = detail.get("higher_is_better") if isinstance(detail, dict) else None
        if isinstance(higher, bool):
            found[str(name)] = "max" if higher else "min"
    # Runs of schema 1 declared only the direction of the monitored metric.
    if isinstance(monitor, dict) and monitor.get("mode") in ("max", "min"):
        found.setdefault(str(monitor.get("name")), monitor["mode"])
    return found


def _time(text: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
        time = time if time.tzinfo else time.astimezone()
        time.astimezone()  # fails for dates at the limits of the calendar
    except (ValueError, OverflowError, OSError):
        return None
    return time if 1980 < time.year < 2200 else None


def sweep_runs(sweep: SweepFolder) -> list[Entry]:
    """Return the rows of a sweep's jobs."""
    return [read_run(run.path, "train") for run in sweep.jobs()]


def read_sweep(path: Path) -> Entry:
    """Return the row of a sweep, with the number of jobs per status and the best job's value."""
    sweep = SweepFolder(path)
    jobs = sweep_runs(sweep)
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.status] = counts.get(job.status, 0) + 1
    wanted = sweep.call.get("jobs", len(jobs))
    if len(jobs) < wanted:
        counts["missing"] = wanted - len(jobs)
    measured = [job for job in jobs if job.best is not None]
    first = measured[0] if measured else None
    metric = first.metric if first else ""
    same = [job.best for job in measured if job.metric == metric and job.best is not None]
    started = [job.started for job in jobs if job.started]
    status = "finished"
    for state in ("running", "failed", "killed", "interrupted", "damaged", "empty", "missing"):
        if counts.get(state):
            status = state if state == "running" else "incomplete"
            break
    return Entry(
        path=sweep.path,
        kind="sweep",
        name=sweep.name,
        model=",".join(sorted({job.model for job in jobs if job.model})),
        data=",".join(sorted({job.data for job in jobs if job.data})),
        status=status,
        started=min(started, default=None),
        metric=metric,
        best=best_value(same, first.mode) if first and same else None,
        directions=first.directions if first else {},
        jobs=counts,
    )


def list_all(with_jobs: bool = False) -> list[Entry]:
    """Return runs and sweeps under ``outputs/``, oldest first; with `with_jobs`, also the jobs of sweeps."""
    entries = []
    for command in ("train", "eval", "generate"):
        entries += [read_run(path, command) for path in OUTPUTS.glob(f"{command}/*/*") if path.is_dir()]
    for path in OUTPUTS.glob("sweeps/*"):
        if path.is_dir():
            entries.append(read_sweep(path))
            if with_jobs:
                entries += sweep_runs(SweepFolder(path))
    return sorted(entries, key=lambda entry: entry.started.timestamp() if entry.started else 0.0)


def evaluations(run: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the folders and results of `seqexp eval` for this run under ``outputs/``, oldest first."""
    found = []
    for file in sorted(OUTPUTS.glob("eval/*/*/result.json"), key=lambda file: file.parent.name):
        result = read_json(file)
        of = result.get("run")
        if isinstance(of, str) and os.path.realpath(of) == os.path.realpath(run):
            found.append((file.parent, result))
    return found


def measured(run: RunFolder) -> dict[str, float]:
    """Return the results of a finished run: metrics of its best checkpoint, size, minutes, speed."""
    result = run.result()
    metrics = result.get("metrics")
    found = {str(key): number(value) for key, value in metrics.items()} if isinstance(metrics, dict) else {}
    parameters = run.manifest().get("parameters")
    found["parameters"] = number(parameters.get("total")) if isinstance(parameters, dict) else None
    found["minutes"] = number(result.get("minutes"))
    rows = read_numbers(run.metrics_file)
    found["steps"] = rows[-1]["step"] if rows else None
    speeds = [row["speed/tokens_per_s"] for row in rows if "speed/tokens_per_s" in row]
    found["speed/tokens_per_s"] = statistics.median(speeds) if speeds else None
    return {key: value for key, value in found.items() if value is not None}


def find(target: str) -> list[Entry]:
    """Return the run or sweep that `target` names: a folder, or ``latest``.

    Raises:
        UserError: the folder does not exist, or is not a run or sweep.
    """
    if target == "latest":
        everything = [entry for entry in list_all() if entry.kind in ("train", "sweep")]
        if not everything:
            raise UserError(
                f"latest: there is no run under {OUTPUTS.absolute()}. Train one with `seqexp train`, or go "
                "to the folder where you did."
            )
        return [everything[-1]]
    path = user_path(target)
    if not path.is_dir():
        raise UserError(f"{target}: there is no such folder; `seqexp runs` lists runs and sweeps.")
    if is_sweep(path):
        return [read_sweep(path)]
    for kind in ("train", "eval", "generate"):
        if path.resolve() in {listed.resolve() for listed in OUTPUTS.glob(f"{kind}/*/*")}:
            return [read_run(path, kind)]
    if (path / "status.json").exists():
        kind = path.resolve().parent.parent.name
        return [read_run(path, kind if kind in ("eval", "generate") else "train")]
    raise UserError(f"{target} is not the folder of a run or a sweep; `seqexp runs` lists them.")
