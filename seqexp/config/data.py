"""Options of the data sets.

A data set's dataclass declares, as class variables, `EXAMPLES` (the kind of its examples, which a task must
read: ``text``, ``pairs``, ``bits``, …) and `TOKENIZES` (the kind of text that its tokenizers must read:
``text``, the default, ``sentences`` or ``bits``).
"""

from dataclasses import dataclass, field, fields
from typing import ClassVar

from omegaconf import MISSING

from seqexp.config.checks import check_choice, check_range, check_rule

TEXT_SPLITS = ("contiguous", "per_file")
PAIR_SPLITS = ("source", "random")


@dataclass
class TextDataConfig:
    """Running text, cut into windows of `seq_len` tokens.

    The text is `path`, ``$SEQEXP_DATA/<name>``, ``./data/<name>``, the download from `url` (which must have
    this `sha256`), or, if `stand_in`, the stand-in book: the first of these that exists. `val_path` and
    `test_path` are files, folders or globs of splits of their own; without `val_path` the validation split is
    cut from the training text, as `split` says, and without `test_path` there is no test split. With
    `carry_state` each row of a batch continues the row of the previous batch. A share `boundary_share` of the
    training windows begins with the document boundary in place of the first token.
    """

    EXAMPLES: ClassVar = "text"
    ADDED: ClassVar = {"val_path": None, "test_path": None}

    name: str = MISSING
    path: str | None = None
    val_path: str | None = None
    test_path: str | None = None
    encoding: str | None = None
    url: str | None = None
    sha256: str | None = None
    stand_in: bool = False
    split: str = "contiguous"
    seq_len: int = 128
    batch_size: int = 16
    carry_state: bool = False
    boundary_share: float = 0.0

    def __post_init__(self) -> None:
        check_choice("data.split", self.split, TEXT_SPLITS)
        check_rule(
            self.split == "contiguous" or not self.val_path,
            f"data.split={self.split} says how validation text is cut from the training text, and "
            "data.val_path names a file of its own: leave one of them out.",
        )
        check_range("data.seq_len", self.seq_len, 2)
        check_range("data.batch_size", self.batch_size, 1)
        check_range("data.boundary_share", self.boundary_share, 0, 1)
        check_rule(
            not (self.carry_state and self.boundary_share),
            "data.boundary_share is for independent windows, and data.carry_state=true makes windows "
            "continue each other: leave one of them out.",
        )
        check_encoding(self.encoding)
        check_rule(
            (self.url is None) == (self.sha256 is None),
            "data.url and data.sha256 go together: the download is checked by its hash.",
        )


@dataclass
class OwnTextConfig(TextDataConfig):
    """The user's own text; `path` is required."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(
            bool(self.path),
            "data.path was not given; write data.path=<a file, a folder of .txt files, or a glob>.",
        )


@dataclass
class ParityDataConfig:
    """Random bits for the parity task.

    Sequences have `seq_len` bits, or a random length from `min_seq_len` to `seq_len` if the former is given.
    `max_seq_len` adds a curriculum: it begins at `seq_len` and grows by `grow_by` whenever the mean training
    loss of `grow_every` steps is below `grow_below`. Runs are validated on `eval_sequences` held-out
    sequences of the longest length, and evaluated on as many of each length in `eval_lengths`.
    """

    EXAMPLES: ClassVar = "bits"
    TOKENIZES: ClassVar = "bits"

    name: str = MISSING
    seq_len: int = 50
    min_seq_len: int | None = None
    max_seq_len: int | None = None
    grow_by: int = 10
    grow_below: float = 0.05
    grow_every: int = 50
    batch_size: int = 10
    eval_sequences: int = 1000
    eval_lengths: list[int] = field(default_factory=lambda: [10, 20, 50, 100, 200, 500, 1000])

    def __post_init__(self) -> None:
        check_range("data.seq_len", self.seq_len, 1)
        check_range("data.min_seq_len", self.min_seq_len, 1)
        check_range("data.max_seq_len", self.max_seq_len, 1)
        check_range("data.grow_by", self.grow_by, 1)
        check_range("data.grow_below", self.grow_below, above=0)
        check_range("data.grow_every", self.grow_every, 1)
        check_range("data.batch_size", self.batch_size, 1)
        check_range("data.eval_sequences", self.eval_sequences, 1, 1_000_000)
        check_lengths("data.eval_lengths", self.eval_lengths)
        check_rule(
            self.min_seq_len is None or self.min_seq_len <= self.seq_len,
            f"data.min_seq_len={self.min_seq_len} is above data.seq_len={self.seq_len}; lengths are drawn "
            "from the one to the other: lower data.min_seq_len or raise data.seq_len.",
        )
        check_rule(
            self.max_seq_len is None or self.max_seq_len >= self.seq_len,
            f"data.max_seq_len={self.max_seq_len} is below data.seq_len={self.seq_len}, where the curriculum "
            "begins: raise data.max_seq_len or lower data.seq_len.",
        )


@dataclass
class ParallelDataConfig:
    """Pairs of sentences, for translation.

    They are read from `path`, a file (packed or not) with lines of source, tab, target; or from `source_path`
    and `target_path`, line by line. Otherwise they are read from ``$SEQEXP_DATA/<name>`` or
    ``./data/<name>``, or downloaded from `url` (which must have this `sha256`). Validation and test pairs are
    in `val_path` and `test_path`, or `val_source_path` and so on; without these they are cut from the
    training pairs, as `split` says. `swap` exchanges source and target. A batch has sentences of similar
    length: up to `batch_tokens` tokens of the longer side, padding included, or `batch_size` pairs if this is
    given. Training skips pairs with more than `max_seq_len` tokens on a side.
    """

    EXAMPLES: ClassVar = "pairs"
    TOKENIZES: ClassVar = "sentences"
    ADDED: ClassVar = dict.fromkeys(
        f"{split}_{kind}path" for split in ("val", "test") for kind in ("", "source_", "target_")
    )

    name: str = MISSING
    path: str | None = None
    source_path: str | None = None
    target_path: str | None = None
    val_path: str | None = None
    val_source_path: str | None = None
    val_target_path: str | None = None
    test_path: str | None = None
    test_source_path: str | None = None
    test_target_path: str | None = None
    encoding: str | None = None
    url: str | None = None
    sha256: str | None = None
    swap: bool = False
    split: str = "source"
    batch_tokens: int = 4096
    batch_size: int | None = None
    max_seq_len: int = 100

    def __post_init__(self) -> None:
        check_choice("data.split", self.split, PAIR_SPLITS)
        check_range("data.batch_tokens", self.batch_tokens, 1)
        check_range("data.batch_size", self.batch_size, 1)
        check_range("data.max_seq_len", self.max_seq_len, 1)
        check_encoding(self.encoding)
        for split in ("", "val_", "test_"):
            check_pair_paths(*self.files_of(split), prefix=split)
        check_rule(
            self.split == "source" or not (any(self.files_of("val_")) and any(self.files_of("test_"))),
            f"data.split={self.split} says how validation and test pairs are cut from the training pairs, "
            "and both have files of their own: leave data.split out.",
        )
        check_rule(
            (self.url is None) == (self.sha256 is None),
            "data.url and data.sha256 go together: the download is checked by its hash.",
        )

    def files_of(self, prefix: str) -> tuple[str | None, str | None, str | None]:
        """The files of pairs, of sources and of targets: of training (``""``), ``val_`` or ``test_``."""
        one, source, target = (
            getattr(self, f"{prefix}{key}") for key in ("path", "source_path", "target_path")
        )
        return one, source, target


@dataclass
class OwnPairsConfig(ParallelDataConfig):
    """The user's own pairs; files are required."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(
            bool(self.path or self.source_path),
            "no sentences were given; write data.source_path=<file> data.target_path=<file>, or data.path=<a "
            "file of lines with source, tab, target>.",
        )


