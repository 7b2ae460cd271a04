"""Which tokens of a batch are masked, and what the model sees in their place.

Every choice is drawn from a generator that is passed in, so that a batch is a pure function of its seed.

Axes: B windows, T tokens, K masked positions at most.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqexp.data.batch import IGNORE
from seqexp.errors import UserError
from seqexp.tokenizers.base import Tokenizer

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

# Words of a span: geometric with this parameter, at most so many (Joshi et al. 2020, section 3.1).
SPAN_P, LONGEST_SPAN = 0.2, 10


@dataclass(frozen=True)
class Vocabulary:
    """What masking needs of a tokenizer: which tokens are ordinary text and which begin a word, (V,) each."""

    mask_id: int
    ordinary: Flags
    starts_word: Flags

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Vocabulary":
        """Read them from a tokenizer.

        Raises:
            UserError: it has no mask token.
        """
        if tokenizer.mask_id is None:
            raise UserError(
                "the tokenizer of this run has no mask token; use tokenizer=wordpiece, bpe or sentencepiece, "
                "trained for masks."
            )
        ordinary = np.ones(tokenizer.vocab_size, dtype=bool)
        ordinary[list(tokenizer.special_tokens().values())] = False
        starts = np.array([tokenizer.ends_word(number) for number in range(tokenizer.vocab_size)])
        return cls(tokenizer.mask_id, ordinary, starts)


@dataclass(frozen=True)
class Masking:
    """How tokens are masked.

    A share of the tokens of a window is chosen, in units of a ``token``, ``word`` or ``span``. A chosen token
    is shown as the mask with probability `mask_token_share`, as a random token with `random_token_share`, and
    else as it is (Devlin et al. 2019, section 3.1). A span is shown in one of these ways as a whole.
    """

    share: float = 0.15
    mask_token_share: float = 0.8
    random_token_share: float = 0.1
    unit: str = "token"

    def most(self, tokens: int) -> int:
        """Return how many of so many tokens are masked: the nearest number to their share, at least one."""
        return max(1, round(self.share * tokens))

    def apply(
        self, tokens: Ids, vocabulary: Vocabulary, width: int, draw: np.random.Generator
    ) -> tuple[Ids, Ids, Ids]:
        """Mask tokens (B, T) of windows with at most `width` tokens that may be masked.

        Returns:
            The tokens that the model sees (B, T); the masked positions (B, K) in ascending order, and their
            true tokens (B, K). Where a row has fewer than K, positions are 0 and true tokens `IGNORE`.
        """
        maskable = vocabulary.ordinary[tokens]
        K = self.most(width)
        wanted = np.maximum(1, np.round(self.share * maskable.sum(axis=1))).astype(np.int64)
        wanted = np.minimum(wanted, np.minimum(maskable.sum(axis=1), K))
        if self.unit == "token":
            positions, groups = _draw_tokens(maskable, wanted, K, draw)
        else:
            starts = vocabulary.starts_word[tokens] | ~maskable
            starts[:, 1:] |= ~maskable[:, :-1]  # after a special token
            positions, groups = _draw_words(maskable, starts, wanted, K, self.unit == "span", draw)
        real = positions >= 0
        positions = np.where(real, positions, 0)
        rows = np.arange(len(tokens))[:, None]
        targets = np.where(real, tokens[rows, positions], IGNORE)
        # One number for each group: a token or, of spans, the span.
        chance = np.take_along_axis(draw.random(positions.shape), groups, axis=1)
        others = np.flatnonzero(vocabulary.ordinary)
        shown = np.where(chance < self.mask_token_share, vocabulary.mask_id, tokens[rows, positions])
        random = (chance >= self.mask_token_share) & (
            chance < self.mask_token_share + self.random_token_share
        )
        shown = np.where(random, draw.choice(others, size=positions.shape), shown)
        seen = tokens.copy()
        b, k = np.nonzero(real)
        seen[b, positions[b, k]] = shown[b, k]
        return seen, positions, targets


def _draw_tokens(maskable: Flags, wanted: Ids, K: int, draw: np.random.Generator) -> tuple[Ids, Ids]:
    """Draw `wanted` (B,) positions of each row; return them (B, K), ascending, then -1; each is its group."""
    order = np.argsort(np.where(maskable, draw.random(maskable.shape), 2.0), axis=1, kind="stable")[:, :K]
    T = maskable.shape[1]
    chosen = np.arange(order.shape[1]) < wanted[:, None]
    positions = np.sort(np.where(chosen, order, T), axis=1)
    positions = np.where(positions == T, -1, positions)
    positions = np.pad(positions, ((0, 0), (0, K - positions.shape[1])), constant_values=-1)
    return positions, np.broadcast_to(np.arange(K), positions.shape)


def _draw_words(
    maskable: Flags, starts: Flags, wanted: Ids, K: int, spans: bool, draw: np.random.Generator
) -> tuple[Ids, Ids]:
    """Draw whole words, or spans of them, up to `wanted` (B,) positions of each row, as `_draw_tokens`.

    A word that would exceed the number is left out, so that a row may have fewer. If every word is too long,
    the first positions of one are taken.
    """
    B, T = maskable.shape
    positions, groups = np.full((B, K), -1), np.zeros((B, K), dtype=np.int64)
    for b in range(B):
        edges = np.append(np.flatnonzero(starts[b]), T)
        words = [(i, j) for i, j in itertools.pairwise(edges.tolist()) if maskable[b, i]]
        order = draw.permutation(len(words))
        length = np.minimum(draw.geometric(SPAN_P, len(words)), LONGEST_SPAN) if spans else None
        group, taken = np.full(T, -1), 0
        for number, first in enumerate(order.tolist()):
            last = first + 1 if length is None else first + int(length[number])
            for i, j in words[first:last]:
                if group[i] >= 0 or taken + j - i > wanted[b]:
                    break
                group[i:j] = number % K
                taken += j - i
            if taken == wanted[b]:
                break
        if not taken and words:
            i, j = words[order[0]]
            group[i : min(j, i + wanted[b])] = 0
        found = np.flatnonzero(group >= 0)
        positions[b, : len(found)] = found
        groups[b, : len(found)] = group[found] if spans else np.arange(len(found))
    return positions, groups
