"""Runs of every schema are judged as they were, generate what they did, and go on as they would have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ran
from run_folders import read, rows_of

from seqexp.config.root import SCHEMA_VERSION, from_plain
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints

Main = Callable[..., Ran]

RUNS = Path(__file__).with_name("runs")
ALL = sorted(path.name for path in RUNS.glob("schema_*"))
BOOK = RUNS / "book.txt"
DEVICE = ("device=cpu", "device.threads=1", "device.precision=fp32")

# The validation after five more steps, and what is generated, by the last version that wrote schema 1.
GONE_ON = {
    "schema_1": 0.691020917892456,
    "schema_1_gpt": 4.04546495090399,
    "schema_1_lstm": 5.441991088108987,
    "schema_1_nmt": 6.290011562182823,
    "schema_1_transformer": 5.940909814757429,
    "schema_1_parity": 0.6945345560709636,
}
GENERATED = {
    "schema_1": "predicted 0111100",
    "schema_1_gpt": "The#2ob$JQ,k'AT\n",
    "schema_1_lstm": "The\x15<ϓ\x18ny(",
    "schema_1_nmt": "nos orange peut nos orange aidons te orange te orange te orange\n",
    "schema_1_transformer": "reines reines reines\n",
    "schema_1_parity": "predicted 1111111",
}


def copy(name: str) -> Path:
    """A copy of a run that may be changed."""
    return Path(shutil.copytree(RUNS / name, f"outputs/train/old/{name}"))


def own_text(name: str) -> list[str]:
    """The words that name the text of a run, which lies elsewhere than where it was trained."""
    return [f"data.path={BOOK}"] if name.endswith(("gpt", "lstm")) and "parity" not in name else []


def input_of(name: str) -> str:
    if name.endswith(("nmt", "transformer")):
        return "text=Antoine and Julie are happy."
    return "prompt=The" if own_text(name) else "prompt=0110100"


def test_there_are_runs_of_each_schema() -> None:
    for version in range(1, SCHEMA_VERSION + 1):
        names = [name for name in ALL if name.startswith(f"schema_{version}_")]
        assert len(names) >= 3
        for name in names:
            assert f"schema_version: {version}" in (RUNS / name / "config.yaml").read_text()


def test_no_run_says_where_it_was_made() -> None:
    for file in RUNS.rglob("*"):
        data = file.read_bytes() if file.is_file() and file.suffix != ".py" else b""
        assert b"/tmp/" not in data, file


@pytest.mark.parametrize("name", ALL)
def test_a_checkpoint_has_the_weights_of_its_model(name: str) -> None:
    state = Checkpoints(RunFolder(RUNS / name)).load("best")
    assert state["model"]
    assert all(isinstance(weight, torch.Tensor) for weight in state["model"].values())
    assert set(state["preprocessor"]["tokenizers"]) in ({"text"}, {"source", "target"})


@pytest.mark.parametrize("name", ALL)
def test_a_run_is_judged_as_it_was(run_main: Main, name: str) -> None:
    run = copy(name)
    text = (run / "config.yaml").read_text().replace("/home/student/book.txt", str(BOOK))
    (run / "config.yaml").write_text(text)
    then = read(run / "result.json")["metrics"]
    lengths = ["data.lengths=[8]"] if name == "schema_1" else []
    ran = run_main("eval", f"run={run}", "split=val", "generation.beam_size=1", *lengths, *DEVICE)
    assert ran.code == 0, ran.err
    now = json.loads(ran.out)["metrics"]
    expected = {key: value for key, value in then.items() if key.startswith("val/")}
    assert {key: now[key] for key in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_run_generates_what_it_did(run_main: Main, name: str) -> None:
    words = [input_of(name), "generation.max_new_tokens=12", "seed=3", *DEVICE]
    ran = run_main("generate", f"run={copy(name)}", *words)
    assert ran.code == 0, ran.err
    assert GENERATED.get(name, "") in ran.out
    assert ran.out.strip()


@pytest.mark.parametrize("name", ALL)
def test_a_run_goes_on(run_main: Main, name: str) -> None:
    run = copy(name)
    before, last = read(run / "result.json"), rows_of(run)[-1]["step"]
    ran = run_main("train", f"resume={run}", f"trainer.max_steps={last + 5}", *own_text(name))
    assert ran.code == 0, ran.err
    assert f"from step {last}" in ran.err
    rows = rows_of(run)
    validations = {row["step"]: row["val/loss"] for row in rows if "val/loss" in row}
    assert max(validations) == last + 5
    steps = [row["step"] for row in rows if "train/loss" in row]
    assert steps == sorted(set(steps)), "no step twice"
    if name in GONE_ON:
        assert validations[last + 5] == pytest.approx(GONE_ON[name], rel=1e-5)
    result = read(run / "result.json")
    assert result["monitor"]["name"] == before["monitor"]["name"]
    best = {row["step"]: row for row in rows if "val/loss" in row}[result["step"]]
    metrics = {key: best[key] for key in before["metrics"]}
    assert result["metrics"] == pytest.approx(metrics), "also those of a checkpoint of an older schema"
    index = read(run / "checkpoints/index.json")
    assert index["monitor"] == before["monitor"]["name"]
    assert index["last"]["weights"]["model"]["file"] == f"step_{last + 5:08d}.safetensors"
    assert f"schema_version: {SCHEMA_VERSION}" in (run / "config.yaml").read_text()
    again = run_main("train", f"resume={run}", f"trainer.max_steps={last + 6}", *own_text(name))
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("version", "trainer", "left"),
    [
        (1, {"max_minutes": 3.0, "max_steps": 2000}, (None, None, 3.0)),
        (1, {"max_minutes": 3.0, "max_steps": 2000, "max_epochs": 2.0}, (None, None, 3.0)),
        (1, {"max_steps": 2000, "max_epochs": 2.0}, (None, 2.0, None)),
        (1, {"max_steps": 2000}, (2000, None, None)),
        (2, {"max_minutes": 3.0, "max_steps": 2000}, (2000, None, 3.0)),
        (2, {"max_steps": 2000, "max_epochs": 2.0}, (2000, 2.0, None)),
        (2, {"max_minutes": 3.0}, (None, None, 3.0)),
    ],
)
def test_the_length_of_a_run_of_each_schema(version: int, trainer: dict[str, Any], left: Any) -> None:
    """In schema 1 minutes came before epochs, and these before steps; now the first limit reached counts."""
    import yaml

    saved = yaml.safe_load((RUNS / "schema_1_gpt/config.yaml").read_text())
    saved["schema_version"] = version
    saved["trainer"] |= {"max_steps": None, "max_epochs": None, "max_minutes": None} | trainer
    read_back = from_plain(saved, "here").trainer
    assert (read_back.max_steps, read_back.max_epochs, read_back.max_minutes) == left


def test_a_run_of_schema_1_goes_on_for_its_minutes(run_main: Main) -> None:
    """Its ten steps, which had no effect beside the minutes, do not end it now."""
    run = copy("schema_1_parity")
    text = (run / "config.yaml").read_text().replace("max_minutes: null", "max_minutes: 0.02")
    (run / "config.yaml").write_text(text)
    ran = run_main("train", f"resume={run}")
    assert ran.code == 0, ran.err
    assert rows_of(run)[-1]["step"] > 10
    assert "max_steps: null" in (run / "config.yaml").read_text()


def test_averaged_weights_of_a_run(run_main: Main) -> None:
    checkpoints = Checkpoints(RunFolder(RUNS / "schema_2_gpt"))
    best, ema = checkpoints.load("best")["model"], checkpoints.load("ema")["model"]
    assert best.keys() == ema.keys()
    assert any(not torch.equal(best[name], ema[name]) for name in best)
    ran = run_main("eval", f"run={copy('schema_2_gpt')}", "checkpoint=ema", *DEVICE, f"data.path={BOOK}")
    assert ran.code == 0, ran.err
    logged = read(RUNS / "schema_2_gpt/result.json")["metrics"]
    assert json.loads(ran.out)["metrics"]["all/loss"] != pytest.approx(logged["val/loss"], rel=1e-4)
