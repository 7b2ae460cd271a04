"""Beam search over the incremental interface, for many sentences at once."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqexp.config.run import GenerationConfig
from seqexp.decoding.interface import IncrementalModel
from seqexp.decoding.penalties import LENGTH_PENALTIES, wu_coverage
from seqexp.errors import RunFailedError


@dataclass(frozen=True)
class Hypothesis:
    """A translation: its tokens without the end, and the summed log-probability of them and the end.

    `score` is what hypotheses are ranked by; `attention` is (tokens + end, S) where it was asked for.
    """

    tokens: list[int]
    log_probability: float
    score: float
    attention: Tensor | None


class BeamSearch:
    """A search with one model and one set of options; `suppress_tokens` are never generated."""

    def __init__(
        self,
        model: IncrementalModel,
        end: int,
        config: GenerationConfig,
        suppress_tokens: list[int] | None = None,
        keep_attention: bool = False,
    ) -> None:
        self.model, self.end, self.config = model, end, config
        self.suppress_tokens = suppress_tokens or []
        self.size = config.beam_size
        self.keep_attention = keep_attention or config.coverage_penalty > 0

    @torch.inference_mode()
    def search(self, context: Any, lengths: list[int], longest: list[int]) -> list[list[Hypothesis]]:
        """The `n_best` translations of each sentence, best first.

        `context` is what the model starts from, `lengths` the real tokens of the sources, `longest` the most
        tokens that each translation may have: after these only the end can follow. A sentence is done when
        no running hypothesis can pass the best that have ended, or, once `beam_size` of them have, when none
        that runs is better than these now; it then leaves the batch.

        Raises:
            RunFailedError: the model's outputs are not finite.
        """
        state = self.model.start(context)
        finished: list[list[Hypothesis]] = [[] for _ in longest]
        device = context[0].device
        active = list(range(len(longest)))
        tokens = torch.full((len(active), 1), self.end, device=device)
        # One row a sentence in the first step, then one for each hypothesis.
        totals = torch.zeros(len(active), 1, device=device)
        history = torch.empty(len(active), 0, dtype=torch.int64, device=device)
        maps: Tensor | None = None  # attention, (rows, tokens, S)
        written = 0
        while active:
            logits, state = self.model.step(tokens, state)
            if self.keep_attention and getattr(state, "attention", None) is not None:
                maps = state.attention if maps is None else torch.cat((maps, state.attention), dim=1)
            full = [longest[number] <= written for number in active]
            logp = self._log_probabilities(logits[:, -1].float(), history, full)
            best, parents, words = self._candidates(logp, totals)
            ends = (words == self.end) & (best > -math.inf)
            self._collect(finished, active, best, parents, ends, history, maps, lengths)
            # The first that go on, in the order of their probability; dead ones if there are too few.
            going = ends.sort(dim=1, stable=True).indices[:, : self.size]
            totals = best.masked_fill(ends, -math.inf).gather(1, going)
            tops = totals[:, 0].tolist()
            stay = [
                place for place, number in enumerate(active)
                if not self._done(finished[number], tops[place], written + 1, longest[number])
            ]  # fmt: skip
            kept = torch.tensor(stay, dtype=torch.int64, device=device)
            width = len(history) // len(active)
            rows = (kept[:, None] * width + parents.gather(1, going)[kept]).flatten()
            tokens = words.gather(1, going)[kept].view(-1, 1)
            totals, history = totals[kept], torch.cat((history[rows], tokens), dim=1)
            maps = None if maps is None else maps[rows]
            active = [active[place] for place in stay]
            state = self.model.select(state, rows, stay) if active else state
            written += 1
        if not all(finished):
            raise RunFailedError("the model's outputs are not finite, so nothing can be written with it.")
        return [sorted(some, key=lambda h: -h.score)[: self.config.n_best] for some in finished]

    def length_penalty(self, length: int) -> float:
        """What the log-probability of `length` tokens, the end counted, is divided by."""
        return LENGTH_PENALTIES[self.config.length_penalty](length, self.config.length_alpha)

    def _log_probabilities(self, logits: Tensor, history: Tensor, full: list[bool]) -> Tensor:
        """(R, V), minus infinity for what may not follow; what may is not made more likely by that."""
        logp = logits.log_softmax(dim=-1)
        ends = logp[:, self.end].clone()
        if self.suppress_tokens:
            logp[:, self.suppress_tokens] = -math.inf
        if history.shape[1] < self.config.min_length:
            logp[:, self.end] = -math.inf
        if self.config.no_repeat_ngram:
            for row, banned in enumerate(repeating(history.tolist(), self.config.no_repeat_ngram)):
                logp[row, banned] = -math.inf
            # Where every word would repeat something, only the end is left, however short the translation is.
            stuck = logp.max(dim=1).values == -math.inf
            logp[:, self.end] = torch.where(stuck, ends, logp[:, self.end])
        if any(full):
            # At its greatest length a translation can only end.
            rows = torch.tensor(full, device=logp.device).repeat_interleave(len(logp) // len(full))
            forced = torch.full_like(logp, -math.inf)
            forced[:, self.end] = ends
            logp = torch.where(rows[:, None], forced, logp)
        return logp

    def _candidates(self, logp: Tensor, totals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The 2k best continuations of each sentence: totals, which hypothesis goes on, with which token.

        Twice as many as hypotheses, so that k go on even if k end.
        """
        A, width = totals.shape
        V = logp.shape[1]
        # The best of each row first: no more than 2k of one can be among the best of all.
        values, words = logp.topk(min(2 * self.size, V), dim=1)
        values = values.view(A, width, -1) + totals[:, :, None]
        n = values.shape[2]
        best, index = values.flatten(1).topk(min(2 * self.size, width * n), dim=1)
        return best, index.div(n, rounding_mode="floor"), words.view(A, -1).gather(1, index)

    def _collect(
        self, finished: list[list[Hypothesis]], active: list[int], best: Tensor, parents: Tensor,
        ends: Tensor, history: Tensor, maps: Tensor | None, lengths: list[int],
    ) -> None:  # fmt: skip
        """Keep the hypotheses that end, if they are among the k best of their sentence."""
        width = len(history) // len(active)
        for place, rank in ends[:, : self.size].nonzero().tolist():
            row = place * width + int(parents[place, rank])
            total, attention = float(best[place, rank]), None
            score = total / self.length_penalty(history.shape[1] + 1)
            if maps is not None:
                # A copy: a view would keep the whole batch's.
                attention = maps[row, :, : lengths[active[place]]].clone()
                if self.config.coverage_penalty:
                    score += float(wu_coverage(attention.sum(dim=0), self.config.coverage_penalty))
            finished[active[place]].append(Hypothesis(history[row].tolist(), total, score, attention))

    def _done(self, finished: list[Hypothesis], top: float, written: int, longest: int) -> bool:
        """`top` is the log-probability of the best hypothesis that goes on, of `written` tokens."""
        if not top > -math.inf:  # none goes on, or the model gives no numbers
            return True
        if len(finished) < self.config.n_best:
            return False
        # A total only falls, the penalty is greatest at the greatest length, and coverage never adds. With
        # enough hypotheses it is judged by what it is now: beside a sure translation, poor ones end early.
        enough = len(finished) >= self.size
        reachable = top / self.length_penalty(written if enough else longest + 1)
        return sorted(h.score for h in finished)[-self.config.n_best] >= reachable


def repeating(histories: list[list[int]], n: int) -> list[list[int]]:
    """For each history, the tokens that would repeat one of its n-grams."""
    banned = []
    for tokens in histories:
        end = tokens[len(tokens) - n + 1 :] if n > 1 else []
        starts = range(len(tokens) - n + 1)
        banned.append([tokens[i + n - 1] for i in starts if tokens[i : i + n - 1] == end])
    return banned
