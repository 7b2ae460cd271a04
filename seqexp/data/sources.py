"""Which files a corpus is made of, and their text in pieces, whatever their size."""

import contextlib
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from seqexp.data.cache import cache_dir
from seqexp.data.lines import CHUNK, TextForm, decoded, find_form
from seqexp.data.unpack import Unpacked, open_unpacked
from seqexp.errors import UserError
from seqexp.files import as_utf8, read_json, user_path, write_atomically

# In the key of remembered scans: raise it when `find_form` finds other things.
SCAN_VERSION = 2
# What a folder holds for us: visible text files, packed or not.
TEXT_FILE = re.compile(r"[^.].*\.txt(\.(gz|bz2|xz|zip))?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Document:
    """One text file: the hash of its bytes (unpacked), and how they become text."""

    path: Path
    sha256: str
    form: TextForm
    notes: tuple[str, ...] = ()

    @property
    def encoding(self) -> str:
        return self.form.encoding

    @property
    def characters(self) -> int:
        return self.form.characters

    def pieces(self) -> Iterator[str]:
        """The text in pieces of about a megabyte; line ends are ``\\n``, a byte-order mark is removed."""
        with open_unpacked(self.path) as unpacked:
            yield from decoded(unpacked.stream, self.form)

    def lines(self) -> Iterator[str]:
        """The lines, without their ends."""
        held: list[str] = []
        for piece in self.pieces():
            *whole, rest = piece.split("\n")
            for line in whole:
                yield "".join([*held, line])
                held = []
            held += [rest] if rest else []
        if held:
            yield "".join(held)


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order. `stand_in` is why they are not the ones asked for, or None.

    `held_out` has the corpora of splits that come with files of their own, by the name of the split.
    """

    documents: tuple[Document, ...]
    origin: str
    stand_in: str | None = None
    held_out: Mapping[str, "Corpus"] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """The hash of all documents' hashes and encodings, in order, and of those held out."""
        lines = (f"{document.sha256} {document.encoding}\n" for document in self.documents)
        own = hashlib.sha256("".join(lines).encode()).hexdigest()
        return combined_sha256(own, {name: corpus.sha256 for name, corpus in self.held_out.items()})

    @property
    def characters(self) -> int:
        """The number of characters, without those held out."""
        return sum(document.characters for document in self.documents)

    @property
    def notes(self) -> list[str]:
        """What was replaced in the files, or not read."""
        own = [note for document in self.documents for note in document.notes]
        return own + [note for corpus in self.held_out.values() for note in corpus.notes]


def combined_sha256(own: str, held_out: Mapping[str, str]) -> str:
    """The hash of a corpus with splits of their own: without any, the corpus's."""
    if not held_out:
        return own
    lines = [own, *(f"{name} {sha256}" for name, sha256 in sorted(held_out.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_files(path: str, key: str = "data.path") -> list[Path]:
    """The files that a path, a folder (its visible ``*.txt``, packed or not) or a glob names, sorted.

    Raises:
        UserError: no file was found.
    """
    found = user_path(path)
    if found.is_dir():
        files = text_files(found)
        if not files:
            raise UserError(f"{key}={as_utf8(path)} is a folder without .txt files; name a file or a glob.")
        return files
    if found.exists():
        return [found]
    files = sorted(Path(name) for name in glob.glob(str(found), recursive=True))
    files = [file for file in files if file.is_file()]
    if not files:
        raise UserError(
            f"{key}={as_utf8(path)}: there is no such file or folder, and as a glob it matches nothing "
            f"(seen from {as_utf8(Path.cwd())})."
        )
    return files


def text_files(folder: Path, names: re.Pattern[str] = TEXT_FILE) -> list[Path]:
    """The files of a folder whose names match, sorted."""
    return sorted(file for file in folder.glob("*") if names.fullmatch(file.name) and file.is_file())


def usual_places(name: str) -> list[str]:
    """Where a data set's files are looked for when no path is given, in order."""
    roots = [os.environ["SEQEXP_DATA"]] if os.environ.get("SEQEXP_DATA") else []
    return [str(Path(root) / name) for root in [*roots, "data"]]


def shown_places(name: str) -> str:
    """Return `usual_places` for a message, which also names the variable if it is not set."""
    unset = "" if os.environ.get("SEQEXP_DATA") else f" or $SEQEXP_DATA/{name} (the variable is not set)"
    return " or ".join(usual_places(name)) + unset


def find_in_usual_places(name: str) -> tuple[list[Path], str] | None:
    """The text files in the first usual place that has any, and its name."""
    for place in usual_places(name):
        files = text_files(Path(place))
        if files:
            return files, place
    return None


def read_document(path: Path, encoding: str | None = None) -> Document:
    """Hash a file, and find its encoding and length, without keeping it.

    The file is UTF-8 (with a few bad bytes, perhaps), has a mark, or is taken for latin-1, unless `encoding`
    is given. What was found is remembered by the hash, so that the second start only hashes.

    Raises:
        UserError: unreadable, empty, binary, or not in the encoding that was given.
    """
    name = as_utf8(path)
    if not os.path.isfile(path):
        raise UserError(f"{name} is not a file that can be read several times; give a text file.")

    def opener() -> contextlib.AbstractContextManager[Unpacked]:
        return open_unpacked(path)

    digest = hashlib.sha256()
    with opener() as unpacked:
        while chunk := unpacked.stream.read(CHUNK):
            digest.update(chunk)
        notes = unpacked.notes
    sha256 = digest.hexdigest()
    remembered = cache_dir("scans") / f"{sha256}-{encoding or 'auto'}-{SCAN_VERSION}.json"
    form = _remembered(remembered)
    if form is None:
        form = find_form(opener, name, encoding)
        if form.characters == 0:
            raise UserError(f"{name} is empty; give a file with text.")
        write_atomically(remembered, json.dumps(asdict(form)).encode())
    return Document(path, sha256, form, (*notes, *form.notes(name)))


def _remembered(file: Path) -> TextForm | None:
    found = read_json(file)
    types = {"encoding": str, "bad_bytes": int, "bad_at": str, "line_end": str, "characters": int}
    if found.keys() != types.keys() or not all(type(found[key]) is kind for key, kind in types.items()):
        return None
    return TextForm(**found)
