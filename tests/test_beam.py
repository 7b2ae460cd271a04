"""Beam search: against every sequence there is, a beam written plainly, and arithmetic by hand."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from translation_models import make_nmt, make_transformer, random_tokens

from seqexp.config.run import GenerationConfig
from seqexp.data.pair_batch import pair_batch
from seqexp.decoding.beam import BeamSearch, Hypothesis, repeating
from seqexp.decoding.ensemble import Ensemble
from seqexp.decoding.penalties import average_length, no_length, wu_coverage, wu_length
from seqexp.errors import RunFailedError

END, V = 1, 4  # three tokens beside the end: 364 sequences of up to five
WORDS = [0, 2, 3]


pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Seen:
    """Rows of the Markov model: the table of each, the number of tokens read, and the last attention."""

    tables: Tensor
    length: int
    attention: Tensor | None


class Markov:
    """p(next | last token, its position) from tables; the source's first token selects the table.

    Each token looks at the source as given. Positions enter, as the same steps in another order would tie.
    """

    shows_attention = True

    def __init__(self, seed: int, vocab_size: int = V, spread: float = 1.5) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(5, 24, vocab_size, vocab_size, generator=draw) * spread
        self.looks = torch.rand(vocab_size, 16, generator=draw)

    def __call__(self, source: Tensor, lengths: Tensor, inputs: Tensor, positions: Any = None) -> Tensor:
        logits = self.logits[source[:, :1], torch.arange(inputs.shape[1]), inputs]
        return logits if positions is None else logits.flatten(0, 1)[positions]

    def start(self, context: tuple[Tensor, Tensor]) -> Seen:
        self.S = context[0].shape[1]
        return Seen(context[0][:, 0], 0, None)

    def step(self, tokens: Tensor, state: Seen) -> tuple[Tensor, Seen]:
        after = state.length + tokens.shape[1]
        logits = self.logits[state.tables[:, None], torch.arange(state.length, after), tokens]
        return logits, Seen(state.tables, after, self.looks[tokens][..., : self.S])

    def select(self, state: Seen, rows: Tensor, sources: list[int] | None = None) -> Seen:
        attention = None if state.attention is None else state.attention[rows]
        return Seen(state.tables[rows], state.length, attention)


SIZES = {"source_vocab_size": 5, "target_vocab_size": V}
MODELS: dict[str, Callable[[], Any]] = {
    "nmt": lambda: make_nmt(**SIZES, attention="general"),
    "bahdanau": lambda: make_nmt(**SIZES, seed=3, attention="bahdanau", cell="lstm", input_feeding=False),
    "transformer": lambda: make_transformer(**SIZES, positions="rotary"),
    "markov": lambda: Markov(0),
}
SOURCES = [[4, 2, 0, 3], [2], [3, 3, 2, 0, 0, 4, 2]]
every_model = pytest.mark.parametrize("name", MODELS)


def search(
    model: Any, sources: list[list[int]], longest: list[int], suppress_tokens: list[int] | None = None,
    keep: bool = False, **options: Any,
) -> list[list[Hypothesis]]:  # fmt: skip
    batch = pair_batch(sources, [[] for _ in sources], END)
    beam = BeamSearch(model, END, GenerationConfig(**{"min_length": 0, **options}), suppress_tokens, keep)
    return beam.search((batch.source, batch.lengths["source"]), [len(ids) + 1 for ids in sources], longest)


def every_sequence(longest: int, words: Sequence[int] = WORDS) -> list[tuple[int, ...]]:
    return [seq for n in range(longest + 1) for seq in itertools.product(words, repeat=n)]


def token_logits(model: Any, source: list[int], sequences: Sequence[Sequence[int]]) -> Tensor:
    """The logits of each token of each sequence and what follows, from one uncached pass, (N, T + 1, V)."""
    inputs = torch.zeros(len(sequences), max(map(len, sequences)) + 1, dtype=torch.int64)
    for row, seq in enumerate(sequences):
        inputs[row, : len(seq) + 1] = torch.tensor([END, *seq])
    sources = torch.tensor([[*source, END]]).expand(len(sequences), -1)
    with torch.no_grad():
        logits: Tensor = model(sources, torch.full((len(sequences),), sources.shape[1]), inputs)
    return logits


def totals(logp: Tensor, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Summed log-probabilities of the tokens and the end, in plain numbers."""
    rows = logp.tolist()
    return [
        sum(row[t][token] for t, token in enumerate([*seq, END]))
        for row, seq in zip(rows, sequences, strict=True)
    ]


