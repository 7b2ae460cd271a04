"""Running text as windows of tokens: what language models are trained and judged on."""

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from seqexp.config.data import OtherDataConfig, TextDataConfig
from seqexp.data.base import Data, check_same_corpus
from seqexp.data.batch import Batch
from seqexp.data.download import download
from seqexp.data.encoded import LONG_LINE, Part, encode_corpus, texts_of
from seqexp.data.fitting import fit_tokenizer
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.shuffle import ROUNDS, permute
from seqexp.data.sources import (
    Corpus,
    Document,
    find_files,
    find_in_usual_places,
    read_document,
)
from seqexp.data.stand_in import TITLE, stand_in_book
from seqexp.errors import UserError
from seqexp.files import as_utf8

log = logging.getLogger(__name__)

# Tokens in one batch of validation: enough to keep the machine busy, little enough for any memory.
EVAL_TOKENS = 8192


def find_corpus(config: TextDataConfig) -> Corpus:
    """The documents of a data set: given path, usual places, download, stand-in, in this order.

    Raises:
        UserError: none of these has any, or a file is not text.
    """
    held_out = {
        name: read_corpus(find_files(path, f"data.{name}_path"), f"data.{name}_path={path}", config.encoding)
        for name, path in (("val", config.val_path), ("test", config.test_path))
        if path
    }
    return replace(_find_training_corpus(config), held_out=held_out)


def _find_training_corpus(config: TextDataConfig) -> Corpus:
    if config.path:
        return read_corpus(find_files(config.path), f"data.path={config.path}", config.encoding)
    found = find_in_usual_places(config.name)
    if found:
        return read_corpus(found[0], found[1], config.encoding)
    if config.url and config.sha256:
        file = download(config.url, config.sha256, f"{config.name}.txt")
        return read_corpus([file], config.url, config.encoding)
    ways = (
        "to use your own files, give data.path=<file, folder or glob>, or put them at "
        f"$SEQEXP_DATA/{config.name}/*.txt or ./data/{config.name}/*.txt"
    )
    if not config.stand_in:
        raise UserError(f"data={config.name}: no files were found; {ways}.")
    corpus = read_corpus([stand_in_book()], f"stand-in: {TITLE}", None)
    reason = f"data={config.name} found no files, so {TITLE!r} (public domain) stands in; {ways}."
    return replace(corpus, stand_in=reason)


def read_corpus(files: list[Path], origin: str, encoding: str | None) -> Corpus:
    """Read the files as one corpus; say what is replaced in them or not read.

    Raises:
        UserError: a file is not text.
    """
    corpus = Corpus(tuple(read_document(file, encoding) for file in files), as_utf8(origin))
    for note in corpus.notes:
        log.warning("NOTE: %s", note)
    return corpus


