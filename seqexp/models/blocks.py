"""Blocks of Transformers that read in both directions: `transformer.py` and `bert.py` are made of them.

Axes: B texts, T tokens, S keys, D = n_embd, H heads, d = D / H.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from seqexp.models.layers import attention, dropout, rotate

Pair = tuple[Tensor, Tensor]


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(d) + mask) V in several heads (Vaswani et al. 2017, 3.2)."""

    def __init__(self, n_embd: int, n_head: int, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.n_head, self.dropout = n_head, dropout
        self.qkv = nn.Linear(n_embd, 3 * n_embd, bias=bias)
        self.proj = nn.Linear(n_embd, n_embd, bias=bias)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, n * D) to n tensors (n, B, H, T, D / H)."""
        B, T, _ = x.shape
        d = self.proj.in_features // self.n_head
        return x.view(B, T, -1, self.n_head, d).permute(2, 0, 3, 1, 4)

    def queries_keys_values(self, x: Tensor, rotary: Pair | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, H, T, d) of x (B, T, D), for self-attention."""
        q, k, v = self._heads(self.qkv(x))
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        return q, k, v

    def queries(self, x: Tensor) -> Tensor:
        D = x.shape[2]
        bias = None if self.qkv.bias is None else self.qkv.bias[:D]
        q: Tensor = self._heads(F.linear(x, self.qkv.weight[:D], bias))[0]
        return q

    def keys_values(self, memory: Tensor) -> Pair:
        D = memory.shape[2]
        bias = None if self.qkv.bias is None else self.qkv.bias[D:]
        k, v = self._heads(F.linear(memory, self.qkv.weight[D:], bias))
        return k, v

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, want_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Queries (B, H, T, d) over keys and values (B, H, S, d) to (B, T, D), and the weights if wanted.

        `mask` is added to the scores.
        """
        y, weights = attention(
            q, k, v, mask, dropout_p=self.dropout, training=self.training, want_weights=want_weights
        )
        y = self.proj(y.transpose(1, 2).flatten(2))
        return dropout(y, self.dropout, self.training), weights


class FeedForward(nn.Module):
    """D to `ffn_size`, ReLU, and back (Vaswani et al. 2017, eq. 2), or with another activation.

    ``gelu`` is that of Hendrycks & Gimpel (2016); ``geglu`` multiplies it with a second projection (Shazeer
    2020). `inner_dropout` also drops activations.
    """

    def __init__(
        self,
        n_embd: int,
        ffn_size: int,
        dropout: float,
        activation: str = "relu",
        bias: bool = True,
        inner_dropout: bool = True,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.fc = nn.Linear(n_embd, ffn_size * (2 if activation == "geglu" else 1), bias=bias)
        self.proj = nn.Linear(ffn_size, n_embd, bias=bias)
        self.dropout, self.inner_dropout = dropout, dropout if inner_dropout else 0.0

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc(x)
        if self.activation == "geglu":
            hidden, gate = hidden.chunk(2, dim=-1)
            hidden = F.gelu(hidden) * gate
        else:
            hidden = F.relu(hidden) if self.activation == "relu" else F.gelu(hidden)
        hidden = dropout(hidden, self.inner_dropout, self.training)
        return dropout(self.proj(hidden), self.dropout, self.training)


class Block(nn.Module):
    """A block of sublayers with residual connections, with pre-norm or post-norm."""

    def __init__(self, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm

    def residual(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Return x + f(norm(x)) with pre-norm, norm(x + f(x)) with post-norm."""
        y: Tensor = x + sublayer(norm(x)) if self.pre_norm else norm(x + sublayer(x))
        return y


class EncoderBlock(Block):
    """Self-attention and feed-forward."""

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        ffn_size: int,
        dropout: float,
        pre_norm: bool,
        activation: str = "relu",
        bias: bool = True,
        norm_eps: float = 1e-5,
        inner_dropout: bool = True,
    ) -> None:
        super().__init__(pre_norm)
        self.norm1 = nn.LayerNorm(n_embd, norm_eps, bias=bias)
        self.attention = MultiHeadAttention(n_embd, n_head, dropout, bias)
        self.norm2 = nn.LayerNorm(n_embd, norm_eps, bias=bias)
        self.mlp = FeedForward(n_embd, ffn_size, dropout, activation, bias, inner_dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None, rotary: Pair | None, positions: Tensor | None = None
    ) -> Tensor:
        """Map x (B, T, D) to the same; with `positions` (B, K), return only the outputs there, (B, K, D)."""
        read = self.norm1(x) if self.pre_norm else x
        if positions is None:
            q, k, v = self.attention.queries_keys_values(read, rotary)
        else:
            x = take(x, positions)
            q, (k, v) = self.attention.queries(take(read, positions)), self.attention.keys_values(read)
            if rotary is not None:
                cos, sin = (angles[positions][:, None] for angles in rotary)
                q, k = rotate(q, cos, sin), rotate(k, *rotary)
        x = x + self.attention(q, k, v, mask)[0]
        x = x if self.pre_norm else self.norm1(x)
        return self.residual(x, self.norm2, self.mlp)


def take(x: Tensor, positions: Tensor) -> Tensor:
    """Return the rows of x (B, T, D) at `positions` (B, K) of each text, (B, K, D)."""
    return x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[2]))