PENALTIES: dict[str, Callable[[int, float], float]] = {
    "wu": lambda n, alpha: math.pow(5 + n, alpha) / math.pow(6, alpha),
    "average": lambda n, alpha: math.exp(alpha * math.log(n)),
    "none": lambda n, alpha: 1.0,
}


def ranked(
    model: Any, source: list[int], longest: int, penalty: str = "none", alpha: float = 1.0,
    allowed: Callable[[Sequence[int]], bool] = lambda seq: True,
    extra: Callable[[Sequence[int]], float] = lambda seq: 0.0,
) -> list[tuple[float, float, list[int]]]:  # fmt: skip
    """Score, log-probability and tokens of every sequence that is allowed, best first."""
    sequences = [seq for seq in every_sequence(longest) if allowed(seq)]
    logp = token_logits(model, source, sequences).double().log_softmax(dim=-1)
    found = []
    for seq, total in zip(sequences, totals(logp, sequences), strict=True):
        found.append((total / PENALTIES[penalty](len(seq) + 1, alpha) + extra(seq), total, list(seq)))
    return sorted(found, reverse=True)


def same(found: list[Hypothesis], expected: list[tuple[float, float, list[int]]]) -> None:
    assert [h.tokens for h in found] == [tokens for _, _, tokens in expected]
    for h, (score, total, _) in zip(found, expected, strict=True):
        assert h.score == pytest.approx(score, abs=1e-5)
        assert h.log_probability == pytest.approx(total, abs=1e-5)


# Against everything there is


@pytest.mark.parametrize(("penalty", "alpha"), [("wu", 1.0), ("wu", 0.6), ("average", 0.8), ("none", 1.0)])
@every_model
def test_a_wide_beam_finds_the_best_of_all(name: str, penalty: str, alpha: float) -> None:
    """With a beam as wide as there are sequences: which are best, in which order, with which scores."""
    model = MODELS[name]()
    longest = [5, 2, 4]
    for min_length, n_best in ((0, 1), (3, 20), (0, 400)):
        found = search(
            model, SOURCES, longest, beam_size=400, n_best=n_best, length_penalty=penalty,
            length_alpha=alpha, min_length=min_length,
        )  # fmt: skip
        for source, most, some in zip(SOURCES, longest, found, strict=True):
            # At its maximum length a sentence may end even if it is shorter than `min_length`.
            least = min(min_length, most)
            expected = ranked(model, source, most, penalty, alpha, lambda seq, least=least: len(seq) >= least)
            same(some, expected[:n_best])


@every_model
def test_what_must_not_be_written_is_not(name: str) -> None:
    """Sequences with a token of `suppress_tokens` or a repeated n-gram are left out, and no other."""
    model = MODELS[name]()

    def repeats(seq: Sequence[int], n: int) -> bool:
        grams = [tuple(seq[i : i + n]) for i in range(len(seq) - n + 1)]
        return len(set(grams)) < len(grams)

    options = {"beam_size": 400, "n_best": 400, "length_penalty": "none"}
    for n in (1, 2, 3):
        for source, found in zip(
            SOURCES, search(model, SOURCES, [5] * 3, no_repeat_ngram=n, **options), strict=True
        ):
            expected = ranked(model, source, 5, allowed=lambda seq, n=n: not repeats(seq, n))
            assert 0 < len(expected) < 364
            same(found, expected)
    (found,) = search(model, SOURCES[:1], [5], suppress_tokens=[2], **options)
    same(found, ranked(model, SOURCES[0], 5, allowed=lambda seq: 2 not in seq))


def test_a_sure_translation_is_not_lost_to_poor_ones() -> None:
    """The right token has 0.99 at each step and the end most of the rest: poor hypotheses fill the beam."""
    model = Markov(0, vocab_size=5, spread=0.0)
    right = [2, 3, 4, 2, 3, 4, 2]
    model.logits[..., END] = math.log(100)
    for place, token in enumerate([*right, END]):
        model.logits[:, place, :, token] = math.log(10_000)
    (found,) = search(model, SOURCES[:1], [20], beam_size=5)
    assert found[0].tokens == right


def test_a_model_that_gives_no_numbers_is_said_to() -> None:
    model = Markov(1)
    model.logits[:] = math.nan
    with pytest.raises(RunFailedError, match="not finite"):
        search(model, SOURCES, [5, 5, 5], beam_size=3)


