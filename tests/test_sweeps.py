"""Grid sweeps: every job to its end, in its own folder, once; what failed or was interrupted goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Ran
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints
from seqexp.training.loop import Trainer

Main = Callable[..., Ran]

pytestmark = pytest.mark.usefixtures("one_thread")

# Jobs of a fraction of a second.
CHEAP = (
    "train", "-m", "data=parity", "model=rnn", "data.seq_len=8", "trainer.max_steps=20",
    "trainer.eval_every=10", "trainer.sample_tokens=0", "data.eval_sequences=20", "device=cpu",
    "device.threads=1", "device.precision=fp32",
)  # fmt: skip


def read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def jobs_of(name: str = "s") -> list[Path]:
    """The folders of a sweep's jobs, in the order of their numbers."""
    folders = [path for path in Path("outputs/sweeps", name).glob("*_*") if path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name.partition("_")[0]))


def statuses(name: str = "s") -> list[str]:
    return [read(job / "status.json")["status"] for job in jobs_of(name)]


def config_of(job: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((job / "config.yaml").read_text(encoding="utf-8")))


def seed_of(job: Path) -> int:
    return int(config_of(job)["seed"])


def numbers(job: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without what depends on the machine's mood."""
    rows = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("speed/", "memory/"))} for row in rows]


def weights(job: Path) -> dict[str, torch.Tensor]:
    """The tensors of the last checkpoint."""
    return dict(Checkpoints(RunFolder(job)).load("last")["model"])


