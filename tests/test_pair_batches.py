"""Batches of pairs: a pure function of seed and step, every pair once an epoch, every token counted once."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seqexp.config.data import OtherDataConfig, ParallelDataConfig
from seqexp.config.task import TranslationConfig
from seqexp.config.tokenizer import SentencePieceConfig, WordConfig
from seqexp.data.batch import Batch
from seqexp.data.pair_batch import pair_batch
from seqexp.data.pairs import Pair
from seqexp.data.parallel import ParallelData
from seqexp.errors import UserError
from seqexp.models.nmt import NMT
from seqexp.tasks.translation import Translation, real_positions


def make_pairs(count: int, longest: int = 12) -> list[Pair]:
    """Pairs of which each has a number as its first word, and up to `longest` more words on either side."""
    draw = random.Random(4)
    return [
        (f"s{n}" + " on" * draw.randint(0, longest), f"t{n}" + " sur" * draw.randint(0, longest))
        for n in range(count)
    ]


def write(pairs: list[Pair]) -> None:
    Path("pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in pairs))


def build(pairs: list[Pair], seed: int = 1, **options: Any) -> ParallelData:
    write(pairs)
    config = ParallelDataConfig(name="parallel", path="pairs.tsv", **{"batch_tokens": 64, **options})
    return ParallelData.build(config, WordConfig(min_count=1), seed)


def shown(data: ParallelData, batch: Batch) -> list[Pair]:
    """The sentences of a batch as text; what stands where is checked on the way."""
    pairs = []
    for row in range(len(batch.source)):
        source = batch.source[row].tolist()
        length = int(batch.lengths["source"][row])
        assert source[length - 1 :] == [data.end] + [0] * (len(source) - length)
        target = batch.targets[row, : batch.counts[row]].tolist()
        assert len(target) == int(batch.lengths["targets"][row])
        assert batch.inputs[row].tolist()[: len(target)] == [data.end, *target[:-1]]
        assert target[-1] == data.end
        tokenizer = data.tokenizer
        pairs.append((tokenizer.source.decode(source[:length]), tokenizer.decode_target(target)))
    assert batch.count == int(batch.lengths["targets"].sum()) == len(real_positions(batch))
    return pairs


def epoch(data: ParallelData, number: int) -> list[Batch]:
    steps = int(data.steps_per_epoch)
    return [data.train_batch(number * steps + step) for step in range(steps)]


@pytest.mark.parametrize("options", [{}, {"batch_tokens": 7}, {"batch_size": 7}, {"batch_size": 1000}])
def test_an_epoch_shows_every_pair_once(options: dict[str, int]) -> None:
    data = build(make_pairs(150), **options)
    expected = Counter(data.splits["train"].pairs)
    assert max(expected.values()) == 1
    orders, shapes = [], []
    for number in range(3):
        batches = epoch(data, number)
        orders.append([pair for batch in batches for pair in shown(data, batch)])
        assert Counter(orders[-1]) == expected
        shapes.append([tuple(batch.inputs.shape) for batch in batches])
    # The same shapes in another order, with other pairs of the same lengths.
    assert Counter(shapes[0]) == Counter(shapes[1]) == Counter(shapes[2])
    assert orders[0] != orders[1] != orders[2]
    if len(shapes[0]) > 5:
        assert sorted(shapes[0]) != shapes[0] != shapes[1] != shapes[2]


def test_batches_keep_to_their_tokens() -> None:
    pairs = [*make_pairs(150), *((f"long{n}" + " on" * 80, "t") for n in range(20))]
    data = build(pairs, batch_tokens=50)
    rows = []
    for batch in epoch(data, 0):
        rows.append(len(batch.source))
        assert rows[-1] == 1 or max(batch.source.numel(), batch.inputs.numel()) <= 50
    assert rows.count(1) >= 10  # the long ones
    assert max(rows) >= 5


def test_batches_of_so_many_pairs() -> None:
    data = build(make_pairs(150), batch_size=7)
    sizes = Counter(len(batch.source) for batch in epoch(data, 0))
    n = len(data.splits["train"].pairs)
    assert sizes[7] == n // 7
    assert sum(size * times for size, times in sizes.items()) == n
    assert len(epoch(data, 0)) == -(-n // 7)


def test_sentences_of_a_batch_are_of_similar_length() -> None:
    """Much less padding than in batches by chance."""
    batches = epoch(build(make_pairs(400), batch_tokens=150), 0)
    real = sum(batch.count for batch in batches)
    assert real / sum(batch.inputs.numel() for batch in batches) > 0.9


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    pairs = make_pairs(150)
    data, again, other = build(pairs), build(pairs), build(pairs, seed=2)
    assert data.splits["test"].pairs == other.splits["test"].pairs
    forwards = [shown(data, data.train_batch(step)) for step in range(40)]
    list(again.eval_batches("val"))
    torch.manual_seed(7)
    for step in (39, 0, 17, 17, 3):
        assert shown(again, again.train_batch(step)) == forwards[step]
    assert [shown(other, other.train_batch(step)) for step in range(5)] != forwards[:5]
    # No history is needed: a step of the far future is there at once.
    assert shown(data, data.train_batch(10**12)) == shown(again, again.train_batch(10**12))


def test_overlong_pairs_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    data = build(make_pairs(150), max_seq_len=8)
    train = data.splits["train"].pairs
    fit = [pair for pair in train if max(len(side.split()) for side in pair) <= 8]
    assert 0 < len(fit) < len(train)
    assert Counter(pair for batch in epoch(data, 0) for pair in shown(data, batch)) == Counter(fit)
    assert f"{len(train) - len(fit)} pairs of more than 8 tokens" in caplog.text
    parts = data.describe()["splits"]
    overlong = {name: part["overlong"] for name, part in parts.items()}
    assert overlong == {"train": len(train) - len(fit), "val": 0, "test": 0}
    assert {name: part["pairs"] for name, part in parts.items()} == {"train": 120, "val": 15, "test": 15}
    # Validation judges them all.
    assert sum(len(batch.source) for batch in data.eval_batches("val")) == 15
    with pytest.raises(UserError, match=r"every training pair has more than data\.max_seq_len=1 "):
        build([(f"s{n} a", f"t{n}") for n in range(20)], max_seq_len=1)


def long_pair(words: int, number: int = 0) -> Pair:
    return f"s{number}" + " on" * (words - 1), f"t{number} sur"


@pytest.mark.parametrize("limit", [100, 600])
def test_pairs_beyond_any_memory_are_not_evaluated(limit: int, caplog: pytest.LogCaptureFixture) -> None:
    """512 tokens, or data.max_seq_len if that is more; the shapes of batches stay bounded."""
    most = max(512, limit)
    held_out = [
        ("s1", "t1"),
        long_pair(most, 2),
        long_pair(most + 1, 3),
        long_pair(8000, 4),
        long_pair(8000, 5)[::-1],
    ]
    Path("held_out.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in held_out))
    data = build([*make_pairs(150), long_pair(8000, 6)], max_seq_len=limit, test_path="held_out.tsv")
    assert data.splits["test"].pairs == held_out[:2]
    assert data.splits["test"].lines == [1, 2]
    described = data.describe()
    overlong = {name: split["overlong"] for name, split in described["splits"].items()}
    assert sum(overlong.values()) == overlong["test"] + 1 == 4
    note = f"test: 3 pairs of more than {most} tokens on a side left out"
    assert note in caplog.text
    assert note in data.views(None)[1]
    assert note in described["skipped"]
    sizes = [max(batch.source.numel(), batch.targets.numel()) for batch in data.eval_batches("test")]
    assert max(sizes) <= 8192
    assert data.eval_count("test") == sum(batch.count for batch in data.eval_batches("test"))
    # The same for other pairs, which are scored line by line.
    other = OtherDataConfig(path="held_out.tsv")
    scored = ParallelData.for_evaluation(data.config, data.preprocessor, {}, other, 1)
    assert scored.splits["all"].lines == [1, 2]
    assert scored.views(None)[1] == [note.replace("test:", "all:")]
    Path("held_out.tsv").write_text("\t".join(long_pair(8000)))
    with pytest.raises(UserError, match=f"every pair of the all split has more than {most} tokens"):
        ParallelData.for_evaluation(data.config, data.preprocessor, {}, other, 1)


def test_a_batch_by_hand() -> None:
    batch = pair_batch([[5, 6], [7], []], [[8], [9, 10, 11], []], end=0)
    assert batch.source.tolist() == [[5, 6, 0], [7, 0, 0], [0, 0, 0]]
    assert batch.lengths["source"].tolist() == [3, 2, 1]
    assert batch.inputs.tolist() == [[0, 8, 0, 0], [0, 9, 10, 11], [0, 0, 0, 0]]
    assert batch.targets.tolist() == [[8, 0, 0, 0], [9, 10, 11, 0], [0, 0, 0, 0]]
    assert batch.lengths["targets"].tolist() == batch.counts.tolist() == [2, 4, 1]
    assert batch.count == 7
    assert real_positions(batch).tolist() == [0, 1, 4, 5, 6, 7, 8]
    first, second = batch.split(2)
    assert second.source.tolist() == [[0, 0, 0]]
    assert (first.counts.tolist(), second.counts.tolist()) == ([2, 4], [1])
    assert (first.lengths["source"].tolist(), second.lengths["source"].tolist()) == ([3, 2], [1])
    assert (first.count, second.count) == (6, 1)


@pytest.mark.parametrize("pieces", [1, 2, 3, 50])
def test_pieces_of_a_batch_give_its_loss_and_gradient(pieces: int) -> None:
    data = build(make_pairs(60), batch_tokens=100)
    torch.manual_seed(0)
    model = NMT(**data.preprocessor.sizes(), n_embd=6, hidden_size=6, attention_size=6)
    task = Translation(TranslationConfig(label_smoothing=0.1))
    batch = max(epoch(data, 0), key=lambda batch: len(batch.source))
    parts = list(batch.split(pieces))
    assert len(parts) == min(pieces, len(batch.source))
    assert [pair for part in parts for pair in shown(data, part)] == shown(data, batch)
    found = []
    for some in ([batch], parts):
        model.zero_grad()
        losses = [task.loss(model, part) for part in some]
        torch.stack([loss.loss_sum for loss in losses]).sum().backward()
        sums = [
            sum(float(loss.loss_sum.detach()) for loss in losses),
            sum(float(loss.nll_sum) for loss in losses),
        ]
        found.append((sums, [weight.grad.clone() for weight in model.parameters()]))
    (whole, gradients), (pieced, others) = found
    assert pieced == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-5)


def test_validation_counts_every_token_once() -> None:
    data = build(make_pairs(900))
    for split in ("val", "test"):
        part = data.splits[split]
        # These words are unknown, but they are there.
        known = {word for _, target in data.splits["train"].pairs for word in target.split()}
        read: list[int] = []
        for members, batch in data.numbered_batches(split):
            read += members
            for number, (_, target) in zip(members, shown(data, batch), strict=True):
                words = part.pairs[number][1].split()
                assert target.count("\ufffd") + target.count("sur") == len(words)
                assert target.count("\ufffd") == sum(word not in known for word in words)
        assert sorted(read) == list(range(len(part.pairs)))
        tokens = sum(len(target.split()) + 1 for _, target in part.pairs)
        assert sum(batch.count for batch in data.eval_batches(split)) == tokens == data.eval_count(split)
        assert data.characters(split) == sum(len(target) for _, target in part.pairs)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-50], lambda data: b"{]" + data[2:]])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setenv("SEQEXP_CACHE", str(tmp_path / "own cache"))
    good = build(make_pairs(50))
    files = [*tmp_path.glob("own cache/pairs/*"), *tmp_path.glob("own cache/tokenizers/*")]
    assert len(files) == 4
    for file in files:
        content = file.read_bytes()
        file.write_bytes(damage(content))
        again = build(make_pairs(50))
        assert file.read_bytes() == content
        assert shown(again, again.train_batch(3)) == shown(good, good.train_batch(3))


def test_one_vocabulary_for_both_languages() -> None:
    pairs = [(f"the cat number {n} sleeps", f"le chat dort {n} fois") for n in range(300)]
    write(pairs)
    config = ParallelDataConfig(name="parallel", path="pairs.tsv")
    options = {"model_type": "bpe", "vocab_size": 60, "byte_fallback": False}
    for joint in (True, False):
        data = ParallelData.build(config, SentencePieceConfig(**options, joint=joint), 1)
        assert data.tokenizer.joint is joint
        assert data.preprocessor.sizes()["joint_vocabulary"] is joint
        ids = data.tokenizer.target.encode(" cat sleeps")
        assert (data.tokenizer.target.unk_id in ids) is not joint
