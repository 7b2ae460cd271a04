"""N-gram embeddings: what the last few tokens are as one, looked up in a table.

A small network that reads characters learns slowly which letters may stand together; a table learns it from a
handful of examples. There are too many n-grams for a row each, so they are hashed: now and then two share one
(Pagnoni et al. 2024, Byte Latent Transformer, section 3.2.1).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A polynomial of the tokens modulo a Mersenne prime (Carter & Wegman 1979): no product leaves 63 bits.
PRIME = 2**31 - 1
MULTIPLIER = 1_000_003


def ngram_slots(tokens: Tensor, sizes: Sequence[int], slots: int) -> Tensor:
    """Where the n-gram that ends with each token stands in its table: (B, T) to (B, T, number of sizes).

    Before the first token there is nothing, which differs from every token.
    """
    T = tokens.shape[1]
    numbers = F.pad(tokens + 1, (max(sizes) - 1, 0))  # 0 is nothing
    key, found = torch.zeros_like(tokens), {}
    for back in range(max(sizes)):
        start = numbers.shape[1] - T - back
        key = (key * MULTIPLIER + numbers[:, start : start + T]) % PRIME
        # The upper bits are better mixed than the lower ones, which `%` would take alone.
        found[back + 1] = (key ^ (key >> 15)) % slots
    return torch.stack([found[n] for n in sizes], dim=2)


class NGramEmbedding(nn.Module):
    """For each n of `sizes` a table of `slots` rows of `width`, side by side, and a projection to D.

    The last n tokens end with the one that is read, so that nothing is seen of what comes.
    """

    def __init__(self, sizes: Sequence[int], slots: int, width: int, n_embd: int) -> None:
        super().__init__()
        self.sizes, self.slots = tuple(sizes), slots
        self.tables = nn.ModuleList(nn.Embedding(slots, width) for _ in self.sizes)
        self.mix = nn.Linear(width * len(self.sizes), n_embd, bias=False)

    @property
    def reach(self) -> int:
        """How many tokens before the one that is read matter."""
        return max(self.sizes) - 1

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) to (B, T, D)."""
        places = ngram_slots(tokens, self.sizes, self.slots).unbind(dim=2)
        found = [table(place) for table, place in zip(self.tables, places, strict=True)]
        mixed: Tensor = self.mix(torch.cat(found, dim=2))
        return mixed
