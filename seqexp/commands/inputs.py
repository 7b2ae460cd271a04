"""The inputs of `seqexp generate`: typed, from a file, from a pipe, or line by line on a terminal."""

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seqexp.config.root import GenerateConfig
from seqexp.errors import UserError
from seqexp.files import as_utf8, user_path

if TYPE_CHECKING:
    from seqexp.data.lines import DecodedText
    from seqexp.tasks.base import Task


@dataclass(frozen=True)
class Line:
    """An input; `note` reports a problem, such as bytes that could not be decoded."""

    text: str
    note: str | None = None


def read_inputs(config: GenerateConfig, task: "Task") -> list[Line] | None:
    """Return the inputs from the command line, a file or a pipe, or None if nothing was given.

    Each line is an input if the task reads lines; otherwise the whole text is one.

    Raises:
        UserError: the file cannot be read, or the input was given under the key of another task.
    """
    from seqexp.data.lines import read_text

    for key in ("prompt", "text"):
        if getattr(config, key) is not None and key != task.input_key:
            raise UserError(
                f"{key}= is not what the task of this run reads: give its input as {task.input_key}=, or a "
                "file as input=."
            )
    typed = getattr(config, task.input_key)
    if typed is not None:
        return [Line(line) for line in typed.split("\n")] if task.reads_lines else [Line(typed)]
    if config.input not in (None, "-"):
        file = user_path(str(config.input))
        return _lines(read_text(file, name=f"input={as_utf8(config.input)}"), task.reads_lines)
    if config.input == "-" or _stdin_is_fed():
        print("reading the input from standard input", file=sys.stderr)
        return _lines(read_text(sys.stdin.buffer.read(), name="standard input"), task.reads_lines)
    return None


def _lines(text: "DecodedText", each_line: bool) -> list[Line]:
    """Each line of a text as an input, or all of it as one, without a line end at its end."""
    for note in text.notes:
        print(f"NOTE: {note}", file=sys.stderr)
    if not each_line:
        return [Line(text.text.removesuffix("\n"))]
    damaged = dict.fromkeys(text.damaged_lines, "not UTF-8; U+FFFD stands for what could not be read")
    return [Line(line, damaged.get(number)) for number, line in enumerate(text.lines, start=1)]


def typed_lines() -> Iterator[str]:
    """Yield lines from the terminal. The prompt goes to standard error, which keeps it out of the output."""
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.buffer.readline()
        if not line:
            print(file=sys.stderr)
            return
        yield line.decode("utf-8", errors="replace").rstrip("\r\n")


def _stdin_is_fed() -> bool:
    """Return whether standard input is a pipe or a file."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
