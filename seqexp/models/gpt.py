"""GPT: a decoder-only Transformer (Radford et al. 2019). Imports only `layers.py` from this project.

Notable:
- pre-norm blocks; the residual stream is the two lines of `Block.forward`
- learned, sinusoidal (Vaswani et al. 2017) or rotary (Su et al. 2021) positions
- `maps` collects the attention weights of every layer
- a key/value cache behind `start`, `step` and `select`, the interface of all models that generate
- residual projections start smaller by sqrt(2 * n_layer), so that depth does not grow the residual stream

Axes: B batch, T time, D = n_embd, H heads, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqexp.models.layers import attention, dropout, rotary_angles, rotate, sinusoidal_positions


@dataclass
class LayerCache:
    """Keys and values of the tokens read, (B, H, max_len, D / H) each, filled up to the state's length."""

    keys: Tensor
    values: Tensor


@dataclass
class GPTState:
    """The state of decoding: the tokens in the window, (B, n), and the cache of each layer.

    `step` writes into the cache in place: do not use a state again after passing it to `step`.
    """

    tokens: Tensor | None
    layers: list[LayerCache]

    @property
    def length(self) -> int:
        return 0 if self.tokens is None else self.tokens.shape[1]


class CausalSelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(d) + causal mask) V in several heads (Vaswani et al. 2017, eq. 1)."""

    def __init__(self, n_embd: int, n_head: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.n_head, self.dropout = n_head, dropout
        self.qkv = nn.Linear(n_embd, 3 * n_embd, bias=bias)
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        past: int = 0,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """x (B, T, D) to (B, T, D), after `past` tokens in the cache.

        With `maps`, append the attention weights, (B, H, T, past + T).
        """
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, D // self.n_head).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is not None:
            cache.keys[:, :, past : past + T] = k
            cache.values[:, :, past : past + T] = v
            k, v = cache.keys[:, :, : past + T], cache.values[:, :, : past + T]
            q = q.to(k.dtype)
        y, weights = attention(
            q, k, v,
            causal=True, dropout_p=self.dropout, training=self.training, want_weights=maps is not None,
        )  # fmt: skip
        if maps is not None and weights is not None:
            maps.append(weights)
        y = self.proj(y.transpose(1, 2).reshape(B, T, D))
        return dropout(y, self.dropout, self.training)


class MLP(nn.Module):
    """D to 4 D, GELU (Hendrycks & Gimpel 2016), and back."""

    def __init__(self, n_embd: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(n_embd, 4 * n_embd, bias=bias)
        self.proj = nn.Linear(4 * n_embd, n_embd, bias=bias)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        return dropout(self.proj(F.gelu(self.fc(x))), self.dropout, self.training)


class Block(nn.Module):
    """Attention and MLP: each reads the residual stream through a norm and adds its output to it."""

    def __init__(self, n_embd: int, n_head: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(n_embd, bias=bias)
        self.attention = CausalSelfAttention(n_embd, n_head, dropout, bias)
        self.norm2 = nn.LayerNorm(n_embd, bias=bias)
        self.mlp = MLP(n_embd, dropout, bias)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        past: int = 0,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        x = x + self.attention(self.norm1(x), rotary, cache, past, maps)
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Token numbers (B, T), T at most `max_len`, to logits of the next token (B, T, V)."""

    # Buffers: tables of positions, computed once.
    cos: Tensor
    sin: Tensor
    sinusoids: Tensor

    def __init__(
        self,
        vocab_size: int,
        max_len: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        dropout: float = 0.0,
        bias: bool = False,
        positions: str = "learned",
        tie_embeddings: bool = True,
        n_outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.max_len, self.positions, self.dropout = max_len, positions, dropout
        self.embedding = nn.Embedding(vocab_size, n_embd)
        if positions == "learned":
            self.position_embedding = nn.Embedding(max_len, n_embd)
        elif positions == "sinusoidal":
            self.register_buffer("sinusoids", sinusoidal_positions(max_len, n_embd), persistent=False)
        elif positions == "rotary":
            angles = rotary_angles(max_len, n_embd // n_head)
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)
        else:
            raise ValueError(f"positions={positions!r} must be learned, sinusoidal or rotary")
        self.blocks = nn.ModuleList(Block(n_embd, n_head, dropout, bias) for _ in range(n_layer))
        self.norm = nn.LayerNorm(n_embd, bias=bias)
        # Logits of the next token, or of `n_outputs` labels at each step.
        self.head = nn.Linear(n_embd, n_outputs or vocab_size, bias=False)
        self._initialise(n_layer)
        if tie_embeddings and n_outputs is None:
            self.head.weight = self.embedding.weight

    def _initialise(self, n_layer: int) -> None:
        """Normal with deviation 0.02, divided by sqrt(2 n_layer) for projections into the residual stream."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                std = 0.02 / math.sqrt(2 * n_layer) if name.endswith(".proj") else 0.02
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Return logits (B, T, V). With `maps`, each layer appends its attention weights, (B, H, T, T)."""
        return self._forward(tokens, None, 0, maps)

    def _forward(
        self,
        tokens: Tensor,
        layers: list[LayerCache] | None,
        past: int,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        T = tokens.shape[1]
        if past + T > self.max_len:
            raise ValueError(f"{past + T} tokens do not fit into the window of {self.max_len}")
        x = self.embedding(tokens)
        rotary = None
        if self.positions == "learned":
            x = x + self.position_embedding.weight[past : past + T]
        elif self.positions == "sinusoidal":
            # Scaled like the embedding, which starts with deviation 0.02 and would be drowned otherwise.
            x = x + 0.02 * self.sinusoids[past : past + T]
        else:
            rotary = (self.cos[past : past + T], self.sin[past : past + T])
        x = dropout(x, self.dropout, self.training)
        for i, block in enumerate(self.blocks):
            x = block(x, rotary, layers[i] if layers else None, past, maps)
        logits: Tensor = self.head(self.norm(x))
        return logits

    # The interface of decoding: start, step, select.

    def start(self, context: None = None) -> GPTState:
        """Return an empty state; a language model has no context."""
        return GPTState(None, [])

    def step(self, tokens: Tensor, state: GPTState) -> tuple[Tensor, GPTState]:
        """Read tokens (B, T >= 1) after those in `state`; return logits (B, T, V) and the new state.

        A full window keeps its last half and encodes it again; see `window_start`.
        """
        logits, kept = [], self.max_len // 2
        while tokens.shape[1]:
            past = state.length
            if past == self.max_len:
                assert state.tokens is not None
                tokens = torch.cat((state.tokens[:, -kept:], tokens), dim=1)
                chunk = tokens[:, : self.max_len]
                state = GPTState(chunk, state.layers)
                logits.append(self._forward(chunk, state.layers, 0)[:, kept:])
            else:
                chunk = tokens[:, : self.max_len - past]
                if not state.layers:
                    state.layers = self._empty_cache(tokens.shape[0])
                seen = chunk if state.tokens is None else torch.cat((state.tokens, chunk), dim=1)
                state = GPTState(seen, state.layers)
                logits.append(self._forward(chunk, state.layers, past))
            tokens = tokens[:, chunk.shape[1] :]
        return torch.cat(logits, dim=1), state

    def _empty_cache(self, rows: int) -> list[LayerCache]:
        weight = self.embedding.weight
        heads = [block.attention.n_head for block in self.blocks if isinstance(block, Block)]
        return [LayerCache(*weight.new_empty(2, rows, h, self.max_len, weight.shape[1] // h)) for h in heads]

    def select(self, state: GPTState, rows: Tensor, sources: object = None) -> GPTState:
        """Return the state of these rows, in this order; rows may repeat. `sources` is ignored."""
        layers = [LayerCache(layer.keys[rows], layer.values[rows]) for layer in state.layers]
        return GPTState(None if state.tokens is None else state.tokens[rows], layers)

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of trainable parameters by part; a tied head counts as embedding."""
        counts = dict.fromkeys(("embedding", "positions", "attention", "mlp", "norms", "head"), 0)
        for name, parameter in self.named_parameters():
            if name.startswith("embedding"):
                part = "embedding"
            elif name.startswith("position_embedding"):
                part = "positions"
            else:
                part = next((p for p in ("attention", "mlp", "head") if f"{p}." in name), "norms")
            counts[part] += parameter.numel() * parameter.requires_grad
        return counts
