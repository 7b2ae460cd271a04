"""Checks of settings, for the `__post_init__` of configuration dataclasses."""

from collections.abc import Iterable

from seqexp.errors import UserError, suggest

# No whole number in a configuration need be larger.
LARGEST = 1_000_000_000


def check_range(
    key: str,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse a number outside [low, high], or not strictly above or below a bound; NaN and infinity always.

    None passes. A whole number without a `high` is at most `LARGEST`.

    Raises:
        UserError: naming the key, the value and the range.
    """
    if value is None:
        return
    if high is None and isinstance(value, int) and value > LARGEST:
        high = LARGEST
    broken = (
        (low is not None and value < low)
        or (above is not None and value <= above)
        or (high is not None and value > high)
        or (below is not None and value >= below)
    )
    infinite = not abs(value) < float("inf")  # or NaN
    if broken or infinite:
        bounds = ((low, "at least"), (above, "above"), (high, "at most"), (below, "below"))
        allowed = " and ".join(f"{word} {bound}" for bound, word in bounds if bound is not None)
        finite = ("finite and " if allowed else "finite") if infinite else ""
        raise UserError(f"{key}={value} is out of range; it must be {finite}{allowed}.")


def check_choice(key: str, value: str, allowed: Iterable[str]) -> None:
    """Refuse a word that is not in `allowed`.

    Raises:
        UserError: listing what is allowed.
    """
    allowed = list(allowed)
    if value not in allowed:
        raise UserError(
            f"{key}={value} is not known; it must be one of {', '.join(allowed)}." + suggest(value, allowed)
        )


def check_rule(holds: bool, message: str) -> None:
    """Refuse a combination of values.

    Raises:
        UserError: with the message.
    """
    if not holds:
        raise UserError(message)
