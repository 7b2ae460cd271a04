"""Check that a saved state fits the model, optimizer or hook that loads it."""

from typing import Any

import torch

from seqexp.files import number

# Exceptions when a state does not fit the model or the run.
MISFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def refuse_misfit(name: str, own: Any, given: Any) -> None:
    """Check that `given` has the same keys, types of numbers and shapes of tensors as `own`.

    Raises:
        TypeError: naming the entry, what was expected and what was given.
    """
    if isinstance(own, dict) and isinstance(given, dict) and own.keys() == given.keys():
        for key in own:
            refuse_misfit(f"{name}.{key}", own[key], given[key])
        return
    if isinstance(own, torch.Tensor) and isinstance(given, torch.Tensor):
        fits = (own.shape, own.dtype, own.layout) == (given.shape, given.dtype, given.layout)
    else:
        fits = type(own) is type(given) and number(given) is not None and given >= 0
    if not fits:
        raise TypeError(f"{name}: expected {_kind(own)}, got {_kind(given)}")


def _kind(value: Any) -> str:
    """Describe a value for a message."""
    if isinstance(value, torch.Tensor):
        return f"shape {tuple(value.shape)} and {value.dtype}"
    return f"keys {sorted(map(str, value))[:5]}" if isinstance(value, dict) else type(value).__name__
