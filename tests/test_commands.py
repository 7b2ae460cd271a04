"""train, eval and generate from end to end: what a run leaves behind, and what is made from it."""

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY, Ran, make_book
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seqexp.tracking import run_folder
from seqexp.tracking.run_folder import RunFolder

Main = Callable[..., Ran]
Process = Callable[..., subprocess.CompletedProcess[str]]

# The device of the tiny run, so that its numbers come back.
DEVICE = ("device=cpu", "device.threads=1", "device.precision=fp32")


def read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def only(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path


def train(run_main: Main, text: Path, *words: str) -> Path:
    """Train for no steps, unless the words say otherwise; the folder of the run."""
    before = set(Path("outputs").glob("train/*/*"))
    defaults = ("trainer.max_steps=0", "trainer.sample_tokens=0")
    ran = run_main("train", "data=text", f"data.path={text}", *TINY, *defaults, *words)
    assert ran.code == 0, ran.err
    (run,) = set(Path("outputs").glob("train/*/*")) - before
    return run


# What training leaves behind


def test_the_files_of_a_run(tiny_run: Path) -> None:
    names = {path.name for path in tiny_run.iterdir()}
    assert names == {
        "config.yaml", "manifest.json", "status.json", "train.log", "metrics.jsonl", "result.json",
        "tensorboard", "checkpoints", "samples", "plots", ".lock",
    }  # fmt: skip
    assert [path.name for path in tiny_run.glob("**/.*")] == [".lock"], "nothing half-written"
    assert (tiny_run / "plots/loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert {file.name for file in (tiny_run / "samples").iterdir()} == {
        "step_00000005.txt",
        "step_00000010.txt",
    }
    log = (tiny_run / "train.log").read_text(encoding="utf-8")
    assert str(tiny_run) in log
    assert "val/loss" in log


def test_the_configuration_of_a_run_is_resolved_and_plain(tiny_run: Path, book: Path) -> None:
    values = yaml.safe_load((tiny_run / "config.yaml").read_text(encoding="utf-8"))
    assert values["schema_version"] == 2
    assert values["model"] | {"n_layer": 2, "n_embd": 32, "max_len": 16} == values["model"]
    assert values["data"]["path"] == str(book)
    assert values["trainer"]["max_steps"] == 10
    assert "hydra" not in values
    assert "${" not in (tiny_run / "config.yaml").read_text()


def test_the_manifest_of_a_run(tiny_run: Path, book: Path) -> None:
    manifest = read(tiny_run / "manifest.json")
    text = book.read_bytes()
    characters = len(text.decode())
    corpus = manifest["corpus"]
    assert corpus["files"][0]["sha256"] == hashlib.sha256(text).hexdigest()
    assert corpus["characters"] == characters
    assert corpus["splits"]["train"]["characters"] == characters * 9 // 10
    assert corpus["splits"]["val"]["characters"] == characters - characters * 9 // 10
    assert corpus["stand_in"] is None
    assert manifest["seed"] == 1
    assert (manifest["precision"], manifest["threads"]) == ("fp32", 1)
    assert manifest["device"].startswith("cpu")
    assert manifest["compiled"] == {"compiled": False, "reason": "device.compile=false"}
    assert manifest["planned_steps"] == 10
    assert manifest["reproducible"] is True
    assert set(manifest["versions"]) >= {"seqexp", "torch", "hydra-core"}
    assert len(manifest["fingerprint"]) == 10
    parameters = manifest["parameters"]
    vocabulary, width = corpus["preprocessor"]["tokenizers"]["text"]["vocab_size"], 32
    assert parameters["embedding"] == vocabulary * width
    assert parameters["total"] == vocabulary * width + 2 * (12 * width**2 + 2 * width) + width


@pytest.mark.parametrize(
    "corpus", [None, 5, [], "x", {}, {"files": 5}, {"files": [5]}, {"files": [{"path": "x" * 300}]}]
)
def test_a_manifest_of_something_else(run_main: Main, tiny_run: Path, corpus: Any) -> None:
    shutil.copytree(tiny_run, "run")
    whole = read(Path("run/manifest.json"))
    Path("run/manifest.json").write_text(json.dumps({**whole, "corpus": corpus, "resumed": 5}))
    written = run_main("generate", "run=run", "generation.max_new_tokens=1", *DEVICE)
    assert written.code == 0, written.err
    judged = run_main("eval", "run=run", *DEVICE)
    assert judged.code == 2
    assert "the corpus has changed" in judged.err.splitlines()[-1]


def test_the_status_of_a_run(tiny_run: Path) -> None:
    status = read(tiny_run / "status.json")
    assert (status["status"], status["ending"]) == ("finished", "finished")
    started, updated = (datetime.fromisoformat(status[key]) for key in ("started", "updated"))
    assert started.tzinfo is not None
    assert 0 < (updated - started).total_seconds() < 60


def test_the_result_of_a_run(tiny_run: Path) -> None:
    result, rows = read(tiny_run / "result.json"), rows_of(tiny_run)
    assert set(result) >= {"command", "run", "checkpoint", "step", "split", "metrics", "monitor"}
    assert (result["command"], result["checkpoint"], result["split"]) == ("train", "best", "val")
    assert result["run"] == str(tiny_run)
    losses = {row["step"]: row["val/loss"] for row in rows if "val/loss" in row}
    best = min(losses, key=lambda step: losses[step])
    assert result["monitor"] == {"name": "val/loss", "mode": "min", "best": losses[best], "step": best}
    assert result["step"] == best
    assert set(result["metrics"]) == {"val/loss", "val/perplexity", "val/bits_per_char"}
    assert result["metrics"]["val/loss"] == losses[best]
    assert result["metrics"]["val/perplexity"] == pytest.approx(math.exp(losses[best]))
    assert result["metrics"]["val/bits_per_char"] == pytest.approx(losses[best] / math.log(2))
    tokens = read(tiny_run / "manifest.json")["corpus"]["splits"]["val"]["tokens"]
    units = {"val/loss": "nats per token", "val/perplexity": "per token", "val/bits_per_char": "bits"}
    assert result["details"] == {
        name: {
            "value": value, "count": tokens, "interval": None, "unit": units[name],
            "higher_is_better": False,
        }
        for name, value in result["metrics"].items()
    }  # fmt: skip


def test_metrics_are_logged_at_their_steps(tiny_run: Path) -> None:
    rows = rows_of(tiny_run)
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 11))
    assert [row["step"] for row in rows if "val/loss" in row] == [5, 10]
    names = {"step", "train/loss", "train/lr", "train/grad_norm", "speed/tokens_per_s", "memory/peak_mb"}
    assert set(rows[0]) == names
    assert all(value > 0 for row in rows for value in row.values())
    rates = [row["train/lr"] for row in rows if "train/lr" in row]
    assert rates[:3] == pytest.approx([1e-3, 2e-3, 2e-3])  # a warm-up of two steps to 2e-3
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_tensorboard_tells_the_same_numbers(tiny_run: Path) -> None:
    events = EventAccumulator(str(tiny_run / "tensorboard")).Reload()
    told = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    wanted: dict[str, dict[int, float]] = {}
    for row in rows_of(tiny_run):
        for name, value in row.items():
            if name != "step":
                wanted.setdefault(name, {})[row["step"]] = value
    assert told.keys() == wanted.keys()
    for name, points in wanted.items():
        assert told[name] == pytest.approx(points, rel=1e-6), name
    texts = {
        tag: [e.tensor_proto.string_val[0].decode() for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    assert set(texts) == {"config/text_summary", "sample/text_summary"}
    assert "n_embd: 32" in texts["config/text_summary"][0]
    sample = (tiny_run / "samples/step_00000010.txt").read_text(encoding="utf-8")
    assert [line.strip() for line in texts["sample/text_summary"][1].split("\n")] == [
        line.strip() for line in sample.removesuffix("\n").splitlines()
    ]


def test_the_same_words_train_the_same_weights(run_main: Main, tiny_run: Path, book: Path) -> None:
    """Bitwise, under another name and in another place; another seed gives other numbers."""
    words = ("trainer.max_steps=10", "trainer.sample_tokens=40")
    again, other = train(run_main, book, *words), train(run_main, book, *words, "seed=2")
    names = ("train/loss", "train/grad_norm", "val/loss")

    def numbers(run: Path) -> list[float]:
        return [row[name] for row in rows_of(run) for name in names if name in row]

    assert numbers(again) == numbers(tiny_run)
    assert numbers(other) != numbers(tiny_run)
    fingerprints = [read(run / "manifest.json")["fingerprint"] for run in (tiny_run, again, other)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_no_steps_judge_the_untrained_model(run_main: Main, book: Path) -> None:
    run = train(run_main, book)
    result = read(run / "result.json")
    fitted = read(run / "manifest.json")["corpus"]["preprocessor"]
    vocabulary = fitted["tokenizers"]["text"]["vocab_size"]
    assert result["step"] == 0
    assert result["metrics"]["val/loss"] == pytest.approx(math.log(vocabulary), abs=0.3)


# eval


@pytest.mark.parametrize("checkpoint", ["best", "last", "10"])
def test_eval_gives_the_result_of_training_again(run_main: Main, tiny_run: Path, checkpoint: str) -> None:
    ran = run_main("eval", f"run={tiny_run}", f"checkpoint={checkpoint}", *DEVICE)
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    trained = read(tiny_run / "result.json")
    assert result["metrics"] == pytest.approx(trained["metrics"], rel=1e-6)
    assert (result["command"], result["split"], result["step"]) == ("eval", "val", 10)
    assert (result["run"], result["checkpoint"]) == (str(tiny_run), checkpoint)
    part = read(tiny_run / "manifest.json")["corpus"]["splits"]["val"]
    assert (result["tokens"], result["characters"]) == (part["tokens"], part["characters"])
    assert result["details"].keys() == trained["details"].keys()
    for name, detail in result["details"].items():
        assert detail | {"value": 0} == trained["details"][name] | {"value": 0}
    assert (result["notes"], result["skipped"], result["tables"]) == ([], [], [])
    folder = only("outputs/eval/tiny/*")
    assert read(folder / "result.json") == result
    assert read(folder / "status.json")["status"] == "finished"
    assert {"config.yaml", "manifest.json", "eval.log"} <= {path.name for path in folder.iterdir()}


def test_eval_of_the_training_part(run_main: Main, tiny_run: Path) -> None:
    ran = run_main("eval", f"run={tiny_run}", "split=train", *DEVICE)
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert set(result["metrics"]) == {"train/loss", "train/perplexity", "train/bits_per_char"}
    assert result["tokens"] == read(tiny_run / "manifest.json")["corpus"]["splits"]["train"]["tokens"]


def test_eval_of_another_text(run_main: Main, tiny_run: Path) -> None:
    """All of it counts, from its first character; what training never showed is counted, at its cost."""
    text = make_book(3000, seed=9) + "€ and ž"
    Path("other.txt").write_text(text, encoding="utf-8", newline="\n")
    results = []
    for words in (("split=all",), ()):
        ran = run_main("eval", f"run={tiny_run}", "data.path=other.txt", *words, *DEVICE)
        assert ran.code == 0, ran.err
        results.append(json.loads(ran.out))
    assert results[0] == results[1]
    assert (results[0]["split"], results[0]["tokens"], results[0]["characters"]) == (
        "all",
        len(text),
        len(text),
    )
    assert results[0]["unknown_characters"] == 2
    assert "€ž" in ran.err
    metrics = results[0]["metrics"]
    assert metrics["all/bits_per_char"] == pytest.approx(metrics["all/loss"] / math.log(2))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("split=test",), "split=test does not exist; choose from train, val"),
        (("split=all",), "split=all does not exist; choose from train, val (all is another text"),
        (("split=val", "data.path=BOOK"), "split=val does not exist; choose from all"),
        (("checkpoint=3",), "checkpoint=3 is not in"),
        (("checkpoint=3",), "there is last, best, 10"),
    ],
)
def test_mistakes_with_eval(
    run_main: Main, tiny_run: Path, book: Path, words: tuple[str, ...], told: str
) -> None:
    ran = run_main("eval", f"run={tiny_run}", *(word.replace("BOOK", str(book)) for word in words), *DEVICE)
    assert ran.code == 2
    assert told in ran.err.splitlines()[-1]
    assert not Path("outputs").exists()


