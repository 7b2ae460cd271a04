"""Checks of settings, for the `__post_init__` of configuration dataclasses."""

from collections.abc import Iterable

from seqexp.errors import UserError, suggest

# Upper limit for integers in a configuration.
LARGEST = 1_000_000_000
SWITCH = ("auto", "true", "false")


def check_range(
    key: str,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Check that a number is finite, within [low, high], and strictly `above` and `below` these bounds.

    None is valid. The default of `high` for integers is `LARGEST`.

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
        allowed = " and ".join(f"{relation} {bound}" for bound, relation in bounds if bound is not None)
        finite = ("finite and " if allowed else "finite") if infinite else ""
        raise UserError(f"{key}={value} is out of range; it must be {finite}{allowed}.")


def check_choice(key: str, value: str, allowed: Iterable[str]) -> None:
    """Check that a value is in `allowed`.

    Raises:
        UserError: listing the allowed values.
    """
    allowed = list(allowed)
    if value not in allowed:
        raise UserError(
            f"{key}={value} is not known; it must be one of {', '.join(allowed)}." + suggest(value, allowed)
        )


def check_rule(holds: bool, message: str) -> None:
    """Check that a rule holds.

    Raises:
        UserError: with the message.
    """
    if not holds:
        raise UserError(message)
