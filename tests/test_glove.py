"""GloVe: examples against brute force, updates against formulas, compiled ones against PyTorch."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_trainer import fit, weights
from test_word2vec import build_trainer, make_topics, word_vector_config

from seqexp.config.data import OwnTextConfig
from seqexp.config.optimizer import AdaGradConfig
from seqexp.config.tokenizer import BareWordConfig
from seqexp.config.word_embeddings import CooccurrencesConfig
from seqexp.data.batch import Batch
from seqexp.data.cooccurrence_data import CooccurrenceData
from seqexp.data.text import TextData
from seqexp.errors import UserError
from seqexp.models.glove import GloVe
from seqexp.models.glove_options import GloVeConfig
from seqexp.tasks.cooccurrence_embeddings import CooccurrenceEmbeddings
from seqexp.tasks.plain_vectors import PlainAdaGrad
from seqexp.training.optimizers import Optimizers

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["<s>", "<unk>", "sun", "moon", "star", "earth"]
TABLES = ("embedding", "context", "bias", "context_bias")
LETTERS = "abcdefgh"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQEXP_CACHE", str(tmp_path / "cache"))


def task() -> CooccurrenceEmbeddings:
    return CooccurrenceEmbeddings(CooccurrencesConfig())


def make_model(dim: int) -> GloVe:
    torch.manual_seed(4)
    model = GloVe(WORDS, dim)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


def optimizers_of(model: GloVe, rate: float) -> Optimizers:
    return Optimizers(AdaGradConfig(name="adagrad", lr=rate, initial=1.0), model)


def pairs(count: int, seed: int = 0) -> Batch:
    draw = np.random.default_rng(seed)
    tensors = {
        "words": torch.from_numpy(draw.integers(2, len(WORDS), count).astype(np.int32)),
        "contexts": torch.from_numpy(draw.integers(2, len(WORDS), count).astype(np.int32)),
        "logs": torch.from_numpy(draw.normal(0, 2, count).astype(np.float32)),
        "weights": torch.from_numpy(draw.random(count, dtype=np.float32)),
    }
    return Batch(tensors, np.ones(count, np.int64))


def test_steps_are_those_of_the_formulas() -> None:
    """Three steps of AdaGrad in fp64 on the gradients of eq. 8 of the paper."""
    model, batch = make_model(5), pairs(3)
    table = {name: getattr(model, name).weight.detach().double().numpy().copy() for name in TABLES}
    squares = {name: np.ones_like(value) for name, value in table.items()}
    loss = 0.0
    for i, j, log, weight in zip(*(batch.tensors[name].tolist() for name in batch.tensors), strict=True):
        word, context = table["embedding"][i].copy(), table["context"][j].copy()
        error = word @ context + table["bias"][i, 0] + table["context_bias"][j, 0] - log
        loss += weight * error**2 / 2
        slope = weight * error
        for name, row, gradient in (
            ("embedding", i, slope * context), ("context", j, slope * word),
            ("bias", i, slope), ("context_bias", j, slope),
        ):  # fmt: skip
            squares[name][row] += gradient**2
            table[name][row] -= 0.2 * gradient / np.sqrt(squares[name][row])
    found, count = PlainAdaGrad(model, task(), optimizers_of(model, 0.2), piece=1)(batch, 0.2)
    assert (found, count) == (pytest.approx(loss, rel=1e-5), 3)
    for name in TABLES:
        np.testing.assert_allclose(getattr(model, name).weight.detach(), table[name], atol=2e-6)


@pytest.mark.parametrize("workers", [1, 2])
def test_compiled_updates_are_those_of_pytorch(workers: int) -> None:
    """200 pairs, one after the other, within 1e-4; two threads on rows that they do not share."""
    compiled = pytest.importorskip("seqexp.tasks.compiled_glove")
    plain, fast = make_model(24), make_model(24)
    batch = pairs(200, seed=1)
    if workers == 2:
        for name in ("words", "contexts"):
            batch.tensors[name][:100], batch.tensors[name][100:] = 2, 3
    ours, theirs = optimizers_of(fast, 0.1), optimizers_of(plain, 0.1)
    loss, count = compiled.CompiledAdaGrad(fast, ours, workers)(batch, 0.1)
    total, _ = PlainAdaGrad(plain, task(), theirs, piece=1)(batch, 0.1)
    assert (loss, count) == (pytest.approx(total, rel=1e-4), 200)
    for name in TABLES:
        one, other = (getattr(model, name).weight for model in (fast, plain))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        squares = [made.parts[0].state[weight]["sum"] for made, weight in ((ours, one), (theirs, other))]
        torch.testing.assert_close(*squares, atol=1e-4, rtol=1e-4)


def make_data(folder: Path, **options: Any) -> CooccurrenceData:
    """Two documents of letters, of which `h` is seldom and left out."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(" ".join(draw.choice(list(LETTERS[:7]), 300)) + " h")
    config = OwnTextConfig(
        name="text",
        path=str(folder),
        seq_len=10,
        batch_size=7,
        val_path=str(folder / "a.txt"),
    )
    text = TextData.build(config, BareWordConfig(min_count=3), seed=5)
    return CooccurrenceData(text, GloVeConfig(**options))