def test_a_sentence_always_gets_a_translation() -> None:
    """If every token would repeat an n-gram, a hypothesis ends before `min_length`."""
    model = Markov(3)
    (found,) = search(model, SOURCES[:1], [9], beam_size=3, n_best=1, no_repeat_ngram=1, min_length=8)
    assert sorted(found[0].tokens) == WORDS


@given(history=st.lists(st.integers(0, 3), max_size=12), n=st.integers(1, 4))
def test_only_tokens_that_repeat_are_banned(history: list[int], n: int) -> None:
    (banned,) = repeating([history], n)
    for token in range(4):
        after = [*history, token]
        grams = [after[i : i + n] for i in range(len(after) - n + 1)]
        assert (token in banned) == (bool(grams) and grams[-1] in grams[:-1])


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_coverage_counts_what_was_looked_at(beta: float) -> None:
    """beta times the sum of log(min(1, attention in all)) over real source tokens; the rest is garbage."""
    model = Markov(4)
    found = search(
        model, SOURCES, [5, 3, 4], beam_size=400, n_best=30, coverage_penalty=beta, length_penalty="wu"
    )
    for source, most, some in zip(SOURCES, [5, 3, 4], found, strict=True):
        looks = model.looks.tolist()

        def coverage(seq: Sequence[int], S: int = len(source) + 1, looks: Any = looks) -> float:
            return sum(
                beta * math.log(min(1.0, sum(looks[token][s] for token in (END, *seq)))) for s in range(S)
            )

        same(some, ranked(model, source, most, "wu", extra=coverage)[:30])


# Narrow beams


def plain_beam(
    logp: Callable[[list[int]], list[float]], k: int, n_best: int, longest: int, least: int,
    penalty: Callable[[int], float],
) -> list[tuple[float, float, list[int]]]:  # fmt: skip
    """Search one sentence: keep hypotheses that end among the k best of a step; the k best others go on.

    It stops when k have ended and none that goes on is better now than the `n_best` of them.
    """
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[tuple[float, float, list[int]]] = []
    while running:
        if len(done) >= k and running[0][0] / penalty(len(running[0][1])) <= sorted(done)[-n_best][0]:
            break
        options = []
        for total, seq in running:
            for token, value in enumerate(logp(seq)):
                if (token == END and len(seq) >= min(least, longest)) or (
                    token != END and len(seq) < longest
                ):
                    options.append((total + value, seq, token))
        options.sort(key=lambda option: -option[0])
        for total, seq, token in options[:k]:
            if token == END:
                done.append((total / penalty(len(seq) + 1), total, seq))
        running = [(total, [*seq, token]) for total, seq, token in options[: 2 * k] if token != END][:k]
    return sorted(done, reverse=True)[:n_best]


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
def test_a_narrow_beam_is_a_plain_one(beam_size: int, penalty: str) -> None:
    """Over random Markov models; the plain beam has no bound on what can be reached: it must lose nothing."""
    sources = [[0, 2], [1], [2, 2, 2], [3], [4, 0, 0]]
    longest = [6, 1, 9, 3, 20]
    for seed in range(12):
        model = Markov(seed, vocab_size=5, spread=0.5 + seed / 8)
        least, n_best = seed % 3, 1 + seed % beam_size
        found = search(
            model, sources, longest, beam_size=beam_size, n_best=n_best, length_penalty=penalty,
            length_alpha=0.7, min_length=least,
        )  # fmt: skip
        for source, most, some in zip(sources, longest, found, strict=True):
            table = model.logits[source[0]].double().log_softmax(dim=-1).tolist()
            expected = plain_beam(
                lambda seq, table=table: table[len(seq)][seq[-1] if seq else END],
                beam_size, n_best, most, least, lambda n: PENALTIES[penalty](n, 0.7),
            )  # fmt: skip
            same(some, expected)


VARIED = [random_tokens(5, n, seed=n).tolist() for n in (1, 12, 3, 7, 2, 9)]


@every_model
def test_a_beam_of_one_is_greedy(name: str) -> None:
    """The likeliest token, each from a pass over all before it, until that is the end."""
    model = MODELS[name]()
    longest = [3, 14, 6, 9, 1, 12]
    lengths = set()
    for source, most, (h,) in zip(VARIED, longest, search(model, VARIED, longest, beam_size=1), strict=True):
        tokens: list[int] = []
        while len(tokens) < most:
            token = int(token_logits(model, source, [tokens])[0, -1].argmax())
            if token == END:
                break
            tokens.append(token)
        assert h.tokens == tokens
        lengths.add(len(tokens))
    assert len(lengths) > 1


