"""What goes on inside a recurrent network: gradients through time, and hidden states."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seqexp.data.batch import Batch
from seqexp.tasks.base import Task


def is_recurrent(model: Any) -> bool:
    """Whether the model carries a state from step to step and can show it."""
    return hasattr(model, "continue_from")


def gradient_flow(task: Task, model: Any, batch: Batch) -> dict[str, list[float]]:
    """The Frobenius norm of the gradient of the batch's mean loss with respect to H_t, for each step t.

    For an LSTM also with respect to C_t. Of the last layer, in evaluation mode. Where the norm falls from
    right to left gradients vanish, where it grows they explode (Bengio et al. 1994; Pascanu et al. 2013).
    """
    was_training = model.training
    model.eval()
    layers: list[list[tuple[Tensor, ...]]] = []
    with torch.enable_grad():
        output = task.loss(lambda tokens: model(tokens, layers), batch)
        states = layers[-1]
        flat = [part for state in states for part in state]
        gradients = torch.autograd.grad(output.loss_sum / task.count(batch), flat, allow_unused=True)
    model.train(was_training)
    norms = [0.0 if gradient is None else float(gradient.norm()) for gradient in gradients]
    parts = len(states[0])
    return {name: norms[i::parts] for i, name in enumerate(("h", "c")[:parts])}


def hidden_states(model: Any, tokens: Tensor) -> npt.NDArray[np.float32]:
    """H_t of the last layer for one sequence of tokens (T,): (T, H)."""
    was_training = model.training
    model.eval()
    layers: list[list[tuple[Tensor, ...]]] = []
    with torch.inference_mode():
        model(tokens[None], layers)
    model.train(was_training)
    hidden: npt.NDArray[np.float32] = torch.cat([state[0] for state in layers[-1]]).float().cpu().numpy()
    return hidden
