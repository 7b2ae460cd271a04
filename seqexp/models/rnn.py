"""Recurrent networks: vanilla, LSTM and GRU, for language models and for labels at every step.

Notable:
- `impl=reference` runs the equations of `cells.py`; `impl=fused` runs torch's own kernels, or `fused.py` if
  those are slow. Both have the same weights and read the same checkpoints
- the vanilla cell and the LSTM have one bias, as in their equations; torch's second one is frozen at zero
- tokens are embedded; without an embedding bits are the numbers 0 and 1, and other tokens one-hot vectors
- `start`, `step` and `select` are the interface of all models that generate

Axes: B batch, T time, V vocabulary, H hidden.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqexp.models.cells import Cell, State, Weights, gru_cell, lstm_cell, run_cell, vanilla_cell
from seqexp.models.fused import GRURecurrence, VanillaRecurrence, use_fused


class RecurrentNetwork(nn.Module, ABC):
    """Token numbers (B, T) to outputs (B, T, n_outputs): logits of the next token, or of a label.

    A subclass defines the number of gates, the cell, and the fast form.
    """

    gates: ClassVar[int]
    one_bias: ClassVar[bool] = True
    # States are carried over hundreds of steps: with precision=auto they are kept in full precision.
    auto_precision = "fp32"

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        n_layer: int = 1,
        n_embd: int = 0,
        dropout: float = 0.0,
        impl: str = "fused",
        init: str = "uniform",
        n_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size, self.hidden_size, self.n_layer = vocab_size, hidden_size, n_layer
        self.dropout, self.impl = dropout, impl
        if n_embd:
            self.embedding = nn.Embedding(vocab_size, n_embd)
        n_in = n_embd or (1 if vocab_size == 2 else vocab_size)
        self.layers = self._make_layers(n_in)
        self.head = nn.Linear(hidden_size, n_outputs or vocab_size)
        self._initialise(init)
        self.register_load_state_dict_pre_hook(_merge_biases)

    @abstractmethod
    def _make_layers(self, n_in: int) -> nn.RNNBase:
        """Make torch's module, which holds the weights under torch's names."""

    @abstractmethod
    def _cell(self) -> Cell:
        """Return the cell of `impl=reference`."""

    @abstractmethod
    def _run_fast(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Run all layers, fused, on x (B, T, D); return H_t of the last one (B, T, H), and the last state."""

    def weights(self, layer: int) -> Weights:
        """Return the weights of a layer under the names of its equations."""
        parameters = [getattr(self.layers, f"{name}_l{layer}") for name in
                      ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]  # fmt: skip
        W_ih, W_hh, b_ih, b_hh = parameters
        # If the equations have one bias, torch's second one is not used.
        return Weights(W_ih.t(), W_hh.t(), b_ih, b_ih if self.one_bias else b_hh)

    def _initialise(self, init: str) -> None:
        """`uniform` in ±1/sqrt(H) for all; or `orthogonal` (Saxe et al. 2014) or `identity` (Le et al. 2015).

        The latter two apply to each gate's W_hh; then W_xh is Glorot's and biases are zero.
        """
        bound = 1 / math.sqrt(self.hidden_size)
        for name, parameter in self.layers.named_parameters():
            if self.one_bias and name.startswith("bias_hh"):
                nn.init.zeros_(parameter).requires_grad_(False)
            elif init == "uniform":
                nn.init.uniform_(parameter, -bound, bound)
            elif name.startswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            else:
                for gate in parameter.detach().chunk(self.gates):
                    (nn.init.orthogonal_ if init == "orthogonal" else nn.init.eye_)(gate)

    # Forward

    def forward(self, tokens: Tensor, states: list[list[State]] | None = None) -> Tensor:
        """Return outputs (B, T, n_outputs) from the zero state.

        With `states`, run the equations, and append for each layer the list of its states after every step.
        """
        hidden, _ = self._run(tokens, self._zero_state(tokens), states)
        outputs: Tensor = self.head(hidden)
        return outputs

    def continue_from(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return outputs (B, T, n_outputs) and the state after them; `state` None is the zero state."""
        hidden, state = self._run(tokens, state or self._zero_state(tokens))
        return self.head(hidden), state

    def _zero_state(self, tokens: Tensor) -> State:
        """Return zeros (n_layer, B, H) for H, and for the LSTM's C."""
        zeros = self.head.weight.new_zeros(self.n_layer, tokens.shape[0], self.hidden_size)
        return (zeros,)

    def _inputs(self, tokens: Tensor) -> Tensor:
        """Return the inputs of the first layer, (B, T, D)."""
        if hasattr(self, "embedding"):
            embedded: Tensor = self.embedding(tokens)
            return embedded
        dtype = self.head.weight.dtype
        if self.vocab_size == 2:
            return tokens.unsqueeze(2).to(dtype)
        return F.one_hot(tokens, self.vocab_size).to(dtype)

    def _run(
        self, tokens: Tensor, state: State, states: list[list[State]] | None = None
    ) -> tuple[Tensor, State]:
        x = self._inputs(tokens)
        if use_fused(self.impl) and states is None:
            return self._run_fast(x, state)
        last = []
        for layer in range(self.n_layer):
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            first = tuple(part[layer] for part in state)
            seen, end = run_cell(self._cell(), x, first, self.weights(layer))
            x = torch.stack([now[0] for now in seen], dim=1)
            last.append(end)
            if states is not None:
                states.append(seen)
        return x, tuple(torch.stack(parts) for parts in zip(*last, strict=True))

    def _run_torch(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Run torch's own kernels."""
        hidden, last = self.layers(x, state if len(state) > 1 else state[0])
        return hidden, last if isinstance(last, tuple) else (last,)

    # The interface of decoding: start, step, select.

    def start(self, context: None = None) -> State | None:
        """Return the zero state; a language model has no context."""
        return None

    def step(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Read tokens (B, T >= 1) after those in `state`; return outputs (B, T, V) and the new state."""
        return self.continue_from(tokens, state)

    def select(self, state: State | None, rows: Tensor, sources: object = None) -> State | None:
        """Return the state of these rows, in this order; rows may repeat. `sources` is ignored."""
        return None if state is None else tuple(part[:, rows] for part in state)

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of trainable parameters by part."""
        counts = {"embedding": 0, "recurrent": 0, "head": 0}
        for name, parameter in self.named_parameters():
            part = name.partition(".")[0]
            counts["recurrent" if part == "layers" else part] += parameter.numel() * parameter.requires_grad
        return counts


class RNN(RecurrentNetwork):
    """The vanilla (Elman) network with tanh, relu or sigmoid."""

    gates = 1

    def __init__(
        self, vocab_size: int, hidden_size: int, activation: str = "tanh", **options: object
    ) -> None:
        self.activation = activation
        super().__init__(vocab_size, hidden_size, **options)  # type: ignore[arg-type]

    def _make_layers(self, n_in: int) -> nn.RNNBase:
        # Torch has no sigmoid: its module then only holds the weights.
        kind = "relu" if self.activation == "relu" else "tanh"
        return nn.RNN(n_in, self.hidden_size, self.n_layer, kind, batch_first=True, dropout=_between(self))

    def _cell(self) -> Cell:
        return vanilla_cell(self.activation)

    def _run_fast(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if x.is_cuda and self.activation != "sigmoid":
            return self._run_torch(x, state)
        last = []
        for layer, (W_xh, W_hh, b, _) in enumerate(map(self.weights, range(self.n_layer))):
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            with torch.autocast(x.device.type, enabled=False):
                x = VanillaRecurrence.apply(
                    x.to(b.dtype), state[0][layer], W_xh.t(), W_hh.t(), b, self.activation
                )
            last.append(x[:, -1])
        return x, (torch.stack(last),)


class GRU(RecurrentNetwork):
    """Gated recurrent units."""

    gates = 3
    one_bias = False  # the candidate's second bias is inside the reset gate's product

    def _make_layers(self, n_in: int) -> nn.RNNBase:
        return nn.GRU(n_in, self.hidden_size, self.n_layer, batch_first=True, dropout=_between(self))

    def _cell(self) -> Cell:
        return gru_cell

    def _run_fast(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if x.is_cuda:
            return self._run_torch(x, state)
        last = []
        for layer, (W_xh, W_hh, b_x, b_h) in enumerate(map(self.weights, range(self.n_layer))):
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            with torch.autocast(x.device.type, enabled=False):
                x = GRURecurrence.apply(x.to(b_x.dtype), state[0][layer], W_xh.t(), W_hh.t(), b_x, b_h)
            last.append(x[:, -1])
        return x, (torch.stack(last),)


class LSTM(RecurrentNetwork):
    """Long short-term memory; `forget_bias` initialises that gate's bias (Jozefowicz et al. 2015)."""

    gates = 4

    def __init__(
        self, vocab_size: int, hidden_size: int, forget_bias: float | None = None, **options: object
    ) -> None:
        self.forget_bias = forget_bias
        super().__init__(vocab_size, hidden_size, **options)  # type: ignore[arg-type]

    def _make_layers(self, n_in: int) -> nn.RNNBase:
        return nn.LSTM(n_in, self.hidden_size, self.n_layer, batch_first=True, dropout=_between(self))

    def _initialise(self, init: str) -> None:
        super()._initialise(init)
        if self.forget_bias is not None:
            for layer in range(self.n_layer):
                bias = getattr(self.layers, f"bias_ih_l{layer}").detach()
                bias[self.hidden_size : 2 * self.hidden_size] = self.forget_bias

    def _cell(self) -> Cell:
        return lstm_cell

    def _zero_state(self, tokens: Tensor) -> State:
        (zeros,) = super()._zero_state(tokens)
        return zeros, torch.zeros_like(zeros)  # two tensors: an export takes one tensor for one input

    def _run_fast(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self._run_torch(x, state)


def _merge_biases(network: RecurrentNetwork, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Load weights of torch's layers, which have two biases, as their sum."""
    for name in [name for name in state if network.one_bias and name.startswith(f"{prefix}layers.bias_hh")]:
        used = name.replace("bias_hh", "bias_ih")
        state[used] = state[used] + state[name]
        state[name] = torch.zeros_like(state[name])


def _between(network: RecurrentNetwork) -> float:
    """Return the dropout for torch's module, which warns about dropout with a single layer."""
    return network.dropout if network.n_layer > 1 else 0.0