@every_model
def test_sentences_alone_or_together(name: str) -> None:
    """Very different lengths; a log-probability is that of reading the translation."""
    model = MODELS[name]()
    longest = [15, 3, 9, 1, 20, 8]
    options = {"beam_size": 4, "n_best": 3, "keep": True}
    together = search(model, VARIED, longest, **options)
    for source, most, some in zip(VARIED, longest, together, strict=True):
        (alone,) = search(model, [source], [most], **options)
        same(some, [(h.score, h.log_probability, h.tokens) for h in alone])
        assert [h.score for h in some] == sorted((h.score for h in some), reverse=True)
        for h, other in zip(some, alone, strict=True):
            assert len(h.tokens) <= most
            assert h.attention is not None
            assert h.attention.shape == (len(h.tokens) + 1, len(source) + 1)
            torch.testing.assert_close(h.attention, other.attention, rtol=1e-5, atol=1e-5)
            # What reading the tokens at once looks at.
            _, state = model.step(
                torch.tensor([[END, *h.tokens]]),
                model.start((torch.tensor([[*source, END]]), torch.tensor([len(source) + 1]))),
            )
            torch.testing.assert_close(h.attention, state.attention[0], rtol=1e-5, atol=1e-5)
    pairs = [(source, h) for source, some in zip(VARIED, together, strict=True) for h in some]
    for source, h in pairs:
        logp = token_logits(model, source, [h.tokens]).double().log_softmax(dim=-1)
        assert totals(logp, [h.tokens]) == pytest.approx([h.log_probability], abs=1e-5)
    assert search(model, VARIED, longest)[0][0].attention is None


# Ensembles


def test_an_ensemble_of_one_model_twice_is_that_model() -> None:
    for name, make in MODELS.items():
        model = make()
        ensemble = Ensemble([model, model])
        assert ensemble.shows_attention, name
        options = {"beam_size": 4, "n_best": 4, "keep": True}
        once, twice = (search(some, VARIED, [9] * 6, **options) for some in (model, ensemble))
        for one, two in zip(once, twice, strict=True):
            same(two, [(h.score, h.log_probability, h.tokens) for h in one])
            for h, other in zip(one, two, strict=True):
                torch.testing.assert_close(h.attention, other.attention, rtol=1e-5, atol=1e-6)


def test_two_models_decide_by_the_mean_of_their_probabilities() -> None:
    """Every sequence scored with log((p + q) / 2) of each token, and a wide beam that finds the best."""
    first, second = MODELS["nmt"](), MODELS["transformer"]()
    ensemble = Ensemble([first, second])
    found = search(ensemble, SOURCES, [4] * 3, beam_size=400, n_best=25, length_penalty="none", keep=True)
    sequences = every_sequence(4)
    for source, some in zip(SOURCES, found, strict=True):
        p, q = (token_logits(one, source, sequences).double().softmax(dim=-1) for one in (first, second))
        mean = ((p + q) / 2).log()
        scored = zip(totals(mean, sequences), map(list, sequences), strict=True)
        expected = sorted(((total, total, seq) for total, seq in scored), reverse=True)
        same(some, expected[:25])
        logits = token_logits(ensemble, source, sequences).double()
        torch.testing.assert_close(logits, mean, rtol=1e-5, atol=1e-5)
    context = (torch.tensor([[*SOURCES[0], END]]), torch.tensor([len(SOURCES[0]) + 1]))
    best = found[0][0]
    tokens = torch.tensor([[END, *best.tokens]])
    looks = [model.step(tokens, model.start(context))[1].attention[0] for model in (first, second)]
    torch.testing.assert_close(best.attention, sum(looks) / 2, rtol=1e-5, atol=1e-5)


# Penalties


def test_penalties_in_numbers() -> None:
    assert wu_length(1, 0.9) == 1.0
    assert wu_length(7, 1.0) == 2.0
    assert wu_length(19, 0.5) == 2.0
    assert average_length(9, 0.5) == 3.0
    assert average_length(4, 0.0) == wu_length(4, 0.0) == no_length(4, 3.0) == 1.0
    coverage = torch.tensor([[0.5, 2.0, 1.0], [0.25, 0.5, 7.0]])
    expected = torch.tensor([math.log(0.5), 3 * math.log(0.5)])
    torch.testing.assert_close(wu_coverage(coverage, 0.4), 0.4 * expected)
    never = float(wu_coverage(torch.tensor([0.0, 1.0]), 1.0))  # as bad as anything, and still a number
    assert -math.inf < never < -10
