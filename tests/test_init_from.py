"""A new run that begins with another run's weights: what is taken, left and newly made."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY, Ran, make_book
from run_folders import read, rows_of, said_shortly

from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints

Main = Callable[..., Ran]
RUNS = Path(__file__).with_name("runs")
NOT_MODEL = [word for word in TINY if not word.startswith("model.")]


@pytest.fixture
def other() -> Path:
    """Another text, which lacks some characters of the book."""
    file = Path("other.txt").absolute()
    file.write_text(make_book(12_000, seed=5).replace("z", ""), encoding="utf-8")
    return file


def begin(main: Main, *words: object, name: str = "new") -> tuple[Path, Ran]:
    ran = main("train", *map(str, words), f"name={name}", "trainer.sample_tokens=0")
    assert ran.code == 0, ran.err
    (folder,) = Path("outputs/train", name).iterdir()
    return folder, ran


def config_of(run: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((run / "config.yaml").read_text()))


def state_of(run: Path, which: str = "best") -> dict[str, Any]:
    return Checkpoints(RunFolder(run)).load(which)


def tuned(main: Main, source: object, other: Path, *words: str, name: str = "new") -> tuple[Path, Ran]:
    """A run of no steps on another text that begins with these weights."""
    common = ("data=text", f"data.path={other}", *NOT_MODEL, "trainer.max_steps=0")
    return begin(main, f"init_from={source}", *common, *words, name=name)


def test_the_model_the_tokenizer_and_the_weights_come_along(
    run_main: Main, tiny_run: Path, other: Path
) -> None:
    run, ran = tuned(run_main, tiny_run, other)
    before, after = config_of(tiny_run), config_of(run)
    assert after["model"] == before["model"]
    assert after["tokenizer"] == before["tokenizer"]
    assert after["data"]["path"] == str(other)
    assert after["init_from"] == str(tiny_run)
    old, new = state_of(tiny_run), state_of(run)
    assert new["preprocessor"] == old["preprocessor"]
    assert old["model"].keys() == new["model"].keys()
    assert all(torch.equal(old["model"][name], new["model"][name]) for name in old["model"])
    report = read(run / "manifest.json")["init_from"]
    assert report["taken"] == sorted(old["model"])
    assert (report["left"], report["new"], report["other_shape"]) == ([], [], {})
    assert (report["run"], report["step"]) == (str(tiny_run), old["step"])
    assert f"weights {tiny_run}, step {old['step']}: {len(old['model'])} taken" in ran.err


def test_it_begins_with_the_loss_of_those_weights(run_main: Main, tiny_run: Path, book: Path) -> None:
    """On the same text: the first validation is that of the other run's best checkpoint."""
    run, _ = tuned(run_main, tiny_run, book)
    (validation,) = [row["val/loss"] for row in rows_of(run) if "val/loss" in row]
    assert validation == read(tiny_run / "result.json")["metrics"]["val/loss"]


def test_what_is_typed_wins(run_main: Main, tiny_run: Path, other: Path) -> None:
    run, ran = tuned(run_main, tiny_run, other, "model.n_layer=3", "model.dropout=0.5")
    model = config_of(run)["model"]
    assert (model["n_layer"], model["dropout"], model["n_embd"]) == (3, 0.5, 32)
    report = read(run / "manifest.json")["init_from"]
    assert report["new"]
    assert all(name.startswith("blocks.2.") for name in report["new"])
    assert "newly made: blocks.2." in ran.err
    fewer, _ = tuned(run_main, tiny_run, other, "model.n_layer=1", name="fewer")
    report = read(fewer / "manifest.json")["init_from"]
    assert report["left"]
    assert all(name.startswith("blocks.1.") for name in report["left"])


def test_a_head_of_another_size_is_newly_made(run_main: Main, tiny_run: Path, other: Path) -> None:
    """Another tokenizer makes other embeddings; the rest of the model is taken."""
    run, ran = tuned(run_main, tiny_run, other, "tokenizer=byte")
    report = read(run / "manifest.json")["init_from"]
    assert set(report["new"]) == set(report["other_shape"]) == {"embedding.weight", "head.weight"}
    assert "there, (" in report["other_shape"]["embedding.weight"]
    assert report["taken"]
    assert "NOTE: embedding.weight has another shape" in ran.err
    assert config_of(run)["tokenizer"]["name"] == "byte"
    old, new = state_of(tiny_run)["model"], state_of(run)["model"]
    assert all(torch.equal(old[name], new[name]) for name in report["taken"])


