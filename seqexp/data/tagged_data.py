"""Tagged words as a data set: tokenized word by word, in batches of similar length."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from seqexp import registry
from seqexp.config.data import OtherDataConfig
from seqexp.config.tagged import TaggedConfig
from seqexp.data.base import check_same_corpus
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.fitting import fit_tokenizer
from seqexp.data.labelled_data import text_batch
from seqexp.data.length_batched import LengthBatchedData
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.tagged import (
    Sentence,
    TaggedCorpus,
    find_tagged,
    read_tagged,
    sentences_sha256,
    tag_counts,
    usual_tags,
)
from seqexp.errors import UserError, suggest
from seqexp.files import user_path
from seqexp.quoting import counted
from seqexp.tokenizers.base import Tokenizer

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenRow:
    """The tokens (T,) of a sentence or a part of one.

    `starts` are the positions of the first tokens of its words, and `first` is the number of its first word
    in the split.
    """

    tokens: Ids
    starts: Ids
    first: int

    @property
    def words(self) -> slice:
        """The words of the row in arrays over all words of the split."""
        return slice(self.first, self.first + len(self.starts))


def encode_words(tokenizer: Tokenizer, words: Sequence[str], most: int, first: int = 0) -> list[TokenRow]:
    """Encode each word by itself, between boundaries, as rows of at most `most` tokens.

    A sentence that does not fit is cut between words; of a word that does not fit, its first tokens are kept.
    A word without tokens is the unknown token, or the boundary. `first` is the number of the first word.
    """
    missing = tokenizer.bos_id if tokenizer.unk_id is None else tokenizer.unk_id
    rows: list[TokenRow] = []
    tokens, starts = [tokenizer.bos_id], list[int]()

    def close() -> None:
        ids = np.array([*tokens, tokenizer.eos_id], dtype=np.int64)
        rows.append(TokenRow(ids, np.array(starts, dtype=np.int64), first))

    for word in words:
        ids = tokenizer.encode(tokenizer.word_start + word)[: most - 2].tolist() or [missing]
        if starts and len(tokens) + len(ids) + 1 > most:
            close()
            first += len(starts)
            tokens, starts = [tokenizer.bos_id], []
        starts.append(len(tokens))
        tokens += ids
    close()
    return rows


@dataclass(frozen=True)
class TaggedSplit:
    """The sentences of a split, their rows of tokens, and the numbers of the tags of all words (N,).

    Tags that do not occur in training have the number `IGNORE`. `cut` counts sentences in several rows.
    """

    sentences: list[Sentence]
    rows: list[TokenRow]
    targets: Ids
    cut: int

    @property
    def lengths(self) -> Ids:
        """The numbers of tokens of the rows."""
        return np.array([len(row.tokens) for row in self.rows], dtype=np.int64)

    @property
    def sentence_numbers(self) -> Ids:
        """The number of the sentence of each word, (N,)."""
        return np.repeat(np.arange(len(self.sentences)), [len(one.words) for one in self.sentences])


class TaggedData(LengthBatchedData):
    """Tagged words; a batch has `tokens` (B, T), their lengths, `targets` (B, T) and `index` (B,).

    The target at the first token of a word is the number of its tag. It is `IGNORE` at all other tokens, and
    at words of held-out splits whose tag does not occur in training. The counts are the numbers of targets.
    `index` is the number of the row in its split.
    """

    def __init__(self, config: TaggedConfig, corpus: TaggedCorpus, preprocessor: Preprocessor, seed: int):
        self.config, self.corpus, self.preprocessor, self.seed = config, corpus, preprocessor, seed
        self.splits: dict[str, TaggedSplit] = {
            name: self._encode(name, sentences) for name, sentences in corpus.splits.items()
        }
        self._cut_batches()

    @classmethod
    def build(
        cls,
        config: TaggedConfig,
        tokenizer: Any = None,
        seed: int = 1,
        preprocessor: Preprocessor | None = None,
    ) -> Self:
        """Read the sentences; fit tokenizer and tags on the training split, or take another run's tokenizer.

        The tags of another run's preprocessor are taken too, if it has any. The usual tag of each training
        word is kept as the value ``word_tags``.
        """
        corpus = find_tagged(config)
        train = corpus.splits["train"]
        counts = tag_counts(train)
        if len(counts) < 2:
            raise UserError(
                f"the training split has {counted(len(counts), 'tag')} ({', '.join(counts)}); a tagger needs "
                "two or more: check data.tag_column."
            )
        if preprocessor is None:
            start = registry.load("tokenizer", tokenizer.name).word_start
            words = (start + word for sentence in train for word in sentence.words)
            tokenizers = {"text": fit_tokenizer(tokenizer, words, ["tagged", sentences_sha256(train)])}
            tags = tuple(sorted(counts))
        else:
            tokenizers = dict(preprocessor.tokenizers)
            tags = preprocessor.labels or tuple(sorted(counts))
        numbers = {tag: number for number, tag in enumerate(tags)}
        strange = [tag for tag in counts if tag not in numbers]
        if strange:
            raise UserError(
                f"the tag {strange[0]!r} is not one of the labels of the run that init_from= names "
                f"({', '.join(tags[:20])}).{suggest(strange[0], tags)} Leave init_from= out, or use its tags."
            )
        values = {
            "tag_counts": dict(sorted(counts.items())),
            "word_tags": {word: numbers[tag] for word, tag in usual_tags(train).items()},
        }
        return cls(config, corpus, Preprocessor(tokenizers, tags, values), seed)

    @classmethod
    def for_evaluation(
        cls,
        config: TaggedConfig,
        preprocessor: Preprocessor,
        manifest: dict[str, Any],
        other: OtherDataConfig,
        seed: int,
    ) -> Self:
        """The splits of the run, or the sentences that `other` names, as one split ``all``."""
        other.refuse_all_but(("path", "encoding"))
        if other.path:
            notes: list[str] = []
            encoding = other.encoding or config.encoding
            sentences = read_tagged(user_path(other.path), replace(config, encoding=encoding), notes)
            corpus = TaggedCorpus({"all": sentences}, f"data.path={other.path}", (other.path,), tuple(notes))
        else:
            corpus = find_tagged(config)
            check_same_corpus(manifest, {"sha256": corpus.sha256, "origin": corpus.origin})
        return cls(config, corpus, preprocessor, seed)

    def _encode(self, name: str, sentences: list[Sentence]) -> TaggedSplit:
        tokenizer, most = self.preprocessor["text"], self.config.max_seq_len
        numbers = {tag: number for number, tag in enumerate(self.preprocessor.labels)}
        rows: list[TokenRow] = []
        first = cut = 0
        for sentence in sentences:
            some = encode_words(tokenizer, sentence.words, most, first)
            rows += some
            first += len(sentence.words)
            cut += len(some) > 1
        tags = (tag for sentence in sentences for tag in sentence.tags)
        return TaggedSplit(sentences, rows, np.array([numbers.get(tag, IGNORE) for tag in tags]), cut)

    def eval_count(self, split: str) -> int:
        return len(self.splits[split].targets)

    def _batch(self, split: str, members: Ids) -> Batch:
        part = self.splits[split]
        rows = [part.rows[member] for member in members]
        targets = np.full((len(rows), max(len(row.tokens) for row in rows)), IGNORE, dtype=np.int64)
        for number, row in enumerate(rows):
            targets[number, row.starts] = part.targets[row.words]
        index = torch.from_numpy(np.asarray(members, dtype=np.int64))
        batch = text_batch(
            [row.tokens for row in rows], {"targets": torch.from_numpy(targets), "index": index}
        )
        return replace(batch, counts=(targets != IGNORE).sum(axis=1))

    def notes(self) -> list[str]:
        """Notes on what was read and cut, on unknown tags, and on sentences that are also in training."""
        notes = list(self.corpus.notes)
        train = {sentence.words for sentence in self.corpus.splits.get("train", [])}
        for name, part in self.splits.items():
            if part.cut:
                notes.append(
                    f"{name}: {counted(part.cut, 'sentence')} of {len(part.sentences):,} read in parts of "
                    f"{self.config.max_seq_len} tokens (data.max_seq_len)"
                )
            strange = tag_counts(part.sentences)
            for tag in self.preprocessor.labels:
                strange.pop(tag, None)
            if strange:
                notes.append(
                    f"{name}: {counted(strange.total(), 'word')} of {len(part.targets):,} with tags that do "
                    f"not occur in training ({', '.join(sorted(strange)[:10])}); counted as errors, left "
                    "out of the loss"
                )
            seen = sum(one.words in train for one in part.sentences) if name != "train" else 0
            if seen:
                notes.append(
                    f"{name}: {counted(seen, 'sentence')} of {len(part.sentences):,} also in training"
                )
        return notes

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.config.name,
            "origin": self.corpus.origin,
            "sha256": self.corpus.sha256,
            "skipped": self.notes(),
            "splits": {
                name: {
                    "sentences": len(part.sentences),
                    "words": len(part.targets),
                    "tokens": int(part.lengths.sum()),
                    "tags": dict(sorted(tag_counts(part.sentences).items())),
                    "cut": part.cut,
                    "sha256": sentences_sha256(part.sentences),
                }
                for name, part in self.splits.items()
            },
            "files": list(self.corpus.files),
            "preprocessor": self.preprocessor.describe(),
        }
