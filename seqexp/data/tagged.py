"""Read tagged words: columns of CoNLL files, and CoNLL-U."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seqexp.config.tagged import UNIVERSAL_TAGS, TaggedConfig
from seqexp.data.example_files import SPLITS, find_split_files
from seqexp.data.lines import DecodedText, read_text
from seqexp.errors import UserError
from seqexp.files import as_utf8
from seqexp.quoting import counted

# A line that begins with this separates documents (CoNLL-2003).
DOCUMENT_START = "-DOCSTART-"
# CoNLL-U: the number of columns, the column of words, and the ids of words and of other rows (1-2, 1.1).
UNIVERSAL_COLUMNS, FORM = 10, 1
WORD_ID, OTHER_ID = re.compile(r"[0-9]+"), re.compile(r"[0-9]+[-.][0-9]+")
NO_TAG = "_"


@dataclass(frozen=True)
class Sentence:
    """Words with a tag each; `where` is the file and the line of the first word, for messages."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    where: str = ""


@dataclass(frozen=True)
class TaggedCorpus:
    """Sentences by split, with the hash of everything that was read, and notes for the user."""

    splits: dict[str, list[Sentence]]
    origin: str
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        sentences = (sentence for some in self.splits.values() for sentence in some)
        object.__setattr__(self, "sha256", sentences_sha256(sentences))


