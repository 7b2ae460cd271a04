"""Tagged words as a data set: tokenized word by word, in batches of similar length."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from seqexp import registry
from seqexp.config.data import OtherDataConfig
from seqexp.config.tagged import TaggedConfig
from seqexp.data.base import check_same_corpus
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.characters import MOST_BYTES, Characters, is_cut, word_characters
from seqexp.data.fitting import fit_tokenizer
from seqexp.data.labelled_data import text_batch
from seqexp.data.length_batched import LengthBatchedData
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.span_schemes import find_scheme, invalid_steps, odd_tags
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
    """The tokens (T,) of a sentence or a part of one, and the characters (N, W) of its words.

    `starts` (N,) are the positions of the first tokens of its words, and `first` is the number of its first
    word in the split.
    """

    tokens: Ids
    starts: Ids
    first: int
    characters: Characters

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

    def close(end: int) -> None:
        ids = np.array([*tokens, tokenizer.eos_id], dtype=np.int64)
        characters = word_characters(words[end - len(starts) : end])
        rows.append(TokenRow(ids, np.array(starts, dtype=np.int64), first, characters))

    for number, word in enumerate(words):
        ids = tokenizer.encode(tokenizer.word_start + word)[: most - 2].tolist() or [missing]
        if starts and len(tokens) + len(ids) + 1 > most:
            close(number)
            first += len(starts)
            tokens, starts = [tokenizer.bos_id], []
        starts.append(len(tokens))
        tokens += ids
    close(len(words))
    return rows


def word_batch(rows: Sequence[TokenRow], targets: Sequence[Ids] | None = None) -> Batch:
    """Return a batch of rows with the numbers of their words' tags, if there are any (see `TaggedData`)."""
    shape = len(rows), max(1, *(len(row.starts) for row in rows))
    starts, tags = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORE)
    longest, widest = (
        max(n) for n in zip(*((len(r.tokens), r.characters.shape[1]) for r in rows), strict=True)
    )
    characters = np.zeros((len(rows), longest, widest), dtype=np.int64)
    for number, row in enumerate(rows):
        starts[number, : len(row.starts)] = row.starts
        characters[number, row.starts, : row.characters.shape[1]] = row.characters
        if targets is not None:
            tags[number, : len(row.starts)] = targets[number]
    arrays = {"characters": characters, "starts": starts, "targets": tags}
    batch = text_batch(
        [row.tokens for row in rows], {name: torch.from_numpy(array) for name, array in arrays.items()}
    )
    words = torch.tensor([len(row.starts) for row in rows])
    return replace(batch, lengths={**batch.lengths, "words": words}, counts=(tags != IGNORE).sum(axis=1))


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

    @cached_property
    def cut_words(self) -> int:
        """The number of words with more characters than are read."""
        return sum(is_cut(word) for sentence in self.sentences for word in sentence.words)

    @property
    def sentence_numbers(self) -> Ids:
        """The number of the sentence of each word, (N,)."""
        return np.repeat(np.arange(len(self.sentences)), [len(one.words) for one in self.sentences])


class TaggedData(LengthBatchedData):
    """Tagged words; a batch has tokens (B, T) and words (B, N) of sentences, with the lengths of both.

    `starts` (B, N) are the positions of the words' first tokens. `targets` (B, N) are the numbers of their
    tags, or `IGNORE` if the tag does not occur in training, and after the last word. `characters` (B, T, W)
    are those of a word at its first token, and zeros elsewhere (`characters.py`). The counts are the numbers
    of targets. `index` (B,) is the number of the row in its split.
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
        word is kept as the value ``word_tags``, and the scheme of spans as ``span_scheme``.
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
            "span_scheme": find_scheme([sentence.tags for sentence in train]),
        }
        data = cls(config, corpus, Preprocessor(tokenizers, tags, values), seed)
        data.tell_notes()
        return data

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
        batch = word_batch(rows, [part.targets[row.words] for row in rows])
        index = torch.from_numpy(np.asarray(members, dtype=np.int64))
        return replace(batch, tensors={**batch.tensors, "index": index})

    def notes(self) -> list[str]:
        """Notes on what was read and cut, on unknown tags, and on sentences that are also in training."""
        notes = list(self.corpus.notes)
        train = {sentence.words for sentence in self.corpus.splits.get("train", [])}
        scheme = self.preprocessor.values.get("span_scheme")
        for tag in odd_tags(self.preprocessor.labels)[:1]:
            places = (one.where for some in self.corpus.splits.values() for one in some if tag in one.tags)
            notes.append(
                f"the tag {tag!r} is neither O nor B, I, E or S with a type (sentence at "
                f"{next(places, 'another run')}), so that no tags count as spans"
            )
        for name, part in self.splits.items():
            if part.cut:
                notes.append(
                    f"{name}: {counted(part.cut, 'sentence')} of {len(part.sentences):,} read in parts of "
                    f"{self.config.max_seq_len} tokens (data.max_seq_len)"
                )
            if part.cut_words:
                notes.append(
                    f"{name}: {counted(part.cut_words, 'word')} of {len(part.targets):,} longer than "
                    f"{MOST_BYTES} bytes; of their characters, models read the first"
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
            broken = invalid_steps(scheme, (one.tags for one in part.sentences)) if scheme else 0
            if broken:
                notes.append(f"{name}: {counted(broken, 'pair')} of neighbouring tags not valid in {scheme}")
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
                    "cut_words": part.cut_words,
                    "sha256": sentences_sha256(part.sentences),
                }
                for name, part in self.splits.items()
            },
            "files": list(self.corpus.files),
            "preprocessor": self.preprocessor.describe(),
        }
