"""Recurrent networks that read a text in both directions (Schuster & Paliwal 1997).

Axes: B texts, T tokens, H hidden, C outputs.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

LAYERS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentEncoder(nn.Module):
    """Tokens (B, T), of which `lengths` (B,) are real, to outputs (B, T, C) of both directions' states.

    `cell` is ``rnn``, ``lstm`` or ``gru``. Dropout is that of the embedding, between layers and before the
    head.
    """

    reads_lengths = True
    auto_precision = "fp32"

    def __init__(
        self,
        vocab_size: int,
        n_outputs: int,
        cell: str = "lstm",
        hidden_size: int = 128,
        n_layer: int = 1,
        n_embd: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Embedding(vocab_size, n_embd)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.layers = LAYERS[cell](
            n_embd, hidden_size, n_layer, batch_first=True, bidirectional=True,
            dropout=dropout if n_layer > 1 else 0.0,
        )  # fmt: skip
        self.head = nn.Linear(2 * hidden_size, n_outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return outputs (B, T, C)."""
        x = F.dropout(self.embedding(tokens), self.dropout, self.training)
        # Packed, so that the backward direction begins at the last real token of each text.
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(
            self.layers(packed)[0], batch_first=True, total_length=tokens.shape[1]
        )
        outputs: Tensor = self.head(F.dropout(hidden, self.dropout, self.training))
        return outputs
