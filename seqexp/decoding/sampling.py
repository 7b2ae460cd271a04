"""Sample from a language model: temperature, top-k, top-p, greedy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqexp.decoding.interface import IncrementalModel


def filter_logits(logits: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Apply temperature, top-k (Fan et al. 2018) and nucleus sampling (Holtzman et al. 2020) to logits.

    Returns probabilities (B, V) in fp64. `temperature` must be above 0. Top-k keeps all ties at rank k. The
    nucleus is the smallest set of most likely tokens with a probability of at least `top_p`, and always
    contains the first.
    """
    # In fp64, so that division by a temperature near zero does not overflow.
    logits = logits.double() / temperature
    if 0 < top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    probabilities = logits.softmax(dim=-1)
    if top_p < 1.0:
        ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        dropped = torch.zeros_like(ordered, dtype=torch.bool).scatter(-1, index, before >= top_p)
        probabilities = probabilities.masked_fill(dropped, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return the tokens (B,) at which the cumulative probability exceeds `uniform` (B,) in [0, 1)."""
    cumulative = probabilities.cumsum(dim=-1)
    # Scale by the last entry: rounding may leave it off 1.
    passed = cumulative > uniform[:, None] * cumulative[:, -1:]
    return passed.int().argmax(dim=-1)


def sample(
    model: IncrementalModel,
    prompt: Tensor,
    *,
    max_new_tokens: int,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    suppress_tokens: Sequence[int] = (),
    seed: int = 0,
) -> Iterator[Tensor]:
    """Yield the next token of each row, (B,), up to `max_new_tokens` times, after `prompt` (B, T >= 1).

    Temperature 0 takes the most likely token. Row b has a random generator of its own, seeded by (seed, b),
    so its draws do not depend on the number of rows. `suppress_tokens` are never drawn. Torch's modes are
    restored before each yield: the caller may train between two tokens.
    """
    streams = [np.random.default_rng([seed, row]) for row in range(len(prompt))]
    state, tokens = model.start(), prompt
    for _ in range(max_new_tokens):
        # Do not yield inside this block: its modes would apply to the caller too.
        with evaluation_mode(model), torch.inference_mode():
            all_logits, state = model.step(tokens, state)
            logits = all_logits[:, -1].float()
            logits[:, list(suppress_tokens)] = float("-inf")
            if temperature == 0:
                chosen = logits.argmax(dim=-1)
            else:
                uniform = torch.tensor([stream.random() for stream in streams], dtype=torch.float64)
                probabilities = filter_logits(logits, temperature, top_k, top_p).cpu()
                chosen = draw(probabilities, uniform).to(prompt.device)
            tokens = chosen[:, None]
        yield chosen


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Switch the model to evaluation mode, and restore its mode afterwards."""
    was_training = getattr(model, "training", False)
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()
