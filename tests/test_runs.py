"""`seqexp runs`: what is listed, found, compared and removed."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Ran
from run_folders import (
    RUN,
    copy_run,
    held,
    listed,
    make_run,
    names,
    no_crash,
    read,
    said_shortly,
    small_sweep,
    strict_json,
    write,
)

Main = Callable[..., Ran]
Process = Callable[..., subprocess.CompletedProcess[str]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(text))


# What is listed


def test_the_row_of_a_run(run_main: Main) -> None:
    started = datetime.now(timezone(timedelta(hours=5))) - timedelta(hours=3)
    make_run(RUN, started=started.isoformat(), losses=(2.0, 1.25, 1.5), data__name="shakespeare")
    (row,) = listed(run_main)
    assert row | {"bytes": 0} == {
        "path": str(RUN.absolute()), "kind": "train", "name": "hand", "model": "gpt", "data": "shakespeare",
        "status": "finished", "started": started.isoformat(), "metric": "val/loss", "best": 1.25, "bytes": 0,
        "error": None,
    }  # fmt: skip
    assert row["bytes"] == sum(file.stat().st_size for file in RUN.rglob("*") if file.is_file())
    ran = run_main("runs")
    header, line = ran.out.splitlines()
    assert header.split() == ["run", "model", "data", "status", "age", "best", "size"]
    assert line.split()[:8] == [str(RUN), "gpt", "shakespeare", "finished", "3", "h", "val/loss", "1.25"]


@pytest.mark.parametrize(
    ("ago", "told"),
    [
        (timedelta(seconds=50), "50 s"),
        (timedelta(minutes=5), "5 min"),
        (timedelta(hours=47), "47 h"),
        (timedelta(days=12), "12 d"),
    ],
)
def test_ages(run_main: Main, ago: timedelta, told: str) -> None:
    make_run(RUN, started=(datetime.now().astimezone() - ago).isoformat())
    assert f" {told} " in run_main("runs").out


def test_the_row_of_a_sweep(run_main: Main, parity_sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(parity_sweep.parents[2])
    (row,) = listed(run_main)
    best = min(
        json.loads(line)["val/loss"]
        for file in parity_sweep.glob("*/metrics.jsonl")
        for line in file.read_text().splitlines()
        if "val/loss" in line
    )
    assert (row["kind"], row["name"], row["model"], row["data"]) == ("sweep", "s", "lstm,rnn", "parity")
    assert (row["status"], row["jobs"], row["best"]) == ("finished", {"finished": 12}, best)
    started = [read(file)["started"] for file in parity_sweep.glob("*/status.json")]
    assert row["started"] == min(started)
    assert len(listed(run_main, "--all")) == 13


@pytest.mark.parametrize("status", ["failed", "interrupted", "killed", "damaged", "empty", "missing"])
def test_a_sweep_that_is_not_done_is_incomplete(run_main: Main, status: str) -> None:
    sweep = Path("outputs/sweeps/s")
    make_run(sweep / "0_aa")
    write(sweep / "sweep.json", {"calls": [{"jobs": 2}]})
    if status != "missing":
        make_run(sweep / "1_bb", status="running" if status == "killed" else status)
    if status == "empty":
        (sweep / "1_bb/status.json").unlink()
    (row,) = listed(run_main)
    assert (row["status"], row["jobs"]) == ("incomplete", {"finished": 1, status: 1})


@pytest.mark.parametrize(("higher", "best"), [(True, 0.75), (False, 0.5)])
@pytest.mark.parametrize("schema", [1, 2])
def test_the_best_of_a_sweep_follows_the_direction_of_its_metric(
    run_main: Main, schema: int, higher: bool, best: float
) -> None:
    """Whatever its name is: of old runs the direction stands beside the best value, now in the details."""
    for i, value in enumerate((0.5, 0.75, 0.625)):
        run = make_run(Path(f"outputs/sweeps/s/{i}_aa"), details=False)
        result = {**read(run / "result.json"), "monitor": {"name": "val/spearman", "best": value}}
        if schema == 1:
            result["monitor"]["mode"] = "max" if higher else "min"
        else:
            result["details"] = {"val/spearman": {"value": value, "higher_is_better": higher}}
        write(run / "result.json", result)
    write(Path("outputs/sweeps/s/sweep.json"), {"calls": [{"jobs": 3}]})
    (row,) = listed(run_main)
    assert (row["metric"], row["best"]) == ("val/spearman", best)
    jobs = [row for row in listed(run_main, "--all", "--sort", "best") if row["kind"] == "train"]
    assert [row["best"] for row in jobs] == sorted((0.5, 0.75, 0.625), reverse=higher)


def test_a_result_of_schema_1_is_listed(run_main: Main) -> None:
    make_run(RUN, details=False, losses=(2.0, 1.25), schema_version=1)
    (row,) = listed(run_main)
    assert (row["status"], row["metric"], row["best"]) == ("finished", "val/loss", 1.25)


@pytest.mark.parametrize(
    "details",
    [5, [], {"val/loss": 5}, {"val/loss": {"higher_is_better": "yes", "unit": 5}}, {"val/loss": None}],
)
def test_details_of_something_else(run_main: Main, details: Any) -> None:
    run = make_run(RUN)
    write(run / "result.json", {**read(run / "result.json"), "details": details})
    (row,) = listed(run_main)
    assert (row["status"], row["best"]) == ("finished", 1.5)
    for command in ("compare", "report"):
        no_crash(run_main(command, RUN))


def test_evaluations_and_texts_come_with_all(run_main: Main) -> None:
    make_run(RUN)
    make_run(Path("outputs/eval/hand/two"))
    make_run(Path("outputs/generate/hand/three"))
    assert names(run_main) == ["one"]
    assert {(row["kind"], Path(row["path"]).name) for row in listed(run_main, "--all")} == {
        ("train", "one"),
        ("eval", "two"),
        ("generate", "three"),
    }


def test_where_there_is_nothing(run_main: Main) -> None:
    ran = run_main("runs")
    assert (ran.code, ran.out) == (0, "")
    assert str(Path("outputs").absolute()) in ran.err
    assert listed(run_main) == []


def test_listing_imports_nothing_slow() -> None:
    make_run(RUN)
    program = (
        "import sys; from seqexp.cli import main; code = main(sys.argv[1:]); "
        "print(*({'torch', 'pandas', 'numpy', 'matplotlib', 'hydra', 'tensorboard'} & set(sys.modules)), "
        "file=sys.stderr); sys.exit(code)"
    )
    for words in (["runs"], ["runs", "show", str(RUN)], ["runs", "diff", str(RUN), str(RUN)]):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[-1] == ""


def test_two_hundred_runs(run_main: Main) -> None:
    run = make_run(RUN)
    for i in range(199):
        copy_run(run, RUN.with_name(f"copy_{i}"))
    ran = run_main("runs")
    assert len(ran.out.splitlines()) == 1 + 200
    assert len(listed(run_main)) == 200


# Which, and in which order


def some_runs() -> None:
    folder = Path("outputs/train/hand")
    make_run(folder / "a", started="2026-01-03T00:00:00+00:00", losses=(1.5,), optimizer__lr=1e-3)
    make_run(folder / "b", started="2026-01-01T00:00:00+00:00", losses=(1.0,), model__name="lstm",
             optimizer__lr=1e-4, data__name="parity")  # fmt: skip
    make_run(folder / "c", started="2026-01-02T00:00:00+00:00", status="failed", error="broken",
             model__name="zebra", optimizer__lr=0.01)  # fmt: skip
    write(folder / "b" / "train.log", "x" * 5000)
    sweep = Path("outputs/sweeps/s")
    make_run(sweep / "0_aa", started="2026-01-04T00:00:00+00:00", losses=(1.25,), model__name="lstm",
             trainer__max_grad_norm=None, name="job")  # fmt: skip
    write(sweep / "sweep.json", {"calls": [{"jobs": 1}]})


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["optimizer.lr=1e-3"], {"a", "0_aa"}),
        (["optimizer.lr=0.001"], {"a", "0_aa"}),
        (["optimizer.lr=0.0010"], {"a", "0_aa"}),
        (["optimizer.lr=1e-4"], {"b"}),
        (["optimizer.lr=small"], set()),
        (["optimizer=adamw", "optimizer.lr=1e-2"], {"c"}),
        (["model=lstm", "data=parity"], {"b"}),
        (["model.name=lstm"], {"b", "0_aa"}),
        (["status=failed"], {"c"}),
        (["status=failed", "model=gpt"], set()),
        (["kind=sweep"], {"s"}),
        (["data.seq_len=50", "status=finished"], {"a", "b", "0_aa"}),
        (["data.seq_len=5"], set()),
        (["no.such=1"], set()),
        (["trainer.max_grad_norm=null"], {"0_aa"}),
        (["trainer.max_grad_norm=1"], {"a", "b", "c"}),
        (["trainer.monitor=val/loss", "name=job"], {"0_aa"}),
    ],
)
def test_where(run_main: Main, conditions: list[str], expected: set[str]) -> None:
    some_runs()
    assert set(names(run_main, "--where", *conditions)) == expected


def test_true_and_false_in_where(run_main: Main) -> None:
    make_run(RUN, trainer__deterministic=True)
    make_run(RUN.with_name("two"), trainer__deterministic=False)
    assert names(run_main, "--where", "trainer.deterministic=true") == ["one"]
    assert names(run_main, "--where", "trainer.deterministic=False") == ["two"]
    assert names(run_main, "--where", "trainer.deterministic=1") == []


def test_orders(run_main: Main) -> None:
    some_runs()
    assert names(run_main) == ["b", "c", "a", "s"], "the newest last"
    assert names(run_main, "--reverse") == ["s", "a", "c", "b"]
    finished = ("--where", "status=finished", "kind=train")
    assert names(run_main, "--sort", "best", *finished) == ["b", "0_aa", "a"]
    assert names(run_main, "--sort", "model") == ["a", "b", "s", "c"]
    assert names(run_main, "--sort", "size")[-1] == "b"
    assert names(run_main, "--sort", "status")[0] == "c"
    assert names(run_main, "--sort", "data")[0] == "b"


def test_runs_without_a_best_come_last(run_main: Main) -> None:
    some_runs()
    assert names(run_main, "--sort", "best")[-1] == "c"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--where", "status"], "KEY=VALUE"),
        (["--sort", "colour"], "colour"),
        (["--wher", "a=b"], "--wher"),
        (["--js"], "--js"),
        (["shwo", "x"], "shwo"),
        (["show"], "RUN"),
        (["show", "nowhere"], "nowhere"),
        (["show", "."], "not the folder of a run"),
        (["show", "latest"], "latest"),
        (["show", "~nobody_of_this_name/x"], "~nobody_of_this_name"),
        (["diff", "latest"], "RUN"),
        (["diff", "nowhere", "nowhere"], "nowhere"),
        (["rm"], "RUN"),
        (["rm", "--yes", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_said_shortly(run_main: Main, words: list[str], told: str) -> None:
    assert told in said_shortly(run_main("runs", *words))


# show and diff


def test_show(run_main: Main) -> None:
    make_run(RUN, losses=(2.0, 1.5), more={"val/accuracy": 0.625})
    out = run_main("runs", "show", RUN).out
    lines = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in out.splitlines()}
    assert lines["folder"] == str(RUN.absolute())
    assert (lines["val/loss"], lines["val/accuracy"]) == ("1.5", "0.625")
    assert lines["command"] == "seqexp train model=gpt data=text"
    assert "  optimizer.lr = 0.001\n" in out
    assert "  generation.stop = null\n" in out
    shown = strict_json(run_main("runs", "show", str(RUN), "--json").out)
    assert shown["config"]["model.n_layer"] == 4
    assert shown["result"] == read(RUN / "result.json")


def test_show_of_a_sweep_lists_its_jobs(
    run_main: Main, parity_sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(parity_sweep.parents[2])
    out = run_main("runs", "show", "latest").out
    for job in parity_sweep.glob("*_*"):
        assert f"outputs/sweeps/s/{job.name} " in out


def test_show_of_a_failure_says_why(run_main: Main) -> None:
    make_run(RUN, status="failed", error="Traceback (most recent call last):\n  …\nValueError: no luck\n")
    assert "ValueError: no luck" in run_main("runs", "show", RUN).out


def test_diff_is_exactly_what_differs(run_main: Main) -> None:
    make_run(RUN, optimizer__lr=0.1, generation__stop="x", model__n_layer=4, trainer__warm=True)
    other = make_run(
        RUN.with_name("other"), model__name="lstm", generation__stop=None, seed=2, optimizer__lr=0.2
    )
    config = yaml.safe_load((other / "config.yaml").read_text())
    del config["model"]["n_embd"]
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    differences = strict_json(run_main("runs", "diff", RUN, other, "--json").out)
    assert differences == {
        "model.name": ["gpt", "lstm"],
        "model.n_embd": [64, None],
        "optimizer.lr": [0.1, 0.2],
        "generation.stop": ["x", None],
        "seed": [1, 2],
        "trainer.warm": [True, None],
    }
    header, *lines = run_main("runs", "diff", RUN, other).out.splitlines()
    assert header.split() == ["setting", str(RUN), str(other)]
    shown = {line.split()[0]: line.split()[1:] for line in lines}
    assert shown == {
        "model.name": ["gpt", "lstm"], "model.n_embd": ["64", "—"], "optimizer.lr": ["0.1", "0.2"],
        "generation.stop": ["x", "null"], "seed": ["1", "2"], "trainer.warm": ["true", "—"],
    }  # fmt: skip


def test_diff_of_a_setting_that_is_null_with_one_that_is_absent(run_main: Main) -> None:
    make_run(RUN, model__extra=None)
    other = make_run(RUN.with_name("other"))
    assert "model.extra" in run_main("runs", "diff", RUN, other).out


def test_diff_of_the_same(run_main: Main) -> None:
    make_run(RUN)
    ran = run_main("runs", "diff", RUN, RUN)
    assert (ran.code, ran.out) == (0, "")
    assert "the same" in ran.err
    assert strict_json(run_main("runs", "diff", RUN, RUN, "--json").out) == {}


def test_diff_of_a_sweep_is_refused(run_main: Main) -> None:
    sweep = small_sweep()
    said_shortly(run_main("runs", "diff", sweep, sweep / "0_aa"))


# rm


def test_rm_asks(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(RUN)
    other = make_run(RUN.with_name("other"))
    for no in ("\n", "n\n", "no\n", "what?\n"):
        answer(monkeypatch, no)
        ran = run_main("runs", "rm", RUN)
        assert ran.code == 0
        assert str(RUN) in ran.err
        assert RUN.is_dir()
    answer(monkeypatch, "y\n")
    assert run_main("runs", "rm", RUN).code == 0
    assert not RUN.exists()
    assert sorted(file.name for file in other.iterdir())
    assert other.is_dir()


def test_rm_and_the_end_of_input(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(RUN)
    answer(monkeypatch, "")
    ran = run_main("runs", "rm", RUN)
    assert "Traceback" not in ran.err
    assert ran.code in (0, 2, 130)
    assert RUN.is_dir()


def test_rm_on_a_terminal() -> None:
    pty = pytest.importorskip("pty")
    make_run(RUN)
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "seqexp", "runs", "rm", str(RUN)]
    with subprocess.Popen(words, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.write(master, b"yes\n")
        _, err = process.communicate(timeout=60)
    os.close(master)
    os.close(slave)
    assert process.returncode == 0, err
    assert b"[y/N]" in err
    assert not RUN.exists()


def test_rm_where_nobody_can_be_asked(seqexp: Process) -> None:
    make_run(RUN)
    done = seqexp("runs", "rm", str(RUN), input="y\n")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert RUN.is_dir()
    assert seqexp("runs", "rm", str(RUN), "--yes").returncode == 0
    assert not RUN.exists()


def test_rm_never_removes_what_runs(run_main: Main) -> None:
    make_run(RUN, status="running")
    other = make_run(RUN.with_name("other"))
    sweep = small_sweep()
    with held(RUN):
        assert "running" in said_shortly(run_main("runs", "rm", "--yes", other, RUN))
        assert "running" in said_shortly(run_main("runs", "rm", "--yes", RUN))
    with held(sweep / "1_bb"):
        write(sweep / "1_bb/status.json", {"status": "running"})
        said_shortly(run_main("runs", "rm", "--yes", sweep))
    assert RUN.is_dir()
    assert other.is_dir(), "nothing is removed if one may not be"
    assert (sweep / "0_aa").is_dir()
    assert run_main("runs", "rm", "--yes", RUN).code == 0, "its process is gone"


def test_rm_removes_only_what_was_named(run_main: Main) -> None:
    folder = Path("outputs/train/hand")
    for name in ("a", "ab", "b"):
        make_run(folder / name)
    assert run_main("runs", "rm", "--yes", folder / "a", folder / "b").code == 0
    assert [path.name for path in folder.iterdir()] == ["ab"]


def test_rm_of_the_same_twice(run_main: Main) -> None:
    make_run(RUN)
    ran = run_main("runs", "rm", "--yes", RUN, RUN, RUN.absolute())
    assert "Traceback" not in ran.err
    assert ran.code == 0
    assert not RUN.exists()


def test_rm_of_a_sweep_and_its_job(run_main: Main) -> None:
    sweep = small_sweep()
    ran = run_main("runs", "rm", "--yes", sweep, sweep / "0_aa")
    assert "Traceback" not in ran.err
    assert ran.code == 0
    assert not sweep.exists()


def test_rm_follows_no_link(run_main: Main) -> None:
    outside = make_run(Path("elsewhere/precious"))
    RUN.parent.mkdir(parents=True)
    RUN.symlink_to(outside.absolute())
    assert run_main("runs", "rm", "--yes", RUN).code == 0
    assert not RUN.is_symlink()
    assert (outside / "config.yaml").is_file()
    make_run(RUN)
    (RUN / "samples").symlink_to(outside.absolute())
    assert run_main("runs", "rm", "--yes", f"{RUN}/").code == 0
    assert not RUN.exists()
    assert (outside / "config.yaml").is_file()


@pytest.mark.parametrize("way", [".", "..", "../1_bb/..", "../../s", "../../link"])
def test_rm_keeps_the_folder_where_one_stands(
    run_main: Main, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    sweep = small_sweep().absolute()
    (sweep.parent / "link").symlink_to(sweep)
    monkeypatch.chdir(sweep / "0_aa")
    ran = run_main("runs", "rm", "--yes", way)
    assert (sweep / "0_aa").is_dir()
    assert (sweep / "1_bb").is_dir()
    if way != "../../link":  # a link goes, what it names stays
        said_shortly(ran)


def test_rm_of_an_empty_folder_that_is_listed(run_main: Main) -> None:
    """What `seqexp runs` lists can be removed by its name."""
    RUN.mkdir(parents=True)
    assert names(run_main) == ["one"]
    assert run_main("runs", "rm", "--yes", RUN).code == 0
    assert not RUN.exists()


def test_rm_that_may_not(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(RUN)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    said_shortly(run_main("runs", "rm", "--yes", RUN))


# Completion


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("seqexp runs ", {"latest", "show", "diff", "rm", "outputs/"}),
        ("seqexp runs sh", {"show"}),
        ("seqexp runs --s", {"--sort"}),
        ("seqexp runs show outputs/tr", {"outputs/train/"}),
        ("seqexp runs show outputs/train/hand/", {"outputs/train/hand/one/"}),
        ("seqexp report la", {"latest"}),
        ("seqexp report --o", {"--output"}),
        ("seqexp compare --n", {"--no-figures"}),
        ("seqexp compare --h", {"--hue", "--help"}),
        ("seqexp ru", {"runs"}),
        ("seqexp re", {"report"}),
    ],
)
def test_completion(run_main: Main, monkeypatch: pytest.MonkeyPatch, line: str, answers: set[str]) -> None:
    make_run(RUN)
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    ran = run_main("-sc", "query=bash")
    assert (ran.code, ran.err) == (0, "")
    assert set(ran.out.split()) == answers
    assert run_main("-sc", "query=zsh").out.splitlines() == ran.out.split()


@pytest.mark.parametrize("command", ["runs", "compare", "report"])
def test_every_option_is_completed(run_main: Main, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """The options that --help tells of, and those that a tab offers, are the same."""
    told = {
        word.strip("[],:;")
        for word in run_main(command, "--help").out.split()
        if word[:3].strip("[")[:2] == "--"
    }
    monkeypatch.setenv("COMP_LINE", f"seqexp {command} --")
    offered = set(run_main("-sc", "query=bash").out.split())
    assert {word for word in told if word.rstrip(".").isascii()} - {"--yes"} <= offered | {"--help"}
    assert offered - {"--yes"} <= told | {"--help"}
