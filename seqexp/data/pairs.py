"""Pairs of sentences, source and target, from a file of two columns, a zip of one, or two files."""

import codecs
import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from seqexp.config.data import ParallelDataConfig
from seqexp.data.download import download
from seqexp.data.sources import usual_places
from seqexp.errors import UserError
from seqexp.files import user_path

Pair = tuple[str, str]

# More than this is not unpacked from a zip: the file may come from a stranger.
LARGEST_UNPACKED_BYTES = 1_000_000_000
SUFFIXES = (".zip", ".txt", ".tsv")
# What a file, or a damaged zip, may raise.
UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class PairCorpus:
    """Pairs in the order of their files; white space inside a sentence is single spaces.

    `sha256` is that of the pairs themselves, whatever they were packed in. `lines` are the numbers of their
    lines, from 1, and `left_out` says how many lines held no pair.
    """

    pairs: list[Pair]
    origin: str
    sha256: str
    lines: list[int]
    files: list[Path] = field(default_factory=list)
    left_out: str | None = None
    generated: bool = False


def find_pairs(config: ParallelDataConfig) -> PairCorpus:
    """The pairs of a data set: given files, usual places, download, in this order.

    Raises:
        UserError: none of these has any, or a file is no text.
    """
    return read_pairs(_find_files(config), config.encoding, config.swap)


def _find_files(config: ParallelDataConfig) -> list[Path]:
    """One file of pairs, or the source's and the target's."""
    given = [path for path in (config.path, config.source_path, config.target_path) if path]
    if given:
        return [_existing(path) for path in given]
    for place in usual_places(config.name):
        files = sorted(file for file in Path(place).glob("*") if file.suffix in SUFFIXES and file.is_file())
        files = [file for file in files if not file.name.startswith("_")]
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise UserError(f"{place} holds several files ({names}); say which with data.path=.")
        if files:
            return files
    if config.url and config.sha256:
        return [download(config.url, config.sha256, f"{config.name}.zip")]
    raise UserError(
        f"data={config.name}: no files were found; give data.path=<a file of lines with source, tab, target>."
    )


def _existing(path: str) -> Path:
    file = user_path(path)
    if not file.is_file():
        raise UserError(f"{path} is not a file (seen from {Path.cwd()}); give a file of sentences.")
    return file


def read_pairs(files: list[Path], encoding: str | None, swap: bool = False, least: int = 10) -> PairCorpus:
    """The pairs of one file with tabs, or of a source file and a target file.

    Raises:
        UserError: a file cannot be read, the two differ in length, or no pair is left.
    """
    lines = [_lines(file, encoding) for file in files]
    found: Iterator[tuple[str, ...]]
    if len(files) == 1:
        found = (tuple(line.split("\t")[:2]) for line in lines[0])
    else:
        source, target = lines
        if len(source) != len(target):
            raise UserError(
                f"{files[0]} has {len(source):,} lines and {files[1]} has {len(target):,}; line n of one "
                "must be the translation of line n of the other."
            )
        found = zip(source, target, strict=True)
    return make_corpus(found, " and ".join(map(str, files)), files, swap, least)


def make_corpus(
    found: Iterator[tuple[str, ...]], origin: str, files: list[Path], swap: bool, least: int = 10
) -> PairCorpus:
    """Pairs out of columns; `least` of them at least.

    Raises:
        UserError: there are too few.
    """
    pairs: list[Pair] = []
    lines: list[int] = []
    empty = 0
    digest = hashlib.sha256()
    for number, columns in enumerate(found, start=1):
        sides = [" ".join(column.split()) for column in columns]
        if len(sides) < 2 or not all(sides):
            empty += 1
            continue
        source, target = sides[::-1] if swap else sides
        pairs.append((source, target))
        lines.append(number)
        digest.update(f"{source}\t{target}\n".encode())
    if len(pairs) < least:
        raise UserError(
            f"{origin}: {len(pairs)} lines hold a source, a tab and a target, and {least} are needed."
        )
    left_out = f"{empty:,} lines without two sentences" if empty else None
    return PairCorpus(pairs, origin, digest.hexdigest(), lines, files, left_out)


def _lines(file: Path, encoding: str | None) -> list[str]:
    try:
        data = _unpacked(file) if zipfile.is_zipfile(file) else file.read_bytes()
    except UNREADABLE as error:
        raise UserError(f"{file} cannot be read ({error}).") from error
    try:
        chosen = encoding or "utf-8"
        # A byte order mark is no part of the text.
        text = data.decode("utf-8-sig" if codecs.lookup(chosen).name == "utf-8" else chosen)
    except (UnicodeError, LookupError) as error:
        raise UserError(
            f"{file} is not {encoding or 'UTF-8'} text ({error}); give its encoding as data.encoding=."
        ) from error
    # Not splitlines(): characters such as U+2028 may stand inside a sentence.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _unpacked(file: Path) -> bytes:
    """The largest text file in a zip.

    Raises:
        UserError: there is none, or it is larger than allowed.
    """
    with zipfile.ZipFile(file) as archive:
        texts = [
            member
            for member in archive.infolist()
            if Path(member.filename).suffix in (".txt", ".tsv") and "__MACOSX" not in member.filename
        ]
        if not texts:
            raise UserError(f"{file} holds no .txt or .tsv file.")
        chosen = max(texts, key=lambda member: member.file_size)
        with archive.open(chosen) as stream:
            data = stream.read(LARGEST_UNPACKED_BYTES + 1)
        if len(data) > LARGEST_UNPACKED_BYTES:
            raise UserError(f"{file} unpacks to more than {LARGEST_UNPACKED_BYTES:,} bytes and is not read.")
    return data
