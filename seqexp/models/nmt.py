"""Recurrent translation: an encoder reads the source, a decoder with attention generates the target.

Notable:
- Luong's decoder (2015): attend with the new state, h̃_t = tanh(W_c [c_t; h_t]), logits from h̃_t; with input
  feeding it reads h̃_{t-1} together with the token. Bahdanau's (2015): attend with h_{t-1}, read c_t
- `impl=reference` runs the equations of the model, with the cells of `cells.py`. `impl=fused` is faster: it
  processes all steps at once, unless a step reads the attention of the step before
- padding is never read: the backward direction starts at each sentence's own end, and attention is masked
- the hypotheses of one sentence share its memory during the search
- with bf16, matrix products are in bf16, and the recurrent states are kept in fp32

Axes: B sentences, R rows (B, or B * hypotheses), S source, T target, H hidden, M memory, V words.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seqexp.models.attention import make_attention
from seqexp.models.cells import State
from seqexp.models.fused import in_full, product_dtype, use_fused
from seqexp.models.layers import dropout
from seqexp.models.recurrent_layer import RecurrentLayer
from seqexp.models.step_linear import StepLinear


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the real elements of each row of x (B, S, ...), and leave the padding after them in place."""
    positions = torch.arange(x.shape[1], device=x.device)
    index = lengths[:, None] - 1 - positions
    index = torch.where(index >= 0, index, positions)
    return x.gather(1, index.view(*index.shape, *[1] * (x.ndim - 2)).expand_as(x))


