"""GPT: a decoder-only Transformer (Radford et al. 2019), in one file that stands alone.

Notable:
- pre-norm blocks; the residual stream is the two lines of `Block.forward`
- learned, sinusoidal (Vaswani et al. 2017) or rotary (Su et al. 2021) positions
- attention by PyTorch's scaled-dot-product kernels, or by a plain path that hands out its maps
- a key/value cache behind `start`, `step` and `select`, the interface of all models that generate
- residual projections start smaller by sqrt(2 * n_layer), so that depth does not grow the stream

Axes: B batch, T time, D = n_embd, H heads, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class LayerCache:
    """Keys and values of the tokens seen, (B, H, max_len, D / H) each, filled up to the state's length."""

    keys: Tensor
    values: Tensor


@dataclass
class GPTState:
    """What decoding has seen: the tokens in the window, (B, n), and the cache of each layer.

    The tensors of the cache are written in place: a state that was passed to `step` is used up.
    """

    tokens: Tensor | None
    layers: list[LayerCache]

    @property
    def length(self) -> int:
        return 0 if self.tokens is None else self.tokens.shape[1]


def window_start(n: int, max_len: int) -> int:
    """Where the window begins that predicts token n from tokens 0 … n-1.

    A full window keeps its last half and goes on, so the start moves in steps of the other half.
    """
    shift = max_len - max_len // 2
    return 0 if n <= max_len else -(-(n - max_len) // shift) * shift


def sinusoidal_positions(max_len: int, width: int) -> Tensor:
    """PE(t, 2i) = sin(t / 10000^(2i/D)), PE(t, 2i+1) = cos(same) (Vaswani et al. 2017, 3.5), (max_len, D)."""
    angles = rotary_angles(max_len, width)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def rotary_angles(max_len: int, width: int) -> Tensor:
    """t / 10000^(2i/D) for each position t and pair i, (max_len, width / 2)."""
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return (torch.arange(max_len, dtype=torch.float64)[:, None] * rates).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i + d/2}) of the last axis by its angle (Su et al. 2021, eq. 34).

    x is (B, H, T, d); cos and sin are (T, d / 2).
    """
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each element with probability p and scale the rest (Srivastava et al. 2014).

    On a CPU the mask comes from one random byte an element, which is five times as fast as
    `F.dropout` there; p is then rounded to 1/256, and the scale goes with the rounded one.
    """
    threshold = min(255, round(256 * p))
    if not training or threshold == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p, training)
    bits = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    kept = bits.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold
    return x * kept * (256 / (256 - threshold))


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
        """x (B, T, D) to (B, T, D); `past` tokens are in the cache already.

        With `maps`, the plain path is taken and its weights, (B, H, T, past + T), are appended.
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
        dropping = self.training and self.dropout > 0
        # On a CPU the fused kernel falls back to slow code for dropout, and its backward pass is slow in
        # bf16: plain matrix products were 2 to 5 times as fast there. The compiler prefers the kernel.
        slow_kernel = x.device.type == "cpu" and (dropping or q.dtype != torch.float32)
        plain = self.training and slow_kernel and not torch.compiler.is_compiling()
        if plain or maps is not None:
            y = self._plain(q, k, v, past, maps)
        else:
            # One new token sees everything; several after a past need the mask spelled out.
            mask = _causal_mask(T, past, x.device) if past and T > 1 else None
            y = F.scaled_dot_product_attention(
                q, k, v,
                attn_mask=mask,
                is_causal=T > 1 and mask is None,
                dropout_p=self.dropout if dropping else 0.0,
            )  # fmt: skip
        y = self.proj(y.transpose(1, 2).reshape(B, T, D))
        return dropout(y, self.dropout, self.training)

    def _plain(self, q: Tensor, k: Tensor, v: Tensor, past: int, maps: list[Tensor] | None) -> Tensor:
        """The formula as it stands: scores, mask, softmax, dropout, weighted values."""
        B, H, T, d = q.shape
        future = q.new_zeros(T, past + T).masked_fill(~_causal_mask(T, past, q.device), -math.inf)
        q, k, v = (t.reshape(B * H, -1, d) for t in (q, k, v))
        # mask + Q K^T / sqrt(d), in one pass
        scores = torch.baddbmm(future, q, k.transpose(1, 2), alpha=1 / math.sqrt(d))
        weights = scores.softmax(dim=-1)
        if maps is not None:
            maps.append(weights.view(B, H, T, past + T))
        weights = dropout(weights, self.dropout, self.training).to(v.dtype)
        return (weights @ v).view(B, H, T, d)


def _causal_mask(T: int, past: int, device: torch.device) -> Tensor:
    """True where query t may look: keys 0 … past + t, (T, past + T)."""
    return torch.ones(T, past + T, dtype=torch.bool, device=device).tril(diagonal=past)


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
    """Attention and MLP, each added to the stream of which it reads a normalised copy."""

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

    # Buffers, not parameters: tables that positions are read from.
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
        """Normal with deviation 0.02; projections back into the stream by 1/sqrt(2 n_layer) of that."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                std = 0.02 / math.sqrt(2 * n_layer) if name.endswith(".proj") else 0.02
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Logits (B, T, V). With `maps`, each layer appends its attention weights, (B, H, T, T)."""
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
            # The embedding starts small (0.02); the sinusoids are scaled alike, not to drown it.
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
        """An empty state; a language model has no context."""
        return GPTState(None, [])

    def step(self, tokens: Tensor, state: GPTState) -> tuple[Tensor, GPTState]:
        """Read tokens (B, T >= 1) after what `state` has seen; logits (B, T, V) after each of them.

        A full window keeps its last half, which is encoded again; see `window_start`.
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
                    state.layers = self._empty_cache(len(tokens))
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
        """The state of a batch made of these rows, in this order; rows may repeat. There are no `sources`."""
        layers = [LayerCache(layer.keys[rows], layer.values[rows]) for layer in state.layers]
        return GPTState(None if state.tokens is None else state.tokens[rows], layers)

    def parameter_counts(self) -> dict[str, int]:
        """Trainable parameters by part; a tied head counts as part of the embedding."""
        counts = dict.fromkeys(("embedding", "positions", "attention", "mlp", "norms", "head"), 0)
        for name, parameter in self.named_parameters():
            if name.startswith("embedding"):
                part = "embedding"
            elif name.startswith("position_embedding"):
                part = "positions"
            else:
                part = next((p for p in ("attention", "mlp", "head") if f"{p}." in name), "norms")
            counts[part] += parameter.numel()
        return counts
