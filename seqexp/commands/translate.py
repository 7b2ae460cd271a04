"""`seqexp generate` for translation: a sentence, a file, a pipe, or line by line at a prompt."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqexp.commands.outputs import hand_out
from seqexp.config.root import GenerateConfig, to_plain
from seqexp.config.run import GenerationConfig
from seqexp.errors import UserError
from seqexp.files import user_path

if TYPE_CHECKING:
    from seqexp.commands.build import TrainedRun
    from seqexp.decoding.translation import Translated, Translator
    from seqexp.tracking.run_folder import RunFolder

# Notes that are printed one by one; the rest are counted, and all are in translations.jsonl.
MOST_NOTES = 10
# How language models draw tokens; translations are not drawn.
DRAWN = ("temperature", "top_k", "top_p", "num_samples", "stop", "max_new_tokens")


@dataclass(frozen=True)
class Line:
    """A sentence to translate; `note` says what was unusual about it."""

    text: str
    note: str | None = None


def translate(config: GenerateConfig, trained: "TrainedRun", lines: list[Line] | None) -> list[str]:
    """Translate `lines`, or ask for them where there are none; print or write one line for each.

    Everything is kept in a run folder: ``translations.jsonl``, and pictures where `attention=` asks for them.
    """
    from seqexp.commands.build import with_ensemble
    from seqexp.decoding.translation import Translator
    from seqexp.tracking.manifest import environment
    from seqexp.tracking.run_folder import RunFolder

    drawn = [key for key in DRAWN if getattr(config.generation, key) != getattr(GenerationConfig(), key)]
    if drawn:
        words = ", ".join(f"generation.{key}" for key in drawn)
        print(f"NOTE: {words}: for language models; translations are searched with a beam", file=sys.stderr)
    model, ensemble = with_ensemble(trained, config.ensemble, config.checkpoint, config.device)
    wants_pictures = config.attention is not None
    if wants_pictures and not model.shows_attention:
        raise UserError("attention= needs a model with attention, and this one has none.")
    translator = Translator(
        model, trained.tokenizer, config.generation, trained.device.torch, want_attention=wants_pictures
    )
    folder = RunFolder.create("generate", config.name)
    folder.write_config(to_plain(config))
    folder.write_status("running")
    corpus = trained.folder.manifest().get("corpus") or {}
    folder.write_manifest(
        {
            "command": "generate",
            **environment(),
            "run": str(trained.folder.path),
            "ensemble": ensemble,
            "device": trained.device.name,
            "precision": "fp32",
        }
    )
    status, count = "interrupted", 0
    texts: list[str]
    try:
        if lines is None:
            texts = []
            for text in _converse(translator, config, folder):
                texts.append(text)
                count += 1
        else:
            texts = _translate_lines(translator, config, folder, lines)
            count = len(texts)
        status = "finished"
    except KeyboardInterrupt:
        print(f"what was translated so far is in {folder.path}", file=sys.stderr)
        raise
    except BrokenPipeError:
        raise
    except Exception:
        status = "failed"
        raise
    finally:
        folder.write_status(status)
        folder.write_result(
            {
                "command": "generate",
                "run": str(trained.folder.path),
                "checkpoint": config.checkpoint,
                "step": trained.step,
                "translations": count,
                "generated_data": corpus.get("generated", False),
            }
        )
    return texts


def _translate_lines(
    translator: "Translator", config: GenerateConfig, folder: "RunFolder", lines: list[Line]
) -> list[str]:
    """One line out for each line in, in their order, whatever they hold."""
    from tqdm import tqdm

    products: list[str] = [""] * len(lines)
    notes: list[tuple[int, str]] = []
    progress = tqdm(total=len(lines), desc="translating", unit="line", delay=1, leave=False, disable=None)
    record = folder.path / "translations.jsonl"
    with progress, record.open("w", encoding="utf-8") as file:
        for number, found, unusual in translator.translate([line.text for line in lines]):
            note = "; ".join(part for part in (lines[number].note, unusual) if part) or None
            row = _row(number + 1, lines[number].text, found, note)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            # A translation that holds a line end would shift all that follow it.
            plain = " ".join(found[0].text.split())
            products[number] = json.dumps(row, ensure_ascii=False) if config.generation.n_best > 1 else plain
            if note:
                notes.append((number + 1, note))
            _draw(config, found[0], number + 1, len(lines))
            progress.update(1)
    for number, note in sorted(notes)[:MOST_NOTES]:
        print(f"line {number}: {note}", file=sys.stderr)
    if len(notes) > MOST_NOTES:
        print(f"{len(notes) - MOST_NOTES} more lines with notes: {record}", file=sys.stderr)
    hand_out("".join(f"{product}\n" for product in products), config.output, folder.path)
    return products


def _converse(translator: "Translator", config: GenerateConfig, folder: "RunFolder") -> Iterator[str]:
    """Ask for sentences on a terminal until the end of input; yields their translations."""
    print("one sentence a line; Ctrl-D ends", file=sys.stderr)
    number = 0
    with (folder.path / "translations.jsonl").open("w", encoding="utf-8") as file:
        for text in _typed():
            number += 1
            ((_, found, note),) = translator.translate([text])
            file.write(json.dumps(_row(number, text, found, note), ensure_ascii=False) + "\n")
            for one in found:
                score = f"{one.score:8.3f}  " if len(found) > 1 else ""
                print(f"{score}{one.text}", flush=True)
            if note and note != "blank":
                print(note, file=sys.stderr)
            _draw(config, found[0], number, 2)
            yield found[0].text


def _typed() -> Iterator[str]:
    """Lines from the terminal. The sign that asks for them is no product: it goes to standard error."""
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.buffer.readline()
        if not line:
            print(file=sys.stderr)
            return
        yield line.decode("utf-8", errors="replace").rstrip("\r\n")


def _row(number: int, source: str, found: "list[Translated]", note: str | None) -> dict[str, Any]:
    translations = [
        {"text": one.text, "score": one.score, "log_probability": one.log_probability} for one in found
    ]
    return {
        "line": number,
        "source": source,
        "translations": translations,
        **({"note": note} if note else {}),
    }


def _draw(config: GenerateConfig, shown: "Translated", number: int, total: int) -> None:
    """The attention of a translation: to the file named, or, of several, to numbered ones."""
    if config.attention is None or shown.attention is None:
        return
    from seqexp.tracking.plots import attention_figure, save

    file = user_path(config.attention)
    if total > 1:
        file = file.with_name(f"{file.stem}_{number:03d}{file.suffix}")
    save(attention_figure(shown.attention, shown.source_labels, shown.target_labels, shown.text), file)
    print(f"attention: {file}", file=sys.stderr)


def split_lines(data: bytes) -> list[Line]:
    """The lines of a file, each as text whatever it holds; a line end at the very end begins no line."""
    parts = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if parts[-1] == b"":
        parts.pop()
    lines = []
    for part in parts:
        try:
            lines.append(Line(part.decode("utf-8").rstrip("\r")))
        except UnicodeDecodeError:
            text = part.decode("utf-8", errors="replace").rstrip("\r")
            lines.append(Line(text, "not UTF-8; U+FFFD stands for what could not be read"))
    return lines
