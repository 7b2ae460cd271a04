"""Transformer for translation: encoder and decoder (Vaswani et al. 2017).

Notable:
- pre-norm (Xiong et al. 2020; the default) or post-norm blocks, as in the paper
- sinusoidal, learned or rotary (Su et al. 2021) positions; there is no longest sentence but for learned ones,
  where tokens beyond `max_len` share the last position
- one matrix may serve as the embeddings of both languages and as the output layer
- caches for the keys and values of what was written, and of the source, which the hypotheses of one
  sentence share

Axes: B sentences, R rows (B, or B * hypotheses), S source, T target, D = n_embd, H heads, V words.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqexp.models.gpt import dropout, rotary_angles, rotate, sinusoidal_positions

Pair = tuple[Tensor, Tensor]


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(d) + mask) V in several heads (Vaswani et al. 2017, 3.2)."""

    def __init__(self, n_embd: int, n_head: int, dropout: float) -> None:
        super().__init__()
        self.n_head, self.dropout = n_head, dropout
        self.qkv = nn.Linear(n_embd, 3 * n_embd)
        self.proj = nn.Linear(n_embd, n_embd)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, n * D) to n tensors (n, B, H, T, D / H)."""
        B, T, _ = x.shape
        d = self.proj.in_features // self.n_head
        return x.view(B, T, -1, self.n_head, d).permute(2, 0, 3, 1, 4)

    def queries_keys_values(self, x: Tensor, rotary: Pair | None) -> tuple[Tensor, Tensor, Tensor]:
        """Of the same sentences, (B, H, T, d) each."""
        q, k, v = self._heads(self.qkv(x))
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        return q, k, v

    def queries(self, x: Tensor) -> Tensor:
        D = x.shape[2]
        q: Tensor = self._heads(F.linear(x, self.qkv.weight[:D], self.qkv.bias[:D]))[0]
        return q

    def keys_values(self, memory: Tensor) -> Pair:
        D = memory.shape[2]
        k, v = self._heads(F.linear(memory, self.qkv.weight[D:], self.qkv.bias[D:]))
        return k, v

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, want_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Queries (B, H, T, d) over keys and values (B, H, S, d) to (B, T, D).

        `mask` is added to the scores; if they are wanted, the weights (B, H, T, S) come with it.
        """
        B, H, T, d = q.shape
        weights = None
        # On a CPU plain products are faster than the kernel in training and in bf16 (see gpt.py).
        if want_weights or (q.device.type == "cpu" and (self.training or q.dtype != torch.float32)):
            scores = (q * (1 / math.sqrt(d))) @ k.transpose(2, 3)
            weights = (scores if mask is None else scores + mask).softmax(dim=-1)
            y = dropout(weights, self.dropout, self.training).to(v.dtype) @ v
        else:
            p = self.dropout if self.training else 0.0
            mask = None if mask is None else mask.to(q.dtype)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        y = self.proj(y.transpose(1, 2).reshape(B, T, H * d))
        return dropout(y, self.dropout, self.training), weights


