"""`seqexp eval`: the metrics of a run over a whole split, or over another text."""

import json
import logging
import sys
from typing import Any

from seqexp.commands.hydra_app import run_app
from seqexp.config.root import EvalConfig, to_plain
from seqexp.errors import UserError

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
    from seqexp.data.text import TextData
    from seqexp.evaluation.split import evaluate_split
    from seqexp.tracking.manifest import environment
    from seqexp.tracking.run_folder import RunFolder, find_run
    from seqexp.training.device import setup_device

    device = setup_device(config.device)
    trained = load_trained_run(find_run(config.run), config.checkpoint, device)
    manifest = trained.folder.manifest()
    split = config.split or ("all" if config.data.path else "val")
    if config.data.path:
        if split != "all":
            raise UserError(f"split={split} is of the run's own text; with data.path= use split=all.")
        data = TextData.of_text(
            trained.config.data, trained.tokenizer, config.data.path, config.data.encoding
        )
    else:
        data = TextData.for_evaluation(trained.config.data, trained.tokenizer, manifest)
        if split not in data.parts:
            raise UserError(
                f"split={split} is not there; this run's text has {', '.join(data.parts)}. "
                "split=all is for another text, with data.path=."
            )
    folder = RunFolder.create("eval", config.name)
    handler = folder.log_to_file("eval")
    folder.write_status("running")
    try:
        metrics = evaluate_split(
            build_task(trained.config.task),
            trained.model,
            data,
            split,
            device.torch,
            device.autocast,
        )
        folder.write_config(to_plain(config))
        described = data.describe()
        folder.write_manifest(
            {
                "command": "eval",
                **environment(),
                "run": str(trained.folder.path),
                "corpus": described,
                "device": device.name,
                "precision": device.precision,
            }
        )
        result = {
            "command": "eval",
            "run": str(trained.folder.path),
            "checkpoint": config.checkpoint,
            "step": trained.step,
            "split": split,
            "metrics": metrics,
            "tokens": data.eval_tokens(split),
            "characters": data.characters(split),
            "unknown_characters": data.parts[split].unknown,
            "corpus": {key: described[key] for key in ("name", "origin", "sha256")},
            "stand_in": described["stand_in"] or (manifest.get("corpus") or {}).get("stand_in"),
        }
        folder.write_result(result)
        folder.write_status("finished")
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        folder.write_status("interrupted" if interrupted else "failed", error=repr(error))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    _show(result)
    return metrics


def _show(result: dict[str, Any]) -> None:
    """A table for people, JSON for programs."""
    if result["stand_in"]:
        log.warning("NOTE: %s", result["stand_in"])
    if not sys.stdout.isatty():
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    units = {"loss": "nats per token", "bits_per_char": "bits", "perplexity": "per token"}
    table = Table(
        title=f"{result['split']} of {result['corpus']['name']}, step {result['step']} "
        f"({result['checkpoint']}): {result['tokens']:,} tokens, {result['characters']:,} characters"
    )
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("unit")
    for name, value in result["metrics"].items():
        table.add_row(name, f"{value:.4f}", units.get(name.rpartition("/")[2], ""))
    Console().print(table)
