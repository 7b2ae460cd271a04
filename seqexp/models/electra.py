"""ELECTRA: an encoder that tells replaced tokens from original ones (Clark et al. 2020).

A small generator, which is a masked language model, fills in masked tokens; the discriminator, which is kept,
says for every token whether it is the original one. Both share the embeddings of tokens and positions. The
generator here is as wide as the discriminator and has fewer layers; in the paper it is narrower.

Axes: B texts, T tokens, K masked positions, D = n_embd, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqexp.models.bert import Bert, MaskedHead


class Replaced(NamedTuple):
    """What the generator makes of masked texts, and what the discriminator says of them.

    `generator` are logits of the masked tokens (B, K, V), `tokens` the texts with its samples (B, T), and
    `discriminator` logits of being replaced (B, T).
    """

    generator: Tensor
    tokens: Tensor
    discriminator: Tensor


class Electra(Bert):
    """Tokens (B, T) to logits of being replaced (B, T, 1), or to `n_outputs` outputs, at every token.

    Without `n_outputs` it has a generator of `generator_layers` blocks.
    """

    def __init__(
        self,
        vocab_size: int,
        max_len: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        n_outputs: int | None = None,
        generator_layers: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(vocab_size, max_len, n_layer, n_head, n_embd, n_outputs or 1, **options)
        if n_outputs is None:
            self.generator = Bert(vocab_size, max_len, generator_layers, n_head, n_embd, **options)
            shared = ("embedding", "position_embedding", "segment_embedding")
            for name in shared:
                if hasattr(self, name):
                    setattr(self.generator, name, getattr(self, name))
            assert isinstance(self.generator.head, MaskedHead)
            self.generator.head.decoder.weight = self.embedding.weight

    def replace(self, tokens: Tensor, lengths: Tensor | None, positions: Tensor, uniform: Tensor) -> Replaced:
        """Fill in masked tokens by the generator, and judge all tokens.

        `uniform` (B, K) in [0, 1) decides the samples: each is the token at which the cumulative probability
        exceeds it. No gradient passes through them.
        """
        logits = self.generator(tokens, lengths, positions)
        with torch.no_grad():
            cumulative = logits.float().softmax(dim=2).cumsum(dim=2)
            sampled = (cumulative > uniform[:, :, None] * cumulative[:, :, -1:]).int().argmax(dim=2)
            # The first token is never masked; rows with fewer masks name it in place of further ones.
            sampled = torch.where(positions == 0, tokens[:, :1], sampled)
            filled = tokens.scatter(1, positions, sampled)
        return Replaced(logits, filled, self(filled, lengths)[:, :, 0])
