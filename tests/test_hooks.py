"""What happens around the training loop: losses that are not finite, carried state, monitors, averages."""

import itertools
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from conftest import TINY, TINY_NMT, Ran, make_pairs, write_pairs
from run_folders import read, rows_of
from small_trainer import (
    answer,
    evaluate_split,
    fit,
    go_on,
    logged,
    logged_steps,
    make_config,
    make_trainer,
    weights,
)
from torch import Tensor

from seqexp.metrics.metric import MetricSpec
from seqexp.models.nmt_options import NMTConfig
from seqexp.tasks.carried import CarriedState
from seqexp.tasks.language_modeling import LanguageModeling
from seqexp.tasks.parity import Parity
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints
from seqexp.training.hooks import memory
from seqexp.training.hooks.nonfinite import MOST_SKIPPED
from seqexp.training.loop import Trainer

Main = Callable[..., Ran]

pytestmark = pytest.mark.usefixtures("one_thread")

CURRICULUM = (
    "train", "data=parity", "model=gru", "data.seq_len=2", "data.max_seq_len=40", "data.grow_by=1",
    "data.grow_below=9", "data.eval_sequences=10", "trainer.log_every=1", "trainer.sample_tokens=0",
    "device=cpu", "device.threads=1", "device.compile=false",
)  # fmt: skip


def only(name: str) -> Path:
    (path,) = Path("outputs/train", name).iterdir()
    return path


def bad_calls(monkeypatch: pytest.MonkeyPatch, task: type, bad: Callable[[int], bool]) -> None:
    """Let the loss of training calls 0, 1, 2, … be NaN where `bad` says so."""
    loss, calls = task.loss, itertools.count()  # type: ignore[attr-defined]

    def sick(self: Any, model: Any, batch: Any, *, training: bool = False) -> Any:
        output = loss(self, model, batch, training=training)
        # The flow of gradients is measured with a function in the place of the model.
        if training and not isinstance(model, FunctionType) and bad(next(calls)):
            output.loss_sum, output.nll_sum = output.loss_sum * math.nan, output.nll_sum * math.nan
        return output

    monkeypatch.setattr(task, "loss", sick)


def curves(run: Path) -> list[dict[str, Any]]:
    timed = ("speed/", "memory/")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows_of(run)]


# Losses that are not finite


