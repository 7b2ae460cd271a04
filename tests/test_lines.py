"""From bytes to text: packed files, encodings, line ends; the same for corpora, pairs, prompts and exams."""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Ran, make_book
from hypothesis import given
from hypothesis import strategies as st

from seqexp.data import unpack as unpack_module
from seqexp.data.lines import read_text, split_lines
from seqexp.data.pairs import read_pairs
from seqexp.data.sources import find_files, read_document
from seqexp.data.text import read_corpus
from seqexp.errors import UserError
from seqexp.exams.reading import read_exams
from seqexp.files import as_utf8

Main = Callable[..., Ran]

BOOK = make_book(5000).encode()


def write(name: str, content: bytes | str) -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def zipped(content: bytes, name: str = "inside.txt", **others: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        for other, data in others.items():
            archive.writestr(other, data)
    return buffer.getvalue()


def tar(content: bytes, mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        about = tarfile.TarInfo("book.txt")
        about.size = len(content)
        archive.addfile(about, io.BytesIO(content))
    return buffer.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "two gzips": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
}


# Packed files


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_files_are_read_wherever_files_are(packer: str) -> None:
    """Known by their first bytes, whatever their names."""
    pack, text = PACKERS[packer], BOOK.decode()
    file = write("book.txt", pack(BOOK))
    assert "".join(read_document(file).pieces()) == text
    assert read_text(file).text == read_text(file.read_bytes()).text == text
    plain = write("plain.txt", BOOK)
    assert read_corpus([file], "here", None).sha256 == read_corpus([plain], "here", None).sha256
    tabs = "".join(f"source {n}\ttarget {n}\n" for n in range(12)).encode()
    pairs = [read_pairs([write("pairs.tsv", data)], None).pairs for data in (tabs, pack(tabs))]
    assert pairs[0] == pairs[1]
    exam_file = "exam.txt" if packer == "zip" else "exam.csv"
    (exam,) = read_exams(str(write(exam_file, pack(b"the cat sits,the cat sit\n"))), ("grammar",))
    assert (exam.pairs[0].good, exam.pairs[0].bad) == ("the cat sits", "the cat sit")


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("cut", [0.5, 0.98])
def test_a_packed_file_that_is_cut_off(packer: str, cut: float) -> None:
    data = PACKERS[packer](os.urandom(4000).hex().encode())
    file = write("book.txt", data[: int(cut * len(data))])
    with pytest.raises(UserError, match=r"^book\.txt cannot be read \("):
        read_document(file)
    with pytest.raises(UserError, match=r"^book\.txt cannot be read \("):
        read_text(file)


@pytest.mark.parametrize("packer", PACKERS)
def test_no_more_is_unpacked_than_allowed(packer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("book.txt", PACKERS[packer](BOOK))
    for allowed, works in ((len(BOOK), True), (len(BOOK) - 1, False)):
        monkeypatch.setattr(unpack_module, "LARGEST_UNPACKED_BYTES", allowed)
        for read in (
            lambda: read_document(file),
            lambda: read_text(file),
            lambda: read_text(file.read_bytes()),
        ):
            if works:
                read()
            else:
                with pytest.raises(UserError, match="unpacks to more than"):
                    read()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (tar(BOOK, "w"), "a tar archive"),
        (tar(BOOK, "w:gz"), "a tar archive"),
        (tar(BOOK, "w:xz"), "a tar archive"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 50, "a zstd archive"),
        (b"%PDF-1.7\n" + BOOK, "a PDF document"),
    ],
)
def test_other_archives_are_refused_by_name(content: bytes, kind: str) -> None:
    file = write("book.txt", content)
    for read in (lambda: read_document(file), lambda: read_text(content), lambda: read_pairs([file], None)):
        with pytest.raises(UserError, match=f"is {kind}, which is not read; unpack it"):
            read()
    with pytest.raises(UserError, match="which is not read"):
        read_exams("book.txt", ("grammar",))


def test_members_of_a_zip_that_are_not_used_are_told() -> None:
    others = {"b.txt": b"short", "read.me": b"x", "c.csv": b"y", "d.csv": b"z"}
    file = write("books.zip", zipped(BOOK, "A.TXT", **others, **{"__MACOSX/._a.txt": b"w" * 9999}))
    document = read_document(file)
    assert document.notes == ("books.zip: only A.TXT is read, not b.txt, read.me, c.csv and 1 more",)
    assert read_text(file).notes == document.notes
    with pytest.raises(UserError, match=r"holds no \.txt or \.tsv file"):
        read_document(write("none.zip", zipped(BOOK, "book.md")))


# Encodings


