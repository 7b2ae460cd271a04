"""`seqexp generate`: write text with a run."""

import os
import stat
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from seqexp.commands.eval import run_name
from seqexp.commands.hydra_app import run_app
from seqexp.commands.outputs import check_outputs, hand_out
from seqexp.commands.translate import Line, split_lines, translate
from seqexp.config.root import GenerateConfig, to_plain
from seqexp.errors import UserError
from seqexp.files import user_path

if TYPE_CHECKING:
    from seqexp.commands.build import TrainedRun
    from seqexp.tracking.run_folder import RunFolder


# Of more sequences than this the hidden states are not drawn.
MOST_PICTURES = 10


def main() -> None:
    run_app("generate", lambda config, job: generate(config), run_name)


def generate(config: GenerateConfig) -> list[str]:
    """Print the samples (streamed where there is one and a terminal) and keep them in a run folder."""
    from seqexp.commands.build import load_trained_run
    from seqexp.tracking.manifest import environment
    from seqexp.tracking.run_folder import RunFolder, find_run

    check_outputs(config)
    folder = find_run(config.run)
    translating = folder.read_config().task.name == "translation"
    _refuse_words_of_another_task(config, translating)
    if translating:
        # Read before the model is loaded: a file that is not there is said at once.
        lines = _read_lines(config)
        return translate(config, load_trained_run(folder, config.checkpoint, config.device), lines)
    prompt = _read_prompt(config)
    trained = load_trained_run(folder, config.checkpoint, config.device)
    # Up to the first step, so that a prompt it cannot read is an error before a folder is made.
    texts = _begin(config, trained, prompt)
    made = RunFolder.create("generate", config.name)
    made.write_config(to_plain(config))
    made.write_status("running")
    stand_in = (trained.folder.manifest().get("corpus") or {}).get("stand_in")
    made.write_manifest(
        {
            "command": "generate",
            **environment(),
            "run": str(trained.folder.path),
            "seed": config.seed,
            "device": trained.device.name,
            "precision": "fp32",
        }
    )
    samples = [""] * config.generation.num_samples
    status = "interrupted"
    try:
        _write(config, texts, samples, made.path)
        if trained.config.task.name == "parity":
            _draw_hidden_states(config, trained, prompt, made)
        status = "finished"
    except KeyboardInterrupt:
        print(f"what was generated so far is in {made.path}", file=sys.stderr)
        raise
    except BrokenPipeError:
        raise
    except Exception:
        status = "failed"
        raise
    finally:
        made.write_status(status)
        for number, text in enumerate(samples, start=1):
            file = made.subfolder("samples") / f"sample_{number:03d}.txt"
            file.write_text(text, encoding="utf-8")
        made.write_result(
            {
                "command": "generate",
                "run": str(trained.folder.path),
                "checkpoint": config.checkpoint,
                "step": trained.step,
                "seed": config.seed,
                "samples": samples,
                "stand_in": stand_in,
            }
        )
    return samples


def _refuse_words_of_another_task(config: GenerateConfig, translating: bool) -> None:
    if translating and config.prompt is not None:
        raise UserError("this run translates: give the sentence as text=, or a file as input=.")
    if not translating and (config.text is not None or config.attention is not None or config.ensemble):
        raise UserError(
            "text=, attention= and ensemble= are for translation; this run goes on from a text: give it as "
            "prompt=."
        )


def _read_lines(config: GenerateConfig) -> list[Line] | None:
    """The sentences to translate: typed, from a file, from a pipe; None: ask for them on the terminal.

    Raises:
        UserError: the file cannot be read, or there is nothing to read from.
    """
    if config.text is not None:
        return [Line(config.text)]
    if config.input not in (None, "-"):
        try:
            return split_lines(user_path(str(config.input)).read_bytes())
        except OSError as error:
            raise UserError(f"input={config.input} cannot be read ({error.strerror}).") from error
    if config.input == "-" or _stdin_is_fed():
        print("reading sentences from standard input", file=sys.stderr)
        return split_lines(sys.stdin.buffer.read())
    if sys.stdin.isatty() and config.output is None:
        return None
    raise UserError('there is nothing to translate; write text="…", input=<file>, or pipe sentences in.')


def _begin(config: GenerateConfig, trained: "TrainedRun", prompt: str | None) -> Iterator[list[str]]:
    """The samples as they grow, begun."""
    from seqexp.commands.build import build_task

    task = build_task(trained.config.task)
    growing = task.generate(
        trained.model, trained.tokenizer, prompt, config.generation, config.seed, trained.device.torch
    )
    first = next(growing)
    return chain([first], growing)


def _draw_hidden_states(
    config: GenerateConfig, trained: "TrainedRun", prompt: str | None, folder: "RunFolder"
) -> None:
    """What a recurrent model had in mind while it read each of the first sequences."""
    from seqexp.data.parity import running_parity
    from seqexp.evaluation.recurrence import hidden_states, is_recurrent
    from seqexp.tasks.parity import sequences_of
    from seqexp.tracking.plots import hidden_states_figure, save

    if not is_recurrent(trained.model):
        return
    drawn = config.generation.num_samples
    sequences = sequences_of(trained.tokenizer, prompt, None, drawn, config.seed)
    for number, bits in enumerate(sequences[:MOST_PICTURES], start=1):
        hidden = hidden_states(trained.model, bits.to(trained.device.torch))
        truth = running_parity(bits.numpy()).tolist()
        figure = hidden_states_figure(hidden, bits.tolist(), truth, f"{config.name}, sequence {number}")
        file = folder.subfolder("plots") / f"hidden_states_{number:03d}.png"
        save(figure, file)
        print(f"hidden states: {file}", file=sys.stderr)


def _write(config: GenerateConfig, growing: Iterator[list[str]], samples: list[str], folder: Path) -> None:
    """Generate and hand out. `samples` always holds what was generated so far, also when this raises."""
    from tqdm import tqdm

    stream = config.output is None and len(samples) == 1 and sys.stdout.isatty()
    progress = tqdm(
        total=config.generation.max_new_tokens, desc="generating", unit="tok", delay=2, leave=False,
        disable=True if stream else None,
    )  # fmt: skip
    try:
        with progress:
            for now in growing:
                if stream:
                    print(now[0][len(samples[0]) :], end="", flush=True)
                samples[:] = now
                progress.update(1)
    finally:
        if stream:
            print(flush=True)
    if stream:
        return
    product = samples[0] + "\n"
    if len(samples) > 1:
        product = "".join(
            f"----- sample {number} of {len(samples)} -----\n{text}\n"
            for number, text in enumerate(samples, start=1)
        )
    hand_out(product, config.output, folder)


def _read_prompt(config: GenerateConfig) -> str | None:
    """The prompt as typed, from a file, or from a pipe, without one line end at its end; None: there is none.

    Raises:
        UserError: the file cannot be read as UTF-8 text.
    """
    if config.prompt is not None:
        return config.prompt
    if config.input not in (None, "-"):
        try:
            text = user_path(str(config.input)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"input={config.input} cannot be read as UTF-8 text ({error}).") from error
        return text.removesuffix("\n")
    if config.input == "-" or _stdin_is_fed():
        print("reading the prompt from standard input", file=sys.stderr)
        try:
            return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise UserError(f"standard input is not UTF-8 text ({error}).") from error
    return None


def _stdin_is_fed() -> bool:
    """Whether standard input is a pipe or a file, not a terminal or nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
