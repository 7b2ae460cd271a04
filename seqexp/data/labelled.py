"""Read labelled texts: tables, folders, fastText's lines, and files of texts beside files of labels."""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqexp.config.labelled import LabelledConfig
from seqexp.data.example_files import SPLITS, find_split_files
from seqexp.data.lines import ORDINARY_SPACES, DecodedText, fold_spaces, read_text
from seqexp.errors import UserError, suggest
from seqexp.files import as_utf8
from seqexp.quoting import counted

FASTTEXT_PREFIX = "__label__"
SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
PACKED = (".gz", ".bz2", ".xz", ".zip")
# Limit for the longest cell of a table, in characters.
MOST_CHARACTERS = 10_000_000
WORD_BOUNDARY = "\u2581"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Example:
    """A text, or a pair of texts, with its labels; `where` is its file and line for messages."""

    text: str
    labels: tuple[str, ...]
    pair: str | None = None
    where: str = ""


@dataclass(frozen=True)
class LabelledCorpus:
    """Examples by split, with the hash of everything that was read, and notes for the user."""

    splits: dict[str, list[Example]]
    origin: str
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    generated: bool = False
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", examples_sha256(e for some in self.splits.values() for e in some))


def examples_sha256(examples: Any) -> str:
    """Return the hash of examples: texts and labels, in order."""
    digest = hashlib.sha256()
    for one in examples:
        digest.update(json.dumps([one.text, one.pair, one.labels], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def find_labelled(config: LabelledConfig) -> LabelledCorpus:
    """Read the files that the configuration names, and cut missing splits from training.

    Raises:
        UserError: a file is missing or malformed (the message names the line), or a split is empty.
    """
    found, origin = find_split_files(config)
    labels, _ = find_split_files(config, "label_")
    notes: list[str] = []
    splits = {split: read_labelled(path, config, labels.get(split), notes) for split, path in found.items()}
    files = tuple(as_utf8(some[split]) for split in found for some in (found, labels) if split in some)
    return LabelledCorpus(with_all_splits(splits), origin, files, tuple(notes))


def with_all_splits(splits: dict[str, list[Example]]) -> dict[str, list[Example]]:
    """Cut a tenth of the training examples, stratified by label, for each missing split.

    The cut depends on the examples alone.
    """
    train, made = splits["train"], dict(splits)
    sizes = Counter(example.labels for example in train)
    for number, name in enumerate(("val", "test")):
        if name in made:
            continue
        by_label: dict[tuple[str, ...], list[int]] = {}
        for index, example in enumerate(train):
            by_label.setdefault(example.labels, []).append(index)
        draw = np.random.default_rng(number)
        chosen: set[int] = set()
        for label in sorted(by_label):
            # Round up for classes of three examples or more, so that every split has all of them.
            count = max(sizes[label] // 10, int(sizes[label] > 2))
            chosen.update(draw.permutation(by_label[label])[:count].tolist())
        made[name] = [example for index, example in enumerate(train) if index in chosen]
        train = [example for index, example in enumerate(train) if index not in chosen]
        if not made[name]:
            raise UserError(
                f"{counted(len(train), 'example')} with {counted(len(by_label), 'label')} are too few to cut "
                f"a {name} split from them; give data.{name}_path=."
            )
    made["train"] = train
    return {name: made[name] for name in SPLITS}


def sampled(examples: list[Example], count: int, seed: int) -> list[Example]:
    """Return `count` examples in their order, drawn from `seed`, with the labels' shares of all examples.

    Raises:
        UserError: there are fewer examples.
    """
    if count > len(examples):
        raise UserError(
            f"data.train_examples={count} is more than there are ({len(examples):,}); leave it out for all."
        )
    draw = np.random.default_rng([seed, count])
    by_label: dict[tuple[str, ...], list[int]] = {}
    for index in draw.permutation(len(examples)).tolist():
        by_label.setdefault(examples[index].labels, []).append(index)
    # Example k of a label with n has rank (k + 1/2) / n: the lowest ranks have every label's share.
    ranks = [
        ((k + 0.5) / len(members), index) for members in by_label.values() for k, index in enumerate(members)
    ]
    return [examples[index] for index in sorted(index for _, index in sorted(ranks)[:count])]


# Formats


def read_labelled(
    path: Path, config: LabelledConfig, label_path: Path | None = None, notes: list[str] | None = None
) -> list[Example]:
    """Read the examples of one split; append to `notes` what was not read as it is.

    Raises:
        UserError: naming the file, and the line where there is one.
    """
    notes = [] if notes is None else notes
    rows: Iterable[Row]
    if label_path is not None:
        rows = _two_files(path, label_path, config, notes)
    elif path.is_dir() or config.format == "folders":
        rows = _folders(path, config, notes)
    else:
        kind = _format_of(path, config.format)
        if kind == "parquet":
            rows = _parquet(path, config)
        else:
            text = read_text(path, config.encoding)
            notes.extend(text.notes)
            if kind == "auto":
                kind = _sniffed(text, path)
            if kind in ("csv", "tsv"):
                rows = _table(text, as_utf8(path), config, kind, notes)
            else:
                reader = _json_lines if kind == "jsonl" else _label_lines
                rows = reader(text, as_utf8(path), config, kind)
    examples = [_example(*row, config) for row in rows]
    if not examples:
        raise UserError(f"{as_utf8(path)} has no examples.")
    empty = [example for example in examples if not example.text]
    if empty:
        notes.append(
            f"{counted(len(empty), 'text')} of {as_utf8(path)} empty ({empty[0].where} is the first)"
        )
    return examples


def _example(
    text: str, pair: str | None, label: str | list[str], where: str, config: LabelledConfig
) -> Example:
    if config.multilabel:
        given = label.split(config.label_separator) if isinstance(label, str) else label
        labels = tuple(sorted({fold_spaces(one) for one in given} - {""}))
    else:
        labels = (fold_spaces(label if isinstance(label, str) else label[0]),)
        if not labels[0]:
            raise UserError(f"{where}: there is no label.")
    if config.label_until:
        labels = tuple(dict.fromkeys(one.partition(config.label_until)[0] for one in labels))
    if config.label_names:
        labels = tuple(_named(one, config.label_names, where) for one in labels)
    clean = [
        None if one is None else fold_spaces(_joined(one) if config.pieces else one) for one in (text, pair)
    ]
    return Example(clean[0] or "", labels, clean[1], where)


def _named(label: str, names: list[str], where: str) -> str:
    if not (label.isdecimal() and int(label) < len(names)):
        raise UserError(f"{where}: label {label!r} is not a number from 0 to {len(names) - 1}.")
    return names[int(label)]


def _joined(pieces: str) -> str:
    return pieces.replace(" ", "").replace(WORD_BOUNDARY, " ")


# Text, second text, label (or a list of labels), and where they are.
Row = tuple[str, str | None, str | list[str], str]


def _format_of(path: Path, wanted: str) -> str:
    if wanted != "auto":
        return wanted
    name = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return SUFFIXES.get(name.suffix.lower(), "auto")


def _sniffed(text: DecodedText, path: Path) -> str:
    """Return the format of a file whose name does not tell."""
    first = next((line for line in text.lines if line.strip()), "")
    if first.startswith(FASTTEXT_PREFIX):
        return "fasttext"
    if "\t" in first:
        return "tsv"
    raise UserError(
        f"{as_utf8(path)}: the format is not known from its name; give data.format=csv, tsv, jsonl, "
        "parquet, fasttext or label_first."
    )


def _two_files(path: Path, label_path: Path, config: LabelledConfig, notes: list[str]) -> Iterator[Row]:
    texts, labels = (read_text(file, config.encoding) for file in (path, label_path))
    notes.extend([*texts.notes, *labels.notes])
    names = [as_utf8(path), as_utf8(label_path)]
    if len(texts.lines) != len(labels.lines):
        raise UserError(
            f"{names[0]} has {counted(len(texts.lines), 'line')} and {names[1]} has {len(labels.lines):,}; "
            "line n of one must be the label of line n of the other."
        )
    for number, (text, label) in enumerate(zip(texts.lines, labels.lines, strict=True), start=1):
        yield text, None, label, f"{names[0]}, line {number}"


def _folders(folder: Path, config: LabelledConfig, notes: list[str]) -> Iterator[Row]:
    """One folder for each label, with one text in each file."""
    if not folder.is_dir() or config.format not in ("auto", "folders"):
        kind = "folder" if folder.is_dir() else "file"
        raise UserError(f"data.format={config.format}: {as_utf8(folder)} is a {kind}; use data.format=auto.")
    labels = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    if not labels:
        raise UserError(
            f"{as_utf8(folder)} has no folders; put the texts of each label into a folder of its name."
        )
    for label in labels:
        for file in sorted(one for one in label.iterdir() if one.is_file() and not one.name.startswith(".")):
            text = read_text(file, config.encoding)
            notes.extend(text.notes)
            yield text.text, None, label.name, as_utf8(file)


def _label_lines(text: DecodedText, name: str, config: LabelledConfig, kind: str) -> Iterator[Row]:
    """Lines that begin with their label, or with fastText's ``__label__x`` once or more."""
    for number, line in enumerate(text.lines, start=1):
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        labels, rest = [], line.strip()
        if kind == "label_first":
            label, rest = _first_word(rest)
            labels = [label]
        else:
            while rest.startswith(FASTTEXT_PREFIX):
                label, rest = _first_word(rest)
                labels.append(label.removeprefix(FASTTEXT_PREFIX))
        if not labels or (len(labels) > 1 and not config.multilabel):
            expected = "a text and one label" if labels else f"{FASTTEXT_PREFIX}x before the text"
            raise UserError(
                f"{where}: expected {expected}, got {line[:60]!r}"
                + ("; several labels a text need data.multilabel=true." if labels else ".")
            )
        yield rest, None, labels, where


def _first_word(line: str) -> tuple[str, str]:
    word, *rest = ORDINARY_SPACES.split(line, maxsplit=1)
    return word, rest[0] if rest else ""


def _table(text: DecodedText, name: str, config: LabelledConfig, kind: str, notes: list[str]) -> list[Row]:
    """Rows of a CSV or TSV file with a header."""
    csv.field_size_limit(MOST_CHARACTERS)
    if kind == "csv":
        return list(_cells(text, name, config, delimiter=","))
    try:
        return list(_cells(text, name, config, delimiter="\t"))
    except UserError:
        # Some programs write TSV without quoting, so that a quotation mark is a character like any other.
        with suppress(UserError):
            rows = list(_cells(text, name, config, delimiter="\t", quoting=csv.QUOTE_NONE))
            notes.append(f"{name}: quotation marks are read as they stand, since they do not enclose fields")
            return rows
        raise


def _cells(text: DecodedText, name: str, config: LabelledConfig, **form: Any) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text.text), strict=True, **form)
    line = 0
    try:
        header = [column.strip() for column in next(reader, [])]
        chosen = _columns(header, name, config)
        line = reader.line_num
        for row in reader:
            # A row may have line breaks inside quotation marks: its first line counts.
            where, line = f"{name}, line {line + 1}", reader.line_num
            if not any(row):
                continue
            if len(row) != len(header):
                raise UserError(f"{where}: {counted(len(row), 'column')}, and the header has {len(header)}.")
            cells = [None if column is None else row[column] for column in chosen]
            yield str(cells[0]), cells[1], str(cells[2]), where
    except csv.Error as error:
        raise UserError(f"{name}, line {line + 1}: {error}; check the quotes and data.format.") from error


def _columns(header: list[str], name: str, config: LabelledConfig) -> list[int | None]:
    found: list[int | None] = []
    for key in ("text", "text_pair", "label"):
        column = getattr(config, key)
        if column is not None and column not in header:
            raise UserError(
                f"{name} has no column {column!r} (data.{key}); it has {', '.join(header) or 'none'}."
                + suggest(column, header)
            )
        found.append(None if column is None else header.index(column))
    return found


def _json_lines(text: DecodedText, name: str, config: LabelledConfig, kind: str) -> Iterator[Row]:
    del kind
    for number, line in enumerate(text.lines, start=1):
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object with {config.text} and {config.label}.")
        yield _of_record(row, where, config)


def _parquet(path: Path, config: LabelledConfig) -> Iterator[Row]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("parquet files need the package pyarrow; run: pip install pyarrow") from error
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"{as_utf8(path)} is not a parquet file ({str(error).splitlines()[0]}).") from error
    for number, row in enumerate(rows, start=1):
        yield _of_record(row, f"{as_utf8(path)}, row {number}", config)


