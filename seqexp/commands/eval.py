"""`seqexp eval`: the metrics of a run over a whole split, or over other data."""

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from seqexp import registry
from seqexp.commands.exams import show_exams, sit_exams
from seqexp.commands.hydra_app import run_app
from seqexp.config.root import EvalConfig, TrainConfig, check_exams, to_plain
from seqexp.errors import UserError

if TYPE_CHECKING:
    from seqexp.commands.build import TrainedRun
    from seqexp.data.base import View
    from seqexp.tasks.base import Task
    from seqexp.tracking.run_folder import RunFolder
    from seqexp.training.device import Device

log = logging.getLogger(__name__)

# Notes about sentences that are printed; all are in result.json.
MOST_NOTES = 10


def main() -> None:
    run_app("eval", lambda config, job: evaluate(config), run_name)


def run_name(run: str) -> str:
    """The name of an existing run, for the folder of what is made from it."""
    from seqexp.tracking.run_folder import find_run

    return find_run(run).read_config().name


def evaluate(config: EvalConfig) -> dict[str, float]:
    """Judge the run, print a table (or JSON where stdout is no terminal), write result.json."""
    from seqexp.commands.build import build_task, load_trained_run, with_ensemble
    from seqexp.exams.sitting import Sitting
    from seqexp.tracking.manifest import environment
    from seqexp.tracking.plots import accuracy_by_length_figure, save
    from seqexp.tracking.run_folder import RunFolder, find_run

    trained = load_trained_run(find_run(config.run), config.checkpoint, config.device)
    manifest = trained.folder.manifest()
    kind = registry.load("data", trained.config.data.name)
    data = kind.for_evaluation(trained.config.data, trained.tokenizer, manifest, config.data, config.seed)
    split = config.split or ("all" if "all" in data.parts else data.default_split)
    if split not in data.parts:
        hint = " (all is another text, with data.path=)" if "train" in data.parts else ""
        raise UserError(f"split={split} is not there; there is {', '.join(data.parts)}{hint}.")
    views, notes = data.views(getattr(trained.model, "max_len", None))
    if not views:
        raise UserError(f"nothing is left to judge: {'; '.join(notes)}.")
    translating = trained.config.task.name == "translation"
    if not translating and (config.score or config.ensemble):
        raise UserError("score= and ensemble= are for runs on translation; leave them out.")
    check_exams(config.exams, trained.config.task.name)
    # Before anything slow: a file of pairs may be malformed.
    sitting = Sitting(config.exams, data, config.seed) if config.exams.wanted else None
    model, ensemble = with_ensemble(trained, config.ensemble, config.checkpoint, config.device)
    folder = RunFolder.create("eval", config.name)
    handler = folder.log_to_file("eval")
    folder.write_status("running")
    try:
        task = build_task(trained.config.task)
        rows = judge_views(task, model, trained.device, views, split)
        report = None
        if config.score:
            score_pairs(model, trained, data, split, folder)
        elif translating:
            report = judge_written(config, model, trained, data, split, folder)
            rows[0]["metrics"] |= _scores_as_metrics(report)
        exams, accuracies = sit_exams(config, sitting, trained, folder) if sitting else ([], {})
        folder.write_config(to_plain(config))
        described = data.describe()
        folder.write_manifest(
            {
                "command": "eval",
                **environment(),
                "run": str(trained.folder.path),
                "ensemble": ensemble,
                "corpus": described,
                "left_out": notes,
                "device": trained.device.name,
                "precision": trained.device.precision,
            }
        )
        # Of the length that the run was trained for, if that was judged.
        main_metrics: dict[str, Any] = next(
            (row["metrics"] for row, view in zip(rows, views, strict=True) if view.main), {}
        )
        result = {
            "command": "eval",
            "run": str(trained.folder.path),
            "checkpoint": config.checkpoint,
            "step": trained.step,
            "split": split,
            "metrics": {
                **{f"{split}/{name}": cell["value"] for name, cell in main_metrics.items()},
                **accuracies,
            },
            "rows": rows,
            "loss_unit": task.loss_unit,
            **({"translation": report} if report else {}),
            **({"exams": exams} if exams else {}),
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
    if not config.score:
        _show(result)
    metrics: dict[str, float] = result["metrics"]
    return metrics


def judge_written(
    config: EvalConfig, model: Any, trained: "TrainedRun", data: Any, split: str, folder: "RunFolder"
) -> dict[str, Any]:
    """Translate a part and compare; sources, references and hypotheses lie in the folder, line by line."""
    from seqexp.decoding.translation import Translator
    from seqexp.evaluation.translation import judge_translations, translate_sources

    pairs = data.parts[split].pairs
    translator = Translator(model, trained.tokenizer, config.generation, trained.device.torch)
    hypotheses, notes = translate_sources(translator, pairs)
    for note in notes[:MOST_NOTES]:
        log.warning("NOTE: %s", note)
    if len(notes) > MOST_NOTES:
        log.warning("NOTE: %d more such notes in result.json", len(notes) - MOST_NOTES)
    texts = {"sources": [s for s, _ in pairs], "references": [t for _, t in pairs], "hypotheses": hypotheses}
    for name, lines in texts.items():
        text = "".join(f"{' '.join(line.split())}\n" for line in lines)
        (folder.path / f"{name}.txt").write_text(text, encoding="utf-8")
    seen = {target for _, target in data.parts["train"].pairs} if "train" in data.parts else None
    surprise = [-value for value in _log_probabilities(model, trained, data, split)]
    tokens = (data.parts[split].target.lengths + 1).tolist()
    report = judge_translations(pairs, hypotheses, seen, surprise, tokens)
    divided = None if split == "all" else trained.config.data.split
    return {"split": divided, **report, "notes": notes}


def _log_probabilities(model: Any, trained: "TrainedRun", data: Any, split: str) -> list[float]:
    """That of each pair's target, in nats, in fp32, in the order of the pairs."""
    from seqexp.decoding.translation import log_probabilities

    found = [0.0] * len(data.parts[split].pairs)
    for members, batch in data.numbered_batches(split):
        values = log_probabilities(model, batch.to(trained.device.torch))
        for number, value in zip(members, values, strict=True):
            found[number] = value
    return found


def score_pairs(model: Any, trained: "TrainedRun", data: Any, split: str, folder: "RunFolder") -> None:
    """Print, and keep in ``scores.jsonl``, the log-probability of each pair's target, in the order given."""
    part = data.parts[split]
    found = _log_probabilities(model, trained, data, split)
    lines = []
    for number, (source, target) in enumerate(part.pairs):
        row: dict[str, Any] = {"line": part.lines[number], "source": source, "target": target}
        row["log_probability"] = found[number]
        row["tokens"] = len(part.target[number]) + 1  # the end is one
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    (folder.path / "scores.jsonl").write_text("".join(lines), encoding="utf-8")
    sys.stdout.write("".join(lines))


def _scores_as_metrics(report: dict[str, Any]) -> dict[str, Any]:
    """BLEU and the others as rows of the table of metrics."""
    values = {name: score["value"] for name, score in report["scores"].items()}
    counts = dict.fromkeys(values, report["pairs"])
    unseen = report.get("unseen_targets")
    if unseen and unseen["pairs"]:
        values["bleu_unseen"], counts["bleu_unseen"] = unseen["bleu"], unseen["pairs"]
    return {name: {"value": values[name], "count": counts[name], "interval": None} for name in values}


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

    console = Console()
    console.print(_metric_table(result) if len(result["rows"]) == 1 else _row_table(result))
    if "translation" in result:
        console.print(_translation_table(result["translation"]))
        for score in result["translation"]["scores"].values():
            console.print(score["signature"], style="dim", highlight=False)
    show_exams(result.get("exams", []), console)


def _title(result: dict[str, Any]) -> str:
    title = f"{result['split']} of {result['corpus']['name']}, step {result['step']} ({result['checkpoint']})"
    if len(result["rows"]) == 1 and "length" in result["rows"][0]:
        title += f", length {result['rows'][0]['length']}"
    return title


def _metric_table(result: dict[str, Any]) -> Any:
    """One row a metric."""
    from rich.table import Table

    units = {"bits_per_char": "bits", "perplexity": "per token", "loss": result["loss_unit"]}
    units |= {"bleu": "0–100", "chrf": "0–100", "ter": "0 is best", "bleu_unseen": "target not in training"}
    table = Table("metric", title=_title(result))
    for column in ("value", "95 % interval", "of"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    (row,) = result["rows"]
    for name, cell in row["metrics"].items():
        row_of = (name, _number(cell["value"]), _interval(cell), f"{cell['count']:,}", units.get(name, ""))
        table.add_row(*row_of)
    return table


def _translation_table(report: dict[str, Any]) -> Any:
    """BLEU by length of the source."""
    from rich.table import Table

    ways = {"source": "no source in two parts", "random": "pairs drawn at random", None: "other pairs"}
    split = ways[report["split"]]
    title = f"{report['pairs']:,} pairs of {report['sources']:,} sources ({split})"
    table = Table("words in the source", title=title)
    table.add_column("pairs", justify="right")
    table.add_column("BLEU", justify="right")
    table.add_column("loss", justify="right")
    table.add_column("perplexity", justify="right")
    for row in report["by_length"]:
        cells = (f"{row['bleu']:.2f}", f"{row['loss']:.4f}", f"{row['perplexity']:.2f}")
        table.add_row(row["words"], f"{row['pairs']:,}", *cells)
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