def test_eval_and_resume_from_another_folder(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on a path relative to where one stood is found, judged and gone on with from elsewhere."""
    Path("here/texts").mkdir(parents=True)
    Path("there").mkdir()
    Path("here/texts/mine.txt").write_text(make_book(5000), encoding="utf-8")
    monkeypatch.chdir("here")
    run = train(run_main, Path("texts"), "name=moved").absolute()
    monkeypatch.chdir("../there")
    for word in (f"run={run}", f"run=../here/{run.relative_to(Path.cwd().parent / 'here')}"):
        ran = run_main("eval", word, *DEVICE)
        assert ran.code == 0, ran.err
        metrics = json.loads(ran.out)["metrics"]
        assert metrics == pytest.approx(read(run / "result.json")["metrics"], rel=1e-6)
    assert len(list(Path("outputs/eval/moved").iterdir())) == 2
    ran = run_main("train", f"resume={run}", "trainer.max_steps=1")
    assert ran.code == 0, ran.err
    assert read(run / "result.json")["run"] == str(run)
    assert not Path("outputs/train").exists()
    ran = run_main("eval", *DEVICE)
    assert ran.code == 2
    assert "there is no training run" in ran.err


def test_eval_of_a_run_that_was_moved(run_main: Main, book: Path) -> None:
    run = train(run_main, book)
    moved = run.rename("kept")
    ran = run_main("eval", f"run={moved}", *DEVICE)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["run"] == str(moved.absolute())


# generate

FEW = ("generation.max_new_tokens=20", *DEVICE)


def predicted() -> list[dict[str, Any]]:
    """What the one run folder of `generate` keeps, in order."""
    lines = only("outputs/generate/tiny/*/predictions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.removesuffix("\n").split("\n")]


def test_generate_goes_on_from_the_prompt(run_main: Main, tiny_run: Path) -> None:
    ran = run_main("generate", f"run={tiny_run}", "prompt=The old", *FEW)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("The old")
    # Twenty tokens are twenty characters, or fewer where a document ended.
    assert len("The old") < len(ran.out.removesuffix("\n")) <= len("The old") + 20
    folder = only("outputs/generate/tiny/*")
    result = read(folder / "result.json")
    text = ran.out.removesuffix("\n")
    assert predicted() == [{"prompt": "The old", "samples": [text]}]
    assert (result["command"], result["step"], result["seed"]) == ("generate", 10, 1)
    assert (result["predictions"], result["generated_data"]) == (1, False)
    assert (folder / "samples/sample_001.txt").read_text(encoding="utf-8") == text
    assert read(folder / "status.json")["status"] == "finished"


def test_generate_is_repeated_by_its_seed(run_main: Main, tiny_run: Path) -> None:
    words = ("generate", f"run={tiny_run}", "prompt=The", "generation.temperature=2", *FEW)
    first = run_main(*words, "seed=5").out
    assert run_main(*words, "seed=5").out == first
    assert run_main(*words, "seed=6").out != first
    three = run_main(*words, "seed=5", "generation.num_samples=3").out
    assert first in three
    greedy = ("generate", f"run={tiny_run}", "generation.temperature=0", *FEW)
    assert run_main(*greedy, "seed=5").out == run_main(*greedy, "seed=6").out


def test_generate_past_the_window(run_main: Main, tiny_run: Path) -> None:
    """A window of 16 tokens, a longer prompt and 100 tokens more; greedily, so that no document ends."""
    prompt = "The old house opened the small door and An"
    ran = run_main(
        "generate", f"run={tiny_run}", f"prompt={prompt}", "generation.max_new_tokens=100",
        "generation.temperature=0", *DEVICE,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.out.startswith(prompt)
    assert len(ran.out) == len(prompt) + 100 + 1


def test_several_samples(run_main: Main, tiny_run: Path) -> None:
    ran = run_main("generate", f"run={tiny_run}", "prompt=The", "generation.num_samples=3", *FEW)
    assert ran.code == 0, ran.err
    heads = [line for line in ran.out.splitlines() if line.startswith("-----")]
    assert heads == [f"----- sample {i} of 3 -----" for i in (1, 2, 3)]
    (row,) = predicted()
    samples = row["samples"]
    assert len(set(samples)) == 3
    assert all(text in ran.out for text in samples)
    assert len(list(Path().glob("outputs/generate/tiny/*/samples/*.txt"))) == 3


def test_generate_to_a_file(run_main: Main, tiny_run: Path) -> None:
    ran = run_main("generate", f"run={tiny_run}", "prompt=The", "output=text=1.txt", *FEW)
    assert ran.code == 0, ran.err
    assert ran.out == ""
    shown = run_main("generate", f"run={tiny_run}", "prompt=The", *FEW).out
    assert Path("text=1.txt").read_text(encoding="utf-8") == shown


def test_generate_from_a_file(run_main: Main, tiny_run: Path) -> None:
    Path("begin.txt").write_text("Anna opened\nthe\n", encoding="utf-8")
    ran = run_main("generate", f"run={tiny_run}", "input=begin.txt", *FEW)
    assert ran.code == 0, ran.err
    assert ran.out == run_main("generate", f"run={tiny_run}", "prompt=Anna opened\nthe", *FEW).out


def test_generate_from_a_pipe(seqexp: Process, run_main: Main, tiny_run: Path) -> None:
    done = seqexp("generate", f"run={tiny_run}", *FEW, input="Zoë asked\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == run_main("generate", f"run={tiny_run}", "prompt=Zoë asked", *FEW).out


def on_a_terminal(*words: str) -> str:
    """Standard output of a command whose standard output is a terminal of 100 columns."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    shown = b""
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "seqexp", *words],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"COLUMNS": "100", "TERM": "dumb"},
        )
        os.close(theirs)
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # the other end was closed
            pass
        assert process.wait(timeout=60) == 0
    finally:
        os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_on_a_terminal_the_text_is_streamed_and_the_same(run_main: Main, tiny_run: Path) -> None:
    words = ("generate", f"run={tiny_run}", "prompt=Zoë", *FEW)
    assert on_a_terminal(*words) == run_main(*words).out