def _of_record(row: dict[str, Any], where: str, config: LabelledConfig) -> Row:
    cells: list[Any] = []
    for key in ("text", "text_pair", "label"):
        column = getattr(config, key)
        if column is None:
            cells.append(None)
            continue
        if row.get(column) is None:
            raise UserError(
                f"{where} has no {column!r} (data.{key}); it has {', '.join(map(str, row))}."
                + suggest(column, [str(one) for one in row])
            )
        cells.append(row[column])
    text, pair, label = cells
    for value, key in ((text, "text"), (pair, "text_pair")):
        if value is not None and not isinstance(value, str):
            raise UserError(f"{where}: {getattr(config, key)!r} is not text.")
    if isinstance(label, list) and config.multilabel:
        return _whole(text), _whole(pair), [_whole(str(one)) for one in label], where
    if isinstance(label, dict | list):
        raise UserError(f"{where}: {config.label!r} has several values; use data.multilabel=true.")
    return _whole(text), _whole(pair), _whole(str(label)), where


def _whole(text: Any) -> Any:
    """Replace lone surrogates with U+FFFD; JSON can have them, and they cannot be encoded."""
    return None if text is None else LONE_SURROGATE.sub("\ufffd", text)


def label_counts(examples: list[Example]) -> Counter[str]:
    """Count the examples of each label."""
    return Counter(label for example in examples for label in example.labels)
