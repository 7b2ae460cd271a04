"""Runs as a table with a column per setting and metric, grouped over seeds into mean and deviation."""

import math
import statistics
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from seqexp.errors import UserError, suggest
from seqexp.files import number
from seqexp.quoting import printable
from seqexp.tracking.catalog import Entry, find, measured, sweep_runs
from seqexp.tracking.run_folder import RunFolder, read_numbers
from seqexp.tracking.sweep_folder import STUDY, SweepFolder, is_sweep

# Settings that name or repeat a run; they are not compared.
NAMES = ("name", "resume", "seed")
NOT_COMPARED = ("sweep.", "device.", "trainer.log_every", "trainer.checkpoint_", "trainer.keep_")


@dataclass
class Comparison:
    """Runs and the table that compares them, with a column for each of `settings` and `metrics`."""

    runs: list[Entry]
    settings: list[str]
    metrics: list[str]
    table: pd.DataFrame  # one row per finished run: settings, seed, metrics, run (its folder)
    skipped: list[Entry]  # unfinished runs

    @property
    def sweep(self) -> SweepFolder | None:
        """The sweep that contains all runs, or None."""
        parents = {run.path.parent for run in self.runs}
        parent = parents.pop()
        return SweepFolder(parent) if not parents and is_sweep(parent) else None

    @property
    def is_search(self) -> bool:
        """Whether the runs are trials of an Optuna search, which are ranked by the monitored metric."""
        return self.sweep is not None and (self.sweep.path / STUDY).is_file()

    @property
    def monitor(self) -> str:
        """The metric by which the runs chose their best checkpoint."""
        return self.metrics[0]

    def mode(self, metric: str) -> str | None:
        """Return ``max`` or ``min`` as declared by the runs' tasks, or None."""
        return next((run.directions[metric] for run in self.runs if metric in run.directions), None)

    def by_setting(self) -> list["Group"]:
        """Return groups of the runs that differ in their seeds alone.

        Of a search the best come first, if the direction of its metric is declared.
        """
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in self.table.to_dict("records"):
            groups.setdefault(repr([row[key] for key in self.settings]), []).append(row)
        gathered = [Group({key: rows[0][key] for key in self.settings}, rows) for rows in groups.values()]
        mode = self.mode(self.monitor)
        if self.is_search and mode:
            measured_ones = [group for group in gathered if group.mean(self.monitor) is not None]
            ranked = sorted(
                measured_ones, key=lambda group: group.mean(self.monitor) or 0.0, reverse=mode == "max"
            )
            return ranked + [group for group in gathered if group.mean(self.monitor) is None]
        positions = {key: _positions(self.table[key]) for key in self.settings}
        return sorted(gathered, key=lambda group: [positions[k][repr(v)] for k, v in group.settings.items()])


@dataclass
class Group:
    """Runs with the same settings."""

    settings: dict[str, Any]
    rows: list[dict[str, Any]]

    def values(self, metric: str) -> list[float]:
        return [row[metric] for row in self.rows if number(row[metric]) is not None]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Return the sample standard deviation, or None for fewer than two runs."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None


def is_numeric(column: pd.Series) -> bool:
    return all(number(value) is not None for value in column)


def _positions(column: pd.Series) -> dict[str, int]:
    """Return the position of each value: numbers sorted by size, text in order of appearance."""
    values = sorted(column, key=float) if is_numeric(column) else list(column)
    return {value: i for i, value in enumerate(dict.fromkeys(map(repr, values)))}


def gather(targets: Iterable[str]) -> list[Entry]:
    """Return the training runs in these folders without duplicates; a sweep gives all of its jobs.

    Raises:
        UserError: there is no training run.
    """
    runs: dict[str, Entry] = {}
    for target in targets:
        for entry in find(target):
            found = sweep_runs(SweepFolder(entry.path)) if entry.kind == "sweep" else [entry]
            runs.update((str(run.path.resolve()), run) for run in found if run.kind == "train")
    if not runs:
        raise UserError("there is no training run to compare; `seqexp runs` lists what there is.")
    return list(runs.values())