def test_on_a_terminal_eval_shows_a_table(tiny_run: Path) -> None:
    shown = on_a_terminal("eval", f"run={tiny_run}", *DEVICE)
    for name, value in read(tiny_run / "result.json")["metrics"].items():
        assert re.search(rf"{name.removeprefix('val/')}\W+{value:.4f}", shown)
    assert "nats per token" in shown


def test_a_stop_string_ends_the_text(run_main: Main, tiny_run: Path) -> None:
    """The tiny run writes many spaces: one of them ends it, and is not shown."""
    words = ("generate", f"run={tiny_run}", "prompt=The", "generation.max_new_tokens=200", *DEVICE)
    full, stopped = run_main(*words), run_main(*words, "generation.stop= ")
    assert stopped.code == 0, stopped.err
    assert " " in full.out
    assert stopped.out == full.out.partition(" ")[0] + "\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prompt=€5",), "'€'"),
        (("input=nothing.txt",), "input=nothing.txt cannot be read"),
        (("prompt=a", "input=b"), "prompt= and input= were given together"),
        (("text=a",), "text= is not what the task of this run reads: give its input as prompt="),
        (("prompt=a", "attention=a.png"), "explain= and attention= are not available"),
        (("prompt=a", "ensemble=[RUN]"), "ensemble= is not available for the task of this run"),
        (("prompt=The", "output=no/such/folder.txt"), "output=no/such/folder.txt cannot be written"),
    ],
)
def test_mistakes_with_generate(run_main: Main, tiny_run: Path, words: tuple[str, ...], told: str) -> None:
    words = tuple(word.replace("RUN", str(tiny_run)) for word in words)
    ran = run_main("generate", f"run={tiny_run}", *words, *FEW)
    assert ran.code == 2
    assert told in ran.err.splitlines()[-1]
    assert ran.out == ""
    assert not Path("outputs").exists()