@dataclass
class PhrasebookConfig(ParallelDataConfig):
    """Generated pairs, without files."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(
            not any(path for prefix in ("", "val_", "test_") for path in self.files_of(prefix)),
            f"data={self.name} needs no file; for pairs of your own use data=parallel.",
        )


@dataclass
class OtherDataConfig:
    """Other data for `eval` than the run's own held-out split: a text, pairs, or lengths of bit sequences.

    With `label_path` line n of it is the label of line n of `path`.
    """

    path: str | None = None
    label_path: str | None = None
    source_path: str | None = None
    target_path: str | None = None
    encoding: str | None = None
    lengths: list[int] | None = None
    sequences: int | None = None

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        check_pair_paths(self.path, self.source_path, self.target_path)
        check_rule(
            self.label_path is None or self.path is not None,
            "data.label_path has the labels of the lines of data.path; give both.",
        )
        check_lengths("data.lengths", self.lengths)
        check_range("data.sequences", self.sequences, 1, 1_000_000)

    def refuse_all_but(self, allowed: tuple[str, ...]) -> None:
        """Check that only `allowed` settings, those that the run's data reads, are given.

        Raises:
            UserError: naming the settings that were given, and those that are allowed.
        """
        given = [spec.name for spec in fields(self) if getattr(self, spec.name) is not None]
        wrong = [f"data.{name}=" for name in given if name not in allowed]
        rest = (
            f"use {', '.join(f'data.{name}=' for name in allowed)}, or leave them out"
            if allowed
            else ("leave them out")
        )
        check_rule(not wrong, f"{', '.join(wrong)}: the data of this run has no such setting; {rest}.")


def check_pair_paths(
    path: str | None, source_path: str | None, target_path: str | None, prefix: str = ""
) -> None:
    """Check that either one file of pairs is given, or both a source and a target file.

    `prefix` is that of the settings' names, such as ``val_``.

    Raises:
        UserError: one file of two is missing, or all are given.
    """
    check_rule(
        (source_path is None) == (target_path is None),
        f"data.{prefix}source_path and data.{prefix}target_path go together: line n of one is the "
        "translation of line n of the other.",
    )
    check_rule(
        path is None or source_path is None,
        f"data.{prefix}path and data.{prefix}source_path were both given; give one file of pairs, or two "
        "files.",
    )


def check_lengths(key: str, lengths: list[int] | None) -> None:
    """Check that all lengths are from 1 to 100,000.

    Raises:
        UserError: naming the first length out of this range.
    """
    for length in lengths or []:
        check_range(key, length, 1, 100_000)


def check_encoding(encoding: str | None) -> None:
    """Check that Python knows the text encoding.

    Raises:
        UserError: with examples of encodings.
    """
    if encoding is None:
        return
    try:
        "".encode(encoding)
        known = True
    except (LookupError, ValueError):
        known = False
    check_rule(
        known,
        f"data.encoding={encoding} is not known; use utf-8, latin-1, cp1252 or another of Python's "
        "text encodings, or leave it out.",
    )