@pytest.mark.parametrize("bad", [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (6, 7, 8))])
def test_rolling_back_with_a_curriculum(run_main: Main, monkeypatch: pytest.MonkeyPatch, bad: int) -> None:
    """Reviews come every third step, checkpoints every sixth: nothing is reviewed or logged twice."""
    words = (*CURRICULUM, "data.grow_every=3", "trainer.eval_every=6", "trainer.max_steps=18")
    with monkeypatch.context() as patch:
        bad_calls(patch, Parity, lambda call: call == bad)
        ran = run_main(*words, "trainer.nonfinite=rollback", "name=back")
    assert ran.code == 0, ran.err
    run = only("back")
    rows = rows_of(run)
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 19))
    assert [row["step"] for row in rows if "val/loss" in row] == [6, 12, 18]
    lengths = [row["train/seq_len"] for row in rows if "train/seq_len" in row]
    assert lengths == [2 + (step + 1) // 3 for step in range(18)], "one bit more every third step"
    flow = [json.loads(line)["step"] for line in (run / "gradient_flow.jsonl").read_text().splitlines()]
    assert flow == [0, 6, 12, 18]
    with monkeypatch.context() as patch:
        bad_calls(patch, Parity, lambda call: call == bad)
        assert run_main(*words, "trainer.nonfinite=skip", "name=skip").code == 0
    assert curves(only("skip")) == curves(run), "without the batch, whichever way it is left out"


@pytest.mark.parametrize("patience", [1, None])
def test_rolling_back_costs_no_patience(
    book: Path, monkeypatch: pytest.MonkeyPatch, patience: int | None
) -> None:
    """The step gone back to was validated; it is not validated again, nor counted as no better."""
    answer(monkeypatch, [5.0, 4.0, 3.0, 2.0])
    settings = {
        "max_steps": 12, "eval_every": 3, "nonfinite": "rollback", "log_every": 1, "patience": patience,
    }  # fmt: skip
    trainer = make_trainer(make_config(book, trainer=settings))
    bad_calls(monkeypatch, LanguageModeling, lambda call: call == 7)
    assert fit(trainer) == "finished"
    assert trainer.step == 12
    assert logged_steps(trainer, "train/loss") == list(range(1, 13))
    assert logged_steps(trainer, "val/loss") == [3, 6, 9, 12]
    assert trainer.checkpoints.index["since_best"] == 0


@pytest.mark.parametrize("log_every", [2, 5])
def test_a_window_that_was_rolled_back_is_averaged_without_the_bad_step(
    book: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    settings = {"max_steps": 12, "eval_every": 3, "log_every": log_every}
    losses = []
    for how in ("skip", "rollback"):
        with monkeypatch.context() as patch:
            bad_calls(patch, LanguageModeling, lambda call: call == 7)
            trainer = make_trainer(make_config(book, trainer={**settings, "nonfinite": how}), how)
            fit(trainer)
        losses.append(logged(trainer, "train/loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# Carried state

CARRIED = (
    "model=gru", "model.hidden_size=16", "data.carry_state=true", "data.seq_len=16", "data.batch_size=4",
    "trainer.eval_every=10", "trainer.log_every=1", "trainer.sample_tokens=0", "trainer.max_steps=20",
    "scheduler=constant", "device=cpu", "device.threads=1", "device.compile=false",
)  # fmt: skip


@pytest.mark.parametrize("how", ["skip", "rollback"])
def test_carried_state_recovers_from_a_bad_batch(
    run_main: Main, book: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The hidden state of the batch is NaN; later batches start from the state before it."""
    run_batch, calls = CarriedState.__call__, itertools.count()

    def sick(self: CarriedState, tokens: Tensor) -> Tensor:
        outputs = run_batch(self, tokens)
        if torch.is_grad_enabled() and next(calls) == 13:
            assert self.state is not None
            self.state = tuple(part * math.nan for part in self.state)
            return outputs * math.nan
        return outputs

    monkeypatch.setattr(CarriedState, "__call__", sick)
    words = ("train", "data=text", f"data.path={book}", *CARRIED, f"trainer.nonfinite={how}", "name=carry")
    ran = run_main(*words)
    assert ran.code == 0, ran.err
    run = only("carry")
    rows = {row["step"]: row["train/loss"] for row in rows_of(run) if "train/loss" in row}
    skipped = [step for step, loss in rows.items() if loss is None]
    assert skipped == [14], "one batch is lost, and no more"
    assert read(run / "manifest.json")["batches_skipped"] == [13]
    assert MOST_SKIPPED > 1
    state = Checkpoints(RunFolder(run)).load("last")["hooks"]["carried"]["state"]
    assert all(bool(part.isfinite().all()) for part in state)


@pytest.mark.parametrize("bad", [6, pytest.param(7, marks=pytest.mark.slow)])
def test_skipping_and_rolling_back_carry_the_same_state(
    run_main: Main, book: Path, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    """Of six batches an epoch, the first begins without a state, also if it is the bad one."""
    words = ("train", "data=text", f"data.path={book}", *CARRIED, "data.seq_len=64", "data.batch_size=64")
    words = (*words, "trainer.eval_every=5", "trainer.max_steps=12")
    for how in ("skip", "rollback"):
        with monkeypatch.context() as patch:
            bad_calls(patch, LanguageModeling, lambda call: call == bad)
            ran = run_main(*words, f"trainer.nonfinite={how}", f"name={how}")
        assert ran.code == 0, ran.err
    found = [
        {row["step"]: row["train/loss"] for row in rows_of(only(how)) if "train/loss" in row}
        for how in ("skip", "rollback")
    ]
    assert found[0] == found[1]
    assert found[0][bad + 1] is None
    states = [Checkpoints(RunFolder(only(how))).load("last") for how in ("skip", "rollback")]
    assert all(torch.equal(states[0]["model"][name], states[1]["model"][name]) for name in states[0]["model"])


# Another monitor


def monitored(book: Path, monkeypatch: pytest.MonkeyPatch, monitor: str, **more: Any) -> Trainer:
    """Six validations: the loss is best at step 3, the other metric, of which more is better, at step 5."""
    losses, others = [5.0, 4.0, 1.0, 2.0, 3.0, 3.5], [0.1, 0.2, 0.3, 0.4, 0.9, 0.6]

    def validate(self: Trainer) -> Any:
        values = {"val/loss": losses[self.step - 1], "val/accuracy": others[self.step - 1]}
        return {name: self.declared[name].of(value, 1) for name, value in values.items()}

    monkeypatch.setattr("small_trainer.LanguageModeling", WithAccuracy)
    monkeypatch.setattr(Trainer, "validate", validate)
    settings = {"max_steps": 6, "eval_every": 1, "monitor": monitor, "keep_last": 2, **more}
    return make_trainer(make_config(book, trainer=settings), f"run {monitor.partition('/')[2]}")


class WithAccuracy(LanguageModeling):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.metrics = {**self.metrics, "accuracy": MetricSpec("share", higher_is_better=True)}


def resumed(trainer: Trainer, book: Path, **settings: Any) -> Trainer:
    own = {"eval_every": 1, "keep_last": trainer.settings.keep_last, **settings}
    again = go_on(trainer, make_config(book, trainer=own))
    again.monitor_again()
    return again


def test_another_monitor_takes_the_best_of_the_kept_checkpoints(
    book: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = monitored(book, monkeypatch, "val/loss")
    fit(trainer)
    index = trainer.checkpoints.index
    assert (index["best"]["step"], index["best"]["value"], index["monitor"]) == (3, 1.0, "val/loss")
    with caplog.at_level(logging.INFO):
        again = resumed(trainer, book, max_steps=6, monitor="val/accuracy")
    assert "trainer.monitor was val/loss and is val/accuracy: best at step 5 (0.9)" in caplog.text
    index = read(trainer.run.checkpoints / "index.json")
    assert (index["best"]["step"], index["best"]["value"]) == (5, 0.9)
    assert (index["monitor"], index["since_best"]) == ("val/accuracy", 1)
    assert index["best"]["metrics"]["val/accuracy"]["value"] == 0.9, "all that was measured there"
    assert Checkpoints(trainer.run).load("best")["step"] == 5, "which eval takes"
    back = resumed(again, book, max_steps=6, monitor="val/loss")
    assert back.checkpoints.best_value == 3.0, "step 3 is no longer kept"


def test_another_monitor_that_was_not_logged_begins_anew(
    book: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = monitored(book, monkeypatch, "val/loss", max_steps=3, patience=2)
    fit(trainer)
    with caplog.at_level(logging.INFO):
        again = resumed(trainer, book, max_steps=6, monitor="val/bits_per_char", patience=2)
    assert "is val/bits_per_char: not measured yet" in caplog.text
    assert again.checkpoints.best_value is None
    assert (again.checkpoints.index["since_best"], again.checkpoints.index["monitor"]) == (
        0,
        "val/bits_per_char",
    )


def test_the_same_monitor_changes_nothing(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = monitored(book, monkeypatch, "val/accuracy")
    fit(trainer)
    before = read(trainer.run.checkpoints / "index.json")
    resumed(trainer, book, max_steps=6, monitor="val/accuracy")
    assert read(trainer.run.checkpoints / "index.json") == before


def test_another_monitor_on_the_command_line(run_main: Main) -> None:
    """The result, the index and eval all speak of the new metric; nothing of the old one is left."""
    words = [word for word in CURRICULUM if not word.startswith(("data.max", "data.grow"))]
    assert run_main(*words, "trainer.eval_every=2", "trainer.max_steps=6", "name=two").code == 0
    run = only("two")
    again = ("train", f"resume={run}", "trainer.max_steps=6", "trainer.monitor=val/accuracy")
    ran = run_main(*again)
    assert ran.code == 0, ran.err
    assert "trainer.monitor was val/loss and is val/accuracy" in ran.err
    rows = {row["step"]: row for row in rows_of(run) if "val/accuracy" in row}
    index = read(run / "checkpoints/index.json")
    best = index["best"]
    assert best["value"] == rows[best["step"]]["val/accuracy"]
    assert best["value"] == max(rows[entry["step"]]["val/accuracy"] for entry in index["recent"])
    judged = run_main("eval", f"run={run}", "device=cpu", "data.lengths=[2]")
    assert json.loads(judged.out)["step"] == best["step"]
    ran = run_main("train", f"resume={run}", "trainer.max_steps=8")
    assert ran.code == 0, ran.err
    assert read(run / "result.json")["monitor"]["name"] == "val/accuracy"


# An average of the weights


def test_the_average_is_the_closed_form(book: Path) -> None:
    """avg_n = d^(n-1) w_1 + (1 - d) Σ d^(n-k) w_k, from the weights after each step."""
    d, n = 0.7, 6
    config = make_config(book, trainer={"max_steps": n, "eval_every": 3, "ema_decay": d})
    trainer = make_trainer(config)
    seen: list[dict[str, Tensor]] = []
    step = trainer._train_step

    def watched() -> None:
        step()
        seen.append({name: weight.double().clone() for name, weight in trainer.model.state_dict().items()})

    trainer._train_step = watched  # type: ignore[method-assign]
    fit(trainer)
    state = Checkpoints(trainer.run).load("last")
    for name, weight in state["hooks"]["ema"]["weights"].items():
        expected = d ** (n - 1) * seen[0][name]
        expected += sum((1 - d) * d ** (n - k) * seen[k - 1][name] for k in range(2, n + 1))
        torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-7)
        assert not torch.equal(weight, state["model"][name])
    assert state["hooks"]["ema"]["averaged"] == n


def test_the_average_is_evaluated_and_saved(book: Path) -> None:
    config = make_config(
        book,
        trainer={"max_steps": 6, "eval_every": 2, "ema_decay": 0.9, "monitor": "val_ema/loss"},
        optimizer={"name": "adamw", "lr": 0.1},
    )
    trainer = make_trainer(config)
    fit(trainer)
    averaged, plain = logged(trainer, "val_ema/loss"), logged(trainer, "val/loss")
    assert list(averaged) == [2, 4, 6]
    assert averaged != plain
    checkpoints = Checkpoints(trainer.run)
    best = min(averaged, key=lambda step: averaged[step])
    assert (checkpoints.index["best"]["step"], checkpoints.best_value) == (best, averaged[best])
    trainer.model.load_state_dict(checkpoints.load("ema")["model"])
    found = evaluate_split(trainer.task, trainer.model, trainer.data, "val")
    assert found["val/loss"].value == averaged[best]


def test_the_average_changes_no_training(book: Path) -> None:
    results = []
    for decay in (None, 0.9):
        config = make_config(book, model={"dropout": 0.2}, trainer={"max_steps": 4, "ema_decay": decay})
        trainer = make_trainer(config, f"run {decay}")
        fit(trainer)
        results.append((weights(trainer), logged(trainer, "val/loss")))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_a_resumed_average_is_the_same_to_the_bit(book: Path) -> None:
    def config(steps: int) -> Any:
        settings = {"max_steps": steps, "eval_every": 2, "ema_decay": 0.8}
        return make_config(book, model={"dropout": 0.2}, trainer=settings)

    whole = make_trainer(config(8), "whole")
    fit(whole)
    half = make_trainer(config(4), "half")
    fit(half)
    again = go_on(half, config(8))
    fit(again)
    states = [trainer.checkpoints.load("last") for trainer in (whole, again)]
    assert states[0]["hooks"]["ema"]["averaged"] == states[1]["hooks"]["ema"]["averaged"] == 8
    for key in ("model", "ema"):
        one, other = (s["model"] if key == "model" else s["hooks"]["ema"]["weights"] for s in states)
        assert all(torch.equal(one[name], other[name]) for name in one), key
    assert logged(whole, "val_ema/loss")[8] == logged(again, "val_ema/loss")[8]


def test_no_average_was_kept(run_main: Main, tiny_run: Path) -> None:
    ran = run_main("eval", f"run={tiny_run}", "checkpoint=ema", "device=cpu")
    assert ran.code == 2
    assert "kept no averaged weights; train with trainer.ema_decay=0.999" in ran.err.splitlines()[-1]


@pytest.mark.parametrize("value", ["1", "-0.1", "1.5"])
def test_a_decay_that_is_out_of_range(run_main: Main, value: str) -> None:
    ran = run_main("train", "data=parity", f"trainer.ema_decay={value}")
    assert (ran.code, f"trainer.ema_decay={value}" in ran.err) == (2, True)


# Limits, and settings without effect


@pytest.mark.parametrize(
    ("limits", "ended"),
    [
        ({"max_steps": 3, "max_minutes": 60.0}, lambda step: step == 3),
        ({"max_steps": 1_000_000, "max_minutes": 0.005}, lambda step: 0 < step < 1_000_000),
        ({"max_steps": 3, "max_epochs": 1000.0}, lambda step: step == 3),
        ({"max_epochs": 0.02, "max_steps": 1_000_000}, lambda step: 0 < step < 1_000_000),
        ({"max_epochs": 1000.0, "max_minutes": 0.005}, lambda step: step > 0),
    ],
)
def test_whichever_limit_comes_first(
    book: Path, limits: dict[str, Any], ended: Callable[[int], bool]
) -> None:
    trainer = make_trainer(make_config(book, trainer={"max_steps": None, "eval_every": 10**6, **limits}))
    assert fit(trainer) == "finished"
    assert ended(trainer.step)
    assert logged_steps(trainer, "val/loss") == [trainer.step]


WITHOUT_EFFECT = {
    (
        "scheduler=constant",
        "scheduler.min_lr=1e-5",
    ): "scheduler.min_lr=1e-05 has no effect",
    ("scheduler=cosine", "scheduler.decay_fraction=0.5"): "scheduler.decay_fraction=0.5 has no effect",
    ("generation.beam_size=3",): "generation.beam_size=3 has no effect on task=language_modeling",
    ("scheduler.warmup_steps=50",): "scheduler.warmup_steps=50 is not shorter than the run (2 steps)",
    ("scheduler.warmup_steps=3", "trainer.max_steps=null", "trainer.max_epochs=0.001"): (
        "scheduler.warmup_steps=3 is not shorter than the run"
    ),
}


@pytest.mark.parametrize("words", WITHOUT_EFFECT, ids=lambda words: words[-1])
def test_a_setting_without_effect_is_said_and_recorded(
    run_main: Main, book: Path, words: tuple[str, ...]
) -> None:
    told = WITHOUT_EFFECT[words]
    common = ("train", "data=text", f"data.path={book}", *TINY, "trainer.max_steps=2")
    ran = run_main(*common, *words, "name=odd")
    assert ran.code == 0, ran.err
    assert any(line.startswith("NOTE: ") and told in line for line in ran.err.splitlines()), ran.err
    (note,) = [note for note in read(only("odd") / "manifest.json")["without_effect"] if told in note]
    assert note
    quiet = run_main(
        *common, "scheduler=constant", "scheduler.warmup_steps=0", "scheduler.min_lr=0", "name=q"
    )
    assert read(only("q") / "manifest.json")["without_effect"] == [], quiet.err


def test_attention_settings_without_effect(run_main: Main) -> None:
    words = (*TINY_NMT, f"data.path={write_pairs(Path('p.tsv'), make_pairs())}", "trainer.max_steps=1")
    words = (*words, "task.bleu=false", "trainer.sample_tokens=0", "model.attention=general")
    ran = run_main("train", *words, "model.window=7", "model.attention_size=9", "name=window")
    assert ran.code == 0, ran.err
    notes = read(only("window") / "manifest.json")["without_effect"]
    assert any("model.window=7" in note for note in notes)
    assert any("model.attention_size=9" in note for note in notes)


def test_the_sizes_of_a_data_set_need_no_note() -> None:
    model = NMTConfig(attention="general", hidden_size=128, attention_size=128)  # conf/pair/phrasebook_nmt
    assert model.without_effect() == []


def test_generation_settings_without_effect(run_main: Main, tiny_run: Path) -> None:
    ran = run_main("generate", f"run={tiny_run}", "generation.beam_size=3", "generation.max_new_tokens=2")
    assert ran.code == 0, ran.err
    assert "NOTE: generation.beam_size=3 has no effect on task=language_modeling" in ran.err
    (made,) = Path("outputs/generate").glob("*/*/manifest.json")
    assert len(read(made)["without_effect"]) == 1


# Samples


def test_sample_translations_are_searched_once(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each of two validations, besides those for BLEU, which are none here."""
    from seqexp.decoding.beam import BeamSearch

    search, calls = BeamSearch.search, []

    def counted(self: BeamSearch, context: Any, lengths: list[int], longest: list[int]) -> Any:
        calls.append(len(lengths))
        return search(self, context, lengths, longest)

    monkeypatch.setattr(BeamSearch, "search", counted)
    pairs = write_pairs(Path("pairs.tsv"), make_pairs())
    words = (
        *TINY_NMT,
        f"data.path={pairs}",
        "task.bleu=false",
        "trainer.max_steps=4",
        "trainer.eval_every=2",
    )
    ran = run_main("train", *words, "name=samples")
    assert ran.code == 0, ran.err
    assert calls == [5, 5]
    assert len(list((only("samples") / "samples").glob("*.txt"))) == 2
    assert len(list((only("samples") / "samples").glob("*_attention.png"))) == 2


# Memory


def test_freed_memory_is_released_when_the_process_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a release the need is measured again, and the largest need counts."""
    resident = [100, 99, 105, 111, 90, 101, 95, 112, 90, 120, 131, 133]
    released: list[int] = []
    monkeypatch.setattr(memory, "resident_bytes", lambda: resident[len(checked)])
    monkeypatch.setattr(memory, "release_freed_memory", lambda: released.append(resident[len(checked)]))
    monkeypatch.setattr(memory, "GROWTH", 1.1)
    monkeypatch.setattr(memory, "MEASURED", 2)
    hook, checked = memory.FreedMemory(), []
    for number in range(len(resident)):
        hook.check()
        checked.append(number)
    # The need is 100, then at most 101 (90, 101), then 120 (90, 120).
    assert released == [111, 112, 133]
    monkeypatch.setattr(memory, "resident_bytes", lambda: None)
    hook.check()  # not Linux
