"""Pretrained word vectors: their files, and what a model takes from them."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ran
from safetensors.torch import load_file

from seqexp.data.vectors import read_vectors, write_vectors
from seqexp.errors import UserError
from seqexp.tokenizers.ngrams import fnv1a, ngrams

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


# Writing


@pytest.mark.parametrize(
    ("name", "form"),
    [("v.txt", None), ("v.vec", None), ("v.bin", None), ("v.npy", None), ("v.glove", "glove")],
)
def test_what_is_written_is_read(tmp_path: Path, name: str, form: str | None) -> None:
    """To the last bit, in every form."""
    target = tmp_path / name
    files = write_vectors(target, WORDS, ROWS, form)
    words = str(files[1]) if len(files) > 1 else None
    found = read_vectors(str(target), set(WORDS), words)
    np.testing.assert_array_equal([found[word] for word in WORDS], ROWS)


@pytest.mark.parametrize(("name", "binary_form"), [("v.txt", False), ("v.bin", True)])
def test_gensim_reads_what_is_written(tmp_path: Path, name: str, binary_form: bool) -> None:
    models = pytest.importorskip("gensim.models")
    write_vectors(tmp_path / name, WORDS, ROWS)
    found = models.KeyedVectors.load_word2vec_format(str(tmp_path / name), binary=binary_form)
    assert found.index_to_key == list(WORDS)
    np.testing.assert_array_equal(found.vectors, ROWS)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"word2vec_binary, glove, npy; or end .* in \.txt, \.vec, \.bin, \.npy"
    ):
        write_vectors(tmp_path / "v.csv", WORDS, ROWS)
    with pytest.raises(UserError, match="'a b' holds white space"):
        write_vectors(tmp_path / "v.txt", ["a b"], ROWS[:1])
    assert not list(tmp_path.iterdir())


# Facebook's binary files


def fasttext_file(
    words: tuple[str, ...] = WORDS, buckets: int = 7, version: int = 12, quantised: bytes = b"\0"
) -> tuple[bytes, np.ndarray]:
    """A file of version 12 as its authors' code writes it, with a label; and its matrix."""
    matrix = np.random.default_rng(1).normal(size=(len(words) + buckets, 3)).astype(np.float32)
    head = struct.pack("<2i", 793712314, version)
    head += struct.pack("<12id", 3, 5, 1, 1, 5, 1, 2, 2, buckets, 2, 3, 100, 1e-4)
    head += struct.pack("<3i2q", len(words) + 1, len(words), 1, 100, -1)
    for word in words:
        head += word.encode() + b"\0" + struct.pack("<qb", 10, 0)
    head += b"__label__x\0" + struct.pack("<qb", 10, 1)
    body = quantised + struct.pack("<2q", *matrix.shape) + matrix.tobytes() + b"\0"
    return head + body, matrix


def test_fasttext_gives_known_and_unknown_words(tmp_path: Path) -> None:
    data, matrix = fasttext_file()
    (tmp_path / "v.bin").write_bytes(data)
    found = read_vectors(str(tmp_path / "v.bin"), {"über", "unseen", "__label__x"})
    for word, own in (("über", [3]), ("unseen", [])):
        rows = [*own, *(5 + fnv1a(one) % 7 for one in ngrams(word, 2, 3))]
        np.testing.assert_allclose(found[word], matrix[rows].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 11}, "of version 11; version 12 can be read"),
        ({"quantised": b"\1"}, "is quantised and cannot be read"),
        ({"words": ("w" * 20_000,)}, "word 1 of 2 is too long"),
    ],
)
def test_fasttext_files_that_cannot_be_read(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "v.bin").write_bytes(fasttext_file(**change)[0])
    with pytest.raises(UserError, match=message):
        read_vectors(str(tmp_path / "v.bin"), {"the"})


def test_every_cut_of_a_fasttext_file_is_refused(tmp_path: Path) -> None:
    data, matrix = fasttext_file()
    for size in range(4, len(data) - 1):
        (tmp_path / "v.bin").write_bytes(data[:size])
        with pytest.raises(UserError, match=r"v\.bin"):
            read_vectors(str(tmp_path / "v.bin"), {"the"})
    damaged = bytearray(data)
    damaged[8 : 8 + 4] = struct.pack("<i", 2**31 - 1)  # the width
    (tmp_path / "v.bin").write_bytes(damaged)
    with pytest.raises(UserError, match="not plausible"):
        read_vectors(str(tmp_path / "v.bin"), {"the"})
    assert len(matrix) == 12


def test_fasttext_is_read_as_its_authors_and_gensim_do(tmp_path: Path) -> None:
    fasttext = pytest.importorskip("fasttext")
    models = pytest.importorskip("gensim.models.fasttext")
    (tmp_path / "text").write_text("the über film is not dull and the naïve film is good\n" * 50)
    model = fasttext.train_unsupervised(
        str(tmp_path / "text"), dim=6, minCount=1, epoch=2, bucket=50, thread=1, verbose=0
    )
    model.save_model(str(tmp_path / "v.bin"))
    theirs = models.load_facebook_vectors(str(tmp_path / "v.bin"))
    words = [*model.get_words(), "unseen", "films", "東京"]
    found = read_vectors(str(tmp_path / "v.bin"), set(words))
    inputs = model.get_input_matrix()
    for word in words:
        own = inputs[model.get_subwords(word)[1]].mean(0)
        np.testing.assert_allclose(found[word], own, atol=1e-5)
        if word != "</s>":  # which gensim gives n-grams
            np.testing.assert_allclose(found[word], theirs[word], atol=1e-5)


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
