"""Masks: their shares, their units, and that a batch is a pure function of seed and step."""

import itertools
import random
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_book

from seqexp.config.data import OwnTextConfig
from seqexp.config.tokenizer import BPEConfig, SentencePieceConfig, WordPieceConfig
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.masked_text import MaskedTextData
from seqexp.data.masking import LONGEST_SPAN, Masking, Vocabulary
from seqexp.data.text import TextData
from seqexp.errors import UserError
from seqexp.metrics.neighbours import OFFSETS, fill_in

# Tokens 0 to 4 are special, 4 is the mask; even ones begin a word.
V, MASK = 1000, 4
ORDINARY = np.arange(V) >= 5
VOCABULARY = Vocabulary(MASK, ORDINARY, (np.arange(V) % 2 == 0) | ~ORDINARY)


def windows(B: int, T: int, seed: int = 0) -> Any:
    """Random tokens between special ones."""
    tokens = np.random.default_rng(seed).integers(5, V, (B, T))
    tokens[:, 0], tokens[:, -1] = 2, 3
    return tokens


@pytest.mark.parametrize("unit", ["token", "word", "span"])
@pytest.mark.parametrize("share", [0.15, 0.4])
def test_the_shares_of_masks(share: float, unit: str) -> None:
    """15 % are chosen; of these 80 % are masks, 10 % random tokens, 10 % as they are; no special one."""
    tokens = windows(400, 102)
    masking = Masking(share, 0.8, 0.1, unit)
    seen, positions, targets = masking.apply(tokens, VOCABULARY, 100, np.random.default_rng(1))
    real = targets != IGNORE
    rows = np.arange(400)[:, None]
    assert positions.shape == (400, round(share * 100))
    np.testing.assert_array_equal(tokens[rows, positions][real], targets[real])
    if unit == "token":
        assert real.all()
    else:  # a word that does not fit is left out
        assert real.mean() > 0.9
    shown = seen[rows, positions][real]
    n = real.sum()
    assert (shown == MASK).mean() == pytest.approx(
        0.8, abs=4 * (0.16 / n) ** 0.5 * (3 if unit == "span" else 1)
    )
    assert (shown == targets[real]).mean() == pytest.approx(0.1, abs=0.03)
    assert ORDINARY[targets[real]].all()
    others = shown[(shown != MASK) & (shown != targets[real])]
    assert ORDINARY[others].all()
    assert len(set(others.tolist())) > 100
    untouched = np.ones(tokens.shape, dtype=bool)
    untouched[np.nonzero(real)[0], positions[real]] = False
    np.testing.assert_array_equal(seen[untouched], tokens[untouched])
    for row, some in zip(positions, real, strict=True):
        assert (np.diff(row[some]) > 0).all(), "each position once, in order"


def test_every_position_is_as_likely() -> None:
    counts = np.zeros(42)
    tokens = windows(1, 42)
    for seed in range(2000):
        _, positions, _ = Masking().apply(tokens, VOCABULARY, 40, np.random.default_rng(seed))
        counts[positions[0]] += 1
    assert counts[0] == counts[-1] == 0
    assert np.abs(counts[1:-1] / 2000 - 0.15).max() < 5 * (0.15 * 0.85 / 2000) ** 0.5


def words_of(tokens: Any) -> list[tuple[int, int]]:
    """The words of a row between its special tokens: begin and end."""
    starts = [t for t in range(1, len(tokens) - 1) if t == 1 or VOCABULARY.starts_word[tokens[t]]]
    return list(zip(starts, [*starts[1:], len(tokens) - 1], strict=True))


