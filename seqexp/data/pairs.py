"""Pairs of sentences, source and target, from a file of two columns or two files, packed or not."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from seqexp.config.data import ParallelDataConfig
from seqexp.data.download import download
from seqexp.data.lines import fold_all_spaces, fold_spaces
from seqexp.data.sources import Document, combined_sha256, read_document, text_files, usual_places
from seqexp.errors import UserError
from seqexp.files import as_utf8, user_path
from seqexp.quoting import counted

Pair = tuple[str, str]

# What is taken for pairs in the usual places: visible, and no note such as _about.txt.
PAIR_FILE = re.compile(r"[^._].*\.(zip|(txt|tsv)(\.(gz|bz2|xz|zip))?)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class PairCorpus:
    """Pairs in the order of their files; ordinary white space inside a sentence is single spaces.

    `sha256` is that of the pairs themselves, however they were packed. `lines` are the numbers of their
    lines, from 1. `skipped` says what was not read as it is. `held_out` has the pairs of splits that come
    with files of their own, by the name of the split.
    """

    pairs: list[Pair]
    origin: str
    sha256: str
    lines: list[int]
    files: list[Path] = field(default_factory=list)
    skipped: tuple[str, ...] = ()
    generated: bool = False
    held_out: Mapping[str, "PairCorpus"] = field(default_factory=dict)

    @property
    def whole_sha256(self) -> str:
        """The hash of the pairs and of those held out."""
        return combined_sha256(self.sha256, {name: some.sha256 for name, some in self.held_out.items()})

    def folded(self) -> "PairCorpus":
        """The same with ordinary spaces for typographic ones, as earlier versions read it."""
        pairs = [(fold_all_spaces(source), fold_all_spaces(target)) for source, target in self.pairs]
        held_out = {name: some.folded() for name, some in self.held_out.items()}
        return replace(self, pairs=pairs, sha256=pairs_sha256(pairs), held_out=held_out)


def find_pairs(config: ParallelDataConfig) -> PairCorpus:
    """The pairs of a data set: given files, usual places, download, in this order; and those held out.

    Raises:
        UserError: none of these has any, or a file is not text.
    """
    held_out = {}
    for name in ("val", "test"):
        given = [path for path in config.files_of(f"{name}_") if path]
        if given:
            files = [_existing(path, f"data.{name}_path") for path in given]
            held_out[name] = read_pairs(files, config.encoding, config.swap, least=1)
    corpus = read_pairs(_find_files(config), config.encoding, config.swap)
    return replace(corpus, held_out=held_out)


def _find_files(config: ParallelDataConfig) -> list[Path]:
    """One file of pairs, or the source's and the target's."""
    given = [path for path in config.files_of("") if path]
    if given:
        return [_existing(path, "data.path") for path in given]
    for folder in usual_places(config.name):
        files = text_files(Path(folder), PAIR_FILE)
        if len(files) > 1:
            names = ", ".join(as_utf8(file.name) for file in files)
            raise UserError(f"{folder} holds several files ({names}); say which with data.path=.")
        if files:
            return files
    if config.url and config.sha256:
        return [download(config.url, config.sha256, f"{config.name}.zip")]
    raise UserError(
        f"data={config.name}: no files were found; give data.path=<a file of lines with source, tab, target>."
    )


def _existing(path: str, key: str) -> Path:
    file = user_path(path)
    if not file.is_file():
        raise UserError(
            f"{key}: {as_utf8(path)} is not a file (seen from {as_utf8(Path.cwd())}); give a file of "
            "sentences."
        )
    return file


def read_pairs(files: list[Path], encoding: str | None, swap: bool = False, least: int = 10) -> PairCorpus:
    """The pairs of one file with tabs, or of a source file and a target file.

    Raises:
        UserError: a file cannot be read, the two differ in length, or there are fewer than `least` pairs.
    """
    documents = [_read_document(file, encoding) for file in files]
    names = [as_utf8(file) for file in files]
    skipped = [note for document in documents for note in document.notes]
    if len(documents) == 1:
        columns: Counter[int] = Counter()
        corpus = make_corpus(_columns(documents[0], columns), names[0], files, swap, least)
        skipped += _notes_on_columns(names[0], columns)
    else:
        corpus = make_corpus(_side_by_side(documents, names), " and ".join(names), files, swap, least)
    return replace(corpus, skipped=(*skipped, *corpus.skipped))


def _read_document(file: Path, encoding: str | None) -> Document:
    document = read_document(file, encoding)
    if document.form.guessed:
        raise UserError(
            f"{as_utf8(file)} is not UTF-8 text ({document.form.bad_at}); give its encoding as "
            "data.encoding=."
        )
    return document


def _columns(document: Document, columns: Counter[int]) -> Iterator[tuple[str, ...]]:
    """The first two columns of each line; the number of columns is counted."""
    for line in document.lines():
        cells = line.split("\t")
        columns[len(cells)] += 1
        yield tuple(cells[:2])


def _notes_on_columns(name: str, columns: Counter[int]) -> list[str]:
    """A note about lines with more columns than usual, or fewer; lines with a single column are skipped."""
    usual, _ = columns.most_common(1)[0]
    others = sum(count for number, count in columns.items() if number not in (usual, 1))
    if not others:
        return []
    return [
        f"{name}: {counted(others, 'line')} with another number of columns than {usual}, the usual one; the "
        "first two are read"
    ]


def _side_by_side(documents: list[Document], names: list[str]) -> Iterator[tuple[str, ...]]:
    """Line n of the sources with line n of the targets.

    Raises:
        UserError: one has more lines than the other.
    """
    counts = [0, 0]
    for sides in zip_longest(*(document.lines() for document in documents)):
        counts = [count + (side is not None) for count, side in zip(counts, sides, strict=True)]
        yield tuple(side or "" for side in sides)
    if counts[0] != counts[1]:
        raise UserError(
            f"{names[0]} has {counts[0]:,} lines and {names[1]} has {counts[1]:,}; line n of one must be the "
            "translation of line n of the other."
        )


def make_corpus(
    found: Iterable[tuple[str, ...]], origin: str, files: list[Path], swap: bool, least: int = 10
) -> PairCorpus:
    """Pairs out of columns.

    Raises:
        UserError: there are fewer than `least`.
    """
    pairs: list[Pair] = []
    lines: list[int] = []
    empty = 0
    for number, columns in enumerate(found, start=1):
        sides = [fold_spaces(column) for column in columns]
        if len(sides) < 2 or not all(sides):
            empty += 1
            continue
        source, target = sides[::-1] if swap else sides
        pairs.append((source, target))
        lines.append(number)
    if len(pairs) < least:
        raise UserError(
            f"{origin}: {len(pairs)} lines hold a source, a tab and a target, and {least} are needed."
        )
    skipped = (f"{origin}: {counted(empty, 'line')} without two sentences skipped",) if empty else ()
    return PairCorpus(pairs, origin, pairs_sha256(pairs), lines, files, skipped)


def pairs_sha256(pairs: Iterable[Pair]) -> str:
    """The hash of pairs in their order."""
    digest = hashlib.sha256()
    for source, target in pairs:
        digest.update(f"{source}\t{target}\n".encode())
    return digest.hexdigest()
