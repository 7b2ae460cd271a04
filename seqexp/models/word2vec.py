"""Word vectors that predict each other: skip-gram and continuous bag of words (Mikolov et al. 2013a, b).

Axes: R examples, C words of a context, H hidden vectors (C in a skip-gram, else 1), O outputs, D embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# In contexts and outputs: no word.
NOTHING = -1


class Word2Vec(nn.Module):
    """Score outputs by vectors of context words.

    An example has the words of a context and several outputs: the word that stood in the context, and others.
    Each word has two vectors, one as context (`embedding`, the word vector) and one as output. In
    hierarchical softmax the outputs are the inner nodes of a tree, one fewer than words.
    """

    auto_precision = "fp32"
    # Lookups and small products: compiling the graph gains nothing.
    compilable = False

    def __init__(self, words: Sequence[str], n_embd: int = 100, architecture: str = "skipgram") -> None:
        super().__init__()
        self.words = list(words)
        self.architecture = architecture
        self.embedding = self.make_embedding(n_embd)
        self.output = nn.Embedding(len(words), n_embd)
        nn.init.uniform_(self.embedding.weight, -0.5 / n_embd, 0.5 / n_embd)
        nn.init.zeros_(self.output.weight)

    def make_embedding(self, n_embd: int) -> nn.Embedding:
        """Return the table of what the vectors of words are made of."""
        return nn.Embedding(len(self.words), n_embd)

    def vectors(self, words: Tensor) -> Tensor:
        """Return the vectors (..., D) of words by their numbers (...)."""
        return self.embedding(words)

    def forward(self, contexts: Tensor, outputs: Tensor) -> Tensor:
        """Return logits (R, H, O) of outputs (R, O) after contexts (R, C); both are filled up with -1.

        The logits of -1 have no meaning.
        """
        hidden = self.vectors(contexts.clamp(min=0))
        if self.architecture == "cbow":
            hidden = mean(hidden, contexts != NOTHING).unsqueeze(1)
        return hidden @ self.output(outputs.clamp(min=0)).transpose(1, 2)

    def real(self, contexts: Tensor, outputs: Tensor) -> Tensor:
        """Return which logits have a meaning, (R, H, O)."""
        asked = outputs != NOTHING
        if self.architecture == "cbow":
            return asked.unsqueeze(1)
        return (contexts != NOTHING).unsqueeze(2) & asked.unsqueeze(1)

    def word_embeddings(self) -> list[nn.Embedding]:
        return [self.embedding]

    @torch.no_grad()
    def word_vectors(self) -> Tensor:
        """Return the vectors of all words, (V, D)."""
        return self.vectors(torch.arange(len(self.words), device=self.embedding.weight.device))


def mean(rows: Tensor, real: Tensor) -> Tensor:
    """Return the mean (..., D) of the real ones of rows (..., C, D)."""
    weights = real.unsqueeze(-1).to(rows.dtype)
    return (rows * weights).sum(-2) / weights.sum(-2).clamp(min=1)
