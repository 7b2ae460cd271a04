"""From bytes to text and lines: the encoding, line ends and white space of everything that is read.

Corpora, pairs, prompts and input files all pass through here, so that training, evaluation and generation
agree on what a character and what a line is.
"""

import codecs
import contextlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from seqexp.data.unpack import Unpacked, open_unpacked, read_bounded
from seqexp.errors import UserError
from seqexp.files import as_utf8

CHUNK = 1 << 20  # characters or bytes that are read at once

# Byte-order marks of encodings that write a NUL byte with every ASCII character.
WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# A file is UTF-8 with damage if so many of its characters outside ASCII are UTF-8 for each byte that is not …
GOOD_FOR_EACH_BAD = 4
# … or if it is ASCII but for a single byte, or one in so many, that means nothing in latin-1 either.
BYTES_FOR_EACH_BAD = 1000
LISTED_BAD_BYTES = 3  # whose positions a note gives

# White space that separates words or lines and means nothing else; and all other.
ORDINARY_SPACES = re.compile("[\t-\r\x1c-\x20\x85\u2028\u2029]+")
TYPOGRAPHIC_SPACE = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as the handler surrogateescape gives them
# Of these, control characters in latin-1, and its rarest letters þ and ÿ (the bytes of UTF-16's mark).
NO_LETTER = re.compile("[\udc80-\udc9f\udcfe\udcff]")


@dataclass(frozen=True)
class TextForm:
    """How the bytes of a file become text.

    `line_end` is ``\\n``, or ``\\r`` for files in which no other stands (old Mac). `bad_bytes` of a UTF-8
    file are not UTF-8 and are read as U+FFFD; `bad_at` says where the first ones are. `characters` are
    counted after line ends became ``\\n``.
    """

    encoding: str
    bad_bytes: int = 0
    bad_at: str = ""
    line_end: str = "\n"
    characters: int = 0

    @property
    def damaged(self) -> bool:
        """Whether U+FFFD stands for bad bytes."""
        return self.encoding == "utf-8" and self.bad_bytes > 0

    @property
    def guessed(self) -> bool:
        """Whether latin-1 was taken only because the bytes are not UTF-8."""
        return self.encoding == "latin-1" and self.bad_bytes > 0

    def notes(self, name: str) -> tuple[str, ...]:
        """What the user should know about the text."""
        if self.damaged:
            many = "1 byte is" if self.bad_bytes == 1 else f"{self.bad_bytes:,} bytes are"
            return (f"{name}: {many} not UTF-8 ({self.bad_at}); read as U+FFFD",)
        if self.guessed:
            return (f"{name}: not UTF-8 ({self.bad_at}), so read as latin-1; data.encoding= says otherwise",)
        return ()


Opener = Callable[[], contextlib.AbstractContextManager[Unpacked]]


def find_form(opener: Opener, name: str, encoding: str | None = None) -> TextForm:
    """Read a file twice, a chunk at a time, to find its encoding (unless given), line ends and length.

    Raises:
        UserError: it is not text, or not in the encoding that was given.
    """
    with opener() as unpacked:
        form = TextForm(encoding) if encoding else _detect(unpacked.stream)
    try:
        with opener() as unpacked:
            _refuse_missing_mark(unpacked.stream, form, name)
            return _measured(unpacked.stream, form, name)
    except (UnicodeError, LookupError) as error:
        raise UserError(
            f"{name} is not {form.encoding} text ({error}); correct data.encoding or leave it out."
        ) from error


def decoded(stream: BinaryIO, form: TextForm) -> Iterator[str]:
    """The text in pieces of about a megabyte, each up to the end of a line if lines are not longer than that.

    Line ends are ``\\n``; a lone CR in a file with other line ends is a space; a byte-order mark is removed.
    """
    with _reader(stream, form, newline=None if form.line_end == "\r" else "\n") as reader:
        held, first = "", True
        # Up to the end of a line, so that tokenizers of words and subwords see words whole.
        while piece := reader.read(CHUNK) + reader.readline(CHUNK):
            piece = held + (piece.removeprefix("\ufeff") if first else piece)
            held, first = "\r" if piece.endswith("\r") else "", False  # perhaps the first half of CRLF
            if text := _with_plain_line_ends(piece.removesuffix("\r")):
                yield text
        if held:
            yield " "


def _with_plain_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", " ")


def split_lines(text: str) -> list[str]:
    """The lines of a text; a line end at the very end begins no further line.

    A line ends with LF or CRLF, or, in a text without LF, with CR. Where lines end with LF, a lone CR is
    white space. Characters such as U+2028 stand inside lines.
    """
    if "\r" in text:
        text = _with_plain_line_ends(text) if "\n" in text else text.replace("\r", "\n")
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def fold_spaces(text: str) -> str:
    """The text with single spaces for ordinary white space inside it, and no white space around it.

    Non-breaking and other typographic spaces stay: French writes U+00A0 and U+202F before its signs.
    """
    if text.isascii() or not TYPOGRAPHIC_SPACE.search(text):
        return fold_all_spaces(text)  # the same, and quicker
    return " ".join(ORDINARY_SPACES.split(text.strip()))


