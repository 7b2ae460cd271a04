"""A bag of words and hashed n-grams with a linear layer (Joulin et al. 2017, fastText's classifier).

Axes: B texts, T tokens, D embedding, C labels.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class FastTextBag(nn.Module):
    """Map tokens (B, T) of texts with `lengths` (B,) to logits (B, C).

    The features of a text are its tokens and its n-grams of up to `n_gram` tokens, which share `buckets`
    embeddings by a hash; the text is the mean of their embeddings.
    """

    reads_lengths = True
    sparse_embeddings = True

    def __init__(
        self, vocab_size: int, n_outputs: int, n_embd: int = 100, n_gram: int = 2, buckets: int = 100_000
    ) -> None:
        super().__init__()
        self.vocab_size, self.n_gram, self.buckets = vocab_size, n_gram, buckets
        rows = vocab_size + (buckets if n_gram > 1 else 0)
        self.embedding = nn.Embedding(rows, n_embd)
        nn.init.uniform_(self.embedding.weight, -1 / n_embd, 1 / n_embd)
        self.head = nn.Linear(n_embd, n_outputs, bias=False)
        nn.init.zeros_(self.head.weight)

    def features(self, tokens: Tensor, lengths: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return, for n = 1, 2, …, the rows of the n-grams that end at each token, and which are whole."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        real, hashed = positions < lengths[:, None], tokens
        found = [(tokens, real)]
        for n in range(2, self.n_gram + 1):
            # fastText's polynomial hash, over token numbers: h(w_1 … w_n) = h(w_1 … w_{n-1}) * p + w_n.
            before = torch.roll(hashed, 1, dims=1)
            hashed = (before * 116_049_371 + tokens) & 0x7FFF_FFFF
            # The n-gram that ends at position t is whole from t = n - 1 on.
            found.append((self.vocab_size + hashed % self.buckets, real & (positions >= n - 1)))
        return found

    def gate_features(self, gates: Tensor) -> list[Tensor]:
        """Return the gate of the n-gram that ends at each token, the product of its tokens' gates (B, T)."""
        products = [gates]
        for n in range(1, self.n_gram):
            products.append(products[-1] * torch.roll(gates, n, dims=1))
        return products

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (B, C)."""
        features = self.features(tokens, lengths)
        logits: Tensor = self.head(self._fast_mean(features) if self.training else self._mean(features))
        return logits

    def _mean(self, features: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Embed n-grams one by one, so that explanations can scale the embedding of each."""
        total = sum((self.embedding(rows) * whole[:, :, None]).sum(dim=1) for rows, whole in features)
        mean: Tensor = total / sum(whole.sum(dim=1, keepdim=True) for _, whole in features)
        return mean

    def _fast_mean(self, features: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the same for training."""
        whole = torch.cat([one for _, one in features], dim=1)
        rows = torch.cat([rows for rows, _ in features], dim=1)[whole]
        counts = whole.sum(dim=1)
        starts = counts.cumsum(0) - counts
        mean: Tensor = _Mean.apply(self.embedding.weight, rows, starts, self.embedding.sparse)
        return mean


class _Mean(torch.autograd.Function):
    """Map a table (V, D), rows (N,) of it, and the place where each text begins (B,) to means (B, D).

    The same as `F.embedding_bag`, whose sparse gradient has a row for each of the N features; here it has
    every row once.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, starts: Tensor, sparse: bool) -> Tensor:
        ctx.save_for_backward(rows, starts)
        ctx.shape, ctx.sparse = table.shape, sparse
        return F.embedding_bag(rows, table, starts, mode="mean")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        rows, starts = ctx.saved_tensors
        counts = torch.diff(starts, append=starts.new_tensor([len(rows)]))
        # Sort by row, and within a row by text.
        keys = _sort(rows * len(grad) + torch.repeat_interleave(counts))
        rows = keys // len(grad)
        distinct, uses = rows.unique_consecutive(return_counts=True)
        # The gradient of a row is the sum of those of the texts that have it, each divided by its features.
        values = F.embedding_bag(
            keys - rows * len(grad), grad / counts[:, None], uses.cumsum(0) - uses, mode="sum"
        )
        found = torch.sparse_coo_tensor(
            distinct[None], values, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return found if ctx.sparse else found.to_dense(), None, None, None


def _sort(numbers: Tensor) -> Tensor:
    """Sort (N,); on a CPU with NumPy, in an eighth of PyTorch's time."""
    return torch.from_numpy(np.sort(numbers.numpy())) if numbers.is_cpu else numbers.sort().values
