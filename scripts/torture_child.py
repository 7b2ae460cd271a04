"""`python -m seqexp`, which is killed by SIGKILL inside a window; started by scripts/torture.

    python scripts/torture_child.py WINDOW AFTER DELAY -- train …

After AFTER checkpoints of this process the next WINDOW (``step``, ``checkpoint`` or ``validation``) is the
last: the process is killed DELAY of its length after it began. The length is that of the window before, so
that the kill falls inside.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


class Killer:
    """Ends this process inside the first window after so many checkpoints."""

    def __init__(self, window: str, after: int, delay: float) -> None:
        self.window, self.after, self.delay = window, after, delay
        self.checkpoints = 0
        self.length = 0.002

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            doomed = name == self.window and self.checkpoints >= self.after
            if doomed:
                threading.Timer(self.delay * self.length, os.kill, (os.getpid(), signal.SIGKILL)).start()
            started = time.perf_counter()
            result = function(*args, **options)
            if doomed:
                time.sleep(1)  # it was quicker than before: the kill comes now, at the end of the window
            if name == self.window:
                self.length = time.perf_counter() - started
            self.checkpoints += name == "checkpoint"
            return result

        return wrapped


def main() -> None:
    window, after, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    killer = Killer(window, after, delay)
    from seqexp.training import checkpoint
    from seqexp.training.loop import Trainer

    Trainer._train_step = killer.around("step", Trainer._train_step)  # type: ignore[method-assign]
    Trainer._validate = killer.around("validation", Trainer._validate)  # type: ignore[method-assign]
    checkpoint.Checkpoints._write = killer.around("checkpoint", checkpoint.Checkpoints._write)  # type: ignore[method-assign]
    sys.argv = ["seqexp", *sys.argv[5:]]
    from seqexp.cli import run

    run()


if __name__ == "__main__":
    main()
