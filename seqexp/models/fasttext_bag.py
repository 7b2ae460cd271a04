"""A bag of words and hashed n-grams with a linear layer (Joulin et al. 2017, fastText's classifier).

Axes: B texts, T tokens, D embedding, C labels.
"""

import torch
from torch import Tensor, nn


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
        self.embedding = nn.EmbeddingBag(rows, n_embd, mode="mean")
        nn.init.uniform_(self.embedding.weight, -1 / n_embd, 1 / n_embd)
        self.head = nn.Linear(n_embd, n_outputs, bias=False)
        nn.init.zeros_(self.head.weight)

    def features(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of the embedding for all n-grams of all texts, and where each text begins, (B,)."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        rows, hashed = [tokens], tokens
        whole = [positions < lengths[:, None]]
        for n in range(2, self.n_gram + 1):
            # fastText's polynomial hash, over token numbers: h(w_1 … w_n) = h(w_1 … w_{n-1}) * p + w_n.
            before = torch.roll(hashed, 1, dims=1)
            hashed = (before * 116_049_371 + tokens) & 0x7FFF_FFFF
            rows.append(self.vocab_size + hashed % self.buckets)
            # The n-gram that ends at position t is whole from t = n - 1 on.
            whole.append(whole[0] & (positions >= n - 1))
        kept = torch.cat(whole, dim=1)
        counts = kept.sum(dim=1)
        return torch.cat(rows, dim=1)[kept], counts.cumsum(0) - counts

    def gate_features(self, gates: Tensor) -> list[Tensor]:
        """Return the gate of the n-gram that ends at each token, the product of its tokens' gates (B, T)."""
        products = [gates]
        for n in range(1, self.n_gram):
            products.append(products[-1] * torch.roll(gates, n, dims=1))
        return products

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.head(self.embedding(*self.features(tokens, lengths)))
        return logits
