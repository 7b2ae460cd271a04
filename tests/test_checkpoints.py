"""Checkpoint files: found by name and step, whole or refused, nothing in them trusted."""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small_trainer import fit, make_config, make_trainer

from seqexp.config.root import SCHEMA_VERSION
from seqexp.errors import UserError
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints


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


def file_of(checkpoints: Checkpoints, kind: str, which: str = "last") -> Path:
    """The file with the weights of a checkpoint, or that with the rest."""
    entry = checkpoints.index[which]
    return checkpoints.folder / (entry["weights"]["model"]["file"] if kind == "weights" else entry["file"])


both_files = pytest.mark.parametrize("kind", ["weights", "rest"])


@both_files
@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.999])
def test_a_damaged_checkpoint_is_refused(saved: Checkpoints, place: float, kind: str) -> None:
    file = file_of(saved, kind)
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=f"{file.name} is damaged"):
        saved.load("last")
    assert saved.load("best")["step"] == 5


@both_files
def test_a_short_or_missing_checkpoint(saved: Checkpoints, kind: str) -> None:
    file = file_of(saved, kind)
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
    # Its weights, if any, are its own, as in schema 1.
    checkpoints.index["last"] |= {"file": name, "sha256": digest, "weights": {}}


def put_weights(checkpoints: Checkpoints, content: bytes, name: str = "step_00000009.safetensors") -> None:
    """The same for the weights."""
    (checkpoints.folder / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    checkpoints.index["last"]["weights"] = {"model": {"file": name, "sha256": digest}}


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_code_in_a_checkpoint_is_not_executed(saved: Checkpoints) -> None:
    put(saved, {"model": Attack(), "step": 9, "schema_version": SCHEMA_VERSION})
    with pytest.raises(UserError, match="not a checkpoint of plain data"):
        saved.load("last")
    assert not Path("executed").exists()
    # The attack is a real one: an unsafe reader would have run it.
    torch.load(saved.folder / "step_00000009.pt", weights_only=False)
    assert Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "not a checkpoint of seqexp"),
        ({"step": 9, "schema_version": SCHEMA_VERSION}, "not a checkpoint of seqexp"),
        ({"model": {}, "step": 9, "schema_version": SCHEMA_VERSION + 1}, "reads up to"),
        ({"model": {}, "step": 9}, "not a checkpoint of seqexp"),
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


def test_weights_cannot_lead_out_of_their_folder(saved: Checkpoints) -> None:
    put_weights(saved, file_of(saved, "weights").read_bytes(), "../outside.safetensors")
    assert Path("run/outside.safetensors").is_file()
    with pytest.raises(UserError, match=r"checkpoints/outside\.safetensors cannot be read"):
        saved.load("last")


# Weights


def test_weights_are_safetensors_with_what_the_model_holds(book: Path) -> None:
    """Tied weights stand in the file once, and have both names when they are read."""
    trainer = make_trainer(make_config(book, trainer={"max_steps": 2, "ema_decay": 0.5}))
    fit(trainer)
    own = trainer.model.state_dict()
    assert own["head.weight"].data_ptr() == own["embedding.weight"].data_ptr()
    files = {name: one["file"] for name, one in trainer.checkpoints.index["last"]["weights"].items()}
    assert files == {"model": "step_00000002.safetensors", "ema": "step_00000002.ema.safetensors"}
    with safe_open(trainer.run.checkpoints / files["model"], framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert len({"head.weight", "embedding.weight"} & set(found)) == 1
    assert set(own) - set(found) <= {"head.weight", "embedding.weight"}
    for name, tensor in found.items():
        assert torch.equal(tensor, own[name]), name
    state = trainer.checkpoints.load("last")
    assert state["model"].keys() == own.keys()
    assert all(torch.equal(state["model"][name], own[name]) for name in own)
    assert state["model"]["head.weight"].data_ptr() == state["model"]["embedding.weight"].data_ptr()
    rest = torch.load(trainer.run.checkpoints / "step_00000002.pt", weights_only=True)
    assert "model" not in rest, "the weights stand in one place"
    assert "weights" not in rest["hooks"]["ema"]


@pytest.mark.parametrize("content", [b"", b"nothing", bytes(100), b"\xff" * 100], ids=range(4))
def test_weights_that_are_not_safetensors(saved: Checkpoints, content: bytes) -> None:
    put_weights(saved, content)
    with pytest.raises(UserError, match=r"step_00000009\.safetensors is not a safetensors file"):
        saved.load("last")


@pytest.mark.parametrize(
    "odd",
    [{"tied": {"b": ["weight"]}}, {"tied": 5}, {"tied": {1: "weight"}}, {"hooks": 5}, {"hooks": {"ema": 5}}],
    ids=range(5),
)
def test_odd_values_beside_the_weights(saved: Checkpoints, odd: dict[str, Any]) -> None:
    """A file may come from a stranger: what is not as it should be is left unread."""
    weights = saved.index["last"]["weights"]
    put(saved, {"step": 9, "schema_version": SCHEMA_VERSION, **odd})
    saved.index["last"]["weights"] = weights
    state = saved.load("last")
    assert state["model"]["weight"].tolist() == [9.0] * 3
    assert isinstance(state["hooks"], dict)


@both_files
def test_a_link_in_the_place_of_a_checkpoint(saved: Checkpoints, kind: str) -> None:
    """It may lead out of the folder, to what has no end."""
    file = file_of(saved, kind)
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
    with pytest.raises(UserError, match="not a checkpoint of plain data"):
        saved.load("last")


@pytest.mark.parametrize(
    "index",
    [
        [],
        {"last": None},
        {"recent": {}, "best": 1},
        {"last": {"step": 6, "file": 1, "sha256": 2}},
        {"last": {"step": 6, "file": "a", "sha256": "b", "weights": ["c"]}},
        {"last": {"step": 6, "file": "a", "sha256": "b", "weights": {"model": "c"}}},
        {"last": {"step": 6, "file": "a", "sha256": "b", "metrics": 1}},
    ],
    ids=range(7),
)
def test_an_index_of_something_else(saved: Checkpoints, index: Any) -> None:
    (saved.folder / "index.json").write_text(json.dumps(index))
    again = Checkpoints(RunFolder(Path("run")))
    with pytest.raises(UserError, match="there is nothing"):
        again.load("last")
    with pytest.raises(UserError, match="none of the checkpoints"):
        again.load_newest()


def test_the_best_is_resumed_from_where_all_recent_ones_are_damaged(saved: Checkpoints) -> None:
    for step in (12, 15):
        saved.save(step, {"model": {"weight": torch.full((3,), float(step))}})
        saved.record_validation(step, float(step), better=False)
        (saved.folder / f"step_{step:08d}.pt").write_bytes(b"damaged")
    again = Checkpoints(RunFolder(Path("run")))
    assert again.load_newest()["step"] == 5
    assert again.index["last"]["step"] == 5
    assert again.load("last")["step"] == 5


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
    with pytest.raises(UserError, match="not a checkpoint of seqexp"):
        saved.load("last")


@pytest.mark.parametrize("step", [None, 8, "6", True, torch.zeros(3)])
def test_a_checkpoint_of_another_step(saved: Checkpoints, step: Any) -> None:
    put(saved, {"model": {}, "step": step, "schema_version": SCHEMA_VERSION})
    with pytest.raises(UserError, match="is not the checkpoint of step"):
        saved.load("last")
