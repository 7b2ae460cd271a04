"""Which words of a text a classifier looked at: attention, integrated gradients, leave one out.

What is explained is the log-odds of a label, log p / (1 - p) in nats: unlike a probability it does not
saturate, and of two labels it is the difference of their logits. T tokens, W words, C labels.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from seqexp.data.batch import Batch
from seqexp.data.labelled_data import Ids, encode_text, text_batch
from seqexp.data.lines import fold_spaces
from seqexp.errors import UserError
from seqexp.metrics.bleu import HAN, KANA, SOUTHEAST_ASIAN
from seqexp.scored_text import ScoredText
from seqexp.tokenizers.base import Tokenizer

METHODS = ("attention", "gradients", "leave_one_out")
# A word with its apostrophes and hyphens, a run of signs, or one character of a script without spaces.
UNSPACED = f"{HAN}{KANA}{SOUTHEAST_ASIAN}"
WORD = re.compile(rf"[{UNSPACED}]|['’]?(?:(?![{UNSPACED}])\w)+(?:['’-](?:(?![{UNSPACED}])\w)+)*|[^\w\s]+")
# Between the two texts of a pair.
BETWEEN = " | "
# Texts per forward pass, and steps of the integral: more are taken until the scores add up.
ROWS, STEPS, MOST_STEPS = 64, 32, 2048
# The largest error of the sum of integrated gradients: a share of it, at least of one nat.
TOLERANCE = 0.01

Logits = Callable[[Any, Batch], Tensor]  # (model, batch) → (B, C)
Floats = npt.NDArray[np.float64]
Span = tuple[int, int]


@dataclass(frozen=True)
class TextInWords:
    """A text or a pair of texts: as it is shown, as tokens, and which tokens are parts of which words.

    `shares` (T, W) say how much of a token belongs to each word: its rows sum to one, but to zero for the
    boundaries of the text. Words that were cut off are not among `words`.
    """

    text: str
    words: list[Span]
    tokens: Ids
    shares: Floats
    without: Callable[[int], Ids]

    @property
    def inside(self) -> npt.NDArray[np.bool_]:
        """Which tokens are not boundaries, (T,)."""
        return np.asarray(self.shares.any(axis=1))


def text_in_words(tokenizer: Tokenizer, text: str, pair: str | None, most: int) -> TextInWords:
    """Find the words of a text, and encode it to at most `most` tokens.

    A token that lies in several words counts for each in proportion to its characters, and spaces count for
    the word after them.

    Raises:
        UserError: the tokenizer does not know where its tokens stand.
    """
    parts = [fold_spaces(text)] if pair is None else [fold_spaces(text), fold_spaces(pair)]
    words: list[Span] = []
    places: list[tuple[int, int, int]] = []  # part, begin and end of each word in it
    rows: list[Floats] = []
    found = [[match.span() for match in WORD.finditer(part)] for part in parts]
    total, first, shift = sum(map(len, found)), 0, 0
    boundary = np.zeros((1, total))
    for number, (part, spans) in enumerate(zip(parts, found, strict=True)):
        rows += [boundary] if not number else []
        rows += [_shares(tokenizer, part, spans, first, total), boundary]
        words += [(begin + shift, end + shift) for begin, end in spans]
        places += [(number, begin, end) for begin, end in spans]
        first += len(spans)
        shift += len(part) + len(BETWEEN)
    shares = np.concatenate(rows)
    tokens = encode_text(tokenizer, parts[0], parts[1] if len(parts) > 1 else None, most)
    if len(shares) > len(tokens):
        shares = np.concatenate([shares[: len(tokens) - 1], boundary])
    kept = np.flatnonzero(shares.any(axis=0))

    def without(word: int) -> Ids:
        number, begin, end = places[kept[word]]
        left = list(parts)
        left[number] = fold_spaces(parts[number][:begin] + parts[number][end:])
        return encode_text(tokenizer, left[0], left[1] if len(left) > 1 else None, most)

    return TextInWords(BETWEEN.join(parts), [words[i] for i in kept], tokens, shares[:, kept], without)


def _shares(tokenizer: Tokenizer, text: str, words: list[Span], first: int, total: int) -> Floats:
    """Return how much of each token belongs to each of `total` words; the first in `text` is `first`."""
    start = tokenizer.sentence_start
    offsets = tokenizer.offsets(start + text)
    if offsets is None:
        raise UserError(
            "the tokenizer of this run does not say where its tokens stand in a text; use "
            "explain=leave_one_out."
        )
    shares = np.zeros((len(offsets), total))
    if not words:
        return shares
    begins, ends = np.array(words).T
    for row, (begin, end) in zip(shares, offsets, strict=True):
        begin, end = begin - len(start), end - len(start)
        overlap = np.clip(np.minimum(ends, end) - np.maximum(begins, begin), 0, None)
        if overlap.any():
            row[first : first + len(words)] = overlap / overlap.sum()
        else:
            row[first + min(int((ends <= begin).sum()), len(words) - 1)] = 1
    return shares


def log_odds(logits: Tensor, label: int, several: bool) -> Tensor:
    """Return log p / (1 - p) of a label, (B,) in fp64, from logits (B, C); `several` labels have one each."""
    logits = logits.double()
    if several:
        return logits[:, label]
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    return logits[:, label] - others.logsumexp(dim=1)


@dataclass(frozen=True)
class Explainer:
    """Scores the words of a text for a label; `several`: each label has a probability of its own."""

    model: nn.Module
    logits: Logits
    several: bool
    device: torch.device

    def _score(self, tokens: Sequence[Ids], label: int) -> Tensor:
        return log_odds(
            self.logits(self.model, text_batch(list(tokens)).to(self.device)), label, self.several
        )

    def leave_one_out(self, text: TextInWords, label: int, name: str) -> tuple[ScoredText, dict[str, Any]]:
        """Score each word by how far the log-odds fall without it (Li et al. 2016, section 4)."""
        texts = [text.tokens, *(text.without(word) for word in range(len(text.words)))]
        found: list[float] = []
        with torch.inference_mode():
            for begin in range(0, len(texts), ROWS):
                found += self._score(texts[begin : begin + ROWS], label).tolist()
        whole, rest = found[0], found[1:]
        title = f"leave one out: how far the log-odds of {name} ({whole:+.2f}) fall without each word"
        return _scored(text, [whole - one for one in rest], title), {"log_odds": whole}

    def gradients(self, text: TextInWords, label: int, name: str) -> tuple[ScoredText, dict[str, Any]]:
        """Score each word by integrated gradients (Sundararajan et al. 2017, equation 1).

        The path leads to the text from its boundaries alone: there the embeddings of all words are zero. The
        scores add up to the difference of the log-odds (proposition 1). Each stretch of the path is halved
        until its gradient in the middle agrees with its ends: layer norm makes the path steep in places.
        """
        edges = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
        values, _ = self._slopes(text, label, edges)
        base, whole = float(values[0]), float(values[-1])
        allowed = TOLERANCE * max(1.0, abs(whole - base)) / STEPS
        scores, steps = np.zeros(len(text.tokens)), 0
        # Stretches of the path: where they begin and end, and the log-odds there.
        stretches = torch.stack([edges[:-1], edges[1:], values[:-1], values[1:]], dim=1)
        while len(stretches):
            begin, end, before, after = stretches.T
            middle, width = (begin + end) / 2, end - begin
            between, slopes = self._slopes(text, label, middle)
            steps += len(stretches)
            error = (slopes.sum(dim=1) * width - (after - before)).abs()
            done = (error <= allowed) | torch.tensor(steps >= MOST_STEPS)
            scores += (width[done] @ slopes[done]).numpy()
            halves = [(begin, middle, before, between), (middle, end, between, after)]
            stretches = torch.cat([torch.stack(half, dim=1)[~done] for half in halves])
        left_over = float(scores.sum()) - (whole - base)
        title = (
            f"integrated gradients: what each word adds to the log-odds of {name}, from {base:+.2f} without "
            f"words to {whole:+.2f} ({steps} steps, error {left_over:+.1g})"
        )
        about = {
            "log_odds": whole, "log_odds_without_words": base, "steps": steps,
            "completeness_error": left_over,
        }  # fmt: skip
        return _scored(text, (scores @ text.shares).tolist(), title), about

    def _slopes(self, text: TextInWords, label: int, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-odds with the words' embeddings scaled, (R,), and the gradient by token (R, T)."""
        inside = torch.from_numpy(text.inside).to(self.device)
        values, slopes = [], []
        for some in scales.float().to(self.device).split(ROWS):
            gates = torch.where(inside, some[:, None], 1.0).requires_grad_()
            # cuDNN's recurrent layers have no gradient in evaluation mode.
            with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), _scaled(self.model, gates):
                value = self._score([text.tokens] * len(gates), label)
                (found,) = torch.autograd.grad(value.sum(), gates)
            values.append(value.detach().cpu())
            slopes.append((found * inside).double().cpu())
        return torch.cat(values), torch.cat(slopes)


@contextmanager
def _scaled(model: nn.Module, gates: Tensor) -> Iterator[None]:
    """Multiply the embedding of each token by its gate, (B, T).

    A model whose features are several tokens says in `gate_features` what their gates are, in the order in
    which it embeds them.
    """
    own = getattr(model, "gate_features", None)
    features: Iterator[Tensor] = itertools.repeat(gates) if own is None else iter(own(gates))

    def scale(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        # Embeddings of positions are left alone.
        return output * next(features)[:, :, None] if inputs[0].shape == gates.shape else None

    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    hooks = [embedding.register_forward_hook(scale) for embedding in embeddings]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def of_attention(text: TextInWords, weights: Floats) -> tuple[ScoredText, dict[str, Any]]:
    """Score each word by the sum of its tokens' weights (T,) in the mean that makes the outputs one."""
    boundaries = float(weights[~text.inside].sum())
    title = f"attention: the weight of each word; {boundaries:.2f} is on the boundaries of the text"
    return _scored(text, (weights @ text.shares).tolist(), title, signed=False), {"boundaries": boundaries}


def _scored(text: TextInWords, scores: list[float], title: str, signed: bool = True) -> ScoredText:
    return ScoredText(text.text, tuple(text.words), tuple(scores), signed, title)
