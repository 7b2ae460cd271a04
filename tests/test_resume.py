"""Resuming: the same run to the last bit, and what may be changed on the way."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Ran, make_book
from small_trainer import fit, make_config, make_trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from seqexp.errors import UserError
from seqexp.tracking.run_folder import RunFolder, read_metrics
from seqexp.training.checkpoint import Checkpoints
from seqexp.training.loop import Trainer

Main = Callable[..., Ran]


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
    for key in ("step", "model", "optimizers", "random", "scaler", "preprocessor", "hooks"):
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
        ("hooks", {"curriculum": {"nll": torch.zeros(()), "count": -1}}),
        ("hooks", {"nonfinite": {"skipped": ["x"]}}),
        ("hooks", {"ema": {"weights": {}, "averaged": 1}}),
        ("hooks", {"ema": {"weights": None, "averaged": "many"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_that_is_not_the_runs(book: Path, key: str, value: Any) -> None:
    config = make_config(book, trainer={"max_steps": 2, "ema_decay": 0.9})
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
    assert f"{word} cannot be changed when a run is resumed" in ran.err.splitlines()[-1]
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
        "train", "data=text", f"data.path={book}", *TINY, "trainer.max_minutes=0.03",
        "trainer.max_steps=null", "name=timed",
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
