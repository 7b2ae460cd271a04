"""Progress of a run: a bar on a terminal, a plain line at intervals elsewhere."""

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

log = logging.getLogger(__name__)

# Without a terminal: updates per plain line.
PLAIN_EVERY = 10


class Progress:
    """Progress over steps, or over minutes if `minutes` is the limit."""

    def __init__(self, first: int, total_steps: int | None, minutes: float | None) -> None:
        self._minutes = minutes
        self._total = total_steps
        self._first = first
        self._updates = 0
        self._bar: Any = None
        if sys.stderr.isatty():
            if minutes is None:
                self._bar = tqdm(total=total_steps, initial=first, unit="step", dynamic_ncols=True)
            else:
                form = "{l_bar}{bar}| {n:.1f}/{total:.1f} min{postfix}"
                self._bar = tqdm(total=minutes, bar_format=form, dynamic_ncols=True)

    def logging(self) -> AbstractContextManager[Any]:
        """Return a context in which log lines are printed above the bar."""
        return logging_redirect_tqdm() if self._bar else nullcontext()

    def update(self, step: int, elapsed: float, metrics: dict[str, float], last: bool) -> None:
        """Show the state after `step` steps and `elapsed` seconds."""
        parts = [
            f"{label} {metrics[name]:{form}}"
            for name, label, form in (
                ("train/loss", "loss", ".4f"),
                ("val/loss", "val", ".4f"),
                ("speed/tokens_per_s", "tok/s", ",.0f"),
            )
            if name in metrics
        ]
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(parts), refresh=False)
            self._bar.update((elapsed / 60 if self._minutes else step) - self._bar.n)
            return
        self._updates += 1
        if last or self._updates % PLAIN_EVERY == 0:
            length = f"  {elapsed / 60:.1f}/{self._minutes} min" if self._minutes else f"/{self._total}"
            left = "" if self._minutes or step <= self._first else self._left(step, elapsed)
            log.info("step %s%s  %s%s", step, length, "  ".join(parts), left)

    def _left(self, step: int, elapsed: float) -> str:
        seconds = elapsed / (step - self._first) * ((self._total or step) - step)
        return f"  {int(seconds // 60)}:{int(seconds % 60):02d} left"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