def sentences_sha256(sentences: Iterable[Sentence]) -> str:
    """Return the hash of words and tags, in order."""
    digest = hashlib.sha256()
    for one in sentences:
        digest.update(json.dumps([one.words, one.tags], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def find_tagged(config: TaggedConfig) -> TaggedCorpus:
    """Read the files that the configuration names, and cut missing splits from training.

    Raises:
        UserError: a file is missing or malformed (the message names the line), or a split is empty.
    """
    found, origin = find_split_files(config)
    notes: list[str] = []
    splits = {split: read_tagged(path, config, notes) for split, path in found.items()}
    files = tuple(as_utf8(path) for path in found.values())
    return TaggedCorpus(with_all_splits(splits), origin, files, tuple(notes))


def with_all_splits(splits: dict[str, list[Sentence]]) -> dict[str, list[Sentence]]:
    """Cut a tenth of the training sentences, at least one, for each missing split.

    Which ones depends on their number alone.
    """
    train, made = splits["train"], dict(splits)
    for number, name in enumerate(("val", "test")):
        if name in made:
            continue
        if len(train) < 2:
            raise UserError(
                f"{counted(len(splits['train']), 'training sentence')} cannot be cut into training, "
                f"validation and test; give more, or data.{name}_path=."
            )
        order = np.random.default_rng(number).permutation(len(train))
        chosen = set(order[: max(1, len(train) // 10)].tolist())
        made[name] = [sentence for index, sentence in enumerate(train) if index in chosen]
        train = [sentence for index, sentence in enumerate(train) if index not in chosen]
    made["train"] = train
    return {name: made[name] for name in SPLITS}


def tag_counts(sentences: Iterable[Sentence]) -> Counter[str]:
    """Count the words of each tag."""
    return Counter(tag for sentence in sentences for tag in sentence.tags)


def usual_tags(sentences: Iterable[Sentence]) -> dict[str, str]:
    """Return the most frequent tag of each word; of equally frequent ones the first in the alphabet."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            counts[word][tag] += 1
    return {word: min((-n, tag) for tag, n in tags.items())[1] for word, tags in counts.items()}


# Formats

# The number of a line, its word and its tag; None between sentences.
Row = tuple[int, str, str] | None


def read_tagged(path: Path, config: TaggedConfig, notes: list[str] | None = None) -> list[Sentence]:
    """Read the sentences of one split; append to `notes` what was not read as it is.

    Raises:
        UserError: naming the file and the line.
    """
    if path.is_dir():
        raise UserError(f"{as_utf8(path)} is a folder; give a file of tagged words.")
    text = read_text(path, config.encoding)
    if notes is not None:
        notes.extend(text.notes)
    name = as_utf8(path)
    universal = config.format == "conllu" or (config.format == "auto" and _looks_universal(path, text))
    rows = _universal_rows(text, name, config) if universal else _column_rows(text, name, config)
    sentences, now = [], []
    for row in rows:
        if row is not None:
            now.append(row)
        elif now:
            sentences.append(_sentence(now, name))
            now = []
    if now:
        sentences.append(_sentence(now, name))
    if not sentences:
        raise UserError(f"{name} has no tagged words.")
    return sentences


def _sentence(rows: list[tuple[int, str, str]], name: str) -> Sentence:
    _, words, tags = zip(*rows, strict=True)
    return Sentence(words, tags, f"{name}, line {rows[0][0]}")


def _looks_universal(path: Path, text: DecodedText) -> bool:
    """Whether a file is CoNLL-U, by its name, or by its first row: ten columns, and the first is 1 or 1-2."""
    if ".conllu" in path.suffixes:
        return True
    first = next((line for line in text.lines if line.strip() and not line.startswith("#")), "")
    cells = first.split("\t")
    return len(cells) == UNIVERSAL_COLUMNS and re.fullmatch(r"1(-[0-9]+)?", cells[0]) is not None


def _column_rows(text: DecodedText, name: str, config: TaggedConfig) -> Iterator[Row]:
    """Columns between tabs, or between spaces in lines without tabs; all rows have the same number."""
    if config.tag_column in UNIVERSAL_TAGS:
        raise UserError(
            f"data.tag_column={config.tag_column} is a column of CoNLL-U, and {name} has CoNLL columns; give "
            "an index from 0, or data.format=conllu."
        )
    width = 0
    for number, line in enumerate(text.lines, start=1):
        if not line.strip() or line.startswith(DOCUMENT_START):
            yield None
            continue
        where = f"{name}, line {number}"
        cells = line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))
        width = width or _checked_width(len(cells), where, config)
        if len(cells) != width:
            raise UserError(
                f"{where}: expected {counted(width, 'column')}, as in the first row, got {len(cells)}: "
                f"{line[:60]!r}."
            )
        tag_column = width - 1 if config.tag_column is None else int(config.tag_column)
        yield _row(number, cells[config.word_column], cells[tag_column], where, line)


def _checked_width(width: int, where: str, config: TaggedConfig) -> int:
    """Return the number of columns; raise UserError if it lacks the columns of words or tags."""
    wanted = {"word_column": config.word_column}
    if config.tag_column is not None:
        wanted["tag_column"] = int(config.tag_column)
    for key, column in wanted.items():
        if column >= width:
            raise UserError(
                f"{where} has {counted(width, 'column')}, so data.{key}={column} does not exist; give an "
                f"index from 0 to {width - 1}."
            )
    if width < 2 or (config.tag_column is None and config.word_column == width - 1):
        raise UserError(
            f"{where}: expected a word and its tag in two columns between tabs or spaces, got "
            f"{counted(width, 'column')} with data.word_column={config.word_column}."
        )
    return width


def _universal_rows(text: DecodedText, name: str, config: TaggedConfig) -> Iterator[Row]:
    """CoNLL-U (universaldependencies.org/format.html), without comments, multiword tokens and empty nodes."""
    if config.word_column or config.tag_column not in (None, *UNIVERSAL_TAGS):
        raise UserError(
            f"data.word_column and numbers in data.tag_column are for CoNLL columns, and {name} is CoNLL-U; "
            f"give data.tag_column={' or '.join(UNIVERSAL_TAGS)}, or data.format=conll."
        )
    column = config.tag_column or "upos"
    for number, line in enumerate(text.lines, start=1):
        if not line.strip():
            yield None
            continue
        if line.startswith("#"):
            continue
        where, cells = f"{name}, line {number}", line.split("\t")
        if len(cells) != UNIVERSAL_COLUMNS:
            raise UserError(
                f"{where}: expected the {UNIVERSAL_COLUMNS} columns of CoNLL-U between tabs, got "
                f"{len(cells)}: {line[:60]!r}."
            )
        if OTHER_ID.fullmatch(cells[0]):
            continue
        if not WORD_ID.fullmatch(cells[0]):
            raise UserError(f"{where}: expected the id of a word, such as 1, 1-2 or 1.1, got {cells[0]!r}.")
        tag = cells[UNIVERSAL_TAGS[column]]
        if tag == NO_TAG:
            other = next(one for one in UNIVERSAL_TAGS if one != column)
            raise UserError(
                f"{where}: the word {cells[FORM]!r} has no {column}; add it, or use data.tag_column={other}."
            )
        yield _row(number, cells[FORM], tag, where, line)


def _row(number: int, word: str, tag: str, where: str, line: str) -> Row:
    word, tag = word.strip(" "), tag.strip(" ")
    if not word or not tag:
        raise UserError(f"{where}: there is no {'tag' if word else 'word'}: {line[:60]!r}.")
    return number, word, tag