def assert_same_training(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert len(first) >= 3
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert numbers(one) == numbers(other)
    results = [read(job / "result.json") for job in (one, other)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["step"] == results[1]["step"]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file with its time and size: equal before and after where nothing was touched."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".lock"]
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in files}


@contextmanager
def at_step(step: int, seed: int, do: Callable[[], object]) -> Iterator[None]:
    """Inside, `do` is called when the job with this seed has trained `step` steps."""
    train_step = Trainer._train_step

    def patched(self: Trainer) -> None:
        if self.step == step and self.config.seed == seed:
            do()
        train_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_step", patched)
        yield


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def divide_by_zero() -> None:
    raise ZeroDivisionError("a fault in the middle")


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Inside, another process holds this lock."""
    code = (
        "import sys\nfrom filelock import FileLock\n"
        "with FileLock(sys.argv[1], timeout=0):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        process.communicate("")
        assert process.returncode == 0


# Failures


def test_one_failing_job_stops_no_other(run_main: Main) -> None:
    """Its traceback is in its folder, it is said at once and at the end; the same line runs only this one."""
    words = (*CHEAP, "sweep.name=s", "seed=1,2,3")
    with at_step(12, 2, divide_by_zero):
        ran = run_main(*words)
    assert ran.code == 1
    jobs = jobs_of()
    assert [seed_of(job) for job in jobs] == [1, 2, 3]
    assert statuses() == ["finished", "failed", "finished"]
    error = read(jobs[1] / "status.json")["error"]
    assert "Traceback" in error
    assert "ZeroDivisionError: a fault in the middle" in error
    lines = ran.err.splitlines()
    said = next(i for i, line in enumerate(lines) if "job failed (seed=2): a fault in the middle" in line)
    third = next(i for i, line in enumerate(lines) if line.startswith("\t#2 : "))
    assert said < third, "said at once"
    assert "1 job failed" in lines[-2]
    assert lines[-1] == f"  seed=2: a fault in the middle ({jobs[1].name})"

    before = [snapshot(job) for job in jobs]
    ran = run_main(*words)
    assert ran.code == 0, ran.err
    assert jobs_of() == jobs
    assert [before[i] == snapshot(jobs[i]) for i in range(3)] == [True, False, True]
    assert statuses() == ["finished"] * 3
    assert "error" not in read(jobs[1] / "status.json")
    assert [row["step"] for row in numbers(jobs[1])] == [10, 10, 20, 20]
    assert "failed" not in ran.err.splitlines()[-1]


def test_a_mistake_in_one_value_leaves_a_folder_with_the_error(run_main: Main) -> None:
    words = (*CHEAP, "sweep.name=s", "data.seq_len=8,-12,10")
    for _ in range(2):  # the second time only this one is tried
        ran = run_main(*words)
        assert ran.code == 1
        assert "Traceback" not in ran.err
        assert statuses() == ["finished", "failed", "finished"]
        status = read(jobs_of()[1] / "status.json")
        assert "data.seq_len=-12" in status["error"]
        assert "at least 1" in status["error"]
        assert "data.seq_len=-12" in status["words"]
        assert ran.err.splitlines()[-1].startswith("  data.seq_len=-12: data.seq_len=-12 is out of range")
    assert "tok/s" not in ran.err, "nothing was trained the second time"


def test_the_progress_line(run_main: Main) -> None:
    """Jobs done, failures, the best so far with its setting, and the time left."""
    with at_step(3, 3, divide_by_zero):
        ran = run_main(*CHEAP, "sweep.name=s", "seed=1,2,3,4")
    told = re.findall(r"^s: (\d) of (\d) jobs done, (.*)$", ran.err, re.MULTILINE)
    assert [line[:2] for line in told] == [("1", "4"), ("2", "4"), ("3", "4"), ("4", "4")]
    losses = {
        seed_of(job): read(job / "result.json")["metrics"]["val/loss"]
        for job in jobs_of()
        if job != jobs_of()[2]
    }
    for seeds, (_, _, rest) in zip(([1], [1, 2], [1, 2], [1, 2, 4]), told, strict=True):
        best = min(seeds, key=losses.__getitem__)
        assert f"best val/loss {losses[best]:.4g} (seed={best})" in rest
    assert ["1 failed" in rest for *_, rest in told] == [False, False, True, True]
    assert [bool(re.search(r"about \d+ s left", rest)) for *_, rest in told] == [True, True, True, False]


def test_a_sweep_reports_the_best_by_the_monitor(run_main: Main) -> None:
    """An accuracy is better when it is higher."""
    ran = run_main(*CHEAP, "sweep.name=s", "seed=1,2", "trainer.monitor=val/accuracy", "trainer.eval_every=2")
    assert ran.code == 0, ran.err
    accuracies = {}
    for job in jobs_of():
        measured = [row["val/accuracy"] for row in numbers(job) if "val/accuracy" in row]
        assert len(measured) == 10
        accuracies[seed_of(job)] = max(measured)
        assert read(job / "result.json")["monitor"]["best"] == max(measured)
    best = max(accuracies.values())
    line = re.findall(r"2 of 2 jobs done, best val/accuracy (\S+) \(seed=(\d)\)", ran.err)[-1]
    assert float(line[0]) == pytest.approx(best, rel=1e-3)
    assert accuracies[int(line[1])] == best
    ledger = [json.loads(line) for line in Path("outputs/sweeps/s/jobs.jsonl").read_text().splitlines()]
    assert [entry["value"] for entry in ledger] == [accuracies[seed] for seed in (1, 2)]


# Ctrl-C and SIGKILL


def test_an_interrupted_sweep_goes_on(run_main: Main) -> None:
    """Ctrl-C keeps what is there; the interrupted job ends with the weights of one that was not."""
    words = (*CHEAP, "sweep.name=s", "seed=1,2,3")
    with at_step(13, 2, ctrl_c):
        ran = run_main(*words)
    assert ran.code == 130
    assert "the same line, with sweep.name=s" in ran.err
    assert statuses() == ["finished", "interrupted"], "the third was not begun"
    first = snapshot(jobs_of()[0])
    ran = run_main(*words)
    assert ran.code == 0, ran.err
    assert [seed_of(job) for job in jobs_of()] == [1, 2, 3]
    assert statuses() == ["finished"] * 3
    assert snapshot(jobs_of()[0]) == first
    resumed = read(jobs_of()[1] / "manifest.json")["resumed"]
    assert [entry["step"] for entry in resumed] == [14], "the step under way was ended and saved"
    assert run_main(*CHEAP, "sweep.name=whole", "seed=2").code == 0
    assert_same_training(jobs_of()[1], jobs_of("whole")[0])
    assert jobs_of()[1].name.partition("_")[2] == jobs_of("whole")[0].name.partition("_")[2]


def test_a_job_stopped_in_its_last_validation_goes_on(run_main: Main) -> None:
    """Its last checkpoint is there, but what it is worth is not known yet."""
    words = (*CHEAP, "sweep.name=s", "seed=1")
    validate = Trainer.validate

    def stopped(self: Trainer) -> dict[str, float]:
        if self.step == 20:
            raise KeyboardInterrupt
        return validate(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "validate", stopped)
        assert run_main(*words).code == 130
    (job,) = jobs_of()
    assert read(job / "checkpoints/index.json")["last"]["step"] == 20
    ran = run_main(*words)
    assert ran.code == 0, ran.err
    assert statuses() == ["finished"]
    assert [row["step"] for row in numbers(job) if "val/loss" in row] == [10, 20]
    assert (job / "result.json").is_file()


DRIVER = """
import os, signal, sys
from seqexp.training.loop import Trainer
train_step = Trainer._train_step
def patched(self):
    key = (self.config.model.name, self.config.optimizer.lr, self.config.seed)
    if self.step == 12 and key == ("rnn", 0.02, 2):
        raise ZeroDivisionError("a fault in the middle")
    if self.step == 15 and key == ("gru", 0.01, 2):
        os.kill(os.getpid(), signal.SIGKILL)
    train_step(self)
Trainer._train_step = patched
from seqexp.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_twelve_jobs_one_fails_and_one_is_killed(run_main: Main) -> None:
    """The same line again completes the sweep; nothing is trained twice, what was killed goes on."""
    words = (*CHEAP, "model=rnn,gru", "optimizer.lr=0.01,0.02,0.03", "seed=1,2", "sweep.name=s")
    words = tuple(word for word in words if word != "model=rnn")
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, *words], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    # Of rnn and gru at three rates with two seeds: 0–7, of which 3 failed; 7 was being trained.
    assert statuses() == ["finished"] * 3 + ["failed"] + ["finished"] * 3 + ["running"]
    done = {job: snapshot(job) for job in jobs_of() if (job / "result.json").is_file()}
    assert len(done) == 6

    ran = run_main(*words)
    assert ran.code == 0, ran.err
    jobs = jobs_of()
    assert statuses() == ["finished"] * 12
    assert [snapshot(job) for job in done] == list(done.values()), "nothing was trained twice"
    wanted = [(model, lr, seed) for model in ("rnn", "gru") for lr in (0.01, 0.02, 0.03) for seed in (1, 2)]
    found = []
    for job in jobs:
        config = config_of(job)
        found.append((config["model"]["name"], config["optimizer"]["lr"], config["seed"]))
        assert [row["step"] for row in numbers(job)] == [10, 10, 20, 20]
        assert job.name.partition("_")[2] == read(job / "manifest.json")["fingerprint"]
    assert found == wanted
    assert [int(job.name.partition("_")[0]) for job in jobs] == list(range(12))
    resumed = [read(job / "manifest.json").get("resumed", []) for job in jobs]
    assert [[entry["step"] for entry in entries] for entries in resumed] == [[]] * 7 + [[10]] + [[]] * 4
    assert "12 of 12 jobs done" in ran.err

    for model, lr, number in (("rnn", 0.02, 3), ("gru", 0.01, 7)):
        name = f"whole_{model}"
        assert (
            run_main(*CHEAP, f"model={model}", f"optimizer.lr={lr}", "seed=2", f"sweep.name={name}").code == 0
        )
        assert_same_training(jobs[number], jobs_of(name)[0])


