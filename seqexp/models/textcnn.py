"""Convolutional network for the classification of texts (Kim 2014).

Axes: B texts, T tokens, D embedding, F filters of a width, C labels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TextCNN(nn.Module):
    """Map tokens (B, T) of texts with `lengths` (B,) to logits (B, C).

    Filters of each width read every window of that many tokens, windows that reach beyond the ends of the
    text included; the maximum over the windows is the feature. ``channels=static`` keeps the embedding as it
    is, ``multichannel`` has a static and a trained one, whose responses are added.
    """

    reads_lengths = True

    def __init__(
        self,
        vocab_size: int,
        n_outputs: int,
        n_embd: int = 300,
        n_filter: int = 100,
        widths: list[int] | None = None,
        dropout: float = 0.5,
        channels: str = "non_static",
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.widths = widths or [3, 4, 5]
        names = {"static": ["static"], "non_static": ["trained"], "multichannel": ["static", "trained"]}
        self.embeddings = nn.ModuleDict({name: nn.Embedding(vocab_size, n_embd) for name in names[channels]})
        first = next(iter(self.embeddings.values()))
        assert isinstance(first, nn.Embedding)
        nn.init.uniform_(first.weight, -0.25, 0.25)
        for name, embedding in self.embeddings.items():
            assert isinstance(embedding, nn.Embedding)
            embedding.weight.detach().copy_(first.weight)
            embedding.weight.requires_grad_(name == "trained")
        self.filters = nn.ModuleList(
            nn.Conv1d(n_embd, n_filter, width, padding=width - 1) for width in self.widths
        )
        self.head = nn.Linear(n_filter * len(self.widths), n_outputs)

    def word_embeddings(self) -> list[nn.Embedding]:
        """Return the embeddings that pretrained vectors initialise."""
        return [one for one in self.embeddings.values() if isinstance(one, nn.Embedding)]

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (B, C)."""
        positions = torch.arange(tokens.shape[1] + max(self.widths), device=tokens.device)
        real = (positions[: tokens.shape[1]] < lengths[:, None])[:, :, None]
        # Convolution is linear, so a filter's responses to two channels are its response to their sum.
        x = sum(embedding(tokens) * real for embedding in self.embeddings.values()).transpose(1, 2)
        features = []
        for width, filters in zip(self.widths, self.filters, strict=True):
            responses = filters(x)
            # A text of L tokens has L + width - 1 windows; later ones read padding alone.
            windows = positions[: responses.shape[2]] < lengths[:, None] + width - 1
            features.append(F.relu(responses).masked_fill(~windows[:, None], -math.inf).amax(dim=2))
        logits: Tensor = self.head(F.dropout(torch.cat(features, dim=1), self.dropout, self.training))
        return logits
