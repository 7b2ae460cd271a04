"""Linear-chain conditional random field over the tags of words (Lafferty et al. 2001; Lample et al. 2016).

Axes: B sentences, N words, C tags. A sequence of tags y has the score

    s(y) = A[C, y_1] + P[1, y_1] + A[y_1, y_2] + P[2, y_2] + … + A[y_n, C],

with the emissions P (N, C) and the transitions A (C + 1, C + 1), in which the boundary of a sentence counts
as tag C; the probability of y is exp(s(y)) / Z. `real` (B, N) is true for the words of a sentence and false
for the padding after them. Words are a loop, and everything else is computed for all sentences at once.
"""

import torch
from torch import Tensor, nn

# The target of a word that may have any tag (torch's number of targets to ignore).
IGNORE = -100


class CRF(nn.Module):
    """The learned transitions of `n_tags` tags, (C + 1, C + 1), zeros at first."""

    def __init__(self, n_tags: int) -> None:
        super().__init__()
        # In a module named head, so that optimizers treat it as weights of the output.
        self.head = nn.ParameterDict({"transitions": nn.Parameter(torch.zeros(n_tags + 1, n_tags + 1))})

    @property
    def transitions(self) -> Tensor:
        return self.head["transitions"]


def log_partition(emissions: Tensor, real: Tensor, transitions: Tensor) -> Tensor:
    """Return log Z, (B,): the logarithm of the sum of exp(s(y)) over all sequences of tags."""
    last = _forward(emissions, real, transitions)[:, -1]
    return (last + transitions[:-1, -1]).logsumexp(dim=1)


def negative_log_likelihood(emissions: Tensor, real: Tensor, transitions: Tensor, targets: Tensor) -> Tensor:
    """Return -log p(targets), (B,), in nats; `targets` (B, N) are tags.

    A word with the target `IGNORE` may have any tag: the probability is summed over all of them
    (Tsuboi et al. 2008).
    """
    tags = torch.arange(emissions.shape[2], device=emissions.device)
    allowed = (targets[:, :, None] == tags) | ((targets == IGNORE) | ~real)[:, :, None]
    # Log Z and the score of the targets, which is log Z over them alone, in one loop.
    both = torch.cat([emissions, emissions.masked_fill(~allowed, -torch.inf)])
    every, wanted = log_partition(both, torch.cat([real, real]), transitions).chunk(2)
    return every - wanted


def marginals(emissions: Tensor, real: Tensor, transitions: Tensor) -> Tensor:
    """Return the probability of each tag at each word, (B, N, C); undefined after a sentence."""
    positions = torch.arange(real.shape[1], device=real.device)
    lengths = real.sum(dim=1, keepdim=True)
    # Reverses each sentence, and leaves what is after it.
    order = torch.where(real, lengths - 1 - positions, positions)[:, :, None].expand_as(emissions)
    backward = _forward(emissions.gather(1, order), real, transitions.t()).gather(1, order)
    # Both scores contain the emission of the word itself.
    return (_forward(emissions, real, transitions) + backward - emissions).softmax(dim=2)


def viterbi(emissions: Tensor, real: Tensor, transitions: Tensor) -> Tensor:
    """Return the sequences of tags with the highest scores, (B, N); undefined after a sentence."""
    same = torch.arange(emissions.shape[2], device=emissions.device).expand(len(emissions), -1)
    best = transitions[-1, :-1] + emissions[:, 0]
    sources = []
    for t in range(1, emissions.shape[1]):
        scores, source = (best[:, :, None] + transitions[:-1, :-1]).max(dim=1)
        best = torch.where(real[:, t, None], scores + emissions[:, t], best)
        sources.append(torch.where(real[:, t, None], source, same))
    tags = [(best + transitions[:-1, -1]).argmax(dim=1)]
    for source in reversed(sources):
        tags.append(source.gather(1, tags[-1][:, None])[:, 0])
    return torch.stack(tags[::-1], dim=1)


def _forward(emissions: Tensor, real: Tensor, transitions: Tensor) -> Tensor:
    """Return log sums of exp of the scores of all beginnings that end with a tag at a word, (B, N, C).

    After a sentence they stay those of its last word.
    """
    scores = transitions[-1, :-1] + emissions[:, 0]
    found = [scores]
    for t in range(1, emissions.shape[1]):
        after = (scores[:, :, None] + transitions[:-1, :-1]).logsumexp(dim=1) + emissions[:, t]
        scores = torch.where(real[:, t, None], after, scores)
        found.append(scores)
    return torch.stack(found, dim=1)