class FeedForward(nn.Module):
    """D to `ffn_size`, ReLU, and back (Vaswani et al. 2017, eq. 2)."""

    def __init__(self, n_embd: int, ffn_size: int, dropout: float) -> None:
        super().__init__()
        self.fc = nn.Linear(n_embd, ffn_size)
        self.proj = nn.Linear(ffn_size, n_embd)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        hidden = dropout(F.relu(self.fc(x)), self.dropout, self.training)
        return dropout(self.proj(hidden), self.dropout, self.training)


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward, each added to its input; normalised before, or (post-norm) after."""

    def __init__(self, n_embd: int, n_head: int, ffn_size: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.norm1 = nn.LayerNorm(n_embd)
        self.attention = MultiHeadAttention(n_embd, n_head, dropout)
        self.norm2 = nn.LayerNorm(n_embd)
        self.mlp = FeedForward(n_embd, ffn_size, dropout)

    def forward(self, x: Tensor, mask: Tensor | None, rotary: Pair | None) -> Tensor:
        if self.pre_norm:
            x = x + self._look(self.norm1(x), mask, rotary)
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + self._look(x, mask, rotary))
        normed: Tensor = self.norm2(x + self.mlp(x))
        return normed

    def _look(self, x: Tensor, mask: Tensor | None, rotary: Pair | None) -> Tensor:
        y: Tensor = self.attention(*self.attention.queries_keys_values(x, rotary), mask)[0]
        return y


class DecoderBlock(nn.Module):
    """Self-attention over what was written, attention over the source, feed-forward."""

    def __init__(self, n_embd: int, n_head: int, ffn_size: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
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
        """x (R, T, D) to the same, the keys and values of all written so far, and the source's weights."""
        q, k, v = self.attention.queries_keys_values(self.norm1(x) if self.pre_norm else x, rotary)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        x = x + self.attention(q, k, v, causal)[0]
        x = x if self.pre_norm else self.norm1(x)
        looked, weights = self._cross(
            self.norm2(x) if self.pre_norm else x, memory, source_mask, want_weights
        )
        x = x + looked
        x = x if self.pre_norm else self.norm2(x)
        x = x + self.mlp(self.norm3(x) if self.pre_norm else x)
        return x if self.pre_norm else self.norm3(x), (k, v), weights

    def _cross(
        self, x: Tensor, memory: Pair, mask: Tensor, want_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Rows (R, T, D) that read one source go together: (B, R / B * T, D)."""
        R, T, D = x.shape
        B = len(memory[0])
        q = self.cross.queries(x.reshape(B, -1, D))
        y, weights = self.cross(q, *memory, mask, want_weights)
        if weights is not None:  # averaged over the heads
            weights = weights.mean(dim=1).reshape(R, T, -1)
        return y.reshape(R, T, D), weights


@dataclass(frozen=True)
class TransformerState:
    """Decoding R rows of B sources, equally many of each, in order.

    `memory` holds each layer's keys and values of the source, (B, H, S, d), and `written` those of the
    tokens so far, (R, H, t, d). `attention` are the last layer's weights of the tokens read last, averaged
    over its heads, (R, T, S).
    """

    memory: list[Pair]
    source_mask: Tensor
    written: list[Pair]
    rows: int
    attention: Tensor | None = None

    @property
    def length(self) -> int:
        return self.written[0][0].shape[2] if self.written else 0


class Transformer(nn.Module):
    """Sources (B, S) and what has been written (B, T) to logits of the next token (B, T, V)."""

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
        self._table: Tensor | None = None
        self._initialise()
        if tie_embeddings:
            self.head.weight = self.target_embedding.weight
            if joint_vocabulary:
                self.source_embedding.weight = self.target_embedding.weight

    def _initialise(self) -> None:
        """Glorot's uniform for matrices; embeddings of deviation 1/sqrt(D), as they are scaled by sqrt(D)."""
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
        """Tokens (B, T) at positions past … past + T - 1, and the angles of rotary positions."""
        T, device = tokens.shape[1], tokens.device
        x = embedding(tokens) * math.sqrt(self.n_embd)
        rotary = None
        if self.positions == "learned":
            places = torch.arange(past, past + T, device=device).clamp(max=self.max_len - 1)
            x = x + self.position_embedding(places)
        elif self.positions == "sinusoidal":
            x = x + self._from_table(past, T, device)
        else:
            angles = self._from_table(past, T, device)
            rotary = (angles.cos(), angles.sin())
        return dropout(x, self.dropout, self.training), rotary

    def _from_table(self, past: int, T: int, device: torch.device) -> Tensor:
        """Rows past … past + T - 1 of the sinusoids or angles, a table that grows as needed."""
        if self._table is None or len(self._table) < past + T or self._table.device != device:
            length = max(256, 1 << (past + T - 1).bit_length())
            with torch.inference_mode(False):
                make = sinusoidal_positions if self.positions == "sinusoidal" else rotary_angles
                width = self.n_embd if self.positions == "sinusoidal" else self.head_size
                self._table = make(length, width).to(device)
        return self._table[past : past + T]

    # Encoder

    def encode(self, source: Tensor, lengths: Tensor) -> TransformerState:
        """The state before the first token, of sources (B, S) with `lengths` real tokens (B,)."""
        real = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        mask = torch.zeros(real.shape, device=source.device).masked_fill(~real, -math.inf)[:, None, None]
        x, rotary = self._embed(self.source_embedding, source, 0)
        for block in self.encoder:
            x = block(x, mask, rotary)
        x = self.encoder_norm(x)
        memory = [block.cross.keys_values(x) for block in self.decoder]
        return TransformerState(memory, mask, [], len(source))

    # Decoder

    def forward(
        self, source: Tensor, source_lengths: Tensor, inputs: Tensor, places: Tensor | None = None
    ) -> Tensor:
        """Logits (B, T, V) after each of `inputs`; with `places` (N,) only those of B * T, as (N, V)."""
        x, _ = self._decode(inputs, self.encode(source, source_lengths), want_weights=False)
        if places is not None:
            x = x.flatten(0, 1)[places]
        logits: Tensor = self.head(x)
        return logits

    def _decode(
        self, tokens: Tensor, state: TransformerState, want_weights: bool
    ) -> tuple[Tensor, TransformerState]:
        T, past = tokens.shape[1], state.length
        x, rotary = self._embed(self.target_embedding, tokens, past)
        causal = None
        if T > 1:
            future = torch.ones(T, past + T, dtype=torch.bool, device=x.device).triu(past + 1)
            causal = torch.zeros(future.shape, device=x.device).masked_fill(future, -math.inf)
        written, weights = [], None
        for number, block in enumerate(self.decoder):
            before = state.written[number] if state.written else None
            want = want_weights and number == len(self.decoder) - 1
            x, pair, weights = block(x, state.memory[number], state.source_mask, causal, rotary, before, want)
            written.append(pair)
        return self.decoder_norm(x), replace(
            state, written=written, attention=weights if want_weights else None
        )

    # The interface of decoding: start, step, select.

    def start(self, context: Pair) -> TransformerState:
        """The state before the first token, of a context (sources (B, S), their lengths (B,))."""
        return self.encode(*context)

    def step(self, tokens: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """Read tokens (R, T >= 1) after what `state` has seen; logits (R, T, V) after each of them."""
        x, state = self._decode(tokens, state, want_weights=True)
        return self.head(x), state

    def select(
        self, state: TransformerState, rows: Tensor, sources: list[int] | None = None
    ) -> TransformerState:
        """The state of these rows, in this order; rows may repeat.

        With `sources`, the rows come in equal groups, which read these of the sources.
        """
        n_sources = len(state.source_mask)
        memory, mask = state.memory, state.source_mask
        if sources is None or sources != list(range(n_sources)):
            per_source = state.rows // n_sources
            chosen = rows // per_source if sources is None else torch.tensor(sources, device=rows.device)
            memory, mask = [(k[chosen], v[chosen]) for k, v in memory], mask[chosen]
        written = [(k[rows], v[rows]) for k, v in state.written]
        attention = None if state.attention is None else state.attention[rows]
        return TransformerState(memory, mask, written, len(rows), attention)

    def parameter_counts(self) -> dict[str, int]:
        """Trainable parameters by part; a tied head counts as part of the embedding."""
        counts = dict.fromkeys(("embedding", "positions", "encoder", "decoder", "norms", "head"), 0)
        for name, parameter in self.named_parameters():
            first = name.partition(".")[0]
            part = {"position_embedding": "positions", "encoder_norm": "norms", "decoder_norm": "norms"}.get(
                first, first
            )
            counts["embedding" if part.endswith("embedding") else part] += parameter.numel()
        return counts
