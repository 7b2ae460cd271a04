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
    sparse_embeddings = True

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
        responses = (
            self._fast_responses(tokens, lengths) if self.training else self._responses(tokens, lengths)
        )
        features = []
        for width, some in zip(self.widths, responses, strict=True):
            # A text of L tokens has L + width - 1 windows; later ones read padding alone.
            later = positions[: some.shape[1]] >= lengths[:, None] + width - 1
            features.append(F.relu(some.masked_fill(later[:, :, None], -math.inf).amax(dim=1)))
        logits: Tensor = self.head(F.dropout(torch.cat(features, dim=1), self.dropout, self.training))
        return logits

    def _responses(self, tokens: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return what the filters of each width respond to every window, (B, T + width - 1, F)."""
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        # Convolution is linear, so a filter's responses to two channels are its response to their sum.
        x = sum(embedding(tokens) * real[:, :, None] for embedding in self.embeddings.values())
        return [filters(x.transpose(1, 2)).transpose(1, 2) for filters in self.filters]

    def _fast_responses(self, tokens: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the same for training, computed once for each distinct word of the batch."""
        words, number = tokens.unique(return_inverse=True)
        x = sum(embedding(words) for embedding in self.embeddings.values())
        # Zeros for padding, up to a multiple of 64 rows: oneDNN compiles products for every number of rows.
        x = F.pad(x, (0, 0, 0, 64 - len(x) % 64))
        after = torch.arange(tokens.shape[1], device=tokens.device) >= lengths[:, None]
        number = number.masked_fill(after, len(x) - 1)
        return [
            self._window_responses(x, number, width, filters)
            for width, filters in zip(self.widths, self.filters, strict=True)
        ]

    def _window_responses(self, x: Tensor, number: Tensor, width: int, filters: nn.Module) -> Tensor:
        """Return (B, T + width - 1, F).

        What a filter responds to a word at place k of a window is computed once for each word of
        the batch, in `x` (U, D), whose last rows are zeros; the response to a window is the sum over its
        words, which `number` (B, T) finds in `x`.
        """
        assert isinstance(filters, nn.Conv1d)
        assert filters.bias is not None
        n_filter, n_embd, _ = filters.weight.shape
        # (U, width * F), then a row for each word and place
        by_word = F.linear(x, filters.weight.permute(2, 0, 1).reshape(width * n_filter, n_embd))
        table = by_word.to(filters.weight.dtype).view(-1, n_filter)
        padded = F.pad(number, (width - 1, width - 1), value=len(x) - 1)
        places = torch.arange(width, device=number.device)
        windows = padded.unfold(1, width, 1) * width + places  # (B, T + width - 1, width)
        responses = F.embedding_bag(windows.reshape(-1, width), table, mode="sum")
        return responses.view(*windows.shape[:2], n_filter) + filters.bias