def fold_all_spaces(text: str) -> str:
    """The same with single spaces for typographic spaces, too."""
    return " ".join(text.split())


@dataclass(frozen=True)
class DecodedText:
    """A whole text with ``\\n`` as line ends; `notes` say what was replaced or not read."""

    text: str
    form: TextForm
    notes: tuple[str, ...] = ()

    @cached_property
    def lines(self) -> list[str]:
        return split_lines(self.text)

    @property
    def damaged_lines(self) -> set[int]:
        """The numbers, from 1, of lines in which U+FFFD stands for bytes that are not UTF-8."""
        if not self.form.damaged:
            return set()
        return {number for number, line in enumerate(self.lines, start=1) if "\ufffd" in line}


def read_text(source: Path | bytes, encoding: str | None = None, name: str | None = None) -> DecodedText:
    """The text of a file, or of bytes that were read already, which may be packed.

    Raises:
        UserError: it cannot be read, is not text, or is not in the encoding that was given.
    """
    name = name or (as_utf8(source) if isinstance(source, Path) else "the input")
    with open_unpacked(source, name) as unpacked:
        data, notes = read_bounded(unpacked.stream, name), unpacked.notes

    @contextlib.contextmanager
    def opener() -> Iterator[Unpacked]:
        yield Unpacked(io.BufferedReader(io.BytesIO(data)))

    form = find_form(opener, name, encoding)
    text = "".join(decoded(io.BytesIO(data), form))
    return DecodedText(text, form, (*notes, *form.notes(name)))


def _detect(stream: BinaryIO) -> TextForm:
    """UTF-8, UTF-16 or UTF-32 with a mark, or latin-1, which always fits; and which bytes are not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    offset = lines = good = bad = no_letter = 0
    marked = False
    positions: list[str] = []
    while True:
        data = stream.read(CHUNK)
        if offset == 0 and b"\0" in data:
            for mark, encoding in WIDE_MARKS.items():
                if data.startswith(mark):
                    return TextForm(encoding)
        marked |= offset == 0 and data.startswith(codecs.BOM_UTF8)
        pending = len(decoder.getstate()[0])
        text = decoder.decode(data, final=not data)
        if not text.isascii():
            found = ESCAPED.findall(text)
            good += len(re.findall(r"[^\x00-\x7f]", text)) - len(found)
            bad += len(found)
            no_letter += len(NO_LETTER.findall(text))
            for match in ESCAPED.finditer(text) if len(positions) < LISTED_BAD_BYTES else ():
                before = text[: match.start()]
                at = offset - pending + len(before.encode("utf-8", "surrogateescape"))
                positions.append(f"byte {at:,}, line {lines + before.count(chr(10)) + 1:,}")
                if len(positions) == LISTED_BAD_BYTES:
                    break
        lines += text.count("\n")
        offset += len(data)
        if not data:
            break
    where = "; ".join(positions) + ("; …" if bad > len(positions) else "")
    damaged = (
        marked
        or bad * GOOD_FOR_EACH_BAD <= good
        or (no_letter == bad and bad <= max(1, offset // BYTES_FOR_EACH_BAD))
    )
    return TextForm("utf-8" if damaged or not bad else "latin-1", bad, where)


def _refuse_missing_mark(stream: BinaryIO, form: TextForm, name: str) -> None:
    """Raise UserError if only a mark could say in which order the bytes of a file are, and it has none."""
    codec = codecs.lookup(form.encoding).name
    if codec in ("utf-16", "utf-32"):
        head: bytes = stream.peek(4)  # type: ignore[attr-defined]
        if not head.startswith(tuple(WIDE_MARKS)):
            raise UserError(
                f"{name} has no byte-order mark, so data.encoding={form.encoding} does not say how to read "
                f"it; give {codec}-le or {codec}-be."
            )


def _reader(stream: BinaryIO, form: TextForm, newline: str | None) -> io.TextIOWrapper:
    codec = "utf-8-sig" if codecs.lookup(form.encoding).name == "utf-8" else form.encoding
    errors = "replace" if form.damaged else "strict"
    return io.TextIOWrapper(stream, encoding=codec, errors=errors, newline=newline)


def _measured(stream: BinaryIO, form: TextForm, name: str) -> TextForm:
    """The form with its line end and number of characters."""
    count, line_feeds, pairs, returns = 0, 0, 0, 0
    before = ""
    with _reader(stream, form, newline="") as reader:
        while text := reader.read(CHUNK):
            if "\0" in text:
                raise UserError(
                    f"{name} is not text: it holds NUL bytes. Give a text file, or, if it is text of that "
                    "kind, data.encoding=utf-16-le or utf-16-be."
                )
            if not count:
                text = text.removeprefix("\ufeff")
            count += len(text)
            line_feeds += text.count("\n")
            returns += text.count("\r")
            pairs += text.count("\r\n") + (before == "\r" and text.startswith("\n"))
            before = text[-1:]
    line_end = "\r" if returns and not line_feeds else "\n"
    return replace(form, line_end=line_end, characters=count - pairs)
