"""A page about a run or a sweep: everything that is shown, gathered from its folder, and written as a file.

Folders may come from strangers: in HTML all text is escaped, pictures are embedded as PNG alone, and nothing
is loaded from elsewhere.
"""

import base64
import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from seqexp.errors import UserError
from seqexp.files import read_json, write_atomically
from seqexp.reports.frame import Comparison, compare
from seqexp.reports.tables import cells, number
from seqexp.tracking.catalog import Entry, measured, sweep_runs
from seqexp.tracking.run_folder import OUTPUTS, RunFolder, read_metrics
from seqexp.tracking.sweep_folder import SweepFolder

# What is embedded of one file; a page must stay a page.
MOST_PICTURE_BYTES = 5_000_000
MOST_TEXT = 6_000
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Picture:
    title: str
    file: Path

    @property
    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.file.read_bytes()).decode()


@dataclass
class Table:
    header: list[str]
    rows: list[list[str]]
    bold: list[list[bool]] | None = None  # which cells are the best of their column


def write_report(entry: Entry, target: Path) -> None:
    """Write the page about a run or sweep as HTML or, if `target` ends so, Markdown.

    Raises:
        UserError: it cannot be written there.
    """
    page = sweep_page(entry) if entry.kind == "sweep" else run_page(entry)
    markdown = target.suffix == ".md"
    text = render(page, "report.md.j2" if markdown else "report.html.j2", target.absolute().parent)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text.encode())
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from error


def render(page: dict[str, Any], template: str, folder: Path) -> str:
    """The page through a template; in Markdown pictures are linked from `folder`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("seqexp.reports", "templates"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fence"] = _fence
    environment.filters["cell"] = lambda text: re.sub(r"([|\\`*_<])", r"\\\1", str(text)).replace("\n", " ")
    environment.filters["from_here"] = lambda file: os.path.relpath(file, folder).replace(os.sep, "/")
    return environment.get_template(template).render(**page) + "\n"


def _fence(text: str) -> str:
    """A code block that no text inside it can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}\n{text}\n{marks}"


