"""Standard streams that are closed or full, signals, outputs that cannot be written or are inputs."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran

from seqexp import registry
from seqexp.config.exams import ExamsConfig
from seqexp.config.run import DeviceConfig, GenerationConfig, TrainerConfig
from seqexp.errors import UserError

Main = Callable[..., Ran]

SHORT = ("generation.max_new_tokens=3", "device.threads=1")
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def shell(line: str, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run a command line whose streams the shell redirects; ``"$@"`` stands for the command."""
    command = [sys.executable, "-m", "seqexp", *map(str, words)]
    return subprocess.run(["sh", "-c", line, "sh", *command], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "words", [("--help",), ("runs", "--help"), ("train", "--help"), ("train", "--cfg", "job")]
)
@pytest.mark.parametrize("line", ['"$@" >&-', pytest.param('"$@" >/dev/full', marks=needs_full)])
def test_standard_output_that_takes_nothing(line: str, words: tuple[str, ...]) -> None:
    ran = shell(line, *words)
    assert ran.returncode == 1
    assert "failed: standard output cannot be written" in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr


@pytest.mark.parametrize(
    "line", ['"$@" 2>&-', '"$@" <&-', pytest.param('"$@" 2>/dev/full', marks=needs_full)]
)
def test_messages_that_nobody_can_read(line: str, tiny_run: Path) -> None:
    ran = shell(line, "generate", f"run={tiny_run}", "prompt=The", *SHORT)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("The")


def test_no_streams_at_all(tiny_run: Path) -> None:
    """No file may get the number of a closed stream: what is printed would land in it."""
    ran = shell('"$@" <&- >&- 2>&-', "generate", f"run={tiny_run}", "prompt=The", *SHORT)
    assert ran.returncode == 1
    (folder,) = Path("outputs/generate").glob("*/*")
    assert json.loads((folder / "status.json").read_text())["status"] == "failed"
    assert (folder / "samples/sample_001.txt").read_text(encoding="utf-8").startswith("The")


@needs_full
@pytest.mark.parametrize("output", ["output=/dev/full", "output=link"])
def test_a_full_disk_keeps_the_text_in_the_run(
    run_main: Main, tiny_run: Path, nmt_run: Path, output: str
) -> None:
    Path("link").symlink_to("/dev/full")
    for words in ((f"run={tiny_run}", "prompt=The", *SHORT), (f"run={nmt_run}", "text=Hello.", SHORT[1])):
        ran = run_main("generate", *words, output)
        assert ran.code == 1
        (folder,) = Path("outputs/generate").glob("*/*")
        assert f"failed: {output} cannot be written" in ran.err
        assert str(folder.absolute()) in ran.err.splitlines()[-1]
        assert "Traceback" not in ran.err
        kept = next(
            file for file in folder.rglob("*") if file.name in ("sample_001.txt", "predictions.jsonl")
        )
        assert kept.stat().st_size > 0
        folder.rename(f"kept {words[0][-5:]}")


@pytest.mark.parametrize("name", ["text.txt", "symbolic", "hard", "./text.txt", "sub/../text.txt"])
def test_an_output_that_is_the_input(run_main: Main, tiny_run: Path, name: str) -> None:
    text = Path("text.txt")
    text.write_text("The", encoding="utf-8")
    Path("sub").mkdir()
    Path("symbolic").symlink_to("text.txt")
    os.link("text.txt", "hard")
    ran = run_main("generate", f"run={tiny_run}", "input=text.txt", f"output={name}", *SHORT)
    assert ran.code == 2
    assert "is the file that input=text.txt reads" in ran.err
    assert text.read_text(encoding="utf-8") == "The"


def test_an_output_that_standard_input_reads(tiny_run: Path) -> None:
    Path("text.txt").write_text("The", encoding="utf-8")
    ran = shell('"$@" <text.txt', "generate", f"run={tiny_run}", "input=-", "output=text.txt", *SHORT)
    assert ran.returncode == 2
    assert "standard input reads" in ran.stderr
    assert Path("text.txt").read_text(encoding="utf-8") == "The"


def test_devices_are_no_files_that_are_overwritten(run_main: Main, tiny_run: Path) -> None:
    ran = run_main("generate", f"run={tiny_run}", "input=/dev/null", "output=/dev/null", *SHORT)
    assert "name another file" not in ran.err


