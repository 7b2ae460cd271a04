"""`seqexp generate`: predictions of a run for a prompt, a sentence, the lines of a file, or typed lines."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from seqexp.commands.colours import beside
from seqexp.commands.eval import run_name
from seqexp.commands.hydra_app import run_app
from seqexp.commands.inputs import Line, read_inputs, typed_lines
from seqexp.commands.outputs import check_outputs, hand_out
from seqexp.config.effects import unused_generation
from seqexp.config.root import GenerateConfig, to_plain
from seqexp.errors import UserError
from seqexp.files import user_path

if TYPE_CHECKING:
    from seqexp.commands.build import TrainedRun
    from seqexp.tasks.base import Prediction, PredictOptions, Task
    from seqexp.tracking.run_folder import RunFolder

# Limit for printed notes; further ones are counted, and predictions.jsonl has all of them.
MOST_NOTES = 10
# Limit for figures of predictions, besides those that picture= requests.
MOST_PICTURES = 10


def main() -> None:
    run_app("generate", lambda config, job: generate(config), run_name)


def generate(config: GenerateConfig) -> list[str]:
    """Predict, print, and record the predictions in a run folder; return the texts.

    A single text is streamed if stdout is a terminal.

    Raises:
        UserError: the run, the checkpoint or the input is missing, or an option does not fit the task.
    """
    from seqexp.commands.build import build_task, load_trained_run, with_ensemble
    from seqexp.tasks.base import PredictOptions
    from seqexp.tracking.run_folder import RunFolder, find_run

    check_outputs(config)
    folder = find_run(config.run)
    task = build_task(folder.read_config().task)
    # Read the input before the model is loaded, so that a missing file is reported at once.
    lines = read_inputs(config, task)
    trained = load_trained_run(folder, config.checkpoint, config.device)
    unused = unused_generation(config.generation, trained.config.task)
    for note in unused:
        print(f"NOTE: {note}", file=sys.stderr)
    model, ensemble = with_ensemble(task, trained, config.ensemble, config.checkpoint, config.device)
    if config.explain is not None:
        task.check_explanation(model, config.explain)
    figures = frozenset(task.figure_names(model))
    options = PredictOptions(config.generation, config.seed, figures, config.explain)
    if lines is None:
        given = task.default_inputs(model, options)
        if given is None and not (sys.stdin.isatty() and config.output is None):
            raise UserError(f'there is no input; write {task.input_key}="…", input=<file>, or pipe lines in.')
        lines = None if given is None else [Line(text) for text in given]
    texts = None if lines is None else [line.text for line in lines]
    predictions = (
        _conversation(task, model, trained, options)
        if texts is None
        else task.predict(model, trained.preprocessor, texts, options)
    )
    made = RunFolder.create("generate", config.name)
    with _recorded(made, config, trained, {"ensemble": ensemble, "without_effect": unused}):
        writer = _Writer(config, task, options, made, lines)
        writer.work(predictions)
    return writer.texts()


def _conversation(
    task: "Task", model: Any, trained: "TrainedRun", options: "PredictOptions"
) -> "Iterator[Prediction]":
    """Read lines from a terminal until the end of input, and yield their predictions."""
    from dataclasses import replace

    print("type one input per line; Ctrl-D ends", file=sys.stderr)
    for number, text in enumerate(typed_lines()):
        for prediction in task.predict(model, trained.preprocessor, [text], options):
            values = {**prediction.values, **({"line": number + 1} if "line" in prediction.values else {})}
            yield replace(prediction, index=number, values=values)


@contextmanager
def _recorded(
    folder: "RunFolder", config: GenerateConfig, trained: "TrainedRun", more: dict[str, Any]
) -> Iterator[None]:
    """Write configuration, manifest, status and result around the work."""
    from seqexp.tracking.manifest import environment

    folder.write_config(to_plain(config))
    folder.write_status("running")
    corpus = trained.folder.manifest().get("corpus") or {}
    about = {"command": "generate", "run": str(trained.folder.path), "seed": config.seed}
    device = {"device": trained.device.name, "precision": "fp32"}
    folder.write_manifest({**about, **environment(), **device, **more})
    status = "failed"
    try:
        yield
        status = "finished"
    except (KeyboardInterrupt, BrokenPipeError):
        status = "interrupted"
        raise
    finally:
        folder.write_status(status)
        file = folder.path / "predictions.jsonl"
        folder.write_result(
            {
                **about,
                "checkpoint": config.checkpoint,
                "step": trained.step,
                "predictions": file.read_bytes().count(b"\n") if file.exists() else 0,
                "stand_in": corpus.get("stand_in"),
                "generated_data": corpus.get("generated", False),
            }
        )


class _Writer:
    """Print predictions in the order of their inputs, or write them to `output`, and record them."""

    def __init__(
        self,
        config: GenerateConfig,
        task: "Task",
        options: "PredictOptions",
        folder: "RunFolder",
        lines: list[Line] | None,
    ) -> None:
        self.config, self.task, self.options, self.folder, self.lines = config, task, options, folder, lines
        self.products: dict[int, str] = {}  # by the number of the input
        self.answers: dict[int, tuple[str, ...]] = {}
        self.notes: list[tuple[int, str]] = []
        self.pictures = 0
        one = lines is not None and len(lines) == 1 and config.generation.num_samples == 1
        # Print a single text token by token.
        self.streams = one and config.output is None and sys.stdout.isatty()
        self.talks = lines is None

    def texts(self) -> list[str]:
        """Return all answers to a single input, or the best answer to each of several inputs."""
        if len(self.answers) == 1:
            return list(next(iter(self.answers.values())))
        return [self.answers[index][0] for index in sorted(self.answers)]

    def work(self, predictions: "Iterator[Prediction]") -> None:
        """Consume all predictions; on an interruption record the unfinished one."""
        from tqdm import tqdm

        total = len(self.lines) if self.lines is not None and self.task.reads_lines else None
        unit = "line" if self.task.reads_lines else "tok"
        progress = tqdm(
            total=total, desc="generating", unit=unit, delay=2, leave=False,
            disable=True if self.streams or self.talks else None,
        )  # fmt: skip
        shown = ""
        latest: Prediction | None = None
        with (self.folder.path / "predictions.jsonl").open("w", encoding="utf-8") as file:
            try:
                with progress:
                    for latest in predictions:
                        # Only texts that come token by token; others are printed when they are whole.
                        if self.streams and (shown or not latest.final):
                            print(latest.text[len(shown) :], end="", flush=True)
                            shown = latest.text
                        if latest.final:
                            self._take(latest, file, streamed=bool(shown))
                        progress.update(int(latest.final or not self.task.reads_lines))
            except KeyboardInterrupt:
                if self.streams:
                    print(flush=True)
                if latest is not None and not latest.final:
                    self._keep(latest, file)
                print(f"what was generated is in {self.folder.path}", file=sys.stderr)
                raise
        self._print_notes()
        if not self.streams and not self.talks:
            text = "".join(f"{self.products[index]}\n" for index in sorted(self.products))
            hand_out(text, self.config.output, self.folder.path)

    def _take(self, prediction: "Prediction", file: Any, streamed: bool) -> None:
        row = self._keep(prediction, file)
        shown = self.task.show(prediction, self.options)
        product = json.dumps(row, ensure_ascii=False) if shown is None else shown
        words = beside(prediction.scored, terminal=self.config.output is None) if prediction.scored else ""
        product += words if shown is not None else ""
        self.products[prediction.index] = product
        if self.streams:
            print("" if streamed else product)
        if self.talks:
            print("\n".join(prediction.texts) + words, flush=True)
            if prediction.note and prediction.note != "blank":
                print(prediction.note, file=sys.stderr)
        self._draw(prediction)

    def _keep(self, prediction: "Prediction", file: Any) -> dict[str, Any]:
        """Record a prediction in the folder; texts of a task without lines become files as well."""
        own = self.lines[prediction.index].note if self.lines is not None else None
        note = "; ".join(part for part in (own, prediction.note) if part)
        row = {**(prediction.values or {"texts": list(prediction.texts)}), **({"note": note} if note else {})}
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        if note and not self.talks:
            self.notes.append((prediction.index + 1, note))
        self.answers[prediction.index] = prediction.texts
        if not self.task.reads_lines:
            for text in prediction.texts:
                number = len(list(self.folder.subfolder("samples").iterdir())) + 1
                target = self.folder.path / "samples" / f"sample_{number:03d}.txt"
                target.write_text(text, encoding="utf-8")
        return row

    def _print_notes(self) -> None:
        for number, note in sorted(self.notes)[:MOST_NOTES]:
            print(f"line {number}: {note}", file=sys.stderr)
        if len(self.notes) > MOST_NOTES:
            more, file = len(self.notes) - MOST_NOTES, self.folder.path / "predictions.jsonl"
            print(f"{more} more lines with notes: {file}", file=sys.stderr)

    def _draw(self, prediction: "Prediction") -> None:
        """Save the figures of a prediction: of its explanation to the given file, others to the folder."""
        from seqexp.tracking.plots import save

        for name, draw in prediction.figures.items():
            number = prediction.index + 1
            if name == self.options.explain:
                given = self.config.picture or self.config.attention
                if not given:
                    continue
                target = user_path(given)
                if self.lines is None or len(self.lines) > 1:
                    target = target.with_name(f"{target.stem}_{number:03d}{target.suffix}")
            elif self.pictures < MOST_PICTURES:
                self.pictures += 1
                target = self.folder.subfolder("plots") / f"{name}_{number:03d}.png"
            else:
                continue
            save(draw(), target)
            print(f"{name.replace('_', ' ')}: {target}", file=sys.stderr)
