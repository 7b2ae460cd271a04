"""Attention of a recurrent decoder to the source: Luong et al. 2015, Bahdanau et al. 2015.

Each attention maps queries, the decoder's states (B, Q, H), and the memory, the encoder's states (B, S, M),
to contexts (B, Q, M), which are averages of the memory, and to the weights of these averages (B, Q, S).
`keys` depends only on the memory and is computed once per sentence.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Attention(nn.Module, ABC):
    """softmax(score(query, memory)) over the real positions of the source."""

    # Whether the query is the decoder's state before the step (h_{t-1}), or the new one (h_t).
    from_previous = False

    def keys(self, memory: Tensor) -> Tensor:
        """Return the keys of the memory (B, S, M); without a projection, the memory itself."""
        return memory

    @abstractmethod
    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return the scores (B, Q, S) of queries (B, Q, H) and keys."""

    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, mask: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return contexts (B, Q, M) and weights (B, Q, S); `mask` (B, S) is true for real source tokens."""
        del lengths
        scores = self.scores(query, keys).masked_fill(~mask[:, None], -math.inf)
        weights = scores.softmax(dim=-1)
        return weights.to(memory.dtype) @ memory, weights


class DotAttention(Attention):
    """score = h_t · m_s (Luong et al. 2015, eq. 8, dot)."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        if query_size != memory_size:
            raise ValueError(f"dot attention needs equal sizes, not {query_size} and {memory_size}")

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return query @ keys.transpose(1, 2)


class GeneralAttention(Attention):
    """score = h_t · W_a m_s (Luong et al. 2015, eq. 8, general).

    W_a is `W.weight` / sqrt(H). Otherwise Adam's equal steps for all its elements add up to scores that
    saturate the softmax before words are aligned, and the attention no longer changes.
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.W = nn.Linear(memory_size, query_size, bias=False)
        self.scale = query_size**-0.5

    def keys(self, memory: Tensor) -> Tensor:
        projected: Tensor = self.W(memory) * self.scale
        return projected

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return query @ keys.transpose(1, 2)


class ConcatAttention(Attention):
    """score = v · tanh(W [h_t; m_s]) (Luong et al. 2015, eq. 8, concat), with W split into two matrices."""

    def __init__(self, query_size: int, memory_size: int, size: int) -> None:
        super().__init__()
        self.W_query = nn.Linear(query_size, size, bias=False)
        self.W_memory = nn.Linear(memory_size, size)
        self.v = nn.Linear(size, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        projected: Tensor = self.W_memory(memory)
        return projected

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        summed = self.W_query(query)[:, :, None] + keys[:, None]  # (B, Q, S, size)
        scores: Tensor = self.v(summed.tanh_()).squeeze(3)
        return scores


class BahdanauAttention(ConcatAttention):
    """The same score of h_{t-1}; the decoder reads the context as an input (Bahdanau et al. 2015)."""

    from_previous = True


class LocalAttention(GeneralAttention):
    """local-p: a window around a predicted position (Luong et al. 2015, eq. 9 and 10).

    p_t = S · sigmoid(v_p · tanh(W_p h_t)); the weights of `general` within D = `window` of p_t, each
    times exp(-(s - p_t)² / (2 (D/2)²)).
    """

    def __init__(self, query_size: int, memory_size: int, window: int) -> None:
        super().__init__(query_size, memory_size)
        self.window = window
        self.W_p = nn.Linear(query_size, query_size, bias=False)
        self.v_p = nn.Linear(query_size, 1, bias=False)

    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, mask: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        # Positions are 0 … S-1, so that the window always contains a real one.
        share = self.v_p(self.W_p(query).tanh()).sigmoid()  # (B, Q, 1)
        centre = (lengths[:, None, None] - 1) * share
        distance = torch.arange(memory.shape[1], device=memory.device) - centre  # (B, Q, S)
        inside = mask[:, None] & (distance.abs() <= self.window)
        weights = self.scores(query, keys).masked_fill(~inside, -math.inf).softmax(dim=-1)
        weights = weights * torch.exp(-(distance**2) / (2 * (self.window / 2) ** 2))
        return weights.to(memory.dtype) @ memory, weights


def make_attention(kind: str, query_size: int, memory_size: int, size: int, window: int) -> Attention | None:
    """Make the attention named `kind`; None for ``none``."""
    if kind == "none":
        return None
    if kind in ("concat", "bahdanau"):
        return (ConcatAttention if kind == "concat" else BahdanauAttention)(query_size, memory_size, size)
    if kind == "local_p":
        return LocalAttention(query_size, memory_size, window)
    return (DotAttention if kind == "dot" else GeneralAttention)(query_size, memory_size)
