"""Open files as they are or packed: gzip, bzip2, xz and zip, recognised by their first bytes."""

import bz2
import contextlib
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from seqexp.errors import UserError
from seqexp.files import as_utf8

# Packed files are untrusted: do not unpack more than this.
LARGEST_UNPACKED_BYTES = 1_000_000_000
# What reading a file, or unpacking a damaged one, may raise.
UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error,
    lzma.LZMAError,
)  # fmt: skip

UNPACKERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
ZIP = b"PK\x03\x04"
# Formats that are not read, by their first bytes: without this, a small one might pass for latin-1 text.
OTHER_FORMATS = {
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"%PDF-": "a PDF document",
}
TAR_MAGIC, TAR_OFFSET = b"ustar", 257
MEMBER_SUFFIXES = (".txt", ".tsv")
# Names of unused members that a note lists.
LISTED_MEMBERS = 3


@dataclass(frozen=True)
class Unpacked:
    """The bytes of a file, unpacked; `notes` say what was not read, such as other members of a zip."""

    stream: BinaryIO
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def open_unpacked(source: Path | bytes, name: str | None = None) -> Iterator[Unpacked]:
    """Open a file, or bytes that were read already; from a zip, the largest text file.

    Raises:
        UserError: the file cannot be read, is packed in another way, is an archive of several files, or
        unpacks
            to more than `LARGEST_UNPACKED_BYTES`. Errors while the stream is read are turned into this one,
            too.
    """
    name = name or (as_utf8(source) if isinstance(source, Path) else "the input")
    with contextlib.ExitStack() as stack:
        try:
            packed: Any
            if isinstance(source, bytes):
                packed = stack.enter_context(io.BufferedReader(io.BytesIO(source)))
            else:
                packed = stack.enter_context(open(source, "rb"))
            yield _unpacked(packed, name, stack)
        except UnicodeError:
            raise  # of the text, not of the file: the caller knows the encoding
        except UNREADABLE as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise UserError(f"{name} cannot be read ({reason or type(error).__name__}).") from error


def _unpacked(packed: io.BufferedReader, name: str, stack: contextlib.ExitStack) -> Unpacked:
    head = packed.peek(TAR_OFFSET + len(TAR_MAGIC))
    notes: tuple[str, ...] = ()
    inner: Any
    unpack: Any = next((unpack for first, unpack in UNPACKERS.items() if head.startswith(first)), None)
    if unpack:
        inner = stack.enter_context(unpack(packed))
    elif head.startswith(ZIP):
        inner, notes = _largest_member(packed, name, stack)
    else:
        _refuse_other_formats(head, name)
        return Unpacked(packed)
    stream = stack.enter_context(io.BufferedReader(_Bounded(inner, name), 1 << 20))
    _refuse_other_formats(stream.peek(TAR_OFFSET + len(TAR_MAGIC)), name)
    return Unpacked(stream, notes)


def _refuse_other_formats(head: bytes, name: str) -> None:
    found = next((format for first, format in OTHER_FORMATS.items() if head.startswith(first)), None)
    if head[TAR_OFFSET:].startswith(TAR_MAGIC):
        found = "a tar archive"
    if found:
        raise UserError(
            f"{name} is {found}, which is not read; unpack it, and give the text file (which may be packed "
            "by gzip, bzip2, xz or zip)."
        )


def _largest_member(
    packed: io.BufferedReader, name: str, stack: contextlib.ExitStack
) -> tuple[IO[bytes], tuple[str, ...]]:
    """The largest text file in a zip, open, and a note of the other members."""
    # A zip is read from its end, which a pipe does not have.
    seekable: Any = packed if packed.seekable() else io.BytesIO(read_bounded(packed, name))
    archive = stack.enter_context(zipfile.ZipFile(seekable))
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and "__MACOSX" not in member.filename
        and not Path(member.filename).name.startswith(".")
    ]  # fmt: skip
    texts = [member for member in members if Path(member.filename).suffix.lower() in MEMBER_SUFFIXES]
    if not texts:
        raise UserError(f"{name} holds no {' or '.join(MEMBER_SUFFIXES)} file.")
    chosen = max(texts, key=lambda member: member.file_size)
    others = [as_utf8(member.filename) for member in members if member is not chosen]
    notes: tuple[str, ...] = ()
    if others:
        listed = ", ".join(others[:LISTED_MEMBERS])
        more = f" and {len(others) - LISTED_MEMBERS:,} more" if len(others) > LISTED_MEMBERS else ""
        notes = (f"{name}: only {as_utf8(chosen.filename)} is read, not {listed}{more}",)
    return stack.enter_context(archive.open(chosen)), notes


def read_bounded(stream: BinaryIO, name: str) -> bytes:
    """All bytes of a stream.

    Raises:
        UserError: there are more than `LARGEST_UNPACKED_BYTES`.
    """
    data = stream.read(LARGEST_UNPACKED_BYTES + 1)
    if len(data) > LARGEST_UNPACKED_BYTES:
        raise UserError(f"{name} has more than {LARGEST_UNPACKED_BYTES:,} bytes and is not read.")
    return data


class _Bounded(io.RawIOBase):
    """A stream that raises UserError after `LARGEST_UNPACKED_BYTES`."""

    def __init__(self, inner: IO[bytes], name: str) -> None:
        self.inner, self.name, self.left = inner, name, LARGEST_UNPACKED_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.inner.read(len(buffer))
        self.left -= len(data)
        if self.left < 0:
            raise UserError(
                f"{self.name} unpacks to more than {LARGEST_UNPACKED_BYTES:,} bytes and is not read."
            )
        buffer[: len(data)] = data
        return len(data)