@pytest.mark.slow
def test_damaged_folders_are_trained_anew(run_main: Main) -> None:
    """Killed before the first checkpoint or making its folder, or with a broken status: from the start."""
    words = (*CHEAP, "sweep.name=s", "seed=1,2,3,4")
    assert run_main(*words).code == 0
    jobs = jobs_of()
    wanted = [numbers(job) for job in jobs]
    for file in jobs[0].rglob("*"):
        if file.is_file():
            file.unlink()
    (jobs[1] / "status.json").write_text('{"stat')
    (jobs[2] / "status.json").write_text('{"status": "running", "process": 1}')
    (jobs[2] / "checkpoints/index.json").unlink()
    (jobs[2] / "result.json").unlink()
    kept = snapshot(jobs[3])
    ran = run_main(*words)
    assert ran.code == 0, ran.err
    assert jobs_of() == jobs
    assert statuses() == ["finished"] * 4
    assert [numbers(job) for job in jobs] == wanted, "rows of two attempts would be longer"
    assert snapshot(jobs[3]) == kept
    assert all((job / "result.json").is_file() for job in jobs)


# Which folder is a job's own


def test_a_grid_that_is_extended_keeps_what_was_trained(run_main: Main) -> None:
    """Two more seeds change the numbers of jobs, not their configurations."""
    assert run_main(*CHEAP, "sweep.name=s", "optimizer.lr=0.01,0.02", "seed=1,2").code == 0
    before = {job: snapshot(job) for job in jobs_of()}
    ran = run_main(*CHEAP, "sweep.name=s", "optimizer.lr=0.01,0.02", "seed=3,1,2")
    assert ran.code == 0, ran.err
    assert {job: snapshot(job) for job in before} == before
    found = sorted((config_of(job)["optimizer"]["lr"], seed_of(job)) for job in jobs_of())
    assert found == [(lr, seed) for lr in (0.01, 0.02) for seed in (1, 2, 3)]
    new = set(jobs_of()) - set(before)
    assert {int(job.name.partition("_")[0]) for job in new} == {0, 3}, "seed 3 comes first at each rate"
    assert "6 of 6 jobs done" in ran.err