@pytest.mark.parametrize("attention", ["a.jpg", "a", "a.png.txt"])
def test_a_picture_of_no_known_kind(run_main: Main, nmt_run: Path, attention: str) -> None:
    ran = run_main("generate", f"run={nmt_run}", "text=Hello.", f"attention={attention}")
    assert ran.code == 2
    assert f"attention={attention}" in ran.err
    assert ".png or .svg or .pdf" in ran.err
    assert not Path("outputs").exists()


def test_a_picture_over_the_text(run_main: Main, nmt_run: Path) -> None:
    ran = run_main("generate", f"run={nmt_run}", "text=Hello.", "attention=a.png", "output=./a.png")
    assert ran.code == 2
    assert "name two files" in ran.err


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_what_was_generated(tiny_run: Path, number: int) -> None:
    words = (f"run={tiny_run}", "generation.max_new_tokens=1000000", "generation.temperature=0", "prompt=The")
    process = subprocess.Popen(
        [sys.executable, "-m", "seqexp", "generate", *words, "device.threads=1", "output=text.txt"],
        stderr=subprocess.PIPE, text=True,
        # Whoever started the tests may ignore the signal, as nohup does.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (found := list(Path("outputs/generate").glob("*/*/manifest.json"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # some tokens
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    folder = found[0].parent
    assert json.loads((folder / "status.json").read_text())["status"] == "interrupted"
    assert (folder / "samples/sample_001.txt").read_text(encoding="utf-8").startswith("The")
    assert str(folder.absolute()) in err
    assert err.splitlines()[-1] == "seqexp generate: interrupted"


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """``nohup`` starts a process that ignores SIGHUP."""
    from seqexp.training.interrupt import interruptible

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # while the first is handled
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


# Numbers that are none, names of nobody


def schemas() -> list[type[Any]]:
    kinds = [registry.load_schema(group, name) for group, names in registry.ENTRIES.items() for name in names]
    return list(dict.fromkeys([*kinds, DeviceConfig, TrainerConfig, GenerationConfig, ExamsConfig]))


def whole(kind: type[Any]) -> dict[str, Any]:
    """Values for what has no default."""
    missing = [field.name for field in dataclasses.fields(kind) if str(field.default)[:1] in ("?", "$")]
    return {name: 8 if name != "name" else "gpt" for name in missing}


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_setting_may_be_infinite(value: float) -> None:
    checked = 0
    for kind in schemas():
        for field in dataclasses.fields(kind):
            if "float" in str(field.type):
                kinds = {"list": [value, value], "dict": {"x": value}}
                given = next((v for k, v in kinds.items() if k in str(field.type)), value)
                with pytest.raises(UserError):
                    kind(**{**whole(kind), field.name: given})
                checked += 1
    assert checked > 25


@pytest.mark.parametrize(
    "words", ["length_alpha=400", "temperature=inf", "temperature=1e-320", "coverage_penalty=1e9"]
)
def test_numbers_that_overflow_later(run_main: Main, nmt_run: Path, words: str) -> None:
    ran = run_main("generate", f"run={nmt_run}", "text=Hello.", f"generation.{words}")
    assert ran.code == 2
    assert f"generation.{words.partition('=')[0]}" in ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        "train data=text data.path=~nobody.here/x.txt",
        "train data=parallel data.path=~nobody.here/x.txt",
        "eval run=~nobody.here/run",
        "generate run=~nobody.here/run",
        "compare ~nobody.here/run",
        "report ~nobody.here/run",
    ],
)
def test_the_home_of_nobody(run_main: Main, words: str) -> None:
    ran = run_main(*words.split())
    assert ran.code == 2
    assert "~nobody.here" in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


def test_a_file_whose_name_begins_like_a_home(run_main: Main, tiny_run: Path) -> None:
    Path("~draft.txt").write_text("The", encoding="utf-8")
    ran = run_main("generate", f"run={tiny_run}", "input=~draft.txt", "output=~out.txt", *SHORT)
    assert ran.code == 0, ran.err
    assert Path("~out.txt").read_text(encoding="utf-8").startswith("The")
