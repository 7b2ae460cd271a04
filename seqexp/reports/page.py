"""The content of a report about a run or a sweep, gathered from its folder. The folder is untrusted."""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from seqexp.errors import UserError
from seqexp.files import read_bounded
from seqexp.reports.exams import exam_table
from seqexp.reports.figures import comparison_figures
from seqexp.reports.frame import Comparison, compare
from seqexp.reports.tables import cells, number
from seqexp.scored_text import ScoredText, scored_text
from seqexp.tracking.catalog import Entry, evaluations, measured, sweep_runs
from seqexp.tracking.plots import loss_figure, rendered
from seqexp.tracking.run_folder import RunFolder, read_numbers
from seqexp.tracking.sweep_folder import SweepFolder

# Limits for a picture (bytes), a text and a table cell (characters).
MOST_PICTURE_BYTES = 5_000_000
MOST_TEXT = 6_000
MOST_CELL = 1_000
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Picture:
    title: str
    png: bytes

    @property
    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass
class Table:
    header: list[str]
    rows: Sequence[Sequence[str | ScoredText]]
    bold: list[list[bool]] | None = None  # which cells are the best of their column


def cut(text: str, most: int = MOST_CELL) -> str:
    """Shorten a text to `most` characters, followed by a note of its full length."""
    return text if len(text) <= most else f"{text[:most]} [cut here: {len(text):,} characters]"


def run_page(entry: Entry) -> dict[str, Any]:
    """Return the content of the report about one run."""
    run = RunFolder(entry.path)
    manifest = run.manifest()
    return {
        **_common(entry, "Run"),
        "commands": _run_commands(manifest),
        "facts": Table(["", ""], _facts(entry, manifest)),
        "failures": [(entry.name, entry.error)] if entry.error else [],
        "comparison": None,
        "comparison_note": "",
        "pictures": _pictures(run),
        "samples": _samples(run),
        "sample_pictures": _sample_pictures(run),
        "evaluations": _evaluations(entry.path),
        "corpus": _corpus(manifest),
        "config": _config(entry.config),
        "environment": _environment(manifest),
        "jobs": None,
    }


def sweep_page(entry: Entry) -> dict[str, Any]:
    """Return the content of the report about a sweep: the comparison, and its best run in full."""
    sweep = SweepFolder(entry.path)
    jobs = sweep_runs(sweep)
    comparison, note = None, ""
    try:
        comparison = compare(jobs)
    except UserError as error:
        note = str(error)
    best = _best_run(comparison) if comparison else None
    manifest = RunFolder(best.path).manifest() if best else {}
    pictures = []
    if comparison:
        figures = comparison_figures(comparison)
        pictures = [Picture(name.replace("_", " "), rendered(figure)) for name, figure in figures.items()]
    skipped = comparison.skipped if comparison else jobs
    return {
        **_common(entry, "Sweep"),
        "commands": _sweep_commands(sweep),
        "facts": Table(["", ""], _sweep_facts(entry, sweep, best)),
        "failures": [(job.path.name, job.error or job.status) for job in skipped],
        "comparison": _comparison_table(comparison) if comparison else None,
        "comparison_note": note,
        "pictures": pictures,
        "samples": _samples(RunFolder(best.path)) if best else [],
        "sample_pictures": _sample_pictures(RunFolder(best.path)) if best else [],
        "evaluations": [found for job in jobs for found in _evaluations(job.path)],
        "corpus": _corpus(manifest),
        "config": _config(best.config) if best else None,
        "environment": _environment(manifest),
        "jobs": _jobs_table(sweep, jobs),
    }


def _common(entry: Entry, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": entry.name,
        "status": entry.status,
        "folder": str(entry.path),
        "written": f"{datetime.now():%Y-%m-%d %H:%M}",
    }


def _run_commands(manifest: dict[str, Any]) -> list[str]:
    commands = [str(manifest["command_line"])] if "command_line" in manifest else []
    resumed = manifest.get("resumed")
    for again in resumed if isinstance(resumed, list) else ():
        if isinstance(again, dict) and "command_line" in again:
            commands.append(str(again["command_line"]))
    return commands


def _sweep_commands(sweep: SweepFolder) -> list[str]:
    calls = sweep.about().get("calls", [])
    return list(dict.fromkeys(str(call["command_line"]) for call in calls if "command_line" in call))