@pytest.mark.parametrize("bad", [b"\xff", b"\xe9", b"\x92", b"\xc3"])
def test_one_bad_byte_does_not_change_the_rest(bad: bytes) -> None:
    assert not BOOK.isascii()
    at = BOOK.index("Zoë".encode())
    file = write("book.txt", BOOK[:at] + bad + BOOK[at:])
    document, text = read_document(file), BOOK.decode()
    expected = text.replace("Zoë", "\ufffdZoë", 1)
    assert "".join(document.pieces()) == read_text(file).text == expected
    line = BOOK[:at].count(b"\n") + 1
    note = f"book.txt: 1 byte is not UTF-8 (byte {at:,}, line {line}); read as U+FFFD"
    assert document.notes == read_text(file).notes == (note,)
    assert read_text(file).damaged_lines == {line}
    with pytest.raises(UserError, match=r"is not utf-8 text"):
        read_document(file, "utf-8")


def test_the_positions_of_many_bad_bytes() -> None:
    """On both sides of the borders of chunks, where characters come in two halves."""
    data = bytearray("é€😀 plain text of some length\n".encode() * 100_000)
    positions = []
    for near in ((1 << 20) - 9, (1 << 20) + 9, 1 << 21, 3_000_000):
        at = next(at for at in range(near, near + 50) if data[at] < 0x80 and data[at] != ord("\n"))
        data[at] = 0xFF
        positions.append(f"byte {at:,}, line {data[:at].count(10) + 1:,}")
    form = read_text(bytes(data)).form
    assert (form.encoding, form.bad_bytes) == ("utf-8", 4)
    assert form.bad_at == "; ".join([*positions[:3], "…"])


def test_latin_1_is_still_latin_1() -> None:
    text = "Où est le café ? Là-bas, près de la forêt.\n" * 50
    document = read_document(write("course.txt", text.encode("latin-1")))
    assert "".join(document.pieces()) == text
    assert document.form.guessed
    assert "byte 1, line 1; byte 13, line 1; byte 18, line 1; …" in document.notes[0]
    # Of English with a single accent that is the more useful reading, too.
    english = read_document(write("english.txt", b"plain words " * 500 + b"caf\xe9"))
    assert "".join(english.pieces()).endswith("café")
    # A byte that is nothing in latin-1 does not make it latin-1.
    assert read_document(write("odd.txt", b"plain words " * 500 + b"\xff")).encoding == "utf-8"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_wide_encodings(encoding: str) -> None:
    text = "Où ? Là.\n"
    marked = write("marked.txt", text.encode(encoding))
    for given_encoding in (None, encoding, f"{encoding}-le"):
        assert read_text(marked, given_encoding).text == text
        assert "".join(read_document(marked, given_encoding).pieces()) == text
    for order in ("le", "be"):
        bare = write("bare.txt", text.encode(f"{encoding}-{order}"))
        assert read_text(bare, f"{encoding}-{order}").text == text
        for read in (read_text, read_document, lambda *a: read_pairs([a[0]], *a[1:])):
            with pytest.raises(UserError, match=r"not text: it holds NUL bytes"):
                read(bare, None)
            with pytest.raises(UserError, match=rf"no byte-order mark.*give {encoding}-le or {encoding}-be"):
                read(bare, encoding)


def test_nul_bytes_are_refused_everywhere() -> None:
    file = write("nul.txt", "".join(f"a {n}\tb\0 {n}\n" for n in range(20)))
    for read in (read_text, read_document, lambda file: read_pairs([file], None)):
        with pytest.raises(UserError, match="NUL bytes"):
            read(file)


# Line ends

ENDINGS = st.lists(
    st.tuples(st.text("aé\u2028\x0b\x85", max_size=3), st.sampled_from(["\n", "\r\n", "\r"])), max_size=8
).map(lambda some: "".join(f"{text}{end}" for text, end in some))


@given(text=ENDINGS)
def test_one_rule_for_lines(text: str) -> None:
    """Where there is LF, a lone CR is a space; elsewhere it ends lines; nothing else does."""
    if "\n" in text:
        expected = text.replace("\r\n", "\n").replace("\r", " ")
    else:
        expected = text.replace("\r", "\n")
    whole = read_text(text.encode())
    assert whole.text == expected
    lines = expected.split("\n")
    assert whole.lines == split_lines(text) == (lines[:-1] if lines[-1] == "" else lines)
    if text:
        document = read_document(write("lines.txt", text))
        assert "".join(document.pieces()) == expected
        assert document.characters == len(expected)
        assert list(document.lines()) == whole.lines


def test_line_ends_on_the_borders_of_pieces() -> None:
    for shift in range(4):
        text = "x" * shift + "ab\r\nc\rd" * 500_000
        document = read_document(write("long.txt", text))
        expected = text.replace("\r\n", "\n").replace("\r", " ")
        assert "".join(document.pieces()) == expected
        assert document.characters == len(expected)
        assert "\n".join(document.lines()) == expected
    mac = "a line\r" * 300_000
    assert list(read_document(write("mac.txt", mac)).lines()) == ["a line"] * 300_000


