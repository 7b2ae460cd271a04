"""The state of torch's random generators; all other random choices are seeded by step."""

from typing import Any

import torch


def random_state() -> dict[str, Any]:
    """Return the states of the CPU's generator and, where CUDA is in use, of every GPU's."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
