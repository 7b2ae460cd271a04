"""Word embeddings from the command line: train, eval, generate, export, and vectors for another model."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Ran
from test_word2vec import make_topics

from seqexp.data.vectors import read_vectors
from seqexp.tasks.word_maps import project

Main = Callable[..., Ran]

TRAIN = (
    "train", "model=word2vec", "data=text", "data.path=topics.txt", "model.n_embd=8", "model.window=3",
    "model.sample=0", "data.seq_len=9", "data.batch_size=60", "trainer.max_steps=60", "trainer.eval_every=30",
    "optimizer.lr=0.05", "device.threads=1",
)  # fmt: skip


def run_folder(command: str = "train") -> Path:
    return sorted(Path("outputs", command).glob("*/*"))[-1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, lists of questions, and a run."""
    from conftest import _main

    folder = tmp_path_factory.mktemp("embeddings")
    make_topics(folder / "topics.txt", 800)
    (folder / "q.txt").write_text(
        ": topics\n" + "".join(f"a{i} b{i} a{j} b{j}\n" for i in range(8) for j in range(8) if i != j)
        + ": few\nx y a1 b1\na1 a2 unseen a4\n"
    )  # fmt: skip
    pairs = [(f"a{i}", f"{'ab'[i % 2]}{i + 1}", i % 2) for i in range(11)] * 3
    (folder / "s.txt").write_text("".join(f"{one} {two} {1 - score}\n" for one, two, score in pairs))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SEQEXP_DATA", raising=False)
        patch.setenv("SEQEXP_CACHE", str(folder / "cache"))
        ran = _main(*TRAIN, "task.analogies=q.txt", "task.similarities=s.txt")
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def test_a_training_run(there: Path) -> None:
    (folder,) = Path("outputs/train").glob("word2vec_text/*")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["updates"].startswith(("compiled by numba", "PyTorch, "))
    assert manifest["reproducible"] is True
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    assert losses[-1] < losses[0] < 6 * np.log(2)
    assert not any("train/grad_norm" in row for row in rows)
    sample = next((folder / "samples").iterdir()).read_text()
    assert ": " in sample


def test_an_evaluation(there: Path, run_main: Main) -> None:
    ran = run_main("eval", "device.threads=1")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    metrics = result["metrics"]
    # 56 questions of the large category, and two of the small one, of which one is covered.
    assert result["details"]["val/analogies"]["count"] == 57
    topics, few = result["analogies"]["categories"]
    assert (topics["covered"], topics["enough"], few["covered"], few["enough"]) == (56, True, 1, False)
    assert {"val/loss", "val/analogies_cosmul", "val/ppmi_analogies"} <= set(metrics)
    # Words of one topic are alike, and those of two are not.
    assert metrics["val/similarity_s"] > 0.5
    low, high = result["details"]["val/similarity_s"]["interval"]
    assert low < metrics["val/similarity_s"] < high
    assert result["similarities"][0]["ppmi"] > 0.5
    assert len(result["neighbours"]) >= 1
    titles = [table["title"] for table in result["tables"]]
    assert any("analogies among the" in title for title in titles)
    (small,) = [row for row in result["tables"][0]["rows"] if row[0] == "few"]
    assert small[3] == "too few"


def test_an_evaluation_on_other_text_has_no_baseline(there: Path, run_main: Main) -> None:
    ran = run_main("eval", "data.path=topics.txt", "device.threads=1")
    assert ran.code == 0, ran.err
    assert "no baseline: the training text is not at hand" in ran.err
    result = json.loads(ran.out)
    assert "all/analogies" in result["metrics"]
    assert "all/ppmi_analogies" not in result["metrics"]


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("x", lambda out: len(out.splitlines()) == 4 and all("\t" in line for line in out.splitlines())),
        ("a1 - a2 + b2", lambda out: len(out.splitlines()) == 4 and "a1\t" not in out),
        ("a1 a2", lambda out: -1 <= float(out) <= 1),
        ("a1, a2, a3, a4, b5", lambda out: out == "b5\n"),
    ],
)
def test_questions(there: Path, run_main: Main, text: str, check: Callable[[str], bool]) -> None:
    ran = run_main("generate", f"text={text}", "generation.neighbours=4", "device.threads=1")
    assert ran.code == 0, ran.err
    assert check(ran.out), ran.out


