"""`python -m seqexp` that kills itself with SIGKILL inside a window; started by scripts/torture.py.

    python scripts/torture_child.py WINDOW AFTER DELAY -- train …

After AFTER checkpoints of this process it is killed inside the next WINDOW (``step``, ``checkpoint`` or
``validation``), when the fraction DELAY of the window's length has passed. The length is estimated from the
previous window.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


class Killer:
    """End this process inside the first window after `after` checkpoints."""

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
                time.sleep(1)  # the window was shorter than estimated: the kill comes now, at its end
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
