"""Recurrent translation: an encoder reads the source, a decoder with attention writes the target.

Notable:
- Luong's decoder (2015): attend with the new state, h̃_t = tanh(W_c [c_t; h_t]), logits from h̃_t; with input
  feeding h̃_{t-1} is read together with the token. Bahdanau's (2015): attend with the state before, read c_t
- where nothing of a step's attention enters the next step, the decoder runs over all steps at once
- padding is never read: the backward direction starts at each sentence's own end, and attention is masked
- the hypotheses of one sentence share its memory while they are searched
- with bf16, matrix products are in bf16, and the recurrent states are kept in fp32

Axes: B sentences, R rows (B, or B * hypotheses), S source, T target, H hidden, M memory, V words.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqexp.models.attention import make_attention
from seqexp.models.fused import GRURecurrence, VanillaRecurrence
from seqexp.models.gpt import dropout
from seqexp.models.step_linear import StepLinear

State = tuple[Tensor, ...]  # (R, H), or two of these for an LSTM
TORCH_LAYERS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class RecurrentLayer(nn.Module):
    """One layer of vanilla, GRU or LSTM cells in one direction; the weights are those of torch's layer."""

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

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (R, T, D) to all states h_t (R, T, H), and the last state."""
        W_ih, W_hh, b_ih, b_hh = self.weights
        if x.is_cuda or self.cell == "lstm":
            stacked = tuple(part[None].contiguous() for part in state)
            hidden, last = self.layer(x, stacked if len(state) > 1 else stacked[0])
            return hidden, tuple(part[0] for part in (last if isinstance(last, tuple) else (last,)))
        if self.cell == "gru":
            hidden = GRURecurrence.apply(x, state[0], W_ih, W_hh, b_ih, b_hh, _product_dtype(x))
        else:
            with torch.autocast(x.device.type, enabled=False):
                hidden = VanillaRecurrence.apply(x, state[0], W_ih, W_hh, b_ih + b_hh, "tanh")
        return hidden, (hidden[:, -1],)

    def gates(self, x: Tensor) -> Tensor:
        """What the inputs add to the gates, for `step`: x (..., D') with the first D' columns of W_ih."""
        W_ih, _, b_ih, _ = self.weights
        return _in_full(F.linear(x, W_ih[:, : x.shape[-1]], b_ih))

    def step(self, gates: Tensor, state: State, product: StepLinear) -> State:
        """One step, from `gates` (R, G) of its inputs; `product` is that with W_hh."""
        h = state[0]
        recurrent = self.weights[3] + product(h)
        if self.cell == "gru":
            sizes = (2 * self.hidden_size, self.hidden_size)
            (x_rz, x_n), (h_rz, h_n) = gates.split(sizes, dim=1), recurrent.split(sizes, dim=1)
            r, z = (x_rz + h_rz).sigmoid().chunk(2, dim=1)
            return (torch.lerp(torch.addcmul(x_n, r, h_n).tanh(), h, z),)
        gates = gates + recurrent
        if self.cell == "rnn":
            return (gates.tanh(),)
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


def _product_dtype(x: Tensor) -> torch.dtype:
    """The precision of matrix products here: that of autocast, where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _in_full(x: Tensor) -> Tensor:
    """x in fp32, or what it is in if that is more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Each row of x (B, S, ...) from its last real element to its first; what follows stays padding."""
    places = torch.arange(x.shape[1], device=x.device)
    index = lengths[:, None] - 1 - places
    index = torch.where(index >= 0, index, places)
    return x.gather(1, index.view(*index.shape, *[1] * (x.ndim - 2)).expand_as(x))


@dataclass(frozen=True)
class Memory:
    """What the encoder knows of B sources: its states (B, S, M), and what the attention needs of them."""

    states: Tensor
    keys: Tensor
    mask: Tensor
    lengths: Tensor

    def choose(self, sources: Tensor) -> "Memory":
        return Memory(self.states[sources], self.keys[sources], self.mask[sources], self.lengths[sources])


@dataclass(frozen=True)
class NMTState:
    """Decoding R rows of B sources, equally many of each, in order.

    `layers` holds each layer's state, `fed` h̃ of the step before (R, H), and `attention` the weights of the
    tokens read last (R, T, S), or None where there is no attention.
    """

    memory: Memory
    layers: list[State]
    fed: Tensor
    attention: Tensor | None = None


class NMT(nn.Module):
    """Sources (B, S) and what has been written (B, T) to logits of the next token (B, T, V)."""

    # Lists of modules: for each layer of the encoder its directions, for each layer its projections.
    encoder: Any
    bridge: Any
    decoder: Any

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        joint_vocabulary: bool = False,
        cell: str = "gru",
        n_embd: int = 256,
        hidden_size: int = 256,
        n_layer: int = 1,
        bidirectional: bool = True,
        reverse_source: bool = False,
        attention: str = "general",
        attention_size: int = 256,
        window: int = 4,
        input_feeding: bool = True,
        dropout: float = 0.0,
        tie_embeddings: bool = False,
    ) -> None:
        super().__init__()
        self.dropout, self.reverse_source, self.input_feeding = dropout, reverse_source, input_feeding
        directions = 2 if bidirectional else 1
        memory_size = directions * hidden_size
        self.source_embedding = nn.Embedding(source_vocab_size, n_embd)
        self.target_embedding = nn.Embedding(target_vocab_size, n_embd)
        self.encoder = nn.ModuleList(
            nn.ModuleList(
                RecurrentLayer(cell, memory_size if layer else n_embd, hidden_size) for _ in range(directions)
            )
            for layer in range(n_layer)
        )
        # From each layer's last states, of both directions, to the decoder's first.
        n_parts = 2 if cell == "lstm" else 1
        self.bridge = nn.ModuleList(
            nn.ModuleList(nn.Linear(memory_size, hidden_size) for _ in range(n_parts)) for _ in range(n_layer)
        )
        self.attention = make_attention(attention, hidden_size, memory_size, attention_size, window)
        reads_context = self.attention is not None and self.attention.from_previous
        self.n_fed = hidden_size * input_feeding + memory_size * reads_context
        self.decoder = nn.ModuleList(
            RecurrentLayer(cell, hidden_size if layer else n_embd + self.n_fed, hidden_size)
            for layer in range(n_layer)
        )
        if self.attention is not None:
            self.combine = nn.Linear(memory_size + hidden_size, hidden_size, bias=False)
        self.head = nn.Linear(hidden_size, target_vocab_size, bias=not tie_embeddings)
        for embedding in (self.source_embedding, self.target_embedding):
            # As large as the states: it learns sooner (docs/nmt.md). An output layer must begin small.
            nn.init.normal_(embedding.weight, std=n_embd**-0.5 if tie_embeddings else 1.0)
        if tie_embeddings:
            self.head.weight = self.target_embedding.weight
            if joint_vocabulary:
                self.source_embedding.weight = self.target_embedding.weight

    @property
    def shows_attention(self) -> bool:
        """Whether the states of decoding carry attention weights."""
        return self.attention is not None

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)

    # Encoder

    def encode(self, source: Tensor, lengths: Tensor) -> NMTState:
        """The state before the first token, of sources (B, S) with `lengths` real tokens (B,)."""
        x = self._drop(self.source_embedding(source))
        if self.reverse_source:
            x = reverse(x, lengths)
        first: list[State] = []
        for number, layer in enumerate(self.encoder):
            x = self._drop(x) if number else x
            x, last = self._encode_layer(layer, x, lengths)
            bridge = self.bridge[number]
            parts = [_in_full(project(part)) for project, part in zip(bridge, last, strict=True)]
            first.append((parts[0].tanh(), *parts[1:]))
        if self.reverse_source:
            x = reverse(x, lengths)
        mask = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        # Converted once, not whenever it is looked at.
        x = x.to(_product_dtype(x))
        keys = self.attention.keys(x) if self.attention is not None else x
        return NMTState(Memory(x, keys, mask, lengths), first, torch.zeros_like(first[0][0]))

    def _encode_layer(self, directions: Any, x: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """All states (B, S, M) and, of both directions side by side, the state after the last real token."""
        outputs, ends = [], []
        for number, layer in enumerate(directions):
            inputs = reverse(x, lengths) if number else x
            hidden, end = self._run_to_ends(layer, inputs, lengths)
            outputs.append(reverse(hidden, lengths) if number else hidden)
            ends.append(end)
        return torch.cat(outputs, dim=2), tuple(torch.cat(parts, dim=1) for parts in zip(*ends, strict=True))

    def _run_to_ends(self, layer: RecurrentLayer, x: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        last = (lengths - 1)[:, None, None].expand(-1, 1, layer.hidden_size)
        if layer.cell != "lstm":
            hidden, _ = layer(x, layer.zero_state(len(x)))
            return hidden, (hidden.gather(1, last)[:, 0],)
        # Torch gives the cell's memory C after the last step alone: packing ends each row where it ends.
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, (h, c) = layer.layer(packed)
        hidden, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        return hidden, (h[0], c[0])

    # Decoder

    def forward(
        self, source: Tensor, source_lengths: Tensor, inputs: Tensor, places: Tensor | None = None
    ) -> Tensor:
        """Logits (B, T, V) after each of `inputs`; with `places` (N,) only those of B * T, as (N, V)."""
        written, _ = self._decode(inputs, self.encode(source, source_lengths))
        if places is not None:
            written = written.flatten(0, 1)[places]
        logits: Tensor = self.head(self._drop(written))
        return logits

    def _decode(self, tokens: Tensor, state: NMTState) -> tuple[Tensor, NMTState]:
        """h̃_t (R, T, H) after each of the tokens (R, T), and the state after them."""
        embedded = self._drop(self.target_embedding(tokens))
        if self.input_feeding or (self.attention is not None and self.attention.from_previous):
            return self._decode_by_steps(embedded, state)
        x, layers = embedded, []
        for number, layer in enumerate(self.decoder):
            x = self._drop(x) if number else x
            x, last = layer(x, state.layers[number])
            layers.append(tuple(_in_full(part) for part in last))
        combined, weights = self._attend(x, state.memory)
        return combined, replace(state, layers=layers, attention=weights)

    def _decode_by_steps(self, embedded: Tensor, state: NMTState) -> tuple[Tensor, NMTState]:
        first: RecurrentLayer = self.decoder[0]
        gates = first.gates(embedded).unbind(dim=1)
        attention, memory, layers, fed = self.attention, state.memory, state.layers, state.fed
        dtype = _product_dtype(embedded)
        # What enters beside the token belongs to the last columns of W_ih.
        read_fed = StepLinear(first.weights[0][:, -self.n_fed :], dtype)
        products = [StepLinear(layer.weights[1], dtype) for layer in self.decoder]
        combine = StepLinear(self.combine.weight, dtype) if attention is not None else None
        written, seen = [], []
        for x_gates in gates:
            entering = [fed.to(dtype)] if self.input_feeding else []
            if attention is not None and attention.from_previous:
                context, weights = self._look(layers[-1][0].unsqueeze(1), memory)
                entering.append(context.squeeze(1))
            x_gates = x_gates + read_fed(torch.cat(entering, dim=1))
            layers = self._step_layers(x_gates, layers, products)
            h = layers[-1][0]
            if attention is None or combine is None:
                fed = h
            else:
                if not attention.from_previous:
                    context, weights = self._look(h.unsqueeze(1), memory)
                fed = combine(torch.cat((context.squeeze(1), h.to(context.dtype)), dim=1)).tanh()
                seen.append(weights)
            written.append(fed)
        maps = torch.cat(seen, dim=1) if seen else None
        return torch.stack(written, dim=1), NMTState(memory, layers, fed, maps)

    def _step_layers(self, gates: Tensor, layers: list[State], products: list[StepLinear]) -> list[State]:
        """One step of every layer, from the gates of the first; the states after it."""
        after: list[State] = []
        for number, layer in enumerate(self.decoder):
            if number:
                gates = layer.gates(self._drop(after[-1][0]))
            after.append(layer.step(gates, layers[number], products[number]))
        return after

    def _look(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Contexts (R, T, M) and weights (R, T, S) of queries (R, T, H); rows of one source go together."""
        assert self.attention is not None
        R, T, H = query.shape
        grouped = query.reshape(len(memory.lengths), -1, H)
        context, weights = self.attention(grouped, memory.keys, memory.states, memory.mask, memory.lengths)
        return context.reshape(R, T, -1), weights.reshape(R, T, -1)

    def _attend(self, hidden: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        if self.attention is None:
            return hidden, None
        context, weights = self._look(hidden, memory)
        return self.combine(torch.cat((context, hidden.to(context.dtype)), dim=2)).tanh(), weights

    # The interface of decoding: start, step, select.

    def start(self, context: tuple[Tensor, Tensor]) -> NMTState:
        """The state before the first token, of a context (sources (B, S), their lengths (B,))."""
        return self.encode(*context)

    def step(self, tokens: Tensor, state: NMTState) -> tuple[Tensor, NMTState]:
        """Read tokens (R, T >= 1); logits (R, T, V) after each of them."""
        written, state = self._decode(tokens, state)
        return self.head(written), state

    def select(self, state: NMTState, rows: Tensor, sources: list[int] | None = None) -> NMTState:
        """The state of these rows, in this order; rows may repeat.

        With `sources`, the rows come in equal groups, which read these of the sources.
        """
        memory = state.memory
        n_sources = len(memory.lengths)
        if sources is None:
            memory = memory.choose(rows // (len(state.fed) // n_sources))
        elif sources != list(range(n_sources)):
            memory = memory.choose(torch.tensor(sources, device=rows.device))
        layers = [tuple(part[rows] for part in layer) for layer in state.layers]
        attention = None if state.attention is None else state.attention[rows]
        return NMTState(memory, layers, state.fed[rows], attention)

    def parameter_counts(self) -> dict[str, int]:
        """Trainable parameters by part; a tied head counts as part of the embedding."""
        counts = dict.fromkeys(("embedding", "encoder", "decoder", "attention", "head"), 0)
        for name, parameter in self.named_parameters():
            first = name.partition(".")[0]
            part = {"bridge": "decoder", "combine": "attention"}.get(first, first)
            counts["embedding" if part.endswith("embedding") else part] += parameter.numel()
        return counts
