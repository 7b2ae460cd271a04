"""Runs as a table, with a column a setting or a metric; and seeds gathered into mean and deviation."""

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

# Settings that name a run, or repeat it, and decide nothing that one would compare.
NAMES = ("name", "resume", "seed")
NOT_COMPARED = ("sweep.", "device.", "trainer.log_every", "trainer.checkpoint_", "trainer.keep_")


@dataclass
class Comparison:
    """Runs side by side: `settings` are the columns in which they differ, `metrics` what they reached."""

    runs: list[Entry]
    settings: list[str]
    metrics: list[str]
    table: pd.DataFrame  # one row a finished run: settings, seed, metrics, run (its folder)
    left_out: list[Entry]  # not finished

    @property
    def sweep(self) -> SweepFolder | None:
        """The one sweep that all runs are of."""
        parents = {run.path.parent for run in self.runs}
        parent = parents.pop()
        return SweepFolder(parent) if not parents and is_sweep(parent) else None

    @property
    def is_search(self) -> bool:
        """Whether they are the trials of a search by Optuna, which are ranked rather than gathered."""
        return self.sweep is not None and (self.sweep.path / STUDY).is_file()

    @property
    def monitor(self) -> str:
        """The metric that the runs chose their best checkpoint by."""
        return self.metrics[0]

    def mode(self, metric: str) -> str | None:
        """``max`` or ``min``, as the runs' tasks declared it; None if none did."""
        return next((run.directions[metric] for run in self.runs if metric in run.directions), None)

    def by_setting(self) -> list["Group"]:
        """The runs that differ in nothing but the seed, together.

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
        places = {key: _places(self.table[key]) for key in self.settings}
        return sorted(gathered, key=lambda group: [places[k][repr(v)] for k, v in group.settings.items()])


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
        """The sample standard deviation; None of fewer than two runs."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None


def is_numeric(column: pd.Series) -> bool:
    """Whether all values are numbers."""
    return all(number(value) is not None for value in column)


def _places(column: pd.Series) -> dict[str, int]:
    """Where each value stands: numbers by size, words in the order they came."""
    values = sorted(column, key=float) if is_numeric(column) else list(column)
    return {value: i for i, value in enumerate(dict.fromkeys(map(repr, values)))}


def gather(targets: Iterable[str]) -> list[Entry]:
    """The training runs that these folders hold; sweeps stand for all of their jobs, no run comes twice."""
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
    """Lay runs side by side, by `metrics` (all of the validation, if none are named) and `settings`.

    Raises:
        UserError: nothing is finished, or no run has such a metric or setting.
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
            raise UserError(f"{key} is no setting of these runs." + suggest(key, keys))
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
    # Settings as they are: beside a null, pandas would make 20.0 of 20.
    table = pd.DataFrame(rows, dtype=object)
    for name in names:
        table[name] = pd.to_numeric(table[name])
    return Comparison(runs, chosen, names, table, [run for run in runs if run not in finished])


def _plain(value: Any) -> Any:
    """Lists as text, so that rows can be grouped by them."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def varying_settings(runs: list[Entry]) -> list[str]:
    """The settings in which runs differ, but for the seed.

    Of one sweep those that were swept over: what else differs follows from them. Of other runs all that
    differ, the choice of an option (``model.name``) first, without settings that only some of the chosen
    options have or that always have the value of another one (``model.max_len`` that of ``data.seq_len``).
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
    """The settings typed for the jobs of the one sweep that all runs are of; empty if there is none such.

    A word that left no setting of its name, such as ``experiment=``, becomes one of these runs.
    """
    if len({run.path.parent for run in runs}) > 1:
        return []
    keys: list[str] = []
    for run in runs:
        sweep = RunFolder(run.path).manifest().get("sweep")
        words = sweep.get("words") if isinstance(sweep, dict) else None
        if not isinstance(words, list):
            return []
        for word in map(str, words):
            key, _, value = word.partition("=")
            key = key.lstrip("+")
            if key.startswith(("sweep.", "hydra")) or key == "sweep":
                continue
            if key not in run.config and f"{key}.name" in run.config:
                key = f"{key}.name"
            run.config.setdefault(key, value)
            keys.append(key)
    return keys


def curves(comparison: Comparison, metric: str) -> pd.DataFrame:
    """The metric over steps of every finished run: columns step, value, run, and the settings."""
    rows = []
    for values in comparison.table.to_dict("records"):
        for row in read_numbers(RunFolder(Path(values["run"])).metrics_file):
            if metric in row:
                settings = {key: values[key] for key in comparison.settings}
                rows.append({**settings, "run": values["run"], "step": row["step"], "value": row[metric]})
    return pd.DataFrame(rows, columns=[*comparison.settings, "run", "step", "value"])


def labels(table: pd.DataFrame, keys: list[str]) -> pd.Series:
    """A label for each row, from the values of `keys`."""
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
    """``seq_len=20``; of the choice of an option the option alone."""
    if key.endswith(".name"):
        return str(value)
    return f"{key.rpartition('.')[2]}={plain_number(value)}"


def plain_number(value: Any) -> str:
    """A setting as one would write it: 20 and not 20.0, 0.001 and not 0.0010000000001."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "—"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if len(repr(value)) <= 12 else f"{value:.6g}"
    return printable(str(value))


def best_rows(groups: list[Group], metric: str, mode: str | None) -> list[bool]:
    """Which groups have the best mean; none where all are the same, or the direction is not known."""
    means = [group.mean(metric) for group in groups]
    known = [mean for mean in means if mean is not None]
    # The same numbers added in another order may differ in the last bit.
    if mode is None or not known or math.isclose(min(known), max(known), rel_tol=1e-12):
        return [False] * len(means)
    best = max(known) if mode == "max" else min(known)
    return [mean is not None and math.isclose(mean, best, rel_tol=1e-12) for mean in means]
