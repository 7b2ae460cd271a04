"""The conditional random field against all sequences of tags, one by one, in fp64."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from seqexp.data import batch
from seqexp.data.span_schemes import SCHEMES, may_follow
from seqexp.models.crf import IGNORE, log_partition, marginals, negative_log_likelihood, viterbi

pytestmark = pytest.mark.usefixtures("one_thread")

C, N = 3, 5
LENGTHS = (5, 1, 3, 2)


def scene(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Emissions (B, N, C) with wild numbers after each sentence, which words are real, and transitions."""
    draw = torch.Generator().manual_seed(seed)
    emissions = torch.randn(len(LENGTHS), N, C, generator=draw, dtype=torch.float64) * 2
    real = torch.arange(N) < torch.tensor(LENGTHS)[:, None]
    emissions[~real] = 1e3 * torch.randn(int((~real).sum()), C, generator=draw, dtype=torch.float64)
    return emissions, real, torch.randn(C + 1, C + 1, generator=draw, dtype=torch.float64)


def sequences(length: int) -> Iterator[tuple[int, ...]]:
    return itertools.product(range(C), repeat=length)


def score(emissions: Tensor, transitions: Tensor, tags: tuple[int, ...]) -> float:
    """The score of a sequence, term by term; C is the boundary."""
    path = (C, *tags, C)
    steps = sum(float(transitions[one, other]) for one, other in itertools.pairwise(path))
    return steps + sum(float(emissions[t, tag]) for t, tag in enumerate(tags))


def test_partition_marginals_and_best_sequence() -> None:
    emissions, real, transitions = scene()
    found = log_partition(emissions, real, transitions)
    each = marginals(emissions, real, transitions)
    best = viterbi(emissions, real, transitions)
    for row, length in enumerate(LENGTHS):
        scores = {tags: score(emissions[row], transitions, tags) for tags in sequences(length)}
        z = sum(math.exp(one) for one in scores.values())
        assert float(found[row]) == pytest.approx(math.log(z), abs=1e-10)
        assert tuple(best[row, :length].tolist()) == max(scores, key=lambda tags: scores[tags])
        for t in range(length):
            for tag in range(C):
                p = sum(math.exp(one) for tags, one in scores.items() if tags[t] == tag) / z
                assert float(each[row, t, tag]) == pytest.approx(p, abs=1e-10)


def test_likelihood_with_words_of_unknown_tags() -> None:
    """An ignored word has any tag, as have all words of the last sentence; padding is not read."""
    assert IGNORE == batch.IGNORE
    emissions, real, transitions = scene(1)
    targets = torch.tensor([[0, 2, IGNORE, 1, 0], [2, 9, 9, 9, 9], [IGNORE, 1, 1, 7, 7], [IGNORE] * 5])
    found = negative_log_likelihood(emissions, real, transitions, targets)
    for row, length in enumerate(LENGTHS):
        scores = {tags: math.exp(score(emissions[row], transitions, tags)) for tags in sequences(length)}
        wanted = sum(
            one
            for tags, one in scores.items()
            if all(target in (tag, IGNORE) for tag, target in zip(tags, targets[row].tolist(), strict=False))
        )
        assert float(found[row]) == pytest.approx(-math.log(wanted / sum(scores.values())), abs=1e-10)


def test_gradients() -> None:
    emissions, real, transitions = scene(2)
    emissions[~real] = 0
    targets = torch.tensor([[0, 2, IGNORE, 1, 0], [2] * 5, [0, 1, 1, 2, 2], [1, 1, 1, 1, 1]])

    def loss(emissions: Tensor, transitions: Tensor) -> Tensor:
        return negative_log_likelihood(emissions, real, transitions, targets)

    inputs = (emissions.requires_grad_(), transitions.requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)
    (of_emissions,) = torch.autograd.grad(loss(*inputs).sum(), emissions)
    assert of_emissions[~real].abs().max() == 0


TAGS = ["B-x", "B-y", "E-x", "I-x", "I-y", "O", "S-y"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_best_valid_sequence(scheme: str) -> None:
    """The constrained search finds the best of all valid sequences, listed one by one."""
    names = [tag for tag in TAGS if scheme == "IOBES" or tag[0] in "BIO"]
    with_boundary = [*names, "O"]
    steps = torch.tensor(
        [
            [0.0 if may_follow(scheme, one, other) else -1e6 for other in with_boundary]
            for one in with_boundary
        ]
    ).double()
    draw = torch.Generator().manual_seed(0)
    emissions = torch.randn(20, 4, len(names), generator=draw, dtype=torch.float64)
    found = viterbi(emissions, torch.ones(20, 4, dtype=torch.bool), steps)
    valid = [
        tags
        for tags in itertools.product(range(len(names)), repeat=4)
        if all(
            may_follow(scheme, one, other)
            for one, other in itertools.pairwise(["O", *(names[tag] for tag in tags), "O"])
        )
    ]
    greedy = emissions.argmax(dim=2)
    assert any(tuple(row.tolist()) not in valid for row in greedy)  # there is something to correct
    for row, tags in enumerate(found.tolist()):
        best = max(valid, key=lambda one: float(emissions[row, range(4), one].sum()))
        assert tuple(tags) == best
