"""`seqexp eval`: the metrics of a run over a whole split, or over other data."""

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from seqexp import registry
from seqexp.commands.hydra_app import run_app
from seqexp.config.root import EvalConfig, TrainConfig, to_plain
from seqexp.errors import UserError

if TYPE_CHECKING:
    from seqexp.data.base import View
    from seqexp.tasks.base import Task
    from seqexp.training.device import Device

log = logging.getLogger(__name__)


def main() -> None:
    run_app("eval", evaluate, run_name)


def run_name(run: str) -> str:
    """The name of an existing run, for the folder of what is made from it."""
    from seqexp.tracking.run_folder import find_run

    return find_run(run).read_config().name


def evaluate(config: EvalConfig) -> dict[str, float]:
    """Judge the run, print a table (or JSON where stdout is no terminal), write result.json."""
    from seqexp.commands.build import build_task, load_trained_run
    from seqexp.tracking.manifest import environment
    from seqexp.tracking.plots import accuracy_by_length_figure, save
    from seqexp.tracking.run_folder import RunFolder, find_run

    trained = load_trained_run(find_run(config.run), config.checkpoint, config.device)
    manifest = trained.folder.manifest()
    kind = registry.load("data", trained.config.data.name)
    data = kind.for_evaluation(trained.config.data, trained.tokenizer, manifest, config.data, config.seed)
    split = config.split or ("all" if "all" in data.parts else "val")
    if split not in data.parts:
        hint = " (all is another text, with data.path=)" if "train" in data.parts else ""
        raise UserError(f"split={split} is not there; there is {', '.join(data.parts)}{hint}.")
    views, notes = data.views(getattr(trained.model, "max_len", None))
    if not views:
        raise UserError(f"nothing is left to judge: {'; '.join(notes)}.")
    folder = RunFolder.create("eval", config.name)
    handler = folder.log_to_file("eval")
    folder.write_status("running")
    try:
        task = build_task(trained.config.task)
        rows = judge_views(task, trained.model, trained.device, views, split)
        folder.write_config(to_plain(config))
        described = data.describe()
        folder.write_manifest(
            {
                "command": "eval",
                **environment(),
                "run": str(trained.folder.path),
                "corpus": described,
                "left_out": notes,
                "device": trained.device.name,
                "precision": trained.device.precision,
            }
        )
        # Of the length that the run was trained for, if that was judged.
        main_row = next((row for row, view in zip(rows, views, strict=True) if view.main), None)
        result = {
            "command": "eval",
            "run": str(trained.folder.path),
            "checkpoint": config.checkpoint,
            "step": trained.step,
            "split": split,
            "metrics": {f"{split}/{name}": cell["value"] for name, cell in main_row["metrics"].items()}
            if main_row
            else {},
            "rows": rows,
            "loss_unit": task.loss_unit,
            "left_out": notes,
            "corpus": {key: described[key] for key in ("name", "origin", "sha256")},
            "stand_in": described["stand_in"] or (manifest.get("corpus") or {}).get("stand_in"),
            **described["parts"][split],
        }
        folder.write_result(result)
        if len(rows) > 1:
            figure = accuracy_by_length_figure(rows, trained_length(trained.config), config.name)
            save(figure, folder.subfolder("plots") / "accuracy_by_length.png")
        folder.write_status("finished")
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        folder.write_status("interrupted" if interrupted else "failed", error=repr(error))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    _show(result)
    metrics: dict[str, float] = result["metrics"]
    return metrics


def trained_length(config: TrainConfig) -> int:
    """The length that a run is trained for."""
    return int(getattr(config.data, "max_seq_len", None) or config.data.seq_len)


def judge_views(
    task: "Task", model: Any, device: "Device", views: "list[View]", split: str
) -> list[dict[str, Any]]:
    """One row a view: its label, and of each metric the value, its count and its 95 % interval."""
    from seqexp.evaluation.split import evaluate_split

    rows = []
    for view in views:
        found = evaluate_split(task, model, view.data, split, device.torch, device.autocast)
        cells = {
            name.partition("/")[2]: {
                "value": metric.value,
                "count": metric.count,
                "interval": metric.interval,
            }
            for name, metric in found.items()
        }
        rows.append({**view.label, "metrics": cells})
    return rows


def _show(result: dict[str, Any]) -> None:
    """A table for people, JSON for programs."""
    if result["stand_in"]:
        log.warning("NOTE: %s", result["stand_in"])
    for note in result["left_out"]:
        log.warning("NOTE: %s", note)
    if not sys.stdout.isatty():
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    Console().print(_metric_table(result) if len(result["rows"]) == 1 else _row_table(result))


def _title(result: dict[str, Any]) -> str:
    title = f"{result['split']} of {result['corpus']['name']}, step {result['step']} ({result['checkpoint']})"
    if len(result["rows"]) == 1 and "length" in result["rows"][0]:
        title += f", length {result['rows'][0]['length']}"
    return title


def _metric_table(result: dict[str, Any]) -> Any:
    """One row a metric."""
    from rich.table import Table

    units = {"bits_per_char": "bits", "perplexity": "per token", "loss": result["loss_unit"]}
    table = Table("metric", title=_title(result))
    for column in ("value", "95 % interval", "of"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    (row,) = result["rows"]
    for name, cell in row["metrics"].items():
        row_of = (name, _number(cell["value"]), _interval(cell), f"{cell['count']:,}", units.get(name, ""))
        table.add_row(*row_of)
    return table


def _row_table(result: dict[str, Any]) -> Any:
    """One row a view, such as a length."""
    from rich.table import Table

    first = result["rows"][0]
    labels = [key for key in first if key != "metrics"]
    caption = f"loss in {result['loss_unit']}; in brackets the 95 % interval"
    if "sequences" in result:
        caption += f"; {result['sequences']:,} sequences of each length"
    table = Table(title=_title(result), caption=caption)
    for name in [*labels, *first["metrics"]]:
        table.add_column(name, justify="right")
    for row in result["rows"]:
        cells = [
            _number(cell["value"]) + (f" ({_interval(cell)})" if cell["interval"] else "")
            for cell in row["metrics"].values()
        ]
        table.add_row(*(str(row[label]) for label in labels), *cells)
    return table


def _number(value: float) -> str:
    """Four decimals, or where these say nothing, four digits."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.3e}"


def _interval(cell: dict[str, Any]) -> str:
    if not cell["interval"]:
        return ""
    low, high = cell["interval"]
    return f"{low:.4f}–{high:.4f}"
