"""Transformer encoder with outputs at every token (Vaswani et al. 2017), for labels of texts or tokens.

Axes: B texts, T tokens, D = n_embd, C outputs.
"""

import math

import torch
from torch import Tensor, nn

from seqexp.models.layers import dropout, rotary_angles, sinusoidal_positions
from seqexp.models.transformer import EncoderBlock


class TransformerEncoder(nn.Module):
    """Map tokens (B, T) of texts with `lengths` (B,) to outputs (B, T, C); every token reads all others."""

    reads_lengths = True

    def __init__(
        self,
        vocab_size: int,
        n_outputs: int,
        n_layer: int = 2,
        n_head: int = 4,
        n_embd: int = 128,
        ffn_size: int = 512,
        dropout: float = 0.1,
        norm: str = "pre",
        positions: str = "sinusoidal",
        max_len: int = 256,
    ) -> None:
        super().__init__()
        self.positions, self.dropout = positions, dropout
        self.n_embd, self.head_size = n_embd, n_embd // n_head
        if positions == "learned":
            self.max_len = max_len
            self.position_embedding = nn.Embedding(max_len, n_embd)
        self.embedding = nn.Embedding(vocab_size, n_embd)
        sizes = (n_embd, n_head, ffn_size, dropout, norm == "pre")
        self.encoder = nn.ModuleList(EncoderBlock(*sizes) for _ in range(n_layer))
        self.norm = nn.LayerNorm(n_embd) if norm == "pre" else nn.Identity()
        self.head = nn.Linear(n_embd, n_outputs)
        nn.init.normal_(self.embedding.weight, std=n_embd**-0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return outputs (B, T, C)."""
        T, device = tokens.shape[1], tokens.device
        real = torch.arange(T, device=device) < lengths[:, None]
        mask = torch.zeros(real.shape, device=device).masked_fill(~real, -math.inf)[:, None, None]
        x, rotary = self.embedding(tokens) * math.sqrt(self.n_embd), None
        if self.positions == "learned":
            x = x + self.position_embedding.weight[:T]
        elif self.positions == "sinusoidal":
            x = x + sinusoidal_positions(T, self.n_embd, 0, device)
        else:
            angles = rotary_angles(T, self.head_size, 0, device)
            rotary = (angles.cos(), angles.sin())
        x = dropout(x, self.dropout, self.training)
        for block in self.encoder:
            x = block(x, mask, rotary)
        outputs: Tensor = self.head(self.norm(x))
        return outputs