class TextData(Data):
    """Windows of `config.seq_len` tokens of a corpus. Validation is whole and in order."""

    def __init__(
        self, config: TextDataConfig, corpus: Corpus, preprocessor: Preprocessor, split: str, seed: int
    ) -> None:
        self.config, self.corpus, self.preprocessor, self.seed = config, corpus, preprocessor, seed
        self.tokenizer = preprocessor["text"]
        self.splits: dict[str, Part] = encode_corpus(corpus, split, self.tokenizer)
        for name, part in self.splits.items():
            if part.unknown and not self.tokenizer.lossy:
                log.warning(
                    "NOTE: %s: %d of %d characters were never seen in training (%s); they cost their bits "
                    "as unknown", name, part.unknown, part.characters, part.unknown_characters,
                )  # fmt: skip
            if part.seen_lines:
                log.warning(
                    "NOTE: %s: %s of %s lines of at least %d characters (%.1f %%) also stand in training",
                    name, f"{part.seen_lines:,}", f"{part.long_lines:,}", LONG_LINE,
                    100 * part.seen_lines / part.long_lines,
                )  # fmt: skip

    @classmethod
    def build(
        cls,
        config: TextDataConfig,
        tokenizer: Any = None,
        seed: int = 1,
        preprocessor: Preprocessor | None = None,
    ) -> "TextData":
        """Find the corpus, fit the tokenizer on its training split unless there is one, encode.

        Raises:
            UserError: no corpus, or too short for one window.
        """
        corpus = find_corpus(config)
        if preprocessor is None:
            assert tokenizer is not None
            training = texts_of(corpus, config.split, "train")
            fitted = fit_tokenizer(tokenizer, training, ["text", corpus.sha256, config.split])
            preprocessor = Preprocessor({"text": fitted})
        else:
            preprocessor = Preprocessor({"text": preprocessor["text"]})
        data = cls(config, corpus, preprocessor, config.split, seed)
        for name, part in data.splits.items():
            need = config.seq_len + 1 if name == "train" else 2
            if part.tokens < need:
                raise UserError(
                    f"the corpus is too short: its {name} split has {part.characters} characters "
                    f"({part.tokens} tokens), and a window needs {need}. Give more text, or lower "
                    f"data.seq_len={config.seq_len}."
                )
        if config.carry_state and data.windows_per_epoch < config.batch_size:
            raise UserError(
                f"the training split has {data.windows_per_epoch} windows of data.seq_len={config.seq_len}, "
                f"too few for {config.batch_size} rows that go on from batch to batch; lower "
                "data.batch_size or data.seq_len, or use data.carry_state=false."
            )
        return data

    @classmethod
    def for_evaluation(
        cls,
        config: TextDataConfig,
        preprocessor: Preprocessor,
        manifest: dict[str, Any],
        other: OtherDataConfig,
        seed: int,
    ) -> "TextData":
        """The text that `other` names, or that the run was trained on, found by its files or as the run did.

        Raises:
            UserError: it is not there, or is not the same, or `other` asks for data that is not text.
        """
        del seed
        other.refuse_all_but(("path", "encoding"))
        if other.path:
            return cls.of_text(config, preprocessor, other.path, other.encoding)
        corpus = _recorded_corpus(config, manifest) or find_corpus(config)
        check_same_corpus(manifest, {"sha256": corpus.sha256, "origin": corpus.origin})
        return cls(config, corpus, preprocessor, config.split, seed=0)

    @classmethod
    def of_text(
        cls, config: TextDataConfig, preprocessor: Preprocessor, path: str, encoding: str | None
    ) -> "TextData":
        """All of another text, as one split named ``all``.

        Raises:
            UserError: no such file, or not text.
        """
        corpus = read_corpus(find_files(path), f"data.path={path}", encoding)
        return cls(config, corpus, preprocessor, "all", seed=0)

    def check_split(self, split: str) -> None:
        if split == "test" and split not in self.splits and "train" in self.splits:
            raise UserError(
                f"split=test does not exist; choose from {', '.join(self.splits)}. A run trained with "
                "data.test_path= has a test split; evaluate split=val, or another text with data.path=."
            )
        super().check_split(split)

    @property
    def carries_state(self) -> bool:  # type: ignore[override]
        """Whether batches go on row by row, so that a recurrent model may carry its state."""
        return bool(self.config.carry_state)

    @cached_property
    def windows_per_epoch(self) -> int:
        return max(1, (self.splits["train"].tokens - self.config.seq_len) // self.config.seq_len)

    @property
    def steps_per_epoch(self) -> float:
        if self.carries_state:
            return self._windows_per_row
        return self.windows_per_epoch / self.config.batch_size

    @property
    def _windows_per_row(self) -> int:
        """Where rows go on from batch to batch: how many windows each has in an epoch."""
        return max(1, self.windows_per_epoch // self.config.batch_size)

    def train_batch(self, step: int) -> Batch:
        """The batch of step 0, 1, 2, …: a pure function of seed and step.

        In each epoch the text is cut into windows from another start, and they come in another order; or,
        where state is carried, one after the other in as many rows as a batch has.
        """
        length, size = self.config.seq_len, self.config.batch_size
        if self.carries_state:
            epoch, column = divmod(step, self._windows_per_row)
            _, phase = self._epoch(epoch)
            starts = phase + (np.arange(size) * self._windows_per_row + column) * length
            windows = self.splits["train"].windows(starts, length + 1)
            return replace(Batch.from_windows(windows, np.full(size, length)), continues=column > 0)
        count = np.arange(step * size, (step + 1) * size, dtype=np.int64)
        epochs, positions = np.divmod(count, self.windows_per_epoch)
        starts = np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            order, phase = self._epoch(int(epoch))
            starts[here] = permute(positions[here], self.windows_per_epoch, order) * length + phase
        windows = self.splits["train"].windows(starts, length + 1)
        # Documents are few: without these a model hardly ever meets the boundary that exams begin with.
        share = self.config.boundary_share
        windows[np.floor((count + 1) * share) > np.floor(count * share), 0] = self.tokenizer.bos_id
        return Batch.from_windows(windows, np.full(size, length))

    def _epoch(self, epoch: int) -> tuple[Any, int]:
        """The keys of the epoch's order, and where its first window starts."""
        *keys, draw = np.random.SeedSequence([self.seed, epoch]).generate_state(ROUNDS + 1, np.uint64)
        length = self.config.seq_len
        slack = self.splits["train"].tokens - self.windows_per_epoch * length
        return np.array(keys, dtype=np.uint64), int(draw % np.uint64(slack))

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """The whole split once, in windows that follow each other; the last one is padded."""
        part, length = self.splits[split], self.config.seq_len
        starts = np.arange(0, part.tokens - 1, length, dtype=np.int64)
        if self.carries_state:
            rows = min(self.config.batch_size, len(starts))
            columns = -(-len(starts) // rows)
            batches = [(np.arange(rows) * columns + column) * length for column in range(columns)]
        else:
            rows = max(1, EVAL_TOKENS // length)
            batches = [starts[first : first + rows] for first in range(0, len(starts), rows)]
        for number, some in enumerate(batches):
            # Rows of carried state may end before the others: what is left of them is padding.
            lengths = np.clip(part.tokens - 1 - some, 0, length)
            batch = Batch.from_windows(part.windows(some, length + 1), lengths)
            yield replace(batch, continues=self.carries_state and number > 0)

    def eval_count(self, split: str) -> int:
        """The number of targets that `eval_batches` holds in all."""
        return self.splits[split].tokens - 1

    def characters(self, split: str) -> int:
        """The number of characters of text that these targets stand for."""
        return self.splits[split].characters

    def some_text(self, split: str, characters: int) -> str | None:
        """Return the first whole words of a split without unknown characters, or None."""
        for text in self.texts(split):
            # The first line may begin inside a word.
            for line in text[: 100 * characters].split("\n")[1:]:
                shown = line.strip()[:characters].rpartition(" ")[0]
                if shown.isprintable() and shown and not self.tokenizer.unknown_characters(shown):
                    return shown
            return None
        return None

    def texts(self, split: str) -> Iterator[str]:
        """The text of a split, in pieces of about a megabyte."""
        how = "all" if split == "all" else self.config.split
        return texts_of(self.corpus, how, split)

    def describe(self) -> dict[str, Any]:
        """The corpus for the manifest: name, origin, hash, what was not read as it is, splits and files."""
        return {
            "name": self.config.name,
            "origin": self.corpus.origin,
            "stand_in": self.corpus.stand_in,
            "sha256": self.corpus.sha256,
            "characters": self.corpus.characters,
            "skipped": self.corpus.notes,
            "split": self.config.split,
            "splits": {name: self._describe_split(name, part) for name, part in self.splits.items()},
            "files": [_describe_file(document) for document in self.corpus.documents],
            "preprocessor": self.preprocessor.describe(),
        }

    def _describe_split(self, name: str, part: Part) -> dict[str, Any]:
        described: dict[str, Any] = {
            "tokens": part.tokens - 1,
            "characters": part.characters,
            "unknown_characters": part.unknown,
            "sha256": part.sha256,
        }
        if name in self.corpus.held_out:
            described["files"] = [_describe_file(one) for one in self.corpus.held_out[name].documents]
        if name not in ("train", "all"):
            described["lines_in_training"] = {
                "lines": part.seen_lines,
                "of": part.long_lines,
                "share": part.seen_lines / max(1, part.long_lines),
                "min_characters": LONG_LINE,
            }
        return described


def _describe_file(document: Document) -> dict[str, Any]:
    return {
        "path": as_utf8(document.path.absolute()),
        "sha256": document.sha256,
        "encoding": document.encoding,
        "characters": document.characters,
    }


def _recorded_corpus(config: TextDataConfig, manifest: dict[str, Any]) -> Corpus | None:
    """The corpus in the files that a manifest names; None if they are not there or not the same.

    The manifest is untrusted: use the files it names only if they have the right hash.
    """
    recorded = manifest.get("corpus") or {}
    splits = recorded.get("splits")
    splits = splits if isinstance(splits, dict) else {}
    lists = {"train": recorded.get("files")}
    lists |= {
        name: splits[name].get("files")
        for name, path in (("val", config.val_path), ("test", config.test_path))
        if path and isinstance(splits.get(name), dict)
    }
    paths = {
        name: [Path(str(file.get("path"))) for file in files if isinstance(file, dict)]
        for name, files in lists.items()
        if isinstance(files, list)
    }
    if len(paths) < len(lists) or not all(some and all(map(os.path.isfile, some)) for some in paths.values()):
        return None
    origin = str(recorded.get("origin"))
    try:
        found = {name: read_corpus(some, origin, config.encoding) for name, some in paths.items()}
    except UserError:
        return None
    corpus = replace(found.pop("train"), held_out=found)
    return corpus if corpus.sha256 == recorded.get("sha256") else None