def compare(
    runs: list[Entry], metrics: list[str] | None = None, settings: list[str] | None = None
) -> Comparison:
    """Compare runs by `metrics` (default: all validation metrics) and `settings`.

    Raises:
        UserError: no run is finished, or no run has one of the metrics or settings.
    """
    found = {str(run.path): measured(RunFolder(run.path)) for run in runs if run.status == "finished"}
    finished = [run for run in runs if found.get(str(run.path))]
    if not finished:
        states = ", ".join(sorted({run.status for run in runs}))
        raise UserError(f"none of the {len(runs)} runs is finished and has a result (they are: {states}).")
    known = list(dict.fromkeys(name for run in finished for name in found[str(run.path)]))
    monitors = list(dict.fromkeys(run.metric for run in finished if run.metric in known))
    names = metrics or [
        *monitors,
        *(name for name in known if name.startswith("val/") and name not in monitors),
    ]
    names = names or known[:1]
    for name in names:
        if name not in known:
            raise UserError(
                f"no run has measured {name}; there are {', '.join(known)}." + suggest(name, known)
            )
    differing = varying_settings(finished)
    for key in settings or ():
        if all(key not in run.config for run in finished):
            keys = sorted({key for run in finished for key in run.config})
            raise UserError(f"{key} is not a setting of these runs." + suggest(key, keys))
    chosen = list(dict.fromkeys([*(settings or ()), *differing]))
    rows = [
        {
            **{key: _plain(run.config.get(key)) for key in chosen},
            "seed": run.config.get("seed"),
            **{name: found[str(run.path)].get(name) for name in names},
            "run": str(run.path),
        }
        for run in finished
    ]
    # dtype=object: in a column with a null, pandas would convert 20 to 20.0.
    table = pd.DataFrame(rows, dtype=object)
    for name in names:
        table[name] = pd.to_numeric(table[name])
    return Comparison(runs, chosen, names, table, [run for run in runs if run not in finished])


def _plain(value: Any) -> Any:
    """Convert lists to text, so that rows can be grouped by them."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def varying_settings(runs: list[Entry]) -> list[str]:
    """Return the settings in which runs differ, except the seed.

    For the jobs of one sweep these are the swept settings; other differences follow from them. Otherwise
    they are all differing settings, names of options (``model.name``) first. Settings that only some of the
    chosen options have are excluded, as are settings that always equal another one (``model.max_len`` and
    ``data.seq_len``).
    """
    swept = _swept_settings(runs)
    keys = list(dict.fromkeys(swept or (key for run in runs for key in run.config)))
    keys = [key for key in keys if key not in NAMES and not (key.startswith(NOT_COMPARED) and not swept)]
    columns = {key: [repr(run.config.get(key, "—")) for run in runs] for key in keys}
    differing = [key for key in keys if len(set(columns[key])) > 1]
    if swept:
        return differing
    chosen = {key.rpartition(".")[0] for key in differing if key.endswith(".name")}
    kept: list[str] = []
    for key in sorted(differing, key=lambda key: not key.endswith(".name")):
        alternative = key.partition(".")[0] in chosen and any(key not in run.config for run in runs)
        if not alternative and all(columns[key] != columns[other] for other in kept):
            kept.append(key)
    return kept


def _swept_settings(runs: list[Entry]) -> list[str]:
    """Return the settings that were overridden for the jobs of one sweep; empty for other runs.

    An override without a setting of its name, such as ``experiment=``, is added to the runs' settings.
    """
    if len({run.path.parent for run in runs}) > 1:
        return []
    keys: list[str] = []
    for run in runs:
        sweep = RunFolder(run.path).manifest().get("sweep")
        overrides = sweep.get("words") if isinstance(sweep, dict) else None
        if not isinstance(overrides, list):
            return []
        for override in map(str, overrides):
            key, _, value = override.partition("=")
            key = key.lstrip("+")
            if key.startswith(("sweep.", "hydra")) or key == "sweep":
                continue
            if key not in run.config and f"{key}.name" in run.config:
                key = f"{key}.name"
            run.config.setdefault(key, value)
            keys.append(key)
    return keys


def curves(comparison: Comparison, metric: str) -> pd.DataFrame:
    """Return the metric over steps of all finished runs, with columns step, value, run and the settings."""
    rows = []
    for values in comparison.table.to_dict("records"):
        for row in read_numbers(RunFolder(Path(values["run"])).metrics_file):
            if metric in row:
                settings = {key: values[key] for key in comparison.settings}
                rows.append({**settings, "run": values["run"], "step": row["step"], "value": row[metric]})
    return pd.DataFrame(rows, columns=[*comparison.settings, "run", "step", "value"])


def labels(table: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Return a label for each row from the values of `keys`."""
    if not keys:
        return pd.Series([""] * len(table), index=table.index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [table[key].map(lambda value, key=key: shown(key, value)) for key in keys]
    label = parts[0]
    for part in parts[1:]:
        label = label + ", " + part
    return label


def shown(key: str, value: Any) -> str:
    """Format a setting as ``seq_len=20``; for the name of an option, the name alone."""
    if key.endswith(".name"):
        return str(value)
    return f"{key.rpartition('.')[2]}={plain_number(value)}"


def plain_number(value: Any) -> str:
    """Format a value of a setting without float noise: 0.001 instead of 0.0010000000001."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "—"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if len(repr(value)) <= 12 else f"{value:.6g}"
    return printable(str(value))


def best_rows(groups: list[Group], metric: str, mode: str | None) -> list[bool]:
    """Return which groups have the best mean; none if all are equal or the direction is unknown."""
    means = [group.mean(metric) for group in groups]
    known = [mean for mean in means if mean is not None]
    # The order of summation may change the last bit.
    if mode is None or not known or math.isclose(min(known), max(known), rel_tol=1e-12):
        return [False] * len(means)
    best = max(known) if mode == "max" else min(known)
    return [mean is not None and math.isclose(mean, best, rel_tol=1e-12) for mean in means]