def test_a_file_of_questions(there: Path, run_main: Main) -> None:
    Path("asked.txt").write_text("x\na1 - b1 + b2\n")
    ran = run_main("generate", "input=asked.txt", "generation.neighbours=2", "generation.analogy=cosmul")
    assert ran.code == 0, ran.err
    rows = [
        json.loads(line) for line in (run_folder("generate") / "predictions.jsonl").read_text().splitlines()
    ]
    assert [row["text"] for row in rows] == ["x", "a1 - b1 + b2"]
    assert [len(row["answers"]) for row in rows] == [2, 2]


@pytest.mark.slow
def test_vectors_go_out_and_in(there: Path, run_main: Main) -> None:
    for name in ("v.txt", "v.bin", "v.npy"):
        ran = run_main("export", f"output={name}")
        assert ran.code == 0, ran.err
        assert f"wrote {name}" in ran.err
    words = Path("v.words.txt").read_text().split()
    vectors = np.load("v.npy")
    for name in ("v.txt", "v.bin"):
        found = read_vectors(name, set(words))
        np.testing.assert_array_equal([found[word] for word in words], vectors)
    (run,) = Path("outputs/train").glob("word2vec_text/*")
    Path("labelled.csv").write_text("text,label\n" + "a1 a2 x,one\nb1 b2 z,two\n" * 30)
    ran = run_main(
        "train", "data=table", "data.path=labelled.csv", "model=textcnn", "model.n_embd=8",
        "model.n_filter=2", "model.widths=[2]", f"model.vectors={run}", "trainer.max_steps=1",
        "trainer.eval_every=1", "device.threads=1", "name=classifier", "trainer.sample_tokens=0",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    manifest = json.loads(next(Path("outputs/train/classifier").glob("*/manifest.json")).read_text())
    assert Path(manifest["vectors"]["run"]).samefile(run)
    assert manifest["vectors"]["covered"] == 6
    (other,) = Path("outputs/train").glob("classifier/*")
    # The latest run of word vectors, which is not the latest run.
    ran = run_main(
        "train", "data=table", "data.path=labelled.csv", "model=textcnn", "model.n_embd=8",
        "model.vectors=latest", "trainer.max_steps=0", "device.threads=1", "name=latest",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    manifest = json.loads(next(Path("outputs/train/latest").glob("*/manifest.json")).read_text())
    assert Path(manifest["vectors"]["run"]).samefile(run)
    ran = run_main("train", "data=opinions", "model=textcnn", f"model.vectors={other}", "device.threads=1")
    assert (ran.code, "has no word vectors; give a run of word embeddings, or a file" in ran.err) == (
        2,
        True,
    ), ran.err
    ran = run_main("export", f"run={other}", "output=v.txt")
    assert (ran.code, "has nothing to export" in ran.err) == (2, True), ran.err


def test_maps_of_words(there: Path, run_main: Main) -> None:
    """Pictures are what they say; the page shows each word once and asks nothing of a network."""
    (run,) = Path("outputs/train").glob("word2vec_text/*")
    begins = {"map.png": b"\x89PNG", "map.svg": b"<?xml", "map.html": b"<!doctype html>"}
    for name, first in begins.items():
        ran = run_main("export", f"run={run}", f"output={name}", "count=20", "projection=pca")
        assert ran.code == 0, ran.err
        assert Path(name).read_bytes().startswith(first)
    page = Path("map.html").read_text()
    points = json.loads(re.search(r"const points = (.*);", page)[1])  # type: ignore[index]
    assert len({point["w"] for point in points}) == len(points) == 20
    assert not re.search(r"(src|href)=|@import|url\(", page)
    ran = run_main("export", f"run={run}", "output=shown", "format=projector", "words=[a1,b1,x]")
    assert ran.code == 0, ran.err
    assert Path("shown/metadata.tsv").read_text().split() == ["a1", "b1", "x"]
    rows = [line.split("\t") for line in Path("shown/tensors.tsv").read_text().splitlines()]
    assert [len(row) for row in rows] == [8, 8, 8]
    assert (run_main("export", f"run={run}", "output=v.txt")).code == 0
    np.testing.assert_allclose(np.array(rows[0], float), read_vectors("v.txt", {"a1"})["a1"], rtol=1e-4)
    for words, message in (
        (("output=map.png", "words=[a1,nowhere,x]"), "'nowhere' is not in the vocabulary"),
        (("output=map.png", "words=[a1,x]"), "a map of 2 words says nothing"),
        (("output=map.png", "projection=umap"), "projection=umap"),
    ):
        ran = run_main("export", f"run={run}", *words)
        assert (ran.code, message in ran.err, ran.err.count("\n")) == (2, True, 1), ran.err


@pytest.mark.slow
def test_tsne_keeps_groups_apart_and_repeats() -> None:
    draw = np.random.default_rng(0)
    vectors = np.repeat(np.eye(3, 8), 20, axis=0) + draw.normal(0, 0.1, (60, 8))
    places = project(vectors.astype(np.float32), "tsne", 1)
    np.testing.assert_array_equal(places, project(vectors.astype(np.float32), "tsne", 1))
    near = np.argsort(np.linalg.norm(places[:, None] - places, axis=2), axis=1)[:, 1]
    assert (near // 20 == np.arange(60) // 20).all()


def test_principal_components_are_those_of_the_svd() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(units - units.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(project(vectors, "pca", 1)), np.abs(left * values)[:, :2], atol=1e-5)


def test_vectors_of_a_file_are_judged_as_those_of_a_run(there: Path, run_main: Main) -> None:
    """The same scores as of the run that they come from, and other lists than those of the run."""
    Path("groups").mkdir(exist_ok=True)
    Path("groups/letters.txt").write_text("a1\na2\na3\na4\n\nb5\nb6\nunseen\n")
    (run,) = Path("outputs/train").glob("word2vec_text/*")
    assert run_main("export", f"run={run}", "output=w.txt").code == 0
    lists = ("lists.outliers=groups", "lists.similarities=s.txt")
    found = []
    for words in ((f"run={run}",), ("vectors=w.txt",)):
        ran = run_main("eval", *words, *lists, "lists.analogies=q.txt", "device.threads=1")
        assert ran.code == 0, ran.err
        found.append(json.loads(ran.out))
    of_run = {name.removeprefix("val/"): value for name, value in found[0]["metrics"].items()}
    assert {"analogies", "similarity_s", "outliers"} <= set(found[1]["metrics"])
    assert all(of_run[name] == pytest.approx(value) for name, value in found[1]["metrics"].items())
    assert found[1]["outliers"]["groups"][0]["found"] == [True, True]
    assert len(list(Path("outputs/eval/w").iterdir())) == 1
    for words, message in (
        (("vectors=w.txt", "split=test"), "split= is for the evaluation of a run"),
        (("vectors=absent.txt",), "absent.txt is not a file"),
        (("vector_words=w.txt",), "vector_words=w.txt goes with vectors=<file>.npy"),
        (("vectors=w.txt", "lists.outliers=s.txt"), "an empty line, and words that do not belong"),
    ):
        ran = run_main("eval", *words)
        assert (ran.code, message in ran.err, ran.err.count("\n")) == (2, True, 1), ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("generate", "text=a11 - nowhere + b1"), "'nowhere' is not in the vocabulary"),
        (("generate", "text=a1 +"), "write one word, a pair, or words with signs: king - man + woman"),
        (("export", "output=v.csv"), "or end the name of the file in .txt, .vec, .bin, .npy"),
        (("export", "output=nowhere/v.txt"), "no folder nowhere; make it first"),
        (("export",), "output was not given"),
    ],
)
def test_mistakes_are_one_line(there: Path, run_main: Main, words: tuple[str, ...], message: str) -> None:
    (run,) = Path("outputs/train").glob("word2vec_text/*")
    ran = run_main(words[0], f"run={run}", *words[1:])
    assert (ran.code, message in ran.err, ran.err.count("\n")) == (2, True, 1), ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.carry_state=true",), "data.carry_state=True is for language models"),
        (("model.impl=compiled", "optimizer.momentum=0.5"), "optimizer.momentum=0.5 was given"),
        (("model.impl=plain", "model.workers=2"), "model.workers=2 is for model.impl=compiled"),
        (("tokenizer.min_count=100000",), "the vocabulary has 0 words"),
        (("model.n_embd=0",), "model.n_embd=0 is out of range"),
        (("model=gpt", "tokenizer=bare_word"), "tokenizer=bare_word leaves out parts of the text"),
        (
            ("model=word2vec", "data=opinions"),
            "model=word2vec is of kind word_vectors, and task=classification, which data=opinions is for,",
        ),
    ],
)
def test_what_does_not_fit(there: Path, run_main: Main, words: tuple[str, ...], message: str) -> None:
    alone = ("train", "data=text", "data.path=topics.txt")
    ran = run_main(
        *(alone if "model=gpt" in words else ("train",) if "data=opinions" in words else TRAIN), *words
    )
    assert (ran.code, message in ran.err, ran.err.count("\n")) == (2, True, 1), ran.err
