"""Truncated back-propagation through time: carry the state of a recurrent model from batch to batch."""

from typing import Any

import torch
from torch import Tensor

from seqexp.data.batch import Batch


class CarriedState:
    """A callable model that starts each batch that `continues` from the last state of the previous batch.

    Gradients are truncated at the start of a batch (Williams & Peng 1990).
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.state: tuple[Tensor, ...] | None = None

    def begin(self, batch: Batch) -> None:
        """Reset the state unless the batch continues the previous one."""
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
        """Check that a loaded state fits the model: run one token of each row from it, and drop the result.

        Raises:
            RuntimeError: the shapes of the state do not fit.
        """
        if self.state is None:
            return
        tokens = torch.zeros((rows, 1), dtype=torch.int64, device=self.state[0].device)
        with torch.no_grad():
            self.model.continue_from(tokens, self.state)
