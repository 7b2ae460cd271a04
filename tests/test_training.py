"""The training loop: exact sums, nothing lost, the best kept, what is not finite stops it."""

import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_trainer import (
    answer,
    evaluate_split,
    fit,
    go_on,
    logged,
    make_config,
    make_trainer,
    token_batch,
    validated,
    weights,
)
from torch import Tensor

from seqexp.config.run import GenerationConfig
from seqexp.config.task import LanguageModelingConfig
from seqexp.data.batch import IGNORE
from seqexp.decoding.text import generate_texts
from seqexp.errors import UserError
from seqexp.metrics.metric import MetricSpec
from seqexp.tasks.language_modeling import LanguageModeling
from seqexp.training.checkpoint import Checkpoints
from seqexp.training.hooks.nonfinite import NonFiniteLossError
from seqexp.training.loop import Trainer

CPU = torch.device("cpu")


# Learning


def test_a_tiny_corpus_is_memorised() -> None:
    """64 random letters, one window: the loss goes to zero, and greedy writing gives them back."""
    letters = "".join(random.Random(0).choices("abcdefgh", k=72))
    Path("letters.txt").write_text(letters)
    config = make_config(
        Path("letters.txt"),
        model={"n_layer": 2, "n_embd": 32, "max_len": 64},
        data={"seq_len": 64, "batch_size": 1},
        trainer={"max_steps": 150, "eval_every": 150, "log_every": 10},
        optimizer={"name": "adamw", "lr": 1e-2},
    )
    trainer = make_trainer(config)
    assert trainer.data.windows_per_epoch == 1
    assert fit(trainer) == "finished"
    losses = logged(trainer, "train/loss")
    assert losses[10] > 1
    assert losses[150] < 0.01
    trained = evaluate_split(trainer.task, trainer.model, trainer.data, "train")
    assert trained["train/loss"].value < 0.01
    assert trained["train/perplexity"].value == pytest.approx(1, abs=0.01)
    generation = GenerationConfig(max_new_tokens=64, temperature=0)
    *_, texts = generate_texts(trainer.model.eval(), trainer.data.tokenizer, "", generation, 0, CPU)  # type: ignore[arg-type]
    assert texts == [letters[:64]]


def test_accumulated_pieces_are_the_whole_batch(book: Path) -> None:
    """Seven rows in one, three or four pieces (3+2+2, 2+2+2+1): the same weights after three steps."""
    results = []
    for pieces in (1, 3, 4, 50):
        config = make_config(
            book,
            data={"batch_size": 7},
            trainer={"max_steps": 3, "accumulate": pieces},
            optimizer={"name": "sgd", "lr": 0.5},
        )
        trainer = make_trainer(config, f"run{pieces}")
        before = weights(trainer)
        fit(trainer)
        results.append((weights(trainer), logged(trainer, "train/loss"), logged(trainer, "train/grad_norm")))
        assert float((weights(trainer) - before).abs().max()) > 1e-3
    for result, losses, norms in results[1:]:
        torch.testing.assert_close(result, results[0][0], rtol=0, atol=1e-6)
        assert losses == pytest.approx(results[0][1], rel=1e-5)
        assert norms == pytest.approx(results[0][2], rel=1e-4)


def test_accumulated_pieces_of_unequal_counts_are_averaged_over_targets(book: Path) -> None:
    """A batch with padding: its pieces hold different counts, and each target weighs the same."""
    config = make_config(
        book, trainer={"accumulate": 3, "max_steps": 1}, optimizer={"name": "sgd", "lr": 1.0}
    )
    trainer = make_trainer(config)
    whole = trainer.data.train_batch(0)
    targets = whole.targets.clone()
    targets[0, 3:], targets[2, 10:] = IGNORE, IGNORE
    padded = token_batch(whole.inputs, targets)
    logits = trainer.model(padded.inputs).flatten(0, 1)
    F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE).backward()
    expected = torch.cat([(p - p.grad).detach().flatten() for p in trainer.model.parameters()])  # type: ignore[operator]
    trainer.model.zero_grad()
    trainer.data.train_batch = lambda step: padded
    fit(trainer)
    torch.testing.assert_close(weights(trainer), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("limit", "clipped"), [(1e-3, True), (1e3, False), (0, False)])
