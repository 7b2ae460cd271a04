"""Nothing is lost: checkpoints, damaged ones, full disks, signals, losses that are not finite."""

import json
import math
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Ran
from filelock import FileLock
from small_trainer import answer, fit, go_on, logged_steps, make_config, make_trainer, weights
from torch import Tensor

from seqexp.errors import UserError
from seqexp.tasks.language_modeling import LanguageModeling
from seqexp.tracking.metrics import MetricsLog
from seqexp.tracking.run_folder import RunFolder, read_metrics
from seqexp.training.checkpoint import CheckpointError, Checkpoints
from seqexp.training.hooks.nonfinite import NonFiniteLossError
from seqexp.training.interrupt import StopRequest
from seqexp.training.loop import Trainer

Main = Callable[..., Ran]
Process = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.usefixtures("one_thread")


def read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def only(place: str) -> Path:
    (path,) = Path().glob(place)
    return path


def same_curves(first: Path, second: Path) -> bool:
    """Whether two runs logged the same, the clock apart."""
    rows = []
    for run in (first, second):
        kept = [
            {key: value for key, value in row.items() if not key.startswith(("speed/", "memory/"))}
            for row in read_metrics(run / "metrics.jsonl")
        ]
        rows.append(kept)
    return rows[0] == rows[1]


def final_weights(run: Path) -> dict[str, Tensor]:
    state = Checkpoints(RunFolder(run)).load("last")
    return {**state["model"], "moment": state["optimizers"][0]["state"][0]["exp_avg"]}


# Checkpoints


def test_a_checkpoint_is_of_the_moment_it_was_asked_for() -> None:
    """Updates that come before it is written do not get into it; tied tensors stay tied."""
    Path("run").mkdir()
    checkpoints = Checkpoints(RunFolder(Path("run")))
    weight = torch.zeros(300_000)
    for step in range(1, 6):
        weight.fill_(step)
        checkpoints.save(step, {"model": {"a": weight, "tied": weight}, "list": [weight[:5]]})
        weight.fill_(-1)
        state = checkpoints.load("last")
        assert state["step"] == step
        assert state["model"]["a"].eq(step).all()
        assert state["list"][0].eq(step).all()
        assert state["model"]["a"].data_ptr() == state["model"]["tied"].data_ptr()


def test_the_newest_and_the_best_are_kept() -> None:
    Path("run").mkdir()
    checkpoints = Checkpoints(RunFolder(Path("run")), keep_last=2, keep_best=2, mode="max")
    best = -math.inf
    for step, value in enumerate([3.0, 5.0, 4.0, math.nan, 1.0, 2.0], 1):
        checkpoints.save(step, {"model": {}})
        better = value > best
        best = value if better else best
        checkpoints.record_validation(step, value, better)
    files = {file.name for file in Path("run/checkpoints").glob("step_*")}
    assert files == {f"step_{step:08d}.{kind}" for step in (2, 3, 5, 6) for kind in ("pt", "safetensors")}
    assert [checkpoints.load(which)["step"] for which in ("best", "last", "3", "5")] == [2, 6, 3, 5]


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_two_hundred_flipped_bytes_are_found(ending: str) -> None:
    Path("run").mkdir()
    checkpoints = Checkpoints(RunFolder(Path("run")))
    for step in (1, 2):
        checkpoints.save(step, {"model": {"weight": torch.full((50,), float(step))}})
    checkpoints.wait()
    file = checkpoints.folder / f"step_00000002.{ending}"
    files = {other: other.read_bytes() for other in checkpoints.folder.glob("step_*")}
    whole = files[file]
    draw = random.Random(0)
    for place in draw.sample(range(len(whole)), 200):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        for other, data in files.items():
            other.write_bytes(bytes(damaged) if other == file else data)
        with pytest.raises(UserError, match="is damaged"):
            Checkpoints(RunFolder(Path("run"))).load("last")
        again = Checkpoints(RunFolder(Path("run")))
        assert again.load_newest()["step"] == 1
        checkpoints._write_index()