def test_a_job_that_is_there_twice_is_trained_once(run_main: Main) -> None:
    ran = run_main(*CHEAP, "sweep.name=s", "seed=1,1")
    assert ran.code == 0, ran.err
    assert len(jobs_of()) == 1
    assert "2 of 2 jobs done" in ran.err


@pytest.mark.slow
def test_a_sweep_over_precisions(run_main: Main) -> None:
    """The fingerprint leaves the precision out, but where it is what a sweep varies, each has its run."""
    words = [word for word in CHEAP if not word.startswith("device.precision")]
    words += ["sweep.name=s", "device.precision=fp32,bf16"]
    ran = run_main(*words)
    assert ran.code == 0, ran.err
    assert [config_of(job)["device"]["precision"] for job in jobs_of()] == ["fp32", "bf16"]
    assert [read(job / "manifest.json")["precision"] for job in jobs_of()] == ["fp32", "bf16"]
    assert numbers(jobs_of()[0]) != numbers(jobs_of()[1])
    before = [snapshot(job) for job in jobs_of()]
    assert run_main(*words).code == 0
    assert [snapshot(job) for job in jobs_of()] == before


def test_a_sweep_that_goes_on_with_another_device_setting(run_main: Main) -> None:
    """What does not decide the result does not make jobs anew."""
    assert run_main(*CHEAP, "sweep.name=s", "seed=1").code == 0
    before = snapshot(jobs_of()[0])
    assert run_main(*CHEAP, "sweep.name=s", "seed=1,2", "device.threads=2", "trainer.log_every=5").code == 0
    assert [seed_of(job) for job in jobs_of()] == [1, 2]
    assert snapshot(jobs_of()[0]) == before


@pytest.mark.parametrize("status", ["running", pytest.param("interrupted", marks=pytest.mark.slow)])
def test_a_job_that_another_process_holds_is_left_alone(run_main: Main, status: str) -> None:
    words = (*CHEAP, "sweep.name=s", "seed=1,2")
    with at_step(13, 1, ctrl_c):
        assert run_main(*words).code == 130
    (job,) = jobs_of()
    (job / "status.json").write_text(json.dumps({"status": status, "process": 1, "host": "another"}))
    before = snapshot(job)
    with held(job / ".lock"):
        ran = run_main(*words)
    assert ran.code == 0, ran.err
    assert "another process" in ran.err
    assert snapshot(job) == before
    assert [read(path / "status.json")["status"] for path in jobs_of() if path != job] == ["finished"]
    # The lock ended with its process.
    assert run_main(*words).code == 0
    assert statuses() == ["finished"] * 2
    assert (job / "result.json").is_file()


# Words


@pytest.mark.parametrize(
    "word",
    [
        "sweep.name=../../../escaped", "++sweep.name=../../../escaped", "sweep.name=a/b", "sweep.name=..",
        "sweep.name=", "sweep.name=.hidden", "sweep.name='../../../escaped'", 'sweep.name="../../../escaped"',
    ],
)  # fmt: skip
def test_a_name_that_leaves_the_outputs(run_main: Main, tmp_path: Path, word: str) -> None:
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    os.chdir(place)
    ran = run_main(*CHEAP, word)
    assert ran.code == 2, ran.err
    assert len(ran.err.splitlines()) == 1
    assert "sweep.name" in ran.err
    assert [path for path in tmp_path.rglob("*") if path not in (place, place.parent)] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sweep.n_trials=5",), "sweep.n_trials=5 is for a search; add sweep=optuna"),
        (("-m", "sweep.n_trials=5"), "sweep.n_trials=5 is for a search; add sweep=optuna"),
        (("-m", "sweep.sampler=tpe"), "sweep.sampler=tpe is for a search; add sweep=optuna"),
        (("-m", "optimizer.lr=interval(1e-3,1e-2)"), "for interval(…) search with sweep=optuna"),
    ],
)
def test_words_of_a_search_in_a_grid(run_main: Main, words: tuple[str, ...], told: str) -> None:
    ran = run_main(*(word for word in CHEAP if word != "-m"), *words)
    assert ran.code in (1, 2)
    assert told in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert not list(Path("outputs").glob("**/checkpoints"))


# TensorBoard


