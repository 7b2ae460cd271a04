"""Training, checkpoints, resuming, devices: exact sums, nothing lost, nothing trusted."""

import hashlib
import io
import json
import math
import os
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, Ran, make_book
from small_trainer import fit, logged, make_config, make_trainer, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from seqexp.config.root import SCHEMA_VERSION
from seqexp.config.run import DeviceConfig, GenerationConfig
from seqexp.config.task import LanguageModelingConfig
from seqexp.data.batch import IGNORE, Batch
from seqexp.decoding.text import generate_texts
from seqexp.errors import UserError
from seqexp.evaluation.split import evaluate_split
from seqexp.tasks.language_modeling import LanguageModeling
from seqexp.tracking.run_folder import RunFolder, read_metrics
from seqexp.training.checkpoint import Checkpoints
from seqexp.training.device import Device, compile_or_not, setup_device, wants_compile
from seqexp.training.loop import Trainer
from seqexp.training.nonfinite import NonFiniteLossError

Main = Callable[..., Ran]
CPU = torch.device("cpu")


def answer(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Let validations give these losses, one after the other."""
    left = iter(values)
    monkeypatch.setattr(Trainer, "validate", lambda self: {"val/loss": next(left)})


def no_autocast() -> Any:
    return torch.autocast("cpu", enabled=False)


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
    trained = evaluate_split(trainer.task, trainer.model, trainer.data, "train", CPU, no_autocast)
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
    padded = Batch(whole.inputs, targets, int((targets != IGNORE).sum()))
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
    got = trainer.validate()
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
    got = trainer.validate()
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
    batch = Batch(torch.zeros(2, 3).long(), torch.tensor([[1, 2, IGNORE], [0, 4, 4]]), 5)
    output = LanguageModeling(LanguageModelingConfig(label_smoothing=0.3)).loss(lambda _: logits, batch)
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
    with torch.inference_mode():
        judged = LanguageModeling(LanguageModelingConfig(label_smoothing=0.3)).loss(lambda _: logits, batch)
    assert float(judged.loss_sum) == float(judged.nll_sum) == pytest.approx(nll, rel=1e-5)


def test_label_smoothing_is_in_no_logged_loss(book: Path) -> None:
    """At the first step both models are the same, and so must be what is logged; then they part."""
    rows = []
    for smoothing in (0.0, 0.5):
        config = make_config(book, task={"label_smoothing": smoothing}, trainer={"max_steps": 2})
        trainer = make_trainer(config, f"run{smoothing}")
        first = trainer.validate()
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

    def keep(self: Checkpoints, step: int, value: float, better: bool, stage: dict[str, Any]) -> None:
        self.wait()
        copies[step] = (self.folder / self.index["last"]["file"]).read_bytes()
        record(self, step, value, better, stage)

    monkeypatch.setattr(Checkpoints, "record_validation", keep)
    fit(trainer)
    checkpoints = Checkpoints(trainer.run)
    best = checkpoints.load("best")
    assert (best["step"], checkpoints.best_value) == (2, 2.0)
    assert (trainer.run.checkpoints / checkpoints.index["best"]["file"]).read_bytes() == copies[2]
    assert checkpoints.load("last")["step"] == 6
    files = {file.name for file in trainer.run.checkpoints.iterdir()}
    assert files == {"index.json", "step_00000002.pt", "step_00000006.pt"}


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
    assert trainer.validate()["val/loss"] == losses[best]


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


def test_a_monitor_of_which_more_is_better(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([0.1, 0.5, 0.3])
    monkeypatch.setattr(Trainer, "validate", lambda self: {"val/loss": 1.0, "val/accuracy": next(left)})
    monkeypatch.setattr(LanguageModeling, "metric_names", ("loss", "accuracy"))  # as of other tasks
    trainer = make_trainer(
        make_config(book, trainer={"max_steps": 3, "eval_every": 1, "monitor": "val/accuracy"})
    )
    fit(trainer)
    checkpoints = Checkpoints(trainer.run)
    assert (checkpoints.load("best")["step"], checkpoints.best_value) == (2, 0.5)


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
        assert math.isfinite(trainer.validate()["val/loss"]), str(raised.value)


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
    again = make_trainer(make_config(book, trainer={"max_steps": 4, "eval_every": 100}), "again")
    again.run = trainer.run
    again.checkpoints = Checkpoints(trainer.run)
    again.load_state(again.checkpoints.load("last"))
    assert fit(again) == "finished"
    assert (again.step, Checkpoints(trainer.run).index["best"]["step"]) == (4, 4)
    assert torch.equal(weights(again), weights(trainer))


# Checkpoint files


@pytest.fixture
def saved() -> Checkpoints:
    Path("run").mkdir()
    checkpoints = Checkpoints(RunFolder(Path("run")))
    for step in (5, 9):
        checkpoints.save(step, {"model": {"weight": torch.full((3,), float(step))}})
        checkpoints.record_validation(step, float(step), better=step == 5)
    return checkpoints


def test_checkpoints_by_name_and_step(saved: Checkpoints) -> None:
    for which, step in [("best", 5), ("5", 5), ("last", 9), ("9", 9)]:
        state = saved.load(which)
        assert state["step"] == step
        assert state["model"]["weight"].tolist() == [step] * 3


@pytest.mark.parametrize("which", ["7", "first", "0", "", "since_best", "validated"])
def test_a_checkpoint_that_is_not_there(saved: Checkpoints, which: str) -> None:
    with pytest.raises(UserError, match=f"checkpoint={which} is not in .*; there is last, best, 9, 5"):
        saved.load(which)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.999])
def test_a_damaged_checkpoint_is_refused(saved: Checkpoints, place: float) -> None:
    file = saved.folder / saved.index["last"]["file"]
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=f"{file.name} is damaged"):
        saved.load("last")
    assert saved.load("best")["step"] == 5


def test_a_short_or_missing_checkpoint(saved: Checkpoints) -> None:
    file = saved.folder / saved.index["last"]["file"]
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="is damaged"):
        saved.load("last")
    file.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        saved.load("last")


def put(checkpoints: Checkpoints, content: Any, name: str = "step_00000009.pt") -> None:
    """Give the last checkpoint this content, with an index that vouches for it."""
    torch.save(content, checkpoints.folder / name)
    digest = hashlib.sha256((checkpoints.folder / name).read_bytes()).hexdigest()
    checkpoints.index["last"] |= {"file": name, "sha256": digest}


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_code_in_a_checkpoint_is_not_executed(saved: Checkpoints) -> None:
    put(saved, {"model": Attack(), "step": 9, "schema_version": SCHEMA_VERSION})
    with pytest.raises(UserError, match="no checkpoint of plain data"):
        saved.load("last")
    assert not Path("executed").exists()
    # The attack is a real one: an unsafe reader would have run it.
    torch.load(saved.folder / "step_00000009.pt", weights_only=False)
    assert Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "no checkpoint of seqexp"),
        ({"step": 9, "schema_version": SCHEMA_VERSION}, "no checkpoint of seqexp"),
        ({"model": {}, "step": 9, "schema_version": SCHEMA_VERSION + 1}, "reads up to"),
        ({"model": {}, "step": 9}, "schema version None"),
    ],
)
def test_a_checkpoint_of_something_else(saved: Checkpoints, content: Any, told: str) -> None:
    put(saved, content)
    with pytest.raises(UserError, match=told):
        saved.load("last")


def test_an_index_cannot_lead_out_of_its_folder(saved: Checkpoints) -> None:
    put(saved, {"model": {}, "step": 9, "schema_version": SCHEMA_VERSION}, "../outside.pt")
    assert Path("run/outside.pt").is_file()
    with pytest.raises(UserError, match=r"checkpoints/outside\.pt cannot be read"):
        saved.load("last")


def test_a_link_in_the_place_of_a_checkpoint(saved: Checkpoints) -> None:
    """It may lead out of the folder, to what has no end."""
    file = saved.folder / saved.index["last"]["file"]
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="cannot be read"):
        saved.load("last")


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_checkpoint_that_expands_without_end(saved: Checkpoints, kind: int) -> None:
    """Compressed, or with many members that share their bytes."""
    put(saved, {"model": {"w": torch.zeros(300_000)}, "step": 9, "schema_version": SCHEMA_VERSION})
    file = saved.folder / "step_00000009.pt"
    with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as whole, zipfile.ZipFile(file, "w", kind) as bomb:
        for member in whole.namelist():
            bomb.writestr(member, whole.read(member))
        if kind == zipfile.ZIP_STORED:
            bomb.filelist += bomb.filelist
    saved.index["last"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="no checkpoint of plain data"):
        saved.load("last")


@pytest.mark.parametrize(
    "index",
    [[], {"last": None}, {"recent": {}, "best": 1}, {"last": {"step": 6, "file": 1, "sha256": 2}}],
    ids=range(4),
)
def test_an_index_of_something_else(saved: Checkpoints, index: Any) -> None:
    (saved.folder / "index.json").write_text(json.dumps(index))
    again = Checkpoints(RunFolder(Path("run")))
    with pytest.raises(UserError, match="there is nothing"):
        again.load("last")
    with pytest.raises(UserError, match="none of the checkpoints"):
        again.load_newest()


def test_an_index_that_names_no_last(saved: Checkpoints) -> None:
    file = saved.folder / "index.json"
    newest = saved.index["last"]["step"]
    file.write_text(json.dumps({**saved.index, "last": None}))
    again = Checkpoints(RunFolder(Path("run")))
    assert again.load_newest()["step"] == newest
    assert again.load("last")["step"] == newest


@pytest.mark.parametrize(
    "weight",
    [None, "w", torch.zeros(1).expand(10**9, 10**9), torch.ones(2, device="meta"), torch.eye(3).to_sparse()],
    ids=range(5),
)
def test_weights_that_are_not_what_they_say(saved: Checkpoints, weight: Any) -> None:
    put(saved, {"model": {"w": weight}, "step": 9, "schema_version": SCHEMA_VERSION})
    with pytest.raises(UserError, match="no checkpoint of seqexp"):
        saved.load("last")


@pytest.mark.parametrize("step", [None, 8, "6", True, torch.zeros(3)])
def test_a_checkpoint_of_another_step(saved: Checkpoints, step: Any) -> None:
    put(saved, {"model": {}, "step": step, "schema_version": SCHEMA_VERSION})
    with pytest.raises(UserError, match="is not the checkpoint of step"):
        saved.load("last")


# Resuming


def words_of(book: Path, *more: str) -> list[str]:
    """A run with dropout and a constant rate, so that its length changes nothing on the way."""
    return [
        "train", "data=text", f"data.path={book}", *TINY, "model.dropout=0.2", "scheduler=constant",
        "scheduler.warmup_steps=2", "trainer.eval_every=3", "trainer.sample_tokens=8", *more,
    ]  # fmt: skip


def run_folder(name: str) -> Path:
    (folder,) = Path("outputs/train", name).iterdir()
    return folder


def last_state(run: Path) -> dict[str, Any]:
    return Checkpoints(RunFolder(run)).load("last")


def rows_without_clock(run: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if not key.startswith(("speed/", "memory/"))}
        for row in read_metrics(run / "metrics.jsonl")
    ]


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal to the last bit, through dicts and lists."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    elif isinstance(one, Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, random states and logged numbers agree to the last bit."""
    a, b = last_state(one), last_state(other)
    for key in ("step", "model", "optimizers", "random", "scaler", "tokenizer"):
        assert_same(a[key], b[key], key)
    assert rows_without_clock(one) == rows_without_clock(other)


def status_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "status.json").read_text()))