@pytest.mark.parametrize("two_files", [True, False])
def test_a_lone_cr_does_not_shift_pairs(two_files: bool) -> None:
    pairs = [(f"sentence {n}", f"phrase {n}") for n in range(20)]
    sources = [source.replace("sentence 3", "sentence\r3") for source, _ in pairs]
    if two_files:
        files = [write("a.en", "\n".join(sources)), write("a.fr", "\r\n".join(target for _, target in pairs))]
    else:
        lines = (f"{source}\t{target}\n" for source, (_, target) in zip(sources, pairs, strict=True))
        files = [write("pairs.tsv", "".join(lines))]
    corpus = read_pairs(files, None)
    assert corpus.pairs == pairs
    assert corpus.lines == list(range(1, 21))


# Folders and names


def test_a_folder_has_visible_text_files() -> None:
    for name in (
        "BOOK.TXT",
        "a.txt",
        "b.txt.gz",
        "c.Txt.XZ",
        "._a.txt",
        ".hidden.txt",
        "notes.md",
        "d.txt~",
        "e.gz",
    ):
        write(f"books/{name}", gzip.compress(BOOK) if "gz" in name else BOOK)
    write("books/folder.txt/inner.txt", BOOK)
    assert [file.name for file in find_files("books")] == ["BOOK.TXT", "a.txt", "b.txt.gz", "c.Txt.XZ"]
    write("exams/a.csv", "the cat sits,the cat sit\n")
    write("exams/._a.csv", b"\0\0")
    write("exams/B.TSV", "a dog\ta dogs\n")
    (exam,) = read_exams("exams", ("grammar",))
    assert len(exam.pairs) == 2


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        pytest.param({}, marks=pytest.mark.slow),
    ],
)
def test_runs_on_files_whose_names_are_not_utf_8(
    seqexp: Callable[..., subprocess.CompletedProcess[str]], locale: dict[str, str]
) -> None:
    """A folder and globs hold them; the manifest names them as well as UTF-8 can."""
    write(os.fsdecode(b"texts/caf\xe9.txt"), make_book(6000))
    write(os.fsdecode("texts/é.txt".encode()), make_book(6000, seed=1))
    own = ("data=text", "data.path=texts", "data.val_path=texts/*", "data.test_path=texts/caf*")
    environment = {**os.environ, **locale}
    done = seqexp("train", *own, *TINY, "trainer.max_steps=1", "trainer.sample_tokens=0", env=environment)
    assert done.returncode == 0, done.stderr
    (manifest,) = Path("outputs").glob("train/*/*/manifest.json")
    files = json.loads(manifest.read_text(encoding="utf-8"))["corpus"]["files"]
    assert {Path(file["path"]).name for file in files} == {"caf\ufffd.txt", "é.txt"}
    done = seqexp("eval", "split=test", "device.threads=1", env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_names_that_are_not_utf_8() -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    file = write(name, BOOK)
    corpus = read_corpus([file], f"data.path={name}", None)
    corpus.origin.encode()
    assert corpus.origin == "data.path=caf\ufffd.txt" == as_utf8(f"data.path={name}")
    with pytest.raises(UserError) as caught:
        read_document(write(os.fsdecode(b"\xff.txt"), b""))
    str(caught.value).encode()
    with pytest.raises(UserError) as caught:
        find_files(os.fsdecode(b"\xff/nowhere"))
    str(caught.value).encode()
    assert as_utf8(os.fsdecode(b"\xc3\xa9")) == "é"
    as_utf8("\ud800").encode()


def test_a_pipe_is_refused_where_files_are_read_several_times() -> None:
    os.mkfifo("pipe")
    with pytest.raises(UserError, match="pipe is not a file that can be read several times"):
        read_document(Path("pipe"))


# Prompts and lines for generation

FAST = ("generation.max_new_tokens=2", "device.threads=1")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfThe old\r\nhouse\r\n",
        gzip.compress(b"The old\nhouse"),
        "The old\rhouse".encode("utf-16"),
    ],
    ids=["mark and CRLF", "gzip", "UTF-16 and CR"],
)
def test_prompts_are_read_like_corpora(run_main: Main, tiny_run: Path, content: bytes) -> None:
    write("prompt.txt", content)
    ran = run_main("generate", f"run={tiny_run}", "input=prompt.txt", *FAST)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("The old\nhouse")


def test_what_is_replaced_in_a_prompt_is_told(run_main: Main, nmt_run: Path) -> None:
    write("input.txt", "Zoë is here .\n".encode() * 4 + b"He \xff came .\r\nback\n")
    ran = run_main("generate", f"run={nmt_run}", "input=input.txt", "generation.beam_size=1", *FAST[1:])
    assert ran.code == 0, ran.err
    assert ran.out.count("\n") == 6
    assert "NOTE: input=input.txt: 1 byte is not UTF-8 (byte 63, line 5); read as U+FFFD" in ran.err
    assert "line 5: not UTF-8" in ran.err
    for content, message in ((b"a\0b", "NUL bytes"), (tar(BOOK, "w:gz"), "a tar archive")):
        write("input.txt", content)
        ran = run_main("generate", f"run={nmt_run}", "input=input.txt", *FAST[1:])
        assert (ran.code, message in ran.err.splitlines()[-1]) == (2, True), ran.err