@pytest.mark.parametrize("unit", ["word", "span"])
def test_words_are_masked_whole(unit: str) -> None:
    tokens = windows(200, 66)
    seen, positions, targets = Masking(0.3, 1.0, 0.0, unit).apply(
        tokens, VOCABULARY, 64, np.random.default_rng(1)
    )
    runs = Counter[int]()
    for row, where, true, shown in zip(tokens, positions, targets, seen, strict=True):
        chosen = set(where[true != IGNORE].tolist())
        assert chosen
        assert all(shown[t] == MASK for t in chosen)
        words = words_of(row)
        for i, j in words:
            assert len(chosen & set(range(i, j))) in (0, j - i)
        run = 0
        for i, _ in words:
            run = run + 1 if i in chosen else 0
            runs[run] += 1
    assert max(runs) <= LONGEST_SPAN * 3
    assert (runs[4] > 100) == (unit == "span")


def test_a_span_is_shown_in_one_way() -> None:
    tokens = windows(100, 102)
    tokens[:, 1:-1] = 2 * np.arange(3, 103)  # words of one token, each another
    seen, positions, targets = Masking(0.3, 0.5, 0.5, "span").apply(
        tokens, VOCABULARY, 100, np.random.default_rng(1)
    )
    pairs = Counter[bool]()
    for where, true, shown in zip(positions, targets, seen, strict=True):
        chosen = where[true != IGNORE]
        for a, b in itertools.pairwise(chosen):
            if b == a + 1:
                pairs[bool((shown[a] == MASK) == (shown[b] == MASK))] += 1
    assert pairs[True] > 10 * pairs[False]


def test_short_rows_have_fewer_masks_and_at_least_one() -> None:
    tokens = np.zeros((3, 42), dtype=np.int64)
    for b, n in enumerate((40, 10, 1)):
        tokens[b, 1 : 1 + n] = 8
    for unit in ("token", "word", "span"):
        _, positions, targets = Masking(unit=unit).apply(tokens, VOCABULARY, 40, np.random.default_rng(0))
        assert (targets != IGNORE).sum(axis=1).tolist() == [6, 2, 1]
        assert (positions[targets == IGNORE] == 0).all()


def test_a_long_word_is_masked_in_part() -> None:
    tokens = np.full((1, 42), 7)
    tokens[0, 0], tokens[0, 1], tokens[0, -1] = 2, 6, 3
    _, positions, targets = Masking(unit="word").apply(tokens, VOCABULARY, 40, np.random.default_rng(0))
    assert positions[0].tolist() == [1, 2, 3, 4, 5, 6]
    assert (targets != IGNORE).all()


# Windows

BOOK = make_book(30_000)


def data_of(
    texts: list[str], seed: int = 3, masking: Masking | None = None, tokenizer: Any = None,
    dynamic: bool = True, cross_documents: bool = False, **options: Any,
) -> MaskedTextData:  # fmt: skip
    folder = Path("texts")
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:03d}.txt").write_text(text)
    config = OwnTextConfig("text", path=str(folder), seq_len=16, batch_size=4, **options)
    data = TextData.build(config, tokenizer or WordPieceConfig(vocab_size=300), seed)
    return MaskedTextData.of(data, masking or Masking(), dynamic, cross_documents)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    data, again, other = data_of([BOOK]), data_of([BOOK]), data_of([BOOK], seed=4)
    late = int(3 * data.steps_per_epoch) + 1
    for step in (late, 0, 5):
        assert same(data.train_batch(step), again.train_batch(step))
        assert not same(data.train_batch(step), other.train_batch(step))
    assert not same(data.train_batch(0), data.train_batch(1))


def true_tokens(batch: Batch) -> Any:
    """The tokens before masking, by row."""
    tokens = batch.tokens.clone()
    real = batch.targets != IGNORE
    rows = torch.arange(len(tokens))[:, None].expand_as(real)
    tokens[rows[real], batch.positions[real]] = batch.targets[real]
    return tokens


