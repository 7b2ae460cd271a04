"""The equations of the recurrent cells, one step at a time.

Row vectors, batch first: inputs X_t (B, D), states H_t and C_t (B, H). A cell maps X_t and the state before
it to the state after it. `fused.py` computes the same functions faster.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

State = tuple[Tensor, ...]  # (H,), or (H, C) for the LSTM

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
}


class Weights(NamedTuple):
    """The weights of one layer; the gates are side by side in the last axis, G = gates * H."""

    W_xh: Tensor  # (D, G)
    W_hh: Tensor  # (H, G)
    b_x: Tensor  # (G,)
    b_h: Tensor  # (G,)


Cell = Callable[[Tensor, State, Weights], State]


def vanilla_cell(activation: str) -> Cell:
    """H_t = tanh(X_t W_xh + H_{t-1} W_hh + b_h) (Elman 1990), or with another activation."""
    phi = ACTIVATIONS[activation]

    def cell(X: Tensor, state: State, w: Weights) -> State:
        (H,) = state
        return (phi(X @ w.W_xh + H @ w.W_hh + w.b_h),)

    return cell


def lstm_cell(X: Tensor, state: State, w: Weights) -> State:
    """Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    Gates in the order input, forget, candidate, output, as in torch.
    """
    H, C = state
    i, f, g, o = (X @ w.W_xh + H @ w.W_hh + w.b_h).chunk(4, dim=-1)
    C = f.sigmoid() * C + i.sigmoid() * g.tanh()
    return o.sigmoid() * C.tanh(), C


def gru_cell(X: Tensor, state: State, w: Weights) -> State:
    """Gated recurrent unit (Cho et al. 2014), with the reset gate after the product, as in torch.

    Gates in the order reset, update, candidate.
    """
    (H,) = state
    x_r, x_z, x_n = (X @ w.W_xh + w.b_x).chunk(3, dim=-1)
    h_r, h_z, h_n = (H @ w.W_hh + w.b_h).chunk(3, dim=-1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    return ((1 - z) * n + z * H,)


CELLS: dict[str, Cell] = {"rnn": vanilla_cell("tanh"), "gru": gru_cell, "lstm": lstm_cell}


def run_cell(cell: Cell, X: Tensor, state: State, w: Weights) -> tuple[list[State], State]:
    """Apply the cell to X (B, T, D) from `state` on; return the state after each step, and the last."""
    states = []
    for X_t in X.unbind(dim=1):
        state = cell(X_t, state, w)
        states.append(state)
    return states, state
