"""Pretrained word vectors: their files, and what a model takes from them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Ran
from safetensors.torch import load_file

from seqexp.data.vectors import read_vectors
from seqexp.errors import UserError

Main = Callable[..., Ran]

WORDS = ("the", "Film", "dull", "über", "good")
ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
TINY = (
    "data=opinions", "model=textcnn", "model.n_embd=3", "model.n_filter=2", "model.widths=[2]",
    "trainer.max_steps=2", "device.threads=1", "trainer.sample_tokens=0",
)  # fmt: skip


def glove() -> bytes:
    rows = zip(WORDS, ROWS, strict=True)
    return "".join(f"{word} {' '.join(map(repr, map(float, row)))}\n" for word, row in rows).encode()


def word2vec() -> bytes:
    return b"5 3\n" + glove()


def binary(after: bytes) -> bytes:
    rows = zip(WORDS, ROWS, strict=True)
    return b"5 3\n" + b"".join(word.encode() + b" " + row.tobytes() + after for word, row in rows)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("glove.txt", glove()),
        ("glove.txt.gz", gzip.compress(glove())),
        ("word2vec.txt", word2vec()),
        ("vectors.bin", binary(b"\n")),  # word2vec's own program
        ("vectors.bin", binary(b"")),  # gensim's
    ],
)
def test_the_forms_of_files(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    found = read_vectors(str(tmp_path / name), {"über", "dull", "absent"})
    assert set(found) == {"über", "dull"}
    np.testing.assert_array_equal(found["über"], ROWS[3])
    np.testing.assert_array_equal(found["dull"], ROWS[2])


def test_an_array_beside_its_words(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", ROWS)
    (tmp_path / "words.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    found = read_vectors(str(tmp_path / "v.npy"), {"Film"}, str(tmp_path / "words.txt"))
    np.testing.assert_array_equal(found["Film"], ROWS[1])
    with pytest.raises(UserError, match=r"model\.vector_words"):
        read_vectors(str(tmp_path / "v.npy"), {"Film"})
    (tmp_path / "words.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"shape \(5, 3\).*1 words"):
        read_vectors(str(tmp_path / "v.npy"), {"Film"}, str(tmp_path / "words.txt"))
    np.save(tmp_path / "v.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(UserError, match="not an array of numbers"):
        read_vectors(str(tmp_path / "v.npy"), {"Film"}, str(tmp_path / "words.txt"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"the 1 2 3\nfilm 1 2\n", "line 2: expected a word and 3 numbers"),
        (b"the 1 2 3\nfilm 1 x 3\n", "line 2: could not convert"),
        (b"the 1 2 3\nfilm 1 nan 3\n", "line 2: a number is not finite"),
        (b"word\n", "line 1: expected a word and its vector"),
        (b"", "line 1: expected a word and its vector"),
        (b"5 999999999\n", "not plausible"),
        (b"5 0\n", "not plausible"),
        (b"2 3\nthe " + ROWS[0].tobytes() + b"film " + ROWS[1].tobytes()[:5], "vector 2 of 2 is cut off"),
        (b"2 3\nthe " + ROWS[0].tobytes(), "vector 2 of 2 has no word"),
    ],
)
def test_malformed_files(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "v").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_vectors(str(tmp_path / "v"), {"the", "film"})


def test_a_model_takes_its_words(run_main: Main) -> None:
    """Known words have their vectors, in lower case if need be; a static channel never moves."""
    Path("v.txt").write_text("the 1 2 3\nfilm 4 5 6\n")
    ran = run_main("train", *TINY, "model.channels=multichannel", "model.vectors=v.txt")
    assert ran.code == 0, ran.err
    (run,) = Path("outputs/train").glob("*/*")
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["vectors"]["covered"] == 3  # the, The, film
    assert manifest["vectors"]["words"] > 50
    weights = load_file(next(run.glob("checkpoints/step_*.safetensors")))
    static = weights["embeddings.static.weight"].tolist()
    assert static.count([1, 2, 3]) == 2
    assert static.count([4, 5, 6]) == 1
    others = torch.tensor([row for row in static if row not in ([1, 2, 3], [4, 5, 6])])
    # Uniform with the variance of the vectors, 2/3.
    assert 0.55 < float(others.var()) < 0.8
    assert float(others.abs().max()) <= 2**0.5
    assert not torch.equal(weights["embeddings.static.weight"], weights["embeddings.trained.weight"])
    again = run_main("eval", "device.threads=1")
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model.vectors=v.txt", "model.n_embd=5"), "vectors of 3 numbers; use model.n_embd=3"),
        (("model.vectors=none.txt",), "none.txt is not a file"),
        (("model.vectors=other.txt",), "has none of the"),
        (("model.vectors=v.txt", "model.vector_words=v.txt"), "has its words inside"),
        (("model.vector_words=v.txt",), "model.vector_words"),
    ],
)
def test_mistakes_are_one_line(run_main: Main, words: tuple[str, ...], message: str) -> None:
    Path("v.txt").write_text("the 1 2 3\nfilm 4 5 6\n")
    Path("other.txt").write_text("zebra 1 2 3\n")
    ran = run_main("train", *TINY, *words)
    assert ran.code == 2
    assert message in ran.err.splitlines()[-1]
