"""Features of words from their characters (Ma & Hovy 2016, section 2.1).

Axes: B texts, T tokens, W characters, F filters.
"""

import torch.nn.functional as F
from torch import Tensor, nn

# Padding, bytes, and the marks that begin and end a word (`data/characters.py`).
N_CHARACTERS = 259
# Characters that a filter covers.
WIDTH = 3


class CharacterCNN(nn.Module):
    """Map the characters of words (B, T, W) to features (B, T, F): the maximum of each filter over a word.

    A token without characters (zeros alone) has the features 0. Padding after a word changes nothing.
    """

    def __init__(self, n_embd: int, n_filter: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        # Padding is a vector of zeros, like that of the convolution at both ends.
        self.embedding = nn.Embedding(N_CHARACTERS, n_embd, padding_idx=0)
        bound = (3 / n_embd) ** 0.5
        nn.init.uniform_(self.embedding.weight, -bound, bound)
        self.embedding.weight.detach()[0] = 0
        self.convolution = nn.Conv1d(n_embd, n_filter, WIDTH, padding=WIDTH // 2)

    def forward(self, characters: Tensor) -> Tensor:
        """Return features (B, T, F)."""
        flat = characters.flatten(0, 1)
        x = F.dropout(self.embedding(flat), self.dropout, self.training)
        hidden = self.convolution(x.transpose(1, 2)).relu().masked_fill((flat == 0)[:, None], 0)
        return hidden.amax(dim=2).unflatten(0, characters.shape[:2])