def epoch_of(data: MaskedTextData, epoch: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The windows of an epoch in order: their true tokens, and the masked positions."""
    n, size = data.windows, data.config.batch_size
    steps = range(epoch * n // size, -(-(epoch + 1) * n // size))
    batches = [data.train_batch(step) for step in steps]
    tokens = [tuple(row.tolist()) for batch in batches for row in true_tokens(batch)]
    positions = [tuple(row.tolist()) for batch in batches for row in batch.positions]
    first = epoch * n - steps[0] * size
    return list(zip(tokens, positions, strict=True))[first : first + n]


def test_an_epoch_visits_every_window_once_and_dynamic_masks_change() -> None:
    data = data_of([BOOK])
    first, second = epoch_of(data, 0), epoch_of(data, 1)
    assert len({tokens for tokens, _ in first}) == data.windows
    assert {tokens for tokens, _ in first} != {tokens for tokens, _ in second}, "cut from another start"
    text = "".join(data.tokenizer.piece(t) + " " for tokens, _ in sorted(first) for t in tokens[1:-1])
    assert len(text) > 0.9 * 0.9 * len(BOOK)


def test_static_masks_are_the_same_in_every_epoch() -> None:
    data = data_of([BOOK], dynamic=False)
    first, second = epoch_of(data, 0), epoch_of(data, 1)
    assert first != second
    assert sorted(first) == sorted(second)


def test_windows_do_not_cross_documents_unless_asked() -> None:
    """Documents of different words: a window has those of one; short documents are padded."""
    draw = random.Random(0)
    documents = [" ".join(f"{letter}{draw.randrange(9)}" for _ in range(n)) for letter, n in
                 (("a", 50), ("b", 8), ("c", 3), ("d", 70))]  # fmt: skip
    for cross in (False, True):
        data = data_of(documents, cross_documents=cross, val_path=str(Path("texts/000.txt").absolute()))
        tokenizer = data.tokenizer
        mixed, seen = 0, set[str]()
        for tokens, _ in epoch_of(data, 0):
            assert tokens[0] == tokenizer.bos_id
            ids = [t for t in tokens if t not in tokenizer.special_tokens().values()]
            letters = {tokenizer.decode([t])[:1] for t in ids} & set("abcd")
            seen |= letters
            mixed += len(letters) > 1
            assert tokens.count(tokenizer.bos_id) == 1
        assert seen == set("abcd")
        assert bool(mixed) == cross
        batch = data.train_batch(0)
        assert ("tokens" in batch.lengths) == (not cross)


def test_the_validation_is_whole_and_its_masks_are_fixed() -> None:
    """Each token of the split is in one window, whatever the seed and the masks of training."""
    data = data_of([BOOK], split="contiguous")
    other = data_of([BOOK], seed=9, masking=Masking(0.4, unit="span"))
    part = data.splits["val"]
    ids: list[int] = []
    count = 0
    for batch, again in zip(data.eval_batches("val"), other.eval_batches("val"), strict=True):
        assert same(batch, again)
        lengths = batch.lengths.get("tokens", torch.full((len(batch),), 16))
        for row, length in zip(true_tokens(batch), lengths.tolist(), strict=True):
            ids += row[1 : length - 1].tolist()
            assert row[length - 1] == data.tokenizer.eos_id
        real = batch.targets != IGNORE
        rows = torch.arange(len(batch))[:, None].expand_as(real)
        assert (batch.tokens[rows[real], batch.positions[real]] == data.tokenizer.mask_id).all()
        count += batch.count
    expected = part.windows(np.array([0]), part.tokens)[0, 1:].tolist()
    assert ids == expected
    assert count == data.eval_count("val")
    assert count == pytest.approx(0.15 * len(ids), rel=0.05)


def test_nothing_is_learnt_from_tokens_that_are_not_masked() -> None:
    """The loss depends on other tokens as inputs alone: only those of the masked ones have a gradient."""
    from seqexp.config.masked import MaskedLanguageModelingConfig
    from seqexp.tasks.masked_language_modeling import MaskedLanguageModeling

    data = data_of([BOOK])
    batch = data.train_batch(0)
    logits = torch.randn(4, batch.positions.shape[1], data.tokenizer.vocab_size, requires_grad=True)
    asked = []

    def model(tokens: Any, lengths: Any, positions: Any) -> Any:
        asked.append(positions)
        return logits * 1

    task = MaskedLanguageModeling(MaskedLanguageModelingConfig())
    loss = task.loss(model, batch, training=True)
    assert torch.equal(asked[0], batch.positions)
    log_p = logits.detach().log_softmax(dim=2)
    rows, columns = torch.nonzero(batch.targets != IGNORE, as_tuple=True)
    expected = -log_p[rows, columns, batch.targets[rows, columns]].sum()
    assert loss.loss_sum.item() == pytest.approx(expected.item(), rel=1e-5)
    assert batch.count == len(rows)
    loss.loss_sum.backward()
    p = log_p.exp()
    p[rows, columns, batch.targets[rows, columns]] -= 1
    p[batch.targets == IGNORE] = 0
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, p, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "tokenizer", [BPEConfig(vocab_size=320), SentencePieceConfig(vocab_size=340, mask=True)]
)
def test_other_tokenizers_with_masks(tokenizer: Any) -> None:
    data = data_of([BOOK], tokenizer=tokenizer, masking=Masking(unit="word"))
    batch = data.train_batch(0)
    assert data.tokenizer.mask_id is not None
    assert (batch.tokens == data.tokenizer.mask_id).any()
    assert not (true_tokens(batch) == data.tokenizer.mask_id).any()


def test_a_tokenizer_without_masks_is_refused() -> None:
    with pytest.raises(UserError, match="no mask token"):
        data_of([BOOK], tokenizer=SentencePieceConfig(vocab_size=340))


# The baseline


def test_the_baseline_is_its_loop() -> None:
    """Witten–Bell interpolation over the neighbours that are shown, by dictionaries."""
    draw = np.random.default_rng(0)
    V = 6
    training = draw.integers(0, V, 500).astype(np.uint16)
    neighbours = draw.integers(-1, V, (200, 4))
    true = draw.integers(0, V, 200)
    found = fill_in(training, neighbours, true, V)
    unigrams = Counter(training.tolist())
    assert found.most_frequent == max(range(V), key=lambda token: unigrams[token])

    @cache
    def counts(chosen: tuple[tuple[int, int], ...]) -> Counter[int]:
        """The tokens with these tokens at these offsets."""
        places = range(2, len(training) - 2)
        return Counter(
            int(training[i]) for i in places if all(training[i + offset] == token for offset, token in chosen)
        )

    for row, token, best, log_p in zip(neighbours, true, found.best, found.log_probabilities, strict=True):
        shown = [(offset, int(one)) for offset, one in zip(OFFSETS, row, strict=True) if one >= 0]
        p = [(unigrams[w] + len(unigrams) / V) / (len(training) + len(unigrams)) for w in range(V)]
        assert sum(p) == pytest.approx(1)
        candidates = {found.most_frequent}
        for n in range(1, len(shown) + 1):
            some = counts(tuple(shown[:n]))
            if some:
                N, T = some.total(), len(some)
                p = [(some[w] + T * p[w]) / (N + T) for w in range(V)]
                candidates.add(min(some, key=lambda w: (-some[w], w)))
        assert sum(p) == pytest.approx(1)
        assert log_p == pytest.approx(np.log(p[token]))
        assert p[best] == pytest.approx(max(p[w] for w in candidates))


def test_the_neighbours_of_masks() -> None:
    data = data_of([BOOK])
    neighbours, true = data.neighbours("val", OFFSETS)
    number = 0
    special = set(data.tokenizer.special_tokens().values())
    for batch in data.eval_batches("val"):
        for tokens, positions, targets in zip(
            batch.tokens.tolist(), batch.positions.tolist(), batch.targets.tolist(), strict=True
        ):
            for t, target in zip(positions, targets, strict=True):
                if target == IGNORE:
                    continue
                assert true[number] == target
                for offset, found in zip(OFFSETS, neighbours[number], strict=True):
                    there = tokens[t + offset] if 0 <= t + offset < len(tokens) else -1
                    assert found == (-1 if there in special else there)
                number += 1
    assert number == len(true) == data.eval_count("val")
