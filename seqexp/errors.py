"""Exceptions that are printed as one short message."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can correct: exit code 2.

    The message says what was given, what is allowed, and what to do.
    """


class RunFailedError(Exception):
    """A run cannot continue, without a mistake in the command: exit code 1."""


def suggest(given: str, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'gpt'?"`` with the nearest allowed name, or an empty string."""
    allowed = list(allowed)
    extended = [name for name in allowed if name.startswith(given)]
    close = extended if len(extended) == 1 else difflib.get_close_matches(given, allowed, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