def test_nothing_fits(run_main: Main, tiny_run: Path, other: Path) -> None:
    words = ("data=text", f"data.path={other}", *NOT_MODEL, "model=lstm", "model.hidden_size=7")
    ran = run_main("train", f"init_from={tiny_run}", *words)
    assert ran.code == 2
    assert "none of its weights has the name and shape" in ran.err.splitlines()[-1]
    assert "model=gpt" in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_checkpoint_of_a_run(run_main: Main, tiny_run: Path, other: Path, ending: str) -> None:
    steps = [entry["step"] for entry in read(tiny_run / "checkpoints/index.json")["recent"]]
    assert len(steps) == 2
    file = tiny_run / f"checkpoints/step_{steps[0]:08d}.{ending}"
    run, _ = tuned(run_main, file, other)
    old, new = state_of(tiny_run, str(steps[0]))["model"], state_of(run)["model"]
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert read(run / "manifest.json")["init_from"]["step"] == steps[0]
    last = state_of(tiny_run, str(steps[1]))["model"]
    assert any(not torch.equal(last[name], new[name]) for name in last)


def test_latest(run_main: Main, tiny_run: Path, other: Path) -> None:
    shutil.copytree(tiny_run, "outputs/train/tiny/copy")
    run, _ = tuned(run_main, "latest", other)
    source = str(Path("outputs/train/tiny/copy").absolute())
    assert config_of(run)["init_from"] == source, "where it is, not latest: that will be another one"


def test_such_a_run_goes_on(run_main: Main, tiny_run: Path, other: Path) -> None:
    """With its own preprocessor, which its text would not give, and even without the other run."""
    source = Path(shutil.copytree(tiny_run, "source"))
    common = ("data=text", f"data.path={other}", *NOT_MODEL, "scheduler=constant", "trainer.eval_every=2")
    whole, _ = begin(run_main, f"init_from={source}", *common, "trainer.max_steps=6", name="whole")
    parts, _ = begin(run_main, f"init_from={source}", *common, "trainer.max_steps=4", name="parts")
    origin = config_of(parts)["init_from"]
    report = read(parts / "manifest.json")["init_from"]
    shutil.rmtree(source)
    ran = run_main("train", f"resume={parts}", "trainer.max_steps=6")
    assert ran.code == 0, ran.err
    assert config_of(parts)["init_from"] == origin == str(source.absolute())
    assert read(parts / "manifest.json")["init_from"] == report
    one, other_state = state_of(whole, "last"), state_of(parts, "last")
    assert one["preprocessor"] == other_state["preprocessor"] == state_of(tiny_run)["preprocessor"]
    assert all(torch.equal(one["model"][name], other_state["model"][name]) for name in one["model"])
    losses = [
        [(row["step"], row.get("train/loss"), row.get("val/loss")) for row in rows_of(run)]
        for run in (whole, parts)
    ]
    assert losses[0] == losses[1]
    judged = run_main("eval", f"run={parts}", "device=cpu")
    assert judged.code == 0, judged.err


def test_such_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    run_main: Main, tiny_run: Path, other: Path
) -> None:
    common = ("data=text", f"data.path={other}", *NOT_MODEL, "trainer.eval_every=2", "trainer.max_steps=4")
    run, _ = begin(run_main, f"init_from={tiny_run}", *common)
    (run / "checkpoints/step_00000004.safetensors").write_bytes(b"damaged")
    ran = run_main("train", f"resume={run}")
    assert ran.code == 0, ran.err
    assert "going on from step 2 instead of 4" in ran.err


@pytest.mark.parametrize("name", ["schema_1_gpt", "schema_2_gpt", "schema_1_lstm"])
def test_a_run_of_another_schema(run_main: Main, other: Path, name: str) -> None:
    run, _ = tuned(run_main, RUNS / name, other, "data.seq_len=16")
    old, new = state_of(RUNS / name), state_of(run)
    assert all(torch.equal(old["model"][key], new["model"][key]) for key in old["model"])
    assert old["preprocessor"] == new["preprocessor"]
    assert read(run / "manifest.json")["init_from"]["new"] == []


