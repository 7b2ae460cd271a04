"""Running text as windows of tokens: what language models are trained and judged on."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from seqexp import registry
from seqexp.config.data import OtherDataConfig, TextDataConfig
from seqexp.config.tokenizer import TokenizerConfig
from seqexp.data.base import Data
from seqexp.data.batch import Batch
from seqexp.data.cache import cache_dir
from seqexp.data.download import download
from seqexp.data.encoded import Part, encode_corpus, split_pieces, training_pieces
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
from seqexp.files import write_atomically
from seqexp.tokenizers.base import Tokenizer, tokenizer_from_plain

log = logging.getLogger(__name__)

# Tokens in one batch of validation: enough to keep the machine busy, little enough for any memory.
EVAL_TOKENS = 8192


def find_corpus(config: TextDataConfig) -> Corpus:
    """The documents of a data set: given path, usual places, download, stand-in, in this order.

    Raises:
        UserError: none of these has any, or a file is no text.
    """
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
    return Corpus(corpus.documents, corpus.origin, stand_in=reason)


def read_corpus(files: list[Path], origin: str, encoding: str | None) -> Corpus:
    """Read the files as one corpus, noting those that are not UTF-8.

    Raises:
        UserError: a file is no text.
    """
    documents = tuple(read_document(file, encoding) for file in files)
    guessed = [document.path.name for document in documents if document.encoding == "latin-1"]
    if guessed and encoding is None:
        log.info("not UTF-8, so read as latin-1: %s (data.encoding= says otherwise)", ", ".join(guessed))
    return Corpus(documents, origin)


class TextData(Data):
    """Windows of `config.seq_len` tokens of a corpus. Validation is whole and in order."""

    def __init__(
        self, config: TextDataConfig, corpus: Corpus, preprocessor: Preprocessor, split: str, seed: int
    ) -> None:
        self.config, self.corpus, self.preprocessor, self.seed = config, corpus, preprocessor, seed
        self.tokenizer = preprocessor["text"]
        self.splits: dict[str, Part] = encode_corpus(corpus, split, self.tokenizer)

    def warn_of_unknown(self) -> None:
        """Say what the parts hold that training never showed."""
        for name, part in self.splits.items():
            if part.unknown:
                log.warning(
                    "%s: %d of %d characters were never seen in training (%s); they cost their bits "
                    "as unknown", name, part.unknown, part.characters, part.unknown_characters,
                )  # fmt: skip

    @classmethod
    def build(
        cls,
        config: TextDataConfig,
        tokenizer: TokenizerConfig | None = None,
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
            preprocessor = Preprocessor({"text": _fit_tokenizer(corpus, config.split, tokenizer)})
        else:
            preprocessor = Preprocessor({"text": preprocessor["text"]})
        data = cls(config, corpus, preprocessor, config.split, seed)
        for name, part in data.splits.items():
            need = config.seq_len + 1 if name == "train" else 2
            if part.tokens < need:
                raise UserError(
                    f"the corpus is too short: its {name} part has {part.characters} characters "
                    f"({part.tokens} tokens), and a window needs {need}. Give more text, or lower "
                    f"data.seq_len={config.seq_len}."
                )
        if config.carry_state and data.windows_per_epoch < config.batch_size:
            raise UserError(
                f"the training part has {data.windows_per_epoch} windows of data.seq_len={config.seq_len}, "
                f"too few for {config.batch_size} rows that go on from batch to batch; lower "
                "data.batch_size or data.seq_len, or use data.carry_state=false."
            )
        data.warn_of_unknown()
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
            UserError: it is not there, or is not the same, or `other` asks for what is no text.
        """
        del seed
        other.refuse_all_but(("path", "encoding"))
        if other.path:
            return cls.of_text(config, preprocessor, other.path, other.encoding)
        recorded = manifest.get("corpus") or {}
        # The manifest may come from a stranger: what it names is used only if it has the right hash.
        listed = recorded.get("files")
        entries = listed if isinstance(listed, list) else []
        paths = [str(file.get("path")) for file in entries if isinstance(file, dict)]
        encoding = config.encoding
        corpus = None
        if paths and all(map(os.path.isfile, paths)):
            corpus = read_corpus(list(map(Path, paths)), str(recorded.get("origin")), encoding)
        if corpus is None or corpus.sha256 != recorded.get("sha256"):
            corpus = find_corpus(config)
        if corpus.sha256 != recorded.get("sha256"):
            raise UserError(
                f"the corpus of this run is not here: it had sha256 {str(recorded.get('sha256'))[:12]}…, "
                f"and {corpus.origin} has {corpus.sha256[:12]}…. Put its files back, or judge the run "
                "on another text with data.path=."
            )
        data = cls(config, corpus, preprocessor, config.split, seed=0)
        data.warn_of_unknown()
        return data

    @classmethod
    def of_text(
        cls, config: TextDataConfig, preprocessor: Preprocessor, path: str, encoding: str | None
    ) -> "TextData":
        """All of another text, as one part named ``all``.

        Raises:
            UserError: no such file, or no text.
        """
        corpus = read_corpus(find_files(path), f"data.path={path}", encoding)
        data = cls(config, corpus, preprocessor, "all", seed=0)
        data.warn_of_unknown()
        return data

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
        epochs, places = np.divmod(count, self.windows_per_epoch)
        starts = np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            order, phase = self._epoch(int(epoch))
            starts[here] = permute(places[here], self.windows_per_epoch, order) * length + phase
        windows = self.splits["train"].windows(starts, length + 1)
        # Documents are few: without these a model hardly ever meets the boundary that exams begin with.
        share = self.config.boundary_share
        windows[np.floor((count + 1) * share) > np.floor(count * share), 0] = self.tokenizer.bos_id
        return Batch.from_windows(windows, np.full(size, length))

    def _epoch(self, epoch: int) -> tuple[Any, int]:
        """The keys of the epoch's order, and where its first window starts."""
        *keys, draw = np.random.SeedSequence([self.seed, epoch]).generate_state(ROUNDS + 1, np.uint64)
        length = self.config.seq_len
        room = self.splits["train"].tokens - self.windows_per_epoch * length
        return np.array(keys, dtype=np.uint64), int(draw % np.uint64(room))

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """The whole part once, in windows that follow each other; the last one is padded."""
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
        """The first whole words of a split that have no unknown characters; None if there are none."""
        for part, _, _, text in split_pieces(self.corpus, self.config.split):
            if part != split:
                continue
            # The first line may begin inside a word.
            for line in text[: 100 * characters].split("\n")[1:]:
                shown = line.strip()[:characters].rpartition(" ")[0]
                if shown.isprintable() and shown and not self.tokenizer.unknown_characters(shown):
                    return shown
            return None
        return None

    def describe(self) -> dict[str, Any]:
        """The corpus for the manifest: what, from where, its hash, its parts."""
        return {
            "name": self.config.name,
            "origin": self.corpus.origin,
            "stand_in": self.corpus.stand_in,
            "sha256": self.corpus.sha256,
            "characters": self.corpus.characters,
            "split": self.config.split,
            "splits": {
                name: {
                    "tokens": part.tokens - 1,
                    "characters": part.characters,
                    "unknown_characters": part.unknown,
                }
                for name, part in self.splits.items()
            },
            "files": [_describe_file(document) for document in self.corpus.documents],
            "preprocessor": self.preprocessor.describe(),
        }


def _describe_file(document: Document) -> dict[str, Any]:
    return {
        "path": str(document.path.absolute()),
        "sha256": document.sha256,
        "encoding": document.encoding,
        "characters": document.characters,
    }


def _fit_tokenizer(corpus: Corpus, split: str, config: TokenizerConfig) -> Tokenizer:
    """Fit on the training part, or take the one fitted before on the same text with the same options."""
    key = json.dumps([corpus.sha256, split, asdict(config)], sort_keys=True)
    file = cache_dir("tokenizers") / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    try:
        return tokenizer_from_plain(json.loads(file.read_text()))
    except (OSError, ValueError, UserError):
        pass
    kind = registry.load("tokenizer", config.name)
    tokenizer: Tokenizer = kind.fit(config, training_pieces(corpus, split))
    write_atomically(file, json.dumps(tokenizer.to_plain()).encode())
    return tokenizer
