"""Which files a corpus is made of, and their text in pieces, whatever their size."""

import codecs
import glob
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seqexp.data.cache import cache_dir
from seqexp.errors import UserError
from seqexp.files import read_json, user_path, write_atomically

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Document:
    """One text file: its bytes' hash, the encoding it is read with, its length in characters."""

    path: Path
    sha256: str
    encoding: str
    characters: int

    def pieces(self) -> Iterator[str]:
        """The text in pieces of about a megabyte; line ends are ``\\n``, a byte order mark is left out."""
        is_utf8 = codecs.lookup(self.encoding).name == "utf-8"
        encoding = "utf-8-sig" if is_utf8 else self.encoding
        with open(self.path, encoding=encoding, newline=None) as file:
            # Up to the end of a line, so that tokenizers of words and subwords see words whole.
            while piece := file.read(CHUNK_BYTES) + file.readline(CHUNK_BYTES):
                yield piece


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order. `stand_in` is why they are not the ones asked for, or None."""

    documents: tuple[Document, ...]
    origin: str
    stand_in: str | None = None

    @property
    def sha256(self) -> str:
        """The hash of all documents' hashes and encodings, in order."""
        lines = (f"{document.sha256} {document.encoding}\n" for document in self.documents)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def characters(self) -> int:
        return sum(document.characters for document in self.documents)


def find_files(path: str, key: str = "data.path") -> list[Path]:
    """The files that a path, a folder (its ``*.txt``) or a glob names, sorted.

    Raises:
        UserError: there are none.
    """
    place = user_path(path)
    if place.is_file() or (place.exists() and not place.is_dir()):
        return [place]
    if place.is_dir():
        files = sorted(file for file in place.glob("*.txt") if file.is_file())
        if not files:
            raise UserError(f"{key}={path} is a folder without .txt files; name a file or a glob.")
        return files
    files = sorted(Path(name) for name in glob.glob(str(place), recursive=True))
    files = [file for file in files if file.is_file()]
    if not files:
        raise UserError(
            f"{key}={path}: there is no such file or folder, and as a glob it matches nothing "
            f"(seen from {Path.cwd()})."
        )
    return files


def usual_places(name: str) -> list[str]:
    """Where a data set's files are looked for when no path is given, in order."""
    roots = [os.environ["SEQEXP_DATA"]] if os.environ.get("SEQEXP_DATA") else []
    return [str(Path(root) / name) for root in [*roots, "data"]]


def find_in_usual_places(name: str) -> tuple[list[Path], str] | None:
    """The first usual place with ``*.txt`` files, and its name."""
    for place in usual_places(name):
        files = sorted(file for file in Path(place).glob("*.txt") if file.is_file())
        if files:
            return files, place
    return None


def read_document(path: Path, encoding: str | None = None) -> Document:
    """Hash a file, and find its encoding and length, without keeping it.

    UTF-8 is tried first, then latin-1 (which always fits), unless `encoding` is given. What was found is
    remembered by the hash, so that the second start only hashes.

    Raises:
        UserError: unreadable, empty, binary, or not in the encoding that was given.
    """
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        remembered = cache_dir("scans") / f"{sha256}-{encoding or 'auto'}.json"
        found = read_json(remembered)
        if isinstance(found.get("encoding"), str) and isinstance(found.get("characters"), int):
            return Document(path, sha256, found["encoding"], found["characters"])
        chosen = encoding or _detect_encoding(path)
        _refuse_binary(path, chosen)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    document = Document(path, sha256, chosen, 0)
    try:
        characters = sum(len(piece) for piece in document.pieces())
    except (UnicodeError, LookupError) as error:
        raise UserError(
            f"{path} is not {chosen} text ({error}); correct data.encoding or leave it out."
        ) from error
    if characters == 0:
        raise UserError(f"{path} is empty; give a file with text.")
    found = {"encoding": chosen, "characters": characters}
    write_atomically(remembered, json.dumps(found).encode())
    return Document(path, sha256, chosen, characters)


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _detect_encoding(path: Path) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(path):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _refuse_binary(path: Path, encoding: str) -> None:
    """NUL bytes are no text, except in encodings (UTF-16, UTF-32) that write 'a' with one."""
    if b"\0" not in "a".encode(encoding) and any(b"\0" in chunk for chunk in _chunks(path)):
        raise UserError(
            f"{path} is not text: it holds NUL bytes. Give a text file, or data.encoding=utf-16 "
            "if it is text of that kind."
        )
