"""Truncated back-propagation through time: a recurrent model goes on where the batch before ended."""

from typing import Any

import torch
from torch import Tensor

from seqexp.data.batch import Batch


class CarriedState:
    """A model that is called like any other, but starts each batch that `continues` from the last state.

    Gradients end at the border of a batch (Williams & Peng 1990).
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.state: tuple[Tensor, ...] | None = None

    def begin(self, batch: Batch) -> None:
        """Forget the state unless the batch goes on where the one before ended."""
        if not batch.continues:
            self.state = None

    def __call__(self, tokens: Tensor) -> Tensor:
        outputs: Tensor
        outputs, state = self.model.continue_from(tokens, self.state)
        self.state = tuple(part.detach() for part in state)
        return outputs

    def load(self, state: tuple[Tensor, ...] | None, device: torch.device) -> None:
        self.state = None if state is None else tuple(part.to(device) for part in state)

    def try_out(self, rows: int) -> None:
        """Go on by one token from a state that was loaded, and forget that; raises where it does not fit."""
        if self.state is None:
            return
        tokens = torch.zeros((rows, 1), dtype=torch.int64, device=self.state[0].device)
        with torch.no_grad():
            self.model.continue_from(tokens, self.state)