@dataclass(frozen=True)
class Memory:
    """B encoded sources: the encoder's states (B, S, M), with their keys, mask and lengths for attention."""

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
    tokens read last (R, T, S), or None without attention.
    """

    memory: Memory
    layers: list[State]
    fed: Tensor
    attention: Tensor | None = None


class NMT(nn.Module):
    """Sources (B, S) and the targets so far (B, T) to logits of the next token (B, T, V)."""

    # Lists of modules: the directions of each encoder layer, the projections of each layer, decoder layers.
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
        impl: str = "fused",
    ) -> None:
        super().__init__()
        self.dropout, self.reverse_source, self.input_feeding = dropout, reverse_source, input_feeding
        self.impl = impl
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
        # From the last states of each encoder layer, in both directions, to the first state of the decoder.
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
            # As large as the states, to learn faster (docs/nmt.md); tied to the output layer, small.
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
        """Return the state before the first token, given sources (B, S) with `lengths` real tokens (B,)."""
        x = self._drop(self.source_embedding(source))
        if self.reverse_source:
            x = reverse(x, lengths)
        first: list[State] = []
        for number, layer in enumerate(self.encoder):
            x = self._drop(x) if number else x
            x, last = self._encode_layer(layer, x, lengths)
            bridge = self.bridge[number]
            parts = [in_full(project(part)) for project, part in zip(bridge, last, strict=True)]
            first.append((parts[0].tanh(), *parts[1:]))
        if self.reverse_source:
            x = reverse(x, lengths)
        mask = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        # Convert once, not at each step of the decoder.
        x = x.to(product_dtype(x))
        keys = self.attention.keys(x) if self.attention is not None else x
        return NMTState(Memory(x, keys, mask, lengths), first, torch.zeros_like(first[0][0]))

    def _encode_layer(self, directions: Any, x: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Return all states (B, S, M) and the state after the last real token, directions concatenated."""
        outputs, ends = [], []
        for number, layer in enumerate(directions):
            inputs = reverse(x, lengths) if number else x
            read = layer.read if use_fused(self.impl) else layer.read_by_cells
            hidden, end = read(inputs, lengths)
            outputs.append(reverse(hidden, lengths) if number else hidden)
            ends.append(end)
        return torch.cat(outputs, dim=2), tuple(torch.cat(parts, dim=1) for parts in zip(*ends, strict=True))

    # Decoder

    def forward(
        self, source: Tensor, source_lengths: Tensor, inputs: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, T, V); with `positions` (N,) into B * T, only those, (N, V)."""
        outputs, _ = self._decode(inputs, self.encode(source, source_lengths))
        if positions is not None:
            outputs = outputs.flatten(0, 1)[positions]
        logits: Tensor = self.head(self._drop(outputs))
        return logits

    def _decode(self, tokens: Tensor, state: NMTState) -> tuple[Tensor, NMTState]:
        """Return h̃_t (R, T, H) for tokens (R, T), and the state after them."""
        embedded = self._drop(self.target_embedding(tokens))
        if not use_fused(self.impl):
            return self._decode_by_cells(embedded, state)
        if self.input_feeding or (self.attention is not None and self.attention.from_previous):
            return self._decode_by_steps(embedded, state)
        x, layers = embedded, []
        for number, layer in enumerate(self.decoder):
            x = self._drop(x) if number else x
            x, last = layer(x, state.layers[number])
            layers.append(tuple(in_full(part) for part in last))
        combined, weights = self._attend(x, state.memory)
        return combined, replace(state, layers=layers, attention=weights)

    def _decode_by_cells(self, embedded: Tensor, state: NMTState) -> tuple[Tensor, NMTState]:
        """Run the equations of the decoder step by step (impl=reference)."""
        attention, memory, layers, fed = self.attention, state.memory, list(state.layers), state.fed
        outputs, seen = [], []
        for x in embedded.unbind(dim=1):
            if self.input_feeding:
                x = torch.cat((x, fed), dim=1)
            if attention is not None and attention.from_previous:  # c_t of h_{t-1} (Bahdanau)
                context, weights = self._context(layers[-1][0][:, None], memory)
                x = torch.cat((x, context[:, 0]), dim=1)
            for number, layer in enumerate(self.decoder):
                layers[number] = layer.cell_step(self._drop(x) if number else x, layers[number])
                x = layers[number][0]
            fed = x
            if attention is not None:
                if not attention.from_previous:  # c_t of h_t (Luong)
                    context, weights = self._context(x[:, None], memory)
                fed = self.combine(torch.cat((context[:, 0], x), dim=1)).tanh()
                seen.append(weights)
            outputs.append(fed)
        maps = torch.cat(seen, dim=1) if seen else None
        return torch.stack(outputs, dim=1), NMTState(memory, layers, fed, maps)

    def _decode_by_steps(self, embedded: Tensor, state: NMTState) -> tuple[Tensor, NMTState]:
        """Compute the same faster: one product for all tokens before the loop, one gradient per weight."""
        first: RecurrentLayer = self.decoder[0]
        gates = first.gates(embedded).unbind(dim=1)
        attention, memory, layers, fed = self.attention, state.memory, state.layers, state.fed
        dtype = product_dtype(embedded)
        # The last columns of W_ih read the inputs beside the token: h̃_{t-1} and c_t.
        read_fed = StepLinear(first.weights[0][:, -self.n_fed :], dtype)
        products = [StepLinear(layer.weights[1], dtype) for layer in self.decoder]
        combine = StepLinear(self.combine.weight, dtype) if attention is not None else None
        outputs, seen = [], []
        for x_gates in gates:
            entering = [fed.to(dtype)] if self.input_feeding else []
            if attention is not None and attention.from_previous:
                context, weights = self._context(layers[-1][0].unsqueeze(1), memory)
                entering.append(context.squeeze(1))
            x_gates = x_gates + read_fed(torch.cat(entering, dim=1))
            layers = self._step_layers(x_gates, layers, products)
            h = layers[-1][0]
            if attention is None or combine is None:
                fed = h
            else:
                if not attention.from_previous:
                    context, weights = self._context(h.unsqueeze(1), memory)
                fed = combine(torch.cat((context.squeeze(1), h.to(context.dtype)), dim=1)).tanh()
                seen.append(weights)
            outputs.append(fed)
        maps = torch.cat(seen, dim=1) if seen else None
        return torch.stack(outputs, dim=1), NMTState(memory, layers, fed, maps)

    def _step_layers(self, gates: Tensor, layers: list[State], products: list[StepLinear]) -> list[State]:
        """Return the states of all layers after one step, given the input products of the first layer."""
        after: list[State] = []
        for number, layer in enumerate(self.decoder):
            if number:
                gates = layer.gates(self._drop(after[-1][0]))
            after.append(layer.step(gates, layers[number], products[number]))
        return after

    def _context(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return contexts (R, T, M) and weights (R, T, S) of queries (R, T, H), grouped by source."""
        assert self.attention is not None
        R, T, H = query.shape
        grouped = query.reshape(memory.lengths.shape[0], -1, H)
        context, weights = self.attention(grouped, memory.keys, memory.states, memory.mask, memory.lengths)
        return context.reshape(R, T, -1), weights.reshape(R, T, -1)

    def _attend(self, hidden: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        if self.attention is None:
            return hidden, None
        context, weights = self._context(hidden, memory)
        return self.combine(torch.cat((context, hidden.to(context.dtype)), dim=2)).tanh(), weights

    # The interface of decoding: start, step, select.

    def start(self, context: tuple[Tensor, Tensor]) -> NMTState:
        """Return the state before the first token; the context is (sources (B, S), their lengths (B,))."""
        return self.encode(*context)

    def step(self, tokens: Tensor, state: NMTState) -> tuple[Tensor, NMTState]:
        """Read tokens (R, T >= 1) after those in `state`; return logits (R, T, V) and the new state."""
        outputs, state = self._decode(tokens, state)
        return self.head(outputs), state

    def select(self, state: NMTState, rows: Tensor, sources: list[int] | None = None) -> NMTState:
        """Return the state of these rows, in this order; rows may repeat.

        With `sources`, the rows come in equal groups, one for each of these sources.
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
        """Return the number of trainable parameters by part; a tied head counts as embedding."""
        counts = dict.fromkeys(("embedding", "encoder", "decoder", "attention", "head"), 0)
        for name, parameter in self.named_parameters():
            first = name.partition(".")[0]
            part = {"bridge": "decoder", "combine": "attention"}.get(first, first)
            part = "embedding" if part.endswith("embedding") else part
            counts[part] += parameter.numel() * parameter.requires_grad
        return counts
