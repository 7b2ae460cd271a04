"""Transformer for translation: encoder and decoder (Vaswani et al. 2017).

Notable:
- pre-norm (Xiong et al. 2020; the default) or post-norm blocks, as in the paper
- sinusoidal, learned or rotary (Su et al. 2021) positions; the length of a sentence is unlimited, but learned
  positions share the last of `max_len` beyond it
- one matrix may serve as the embeddings of both languages and as the output layer
- caches for the keys and values of the target so far, and of the source, which the hypotheses of one
  sentence share

Axes: B sentences, R rows (B, or B * hypotheses), S source, T target, D = n_embd, H heads, V words.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seqexp.models.blocks import Block, EncoderBlock, FeedForward, MultiHeadAttention, Pair
from seqexp.models.layers import causal_mask, dropout, rotary_angles, sinusoidal_positions


class DecoderBlock(Block):
    """Self-attention over the target so far, cross-attention to the source, feed-forward."""

    def __init__(self, n_embd: int, n_head: int, ffn_size: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(pre_norm)
        self.norm1 = nn.LayerNorm(n_embd)
        self.attention = MultiHeadAttention(n_embd, n_head, dropout)
        self.norm2 = nn.LayerNorm(n_embd)
        self.cross = MultiHeadAttention(n_embd, n_head, dropout)
        self.norm3 = nn.LayerNorm(n_embd)
        self.mlp = FeedForward(n_embd, ffn_size, dropout)

    def forward(
        self, x: Tensor, memory: Pair, source_mask: Tensor, causal: Tensor | None, rotary: Pair | None,
        past: Pair | None, want_weights: bool,
    ) -> tuple[Tensor, Pair, Tensor | None]:  # fmt: skip
        """Map x (R, T, D) to the same; also return the target's keys and values, and the cross-attention."""
        target: Pair
        weights: Tensor | None

        def self_attention(x: Tensor) -> Tensor:
            nonlocal target
            q, k, v = self.attention.queries_keys_values(x, rotary)
            if past is not None:
                k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
            target = (k, v)
            y: Tensor = self.attention(q, k, v, causal)[0]
            return y

        def cross_attention(x: Tensor) -> Tensor:
            nonlocal weights
            y, weights = self._cross(x, memory, source_mask, want_weights)
            return y

        x = self.residual(x, self.norm1, self_attention)
        x = self.residual(x, self.norm2, cross_attention)
        x = self.residual(x, self.norm3, self.mlp)
        return x, target, weights

    def _cross(
        self, x: Tensor, memory: Pair, mask: Tensor, want_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to the sources; rows of x (R, T, D) of the same source are grouped, (B, R / B * T, D)."""
        R, T, D = x.shape
        B = memory[0].shape[0]
        q = self.cross.queries(x.reshape(B, -1, D))
        y, weights = self.cross(q, *memory, mask, want_weights)
        if weights is not None:  # averaged over the heads
            weights = weights.mean(dim=1).reshape(R, T, -1)
        return y.reshape(R, T, D), weights


@dataclass(frozen=True)
class TransformerState:
    """Decoding R rows of B sources, equally many of each, in order.

    `memory` holds each layer's keys and values of the source, (B, H, S, d), and `past` those of the target
    so far, (R, H, t, d). `attention` holds the last layer's cross-attention of the tokens read last, averaged
    over its heads, (R, T, S).
    """

    memory: list[Pair]
    source_mask: Tensor
    past: list[Pair]
    rows: int
    attention: Tensor | None = None

    @property
    def length(self) -> int:
        return self.past[0][0].shape[2] if self.past else 0


class Transformer(nn.Module):
    """Sources (B, S) and the targets so far (B, T) to logits of the next token (B, T, V)."""

    shows_attention = True
    encoder: Any
    decoder: Any

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        joint_vocabulary: bool = False,
        n_layer: int = 3,
        n_head: int = 4,
        n_embd: int = 256,
        ffn_size: int = 1024,
        dropout: float = 0.1,
        norm: str = "pre",
        positions: str = "sinusoidal",
        tie_embeddings: bool = True,
        max_len: int = 256,
    ) -> None:
        super().__init__()
        self.positions, self.max_len, self.dropout = positions, max_len, dropout
        self.n_embd, self.head_size = n_embd, n_embd // n_head
        self.source_embedding = nn.Embedding(source_vocab_size, n_embd)
        self.target_embedding = nn.Embedding(target_vocab_size, n_embd)
        if positions == "learned":
            self.position_embedding = nn.Embedding(max_len, n_embd)
        sizes = (n_embd, n_head, ffn_size, dropout, norm == "pre")
        self.encoder = nn.ModuleList(EncoderBlock(*sizes) for _ in range(n_layer))
        self.decoder = nn.ModuleList(DecoderBlock(*sizes) for _ in range(n_layer))
        pre = norm == "pre"
        self.encoder_norm = nn.LayerNorm(n_embd) if pre else nn.Identity()
        self.decoder_norm = nn.LayerNorm(n_embd) if pre else nn.Identity()
        self.head = nn.Linear(n_embd, target_vocab_size, bias=False)
        self._initialise()
        if tie_embeddings:
            self.head.weight = self.target_embedding.weight
            if joint_vocabulary:
                self.source_embedding.weight = self.target_embedding.weight

    def _initialise(self) -> None:
        """Glorot's uniform for matrices; deviation 1/sqrt(D) for embeddings, which are scaled by sqrt(D)."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.n_embd**-0.5)
            elif isinstance(module, MultiHeadAttention):
                for matrix in module.qkv.weight.detach().chunk(3):
                    nn.init.xavier_uniform_(matrix)
                nn.init.zeros_(module.qkv.bias)
                nn.init.xavier_uniform_(module.proj.weight)
                nn.init.zeros_(module.proj.bias)
            elif isinstance(module, FeedForward):
                for linear in (module.fc, module.proj):
                    nn.init.xavier_uniform_(linear.weight)
                    nn.init.zeros_(linear.bias)
        nn.init.normal_(self.head.weight, std=self.n_embd**-0.5)

    def _embed(self, embedding: nn.Module, tokens: Tensor, past: int) -> tuple[Tensor, Pair | None]:
        """Embed tokens (B, T) at positions past … past + T - 1; also give cos and sin of rotary positions."""
        T, device = tokens.shape[1], tokens.device
        x = embedding(tokens) * math.sqrt(self.n_embd)
        rotary = None
        if self.positions == "learned":
            positions = torch.arange(past, past + T, device=device).clamp(max=self.max_len - 1)
            x = x + self.position_embedding(positions)
        elif self.positions == "sinusoidal":
            x = x + sinusoidal_positions(T, self.n_embd, past, device)
        else:
            angles = rotary_angles(T, self.head_size, past, device)
            rotary = (angles.cos(), angles.sin())
        return dropout(x, self.dropout, self.training), rotary

    # Encoder

    def encode(self, source: Tensor, lengths: Tensor) -> TransformerState:
        """Return the state before the first token, given sources (B, S) with `lengths` real tokens (B,)."""
        real = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        mask = torch.zeros(real.shape, device=source.device).masked_fill(~real, -math.inf)[:, None, None]
        x, rotary = self._embed(self.source_embedding, source, 0)
        for block in self.encoder:
            x = block(x, mask, rotary)
        x = self.encoder_norm(x)
        memory = [block.cross.keys_values(x) for block in self.decoder]
        return TransformerState(memory, mask, [], source.shape[0])

    # Decoder

    def forward(
        self, source: Tensor, source_lengths: Tensor, inputs: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, T, V); with `positions` (N,) into B * T, only those, (N, V)."""
        x, _ = self._decode(inputs, self.encode(source, source_lengths), want_weights=False)
        if positions is not None:
            x = x.flatten(0, 1)[positions]
        logits: Tensor = self.head(x)
        return logits

    def _decode(
        self, tokens: Tensor, state: TransformerState, want_weights: bool
    ) -> tuple[Tensor, TransformerState]:
        T, past = tokens.shape[1], state.length
        x, rotary = self._embed(self.target_embedding, tokens, past)
        causal = None
        if T > 1:
            seen = causal_mask(T, past + T, x.device)
            causal = torch.zeros(seen.shape, device=x.device).masked_fill(~seen, -math.inf)
        pairs, weights = [], None
        for number, block in enumerate(self.decoder):
            before = state.past[number] if state.past else None
            want = want_weights and number == len(self.decoder) - 1
            x, pair, weights = block(x, state.memory[number], state.source_mask, causal, rotary, before, want)
            pairs.append(pair)
        return self.decoder_norm(x), replace(state, past=pairs, attention=weights)

    # The interface of decoding: start, step, select.

    def start(self, context: Pair) -> TransformerState:
        """Return the state before the first token; the context is (sources (B, S), their lengths (B,))."""
        return self.encode(*context)

    def step(self, tokens: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """Read tokens (R, T >= 1) after those in `state`; return logits (R, T, V) and the new state."""
        x, state = self._decode(tokens, state, want_weights=True)
        return self.head(x), state

    def select(
        self, state: TransformerState, rows: Tensor, sources: list[int] | None = None
    ) -> TransformerState:
        """Return the state of these rows, in this order; rows may repeat.

        With `sources`, the rows come in equal groups, one for each of these sources.
        """
        n_sources = state.source_mask.shape[0]
        memory, mask = state.memory, state.source_mask
        if sources is None or sources != list(range(n_sources)):
            per_source = state.rows // n_sources
            chosen = rows // per_source if sources is None else torch.tensor(sources, device=rows.device)
            memory, mask = [(k[chosen], v[chosen]) for k, v in memory], mask[chosen]
        past = [(k[rows], v[rows]) for k, v in state.past]
        attention = None if state.attention is None else state.attention[rows]
        return TransformerState(memory, mask, past, rows.shape[0], attention)

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of trainable parameters by part; a tied head counts as embedding."""
        counts = dict.fromkeys(("embedding", "positions", "encoder", "decoder", "norms", "head"), 0)
        for name, parameter in self.named_parameters():
            first = name.partition(".")[0]
            part = {"position_embedding": "positions", "encoder_norm": "norms", "decoder_norm": "norms"}.get(
                first, first
            )
            part = "embedding" if part.endswith("embedding") else part
            counts[part] += parameter.numel() * parameter.requires_grad
        return counts
