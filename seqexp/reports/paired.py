"""Runs compared on the same examples of a split, from their evaluations. The folders are untrusted."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqexp.errors import UserError
from seqexp.files import as_utf8, read_bounded
from seqexp.metrics.outcomes import OUTCOMES, Difference, Outcome, from_bytes, paired_differences, resamples
from seqexp.quoting import counted, printable
from seqexp.reports.tables import number
from seqexp.tracking.catalog import Entry, evaluations, find, sweep_runs
from seqexp.tracking.run_folder import RunFolder
from seqexp.tracking.sweep_folder import SweepFolder

# Limit for a file of outcomes, in bytes: a million texts with a hundred labels.
MOST_BYTES = 400_000_000


@dataclass(frozen=True)
class Judged:
    """An evaluation of a run: its folder, its result, and what each example adds to its metrics."""

    run: Path
    folder: Path
    result: dict[str, Any]
    outcomes: dict[str, Outcome]

    @property
    def step(self) -> int | None:
        """The step of the checkpoint that was evaluated."""
        step = self.result.get("step")
        return step if type(step) is int else None

    @property
    def name(self) -> str:
        """The name and the time of the run, with the step that was evaluated."""
        return printable(f"{self.run.parent.name}/{self.run.name}, step {self.step}")

    @property
    def examples(self) -> int:
        return len(next(iter(self.outcomes.values())).values)


@dataclass(frozen=True)
class PairedComparison:
    """The first run, the others, and their differences from the first by metric."""

    split: str
    runs: list[Judged]
    differences: list[dict[str, Difference]]

    @property
    def caption(self) -> str:
        n = self.runs[0].examples
        text = f"{self.split}: {counted(n, 'example')}; {resamples(n):,} samples of the paired bootstrap"
        if any(one.p is not None for some in self.differences for one in some.values()):
            text += "; p by McNemar's exact test"
        if len(self.differences) > 1:
            text += (
                f"; for {len(self.differences)} comparisons, ask for p below 0.05 / {len(self.differences)}"
            )
        return text

    @property
    def notes(self) -> list[str]:
        """Evaluations that are older than their run's best checkpoint."""
        notes = []
        for place, one in enumerate(self.runs, start=1):
            best = RunFolder(one.run).result().get("step")
            if one.result.get("checkpoint") == "best" and type(best) is int and best != one.step:
                notes.append(
                    f"NOTE: run {place} was evaluated at step {one.step}, and its best step is now {best}; "
                    f"evaluate it again: {_command(one.run, self.split)}"
                )
        return notes


def compare_paired(targets: list[str], split: str) -> PairedComparison:
    """Compare runs with the first of them, by their newest evaluations of a split; or given evaluations.

    Raises:
        UserError: there are fewer than two, one was not evaluated on the split, or on other examples.
    """
    entries: list[Entry] = []
    for target in targets:
        for entry in find(target):
            entries += sweep_runs(SweepFolder(entry.path)) if entry.kind == "sweep" else [entry]
    if len(entries) < 2:
        raise UserError("--paired compares two runs or more on the same examples; name another one.")
    runs = [_judged(entry, split) for entry in entries]
    first = runs[0]
    for other in runs[1:]:
        if other.result.get("sha256") != first.result.get("sha256") or other.examples != first.examples:
            raise UserError(
                f"{other.folder} has other examples ({other.examples:,} of {_origin(other)}) than "
                f"{first.folder} ({first.examples:,} of {_origin(first)}); evaluate both runs on the same "
                "split of the same data."
            )
    differences = [paired_differences(first.outcomes, other.outcomes) for other in runs[1:]]
    for other, found in zip(runs[1:], differences, strict=True):
        if not found:
            raise UserError(
                f"{other.folder} and {first.folder} have no metric in common: {', '.join(other.outcomes)} "
                f"and {', '.join(first.outcomes)}."
            )
    return PairedComparison(printable(str(first.result.get("split"))), runs, differences)