@pytest.mark.parametrize("kind", ["weights", "rest"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    run_main: Main, book: Path, kind: str
) -> None:
    """It ends with the weights, moments and curves of a run that was never stopped."""
    words = (
        "train", "data=text", f"data.path={book}", *TINY, "model.dropout=0.1", "trainer.eval_every=4",
        "trainer.checkpoint_every=2", "trainer.log_every=3",
    )  # fmt: skip
    assert run_main(*words, "trainer.max_steps=20", "name=whole").code == 0
    assert run_main(*words, "trainer.max_steps=20", "name=broken", "trainer.keep_last=3").code == 0
    whole, broken = only("outputs/train/whole/*"), only("outputs/train/broken/*")
    last = read(broken / "checkpoints/index.json")["last"]
    newest = broken / "checkpoints" / (last["weights"]["model"] if kind == "weights" else last)["file"]
    newest.write_bytes(newest.read_bytes()[:-1000] + b"x" * 1000)
    ran = run_main("train", f"resume={broken}")
    assert ran.code == 0, ran.err
    assert f"{newest.name} is damaged" in ran.err
    assert "going on from step 18 instead of 20" in ran.err
    for name, value in final_weights(whole).items():
        assert torch.equal(value, final_weights(broken)[name]), name
    assert same_curves(whole, broken)
    first, second = (read(run / "result.json")["monitor"] for run in (whole, broken))
    assert first == second


def test_when_no_checkpoint_is_whole(run_main: Main, tiny_run: Path) -> None:
    run = Path("outputs/train/tiny/copy")
    shutil.copytree(tiny_run, run)
    for file in (run / "checkpoints").glob("*.pt"):
        file.write_bytes(b"nothing")
    ran = run_main("train", f"resume={run}", "trainer.max_steps=12")
    assert ran.code == 2
    assert "none of the checkpoints" in ran.err.splitlines()[-1]


def test_checkpoints_by_the_clock(book: Path) -> None:
    config = make_config(
        book, trainer={"max_steps": 6, "eval_every": 100, "checkpoint_minutes": 1e-9, "keep_last": 10}
    )
    trainer = make_trainer(config)
    fit(trainer)
    steps = [entry["step"] for entry in trainer.checkpoints.index["recent"]]
    assert steps == [1, 2, 3, 4, 5, 6]


# Disks


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["seqexp", *sys.argv[2:]]
from seqexp.cli import run
run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weights", "rest"])
def test_a_disk_that_is_full(book: Path, kind: str) -> None:
    """The checkpoint that does not fit ends the run with one message; the one before is good for going on.

    The weights are the smaller file, and written first.
    """
    words = [
        "train", "data=text", f"data.path={book}", *TINY, "trainer.max_steps=12", "trainer.eval_every=4",
        "name=full",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "seqexp", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = only("outputs/train/full/*")
    before = read(run / "checkpoints/index.json")["last"]
    files = sorted(file.name for file in (run / "checkpoints").iterdir())
    small = (run / "checkpoints" / before["weights"]["model"]["file"]).stat().st_size
    size = small if kind == "weights" else (run / "checkpoints" / before["file"]).stat().st_size
    assert size == small or size - 5000 > small
    more = ["train", f"resume={run}", "trainer.max_steps=20"]
    limited = subprocess.run(
        [sys.executable, "-c", LIMITED, str(size - 5000), *more], capture_output=True, text=True
    )
    assert limited.returncode == 1
    last = limited.stderr.strip().splitlines()[-1]
    assert "a checkpoint cannot be written" in last
    assert before["file"] in last
    assert read(run / "checkpoints/index.json")["last"] == before
    assert sorted(file.name for file in (run / "checkpoints").iterdir()) == files, "nothing half-written"
    assert read(run / "status.json")["status"] == "failed"
    again = subprocess.run([sys.executable, "-m", "seqexp", *more], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert Checkpoints(RunFolder(run)).load("last")["step"] == 20


def test_training_goes_on_without_a_log(book: Path, caplog: pytest.LogCaptureFixture) -> None:
    """/dev/full takes no byte: that is said once, and the checkpoints are there."""
    trainer = make_trainer(make_config(book, trainer={"max_steps": 6, "eval_every": 2}))
    trainer.run.metrics_file.symlink_to("/dev/full")
    assert fit(trainer) == "finished"
    said = [record.message for record in caplog.records if "metrics cannot be written" in record.message]
    assert len(said) == 1
    assert trainer.checkpoints.load("last")["step"] == 6


def test_a_folder_that_takes_no_checkpoint(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(make_config(book, trainer={"max_steps": 6, "eval_every": 2}))

    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("seqexp.training.state_files._write_rest", refuse)
    with pytest.raises(CheckpointError, match=r"Read-only file system.*none yet"):
        fit(trainer)


# Signals and locks


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(book: Path, run_main: Main, number: int) -> None:
    words = ["train", "data=text", f"data.path={book}", *TINY, "trainer.max_steps=100000", "name=asked"]
    started = subprocess.Popen([sys.executable, "-m", "seqexp", *words], stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("step "):
            break
    started.send_signal(number)
    _, rest = started.communicate(timeout=60)
    assert started.returncode == 130, rest
    run = only("outputs/train/asked/*")
    assert read(run / "status.json")["status"] == "interrupted"
    step = Checkpoints(RunFolder(run)).load("last")["step"]
    assert 0 < step < 100_000
    ran = run_main("train", f"resume={run}", f"trainer.max_steps={step + 1}")
    assert ran.code == 0, ran.err


def test_a_second_ctrl_c_stops_at_once() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with StopRequest() as again:
        signal.raise_signal(signal.SIGINT)
        assert again.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_process_is_refused(run_main: Main, tiny_run: Path) -> None:
    run = Path("outputs/train/tiny/copy")
    shutil.copytree(tiny_run, run)
    before = read(run / "status.json")
    with FileLock(run / ".lock"):
        ran = run_main("train", f"resume={run}", "trainer.max_steps=12")
    assert ran.code == 2
    assert "is in use by process" in ran.err.splitlines()[-1]
    assert read(run / "status.json") == before


def test_resume_auto(run_main: Main, book: Path) -> None:
    """The newest that was interrupted, of this name and configuration; a new one where there is none."""
    words = ("train", "data=text", f"data.path={book}", *TINY, "trainer.max_steps=4", "resume=auto")
    assert run_main(*words, "name=a").code == 0
    first = only("outputs/train/a/*")
    assert run_main(*words, "name=a").code == 0, "a finished run is left alone"
    assert len(list(Path("outputs/train/a").iterdir())) == 2
    status = read(first / "status.json")
    (first / "status.json").write_text(json.dumps({**status, "status": "interrupted"}))
    ran = run_main(*words, "name=a", "seed=2")
    assert (ran.code, len(list(Path("outputs/train/a").iterdir()))) == (0, 3), "another configuration"
    assert run_main(*words, "name=b").code == 0, "another name"
    ran = run_main(*words, "name=a", "device.threads=1", "trainer.log_every=2")
    assert (ran.code, len(list(Path("outputs/train/a").iterdir()))) == (0, 3), ran.err
    assert str(first) in ran.err
    assert read(first / "status.json")["status"] == "finished"
    (first / "status.json").write_text(json.dumps({**status, "status": "running"}))
    with FileLock(first / ".lock"):
        ran = run_main(*words, "name=a")
    assert ran.code == 2
    assert "is running" in ran.err


def test_what_a_resume_changes_is_said(run_main: Main, tiny_run: Path) -> None:
    run = Path("outputs/train/tiny/copy")
    shutil.copytree(tiny_run, run)
    ran = run_main("train", f"resume={run}", "trainer.max_steps=12", "optimizer.lr=0.0123")
    assert ran.code == 0, ran.err
    (said,) = [line for line in ran.err.splitlines() if line.startswith("changed")]
    assert "trainer.max_steps 10 → 12" in said
    assert "→ 0.0123" in said


def test_patience_that_ended_when_the_process_was_killed(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the validation and its consequence, the run trains no further."""
    config = make_config(book, trainer={"max_steps": 20, "eval_every": 2, "patience": 1})
    answer(monkeypatch, [1.0, 2.0, 3.0, 4.0])
    trainer = make_trainer(config)

    def die(self: Trainer) -> bool:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_out_of_patience", lambda self: die(self) if self.step == 4 else False)
        with pytest.raises(MemoryError):
            fit(trainer)
    again = go_on(trainer, config)
    assert fit(again) == "stopped early"
    assert again.step == 4


def test_a_validation_that_was_cut_off_is_not_there_twice(tmp_path: Path) -> None:
    """Killed between the row of a validation and its note in the index: the row is written anew."""
    file = tmp_path / "metrics.jsonl"
    log = MetricsLog(file, tmp_path / "tensorboard")
    for step in (2, 4):
        log.write(step, {"train/loss": float(step)})
        log.write(step, {"val/loss": float(step)})
    log.write(5, {"train/loss": 5.0})
    log.close()
    MetricsLog(file, tmp_path / "tensorboard", after_step=4, validated=False).close()
    rows = [(row["step"], *(key for key in row if key != "step")) for row in read_metrics(file)]
    assert rows == [(2, "train/loss"), (2, "val/loss"), (4, "train/loss")]
    MetricsLog(file, tmp_path / "tensorboard", after_step=4, validated=True).close()
    assert len(read_metrics(file)) == 3


# Numbers that are none


def bad_at(monkeypatch: pytest.MonkeyPatch, trainer: Trainer, steps: set[int]) -> None:
    """Let the loss of these steps be NaN, and its gradients."""
    loss = LanguageModeling.loss

    def sick(self: LanguageModeling, model: Any, batch: Any, *, training: bool = False) -> Any:
        output = loss(self, model, batch, training=training)
        if training and trainer.step in steps:
            output.loss_sum = output.loss_sum * math.nan
            output.nll_sum = output.nll_sum * math.nan
        return output

    monkeypatch.setattr(LanguageModeling, "loss", sick)


@pytest.mark.parametrize("how", ["skip", "rollback"])
def test_a_batch_without_a_finite_loss(book: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The weights end as if the batch had not been there, and the batch is kept."""
    settings = {"max_steps": 12, "eval_every": 5, "nonfinite": how, "log_every": 1}
    without = make_trainer(make_config(book, trainer=settings), "without")
    without.nonfinite.skipped = [7]
    fit(without)
    trainer = make_trainer(make_config(book, trainer=settings))
    bad_at(monkeypatch, trainer, {7})
    assert fit(trainer) == "finished"
    assert torch.equal(weights(trainer), weights(without))
    assert trainer.nonfinite.skipped == [7]
    kept = torch.load("run/nonfinite/step_00000007.pt", weights_only=True)
    assert torch.equal(kept["inputs"], trainer.data.train_batch(7).inputs)
    for name, every in (("train/loss", range(1, 13)), ("val/loss", [5, 10, 12])):
        assert logged_steps(trainer, name) == list(every), "no step twice, none missing"
    assert trainer.checkpoints.load("last")["hooks"]["nonfinite"]["skipped"] == [7]


def test_a_loss_that_stays_bad_ends_the_run(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for how in ("skip", "rollback"):
        trainer = make_trainer(make_config(book, trainer={"max_steps": 30, "nonfinite": how}), how)
        with monkeypatch.context() as patch:
            bad_at(patch, trainer, set(range(3, 30)))
            with pytest.raises(NonFiniteLossError, match="although"):
                fit(trainer)


def test_a_stop_keeps_the_batch(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(make_config(book, trainer={"max_steps": 30}))
    bad_at(monkeypatch, trainer, {5})
    with pytest.raises(NonFiniteLossError, match=r"step_00000005\.pt"):
        fit(trainer)
    assert Path("run/nonfinite/step_00000005.pt").is_file()
