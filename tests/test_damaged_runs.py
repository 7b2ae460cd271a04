"""`seqexp runs` and the commands beside it: no folder can make them crash, hang or be untrue."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import (
    RUN,
    crash,
    held,
    listed,
    make_run,
    no_crash,
    read,
    said_shortly,
    small_sweep,
    status_of,
    write,
)

Main = Callable[..., Ran]
Process = Callable[..., subprocess.CompletedProcess[str]]


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
    monkeypatch.setattr("seqexp.reports.page.comparison_figures", lambda *_: {})
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