def test_the_hparams_page_of_tensorboard(run_main: Main) -> None:
    """Each job tells the settings that differ, and the metrics of its best checkpoint."""
    words = [word for word in CHEAP if word != "model=rnn"]
    ran = run_main(*words, "sweep.name=s", "model=rnn,gru", "optimizer.lr=0.02", "data.seq_len=8,10")
    assert ran.code == 0, ran.err
    told = set()
    for job in jobs_of():
        events = EventAccumulator(str(job / "tensorboard")).Reload()
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        start = HParamsPluginData.FromString(content).session_start_info
        told.add(
            tuple(
                (key, value.string_value or value.number_value)
                for key, value in sorted(start.hparams.items())
            )
        )
        content = events.SummaryMetadata("_hparams_/session_end_info").plugin_data.content
        assert HParamsPluginData.FromString(content).session_end_info.status == 1  # success
        result = read(job / "result.json")
        best = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"] if tag.startswith("best/")}
        assert set(best) == {f"best/{name}" for name in result["metrics"]}
        for name, value in result["metrics"].items():
            (point,) = best[f"best/{name}"]
            assert (point.step, point.value) == (result["step"], pytest.approx(value, rel=1e-6))
    assert told == {
        (("data.seq_len", length), ("model.name", model)) for model in ("rnn", "gru") for length in (8, 10)
    }


# Side by side

FOUR_CORES = """
import os
os.sched_getaffinity = lambda process: set(range(4))
"""


def side_by_side(place: Path, *words: str, **options: Any) -> "subprocess.Popen[str]":
    """A sweep as a process of its own, in a session of its own, on a machine with four cores, it seems."""
    (place / "sitecustomize.py").write_text(FOUR_CORES)
    return subprocess.Popen(
        [sys.executable, "-m", "seqexp", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])},
        **options,
    )


JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.mark.slow
def test_side_by_side_is_the_same_as_one_after_another(run_main: Main, tmp_path: Path) -> None:
    """Bit by bit; a job that fails stops no other."""
    words = (*CHEAP, "data.seq_len=8,-12,10")
    process = side_by_side(tmp_path, *words, "sweep.name=beside", *JOBLIB)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert statuses("beside") == ["finished", "failed", "finished"]
    assert "1 job failed" in err
    assert "3 of 3 jobs done, 1 failed, best val/loss" in err
    before = [snapshot(job) for job in jobs_of("beside")]
    assert run_main(*CHEAP, "data.seq_len=8,10", "sweep.name=beside").code == 0
    assert [snapshot(job) for job in jobs_of("beside")] == before, "found again without joblib"
    assert run_main(*words, "sweep.name=after").code == 1
    for i in (0, 2):
        one, other = jobs_of("beside")[i], jobs_of("after")[i]
        assert one.name == other.name
        assert_same_training(one, other)
        assert read(one / "manifest.json")["threads"] == 1, "as was typed"


@pytest.mark.slow
def test_an_interrupted_sweep_side_by_side_goes_on(run_main: Main, tmp_path: Path) -> None:
    """Threads are divided over the jobs; Ctrl-C to all of them saves what runs, and begins no further job."""
    words = [word for word in CHEAP if word != "device.threads=1"]
    words += ["trainer.max_steps=1000", "trainer.eval_every=100", "sweep.name=s"]
    process = side_by_side(tmp_path, *words, "seed=1,2,3,4", *JOBLIB)
    deadline = time.monotonic() + 90
    while sum((job / "checkpoints/index.json").is_file() for job in jobs_of()) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same line, with sweep.name=s" in err
    assert statuses() == ["interrupted"] * 2
    assert [read(job / "manifest.json")["threads"] for job in jobs_of()] == [2, 2]
    stopped = [read(job / "checkpoints/index.json")["last"]["step"] for job in jobs_of()]
    assert all(0 < step < 1000 for step in stopped)
    ran = run_main(*words, "seed=1,2", "device.threads=1")
    assert ran.code == 0, ran.err
    assert statuses() == ["finished"] * 2
    for job, step in zip(jobs_of(), stopped, strict=True):
        assert [entry["step"] for entry in read(job / "manifest.json")["resumed"]] == [step]
        steps = [row["step"] for row in numbers(job) if "val/loss" in row]
        assert steps == list(range(100, 1001, 100))


@pytest.mark.slow
def test_submitit_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="the extra 'cluster' is not installed"
    )
    words = (*CHEAP, "sweep.name=s", "data.seq_len=8,-12", "hydra/launcher=submitit_local")
    process = side_by_side(tmp_path, *words)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert statuses() == ["finished", "failed"]
    assert "1 job failed" in err
    assert "data.seq_len=-12 is out of range" in err.splitlines()[-1]
