"""The one exception for mistakes that a user can make and mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What was given, what is allowed, what to do: printed in short, exit code 2."""


class RunFailedError(Exception):
    """A run that cannot go on through no mistake in the command: printed in short, exit code 1."""


def suggest(given: str, allowed: Iterable[str]) -> str:
    """``" Did you mean 'gpt'?"`` for the nearest allowed word, or an empty string."""
    allowed = list(allowed)
    begun = [word for word in allowed if word.startswith(given)]
    close = begun if len(begun) == 1 else difflib.get_close_matches(given, allowed, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