def test_the_norm_is_logged_before_clipping(book: Path, limit: float, clipped: bool) -> None:
    config = make_config(
        book,
        trainer={"max_steps": 1, "max_grad_norm": limit},
        optimizer={"name": "sgd", "lr": 1.0, "momentum": 0.0},
    )
    trainer = make_trainer(config)
    batch = trainer.data.train_batch(0)
    F.cross_entropy(trainer.model(batch.inputs).flatten(0, 1), batch.targets.flatten()).backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.model.parameters()))  # type: ignore[union-attr]
    trainer.model.zero_grad()
    before = weights(trainer)
    fit(trainer)
    assert logged(trainer, "train/grad_norm")[1] == pytest.approx(norm, rel=1e-5)
    moved = float((weights(trainer) - before).norm())
    assert moved == pytest.approx(limit if clipped else norm, rel=1e-3)
    assert norm > 1e-2


def test_the_logged_loss_is_the_average_since_the_last_line(book: Path) -> None:
    every = make_trainer(make_config(book, trainer={"max_steps": 6, "log_every": 1}), "every")
    fit(every)
    some = make_trainer(make_config(book, trainer={"max_steps": 6, "log_every": 4}), "some")
    fit(some)
    single = logged(every, "train/loss")
    assert len(single) == 6
    averages = {4: sum(single[i] for i in (1, 2, 3, 4)) / 4, 6: (single[5] + single[6]) / 2}
    assert logged(some, "train/loss") == pytest.approx(averages, rel=1e-5)


# Evaluation


def losses_by_hand(model: torch.nn.Module, tokens: list[int], length: int) -> list[float]:
    """Nats of tokens 1, 2, …, each window of `length` alone, summed in float64 Python."""
    losses = []
    for start in range(0, len(tokens) - 1, length):
        window = tokens[start : start + length + 1]
        with torch.no_grad():
            logits = model(torch.tensor([window[:-1]])).double()[0]
        for row, target in zip(logits, window[1:], strict=True):
            losses.append(float(torch.logsumexp(row, 0) - row[target]))
    return losses


@pytest.mark.parametrize("eval_tokens", [1, 17, 100, 8192])
def test_whole_split_evaluation_is_a_loop_by_hand(
    book: Path, monkeypatch: pytest.MonkeyPatch, eval_tokens: int
) -> None:
    monkeypatch.setattr("seqexp.data.text.EVAL_TOKENS", eval_tokens)
    path = Path("some.txt")
    text = book.read_text(encoding="utf-8")[:9990]
    path.write_text(text, encoding="utf-8", newline="\n")
    trainer = make_trainer(make_config(path, model={"dropout": 0.5}))
    cut = len(text) * 9 // 10
    characters = sorted(set(text[:cut]))
    # The last character of training is context; what training never showed is token 1.
    numbers = [characters.index(c) + 2 if c in characters else 1 for c in text[cut - 1 :]]
    losses = losses_by_hand(trainer.model.eval(), numbers, 16)
    assert len(losses) == len(text) - cut
    assert len(losses) % 16 != 0
    trainer.model.train()
    state = torch.get_rng_state()
    got = validated(trainer)
    assert trainer.model.training
    assert torch.equal(torch.get_rng_state(), state)
    loss = sum(losses) / len(losses)
    expected = {"val/loss": loss, "val/perplexity": math.exp(loss), "val/bits_per_char": loss / math.log(2)}
    assert got == pytest.approx(expected, rel=1e-5)


def test_bits_per_character_of_bytes() -> None:
    """An é is two tokens and one character: bits are counted over characters."""
    text = "Où était-elle ? Là-bas, près du château. " * 20
    path = Path("french.txt")
    path.write_text(text, encoding="utf-8", newline="\n")
    trainer = make_trainer(make_config(path, tokenizer={"name": "byte"}))
    cut = len(text) * 9 // 10
    numbers = list(text[:cut].encode())[-1:] + list(text[cut:].encode())
    losses = losses_by_hand(trainer.model.eval(), numbers, 16)
    got = validated(trainer)
    assert len(losses) > len(text) - cut
    assert got["val/loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    expected = sum(losses) / math.log(2) / (len(text) - cut)
    assert got["val/bits_per_char"] == pytest.approx(expected, rel=1e-5)


def test_validation_cannot_disturb_training(book: Path) -> None:
    """Validating and sampling after each step, or never in between: bitwise the same weights."""
    results = []
    for every, sample_tokens in ((1, 5), (100, 0)):
        config = make_config(
            book,
            model={"dropout": 0.3},
            trainer={"eval_every": every, "sample_tokens": sample_tokens},
        )
        trainer = make_trainer(config, f"run{every}")
        fit(trainer)
        results.append(weights(trainer))
    assert torch.equal(*results)


def test_label_smoothing_by_the_formula() -> None:
    """(1 - e) * nll + e * the mean over all classes of -log p (Szegedy et al. 2016), in training alone."""
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, requires_grad=True)
    batch = token_batch(torch.zeros(2, 3).long(), torch.tensor([[1, 2, IGNORE], [0, 4, 4]]))
    task = LanguageModeling(LanguageModelingConfig(label_smoothing=0.3))
    output = task.loss(lambda _: logits, batch, training=True)
    logs = logits.detach().double().log_softmax(dim=-1)
    nll = smoothed = 0.0
    for row, place, target in [(0, 0, 1), (0, 1, 2), (1, 0, 0), (1, 1, 4), (1, 2, 4)]:
        nll -= float(logs[row, place, target])
        smoothed -= 0.7 * float(logs[row, place, target]) + 0.3 * float(logs[row, place].mean())
    assert float(output.nll_sum) == pytest.approx(nll, rel=1e-5)
    assert float(output.loss_sum.detach()) == pytest.approx(smoothed, rel=1e-5)
    assert smoothed != pytest.approx(nll, rel=1e-3)
    assert output.loss_sum.requires_grad
    assert not output.nll_sum.requires_grad
    # What decides is the argument, not whether gradients are recorded.
    judged = task.loss(lambda _: logits, batch)
    assert float(judged.loss_sum.detach()) == float(judged.nll_sum.detach()) == pytest.approx(nll, rel=1e-5)