def _origin(judged: Judged) -> str:
    corpus = judged.result.get("corpus")
    return printable(as_utf8(str(corpus.get("origin")))) if isinstance(corpus, dict) else "unknown data"


def _judged(entry: Entry, split: str) -> Judged:
    """Return the evaluation that an entry is, or the newest one of a run.

    Raises:
        UserError: there is none, or it says nothing about single examples.
    """
    if entry.kind == "eval":
        result = RunFolder(entry.path).result()
        return _read(Path(str(result.get("run"))), entry.path, result)
    if entry.kind != "train":
        raise UserError(f"{entry.path} is from `seqexp {entry.kind}`; name a training run or an evaluation.")
    found = [
        (folder, result)
        for folder, result in evaluations(entry.path)
        if not RunFolder(folder).manifest().get("ensemble")
    ]
    of_split = [(folder, result) for folder, result in found if result.get("split") == split]
    if not of_split:
        others = dict.fromkeys(str(result.get("split")) for _, result in found)
        known = (
            f"It was evaluated on {printable(', '.join(others))}: --split names another." if others else ""
        )
        advice = f"run `{_command(entry.path, split)}`. {known}"
        raise UserError(f"{entry.path} was not evaluated on the split {split}; {advice}")
    return _read(entry.path, *of_split[-1])


def _command(run: Path, split: str) -> str:
    return printable(f"seqexp eval {shlex.quote(f'run={run}')} split={shlex.quote(split)}")


def _read(run: Path, folder: Path, result: dict[str, Any]) -> Judged:
    file = folder / OUTCOMES
    try:
        outcomes = from_bytes(read_bounded(file, MOST_BYTES))
    except FileNotFoundError:
        raise UserError(
            f"{folder} does not say what each example adds to a metric: it is older than --paired, or its "
            f"task does not say so. Evaluate again: `{_command(run, str(result.get('split')))}`."
        ) from None
    except (OSError, UserError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    return Judged(run, folder, result, outcomes)


# As a table


def paired_cells(comparison: PairedComparison) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: for each metric the first run, then the others beside it."""
    header = [
        "metric",
        "run",
        "value",
        "difference",
        "95 % interval",
        "only first right",
        "only this right",
        "p",
    ]
    names = dict.fromkeys(name for found in comparison.differences for name in found)
    rows = []
    for name in names:
        values = [found[name] for found in comparison.differences if name in found]
        rows.append([name, "1", number(values[0].first), *[""] * 5])
        for place, found in enumerate(comparison.differences, start=2):
            if name not in found:
                continue
            one = found[name]
            low, high = one.interval
            tested = ["", "", ""]
            if one.p is not None:
                tested = [f"{one.only_first:,}", f"{one.only_second:,}", f"{one.p:.2g}"]
            difference = f"{one.value:+.4f}"
            rows.append(
                ["", str(place), number(one.second), difference, f"{low:+.4f} to {high:+.4f}", *tested]
            )
    width = len(header) if any(any(row[5:]) for row in rows) else 5
    return header[:width], [row[:width] for row in rows]


def paired_plain(comparison: PairedComparison) -> dict[str, Any]:
    """Return the comparison as plain values in full precision."""
    return {
        "split": comparison.split,
        "examples": comparison.runs[0].examples,
        "bootstrap_samples": resamples(comparison.runs[0].examples),
        "runs": [
            {"run": str(one.run), "evaluation": str(one.folder), "step": one.step} for one in comparison.runs
        ],
        "differences": [
            {
                "run": place,
                "metric": name,
                "first": one.first,
                "value": one.second,
                "difference": one.value,
                "interval": list(one.interval),
                "only_first_right": one.only_first,
                "only_this_right": one.only_second,
                "p": one.p,
            }
            for place, found in enumerate(comparison.differences, start=2)
            for name, one in found.items()
        ],
    }
