"""Classifiers from the command line: `seqexp train`, `eval` and `generate` on labelled texts."""

import csv
import json
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ran, _main, _stand_clean
from run_folders import read, rows_of, said_shortly, strict_json
from sklearn import metrics as sk

from seqexp.data.labelled import with_all_splits
from seqexp.data.opinions import opinions
from seqexp.metrics.classification import calibration, confusion_matrix
from seqexp.metrics.intervals import wilson
from seqexp.metrics.outcomes import OUTCOMES, from_bytes
from seqexp.tracking.plots import confusion_figure, reliability_figure, save
from seqexp.tracking.run_folder import RunFolder
from seqexp.training.checkpoint import Checkpoints

Main = Callable[..., Ran]

DEVICE = ("device=cpu", "device.threads=1", "device.precision=fp32")
FAST = ("debug=fast", "scheduler=constant", "optimizer.lr=1e-2", *DEVICE)
CNN = ("model=textcnn", "model.n_embd=8", "model.n_filter=4")
BAG = ("model=fasttext_bag", "model.n_embd=8", "model.buckets=100")
BIRNN = ("model=birnn", "model.n_embd=8", "model.hidden_size=6")
ENCODER = (
    "model=bert",
    "model.n_embd=8",
    "model.n_head=2",
    "model.ffn_size=16",
    "model.n_layer=1",
)
GPT = ("model=gpt", "model.n_embd=8", "model.n_head=2", "model.n_layer=1")

OPINIONS = with_all_splits({"train": opinions()})