def test_label_smoothing_is_in_no_logged_loss(book: Path) -> None:
    """At the first step both models are the same, and so must be what is logged; then they part."""
    rows = []
    for smoothing in (0.0, 0.5):
        config = make_config(book, task={"label_smoothing": smoothing}, trainer={"max_steps": 2})
        trainer = make_trainer(config, f"run{smoothing}")
        first = validated(trainer)
        fit(trainer)
        rows.append((first, logged(trainer, "train/loss")))
    assert rows[0][0] == rows[1][0]
    assert rows[0][1][1] == rows[1][1][1]
    assert rows[0][1][2] != rows[1][1][2]


# Best, last, patience


def test_the_best_is_never_overwritten_by_a_worse(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, [math.nan, 2.0, 2.5, math.nan, 2.0, 9.0])
    trainer = make_trainer(make_config(book, trainer={"max_steps": 6, "eval_every": 1, "keep_last": 1}))
    copies = {}
    record = Checkpoints.record_validation

    def files_of(checkpoints: Checkpoints, which: str) -> list[bytes]:
        entry = checkpoints.index[which]
        names = [entry["file"], entry["weights"]["model"]["file"]]
        return [(checkpoints.folder / name).read_bytes() for name in names]

    def keep(self: Checkpoints, step: int, *more: Any) -> None:
        self.wait()
        copies[step] = files_of(self, "last")
        record(self, step, *more)

    monkeypatch.setattr(Checkpoints, "record_validation", keep)
    fit(trainer)
    checkpoints = Checkpoints(trainer.run)
    best = checkpoints.load("best")
    assert (best["step"], checkpoints.best_value) == (2, 2.0)
    assert files_of(checkpoints, "best") == copies[2]
    assert checkpoints.load("last")["step"] == 6
    files = {file.name for file in trainer.run.checkpoints.iterdir()}
    assert files == {"index.json"} | {
        f"step_{step:08d}.{ending}" for step in (2, 6) for ending in ("pt", "safetensors")
    }


def test_the_best_is_of_its_step(book: Path) -> None:
    """The weights in the best checkpoint give the validation loss that it is the best by."""
    config = make_config(
        book, trainer={"max_steps": 12, "eval_every": 3}, optimizer={"name": "adamw", "lr": 0.3}
    )
    trainer = make_trainer(config)
    fit(trainer)
    losses = logged(trainer, "val/loss")
    best = min(losses, key=lambda step: losses[step])
    checkpoints = Checkpoints(trainer.run)
    state = checkpoints.load("best")
    assert (state["step"], checkpoints.best_value) == (best, losses[best])
    trainer.model.load_state_dict(state["model"])
    assert validated(trainer)["val/loss"] == losses[best]


@pytest.mark.parametrize(
    ("values", "patience", "ending", "last"),
    [
        ([3.0, 2.0, 2.1, 2.2, 1.0, 1.0], 2, "stopped early", 4),
        ([3.0, 2.0, 2.1, 1.9, 1.95, 1.8], 2, "finished", 6),
        ([3.0, 3.0, 1.0, 1.0, 1.0, 1.0], 1, "stopped early", 2),
        ([3.0, math.nan, 4.0, 5.0, 6.0, 7.0], 3, "stopped early", 4),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], None, "finished", 6),
    ],
)
def test_patience(
    book: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: list[float],
    patience: int | None,
    ending: str,
    last: int,
) -> None:
    answer(monkeypatch, values)
    trainer = make_trainer(make_config(book, trainer={"max_steps": 6, "eval_every": 1, "patience": patience}))
    assert fit(trainer) == ending
    assert trainer.step == last
    assert Checkpoints(trainer.run).load("last")["step"] == last