# Folders


def test_latest_is_the_newest_with_a_checkpoint(run_main: Main, book: Path) -> None:
    runs = [train(run_main, book, f"name={name}") for name in ("zebra", "ant")]
    broken = RunFolder.create("train", "broken")  # began, but has no checkpoint
    broken.write_status("running")
    assert json.loads(run_main("eval", *DEVICE).out)["run"] == str(runs[1].absolute())
    ran = run_main(
        "train", "-m", "data=text", f"data.path={book}", *TINY, "trainer.max_steps=0",
        "trainer.sample_tokens=0", "seed=4", "sweep.name=newest",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    job = only("outputs/sweeps/newest/0_*")
    assert json.loads(run_main("eval", "run=latest", *DEVICE).out)["run"] == str(job.absolute())
    ran = run_main("eval", f"run={runs[0]}", *DEVICE)
    assert json.loads(ran.out)["run"] == str(runs[0].absolute())


def test_runs_of_the_same_microsecond_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        """Stands still for three looks, then moves on."""

        looks = 0

        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            cls.looks += 1
            return cls(2030, 1, 2, 3, 4, 5, cls.looks // 4)

    monkeypatch.setattr(run_folder, "datetime", Clock)
    folders = [RunFolder.create("train", "same").path for _ in range(2)]
    assert [folder.name for folder in folders] == ["2030-01-02_03-04-05-000000", "2030-01-02_03-04-05-000001"]


def test_runs_that_start_together_never_share_a_folder() -> None:
    made: list[Path] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        made.extend(RunFolder.create("train", "together").path for _ in range(25))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(set(made)) == len(list(Path("outputs/train/together").iterdir())) == 200


def test_a_sweep(run_main: Main, book: Path) -> None:
    """One folder a job, named by its number and fingerprint; a job that fails does not stop the others."""
    ran = run_main(
        "train", "data=text", f"data.path={book}", *TINY, "trainer.max_steps=2", "trainer.sample_tokens=0",
        "optimizer=sgd", "scheduler=constant", "trainer.max_grad_norm=0", "trainer.eval_every=1",
        "optimizer.lr=0.01,1e30,0.02", "sweep.name=rates", "-m",
    )  # fmt: skip
    assert ran.code == 1
    folders = sorted(Path("outputs/sweeps/rates").glob("*_*"))
    assert [folder.name.partition("_")[0] for folder in folders] == ["0", "1", "2"]
    rates = []
    for folder in folders:
        assert folder.name.partition("_")[2] == read(folder / "manifest.json")["fingerprint"]
        rates.append(yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["lr"])
    assert rates == [0.01, 1e30, 0.02]
    assert [read(folder / "status.json")["status"] for folder in folders] == [
        "finished",
        "failed",
        "finished",
    ]
    assert "not finite" in read(folders[1] / "status.json")["error"]
    assert len({folder.name.partition("_")[2] for folder in folders}) == 3
    assert [(folder / "result.json").is_file() for folder in folders] == [True, False, True]
    assert "optimizer.lr=1e" in ran.err.splitlines()[-1]
    assert not Path("outputs/train").exists()
