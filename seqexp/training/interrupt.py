"""Handling of Ctrl-C and signals: `StopRequest` in the training loop, `interruptible` elsewhere.

In training, Ctrl-C, SIGTERM and SIGUSR1 request a stop after the current step; a second Ctrl-C stops at once.
Slurm sends SIGUSR1 before a job's time limit on request (``--signal=USR1@60``), and SIGTERM on pre-emption.
Elsewhere SIGTERM and SIGHUP act like Ctrl-C, so that a command saves its results.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """A context in which signals set `requested`."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        # Only the main thread can set signal handlers; in other threads the calling program handles signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Return a context in which SIGTERM and SIGHUP raise KeyboardInterrupt; further ones are ignored.

    A signal that is ignored from the start of the process (``nohup``) stays ignored.
    """
    numbers: list[int] = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before: dict[int, Any] = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    # Only the main thread can set signal handlers; in other threads the calling program handles signals.
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