class WithAccuracy(LanguageModeling):
    """A task that declares a metric of which more is better, and one of which nothing is known."""

    def __init__(self, config: LanguageModelingConfig) -> None:
        super().__init__(config)
        self.metrics = {
            **self.metrics, "accuracy": MetricSpec("share", higher_is_better=True), "odd": MetricSpec(),
        }  # fmt: skip


def test_a_monitor_of_which_more_is_better(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The direction is what the task declares; the name says nothing."""
    monkeypatch.setattr("small_trainer.LanguageModeling", WithAccuracy)
    answer(monkeypatch, [0.1, 0.5, 0.3], "val/accuracy")
    config = make_config(book, trainer={"max_steps": 3, "eval_every": 1, "monitor": "val/accuracy"})
    trainer = make_trainer(config)
    fit(trainer)
    checkpoints = Checkpoints(trainer.run)
    assert (checkpoints.load("best")["step"], checkpoints.best_value) == (2, 0.5)
    assert checkpoints.index["monitor"] == "val/accuracy"


def test_a_monitor_whose_direction_is_not_declared(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("small_trainer.LanguageModeling", WithAccuracy)
    with pytest.raises(UserError, match=r"val/odd.*does not declare.*use one of val/loss, .*val/accuracy"):
        make_trainer(make_config(book, trainer={"monitor": "val/odd"}))


def test_a_monitor_that_is_not_measured(book: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.monitor=val/los .*val/loss, val/perplexity"):
        make_trainer(make_config(book, trainer={"monitor": "val/los"}))


# What goes wrong


@pytest.mark.parametrize("log_every", [1, 10])
def test_a_loss_that_is_not_finite_stops_at_once(book: Path, log_every: int) -> None:
    config = make_config(book, trainer={"max_steps": 50, "eval_every": 3, "log_every": log_every})
    trainer = make_trainer(config)
    calls = 0

    def breaking(tokens: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        logits: Tensor = trainer.model(tokens)
        return logits * math.nan if calls == 8 else logits

    trainer.forward = breaking
    with pytest.raises(
        NonFiniteLossError, match=r"not finite at step 7; the last good checkpoint is step 6 "
    ) as raised:
        fit(trainer)
    assert calls == 8
    state = Checkpoints(trainer.run).load("last")
    assert state["step"] == 6
    assert all(bool(value.isfinite().all()) for value in state["model"].values())
    assert f"({Checkpoints(trainer.run).index['last']['file']})" in str(raised.value)


def test_no_good_checkpoint_yet(book: Path) -> None:
    trainer = make_trainer(make_config(book))
    trainer.forward = lambda tokens: trainer.model(tokens) * math.inf
    with pytest.raises(NonFiniteLossError, match="step 0; the last good checkpoint is none yet"):
        fit(trainer)
    assert not Checkpoints(trainer.run).index


def test_the_checkpoint_called_good_is_good(book: Path) -> None:
    """Steps so large that the weights overflow: the checkpoint that the error names still computes."""
    config = make_config(
        book,
        trainer={"max_steps": 20, "eval_every": 1},
        optimizer={"name": "sgd", "lr": 1e30, "momentum": 0.0},
    )
    trainer = make_trainer(config)
    with pytest.raises(NonFiniteLossError) as raised:
        fit(trainer)
    named = re.search(r"checkpoint is (?:step (\d+)|none yet)", str(raised.value))
    assert named
    if named[1]:
        trainer.model.load_state_dict(Checkpoints(trainer.run).load(named[1])["model"])
        assert math.isfinite(validated(trainer)["val/loss"]), str(raised.value)


def test_a_checkpoint_is_saved_before_the_last_evaluation(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Trainer) -> dict[str, float]:
        raise RuntimeError("the judge is ill")

    trainer = make_trainer(make_config(book, trainer={"max_steps": 4, "eval_every": 100}))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", fail)
        with pytest.raises(RuntimeError, match="the judge is ill"):
            fit(trainer)
    assert Checkpoints(trainer.run).load("last")["step"] == 4
    # Going on makes up for the evaluation without training any further.
    again = go_on(trainer, make_config(book, trainer={"max_steps": 4, "eval_every": 100}))
    assert fit(again) == "finished"
    assert (again.step, Checkpoints(trainer.run).index["best"]["step"]) == (4, 4)
    assert torch.equal(weights(again), weights(trainer))
