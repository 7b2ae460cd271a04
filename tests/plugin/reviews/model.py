"""The mean of word embeddings, and a linear layer."""

from torch import Tensor, nn


class Bag(nn.Module):
    """Tokens (B, T) with `lengths` (B,) real ones to logits of the labels (B, C)."""

    def __init__(self, vocab_size: int, n_outputs: int, n_embd: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, n_embd)
        self.head = nn.Linear(n_embd, n_outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        real = (tokens.new_ones(tokens.shape).cumsum(1) <= lengths[:, None]).unsqueeze(2)
        return self.head((self.embedding(tokens) * real).sum(1) / lengths[:, None])
