"""A recurrent layer in one direction, for `nmt.py`: reads whole sentences, or one step at a time."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqexp.models.cells import CELLS, State, Weights
from seqexp.models.fused import GRURecurrence, VanillaRecurrence, fused_step, in_full, product_dtype
from seqexp.models.step_linear import StepLinear

TORCH_LAYERS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class RecurrentLayer(nn.Module):
    """A layer of vanilla, GRU or LSTM cells (`rnn`, `gru`, `lstm`) with the weights of torch's layer.

    `cell_step` is its equation, and `read_by_cells` applies it to sentences. `forward`, `read` and `step` are
    the fast forms.
    """

    def __init__(self, cell: str, n_in: int, hidden_size: int) -> None:
        super().__init__()
        self.cell, self.hidden_size = cell, hidden_size
        self.layer: Any = TORCH_LAYERS[cell](n_in, hidden_size, batch_first=True)
        for name, parameter in self.layer.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            for gate in parameter.detach().chunk(parameter.shape[0] // hidden_size):
                if name.startswith("weight_hh"):
                    nn.init.orthogonal_(gate)
                elif name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(gate)
        if cell == "lstm":  # remember at first (Jozefowicz et al. 2015)
            self.layer.bias_ih_l0.detach()[hidden_size : 2 * hidden_size] = 1.0

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W_ih, W_hh, b_ih, b_hh under torch's conventions."""
        layer = self.layer
        return layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0

    def zero_state(self, rows: int) -> State:
        zeros = self.layer.weight_hh_l0.new_zeros(rows, self.hidden_size)
        return (zeros, zeros) if self.cell == "lstm" else (zeros,)

    def cell_step(self, x: Tensor, state: State) -> State:
        """Return the state after reading x (R, D), by the equations in `cells.py`."""
        W_ih, W_hh, b_ih, b_hh = self.weights
        if self.cell != "gru":  # one bias in the equations, the sum of torch's two
            b_ih = b_hh = b_ih + b_hh
        return CELLS[self.cell](x, state, Weights(W_ih.t(), W_hh.t(), b_ih, b_hh))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Read x (R, T, D); return all states h_t (R, T, H), and the last state."""
        W_ih, W_hh, b_ih, b_hh = self.weights
        if x.is_cuda or self.cell == "lstm":
            stacked = tuple(part[None].contiguous() for part in state)
            hidden, last = self.layer(x, stacked if len(state) > 1 else stacked[0])
            return hidden, tuple(part[0] for part in (last if isinstance(last, tuple) else (last,)))
        if self.cell == "gru":
            hidden = GRURecurrence.apply(x, state[0], W_ih, W_hh, b_ih, b_hh, product_dtype(x))
        else:
            with torch.autocast(x.device.type, enabled=False):
                hidden = VanillaRecurrence.apply(x, state[0], W_ih, W_hh, b_ih + b_hh, "tanh")
        return hidden, (hidden[:, -1],)

    def read(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Read sentences x (B, S, D) from the zero state; return all states (B, S, H), and the last ones."""
        if self.cell != "lstm":
            hidden, _ = self(x, self.zero_state(x.shape[0]))
            last = (lengths - 1)[:, None, None].expand(-1, 1, self.hidden_size)
            return hidden, (hidden.gather(1, last)[:, 0],)
        # Torch returns the memory cell C only after the last step: packing makes that each row's own end.
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, (h, c) = self.layer(packed)
        hidden, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        return hidden, (h[0], c[0])

    def read_by_cells(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Compute `read` by the equations; a sentence that has ended keeps its state."""
        state, hidden = self.zero_state(x.shape[0]), []
        for s, x_s in enumerate(x.unbind(dim=1)):
            after, real = self.cell_step(x_s, state), (s < lengths)[:, None]
            state = tuple(torch.where(real, new, old) for new, old in zip(after, state, strict=True))
            hidden.append(state[0])
        return torch.stack(hidden, dim=1), state

    def gates(self, x: Tensor) -> Tensor:
        """Return the input products for `step`: x (..., D') times the first D' columns of W_ih, plus b_ih."""
        W_ih, _, b_ih, _ = self.weights
        return in_full(F.linear(x, W_ih[:, : x.shape[-1]], b_ih))

    def step(self, gates: Tensor, state: State, product: StepLinear) -> State:
        """Return the next state, given the input products `gates` (R, G) and the `product` with W_hh."""
        return fused_step(self.cell, gates, self.weights[3] + product(state[0]), state)
