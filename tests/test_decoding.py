"""Decoding: the cache against recomputing, sampling against arithmetic by hand, text as it grows."""

import ast
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_book
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import seqexp
from seqexp.config.run import GenerationConfig
from seqexp.decoding.sampling import draw, filter_logits, sample
from seqexp.decoding.text import generate_texts, prompt_ids
from seqexp.errors import UserError
from seqexp.models.gpt import GPT
from seqexp.models.layers import window_start
from seqexp.tokenizers.base import Tokenizer
from seqexp.tokenizers.byte import ByteTokenizer
from seqexp.tokenizers.char import CharTokenizer

POSITIONS = ("learned", "sinusoidal", "rotary")
V = 13


def wild_gpt(max_len: int = 8, positions: str = "learned", vocab_size: int = V) -> GPT:
    """Random weights large enough for decided logits: no ties that rounding could turn.

    The head is not tied, so that the model does not repeat what it has just read.
    """
    torch.manual_seed(3)
    model = GPT(
        vocab_size, max_len, n_layer=2, n_head=2, n_embd=16, positions=positions, tie_embeddings=False
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.5)
    return model.eval()


def random_tokens(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def window_by_hand(n: int, max_len: int) -> int:
    """Count tokens into a window that, when full, forgets all but its last half."""
    held = 0
    for _ in range(n):
        if held == max_len:
            held = max_len // 2
        held += 1
    return n - held


def recomputed(model: GPT, tokens: Tensor) -> Tensor:
    """The logits after each token, each from a pass of its own over the window, (B, T, V)."""
    lengths = range(1, tokens.shape[1] + 1)
    with torch.no_grad():
        rows = [model(tokens[:, window_by_hand(n, model.max_len) : n])[:, -1] for n in lengths]
    return torch.stack(rows, dim=1)


def stepped(model: Any, tokens: Tensor, sizes: Sequence[int]) -> Tensor:
    """The logits after each token from `step` in chunks of these sizes."""
    state, logits = model.start(), []
    with torch.no_grad():
        for chunk in tokens.split(list(sizes), dim=1):
            some, state = model.step(chunk, state)
            assert some.shape[:2] == chunk.shape
            logits.append(some)
    return torch.cat(logits, dim=1)


# The cache


@given(n=st.integers(0, 200), max_len=st.integers(2, 33))
def test_window_start(n: int, max_len: int) -> None:
    assert window_start(n, max_len) == window_by_hand(n, max_len)


@pytest.mark.parametrize("prompt_length", [1, 5, 30])
@pytest.mark.parametrize("max_len", [2, 7, 8])
@pytest.mark.parametrize("positions", POSITIONS)
def test_cached_greedy_is_uncached_greedy(positions: str, max_len: int, prompt_length: int) -> None:
    model = wild_gpt(max_len, positions)
    prompt = random_tokens(2, prompt_length)
    new = 5 * max_len
    cached = torch.stack(list(sample(model, prompt, max_new_tokens=new, temperature=0)), dim=1)
    tokens = prompt
    with torch.no_grad():
        for _ in range(new):
            n = tokens.shape[1]
            logits = model(tokens[:, window_start(n, max_len) : n])[:, -1]
            tokens = torch.cat([tokens, logits.argmax(dim=-1, keepdim=True)], dim=1)
    assert cached.shape == (2, new)
    assert torch.equal(cached, tokens[:, prompt_length:])
    assert len(set(cached.flatten().tolist())) > 2  # what repeats one token would prove little


@pytest.mark.parametrize("max_len", [2, 7, 8])
@pytest.mark.parametrize("positions", POSITIONS)
def test_steps_of_any_size_give_the_same_logits(positions: str, max_len: int) -> None:
    model, length = wild_gpt(max_len, positions), 4 * max_len + 3
    tokens = random_tokens(2, length)
    expected = recomputed(model, tokens)
    sizes = [[length], [1] * length, [max_len, length - max_len], [1, max_len, length - max_len - 1]]
    for some in sizes:
        torch.testing.assert_close(stepped(model, tokens, some), expected, rtol=1e-5, atol=1e-5)


@given(
    data=st.data(),
    length=st.integers(1, 40),
    positions=st.sampled_from(POSITIONS),
    max_len=st.integers(2, 9),
)
def test_random_chunks(data: st.DataObject, length: int, positions: str, max_len: int) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1)))) if length > 1 else []
    sizes = [end - start for start, end in zip([0, *cuts], [*cuts, length], strict=True)]
    model, tokens = wild_gpt(max_len, positions), random_tokens(1, length)
    torch.testing.assert_close(stepped(model, tokens, sizes), recomputed(model, tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_row_alone_or_in_a_batch(positions: str) -> None:
    model, tokens = wild_gpt(positions=positions), random_tokens(5, 29)
    sizes = [3, 10, 1, 1, 14]
    together = stepped(model, tokens, sizes)
    for row in range(5):
        alone = stepped(model, tokens[row : row + 1], sizes)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seen", [3, 8, 20])
def test_select_reorders_and_repeats_rows(seen: int) -> None:
    """Selected rows continue as if they had been read alone, also when the window moves afterwards."""
    model, rows = wild_gpt(), torch.tensor([2, 0, 0, 1])
    tokens, more = random_tokens(3, seen), random_tokens(4, 12, seed=9)
    with torch.no_grad():
        _, state = model.step(tokens, model.start())
        state = model.select(state, rows)
        logits, state = model.step(more[:, :7], state)
        rest, _ = model.step(more[:, 7:], state)
    expected = recomputed(model, torch.cat([tokens[rows], more], dim=1))[:, seen:]
    torch.testing.assert_close(torch.cat([logits, rest], dim=1), expected, rtol=1e-5, atol=1e-5)


def test_two_selections_of_one_state_do_not_disturb_each_other() -> None:
    model = wild_gpt()
    tokens, left, right = random_tokens(2, 4), random_tokens(2, 3, seed=5), random_tokens(2, 3, seed=6)
    with torch.no_grad():
        _, state = model.step(tokens, model.start())
        one, other = model.select(state, torch.tensor([0, 1])), model.select(state, torch.tensor([0, 1]))
        first, one = model.step(left[:, :1], one)
        model.step(right, other)
        rest, _ = model.step(left[:, 1:], one)
    expected = recomputed(model, torch.cat([tokens, left], dim=1))[:, 4:]
    torch.testing.assert_close(torch.cat([first, rest], dim=1), expected, rtol=1e-5, atol=1e-5)


def test_select_of_a_state_that_has_seen_nothing() -> None:
    model = wild_gpt()
    state = model.select(model.start(), torch.tensor([0, 0]))
    with torch.no_grad():
        logits, _ = model.step(random_tokens(2, 3), state)
    torch.testing.assert_close(logits, recomputed(model, random_tokens(2, 3)), rtol=1e-5, atol=1e-5)


# Probabilities and draws


def probabilities_by_hand(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """Softmax, top-k with ties, nucleus: in plain Python, over one row."""
    scores: list[float] = [logit / temperature for logit in logits]
    if 0 < top_k < len(scores):
        smallest = sorted(scores, reverse=True)[top_k - 1]
        scores = [score if score >= smallest else -math.inf for score in scores]
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    total = sum(weights)
    chances = [weight / total for weight in weights]
    if top_p < 1:
        order = sorted(range(len(chances)), key=lambda i: (-chances[i], i))
        kept, held = [], 0.0
        for i in order:
            assume(abs(held - top_p) > 1e-9)  # where rounding decides, either set is right
            if held >= top_p:
                break
            kept.append(i)
            held += chances[i]
        chances = [chance / held if i in kept else 0.0 for i, chance in enumerate(chances)]
    return chances


@given(
    # Quarters, so that ties are common and exact.
    rows=st.lists(st.lists(st.integers(-20, 20).map(lambda i: i / 4), min_size=6, max_size=6), min_size=1),
    temperature=st.sampled_from([0.05, 0.5, 1.0, 2.0]),
    top_k=st.integers(0, 8),
    top_p=st.floats(0.01, 1.0),
)
def test_filter_logits_by_brute_force(
    rows: list[list[float]], temperature: float, top_k: int, top_p: float
) -> None:
    got = filter_logits(torch.tensor(rows), temperature, top_k, top_p)
    expected = [probabilities_by_hand(row, temperature, top_k, top_p) for row in rows]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)
    assert torch.equal(got == 0, torch.tensor(expected, dtype=torch.float64) == 0)


def test_filters_in_figures() -> None:
    """Chances of 0.5, 0.3, 0.15 and 0.05, worked out on paper."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for options, expected in [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.45}, [1, 0, 0, 0]),
        ({"top_p": 0.6}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.9}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        ({"top_p": 0.7, "top_k": 3}, [0.625, 0.375, 0, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
    ]:
        got = filter_logits(logits, 1.0, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(got, torch.tensor([expected]).double(), rtol=0, atol=1e-7)
    squares = torch.tensor([[0.25, 0.09, 0.0225, 0.0025]]).double()
    torch.testing.assert_close(filter_logits(logits, 0.5), squares / squares.sum(), rtol=1e-6, atol=0)


def test_a_temperature_near_zero_is_greedy() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.9]])
    assert filter_logits(logits, 1e-30).tolist() == [[0, 1, 0]]


@given(
    weights=st.lists(st.integers(0, 5), min_size=2, max_size=7).filter(any),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_draw_is_the_inverse_of_the_distribution(weights: list[int], uniform: float) -> None:
    total = sum(weights)
    chances = torch.tensor([[weight / total for weight in weights]], dtype=torch.float64)
    steps = np.cumsum(weights) / total
    assume(np.abs(steps - uniform).min() > 1e-12)
    expected = next(i for i, step in enumerate(steps) if step > uniform)
    assert draw(chances, torch.tensor([uniform], dtype=torch.float64)).tolist() == [expected]


def test_draw_at_the_ends() -> None:
    """The extreme values of a generator never draw a token of probability zero."""
    chances = torch.tensor([[0, 0.1, 0.2, 0.7, 0]], dtype=torch.float64)
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(chances.expand(2, 5), ends).tolist() == [1, 3]
    # Rounding may leave the sum a little off 1.
    assert draw(chances.expand(2, 5) * (1 - 1e-9), ends).tolist() == [1, 3]


class Fixed:
    """A model with the same logits after every token."""

    def __init__(self, logits: list[float]) -> None:
        self.logits = torch.tensor(logits)

    def start(self, context: Any = None) -> None:
        return None

    def step(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
        return self.logits.expand(*tokens.shape, -1).clone(), None

    def select(self, state: None, rows: Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1.0}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"temperature": 1.0, "top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.8}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"temperature": 1.0, "suppress_tokens": [1]}, [4 / 7, 0, 2 / 7, 1 / 7]),
    ],
)
def test_frequencies_are_probabilities(options: dict[str, Any], expected: list[float]) -> None:
    """Pearson's chi-square over 4,000 draws, bounded at five deviations above what chance gives."""
    model = Fixed(np.log([0.4, 0.3, 0.2, 0.1]).tolist())
    tokens = torch.stack(list(sample(model, torch.zeros(4, 1).long(), max_new_tokens=1000, **options)))
    counts = torch.bincount(tokens.flatten(), minlength=4).double().numpy()
    wanted = 4000 * np.array(expected)
    assert counts[wanted == 0].sum() == 0
    possible = wanted > 0
    freedom = possible.sum() - 1
    chi_square = float(((counts - wanted)[possible] ** 2 / wanted[possible]).sum())
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_tokens_never_drawn() -> None:
    model = Fixed([9.0, 8.0, 1.0, 0.0])
    for temperature in (0.0, 1.0):
        drawn = sample(
            model,
            torch.zeros(2, 1).long(),
            max_new_tokens=50,
            temperature=temperature,
            suppress_tokens=[0, 1],
        )
        assert set(torch.stack(list(drawn)).flatten().tolist()) <= {2, 3}


def test_a_seed_names_the_draws_of_each_row() -> None:
    model, prompt = wild_gpt(), random_tokens(1, 3)

    def drawn(rows: int, seed: int) -> list[list[int]]:
        tokens = sample(model, prompt.expand(rows, -1), max_new_tokens=25, temperature=1.5, seed=seed)
        return torch.stack(list(tokens), dim=1).tolist()

    four = drawn(4, seed=7)
    assert drawn(4, seed=7) == four
    assert drawn(1, seed=7) == four[:1]
    assert drawn(3, seed=7) == four[:3]
    assert len({tuple(row) for row in four}) == 4
    assert drawn(4, seed=8) != four


def test_sampling_leaves_the_random_state_alone() -> None:
    model, before = wild_gpt(), torch.get_rng_state()
    list(sample(model, random_tokens(1, 3), max_new_tokens=5, temperature=1.0, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_caller_may_train_between_two_tokens() -> None:
    """Gradients are recorded, the mode stays, and the next token is that of the model as it is then."""
    model, prompt = wild_gpt(16), random_tokens(2, 3)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    tokens = prompt
    for chosen in sample(model, prompt, max_new_tokens=4, temperature=0):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
        assert model.training
        assert not chosen.is_inference() or not chosen.requires_grad
        loss = model(tokens).square().mean()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
        optimizer.zero_grad()
        tokens = torch.cat([tokens, chosen[:, None]], dim=1)
    assert tokens.shape == (2, 7)


def test_sampling_is_in_evaluation_mode() -> None:
    """Dropout is off while tokens are drawn, whatever the caller's mode."""
    torch.manual_seed(3)
    model = GPT(V, 16, n_layer=2, n_head=2, n_embd=16, dropout=0.5)
    drawn = []
    for mode in (True, False):
        model.train(mode)
        drawn.append(torch.stack(list(sample(model, random_tokens(2, 3), max_new_tokens=9, temperature=1.0))))
        assert model.training == mode
    assert torch.equal(*drawn)


def test_sampling_that_is_broken_off_leaves_the_mode() -> None:
    model = wild_gpt(16).train()
    drawn = sample(model, random_tokens(1, 3), max_new_tokens=9, temperature=1.0)
    next(drawn)
    del drawn
    assert model.training
    assert torch.is_grad_enabled()

    class Broken:
        training = True

        def __init__(self) -> None:
            self.modes: list[bool] = []

        def start(self) -> None: ...

        def step(self, *_: Any) -> Any:
            raise RuntimeError("ill")

        def eval(self) -> None:
            self.modes.append(False)

        def train(self) -> None:
            self.modes.append(True)

    broken = Broken()
    with pytest.raises(RuntimeError, match="ill"):
        next(sample(broken, random_tokens(1, 3), max_new_tokens=9, temperature=1.0))  # type: ignore[arg-type]
    assert broken.modes == [False, True]


# What changes torch for all code until it ends, and so must not stand around a yield.
GLOBAL = {
    "inference_mode", "no_grad", "enable_grad", "set_grad_enabled", "autocast", "evaluation_mode",
    "redirect_stdout", "redirect_stderr", "catch_warnings", "deterministic",
}  # fmt: skip


def names_in(node: ast.AST) -> set[str]:
    return {n.attr if isinstance(n, ast.Attribute) else n.id for n in ast.walk(node)
            if isinstance(n, ast.Attribute | ast.Name)}  # fmt: skip


def test_no_generator_changes_global_state_around_a_yield() -> None:
    """In all sources; context managers, whose purpose that is, aside."""
    found = []
    for file in Path(seqexp.__file__).parent.rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            decorators = set().union(*map(names_in, function.decorator_list), set())
            if "contextmanager" in decorators:
                continue
            yields = any(isinstance(n, ast.Yield | ast.YieldFrom) for n in ast.walk(function))
            if yields and decorators & GLOBAL:
                found.append(f"{file.name}:{function.name}")
            for block in (n for n in ast.walk(function) if isinstance(n, ast.With)):
                inside = any(isinstance(n, ast.Yield | ast.YieldFrom) for n in ast.walk(block))
                if inside and set().union(*(names_in(item.context_expr) for item in block.items)) & GLOBAL:
                    found.append(f"{file.name}:{function.name}:{block.lineno}")
    assert not found


# Text


class Scripted:
    """A model that generates given tokens, one list per row, for any input."""

    def __init__(self, rows: list[list[int]], vocab_size: int) -> None:
        self.rows, self.vocab_size = rows, vocab_size

    def start(self, context: Any = None) -> int:
        return 0

    def step(self, tokens: Tensor, state: int) -> tuple[Tensor, int]:
        logits = torch.zeros(*tokens.shape, self.vocab_size)
        for row, script in enumerate(self.rows):
            logits[row, -1, script[min(state, len(script) - 1)]] = 9.0
        return logits, state + 1

    def select(self, state: int, rows: Tensor) -> int:
        return state


def write_out(rows: list[list[int]], tokenizer: Tokenizer, **options: Any) -> list[list[str]]:
    """What is yielded when a model writes these tokens, up to the longest row."""
    options = {"max_new_tokens": max(map(len, rows)), "num_samples": len(rows), "temperature": 0, **options}
    config = GenerationConfig(**options)
    model = Scripted(rows, tokenizer.vocab_size)
    return list(generate_texts(model, tokenizer, "", config, seed=0, device=torch.device("cpu")))


def check_growth(shown: list[list[str]]) -> None:
    """Shown text is never changed: each text begins with the previous one."""
    for row in range(len(shown[0])):
        texts = [texts[row] for texts in shown]
        for before, after in pairwise(texts):
            assert after.startswith(before), texts


CHARS = CharTokenizer("abc\n")


@given(text=st.text("abc", min_size=1, max_size=12), stop=st.text("abc", min_size=1, max_size=4))
def test_a_stop_string_is_cut_and_never_shown_in_part(text: str, stop: str) -> None:
    shown = write_out([CHARS.encode(text).tolist()], CHARS, stop=stop)
    check_growth(shown)
    assert shown[-1] == [text.partition(stop)[0]]


@given(text=st.text("aé€😀", min_size=1, max_size=6), stop=st.sampled_from(["é", "€😀", "aa", "😀a"]))
def test_a_stop_string_in_bytes(text: str, stop: str) -> None:
    tokenizer = ByteTokenizer()
    shown = write_out([tokenizer.encode(text).tolist()], tokenizer, stop=stop)
    check_growth(shown)
    assert shown[-1] == [text.partition(stop)[0]]


def test_after_a_stop_nothing_more_is_computed() -> None:
    shown = write_out([CHARS.encode("ab\ncccc").tolist()], CHARS, stop="\n", max_new_tokens=1000)
    assert len(shown) <= 4
    assert shown[-1] == ["ab"]


def test_one_sample_stops_and_the_other_goes_on() -> None:
    rows = [CHARS.encode(text).tolist() for text in ("ab\ncc", "cba\nb", "aaaaa")]
    shown = write_out(rows, CHARS, stop="\n")
    check_growth(shown)
    assert shown[-1] == ["ab", "cba", "aaaaa"]


def test_a_boundary_ends_a_sample() -> None:
    rows = [[2, 3, CHARS.bos_id, 4, 4, 4], [3, 3, 3, 3, CHARS.bos_id, 3]]
    assert write_out(rows, CHARS)[-1] == ["ab", "bbbb"]
    assert len(write_out(rows, CHARS, max_new_tokens=100)) == 6


@given(text=st.text(min_size=1, max_size=6).filter(lambda text: "\ufffd" not in text))
def test_no_half_characters_are_shown(text: str) -> None:
    tokenizer = ByteTokenizer()
    shown = write_out([tokenizer.encode(text).tolist()], tokenizer)
    check_growth(shown)
    assert not any("\ufffd" in texts[0] for texts in shown)
    assert shown[-1] == [text]


def test_a_character_cut_by_the_end_is_left_out() -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode("né€").tolist()
    for size, text in [(1, "n"), (2, "n"), (3, "né"), (4, "né"), (5, "né"), (6, "né€")]:
        shown = write_out([ids], tokenizer, max_new_tokens=size)
        assert shown[-1] == [text]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    tokenizer = ByteTokenizer()
    shown = write_out([[97, 0xFF, 98]], tokenizer)
    check_growth(shown)
    assert shown[-1] == ["a\ufffdb"]


@pytest.mark.parametrize("number", [0, 1])
def test_nothing_or_one_token_asked_for(number: int) -> None:
    assert write_out([[2, 3]], CHARS, max_new_tokens=number)[-1] == ["a" * number]


def test_an_unknown_character_in_a_prompt_is_named() -> None:
    with pytest.raises(UserError, match=r"'é', '%'.*tokenizer=byte"):
        prompt_ids(CHARS, "abé%aé")
    assert prompt_ids(ByteTokenizer(), "é") == [0xC3, 0xA9]
    assert prompt_ids(CHARS, "cab") == [4, 2, 3]


@pytest.mark.parametrize("tokenizer", [CHARS, ByteTokenizer()])
def test_an_empty_prompt_is_the_beginning_of_a_document(tokenizer: Tokenizer) -> None:
    assert prompt_ids(tokenizer, "") == [tokenizer.bos_id]


@pytest.fixture
def written() -> Callable[..., list[str]]:
    """Text of a GPT with random weights over the characters of a book."""
    tokenizer = CharTokenizer("".join(sorted(set(make_book(2000)))))
    model = wild_gpt(16, "rotary", tokenizer.vocab_size)

    def write(prompt: str = "The", seed: int = 1, **options: Any) -> list[str]:
        config = GenerationConfig(**{"max_new_tokens": 60, "temperature": 1.0, **options})
        texts: list[str] = []
        for texts in generate_texts(model, tokenizer, prompt, config, seed, torch.device("cpu")):  # noqa: B007
            pass
        return texts

    return write


def test_the_same_seed_writes_the_same_text(written: Callable[..., list[str]]) -> None:
    three = written(num_samples=3)
    assert written(num_samples=3) == three
    assert written() == three[:1]
    assert written(num_samples=2, seed=2) != three[:2]
    assert len(set(three)) == 3


def test_greedy_needs_no_seed(written: Callable[..., list[str]]) -> None:
    assert written(temperature=0, seed=1) == written(temperature=0, seed=2)
    (one, other) = written(temperature=0, num_samples=2)
    assert one == other == written(temperature=0, top_k=1)[0]


def test_unknown_is_never_written(written: Callable[..., list[str]]) -> None:
    assert "\ufffd" not in "".join(written(num_samples=8, temperature=50.0))
