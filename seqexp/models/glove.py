"""Word vectors whose products are logarithms of co-occurrences (Pennington, Socher & Manning 2014)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class GloVe(nn.Module):
    """Estimate log X_ij, how often words i and j stand near each other, by w_i · c_j + b_i + d_j.

    Each word has a vector and a bias as word and as context; its word vector is the sum of both vectors, as
    in section 4.2 of the paper.
    """

    auto_precision = "fp32"
    # Lookups and small products: compiling the graph gains nothing.
    compilable = False

    def __init__(self, words: Sequence[str], n_embd: int = 100) -> None:
        super().__init__()
        self.words = list(words)
        self.embedding, self.context = (nn.Embedding(len(words), n_embd) for _ in range(2))
        self.bias, self.context_bias = (nn.Embedding(len(words), 1) for _ in range(2))
        for layer in (self.embedding, self.context, self.bias, self.context_bias):
            nn.init.uniform_(layer.weight, -0.5 / n_embd, 0.5 / n_embd)

    def forward(self, words: Tensor, contexts: Tensor) -> Tensor:
        """Return estimates (R,) of the logarithms of the co-occurrences of words (R,) and contexts (R,)."""
        products = (self.embedding(words) * self.context(contexts)).sum(-1)
        return products + self.bias(words).squeeze(-1) + self.context_bias(contexts).squeeze(-1)

    def word_embeddings(self) -> list[nn.Embedding]:
        return [self.embedding]

    @torch.no_grad()
    def word_vectors(self) -> Tensor:
        """Return the vectors of all words, (V, D)."""
        return self.embedding.weight + self.context.weight