def _facts(entry: Entry, manifest: dict[str, Any]) -> list[list[str]]:
    found = measured(RunFolder(entry.path))
    result = RunFolder(entry.path).result()
    corpus = manifest.get("corpus")
    rows = [["status", entry.status]]
    if result.get("ending") not in (None, "finished"):
        rows.append(["ended", str(result["ending"])])
    if entry.best is not None:
        best = f"{number(entry.best)} at step {result.get('step')}{_unit(result, entry.metric)}"
        rows.append([f"best {entry.metric}", best])
    rows += [
        [name, f"{number(value)}{_unit(result, name)}"]
        for name, value in found.items()
        if name != entry.metric and "/" in name
    ]
    rows += [[name, number(found[name])] for name in ("steps", "minutes", "parameters") if name in found]
    rows += [["model", entry.model], ["data", entry.data]]
    if isinstance(corpus, dict) and corpus.get("stand_in"):
        rows.append(["NOTE", str(corpus["stand_in"])])
    for key in ("device", "precision", "threads", "seed", "reproducible"):
        if key in manifest:
            rows.append([key, _text(manifest[key])])
    if entry.started:
        rows.append(["started", f"{entry.started:%Y-%m-%d %H:%M:%S}"])
    return rows


def _sweep_facts(entry: Entry, sweep: SweepFolder, best: Entry | None) -> list[list[str]]:
    rows = [["jobs", ", ".join(f"{count} {state}" for state, count in sorted(entry.jobs.items())) or "none"]]
    call = sweep.call
    rows += [[key, str(call[key])] for key in ("method", "launcher") if key in call]
    rows += [["model", entry.model], ["data", entry.data]]
    if best and best.best is not None:
        rows.append([f"best {best.metric}", f"{number(best.best)} ({best.path.name})"])
    if entry.started:
        rows.append(["started", f"{entry.started:%Y-%m-%d %H:%M:%S}"])
    return rows


def _best_run(comparison: Comparison) -> Entry | None:
    runs = [run for run in comparison.runs if run.status == "finished" and run.metric == comparison.monitor]
    best_of = max if comparison.mode(comparison.monitor) == "max" else min
    measured_runs = [run for run in runs if run.best is not None]
    return best_of(measured_runs, key=lambda run: run.best or 0.0, default=None)


def _comparison_table(comparison: Comparison) -> Table:
    header, rows, bold = cells(comparison)
    return Table(header, rows, bold)


def _jobs_table(sweep: SweepFolder, jobs: list[Entry]) -> Table:
    overrides = {entry.get("run"): entry.get("words") for entry in sweep.ledger()}
    rows = []
    for job in jobs:
        typed = overrides.get(job.path.name)
        swept = " ".join(sweep.swept_overrides(list(map(str, typed)))) if isinstance(typed, list) else ""
        best = f"{job.metric} {number(job.best)}" if job.best is not None else "—"
        rows.append([job.path.name, job.status, best, swept])
    return Table(["job", "status", "best", "overrides"], rows)


def _pictures(run: RunFolder) -> list[Picture]:
    """Return the pictures in the run's folder, curves first; draw the curves of a run without pictures."""
    pictures = _png_files(run.path / "plots")
    rows = read_numbers(run.metrics_file)
    if not pictures and rows:
        unit = _inside(run.result(), "details", "val/loss", "unit")
        figure = loss_figure(rows, run.path.name, unit if isinstance(unit, str) else "")
        pictures = [Picture("loss", rendered(figure))]
    return sorted(pictures, key=lambda picture: picture.title != "loss")


def _png_files(folder: Path, pattern: str = "*.png") -> list[Picture]:
    """Read the PNG files in an untrusted folder, without links and oversized files."""
    pictures = []
    for file in sorted(folder.glob(pattern))[:200] if not folder.is_symlink() else ():
        try:
            data = read_bounded(file, MOST_PICTURE_BYTES)
        except OSError:
            continue
        if data.startswith(PNG):
            pictures.append(Picture(file.stem.replace("_", " "), data))
    return pictures


