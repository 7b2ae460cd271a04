"""Recurrent networks that read a text in both directions (Schuster & Paliwal 1997).

Axes: B texts, T tokens, W characters of a word, H hidden, C outputs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqexp.models.cells import CELLS, Weights, run_cell
from seqexp.models.character_cnn import CharacterCNN

LAYERS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentEncoder(nn.Module):
    """Map tokens (B, T) of texts with `lengths` (B,) to outputs (B, T, C) of both directions' states.

    `cell` is ``rnn``, ``lstm`` or ``gru``. With `char_filters` the network also reads the characters of the
    tokens (B, T, W), and joins their features to the embeddings (Ma & Hovy 2016). Dropout is that of the
    embeddings, between layers and before the head.
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
        char_embd: int = 30,
        char_filters: int = 0,
    ) -> None:
        super().__init__()
        self.cell, self.dropout = cell, dropout
        self.embedding = nn.Embedding(vocab_size, n_embd)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.reads_characters = char_filters > 0
        if self.reads_characters:
            self.characters = CharacterCNN(char_embd, char_filters, dropout)
        self.layers = LAYERS[cell](
            n_embd + char_filters, hidden_size, n_layer, batch_first=True, bidirectional=True,
            dropout=dropout if n_layer > 1 else 0.0,
        )  # fmt: skip
        self.head = nn.Linear(2 * hidden_size, n_outputs)

    def word_embeddings(self) -> list[nn.Embedding]:
        """Return the embeddings that pretrained vectors initialise."""
        return [self.embedding]

    def forward(self, tokens: Tensor, lengths: Tensor, characters: Tensor | None = None) -> Tensor:
        """Return outputs (B, T, C)."""
        x = self.embedding(tokens)
        if self.reads_characters:
            x = torch.cat([x, self.characters(characters)], dim=2)
        x = F.dropout(x, self.dropout, self.training)
        run = self._run_cells if torch.compiler.is_exporting() else self._run_torch
        outputs: Tensor = self.head(F.dropout(run(x, lengths), self.dropout, self.training))
        return outputs

    def _run_torch(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the states of both directions (B, T, 2 H), zeros after each text."""
        # Packed, so that the backward direction begins at the last real token of each text.
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.layers(packed)[0], batch_first=True, total_length=x.shape[1])
        return hidden

    def _run_cells(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Compute `_run_torch` without dropout by the equations; torch.export reads no packed texts."""
        positions = torch.arange(x.shape[1], device=x.device)
        real = positions < lengths[:, None]
        # Reverses each text, and leaves what is after it.
        order = torch.where(real, lengths[:, None] - 1 - positions, positions)[:, :, None]
        zeros = x.new_zeros(x.shape[0], self.layers.hidden_size)
        for layer in range(self.layers.num_layers):
            directions = []
            for suffix in ("", "_reverse"):
                inputs = x.gather(1, order.expand_as(x)) if suffix else x
                state = (zeros, zeros) if self.cell == "lstm" else (zeros,)
                states, _ = run_cell(CELLS[self.cell], inputs, state, self._weights(f"l{layer}{suffix}"))
                hidden = torch.stack([one[0] for one in states], dim=1)
                directions.append(hidden.gather(1, order.expand_as(hidden)) if suffix else hidden)
            x = torch.cat(directions, dim=2)
        return x * real[:, :, None]

    def _weights(self, name: str) -> Weights:
        """Return the weights of a layer and direction, such as ``l0_reverse``, as its equations have them."""
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        W_ih, W_hh, b_ih, b_hh = (getattr(self.layers, f"{kind}_{name}") for kind in kinds)
        if self.cell != "gru":  # one bias in the equations, the sum of torch's two
            b_ih = b_hh = b_ih + b_hh
        return Weights(W_ih.t(), W_hh.t(), b_ih, b_hh)
