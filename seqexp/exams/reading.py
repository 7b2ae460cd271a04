"""Minimal pairs from files: lines of ``good,bad``, JSON lines as BLiMP has them, or a zip of such files.

Files may be packed by gzip, bzip2 or xz, too.

A line may also have a tab between the two sides. A side that holds commas stands in double quotes, as in any
CSV.
"""

import csv
import glob
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from seqexp.data.lines import split_lines
from seqexp.data.sources import text_files
from seqexp.data.unpack import UNREADABLE, ZIP, open_unpacked
from seqexp.errors import UserError
from seqexp.exams.questions import Exam, MinimalPair
from seqexp.files import as_utf8, user_path

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl")
EXAM_FILE = re.compile(r"[^.].*\.(csv|tsv|txt|jsonl)(\.(gz|bz2|xz|zip))?", re.IGNORECASE | re.DOTALL)
# The names of the two sides in JSON, and in a first line that names columns.
SIDES = (("sentence_good", "sentence_bad"), ("good", "bad"))
# BLiMP's files name thirteen phenomena; the paper has twelve, with this one part of another.
MERGED = {"s-selection": "argument_structure"}
# The files may come from a stranger: do not read more than this.
MOST_BYTES = 200_000_000
MOST_LENGTH = 100_000  # characters of a side
KEY = "exams.path"


def read_exams(path: str, wanted: tuple[str, ...]) -> list[Exam]:
    """Read exams from the files of `path`: pairs of words are spelling, others grammar.

    If only one exam is `wanted`, all pairs belong to it.

    Raises:
        UserError: no such file, or a line without a pair; with the name of the file and the line.
    """
    found: dict[str, list[MinimalPair]] = {name: [] for name in wanted}
    sources = list(_texts(path))
    for name, text in sources:
        pairs = list(_pairs(name, text))
        if not pairs:
            raise UserError(f"{name} holds no pairs; a line is a good side, a comma, a bad side.")
        of_words = all(" " not in side for pair in pairs for side in (pair.good, pair.bad))
        found[wanted[0] if len(wanted) == 1 else "spelling" if of_words else "grammar"] += pairs
    if not sources:
        raise UserError(f"{KEY}={as_utf8(path)} holds no file {', '.join(SUFFIXES)}.")
    notes = [f"{len(sources)} files"] if len(sources) > 1 else []
    return [Exam(name, f"{KEY}={as_utf8(path)}", pairs, notes) for name, pairs in found.items() if pairs]


def _texts(path: str) -> Iterator[tuple[str, str]]:
    """The name and the text of each file; in a zip, of each member."""
    left = MOST_BYTES
    for file in _files(path):
        try:
            for name, data in _contents(file, left):
                left -= len(data)
                yield name, _decoded(name, data)
        except UNREADABLE as error:
            raise UserError(f"{KEY}: {as_utf8(file)} cannot be read ({error}).") from error


def _files(path: str) -> list[Path]:
    place = user_path(path)
    if place.is_dir():
        files = text_files(place, EXAM_FILE)
    elif place.exists():
        files = [place]
    else:
        files = sorted(file for file in map(Path, glob.glob(str(place), recursive=True)) if file.is_file())
    if not files:
        raise UserError(
            f"{KEY}={as_utf8(path)}: there is no such file, and no file {', '.join(SUFFIXES)} in it if it "
            f"is a folder (seen from {as_utf8(Path.cwd())})."
        )
    return files


def _contents(file: Path, left: int) -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of a file, or of each member of a zip; `left` bytes at most."""
    if not file.is_file():
        raise OSError("it is not a file")
    name = as_utf8(file)
    with open(file, "rb") as opened:
        is_zip = opened.read(len(ZIP)) == ZIP
    if not is_zip:
        with open_unpacked(file) as unpacked:
            yield name, _bounded(unpacked.stream, name, left)
        return
    with zipfile.ZipFile(file) as archive:
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            inside = PurePosixPath(member.filename)
            if EXAM_FILE.fullmatch(inside.name) and "__MACOSX" not in inside.parts:
                with archive.open(member) as stream:
                    data = _bounded(stream, f"{name}: {inside}", left)
                left -= len(data)
                yield f"{name}: {inside}", data


def _bounded(stream: Any, name: str, left: int) -> bytes:
    data: bytes = stream.read(left + 1)
    if len(data) > left:
        raise UserError(f"{KEY}: {name} is not read: the files have more than {MOST_BYTES:,} bytes in all.")
    return data


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{name}, line {line}: not UTF-8 text ({error.reason}).") from error


def _pairs(name: str, text: str) -> Iterator[MinimalPair]:
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip() or (number == 1 and tuple(_cells(line)) in SIDES):
            continue
        where = f"{name}, line {number}"
        pair = _from_json(line, where) if line.lstrip().startswith("{") else _from_cells(line, where)
        for side in (pair.good, pair.bad):
            if not side.strip():
                raise UserError(f"{where}: one side is empty; a line is a good side, a comma, a bad side.")
            if len(side) > MOST_LENGTH:
                raise UserError(f"{where}: a side has more than {MOST_LENGTH:,} characters.")
        yield pair


def _cells(line: str) -> list[str]:
    if "\t" in line:
        return [cell.strip() for cell in line.split("\t")]
    try:
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True, strict=True))]
    except csv.Error:
        return [line]


def _from_cells(line: str, where: str) -> MinimalPair:
    cells = _cells(line)
    if len(cells) == 2:
        return MinimalPair(cells[0], cells[1])
    shown = line if len(line) <= 60 else f"{line[:60]}…"
    found = "no comma" if len(cells) == 1 else f"{len(cells) - 1} commas or tabs"
    raise UserError(
        f"{where}: {found} in {shown!r}; a line is a good side, a comma, a bad side. A side with commas "
        "stands in double quotes, or a tab stands between the sides."
    )


def _from_json(line: str, where: str) -> MinimalPair:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({getattr(error, 'msg', 'nested too deeply')}).") from error
    for good, bad in SIDES:
        if isinstance(row, dict) and good in row and bad in row:
            values = [row[good], row[bad]]
            values += [row.get(key, "") for key in ("linguistics_term", "field", "UID")]
            if not all(isinstance(value, str) for value in values):
                break
            first, second, phenomenon, field, paradigm = (_clean(value) for value in values)
            phenomenon = MERGED.get(phenomenon, phenomenon).replace("_", " ")
            return MinimalPair(first, second, phenomenon, re.sub("[_/]", " ", field), paradigm)
    raise UserError(
        f'{where}: expected texts under "sentence_good" and "sentence_bad" (or "good" and "bad").'
    )


def _clean(value: str) -> str:
    """Replace lone surrogates, which JSON can spell: they cannot be encoded."""
    return value.encode("utf-8", "replace").decode()