def _samples(run: RunFolder) -> list[tuple[str, str]]:
    """Return the first, a middle and the last text generated at a validation."""
    folder = run.path / "samples"
    files = sorted(folder.glob("step_*.txt")) if not folder.is_symlink() else []
    chosen = dict.fromkeys([files[0], files[len(files) // 2], files[-1]]) if files else {}
    samples = []
    for file in chosen:
        try:
            text = read_bounded(file).decode(errors="replace")
        except OSError:
            continue
        samples.append((_step(file.name), cut(text.rstrip("\n"), MOST_TEXT)))
    return samples


def _step(name: str) -> str:
    digits = re.search(r"\d+", name)
    return f"step {int(digits[0][:15]):,}" if digits else name


def _sample_pictures(run: RunFolder) -> list[Picture]:
    """Return the pictures of the last validation that has any, such as attention."""
    pictures = _png_files(run.path / "samples", "step_*.png")
    last = _step(pictures[-1].title) if pictures else ""
    found = [picture for picture in pictures if _step(picture.title) == last]
    return [
        Picture(re.sub(r"^step \d+ ?", "", picture.title) + f" ({last})", picture.png) for picture in found
    ]


def _evaluations(path: Path) -> list[tuple[str, list[Table], list[Picture]]]:
    """Return the results of `seqexp eval` for this run under ``outputs/``, newest last."""
    found = []
    for folder, result in evaluations(path):
        tables = [_metrics_table(result), _rows_table(result.get("rows")), *_task_tables(result)]
        exams = result.get("exams")
        tables += [Table(*exam_table(exam)) for exam in exams[:10]] if isinstance(exams, list) else []
        title = f"{result.get('split', '')}, checkpoint {result.get('checkpoint', '')} ({folder.name})"
        found.append((title, [table for table in tables if table], _png_files(folder / "plots")))
    return found


def _inside(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _unit(result: dict[str, Any], name: str) -> str:
    """`` (bits)``; empty if the result does not say it."""
    unit = _inside(result, "details", name, "unit")
    return f" ({unit})" if isinstance(unit, str) and unit else ""


def _metrics_table(result: dict[str, Any]) -> Table | None:
    """Return a table of metrics with value, unit and direction."""
    metrics = result.get("metrics")
    if not isinstance(metrics, dict):
        return None
    rows = []
    for name, value in metrics.items():
        higher = _inside(result, "details", name, "higher_is_better")
        better = {True: "higher is better", False: "lower is better"}.get(higher, "")
        unit = _inside(result, "details", name, "unit")
        rows.append([str(name), _measured_text(value), unit if isinstance(unit, str) else "", better])
    return Table(["metric", "value", "unit", ""], rows)


def _task_tables(result: dict[str, Any]) -> list[Table]:
    """Return the task's tables from the result of `eval`, without malformed ones; the file is untrusted."""
    tables = result.get("tables")
    found = []
    for table in tables[:20] if isinstance(tables, list) else []:
        header, rows = _inside(table, "header"), _inside(table, "rows")
        if isinstance(header, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows):
            cells = [
                [scored_text(cell) or _text(cell) for cell in row]
                for row in rows[:1000]
                if len(row) == len(header)
            ]
            found.append(Table([_text(cell) for cell in header], cells))
            caption = _inside(table, "caption")
            if isinstance(caption, str) and caption:
                found.append(
                    Table([_text(_inside(table, "title"))], [[line] for line in caption.split("\n")])
                )
    return found


def _rows_table(rows: Any) -> Table | None:
    """Return the rows of `eval`, such as one per length, or None if there are fewer than two."""
    if not isinstance(rows, list) or len(rows) < 2 or not all(isinstance(row, dict) for row in rows):
        return None
    flat = []
    for row in rows[:100]:
        cells = {str(key): value for key, value in row.items() if key != "metrics"}
        metrics = row.get("metrics")
        cells |= (
            {str(k): _inside(v, "value") for k, v in metrics.items()} if isinstance(metrics, dict) else {}
        )
        flat.append(cells)
    header = list(dict.fromkeys(key for cells in flat for key in cells))
    return Table(header, [[_measured_text(cells.get(key)) for key in header] for cells in flat])


def _measured_text(value: Any) -> str:
    if value is None:
        return "—"
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else _text(value)


def _corpus(manifest: dict[str, Any]) -> Table | None:
    corpus = manifest.get("corpus")
    if not isinstance(corpus, dict):
        return None
    rows = []
    for key, value in corpus.items():
        if isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()):
            for split, numbers in value.items():
                text = ", ".join(f"{name} {_measured_text(n)}" for name, n in numbers.items())
                rows.append([f"{key}: {split}", text])
        elif value is not None:
            rows.append([str(key), _text(value)])
    return Table(["", ""], rows)


def _config(config: dict[str, Any]) -> Table | None:
    rows = [[key, _text(value)] for key, value in config.items()]
    return Table(["setting", "value"], rows) if rows else None


def _environment(manifest: dict[str, Any]) -> Table | None:
    rows = [[key, _text(manifest[key])] for key in ("git_commit", "python", "platform") if key in manifest]
    versions = manifest.get("versions")
    rows += [[str(k), str(v)] for k, v in versions.items()] if isinstance(versions, dict) else []
    return Table(["", ""], rows) if rows else None


def _text(value: Any) -> str:
    if isinstance(value, dict | list | bool) or value is None:
        return json.dumps(value, ensure_ascii=False)
    return str(value)