@pytest.mark.parametrize(
    "more", [(), ("optimizer=muon", "device.precision=bf16", "trainer.accumulate=3")], ids=["adamw", "muon"]
)
def test_a_resumed_run_is_the_straight_one(run_main: Main, book: Path, more: tuple[str, ...]) -> None:
    assert run_main(*words_of(book, "trainer.max_steps=6", "name=straight", *more)).code == 0
    assert run_main(*words_of(book, "trainer.max_steps=3", "name=parts", *more)).code == 0
    straight, parts = run_folder("straight"), run_folder("parts")
    torch.manual_seed(12345)  # the process that goes on has a history of its own
    ran = run_main("train", f"resume={parts}", "trainer.max_steps=6")
    assert ran.code == 0, ran.err
    assert "from step 3" in ran.err
    assert run_folder("parts") == parts  # in that folder, not in a new one
    assert_same_run(straight, parts)
    losses = [row["step"] for row in rows_without_clock(parts) if "train/loss" in row]
    assert losses == [1, 2, 3, 4, 5, 6]
    results = [json.loads((run / "result.json").read_text()) for run in (straight, parts)]
    assert results[0]["metrics"] == results[1]["metrics"]
    for step in (3, 6):
        texts = [(run / f"samples/step_{step:08d}.txt").read_text() for run in (straight, parts)]
        assert texts[0] == texts[1]


