"""`seqexp eval`: the metrics of a run over a whole split, or over other data."""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from seqexp import registry
from seqexp.commands.colours import coloured
from seqexp.commands.exams import run_exams, show_exams
from seqexp.commands.hydra_app import run_app
from seqexp.config.effects import unused_generation
from seqexp.config.root import EvalConfig, check_exams, to_plain
from seqexp.errors import UserError
from seqexp.files import number as finite
from seqexp.files import write_atomically
from seqexp.scored_text import ScoredText

if TYPE_CHECKING:
    from seqexp.tasks.base import Row, Table
    from seqexp.tracking.run_folder import RunFolder

log = logging.getLogger(__name__)

# Limit for printed notes; result.json has all of them.
MOST_NOTES = 10


def main() -> None:
    run_app("eval", lambda config, job: evaluate(config), run_name)


def run_name(run: str, vectors: str | None = None) -> str:
    """Return the name of an existing run or of a file, for the folder of its evaluation or generation."""
    from seqexp.tracking.run_folder import find_run

    if vectors:
        return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(vectors).stem).strip("_")[:100] or "vectors"
    return find_run(run).read_config().name


def evaluate(config: EvalConfig) -> dict[str, float]:
    """Evaluate the run, print a table (JSON if stdout is not a terminal), write ``result.json``.

    Returns the values of the metrics by name, such as ``val/loss``.

    Raises:
        UserError: the run, the checkpoint or the split is missing, or the data does not fit the run.
    """
    if config.vectors is not None:
        from seqexp.commands.eval_vectors import evaluate_vectors

        judged, tables = evaluate_vectors(config)
        _show(judged, tables)
        return {name: metric["value"] for name, metric in judged["details"].items()}
    from seqexp.commands.build import build_task, load_trained_run, with_ensemble
    from seqexp.exams.runner import ExamRunner
    from seqexp.metrics.outcomes import OUTCOMES, to_bytes
    from seqexp.tasks.base import EvalOptions, Evaluation, Row
    from seqexp.tasks.views import evaluate_views
    from seqexp.tracking.manifest import environment
    from seqexp.tracking.plots import save
    from seqexp.tracking.run_folder import RunFolder, find_run

    trained = load_trained_run(find_run(config.run), config.checkpoint, config.device)
    task = build_task(trained.config.task)
    trained_manifest = trained.folder.manifest()
    kind = registry.load("data", trained.config.data.name)
    data = kind.for_evaluation(
        trained.config.data, trained.preprocessor, trained_manifest, config.data, config.seed
    )
    data = task.prepare(data, trained.config.model, trained.preprocessor)
    split = _split(config.split, data)
    views, skipped = data.views(getattr(trained.model, "max_len", None))
    if not views:
        raise UserError(f"nothing is left to judge: {'; '.join(skipped)}.")
    check_exams(config.exams, trained.config.task)
    # Read the exams before the slow work: a file of pairs may be malformed.
    exam_runner = ExamRunner(config.exams, cast(Any, data), config.seed) if config.exams.wanted else None
    model, ensemble = with_ensemble(task, trained, config.ensemble, config.checkpoint, config.device)
    scores = task.scores(model, data, split) if config.score else None
    unused = unused_generation(config.generation, trained.config.task)
    for note in unused:
        log.warning("NOTE: %s", note)
    folder = RunFolder.create("eval", config.name)
    with recorded(folder):
        described = data.describe()
        folder.write_config(to_plain(config))
        folder.write_manifest(
            {
                "command": "eval",
                **environment(),
                "run": str(trained.folder.path),
                "ensemble": ensemble,
                "corpus": described,
                "skipped": skipped,
                "without_effect": unused,
                "device": trained.device.name,
                "precision": trained.device.precision,
            }
        )
        if scores is not None:
            _say(skipped)
            _print_scores(scores, folder)
            sums = task.sums(model, data, split, EvalOptions(trained.device.autocast))
            rows = [Row({}, Evaluation(task.averages(sums, data, split)))]
        else:
            rows = evaluate_views(
                task, model, views, split,
                EvalOptions(trained.device.autocast, config.generation, config.seed, config.lists),
            )  # fmt: skip
        # Such as that of the length that the run was trained for; if it was not judged, the run has none.
        main = next((row.evaluation for row in rows if row.main), Evaluation())
        found = {f"{split}/{name}": metric for name, metric in main.items()}
        exams: list[dict[str, Any]] = []
        if exam_runner:
            exams, accuracies = run_exams(config, exam_runner, task, trained, folder)
            found |= accuracies
        notes = [note for row in rows for note in row.evaluation.notes]
        for name, text in main.files.items():
            (folder.path / name).write_text(text, encoding="utf-8")
        if main.outcomes:
            write_atomically(folder.path / OUTCOMES, to_bytes(main.outcomes))
        result: dict[str, Any] = {
            "command": "eval",
            "run": str(trained.folder.path),
            "checkpoint": config.checkpoint,
            "step": trained.step,
            "split": split,
            "metrics": {name: finite(metric.value) for name, metric in found.items()},
            "details": {name: metric.to_plain() for name, metric in found.items()},
            "rows": [_plain_row(row) for row in rows],
            "loss_unit": task.loss_unit,
            **main.details,
            "tables": [asdict(table) for table in task.tables(main.details)],
            **({"exams": exams} if exams else {}),
            "notes": notes,
            "skipped": skipped,
            "corpus": {key: described[key] for key in ("name", "origin", "sha256")},
            "stand_in": described.get("stand_in") or (trained_manifest.get("corpus") or {}).get("stand_in"),
            **described["splits"][split],
        }
        folder.write_result(result)
        figures = {} if config.score else task.figures(trained.model, data, rows)
        for name, figure in figures.items():
            save(figure, folder.subfolder("plots") / f"{name}.png")
    if not config.score:  # standard output holds the scores alone
        _show(result, task.tables(main.details))
    return {name: metric.value for name, metric in found.items()}