def test_an_epoch_has_the_cooccurrences_of_brute_force(tmp_path: Path) -> None:
    """Every pair of words in both orders once, with 1 / d for each time that they stand d apart."""
    data = make_data(tmp_path / "letters", window=4, x_max=20, alpha=0.5)
    words = data.text.tokenizer.words  # type: ignore[attr-defined]
    wanted: Counter[tuple[str, str]] = Counter()
    for name in ("a.txt", "b.txt"):
        text = [word for word in (tmp_path / "letters" / name).read_text().split() if word in words]
        for i, word in enumerate(text):
            for distance in range(1, min(4, i) + 1):
                wanted[word, text[i - distance]] += 1 / distance  # type: ignore[assignment]
                wanted[text[i - distance], word] += 1 / distance  # type: ignore[assignment]
    batches = [data.train_batch(step) for step in range(int(np.ceil(data.steps_per_epoch)))]
    rows = [
        row
        for batch in batches
        for row in zip(*(batch.tensors[name].tolist() for name in batch.tensors), strict=True)
    ][: len(wanted)]
    found = {(words[i - 2], words[j - 2]): (log, weight) for i, j, log, weight in rows}
    assert set(found) == set(wanted)
    for pair, count in wanted.items():
        log, weight = found[pair]
        assert log == pytest.approx(np.log(count), abs=1e-5)
        assert weight == pytest.approx(min(1, (count / 20) ** 0.5), rel=1e-5)
    # Held-out pairs stand for as many words as the training: here one of two documents of the same length.
    held_out = [float(batch.logs.exp().sum()) for batch in data.eval_batches("val")]
    first = (tmp_path / "letters" / "a.txt").read_text().split()[:-1]
    total = sum(2 / d for i in range(len(first)) for d in range(1, min(4, i) + 1))
    assert sum(held_out) == pytest.approx(2 * total, rel=1e-4)


def test_pairs_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(tmp_path / "letters")
    first = data.train_batch(3)
    monkeypatch.setattr("seqexp.data.cooccurrence_data.count_pairs", None)
    again = CooccurrenceData(data.text, GloVeConfig())
    assert all(torch.equal(again.train_batch(3).tensors[name], first.tensors[name]) for name in first.tensors)
    other = CooccurrenceData(data.text, GloVeConfig(window=3))
    with pytest.raises(TypeError):
        other.train_batch(0)


def glove_config(path: Path, impl: str, **trainer: Any) -> Any:
    config = word_vector_config(path, GloVeConfig(n_embd=12, window=4, x_max=50, impl=impl), **trainer)
    config.task = CooccurrencesConfig()
    config.optimizer = AdaGradConfig(name="adagrad", lr=1.0, initial=400.0)
    return config


@pytest.mark.parametrize("impl", ["plain", "compiled"])
def test_topics_are_learnt(tmp_path: Path, impl: str) -> None:
    if impl == "compiled":
        pytest.importorskip("numba")
    make_topics(tmp_path / "topics.txt", 600)
    trainer = build_trainer(glove_config(tmp_path / "topics.txt", impl, max_steps=40), impl)
    first = float(trainer.validate()["val/loss"].value)
    if impl == "plain":
        trainer.updater.piece = 100  # quicker than one pair at a time
    fit(trainer)
    assert trainer.validate()["val/loss"].value < 0.3 * first
    words = trainer.data.text.tokenizer.words
    units = torch.nn.functional.normalize(trainer.model.word_vectors()[2:], dim=1)
    cosines = units @ units.T
    topic = np.array(["a" if word[0] in "axy" else "b" for word in words])
    same = topic[:, None] == topic
    assert cosines[torch.from_numpy(same)].mean() > cosines[torch.from_numpy(~same)].mean() + 0.3


def test_a_resumed_training_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit, with the sums of squares of AdaGrad, over the end of an epoch."""
    pytest.importorskip("numba")
    make_topics(tmp_path / "topics.txt", 300)
    config = glove_config(tmp_path / "topics.txt", "compiled", max_steps=8, eval_every=4)
    whole = build_trainer(config, "whole")
    assert whole.data.steps_per_epoch < 7
    fit(whole)
    part = build_trainer(config, "part")
    monkeypatch.setattr(part, "done", lambda: part.step >= 5)
    fit(part)
    again = build_trainer(config, "again")
    again.load_state(part.checkpoints.load_newest())
    assert again.step == 5
    fit(again)
    assert torch.equal(weights(whole), weights(again))


def test_a_split_without_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("never seen before\n")
    (tmp_path / "train.txt").write_text("a b c d " * 50)
    config = OwnTextConfig(
        name="text", path=str(tmp_path / "train.txt"), seq_len=10, val_path=str(tmp_path / "val.txt")
    )
    data = CooccurrenceData(TextData.build(config, BareWordConfig(), seed=1), GloVeConfig())
    with pytest.raises(UserError, match=r"the val split has no two known words within model\.window=10"):
        next(iter(data.eval_batches("val")))