def test_a_momentum_that_is_switched_on_later(run_main: Main, book: Path) -> None:
    """The checkpoint knows none: it begins at zero."""
    words = words_of(book, "optimizer=rmsprop", "trainer.max_steps=3", "name=later")
    assert run_main(*words).code == 0
    ran = run_main("train", f"resume={run_folder('later')}", "trainer.max_steps=6", "optimizer.momentum=0.5")
    assert ran.code == 0, ran.err
    assert "from step 3" in ran.err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", {"w": torch.zeros(3)}),
        ("optimizers", [{}]),
        ("optimizers", 5),
        ("random", {"cpu": torch.zeros(3)}),
        ("elapsed", "long"),
        ("window", {"nll": torch.zeros(2), "count": 1}),
        ("review", {"nll": torch.zeros(()), "count": -1}),
        ("left_out", ["x"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_that_is_not_the_runs(book: Path, key: str, value: Any) -> None:
    config = make_config(book, trainer={"max_steps": 2})
    trainer = make_trainer(config)
    fit(trainer)
    state = trainer.checkpoints.load("last")
    make_trainer(config, "again").load_state(state)
    with pytest.raises(UserError, match="does not fit the run"):
        make_trainer(config, "other").load_state({**state, key: value})


@pytest.mark.parametrize("moment", [torch.zeros(3), (1,)], ids=["size", "kind"])
def test_moments_that_are_not_the_parameters(book: Path, moment: Any) -> None:
    config = make_config(book, trainer={"max_steps": 2})
    trainer = make_trainer(config)
    fit(trainer)
    state = trainer.checkpoints.load("last")
    state["optimizers"][0]["state"][0]["exp_avg"] = moment
    with pytest.raises(UserError, match="does not fit the run"):
        make_trainer(config, "again").load_state(state)


def test_a_run_that_broke_off_goes_on_from_its_checkpoint(
    run_main: Main, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was logged after the checkpoint is cut off: no step appears twice, here or in TensorBoard."""
    assert run_main(*words_of(book, "trainer.max_steps=6", "name=straight")).code == 0
    step = Trainer._train_step

    def break_off(self: Trainer) -> None:
        if self.step == 5:
            raise KeyboardInterrupt
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", break_off)
        assert run_main(*words_of(book, "trainer.max_steps=6", "name=broken")).code == 130
    broken = run_folder("broken")
    assert status_of(broken)["status"] == "interrupted"
    assert max(row["step"] for row in read_metrics(broken / "metrics.jsonl")) == 5
    with open(broken / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "train/lo')  # a line that a power cut left half written
    ran = run_main("train", "resume=latest")
    assert ran.code == 0, ran.err
    assert_same_run(run_folder("straight"), broken)
    assert status_of(broken)["status"] == "finished"
    events = EventAccumulator(str(broken / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    manifest = json.loads((broken / "manifest.json").read_text())
    assert [entry["step"] for entry in manifest["resumed"]] == [3]


def finished_run(tiny_run: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(tiny_run, "copy"))


def test_a_finished_run_says_so(run_main: Main, tiny_run: Path) -> None:
    run = finished_run(tiny_run)
    before = (run / "metrics.jsonl").read_bytes(), (run / "result.json").read_bytes()
    ran = run_main("train", f"resume={run}")
    assert ran.code == 0
    assert "this run is finished (step 10)" in ran.err
    assert "trainer.max_steps=" in ran.err
    assert ((run / "metrics.jsonl").read_bytes(), (run / "result.json").read_bytes()) == before
    assert status_of(run)["status"] == "finished"


@pytest.mark.parametrize(
    "word",
    [
        "model.n_layer=3", "model=gpt_course", "data.batch_size=5", "data=shakespeare", "seed=2",
        "tokenizer=byte", "task.label_smoothing=0.1", "+model.n_layer=3",
    ],
)  # fmt: skip
def test_what_cannot_be_changed_when_a_run_goes_on(run_main: Main, tiny_run: Path, word: str) -> None:
    ran = run_main("train", f"resume={tiny_run}", word)
    assert ran.code == 2
    assert f"{word} cannot be changed when a run goes on" in ran.err.splitlines()[-1]
    assert status_of(tiny_run)["status"] == "finished"


def test_a_refused_resume_leaves_the_run_as_it_was(run_main: Main) -> None:
    Path("mine.txt").write_text(make_book(5000))
    words = ("train", "data=text", "data.path=mine.txt", *TINY, "trainer.max_steps=1", "name=mine")
    assert run_main(*words).code == 0
    Path("mine.txt").write_text(make_book(5000, seed=1))
    ran = run_main("train", "resume=latest", "trainer.max_steps=2")
    assert ran.code == 2
    assert "the corpus has changed" in ran.err.splitlines()[-1]
    run = run_folder("mine")
    assert last_state(run)["step"] == 1
    assert "trainer" in (run / "config.yaml").read_text()
    assert status_of(run)["status"] == "finished"


def test_typed_optimizer_settings_are_in_force_after_a_resume(run_main: Main, tiny_run: Path) -> None:
    run = finished_run(tiny_run)
    ran = run_main(
        "train", f"resume={run}", "trainer.max_steps=12", "optimizer.lr=0.25", "scheduler.min_lr=0.25",
        "optimizer.weight_decay=0.5", "optimizer.betas=[0.5,0.6]",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "train/lr" in row]
    assert [row["train/lr"] for row in rows[-2:]] == [0.25, 0.25]
    groups = last_state(run)["optimizers"][0]["param_groups"]
    assert [group["lr"] for group in groups] == [0.25, 0.25]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert [tuple(group["betas"]) for group in groups] == [(0.5, 0.6)] * 2
    assert json.loads((run / "result.json").read_text())["run"].endswith("copy")


def test_another_optimizer_after_a_resume_is_one_short_message(run_main: Main, tiny_run: Path) -> None:
    """The saved state fits another optimizer: a mistake of the user's, not a traceback."""
    run = finished_run(tiny_run)
    ran = run_main("train", f"resume={run}", "trainer.max_steps=12", "optimizer=muon")
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert "optimizer" in ran.err.splitlines()[-1]


def test_resume_of_nothing(run_main: Main) -> None:
    for word in ("resume=latest", "resume=nowhere"):
        ran = run_main("train", word)
        assert ran.code == 2
        assert ran.err.splitlines()[-1].startswith(f"seqexp train: error: {word}: there is no ")
    assert not Path("outputs").exists()


def test_minutes(run_main: Main, book: Path) -> None:
    """The schedule follows the clock, the run ends by it, and says that it cannot be repeated."""
    ran = run_main(
        "train", "data=text", f"data.path={book}", *TINY, "trainer.max_minutes=0.03", "name=timed",
        "trainer.eval_every=1000000", "scheduler.min_lr=0", "scheduler.warmup_steps=0",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    run = run_folder("timed")
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["reproducible"] is False
    assert manifest["planned_steps"] is None
    assert "not reproducible" in ran.err
    assert json.loads((run / "result.json").read_text())["reproducible"] is False
    assert status_of(run)["status"] == "finished"
    rates = [row["train/lr"] for row in read_metrics(run / "metrics.jsonl") if "train/lr" in row]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9 * 2e-3
    assert rates[-1] < 0.5 * 2e-3
    assert 0.03 * 60 <= last_state(run)["elapsed"] < 30


# Devices


def explode(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("no compiler here\nand a long story after it")


@pytest.mark.parametrize("when", ["at once", "at the first call"])
def test_a_failing_compiler_means_eager_mode(
    run_main: Main, book: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(torch, "compile", explode if when == "at once" else lambda model: explode)
    words = [word for word in TINY if word != "device.compile=false"]
    ran = run_main(
        "train", "data=text", f"data.path={book}", *words, "device.compile=true", "trainer.max_steps=2",
        "trainer.sample_tokens=0", "name=eager",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.err.splitlines() if "compiling failed" in line]
    assert "RuntimeError: no compiler here" in line
    assert "a long story" not in ran.err
    assert "Traceback" not in ran.err
    run = run_folder("eager")
    compiled = json.loads((run / "manifest.json").read_text())["compiled"]
    assert compiled["compiled"] is False
    assert "no compiler here" in compiled["reason"]


def test_trying_the_compiler_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients and random state are as before, whether it worked or not."""
    model = torch.nn.Linear(2, 2)
    for compiler in (lambda model: model, lambda model: explode):
        monkeypatch.setattr(torch, "compile", compiler)
        before = torch.get_rng_state()

        def trial(forward: Any) -> None:
            model(torch.rand(1, 2)).sum().backward()
            forward(torch.rand(1, 2)).sum().backward()

        _, failure = compile_or_not(model, trial)
        assert torch.equal(torch.get_rng_state(), before)
        assert all(p.grad is None for p in model.parameters())
        assert (failure is None) == (compiler(model) is model)


@pytest.mark.parametrize(
    ("kind", "switch", "flops", "wanted"),
    [
        ("cpu", "auto", 1e30, False),
        ("cpu", "auto", None, False),
        ("cpu", "true", 1.0, True),
        ("mps", "auto", 1e30, False),
        ("cuda", "auto", 1e18, True),
        ("cuda", "auto", 1e12, False),
        ("cuda", "auto", None, False),
        ("cuda", "true", None, True),
        ("cuda", "false", 1e30, False),
    ],
)
def test_when_to_compile(kind: str, switch: str, flops: float | None, wanted: bool) -> None:
    device = Device(torch.device(kind), "fp32", 1)
    got, reason = wants_compile(DeviceConfig(compile=switch), device, flops)
    assert got is wanted
    assert reason.startswith("auto: " if switch == "auto" else f"device.compile={switch}")


def device_of(**options: Any) -> Device:
    return setup_device(DeviceConfig(threads=1, **options))


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device=cuda is not available here.*sees cpu\. Use device=auto"):
        device_of(name="cuda")
    with pytest.raises(UserError, match="device=mps is not available here"):
        device_of(name="mps")
    assert device_of(name="auto").torch.type == "cpu"


@pytest.mark.parametrize(
    ("avx512", "amx", "precision"),
    [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")],
)
def test_automatic_precision_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert device_of(name="cpu").precision == precision
    assert device_of(name="cpu", precision="bf16").precision == "bf16"
    assert device_of(name="cpu", precision="fp32").precision == "fp32"


def test_half_precision_is_for_gpus() -> None:
    with pytest.raises(UserError, match=r"device\.precision=fp16 is for GPUs"):
        device_of(name="cpu", precision="fp16")


def test_threads_are_set() -> None:
    before = torch.get_num_threads()
    try:
        assert setup_device(DeviceConfig(name="cpu", threads=1)).threads == torch.get_num_threads() == 1
        torch.set_num_threads(2)
        device = setup_device(DeviceConfig(name="cpu"))
        assert device.threads == torch.get_num_threads() >= 1
    finally:
        torch.set_num_threads(before)


def test_weights_stay_in_fp32(book: Path) -> None:
    config = make_config(book)
    config.device.precision = "bf16"
    trainer = make_trainer(config)
    fit(trainer)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    (state, *_) = trainer.optimizers.parts[0].state.values()
    assert state["exp_avg"].dtype == torch.float32