def run_page(entry: Entry) -> dict[str, Any]:
    """What the page about one run shows."""
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
    """What the page about a sweep shows: the comparison, and its best run in full."""
    from seqexp.reports.figures import draw_comparison

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
        files = draw_comparison(comparison, entry.path / "compare")
        pictures = [Picture(file.stem.replace("_", " "), file) for file in files]
    left_out = comparison.left_out if comparison else jobs
    return {
        **_common(entry, "Sweep"),
        "commands": _sweep_commands(sweep),
        "facts": Table(["", ""], _sweep_facts(entry, sweep, best)),
        "failures": [(job.path.name, job.error or job.status) for job in left_out],
        "comparison": _comparison_table(comparison) if comparison else None,
        "comparison_note": note,
        "pictures": pictures,
        "samples": _samples(RunFolder(best.path)) if best else [],
        "sample_pictures": _sample_pictures(RunFolder(best.path)) if best else [],
        "evaluations": [table for job in jobs for table in _evaluations(job.path)],
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
        rows.append([f"best {entry.metric}", f"{number(entry.best)} at step {result.get('step')}"])
    rows += [[name, number(value)] for name, value in found.items() if name != entry.metric and "/" in name]
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
    from seqexp.tracking.direction import better_when

    measured_runs = [run for run in comparison.runs if run.best is not None and run.status == "finished"]
    if not measured_runs:
        return None
    pick = max if better_when(comparison.monitor) == "max" else min
    return pick(measured_runs, key=lambda run: run.best or 0.0)


def _comparison_table(comparison: Comparison) -> Table:
    header, rows, bold = cells(comparison)
    return Table(header, rows, bold)


def _jobs_table(sweep: SweepFolder, jobs: list[Entry]) -> Table:
    words = {entry.get("run"): entry.get("words") for entry in sweep.ledger()}
    rows = []
    for job in jobs:
        typed = words.get(job.path.name)
        told = " ".join(sweep.swept_words(list(map(str, typed)))) if isinstance(typed, list) else ""
        best = f"{job.metric} {number(job.best)}" if job.best is not None else "—"
        rows.append([job.path.name, job.status, best, told])
    return Table(["job", "status", "best", "words"], rows)


def _pictures(run: RunFolder) -> list[Picture]:
    """The run's own pictures; of a sweep's job, which has none, its curves are drawn now."""
    files = _png_files(run.path / "plots")
    rows = read_metrics(run.metrics_file)
    if not files and rows:
        from seqexp.tracking.plots import loss_figure, save

        file = run.subfolder("plots") / "loss.png"
        save(loss_figure(rows, run.path.name, "nats"), file)
        files = [file]
    files.sort(key=lambda file: (file.stem != "loss", file.stem))
    return [Picture(file.stem.replace("_", " "), file) for file in files]


def _png_files(folder: Path, pattern: str = "*.png") -> list[Path]:
    files = []
    for file in sorted(folder.glob(pattern)):
        try:
            if not file.is_symlink() and file.stat().st_size <= MOST_PICTURE_BYTES:
                with file.open("rb") as opened:
                    files += [file] if opened.read(8) == PNG else []
        except OSError:
            continue
    return files


def _samples(run: RunFolder) -> list[tuple[str, str]]:
    """The first, a middle and the last text written at a validation."""
    files = sorted((run.path / "samples").glob("step_*.txt"))
    chosen = dict.fromkeys([files[0], files[len(files) // 2], files[-1]]) if files else {}
    samples = []
    for file in chosen:
        try:
            with file.open(encoding="utf-8", errors="replace") as opened:
                text = opened.read(MOST_TEXT + 1)
        except OSError:
            continue
        if len(text) > MOST_TEXT:
            text = text[:MOST_TEXT] + f"\n[cut here; the rest is in samples/{file.name}]"
        samples.append((_step(file), text.rstrip("\n")))
    return samples


def _step(file: Path) -> str:
    digits = re.search(r"\d+", file.name)
    return f"step {int(digits[0]):,}" if digits else file.name


def _sample_pictures(run: RunFolder) -> list[Picture]:
    """Those of the last validation that had some, such as attention."""
    files = _png_files(run.path / "samples", "step_*.png")
    last = [file for file in files if _step(file) == _step(files[-1])]
    return [Picture(f"{file.stem.partition('_')[2]}".replace("_", " ").lstrip("0 "), file) for file in last]


def _evaluations(path: Path) -> list[tuple[str, Table]]:
    """What `seqexp eval` said about this run, from ``outputs/`` here; the newest last."""
    found = []
    for file in sorted(OUTPUTS.glob("eval/*/*/result.json"), key=lambda file: file.parent.name):
        result = read_json(file)
        metrics = result.get("metrics")
        if result.get("run") == str(path) and isinstance(metrics, dict):
            rows = [[str(name), _measured_text(value)] for name, value in metrics.items()]
            title = (
                f"{result.get('split', '')}, checkpoint {result.get('checkpoint', '')} ({file.parent.name})"
            )
            found.append((title, Table(["metric", "value"], rows)))
    return found


def _measured_text(value: Any) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else _text(value)


def _corpus(manifest: dict[str, Any]) -> Table | None:
    corpus = manifest.get("corpus")
    if not isinstance(corpus, dict):
        return None
    rows = []
    for key, value in corpus.items():
        if isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()):
            for part, numbers in value.items():  # the parts of a split
                told = ", ".join(f"{name} {_measured_text(n)}" for name, n in numbers.items())
                rows.append([f"{key}: {part}", told])
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


def as_json(entry: Entry) -> str:
    """What the page holds, as JSON; pictures are named by their files."""
    page = sweep_page(entry) if entry.kind == "sweep" else run_page(entry)

    def plain(value: Any) -> Any:
        if isinstance(value, Picture):
            return str(value.file)
        return vars(value)

    return json.dumps(page, default=plain, indent=2, ensure_ascii=False)
