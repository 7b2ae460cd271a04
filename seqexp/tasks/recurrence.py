"""Diagnostics of recurrent networks: gradient norms through time, and hidden states."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seqexp.data.batch import IGNORE, Batch
from seqexp.tasks.base import Task, device_of
from seqexp.tracking.plots import hidden_states_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def is_recurrent(model: Any) -> bool:
    """Whether the model has a recurrent state that can be carried and shown."""
    return hasattr(model, "continue_from")


def gradient_flow(task: Task, model: Any, batch: Batch) -> dict[str, list[float]]:
    """Return the Frobenius norm of dL/dH_t at each step t under ``h``, and of dL/dC_t of an LSTM under ``c``.

    L is the mean loss of the batch; states are those of the last layer, in evaluation mode. If every step has
    a loss of its own, these losses hide the gradients from later steps, so ``h_last`` and ``c_last`` give the
    norms for the loss of the last step only. Norms that fall towards earlier steps show vanishing gradients,
    norms that grow exploding ones (Bengio et al. 1994; Pascanu et al. 2013).
    """
    was_training = model.training
    model.eval()
    found = _norms(task, model, batch)
    if task.count(batch) > len(batch):
        found |= {f"{name}_last": norms for name, norms in _norms(task, model, last_targets(batch)).items()}
    model.train(was_training)
    return found


def last_targets(batch: Batch) -> Batch:
    """Return the batch with only the last real target of each row."""
    last = (batch.targets != IGNORE).sum(1, keepdim=True) - 1
    steps = torch.arange(batch.targets.shape[1], device=batch.targets.device)
    targets = batch.targets.masked_fill(steps != last, IGNORE)
    return replace(batch, tensors={**batch.tensors, "targets": targets}, counts=np.ones(len(batch), np.int64))


def _norms(task: Task, model: Any, batch: Batch) -> dict[str, list[float]]:
    layers: list[list[tuple[Tensor, ...]]] = []
    with torch.enable_grad():
        output = task.loss(lambda tokens: model(tokens, layers), batch, training=True)
        states = layers[-1]
        flat = [part for state in states for part in state]
        gradients = torch.autograd.grad(output.loss_sum / task.count(batch), flat, allow_unused=True)
    # In fp64: the square of a vanished gradient underflows in fp32.
    zero = torch.zeros((), dtype=torch.float64, device=device_of(model))
    norms = [zero if gradient is None else gradient.double().norm() for gradient in gradients]
    listed: list[float] = torch.stack(norms).tolist()
    parts = len(states[0])
    return {name: listed[i::parts] for i, name in enumerate(("h", "c")[:parts])}


def hidden_states(model: Any, tokens: Tensor) -> npt.NDArray[np.float32]:
    """Return H_t of the last layer, (T, H), for one sequence of tokens (T,)."""
    was_training = model.training
    model.eval()
    layers: list[list[tuple[Tensor, ...]]] = []
    with torch.inference_mode():
        model(tokens[None], layers)
    model.train(was_training)
    hidden: npt.NDArray[np.float32] = torch.cat([state[0] for state in layers[-1]]).float().cpu().numpy()
    return hidden


def hidden_states_figures(
    model: Any, tokens: Tensor, rows: Mapping[str, Sequence[int]], title: str
) -> "dict[str, Figure]":
    """Return the figure ``hidden_states`` of a recurrent model on tokens (T,), with `rows` below it.

    Other models have no figure.
    """
    if not is_recurrent(model):
        return {}
    hidden = hidden_states(model, tokens.to(device_of(model)))
    return {"hidden_states": hidden_states_figure(hidden, rows, title)}
