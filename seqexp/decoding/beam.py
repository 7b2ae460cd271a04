"""Beam search over the incremental interface, for a batch of sentences."""

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
    """A translation: its tokens without the end, and their summed log-probability with the end, in nats.

    Hypotheses are ranked by `score`. `attention` is (tokens + end, S), or None if it is not kept.
    """

    tokens: list[int]
    log_probability: float
    score: float
    attention: Tensor | None


class BeamSearch:
    """Beam search with one model and one set of options; `suppress_tokens` are never generated."""

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
        """Return the `n_best` translations of each sentence, best first.

        `context` is passed to `model.start`, `lengths` are the real tokens of each source, and `longest` the
        maximum number of tokens of each translation: after these only the end can follow. A sentence leaves
        the batch when no running hypothesis can reach the `n_best` finished ones, or, once `beam_size` have
        finished, when none has a better score at its present length.

        Raises:
            RunFailedError: the model's outputs are not finite.
        """
        state = self.model.start(context)
        finished: list[list[Hypothesis]] = [[] for _ in longest]
        device = context[0].device
        active = list(range(len(longest)))
        tokens = torch.full((len(active), 1), self.end, device=device)
        # One row per sentence at the first step, then one per hypothesis.
        totals = torch.zeros(len(active), 1, device=device)
        history = torch.empty(len(active), 0, dtype=torch.int64, device=device)
        maps: Tensor | None = None  # attention, (rows, tokens, S)
        generated = 0
        while active:
            logits, state = self.model.step(tokens, state)
            if self.keep_attention and getattr(state, "attention", None) is not None:
                maps = state.attention if maps is None else torch.cat((maps, state.attention), dim=1)
            full = [longest[number] <= generated for number in active]
            logp = self._log_probabilities(logits[:, -1].float(), history, full)
            best, parents, words = self._candidates(logp, totals)
            ends = (words == self.end) & (best > -math.inf)
            self._collect(finished, active, best, parents, ends, history, maps, lengths)
            # The most probable continuations without an end; impossible ones fill up the beam.
            running = ends.sort(dim=1, stable=True).indices[:, : self.size]
            totals = best.masked_fill(ends, -math.inf).gather(1, running)
            tops = totals[:, 0].tolist()
            stay = [
                position for position, number in enumerate(active)
                if not self._done(finished[number], tops[position], generated + 1, longest[number])
            ]  # fmt: skip
            kept = torch.tensor(stay, dtype=torch.int64, device=device)
            width = len(history) // len(active)
            rows = (kept[:, None] * width + parents.gather(1, running)[kept]).flatten()
            tokens = words.gather(1, running)[kept].view(-1, 1)
            totals, history = totals[kept], torch.cat((history[rows], tokens), dim=1)
            maps = None if maps is None else maps[rows]
            active = [active[position] for position in stay]
            state = self.model.select(state, rows, stay) if active else state
            generated += 1
        if not all(finished):
            raise RunFailedError("the model's outputs are not finite, so it cannot generate text.")
        return [sorted(some, key=lambda h: -h.score)[: self.config.n_best] for some in finished]

    def length_penalty(self, length: int) -> float:
        """Return the divisor of the log-probability of `length` tokens, including the end."""
        return LENGTH_PENALTIES[self.config.length_penalty](length, self.config.length_alpha)

    def _log_probabilities(self, logits: Tensor, history: Tensor, full: list[bool]) -> Tensor:
        """Return log-probabilities (R, V), minus infinity for forbidden tokens; the others stay unchanged."""
        logp = logits.log_softmax(dim=-1)
        ends = logp[:, self.end].clone()
        if self.suppress_tokens:
            logp[:, self.suppress_tokens] = -math.inf
        if history.shape[1] < self.config.min_length:
            logp[:, self.end] = -math.inf
        if self.config.no_repeat_ngram:
            for row, banned in enumerate(repeating(history.tolist(), self.config.no_repeat_ngram)):
                logp[row, banned] = -math.inf
            # If every token would repeat an n-gram, allow the end even before `min_length`.
            stuck = logp.max(dim=1).values == -math.inf
            logp[:, self.end] = torch.where(stuck, ends, logp[:, self.end])
        if any(full):
            # At its maximum length a translation can only end.
            rows = torch.tensor(full, device=logp.device).repeat_interleave(len(logp) // len(full))
            forced = torch.full_like(logp, -math.inf)
            forced[:, self.end] = ends
            logp = torch.where(rows[:, None], forced, logp)
        return logp

    def _candidates(self, logp: Tensor, totals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the 2k best continuations of each of A sentences: totals, parents and tokens, (A, 2k) each.

        k is the beam size: k hypotheses go on even if k end. A parent is an index into the sentence's beam.
        """
        A, width = totals.shape
        V = logp.shape[1]
        # Reduce each row to its best 2k first: no others can be among the best 2k of the sentence.
        values, words = logp.topk(min(2 * self.size, V), dim=1)
        values = values.view(A, width, -1) + totals[:, :, None]
        n = values.shape[2]
        best, index = values.flatten(1).topk(min(2 * self.size, width * n), dim=1)
        return best, index.div(n, rounding_mode="floor"), words.view(A, -1).gather(1, index)

    def _collect(
        self, finished: list[list[Hypothesis]], active: list[int], best: Tensor, parents: Tensor,
        ends: Tensor, history: Tensor, maps: Tensor | None, lengths: list[int],
    ) -> None:  # fmt: skip
        """Store the hypotheses that end and are among the k best of their sentence."""
        width = len(history) // len(active)
        for position, rank in ends[:, : self.size].nonzero().tolist():
            row = position * width + int(parents[position, rank])
            total, attention = float(best[position, rank]), None
            score = total / self.length_penalty(history.shape[1] + 1)
            if maps is not None:
                # Copy: a view would keep the attention of the whole batch in memory.
                attention = maps[row, :, : lengths[active[position]]].clone()
                if self.config.coverage_penalty:
                    score += float(wu_coverage(attention.sum(dim=0), self.config.coverage_penalty))
            finished[active[position]].append(Hypothesis(history[row].tolist(), total, score, attention))

    def _done(self, finished: list[Hypothesis], top: float, generated: int, longest: int) -> bool:
        """Whether a sentence is done; `top` is the best running log-probability, of `generated` tokens."""
        if not top > -math.inf:  # no hypothesis is running, or the model gives NaN
            return True
        if len(finished) < self.config.n_best:
            return False
        # An upper bound: totals only fall, the penalty is largest at the maximum length, and coverage never
        # adds. With enough hypotheses the present score is compared instead. Their number alone would stop
        # too soon: beside a confident translation, poor hypotheses end early and fill the beam.
        enough = len(finished) >= self.size
        reachable = top / self.length_penalty(generated if enough else longest + 1)
        return sorted(h.score for h in finished)[-self.config.n_best] >= reachable


def repeating(histories: list[list[int]], n: int) -> list[list[int]]:
    """Return, for each history, the tokens that would repeat one of its n-grams."""
    banned = []
    for tokens in histories:
        end = tokens[len(tokens) - n + 1 :] if n > 1 else []
        starts = range(len(tokens) - n + 1)
        banned.append([tokens[i + n - 1] for i in starts if tokens[i : i + n - 1] == end])
    return banned
