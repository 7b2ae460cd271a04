"""Layers by depth: gradual unfreezing, and learning rates that fall from the output to the input."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, Ran
from run_folders import read, rows_of
from torch import nn

from seqexp.models.gpt import GPT
from seqexp.models.recurrent_encoder import RecurrentEncoder
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints
from seqexp.training.depth import depth_groups
from seqexp.training.optimizers import trainable_parameters

Main = Callable[..., Ran]

pytestmark = pytest.mark.usefixtures("one_thread")


def gpt(n_layer: int = 2) -> GPT:
    return GPT(vocab_size=11, max_len=8, n_layer=n_layer, n_head=2, n_embd=8, tie_embeddings=False)


def test_groups_go_from_the_input_to_the_output() -> None:
    groups = depth_groups(gpt())
    assert groups[0] == ["embedding.weight", "position_embedding.weight"]
    assert [{name.rpartition("blocks.")[2][0] for name in group} for group in groups[1:3]] == [{"0"}, {"1"}]
    assert groups[3] == ["norm.weight", "head.weight"]
    assert sorted(name for group in groups for name in group) == sorted(
        name for name, _ in gpt().named_parameters()
    )


def test_a_model_without_numbered_layers_has_a_group_for_each_module() -> None:
    model = nn.Sequential()
    model.add_module("embedding", nn.Embedding(3, 2))
    model.add_module("head", nn.Linear(2, 2))
    assert depth_groups(model) == [["embedding.weight"], ["head.weight", "head.bias"]]


def test_the_layers_of_a_recurrent_network_are_one_group() -> None:
    model = RecurrentEncoder(vocab_size=9, n_outputs=2, cell="lstm", hidden_size=4, n_layer=2, n_embd=4)
    groups = depth_groups(model)
    assert len(groups) == 3
    assert groups[0] == ["embedding.weight"]
    assert groups[-1] == ["head.weight", "head.bias"]


def test_the_rate_falls_with_depth() -> None:
    """Multiplied once for every layer below the output, and by the factor of a pattern."""
    model = gpt()
    scales = {
        id(one.value): one.lr_scale
        for one in trainable_parameters(model, {"blocks.0.*": 0.1}, layer_decay=0.5)
    }
    by_name = {name: scales[id(parameter)] for name, parameter in model.named_parameters()}
    assert by_name["head.weight"] == by_name["norm.weight"] == 1
    assert by_name["blocks.1.mlp.fc.weight"] == 0.5
    assert by_name["blocks.0.mlp.fc.weight"] == pytest.approx(0.25 * 0.1)
    assert by_name["embedding.weight"] == 0.125


# Runs


@pytest.fixture
def labelled() -> Path:
    """32 texts: 4 steps of 8 are an epoch."""
    file = Path("texts.csv").absolute()
    rows = [f"{'good film' if n % 2 else 'bad book'} {n},{n % 2}" for n in range(32)]
    file.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return file


def train(main: Main, labelled: Path, *words: str, name: str) -> tuple[Path, Ran]:
    sizes = [word for word in TINY if word.startswith(("model.", "device"))]
    ran = main(
        "train", "data=table", f"data.path={labelled}", f"data.val_path={labelled}",
        f"data.test_path={labelled}", "model=gpt", "tokenizer=char", "data.batch_size=8", *sizes,
        "trainer.eval_every=2", "trainer.log_every=1", "trainer.keep_last=20", *words, f"name={name}",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (folder,) = Path("outputs/train", name).iterdir()
    return folder, ran


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {
        name.rpartition("blocks.")[2][:2] for name in before if not torch.equal(before[name], after[name])
    }


def test_layers_open_one_by_one_and_a_resume_is_exact(run_main: Main, labelled: Path) -> None:
    """An epoch is 4 steps: norm and head train alone in steps 1 to 4, with blocks.1 in steps 5 to 8, …"""
    words = ("trainer.unfreeze_every=1", "trainer.max_steps=14", "optimizer.weight_decay=0.1")
    run, ran = train(run_main, labelled, *words, name="gradual")
    checkpoints = Checkpoints(RunFolder(run))
    states = {step: checkpoints.load(str(step))["model"] for step in range(2, 15, 2)}
    assert changed(states[2], states[4]) == {"no", "he"}
    assert changed(states[4], states[6]) == {"no", "he", "1."}
    assert changed(states[8], states[10]) == {"no", "he", "1.", "0."}
    assert changed(states[12], states[14]) == {"no", "he", "1.", "0.", "em"}
    assert "step 4  " in ran.err
    assert "more parameters train, such as blocks.1." in ran.err
    half, _ = train(run_main, labelled, *words, "trainer.max_steps=6", name="half")
    ran = run_main("train", f"resume={half}", "trainer.max_steps=14")
    assert ran.code == 0, ran.err
    end = Checkpoints(RunFolder(half)).load("last")["model"]
    assert all(torch.equal(end[name], value) for name, value in states[14].items())
    losses = [[row["train/loss"] for row in rows_of(one) if "train/loss" in row] for one in (run, half)]
    assert losses[0] == losses[1]


def test_layers_that_stay_frozen_are_said(run_main: Main, labelled: Path) -> None:
    run, ran = train(
        run_main, labelled, "trainer.unfreeze_every=2", "trainer.freeze=[embedding.*]",
        "trainer.max_steps=9", name="short",
    )  # fmt: skip
    note = "trainer.unfreeze_every=2: 1 of 3 groups of layers stay frozen to the end, such as blocks.0."
    assert note in ran.err
    assert any(note in one for one in read(run / "manifest.json")["notes"])
