"""Labelled texts as a data set: tokenized, in batches of similar length."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from seqexp import registry
from seqexp.config.data import OtherDataConfig
from seqexp.config.labelled import LabelledConfig
from seqexp.data.base import check_same_corpus
from seqexp.data.batch import Batch
from seqexp.data.fitting import fit_tokenizer
from seqexp.data.labelled import (
    Example,
    LabelledCorpus,
    examples_sha256,
    find_labelled,
    label_counts,
    read_labelled,
    sampled,
)
from seqexp.data.length_batched import LengthBatchedData
from seqexp.data.pair_batch import Sequences, pad
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import UserError, suggest
from seqexp.files import user_path
from seqexp.quoting import counted
from seqexp.tokenizers.base import Tokenizer

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledSplit:
    """The examples of a split, their tokens, and their labels as numbers; `cut` counts texts cut to fit."""

    examples: list[Example]
    tokens: list[Ids]
    labels: list[tuple[int, ...]]
    cut: int

    @property
    def lengths(self) -> Ids:
        return self.sequences.lengths

    @cached_property
    def sequences(self) -> Sequences:
        """The tokens of all texts."""
        return Sequences(self.tokens)

    @cached_property
    def first_labels(self) -> Ids:
        """The number of the first label of each text."""
        return np.array([labels[0] for labels in self.labels], dtype=np.int64)


def encode_text(tokenizer: Tokenizer, text: str, pair: str | None, most: int) -> Ids:
    """Return the tokens of a text, or of two, between boundaries, cut to `most`."""
    parts = [np.array([tokenizer.bos_id])]
    for one in (text, pair):
        if one is not None:
            parts += [tokenizer.encode(tokenizer.sentence_start + one), np.array([tokenizer.eos_id])]
    return _cut(np.concatenate(parts).astype(np.int64), most)


def _cut(ids: Ids, most: int) -> Ids:
    """Return at most so many tokens; the last one stays, which ends the text."""
    return ids if len(ids) <= most else np.append(ids[: most - 1], ids[-1])


def text_batch(tokens: list[Ids], extra: dict[str, torch.Tensor] | None = None) -> Batch:
    """Return a batch with `tokens` (B, T), zeros after each text, and further tensors."""
    return _padded_batch(*pad(tokens), extra)


def _padded_batch(
    padded: torch.Tensor, lengths: torch.Tensor, extra: dict[str, torch.Tensor] | None
) -> Batch:
    return Batch(
        {"tokens": padded, **(extra or {})}, np.ones(len(padded), np.int64), {"tokens": lengths},
        tokens_read=int(lengths.sum()),
    )  # fmt: skip


class LabelledData(LengthBatchedData):
    """Labelled texts; a batch has `tokens` (B, T), their lengths, and `labels`.

    `labels` are numbers (B,), or with `multilabel` zeros and ones (B, C). `index` (B,) is the number of the
    example in its split.
    """

    def __init__(self, config: LabelledConfig, corpus: LabelledCorpus, preprocessor: Preprocessor, seed: int):
        self.config, self.corpus, self.preprocessor, self.seed = config, corpus, preprocessor, seed
        self.splits: dict[str, LabelledSplit] = {
            name: self._encode(examples) for name, examples in corpus.splits.items()
        }
        self._cut_batches(config.similar_lengths)

    @classmethod
    def find_corpus(cls, config: LabelledConfig) -> LabelledCorpus:
        """Read the examples that the configuration names."""
        return find_labelled(config)

    @classmethod
    def corpus_of(cls, config: LabelledConfig) -> LabelledCorpus:
        """Return the corpus whose training split has `config.train_examples` examples, if that is given."""
        corpus = cls.find_corpus(config)
        if config.train_examples is None:
            return corpus
        train = sampled(corpus.splits["train"], config.train_examples, config.sample_seed)
        return replace(corpus, splits={**corpus.splits, "train": train})

    @classmethod
    def build(
        cls,
        config: LabelledConfig,
        tokenizer: Any = None,
        seed: int = 1,
        preprocessor: Preprocessor | None = None,
    ) -> Self:
        """Read the examples; fit tokenizer and labels on the training split, or take another run's.

        A language model's preprocessor has no labels; they are then fitted.
        """
        corpus = cls.corpus_of(config)
        train = corpus.splits["train"]
        counts = label_counts(train)
        if len(counts) < 2:
            raise UserError(
                f"the training split has {counted(len(counts), 'label')} ({', '.join(counts) or 'none'}); "
                "a classifier needs two or more."
            )
        values = {
            "label_counts": dict(sorted(counts.items())),
            "multilabel": config.multilabel,
            "pairs": config.text_pair is not None,
            "max_seq_len": config.max_seq_len,
        }
        if preprocessor is None:
            start = registry.load("tokenizer", tokenizer.name).sentence_start
            texts = (start + text for one in train for text in (one.text, one.pair) if text is not None)
            fitted = fit_tokenizer(tokenizer, texts, ["labelled", examples_sha256(train)])
            preprocessor = Preprocessor({"text": fitted}, _sorted_labels(counts), values)
        else:
            labels = preprocessor.labels or _sorted_labels(counts)
            preprocessor = Preprocessor(preprocessor.tokenizers, labels, values)
        data = cls(config, corpus, preprocessor, seed)
        data.tell_notes()
        return data

    @classmethod
    def for_evaluation(
        cls,
        config: LabelledConfig,
        preprocessor: Preprocessor,
        manifest: dict[str, Any],
        other: OtherDataConfig,
        seed: int,
    ) -> Self:
        """The splits of the run, or the examples that `other` names, as one split ``all``."""
        other.refuse_all_but(("path", "label_path", "encoding"))
        if other.path:
            notes: list[str] = []
            given = replace(config, encoding=other.encoding)
            labels = user_path(other.label_path) if other.label_path else None
            examples = read_labelled(user_path(other.path), given, labels, notes)
            files = tuple(one for one in (other.path, other.label_path) if one)
            corpus = LabelledCorpus({"all": examples}, f"data.path={other.path}", files, tuple(notes))
        else:
            corpus = cls.corpus_of(config)
            check_same_corpus(manifest, {"sha256": corpus.sha256, "origin": corpus.origin})
        return cls(config, corpus, preprocessor, seed)

    def _encode(self, examples: list[Example]) -> LabelledSplit:
        tokenizer, most = self.preprocessor["text"], self.config.max_seq_len
        tokens = [encode_text(tokenizer, one.text, one.pair, 1 << 60) for one in examples]
        cut = sum(len(ids) > most for ids in tokens)
        tokens = [_cut(ids, most) for ids in tokens]
        numbers = {label: number for number, label in enumerate(self.preprocessor.labels)}
        labels = []
        for one in examples:
            for label in one.labels:
                if label not in numbers:
                    raise UserError(
                        f"{one.where}: label {label!r} does not occur in training, which has "
                        f"{', '.join(list(numbers)[:20])}." + suggest(label, numbers)
                    )
            labels.append(tuple(numbers[label] for label in one.labels))
        return LabelledSplit(examples, tokens, labels, cut)

    @cached_property
    def _weights(self) -> torch.Tensor:
        """The weight of each label, (C,): its mean over the training texts is 1."""
        counts = label_counts(self.corpus.splits["train"])
        own = [max(1, counts[label]) for label in self.preprocessor.labels]
        return sum(counts.values()) / (len(own) * torch.tensor(own, dtype=torch.float32))

    def eval_count(self, split: str) -> int:
        return len(self.splits[split].examples)

    def _batch(self, split: str, members: Ids) -> Batch:
        part = self.splits[split]
        if self.config.multilabel:
            labels = torch.zeros(len(members), len(self.preprocessor.labels))
            for row, member in enumerate(members):
                labels[row, list(part.labels[member])] = 1
        else:
            labels = torch.from_numpy(part.first_labels[members])
        extra = {"labels": labels, "index": torch.from_numpy(np.asarray(members, dtype=np.int64))}
        if self.config.class_weights and split == "train":
            extra["weights"] = self._weights[labels]
        return _padded_batch(*part.sequences.pad(members), extra)

    def notes(self) -> list[str]:
        """Notes on what was read and cut, and on texts that are also in training."""
        notes = list(self.corpus.notes)
        train = {example.text for example in self.corpus.splits.get("train", [])}
        for name, part in self.splits.items():
            if part.cut:
                notes.append(
                    f"{name}: {counted(part.cut, 'text')} of {len(part.examples):,} cut after "
                    f"{self.config.max_seq_len} tokens (data.max_seq_len)"
                )
            seen = sum(example.text in train for example in part.examples) if name != "train" else 0
            if seen:
                notes.append(f"{name}: {counted(seen, 'text')} of {len(part.examples):,} also in training")
        rare = [label for label, n in self._counts().items() if n == 1]
        if rare:
            notes.append(f"{counted(len(rare), 'label')} with a single training text: {', '.join(rare[:10])}")
        return notes

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.preprocessor.values.get("label_counts", {})
        return counts

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.config.name,
            "origin": self.corpus.origin,
            "generated": self.corpus.generated,
            "sha256": self.corpus.sha256,
            "skipped": self.notes(),
            "splits": {
                name: {
                    "texts": len(part.examples),
                    "tokens": int(part.lengths.sum()),
                    "labels": dict(sorted(label_counts(part.examples).items())),
                    "cut": part.cut,
                    "sha256": examples_sha256(part.examples),
                }
                for name, part in self.splits.items()
            },
            "files": list(self.corpus.files),
            "preprocessor": self.preprocessor.describe(),
        }


def _sorted_labels(counts: dict[str, int]) -> tuple[str, ...]:
    """Labels in alphabetical order, numbers by value."""
    if all(label.removeprefix("-").isdecimal() for label in counts):
        return tuple(sorted(counts, key=lambda label: (int(label), label)))
    return tuple(sorted(counts))