def test_a_translation_run_of_schema_1(run_main: Main) -> None:
    words = ("data=phrasebook", "device=cpu", "device.threads=1", "trainer.max_steps=0", "task.bleu=false")
    run, _ = begin(run_main, f"init_from={RUNS / 'schema_1_nmt'}", *words)
    old, new = state_of(RUNS / "schema_1_nmt"), state_of(run)
    assert all(torch.equal(old["model"][key], new["model"][key]) for key in old["model"])
    assert config_of(run)["model"]["hidden_size"] == 8


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("init_from=nowhere",), "init_from=nowhere: there is no such folder"),
        (("init_from=latest",), "init_from=latest: there is no training run with a checkpoint"),
        (("init_from=other.txt",), "init_from=other.txt is a file, but not a checkpoint of a run"),
        (("init_from=RUN/checkpoints/step_00000777.safetensors",), "checkpoint=777 is not in"),
    ],
)
def test_mistakes(run_main: Main, tiny_run: Path, other: Path, words: tuple[str, ...], told: str) -> None:
    words = tuple(word.replace("RUN", str(tiny_run)) for word in words)
    ran = run_main("train", "data=text", "data.path=other.txt", *NOT_MODEL, *words)
    assert told in said_shortly(ran)


def test_a_run_either_goes_on_or_is_new(run_main: Main, tiny_run: Path, book: Path) -> None:
    ran = run_main("train", f"resume={tiny_run}", f"init_from={tiny_run}")
    assert "cannot be changed when a run is resumed" in said_shortly(ran)
    run, ran = tuned(run_main, tiny_run, book, "resume=auto")  # nothing is to go on with: a new one
    assert config_of(run)["init_from"] == str(tiny_run), ran.err


# Frozen parameters and rates of their own


def test_frozen_parameters_stay(run_main: Main, tiny_run: Path, other: Path) -> None:
    """Fine-tuning of the last block alone, on the command line and after a resume."""
    common = ("data=text", f"data.path={other}", *NOT_MODEL, "scheduler=constant")
    freeze = "trainer.freeze=[embedding.*,blocks.0.*]"
    run, _ = begin(run_main, f"init_from={tiny_run}", *common, "trainer.max_steps=2", freeze)
    ran = run_main("train", f"resume={run}", "trainer.max_steps=4")
    assert ran.code == 0, ran.err
    old, new = state_of(tiny_run)["model"], state_of(run, "last")["model"]
    for name, weight in old.items():
        still = name.startswith(("embedding.", "blocks.0.")) or name == "head.weight"  # tied
        assert torch.equal(weight, new[name]) == still, name
    manifest = read(run / "manifest.json")
    assert set(manifest["frozen"]) == {n for n in old if n.startswith(("embedding.", "blocks.0."))}
    parameters = manifest["parameters"]
    assert parameters["total"] == read(tiny_run / "manifest.json")["parameters"]["total"]
    assert parameters["trained"] == parameters["total"] - sum(
        old[name].numel() for name in manifest["frozen"]
    )
    assert f"{parameters['total']:,} parameters, {parameters['trained']:,} of them trained" in ran.err
    assert state_of(run, "last")["step"] == 4
    changed = run_main("train", f"resume={run}", "trainer.max_steps=5", "trainer.freeze=[]")
    assert "trainer.freeze=[] cannot be changed" in said_shortly(changed)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (
            "trainer.freeze=[nothing.*]",
            "trainer.freeze: 'nothing.*' matches no parameter; there are",
        ),
        ("trainer.freeze=['*']", "leaves no parameter to train"),
        ("optimizer.lr_scale={nothing:0.5}", "optimizer.lr_scale: 'nothing' matches no parameter"),
        ("optimizer.lr_scale={embedding.weight:-1}", "optimizer.lr_scale[embedding.weight]=-1"),
        ('optimizer.lr_scale={"embedding.*":0.5}', "write a mapping without quotes around its keys"),
    ],
)
def test_patterns_that_do_not_do(run_main: Main, book: Path, word: str, told: str) -> None:
    ran = run_main("train", "data=text", f"data.path={book}", *TINY, word)
    assert ran.code == 2, ran.err
    assert told in ran.err.splitlines()[-1]


def test_rates_of_their_own_are_kept_on_a_resume(run_main: Main, book: Path) -> None:
    words = ("data=text", f"data.path={book}", *TINY, "scheduler=constant", "scheduler.warmup_steps=0")
    # Hydra's grammar wants brackets escaped.
    scale = r"optimizer.lr_scale={blocks.\[02\].*:0.5,embedding.*:0}"
    run, _ = begin(run_main, *words, scale, "optimizer.lr=0.01", "trainer.max_steps=2")
    ran = run_main("train", f"resume={run}", "trainer.max_steps=4")
    assert ran.code == 0, ran.err
    groups = state_of(run, "last")["optimizers"][0]["param_groups"]
    assert {group["lr"] for group in groups} == {0.0, 0.005, 0.01}
    assert config_of(run)["optimizer"]["lr_scale"] == {"blocks.[02].*": 0.5, "embedding.*": 0}
