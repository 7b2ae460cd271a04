"""The standard streams of a command, which may be closed (``>&-``), full, or without a reader.

Standard output carries the result of a command: failing to write it is an error. Standard error carries
messages: failing to write them does not end a run.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator


class OutputError(OSError):
    """Standard output cannot be written."""


class _Output(io.TextIOWrapper):
    """Standard output. The first failure raises OutputError or BrokenPipeError; text after it is dropped."""

    failure: OSError | None = None

    def write(self, text: str) -> int:
        if self.failure is None:
            with self._failing_once():
                super().write(text)
        return len(text)

    def flush(self) -> None:
        if self.failure is None:
            with self._failing_once():
                super().flush()

    @contextlib.contextmanager
    def _failing_once(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            self.failure = error
            raise
        except OSError as error:
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            self.failure = OutputError(error.errno, reason)
            raise self.failure from error


def finish_output() -> None:
    """Flush standard output.

    Raises:
        OutputError, BrokenPipeError: writing fails, or failed earlier and a library (argparse) ignored it.
    """
    sys.stdout.flush()
    if isinstance(sys.stdout, _Output) and sys.stdout.failure is not None:
        raise sys.stdout.failure


class _Messages(io.TextIOWrapper):
    """Standard error; text that cannot be written is dropped."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def prepare_streams() -> None:
    """Reopen closed streams before another file gets their number, and set how writing to them fails.

    A closed standard input is empty, a closed standard error drops messages, and writing to a closed standard
    output is an error.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    # Names and texts may contain characters that cannot be encoded: print their escapes.
    escapes = "backslashreplace"
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, lines, through = sys.stdout.encoding, sys.stdout.line_buffering, sys.stdout.write_through
        sys.stdout = _Output(
            sys.stdout.detach(), encoding, escapes, line_buffering=lines, write_through=through
        )
    elif sys.stdout is None:
        sys.stdout = _Output(open(1, "wb", closefd=False), "utf-8", escapes)  # noqa: SIM115
    if isinstance(sys.stderr, io.TextIOWrapper):
        encoding = sys.stderr.encoding
        sys.stderr = _Messages(sys.stderr.detach(), encoding, escapes, line_buffering=True)
    elif sys.stderr is None:
        sys.stderr = _Messages(open(2, "wb", closefd=False), "utf-8", escapes)  # noqa: SIM115