def _split(wanted: str | None, data: Any) -> str:
    """Return the split to evaluate.

    Raises:
        UserError: the data has no such split.
    """
    split = wanted or ("all" if "all" in data.splits else data.default_split)
    data.check_split(split)
    return split


@contextmanager
def recorded(folder: "RunFolder") -> Iterator[None]:
    """Log to the folder, and write its status before and after the evaluation."""
    handler = folder.log_to_file("eval")
    folder.write_status("running")
    try:
        yield
        folder.write_status("finished")
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        folder.write_status("interrupted" if interrupted else "failed", error=repr(error))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _print_scores(scores: Iterator[dict[str, Any]], folder: "RunFolder") -> None:
    """Print the log-probability of each given answer in order, and write them to ``scores.jsonl``."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scores)
    (folder.path / "scores.jsonl").write_text(lines, encoding="utf-8")
    sys.stdout.write(lines)


def _plain_row(row: "Row") -> dict[str, Any]:
    return {**row.label, "metrics": {name: metric.to_plain() for name, metric in row.evaluation.items()}}


def _show(result: dict[str, Any], tables: "list[Table]") -> None:
    """Print notes and a table, or JSON if stdout is not a terminal."""
    if result["stand_in"]:
        log.warning("NOTE: %s", result["stand_in"])
    _say([*result["skipped"], *result["notes"]])
    if not sys.stdout.isatty():
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    console.print(_metric_table(result) if len(result["rows"]) == 1 else _row_table(result))
    for table in tables:
        console.print(_rich_table(table))
        if table.caption:
            console.print(table.caption, style="dim", highlight=False, markup=False)
    show_exams(result.get("exams", []), console)


def _say(notes: list[str]) -> None:
    for note in notes[:MOST_NOTES]:
        log.warning("NOTE: %s", note)
    if len(notes) > MOST_NOTES:
        log.warning("NOTE: %d more such notes in the folder of this evaluation", len(notes) - MOST_NOTES)


def _title(result: dict[str, Any]) -> str:
    if "title" in result:
        return str(result["title"])
    title = f"{result['split']} of {result['corpus']['name']}, step {result['step']} ({result['checkpoint']})"
    if len(result["rows"]) == 1:
        title += "".join(f", {key} {value}" for key, value in _label(result["rows"][0]).items())
    return title


def _label(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "metrics"}


def _metric_table(result: dict[str, Any]) -> Any:
    """Return a table with one row per metric."""
    from rich.table import Table
    from rich.text import Text

    table = Table("metric", title=Text(_title(result)))
    for column in ("value", "95 % interval", "of"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    (row,) = result["rows"]
    for name, cell in row["metrics"].items():
        cells = (name, _number(cell["value"]), _interval(cell), f"{cell['count']:,}", cell["unit"])
        table.add_row(*map(Text, cells))
    return table


def _row_table(result: dict[str, Any]) -> Any:
    """Return a table with one row per view, such as a length."""
    from rich.table import Table
    from rich.text import Text

    first = result["rows"][0]
    caption = f"loss in {result['loss_unit']}; in brackets the 95 % interval"
    table = Table(title=Text(_title(result)), caption=caption)
    for name in [*_label(first), *first["metrics"]]:
        table.add_column(name, justify="right")
    for row in result["rows"]:
        cells = [
            _number(cell["value"]) + (f" ({_interval(cell)})" if cell["interval"] else "")
            for cell in row["metrics"].values()
        ]
        table.add_row(*(Text(str(value)) for value in _label(row).values()), *map(Text, cells))
    return table


def _rich_table(table: "Table") -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(table.title))
    for number, name in enumerate(table.header):
        shown.add_column(name, justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*(coloured(cell) if isinstance(cell, ScoredText) else Text(cell) for cell in row))
    return shown


def _number(value: float) -> str:
    """Format with four decimals, or with four digits below 0.001."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.3e}"


def _interval(cell: dict[str, Any]) -> str:
    if not cell["interval"]:
        return ""
    low, high = cell["interval"]
    return f"{low:.4f}–{high:.4f}"