def only(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path.absolute()


def train(main: Main, *words: str, name: str = "new") -> Path:
    ran = main("train", *FAST, "trainer.sample_tokens=0", *words, f"name={name}")
    assert ran.code == 0, ran.err
    assert "pictures are missing" not in ran.err
    return only(f"outputs/train/{name}/*")


def judge(main: Main, run: Path, *words: str) -> dict[str, Any]:
    ran = main("eval", f"run={run}", *DEVICE, *words)
    assert ran.code == 0, ran.err
    return dict(strict_json(ran.out))


def state_of(run: Path, which: str = "last") -> dict[str, Any]:
    return Checkpoints(RunFolder(run)).load(which)


def losses(run: Path) -> list[tuple[int, str, float]]:
    names = ("train/loss", "train/grad_norm", "val/loss", "val/accuracy", "val/macro_f1")
    return [(row["step"], name, row[name]) for row in rows_of(run) for name in names if name in row]


THINGS = ["book", "film", "play", "song", "door", "house", "garden", "river", "letter", "lamp"]
KINDS = {
    "good": ["fine", "warm", "clever"],
    "bad": ["dull", "cold", "stale"],
    "other": ["red", "tall", "old"],
}


def table(name: str = "some.csv", n: int = 90, separator: str | None = None) -> str:
    """Texts whose adjectives say their label; with a separator, of two kinds and with both labels."""
    draw = random.Random(n)
    rows = [("text", "label")]
    for _ in range(n):
        kinds = draw.sample(list(KINDS), 2)
        some = [f"the {draw.choice(THINGS)} was {draw.choice(KINDS[kind])}" for kind in kinds]
        rows.append((" and ".join(some), separator.join(kinds)) if separator else (some[0], kinds[0]))
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return name


@pytest.fixture(scope="session")
def opinions_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """The folder of a finished run of ten steps on the opinions; tests must not change it."""
    place = tmp_path_factory.mktemp("opinions_run")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _stand_clean(monkeypatch, cache_folder, place)
        ran = _main("train", "data=opinions", *CNN, *FAST, "data.batch_size=32", "name=tiny")
    assert ran.code == 0, ran.err
    assert "pictures are missing" not in ran.err
    (folder,) = (place / "outputs/train/tiny").iterdir()
    return folder


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing would take longer than training; `opinions_run` and `test_every_model_trains` have pictures."""
    monkeypatch.setattr("seqexp.commands.train.try_to_draw", lambda *_: None)


quickly = pytest.mark.usefixtures("no_pictures")


# What training leaves behind


def test_the_folder_of_a_run(opinions_run: Path) -> None:
    validated = [row for row in rows_of(opinions_run) if "val/loss" in row]
    assert [row["step"] for row in validated] == [5, 10]
    for row in validated:
        assert set(row) == {"step", "val/loss", "val/accuracy", "val/macro_f1"}
    details = read(opinions_run / "result.json")["details"]
    assert {name: (one["unit"], one["higher_is_better"]) for name, one in details.items()} == {
        "val/loss": ("nats per text", False),
        "val/accuracy": ("share of texts", True),
        "val/macro_f1": ("mean F1 of the labels", True),
    }
    n = len(OPINIONS["val"])
    accuracy = details["val/accuracy"]
    assert accuracy["count"] == n
    assert accuracy["interval"] == pytest.approx(wilson(round(accuracy["value"] * n), n))
    for name in ("loss", "confusion", "reliability"):
        assert (opinions_run / f"plots/{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    corpus = read(opinions_run / "manifest.json")["corpus"]
    assert corpus["generated"] is True
    assert {name: part["texts"] for name, part in corpus["splits"].items()} == {
        name: len(part) for name, part in OPINIONS.items()
    }
    assert corpus["preprocessor"]["labels"] == ["negative", "positive"]


def test_samples(opinions_run: Path) -> None:
    """The same five texts of the validation split each time."""
    held_out = {one.text: one.labels[0] for one in OPINIONS["val"]}
    seen = []
    for step in (5, 10):
        blocks = (opinions_run / f"samples/step_{step:08d}.txt").read_text().strip("\n").split("\n\n")
        assert len(blocks) == 5
        for block in blocks:
            lines = dict(line.split(maxsplit=1) for line in block.splitlines())
            assert list(lines) == ["text", "label", "prediction"]
            assert held_out[lines["text"]] == lines["label"]
            label, p = lines["prediction"].split("\t")
            assert label in ("negative", "positive")
            assert 0.5 <= float(p) <= 1
            seen.append(lines["text"])
    assert seen[:5] == seen[5:]


@pytest.mark.parametrize(
    "words",
    [
        BAG,
        (*BIRNN, "task.pooling=attention", "device.precision=bf16"),
        (*ENCODER, "task.pooling=first", "device.precision=bf16"),
        (*ENCODER, "model.positions=learned", "data.max_seq_len=6"),
        (*GPT, "task.pooling=last"),
        ("model=lstm", "model.hidden_size=6", "model.n_embd=8", "task.pooling=max"),
        ("model=gru", "model.hidden_size=6", "task.pooling=attention", "trainer.ema_decay=0.5"),
        (*CNN, "model.channels=multichannel", "task.label_smoothing=0.1", "data.batch_tokens=64"),
        (*CNN, "tokenizer=char", "trainer.accumulate=2"),
    ],
    ids=lambda words: "-".join(word.partition("=")[2] for word in words),
)  # fmt: skip
def test_every_model_trains(run_main: Main, words: tuple[str, ...]) -> None:
    """And classifies a text."""
    path = f"data.path={table()}"
    length = ("trainer.max_steps=30", "trainer.eval_every=30", "data.batch_size=16")
    run = train(run_main, "data=table", path, *words, *length)
    found = [loss for _, name, loss in losses(run) if name == "train/loss"]
    assert np.mean(found[-5:]) < 0.97 * np.mean(found[:5])
    ran = run_main("generate", f"run={run}", "text=the lamp was warm", *DEVICE)
    assert ran.code == 0, ran.err
    label, p = ran.out.rstrip("\n").split("\t")
    assert label in KINDS
    assert 1 / 3 < float(p) <= 1


@quickly
def test_the_highest_macro_f1_is_the_best(run_main: Main) -> None:
    """Not that of the lowest loss, which a high rate makes grow."""
    words = (
        "trainer.monitor=val/macro_f1",
        "trainer.eval_every=1",
        "trainer.max_steps=8",
        "optimizer.lr=0.3",
    )
    run = train(run_main, "data=table", f"data.path={table()}", *BAG, *words)
    scores = {step: value for step, name, value in losses(run) if name == "val/macro_f1"}
    best = max(scores, key=lambda step: scores[step])
    assert len(set(scores.values())) > 2
    monitor = read(run / "result.json")["monitor"]
    assert monitor == {"name": "val/macro_f1", "mode": "max", "best": scores[best], "step": best}
    assert state_of(run, "best")["step"] == best


# Going on


@quickly
@pytest.mark.parametrize("model", [CNN, BIRNN], ids=["textcnn", "birnn"])
def test_a_resumed_run_is_the_uninterrupted_one(run_main: Main, model: tuple[str, ...]) -> None:
    """With dropout, across the end of an epoch."""
    words = ("data=table", f"data.path={table(n=40)}", *model, "trainer.eval_every=3")
    whole = train(run_main, *words, "trainer.max_steps=12", name="whole")
    parts = train(run_main, *words, "trainer.max_steps=6", name="parts")
    assert losses(parts) == losses(whole)[: len(losses(parts))]
    ran = run_main("train", f"resume={parts}", "trainer.max_steps=12")
    assert ran.code == 0, ran.err
    assert losses(parts) == losses(whole)
    weights = [state_of(run)["model"] for run in (whole, parts)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@quickly
def test_frozen_parameters_do_not_move(run_main: Main) -> None:
    words = ("data=table", f"data.path={table()}", *BIRNN, "optimizer.weight_decay=0.1")
    first = train(run_main, *words, "trainer.max_steps=0", name="first")
    run = train(run_main, *words, "trainer.freeze=['embedding.*','layers.weight_hh*']", "trainer.max_steps=4")
    before, after = state_of(first)["model"], state_of(run)["model"]
    for name in before:
        frozen = name.startswith(("embedding.", "layers.weight_hh"))
        assert torch.equal(before[name], after[name]) == frozen, name


LANGUAGE_MODELS: dict[str, tuple[str, ...]] = {
    "gpt": GPT,
    "lstm": ("model=lstm", "model.hidden_size=8", "model.n_embd=8"),
}  # fmt: skip


@quickly
@pytest.mark.parametrize("model", LANGUAGE_MODELS)
def test_fine_tuning_a_language_model(run_main: Main, model: str) -> None:
    """Its vocabulary and weights are taken over; its head is newly made, with an output for each label."""
    text = Path("texts.txt")
    text.write_text("".join(f"the {thing} was {word}. " for thing in THINGS for word in KINDS["good"]) * 5)
    words = ("data=text", f"data.path={text}", "data.seq_len=16", "tokenizer=word", "trainer.max_steps=3")
    source = train(run_main, *LANGUAGE_MODELS[model], *words, name="source")
    own = ("task=classification", "data=table", f"data.path={table()}", "data.max_seq_len=12")
    run = train(run_main, f"init_from={source}", *own, "task.pooling=last", "trainer.max_steps=3")
    report = read(run / "manifest.json")["init_from"]
    heads = {"gpt": ["head.weight"], "lstm": ["head.bias", "head.weight"]}[model]
    assert report["new"] == sorted(report["other_shape"]) == heads
    old, new = (state_of(one, "last") for one in (source, run))
    assert new["preprocessor"]["tokenizers"] == old["preprocessor"]["tokenizers"]
    assert new["preprocessor"]["labels"] == sorted(KINDS)
    assert new["model"]["head.weight"].shape[0] == 3
    assert {name for name in old["model"] if new["model"][name].shape != old["model"][name].shape} == set(
        heads
    )
    assert 0 <= judge(run_main, run)["metrics"]["test/accuracy"] <= 1
    ran = run_main("train", f"resume={run}", "trainer.max_steps=4")
    assert ran.code == 0, ran.err
    assert state_of(run)["preprocessor"] == new["preprocessor"]


@quickly
def test_fine_tuning_a_classifier_on_other_labels_is_refused(run_main: Main) -> None:
    source = train(run_main, "data=table", f"data.path={table()}", *BAG, "trainer.max_steps=1")
    Path("other.csv").write_text("text,label\n" + "".join(f"t{n},{'xy'[n % 2]}\n" for n in range(40)))
    ran = run_main("train", f"init_from={source}", "data=table", "data.path=other.csv", *FAST)
    told = said_shortly(ran)
    assert "does not occur in training, which has bad, good, other" in told


# eval


def test_labels_in_a_second_file(run_main: Main, opinions_run: Path) -> None:
    Path("texts.txt").write_text("a fine film\na dull film\n", encoding="utf-8")
    labels = read(opinions_run / "manifest.json")["corpus"]["splits"]["train"]["labels"]
    Path("labels.txt").write_text("\n".join(sorted(labels)[:2]) + "\n", encoding="utf-8")
    ran = run_main(
        "eval", f"run={opinions_run}", "data.path=texts.txt", "data.label_path=labels.txt", *DEVICE
    )
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["texts"] == 2
    told = said_shortly(run_main("eval", f"run={opinions_run}", "data.label_path=labels.txt", *DEVICE))
    assert "data.label_path has the labels of the lines of data.path; give both" in told


def test_the_report_of_eval(run_main: Main, opinions_run: Path) -> None:
    """Against scikit-learn, on the predictions that it writes."""
    ran = run_main("eval", f"run={opinions_run}", *DEVICE)
    assert ran.code == 0, ran.err
    result = strict_json(ran.out)
    folder = only("outputs/eval/tiny/*")
    assert read(folder / "result.json") == result
    with (folder / "predictions.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    true, predicted = ([row[key] for row in rows] for key in ("true", "predicted"))
    confidence = np.array([float(row["probability"]) for row in rows])
    right = np.array(true) == np.array(predicted)
    assert true == [one.labels[0] for one in OPINIONS["test"]]
    n, names = len(true), ["negative", "positive"]
    report, details = result["classification"], result["details"]
    assert (result["split"], report["split"], report["texts"]) == ("test", "test", n)
    outcomes = from_bytes((folder / OUTCOMES).read_bytes())
    assert list(outcomes) == ["accuracy", "macro_f1"]
    for name, outcome in outcomes.items():
        assert outcome.value == pytest.approx(result["metrics"][f"test/{name}"], rel=1e-12)
    assert outcomes["accuracy"].values.tolist() == [[one, 1] for one in right]

    majority = Counter(one.labels[0] for one in OPINIONS["train"]).most_common(1)[0][0]
    expected = {
        "accuracy": sk.accuracy_score(true, predicted),
        "macro_f1": sk.f1_score(true, predicted, average="macro"),
        "weighted_f1": sk.f1_score(true, predicted, average="weighted"),
        "majority_accuracy": true.count(majority) / n,
        "majority_macro_f1": sk.f1_score(true, [majority] * n, average="macro"),
    }
    for name, value in expected.items():
        assert details[f"test/{name}"]["value"] == pytest.approx(value), name
        assert details[f"test/{name}"]["higher_is_better"] is True
        assert details[f"test/{name}"]["count"] == n
    for name in ("accuracy", "majority_accuracy", "tfidf_accuracy"):
        share = details[f"test/{name}"]["value"]
        assert details[f"test/{name}"]["interval"] == pytest.approx(wilson(round(share * n), n))
    assert details["test/tfidf_accuracy"]["value"] > 0.7 > details["test/majority_accuracy"]["value"]
    assert set(details) == {
        f"test/{name}"
        for name in (*expected, "loss", "calibration_error", "tfidf_accuracy", "tfidf_macro_f1")
    }
    assert all(details[name]["unit"] for name in details)
    assert not details["test/loss"]["higher_is_better"]
    assert not details["test/calibration_error"]["higher_is_better"]

    assert report["confusion"] == sk.confusion_matrix(true, predicted, labels=names).tolist()
    scores = sk.precision_recall_fscore_support(true, predicted, labels=names, zero_division=0)
    for number, row in enumerate(report["labels"]):
        found = [row[key] for key in ("precision", "recall", "f1", "support")]
        assert found == pytest.approx([float(score[number]) for score in scores])
    error = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            error += inside.sum() / n * abs(right[inside].mean() - confidence[inside].mean())
    assert details["test/calibration_error"]["value"] == pytest.approx(error, abs=1e-4)
    assert 1 / 20 < report["temperature"] < 20
    surest = sorted(confidence[~right], reverse=True)[:10]
    assert [one["probability"] for one in report["mistakes"]] == pytest.approx(surest, abs=1e-5)
    assert report["rejection"][0] == [1, pytest.approx(right.mean())]

    tables = {table["title"]: table for table in result["tables"]}
    assert list(tables) == [
        f"{n:,} texts by label", "true label (rows) and predicted label (columns)", "surest mistakes"
    ]  # fmt: skip
    assert [row[0] for row in tables[f"{n:,} texts by label"]["rows"]] == names
    assert "expected calibration error" in tables[f"{n:,} texts by label"]["caption"]
    for name in ("confusion", "reliability"):
        assert (folder / f"plots/{name}.png").is_file()


def test_the_validation_of_training_is_that_of_eval(run_main: Main, opinions_run: Path) -> None:
    result = judge(run_main, opinions_run, "split=val")
    trained = read(opinions_run / "result.json")["metrics"]
    assert result["classification"].get("temperature") is None
    for name, value in trained.items():
        assert result["metrics"][name] == pytest.approx(value, rel=1e-6)


@quickly
def test_several_labels_a_text(run_main: Main) -> None:
    words = (
        "data=table",
        f"data.path={table(separator=';')}",
        "data.multilabel=true",
        "data.label_separator=;",
    )
    run = train(
        run_main, *words, *CNN, "trainer.max_steps=60", "trainer.eval_every=30", "trainer.sample_tokens=9"
    )
    result = judge(run_main, run)
    report, metrics = result["classification"], result["metrics"]
    assert [one["label"] for one in report["labels"]] == sorted(KINDS)
    assert sum(one["support"] for one in report["labels"]) == 2 * report["texts"]
    assert metrics["test/majority_accuracy"] <= metrics["test/accuracy"] <= 1
    assert "test/tfidf_macro_f1" in metrics
    assert "confusion" not in report
    for name, one in from_bytes((only("outputs/eval/*/*") / OUTCOMES).read_bytes()).items():
        assert one.value == pytest.approx(metrics[f"test/{name}"], rel=1e-12)
    ran = run_main("generate", f"run={run}", "text=the lamp was warm and the book was dull", *DEVICE)
    assert ran.code == 0, ran.err
    (row,) = [json.loads(line) for line in only("outputs/generate/*/*/predictions.jsonl").open()]
    assert row["label"] == [name for name, p in row["probabilities"].items() if p > 0.5]
    assert ran.out.partition("\t")[0] == ", ".join(row["label"])


@quickly
def test_pairs_of_texts(run_main: Main) -> None:
    """The second text decides; samples and predictions read it too."""
    draw, rows = random.Random(0), ["first,second,label"]
    for _ in range(90):
        first, label = draw.choice(THINGS), draw.choice(["good", "bad"])
        rows.append(f"the {first},it was {draw.choice(KINDS[label])},{label}")
    Path("pairs.csv").write_text("\n".join(rows))
    words = ("data=table", "data.path=pairs.csv", "data.text=first", "data.text_pair=second")
    run = train(
        run_main, *words, *BAG, "trainer.max_steps=60", "trainer.eval_every=60", "trainer.sample_tokens=9"
    )
    assert judge(run_main, run)["metrics"]["test/accuracy"] > 0.9
    sample = (run / "samples/step_00000060.txt").read_text()
    for block in sample.strip("\n").split("\n\n"):
        lines = dict(line.split(maxsplit=1) for line in block.splitlines())
        assert lines["label"] == lines["prediction"].split("\t")[0]
    out, (row,) = generated(run_main, run, "text=the house\tit was clever")
    assert row["label"] == out.split("\t")[0] == "good"
    told = said_shortly(run_main("generate", f"run={run}", "text=the house", *DEVICE))
    assert "line 1: expected two texts with a tab between them" in told


@quickly
def test_texts_that_are_all_empty(run_main: Main) -> None:
    """No words for TF-IDF, which is said."""
    Path("empty.csv").write_text("text,label\n" + "".join(f'"",{"ab"[n % 3 > 0]}\n' for n in range(40)))
    run = train(run_main, "data=table", "data.path=empty.csv", *BAG, "trainer.max_steps=1")
    result = judge(run_main, run)
    assert "test/majority_accuracy" in result["metrics"]
    assert "test/tfidf_accuracy" not in result["metrics"]
    assert any("TF-IDF" in note for note in result["notes"])


@pytest.mark.parametrize("labels", [2, 25, 70])
def test_figures(labels: int) -> None:
    """With many labels, names that a plot could take for formulas, and a label that never occurs."""
    draw = np.random.default_rng(0)
    true, predicted = draw.integers(labels - 1, size=(2, 200))
    matrix = confusion_matrix(true, predicted, labels)
    names = [f"$_{n} & 50 %" for n in range(labels)]
    measured = calibration(draw.random(200), true == predicted)
    for figure in (confusion_figure(matrix, names, "val"), reliability_figure(measured, "a_$b")):
        save(figure, Path("some.png"))
        assert Path("some.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# generate


def generated(main: Main, run: Path, *words: str) -> tuple[str, list[dict[str, Any]]]:
    ran = main("generate", f"run={run}", *DEVICE, *words, "name=out")
    assert ran.code == 0, ran.err
    folder = max(Path("outputs/generate/out").iterdir())
    text = (folder / "predictions.jsonl").read_text(encoding="utf-8")
    return ran.out, [strict_json(line) for line in text.splitlines()]


def test_generate_classifies_texts(run_main: Main, opinions_run: Path) -> None:
    """Typed ones, and those of a file, as eval does."""
    out, (row,) = generated(run_main, opinions_run, "text=The film was awful , and long .")
    assert set(row) == {"line", "text", "label", "probabilities"}
    assert row["text"] == "The film was awful , and long ."
    assert set(row["probabilities"]) == {"negative", "positive"}
    assert math.fsum(row["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    best = max(row["probabilities"], key=lambda label: row["probabilities"][label])
    assert row["label"] == best
    assert out == f"{best}\t{row['probabilities'][best]:.4f}\n"

    judge(run_main, opinions_run)
    lines = (only("outputs/eval/tiny/*") / "predictions.tsv").read_text(encoding="utf-8").splitlines()[1:]
    Path("in.txt").write_text("\n".join(one.text for one in OPINIONS["test"]) + "\n", encoding="utf-8")
    out, rows = generated(run_main, opinions_run, "input=in.txt")
    assert [row["line"] for row in rows] == list(range(1, len(lines) + 1))
    for line, row, printed in zip(lines, rows, out.splitlines(), strict=True):
        _, label, p = line.split("\t")
        assert (row["label"], row["probabilities"][label]) == (label, pytest.approx(float(p), abs=1e-5))
        assert printed == f"{label}\t{row['probabilities'][label]:.4f}"


def test_a_pipe_and_an_empty_line(seqexp: Any, opinions_run: Path) -> None:
    words = ("generate", f"run={opinions_run}", "device.threads=1", "output=out.txt", "name=out")
    done = seqexp(*words, input="The film was dull .\n\nUnknown wörds 🦉\n")
    assert done.returncode == 0, done.stderr
    lines = Path("out.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert all(line.split("\t")[0] in ("negative", "positive") for line in lines)
    assert "line 2: empty text" in done.stderr
    rows = [
        json.loads(line) for line in only("outputs/generate/out/*/predictions.jsonl").open(encoding="utf-8")
    ]
    assert [row["text"] for row in rows] == ["The film was dull .", "", "Unknown wörds 🦉"]
    assert rows[1]["note"] == "empty text"


@quickly
def test_long_texts_are_read_as_eval_reads_them(run_main: Main) -> None:
    """Cut after data.max_seq_len, also for a model without a window."""
    words = ("data=table", f"data.path={table()}", "data.max_seq_len=5", "trainer.max_steps=20")
    run = train(run_main, *words, *BAG)
    Path("in.txt").write_text("the lamp was old\nthe lamp was old and the book was dull\nthe lamp was\n")
    _, rows = generated(run_main, run, "input=in.txt")
    assert rows[0]["probabilities"] == rows[1]["probabilities"] == pytest.approx(rows[2]["probabilities"])


def test_white_space_is_read_as_training_reads_it(run_main: Main, opinions_run: Path) -> None:
    _, (plain,) = generated(run_main, opinions_run, "text=The film was dull .")
    Path("in.txt").write_text("  The film\twas  dull .  \n")
    _, (wide,) = generated(run_main, opinions_run, "input=in.txt")
    assert wide["probabilities"] == plain["probabilities"]


# Mistakes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model=nmt",), "model=nmt is of kind encoder_decoder, and task=classification, which data"),
        (("model=textcnn", "task.pooling=max"), "task.pooling=max has no effect on model=textcnn"),
        (("model=birnn", "task.pooling=median"), "task.pooling"),
        (("exams=all",), "exams=all is for task=language_modeling, masked_language_modeling; this is"),
        (("tokenizer=bits",), "tokenizer=bits cannot read data=opinions"),
        (("task=language_modeling",), "task=language_modeling reads text, and data=opinions gives labelled"),
        (("data=parity", "task=classification"), "task=classification reads labelled text, and data=parity"),
        (("trainer.monitor=val/bleu",), "trainer.monitor=val/bleu"),
        (("model=textcnn", "model.widths=[]"), "model.widths=[] has no filters"),
        (("model=textcnn", "model.channels=two"), "model.channels"),
        (("data.path=some.csv",), "data=opinions needs no file; for your own texts use data=table"),
        (("task.label_smoothing=1",), "task.label_smoothing"),
        (("model=bert", "model.max_len=20"),
         "model.max_len=20 is shorter than data.max_seq_len=60"),
        (("data=table", "data.path=some.csv", "data.multilabel=true", "task.label_smoothing=0.1"),
         "task.label_smoothing is for one label a text, and data.multilabel=true"),
    ],
)  # fmt: skip
def test_mistakes_with_train(run_main: Main, words: tuple[str, ...], told: str) -> None:
    own = () if any(word.startswith("data=") for word in words) else ("data=opinions",)
    assert told in said_shortly(run_main("train", *own, *words, *DEVICE))


@quickly
def test_an_encoder_without_learned_positions_has_no_window(run_main: Main) -> None:
    words = ("model.positions=rotary", "model.max_len=2", "trainer.max_steps=0")
    train(run_main, "data=opinions", *ENCODER, *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("eval", "score=true"), "score= is not available for the task of this run"),
        (("eval", "exams=all"), "exams=all is for task=language_modeling"),
        (("eval", "split=dev"), "split=dev does not exist; choose from train, val, test"),
        (("eval", "data.lengths=[3]"), "data.lengths=: the data of this run has no such setting"),
        (("generate", "prompt=a"), "prompt= is not what the task of this run reads: give its input as text="),
        (("generate", "text=a", "attention=a.png"), "explain=attention needs a run that was trained"),
    ],
)  # fmt: skip
def test_mistakes_with_eval_and_generate(
    run_main: Main, opinions_run: Path, words: tuple[str, ...], told: str
) -> None:
    assert told in said_shortly(run_main(words[0], f"run={opinions_run}", *words[1:], *DEVICE))


def test_settings_of_generation_have_no_effect(run_main: Main, opinions_run: Path) -> None:
    ran = run_main("generate", f"run={opinions_run}", "text=a", "generation.beam_size=3", *DEVICE)
    assert ran.code == 0
    note = next(line for line in ran.err.splitlines() if line.startswith("NOTE"))
    assert note.startswith("NOTE: generation.beam_size=3 has no effect on task=classification")
    assert read(only("outputs/generate/*/*/manifest.json"))["without_effect"] == [note.removeprefix("NOTE: ")]
