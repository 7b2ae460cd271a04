"""BERT: an encoder that predicts masked tokens (Devlin et al. 2019), or labels of texts or tokens.

Notable:
- post-norm as in BERT, or pre-norm (Xiong et al. 2020); learned, sinusoidal or rotary (Su et al. 2021)
  positions; GELU or GEGLU; with biases or without
- segment embeddings, the norm of the embeddings, the transform of the head and the pooler are options, so
  that weights of BERT and RoBERTa (Liu et al. 2019) fit
- at masked positions only: the logits and the last block, but its keys and values

Axes: B texts, T tokens, K masked positions, D = n_embd, V vocabulary, C outputs.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqexp.models.blocks import EncoderBlock, Pair
from seqexp.models.layers import dropout, rotary_angles, sinusoidal_positions


class MaskedHead(nn.Module):
    """Hidden states to logits of the vocabulary: W LN(GELU(A x + a)) + b, or without `transform` W x + b.

    W is the embedding if it is tied to it.
    """

    def __init__(self, n_embd: int, vocab_size: int, transform: bool, norm_eps: float, bias: bool) -> None:
        super().__init__()
        self.transform = transform
        if transform:
            self.dense = nn.Linear(n_embd, n_embd, bias=bias)
            self.norm = nn.LayerNorm(n_embd, norm_eps, bias=bias)
        self.decoder = nn.Linear(n_embd, vocab_size)

    def forward(self, x: Tensor) -> Tensor:
        if self.transform:
            x = self.norm(F.gelu(self.dense(x)))
        logits: Tensor = self.decoder(x)
        return logits


class Bert(nn.Module):
    """Tokens (B, T) to logits of the vocabulary, or to `n_outputs` outputs, at every token or some."""

    reads_lengths = True

    # Buffers: tables of positions, computed once.
    cos: Tensor
    sin: Tensor
    sinusoids: Tensor

    def __init__(
        self,
        vocab_size: int,
        max_len: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        n_outputs: int | None = None,
        ffn_size: int | None = None,
        dropout: float = 0.1,
        norm: str = "post",
        positions: str = "learned",
        activation: str = "gelu",
        bias: bool = True,
        n_segment: int = 0,
        embedding_norm: bool = True,
        head_transform: bool = True,
        tie_embeddings: bool = True,
        pooler: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.positions, self.dropout = positions, dropout
        self.n_embd, self.head_size = n_embd, n_embd // n_head
        self.embedding = nn.Embedding(vocab_size, n_embd)
        if positions == "learned":
            self.max_len = max_len
            self.position_embedding = nn.Embedding(max_len, n_embd)
        if n_segment:
            self.segment_embedding = nn.Embedding(n_segment, n_embd)
        if embedding_norm:
            self.embedding_norm = nn.LayerNorm(n_embd, norm_eps, bias=bias)
        self.encoder = nn.ModuleList(
            EncoderBlock(
                n_embd, n_head, ffn_size or 4 * n_embd, dropout, norm == "pre", activation, bias, norm_eps,
                inner_dropout=False,
            )
            for _ in range(n_layer)
        )  # fmt: skip
        if norm == "pre":
            self.norm = nn.LayerNorm(n_embd, norm_eps, bias=bias)
        if pooler:
            self.pooler = nn.Linear(n_embd, n_embd)
        self.head: MaskedHead | nn.Linear
        if n_outputs is None:
            self.head = MaskedHead(n_embd, vocab_size, head_transform, norm_eps, bias)
        else:
            self.head = nn.Linear(n_embd, n_outputs)
        self._initialise()
        if isinstance(self.head, MaskedHead) and tie_embeddings:
            self.head.decoder.weight = self.embedding.weight

    def _initialise(self) -> None:
        """Normal with deviation 0.02, cut at two deviations (Devlin et al. 2019)."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def _embed(self, tokens: Tensor, segments: Tensor | None) -> tuple[Tensor, Pair | None]:
        """Return the sum of the embeddings (B, T, D), and cos and sin of rotary positions."""
        T, device, rotary = tokens.shape[1], tokens.device, None
        x = self.embedding(tokens)
        if self.positions == "learned":
            if self.max_len < T:
                raise ValueError(f"{T} tokens do not fit into the window of {self.max_len}")
            x = x + self.position_embedding.weight[:T]
        elif self.positions == "sinusoidal":
            # Scaled like the embedding, which starts with deviation 0.02 and would be drowned otherwise.
            x = x + 0.02 * sinusoidal_positions(T, self.n_embd, 0, device)
        else:
            angles = rotary_angles(T, self.head_size, 0, device)
            rotary = (angles.cos(), angles.sin())
        if hasattr(self, "segment_embedding"):
            x = x + (
                self.segment_embedding.weight[0] if segments is None else self.segment_embedding(segments)
            )
        if hasattr(self, "embedding_norm"):
            x = self.embedding_norm(x)
        return dropout(x, self.dropout, self.training), rotary

    def encode(
        self,
        tokens: Tensor,
        lengths: Tensor | None = None,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states (B, T, D), or with `positions` (B, K) only those, (B, K, D).

        Tokens from `lengths` (B,) on are padding; None: there is none.
        """
        mask = None
        if lengths is not None:
            real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
            mask = torch.zeros(real.shape, device=tokens.device).masked_fill(~real, -math.inf)[:, None, None]
        x, rotary = self._embed(tokens, segments)
        *blocks, last = self.encoder
        for block in blocks:
            x = block(x, mask, rotary)
        # The last block is computed where its outputs are used alone.
        x = last(x, mask, rotary, positions)
        if hasattr(self, "norm"):
            x = self.norm(x)
        return x

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor | None = None,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> Tensor:
        """Return outputs (B, T, C), or logits (B, T, V); with `positions` (B, K), only those, (B, K, V)."""
        x = self.encode(tokens, lengths, positions, segments)
        if hasattr(self, "pooler") and isinstance(self.head, nn.Linear):
            x = self.pooler(x).tanh()
        outputs: Tensor = self.head(x)
        return outputs

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of trainable parameters by part; a tied head counts as embedding."""
        counts = dict.fromkeys(
            ("embedding", "positions", "segments", "encoder", "norms", "generator", "head"), 0
        )
        parts = {"position_embedding": "positions", "segment_embedding": "segments",
                 "embedding_norm": "norms", "norm": "norms", "pooler": "head"}  # fmt: skip
        for name, parameter in self.named_parameters():
            first = name.partition(".")[0]
            counts[parts.get(first, first)] += parameter.numel() * parameter.requires_grad
        return counts
