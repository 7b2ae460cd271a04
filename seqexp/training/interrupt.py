"""Ctrl-C, SIGTERM and SIGUSR1 as a wish to stop after the current step; a second Ctrl-C stops at once.

Slurm sends SIGUSR1 before a job's time is over, if asked to (``--signal=USR1@60``), and SIGTERM when it
pre-empts.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """Inside the ``with``, `requested` tells whether someone asked to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        # Only the main thread may handle signals; elsewhere the program around us does.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
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
