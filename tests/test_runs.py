"""`seqexp runs`: what is listed, found, compared and removed; and that no folder can make it crash."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import copy_run, crash, held, make_run, no_crash, read, said_shortly, strict_json, write

Main = Callable[..., Ran]
Process = Callable[..., subprocess.CompletedProcess[str]]

RUN = Path("outputs/train/hand/one")


def listed(run_main: Main, *words: str) -> list[dict[str, Any]]:
    ran = run_main("runs", "--json", *words)
    assert ran.code == 0, ran.err
    return list(strict_json(ran.out))


def names(run_main: Main, *words: str) -> list[str]:
    """The last parts of the folders that are listed."""
    return [Path(row["path"]).name for row in listed(run_main, *words)]


def status_of(run_main: Main, run: Path = RUN) -> str:
    (row,) = [row for row in listed(run_main, "--all") if row["path"] == str(run.absolute())]
    return str(row["status"])


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


def test_the_best_of_a_sweep_follows_the_direction_of_its_metric(run_main: Main) -> None:
    for i, accuracy in enumerate((0.5, 0.75, 0.625)):
        run = make_run(Path(f"outputs/sweeps/s/{i}_aa"))
        result = read(run / "result.json")
        write(run / "result.json", {**result, "monitor": {"name": "val/accuracy", "best": accuracy}})
    write(Path("outputs/sweeps/s/sweep.json"), {"calls": [{"jobs": 3}]})
    (row,) = listed(run_main)
    assert (row["metric"], row["best"]) == ("val/accuracy", 0.75)


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


# States


def test_running_and_killed(run_main: Main) -> None:
    make_run(RUN, status="running")
    assert status_of(run_main) == "killed", "no lock file"
    with held(RUN):
        assert status_of(run_main) == "running"
    assert status_of(run_main) == "killed"
    (RUN / ".lock").touch()
    assert status_of(run_main) == "killed", "a lock file that nobody holds"


def test_a_folder_that_is_being_made_is_running(run_main: Main) -> None:
    RUN.mkdir(parents=True)
    assert status_of(run_main) == "empty"
    with held(RUN):
        assert status_of(run_main) == "running"


def test_looking_for_a_lock_does_not_write_through_a_link(run_main: Main) -> None:
    make_run(RUN, status="running")
    Path("victim").write_text("precious")
    (RUN / ".lock").symlink_to(Path("victim").absolute())
    assert status_of(run_main) in ("running", "killed")
    assert Path("victim").read_text() == "precious"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"finished"', '{"status": 1}', '{"status": ["finished"]}', '{"status": "done"}',
     '{"status": {}}', "[" * 100_000],
    ids=range(10),
)  # fmt: skip
def test_a_status_that_cannot_be_read_is_damage(run_main: Main, text: str) -> None:
    make_run(RUN)
    write(RUN / "status.json", text)
    assert status_of(run_main) == "damaged"
    assert "damaged" in run_main("runs").out


def test_binary_files_are_damage(run_main: Main) -> None:
    make_run(RUN)
    for file in RUN.glob("*.*"):
        file.write_bytes(bytes(range(256)))
    assert status_of(run_main) == "damaged"
    for words in (("runs",), ("runs", "show", RUN), ("runs", "diff", RUN, RUN), ("compare", RUN)):
        no_crash(run_main(*words))
    no_crash(run_main("report", RUN))


def test_folders_where_files_belong(run_main: Main) -> None:
    make_run(RUN)
    for file in RUN.glob("*.*"):
        file.unlink()
        file.mkdir()
    assert status_of(run_main) == "damaged"
    no_crash(run_main("runs", "show", RUN))
    no_crash(run_main("report", RUN))


def test_files_where_folders_belong(run_main: Main) -> None:
    make_run(RUN)
    shutil.rmtree(RUN / "plots")
    for name in ("plots", "samples", "checkpoints", "tensorboard"):
        write(RUN / name, "no folder")
    assert status_of(run_main) == "finished"
    no_crash(run_main("report", RUN))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["config.yaml", "status.json", "metrics.jsonl", "result.json"])
def test_a_pipe_in_the_place_of_a_file_does_not_hang(seqexp: Process, name: str) -> None:
    make_run(RUN)
    (RUN / name).unlink()
    os.mkfifo(RUN / name)
    for command in (["runs"], ["report", "--json", str(RUN)]):
        done = seqexp(*command, timeout=15)
        assert done.returncode in (0, 2), done.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(run_main: Main) -> None:
    make_run(RUN)
    make_run(RUN.with_name("other"))
    RUN.chmod(0)
    try:
        assert len(listed(run_main)) == 2
        no_crash(run_main("runs", "show", RUN))
        no_crash(run_main("report", RUN))
    finally:
        RUN.chmod(0o755)


def test_a_configuration_is_data(run_main: Main) -> None:
    make_run(RUN)
    write(RUN / "config.yaml", "model: !!python/object/apply:os.system ['touch owned']\nname: evil\n")
    (row,) = listed(run_main)
    assert (row["model"], row["name"]) == ("", "hand")
    for words in (("runs", "show", RUN), ("compare", RUN, "--no-figures"), ("report", RUN)):
        no_crash(run_main(*words))
    said_shortly(run_main("runs", "diff", RUN, RUN))
    assert not Path("owned").exists()


ODD_CONFIGS = {
    "deep": "model: " + "[" * 2000 + "]" * 2000,
    "deep mapping": "model: " + "{a: " * 2000 + "}" * 2000,
    "an anchor that holds itself": "model: &a\n  name: gpt\n  again: *a\n",
    "a date that is none": "name: 2026-99-99\n",
    "a date": "name: 2026-01-31\nmodel: {name: 2026-01-31T00:00:00Z}\n",
    "a list of dates": "model: {name: gpt, when: [2026-01-31]}\n",
    "bytes": "name: !!binary aGVsbG8=\n",
    "a set": "name: hand\nmodel: {name: !!set {a, b}}\n",
    "an integer that is none": "seed: !!int many\n",
    "a float that is none": "seed: !!float many\n",
    "a very long number": f"seed: {'9' * 5000}\n",
    "not a number": "model: {name: .nan, n_layer: .inf}\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "keys that are no words": "1: 2\nnull: 3\n[1, 2]: 4\n",
    "a list": "- 1\n- 2\n",
    "signs of a terminal": 'name: "\\e[31mred\\e]0;title\\a"\n',
    "half of a letter": 'name: "\\ud800"\n',
    "formula": "name: '$\\frac$'\nmodel: {name: '$x_$'}\n",
}


@pytest.mark.parametrize("kind", ODD_CONFIGS)
def test_odd_configurations(run_main: Main, kind: str) -> None:
    make_run(RUN)
    make_run(RUN.with_name("other"))
    write(RUN / "config.yaml", ODD_CONFIGS[kind])
    other = RUN.with_name("other")
    every = (
        ("runs",), ("runs", "--json"), ("runs", "show", RUN), ("runs", "show", RUN, "--json"),
        ("runs", "diff", RUN, other), ("runs", "diff", RUN, other, "--json"),
        ("compare", RUN, other, "--no-figures"), ("compare", RUN, other, "--json", "--no-figures"),
        ("report", RUN), ("report", "--json", RUN),
    )  # fmt: skip
    failures = [
        f"{' '.join(map(str, words))}: {told}" for words in every if (told := crash(run_main(*words)))
    ]
    assert not failures


def test_a_configuration_that_unfolds_without_end(seqexp: Process) -> None:
    """Twenty lines that stand for a billion settings."""
    make_run(RUN)
    lines = ["a0: &a0 {x: 1}"] + [
        f"a{i}: &a{i} {{" + ", ".join(f"k{j}: *a{i - 1}" for j in range(9)) + "}" for i in range(1, 20)
    ]
    write(RUN / "config.yaml", "\n".join(lines))
    done = seqexp("runs", timeout=20)
    assert done.returncode == 0
    assert str(RUN) in done.stdout


@pytest.mark.parametrize(
    "started",
    ["yesterday", "", None, 5, [], {}, "2026-01-31", "2026-01-31T12:00:00", "0001-01-01T00:00:00",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31"],
)  # fmt: skip
def test_odd_times(run_main: Main, started: Any) -> None:
    run = Path("outputs/sweeps/s/0_aa")
    make_run(run)
    write(run / "status.json", {"status": "finished", "started": started})
    make_run(run.with_name("1_bb"))
    write(run.parent / "sweep.json", {"calls": [{"jobs": 2}]})
    for words in (("runs",), ("runs", "--all"), ("runs", "--json"), ("runs", "show", run), ("report", run)):
        no_crash(run_main(*words))


HUGE = 10**400
ODD_VALUES = [
    None, True, -1, 1e300, HUGE, float("nan"), float("inf"), "", "x", "1.5", [], {}, [1], {"a": 1},
    [{}], {"a": {}}, {"a": {"b": float("nan")}}, "$\\frac$", "a\x00b", "\x1b[31m", "\ud800",
]  # fmt: skip
JSON_FILES = [
    "outputs/sweeps/s/0_aa/status.json",
    "outputs/sweeps/s/0_aa/result.json",
    "outputs/sweeps/s/0_aa/manifest.json",
    "outputs/sweeps/s/sweep.json",
]


def places_of(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, the whole included."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(place for key, part in inside for place in places_of(part, (*above, key)))]


def put(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    value[place[0]] = put(value[place[0]], place[1:], new)
    return value


def small_sweep() -> Path:
    sweep = Path("outputs/sweeps/s")
    for job in ("0_aa", "1_bb"):
        number = int(job[0])
        make_run(
            sweep / job, seed=number + 1, optimizer__lr=10.0 ** -(3 + number), losses=(2.0, 1.5 - number),
            words=[f"optimizer.lr={10.0 ** -(3 + number)}", f"seed={number + 1}"],
        )  # fmt: skip
    call = {
        "command_line": "seqexp train -m …", "method": "grid", "launcher": "basic", "jobs": 2,
        "swept": ["optimizer.lr", "seed"], "before": 0, "started": 1.0, "ledger_lines": 0,
    }  # fmt: skip
    write(sweep / "sweep.json", {"calls": [call]})
    lines = [
        {"job": i, "words": [f"seed={i}"], "run": job, "status": "finished"}
        for i, job in enumerate(("0_aa", "1_bb"))
    ]
    write(sweep / "jobs.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return sweep


def use_every_reader(run_main: Main, sweep: Path, place: str) -> None:
    job = sweep / "0_aa"
    for words in (
        ("runs", "--json", "--all"),
        ("runs", "show", job),
        ("runs", "show", job, "--json"),
        ("runs", "diff", job, sweep / "1_bb"),
        ("compare", sweep, "--json", "--no-figures"),
        ("compare", job, "--no-figures", "--format", "csv"),
        ("report", "--json", job),
        ("report", "--output", "page.md", job),
    ):
        ran = run_main(*words)
        told = crash(ran)
        assert not told, f"{place}, {' '.join(map(str, words))}: {told}"
        # A terminal has no way to show half of a letter.
        half = "\ud800" in ran.out + ran.err
        assert not half, f"{place}, {' '.join(map(str, words))}: half of a letter is printed"


@pytest.mark.parametrize("file", JSON_FILES)
def test_odd_values_in_the_files_of_a_run(run_main: Main, file: str) -> None:
    sweep = small_sweep()
    whole = Path(file).read_text(encoding="utf-8")
    failures = []
    # Every place meets some of the values, every value many of the places.
    for i, place in enumerate(places_of(json.loads(whole))):
        for j in range(3):
            value = ODD_VALUES[(i + 7 * j) % len(ODD_VALUES)]
            Path(file).write_text(json.dumps(put(json.loads(whole), place, value)), encoding="utf-8")
            try:
                use_every_reader(run_main, sweep, f"{place} = {value!r:.40}")
            except AssertionError as error:
                failures.append(str(error).splitlines()[0])
    assert not failures, f"{len(failures)} failures, such as\n" + "\n".join(failures[:40])


ODD_IN_SWEEPS = [None, True, 5, HUGE, 1e300, "x", [], [5], {}, {"a": 1}, [[]]]


@pytest.mark.parametrize(
    "key", ["swept", "jobs", "command_line", "method", "ledger_lines", "run", "words", "job"]
)
def test_odd_values_in_the_books_of_a_sweep(
    run_main: Main, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr("seqexp.reports.report.comparison_figures", lambda *_: {})
    sweep = small_sweep()
    (call,) = read(sweep / "sweep.json")["calls"]
    line = json.loads((sweep / "jobs.jsonl").read_text().splitlines()[0])
    failures = []
    for value in ODD_IN_SWEEPS:
        write(sweep / "sweep.json", {"calls": [{**call, **({key: value} if key in call else {})}]})
        write(sweep / "jobs.jsonl", json.dumps({**line, **({key: value} if key in line else {})}) + "\n")
        for words in (("runs",), ("runs", "show", sweep), ("report", sweep)):
            if told := crash(run_main(*words)):
                failures.append(f"{key} = {value!r:.20}, {words[0]}: {told}")
    assert not failures


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("step", value) for value in (True, -1, HUGE, float("nan"), "1", [])),
        *(
            ("val/loss", value)
            for value in (True, HUGE, float("nan"), float("inf"), "x", "1.5", [], {"a": 1})
        ),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_odd_values_among_the_metrics(run_main: Main, key: str, value: Any) -> None:
    make_run(RUN)
    make_run(RUN.with_name("other"), seed=2)
    shutil.rmtree(RUN / "plots")  # so that they are drawn
    first, second = (RUN / "metrics.jsonl").read_text().splitlines()
    odd = json.dumps({**json.loads(first), key: value})
    write(RUN / "metrics.jsonl", f"{odd}\n{second}\n")
    no_crash(run_main("report", RUN))
    no_crash(run_main("compare", RUN, RUN.with_name("other"), "--figures", "pictures"))


@settings(max_examples=15)
@given(
    name=st.sampled_from(["status.json", "result.json", "config.yaml", "manifest.json", "metrics.jsonl"]),
    start=st.floats(0, 1),
    length=st.integers(0, 40),
    new=st.one_of(st.binary(max_size=12), st.text(max_size=6).map(lambda text: text.encode())),
)
def test_bytes_changed_in_any_file(
    run_main: Main, tmp_path: Path, name: str, start: float, length: int, new: bytes
) -> None:
    os.chdir(tmp_path)
    shutil.rmtree("outputs", ignore_errors=True)
    sweep = small_sweep()
    file = sweep / "0_aa" / name
    data = file.read_bytes()
    at = round(start * len(data))
    file.write_bytes(data[:at] + new + data[at + length :])
    use_every_reader(run_main, sweep, f"{name}, byte {at}: {new!r}")


@pytest.mark.parametrize("end", [0, 1, 10, 100, 200])
def test_half_written_files(run_main: Main, end: int) -> None:
    sweep = small_sweep()
    for file in [*sweep.glob("0_aa/*.*"), *sweep.glob("*.*")]:
        file.write_bytes(file.read_bytes()[:end])
    use_every_reader(run_main, sweep, f"cut after {end}")


def test_names_of_folders_that_are_no_text(seqexp: Process) -> None:
    try:
        folder = Path(os.fsdecode(b"outputs/train/\xff\xfe/one"))
        make_run(folder)
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    for words in (["runs"], ["runs", "--json"], ["report", "latest"], ["compare", "latest", "--no-figures"]):
        done = seqexp(*words, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
        assert done.returncode in (0, 2), (words, done.stderr[-600:])
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("field", ["name", "error"])
def test_half_letters_reach_a_terminal_as_signs(seqexp: Process, field: str) -> None:
    make_run(RUN, status="failed", error="broken")
    status = {"status": "failed", "started": "2026-01-31T12:00:00+00:00", "error": "half \ud800"}
    write(RUN / "status.json", status)
    for words in (["runs"], ["runs", "--json"], ["runs", "show", str(RUN)], ["report", str(RUN)]):
        done = seqexp(*words, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
        assert done.returncode == 0, (words, done.stderr[-600:])


def test_strangers_do_not_steer_the_terminal(run_main: Main) -> None:
    """Escape sequences in names and errors come out as harmless signs, or not at all."""
    make_run(
        RUN, status="failed", error="a\x1b]0;owned\x07b", model__name="g\x1b[2Jpt", name="n\x1b[31m",
        generation__stop="\x1b[8m",
    )  # fmt: skip
    make_run(RUN.with_name("other"))
    other = str(RUN.with_name("other"))
    for words in (("runs",), ("runs", "show", RUN), ("runs", "diff", RUN, other)):
        assert "\x1b" not in run_main(*words).out, words


def test_names_are_shown_as_they_are(run_main: Main) -> None:
    """No markup and no emoji is read into them."""
    make_run(RUN, model__name="[bold]x[/bold]", data__name="a:100:b")
    make_run(RUN.with_name("other"), model__name="[/]", data__name="a:smile:")
    out = run_main("runs").out
    assert "[bold]x[/bold]" in out
    assert "a:100:b" in out
    out = run_main("runs", "diff", RUN, RUN.with_name("other")).out
    assert "[bold]x[/bold]" in out
    assert "[/]" in out
    assert "a:smile:" in out


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
        (["show", "."], "no folder of a run"),
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
        word.strip("[],")
        for word in run_main(command, "--help").out.split()
        if word[:3].strip("[")[:2] == "--"
    }
    monkeypatch.setenv("COMP_LINE", f"seqexp {command} --")
    offered = set(run_main("-sc", "query=bash").out.split())
    assert {word for word in told if word.rstrip(".").isascii()} - {"--yes"} <= offered | {"--help"}
    assert offered - {"--yes"} <= told | {"--help"}
