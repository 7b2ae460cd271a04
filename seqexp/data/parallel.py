"""Pairs of sentences for translation: divided by source sentence, encoded once, batched by length."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqexp.config.data import OtherDataConfig, ParallelDataConfig
from seqexp.data.base import Data, View
from seqexp.data.batch import Batch
from seqexp.data.pair_batch import LengthBatches, pair_batch
from seqexp.data.pair_encoding import Sentences, encode_side, fit_tokenizers
from seqexp.data.pairs import Pair, PairCorpus, find_pairs, read_pairs
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import UserError
from seqexp.files import user_path
from seqexp.tokenizers.base import Tokenizer
from seqexp.tokenizers.pair import PairTokenizer, length_ratio

log = logging.getLogger(__name__)

# How pairs are divided is the same for every run, so that runs compare.
SPLIT_SEED = 2015
TEST_SHARE = {"source": 0.1, "random": 0.2}
DEV_SOURCES = 2000

# A share of unknown tokens that is told.
MUCH_UNKNOWN = 0.1

# Tokens in one batch of validation: enough to keep the machine busy, little enough for any memory.
EVAL_TOKENS = 8192


def divide(pairs: list[Pair], split: str) -> dict[str, list[int]]:
    """The indices of the training, development and test pairs, in the order of the corpus.

    With ``source``, all translations of a sentence are in the same part: a tenth of the sentences is the test
    part. With ``random``, a fifth of the pairs is, as in the course. The development part has 2,000
    sentences, of small corpora a tenth.

    Raises:
        UserError: nothing is left for one of them.
    """
    units = (
        list(dict.fromkeys(source for source, _ in pairs)) if split == "source" else list(range(len(pairs)))
    )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(units)).tolist()
    n_test = max(1, int(TEST_SHARE[split] * len(units)))
    n_dev = max(1, min(DEV_SOURCES, len(units) // 10))
    part_of = {units[place]: "test" for place in order[:n_test]}
    part_of |= {units[place]: "val" for place in order[n_test : n_test + n_dev]}
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for number, (source, _) in enumerate(pairs):
        parts[part_of.get(source if split == "source" else number, "train")].append(number)
    if not all(parts.values()):
        raise UserError(
            f"{len(units)} different sentences cannot be divided into three parts; give more, or, where the "
            "same source stands in many pairs, use data.split=random."
        )
    return parts


@dataclass(frozen=True)
class PairPart:
    """The sentences of one part, as text and as token numbers."""

    pairs: list[Pair]
    lines: list[int]  # where they stand in their files, from 1
    source: Sentences
    target: Sentences

    def batch(self, members: Iterable[int], end: int) -> Batch:
        members = list(members)
        return pair_batch(
            [self.source[number] for number in members], [self.target[number] for number in members], end
        )


class ParallelData(Data):
    """Pairs of a corpus in their parts. Validation reads a part whole, by length."""

    default_split = "test"

    def __init__(
        self, config: ParallelDataConfig, corpus: PairCorpus, preprocessor: Preprocessor, seed: int,
        members: dict[str, list[int]], encoded: list[Sentences] | None = None,
    ) -> None:  # fmt: skip
        self.config, self.corpus, self.preprocessor, self.seed = config, corpus, preprocessor, seed
        self.tokenizer = tokenizer = pair_tokenizer(preprocessor)
        if encoded is None:
            encoded = [encode_side(corpus, side, number) for number, side in enumerate(tokenizer.sides)]
        self.splits: dict[str, PairPart] = {}
        for name, numbers in members.items():
            sides = (side.choose(numbers) for side in encoded)
            pairs = [corpus.pairs[number] for number in numbers]
            self.splits[name] = PairPart(pairs, [corpus.lines[number] for number in numbers], *sides)
        self.overlong = 0
        if "train" in self.splits:
            part = self.splits["train"]
            longer = np.maximum(part.source.lengths, part.target.lengths)
            self._usable = np.flatnonzero(longer <= config.max_seq_len)
            self.overlong = len(longer) - len(self._usable)
            if not len(self._usable):
                raise UserError(
                    f"every training pair has more than data.max_seq_len={config.max_seq_len} tokens on a "
                    "side; raise it."
                )
            # With the end of sentence, as in the batches.
            source, target = (side.lengths[self._usable] + 1 for side in (part.source, part.target))
            self._batches = LengthBatches(source, target, config.batch_tokens, config.batch_size)

    @classmethod
    def find_corpus(cls, config: ParallelDataConfig) -> PairCorpus:
        """The pairs that the configuration names.

        Raises:
            UserError: there are none, or a file is no text.
        """
        return find_pairs(config)

    @classmethod
    def build(
        cls,
        config: ParallelDataConfig,
        tokenizer: Any = None,
        seed: int = 1,
        preprocessor: Preprocessor | None = None,
    ) -> "ParallelData":
        """Find the pairs, split them, fit the tokenizers on the training split unless there are some, encode.

        Raises:
            UserError: no pairs, or too few.
        """
        corpus = cls.find_corpus(config)
        members = divide(corpus.pairs, config.split)
        if preprocessor is None:
            source, target = fit_tokenizers(corpus, config.split, members["train"], tokenizer)
        else:
            source, target = preprocessor["source"], preprocessor["target"]
        encoded = [encode_side(corpus, side, number) for number, side in enumerate((source, target))]
        ratio = length_ratio(*(side.lengths[members["train"]] for side in encoded))
        fitted = Preprocessor({"source": source, "target": target}, values={"length_ratio": ratio})
        data = cls(config, corpus, fitted, seed, members, encoded)
        if corpus.left_out:
            log.warning("left out: %s", corpus.left_out)
        for side, part in (("source", data.splits["train"].source), ("target", data.splits["train"].target)):
            share = _unknown(part, getattr(data.tokenizer, side)) / max(1, len(part.ids))
            if share > MUCH_UNKNOWN:
                log.warning("%.0f %% of the %s tokens in training are unknown", 100 * share, side)
        if data.overlong:
            log.warning(
                "left out of training: %s pairs with more than %d tokens on a side (data.max_seq_len)",
                f"{data.overlong:,}", config.max_seq_len,
            )  # fmt: skip
        return data

    @classmethod
    def for_evaluation(
        cls,
        config: ParallelDataConfig,
        preprocessor: Preprocessor,
        manifest: dict[str, Any],
        other: OtherDataConfig,
        seed: int,
    ) -> "ParallelData":
        """The pairs that `other` names, as one part ``all``, or those that the run was trained on.

        Raises:
            UserError: they are not there, or not the same, or `other` asks for what are no pairs.
        """
        del seed
        other.refuse_all_but(("path", "source_path", "target_path", "encoding"))
        named = [user_path(path) for path in (other.path, other.source_path, other.target_path) if path]
        if named:
            for file in named:
                if not file.is_file():
                    raise UserError(f"{file} is not a file; give a file of pairs as data.path=.")
            others = read_pairs(named, other.encoding, config.swap, least=1)
            return cls(config, others, preprocessor, 0, {"all": list(range(len(others.pairs)))})
        recorded = manifest.get("corpus") or {}
        # The manifest may come from a stranger: what it names is used only if its pairs have the right hash.
        files = recorded.get("files")
        corpus: PairCorpus | None = None
        if isinstance(files, list) and len(files) in (1, 2) and all(isinstance(f, str) for f in files):
            with contextlib.suppress(UserError):
                corpus = read_pairs([Path(file) for file in files], config.encoding, config.swap)
        if corpus is None or corpus.sha256 != recorded.get("sha256"):
            corpus = cls.find_corpus(config)
        if corpus.sha256 != recorded.get("sha256"):
            raise UserError(
                f"the pairs of this run are not here: they had sha256 {str(recorded.get('sha256'))[:12]}…, "
                f"and {corpus.origin} has {corpus.sha256[:12]}…. Put the files back, or judge the run on "
                "other pairs with data.path=."
            )
        return cls(config, corpus, preprocessor, 0, divide(corpus.pairs, config.split))

    # Training

    @property
    def steps_per_epoch(self) -> float:
        return len(self._batches)

    def train_batch(self, step: int) -> Batch:
        """The batch of step 0, 1, 2, …: a pure function of seed and step."""
        members = self._usable[self._batches.members(self.seed, step)]
        return self.splits["train"].batch(members.tolist(), self.end)

    @property
    def end(self) -> int:
        """The token that ends a sentence, and begins it for the decoder; the same in both languages."""
        return self.tokenizer.target.eos_id

    # Held-out sentences

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """The whole part once, by length, whatever the length."""
        return (batch for _, batch in self.numbered_batches(split))

    def numbered_batches(self, split: str) -> Iterator[tuple[list[int], Batch]]:
        """The same, with the places of a batch's pairs in the part."""
        part = self.splits[split]
        batches = LengthBatches(part.source.lengths + 1, part.target.lengths + 1, EVAL_TOKENS, None)
        for number in range(len(batches)):
            members = batches.in_order(number).tolist()
            yield members, part.batch(members, self.end)

    def eval_count(self, split: str) -> int:
        return len(self.splits[split].target.ids) + len(self.splits[split].pairs)

    def characters(self, split: str) -> int:
        return sum(len(target) for _, target in self.splits[split].pairs)

    def views(self, max_len: int | None) -> tuple[list[View], list[str]]:
        """What `eval` judges: the part as a whole; and what of the files held no pair."""
        del max_len
        return [View({}, self)], [f"left out: {self.corpus.left_out}"] if self.corpus.left_out else []

    def describe(self) -> dict[str, Any]:
        """The corpus for the manifest: what, from where, its hash, its parts."""
        return {
            "name": self.config.name,
            "origin": self.corpus.origin,
            "stand_in": None,
            "generated": self.corpus.generated,
            "sha256": self.corpus.sha256,
            "pairs": len(self.corpus.pairs),
            "left_out": self.corpus.left_out,
            "split": self.config.split,
            "splits": {
                name: {
                    "pairs": len(part.pairs),
                    "sources": len({source for source, _ in part.pairs}),
                    "tokens": self.eval_count(name),
                    "overlong": self.overlong if name == "train" else 0,
                    "unknown_source": _unknown(part.source, self.tokenizer.source),
                    "unknown_target": _unknown(part.target, self.tokenizer.target),
                }
                for name, part in self.splits.items()
            },
            "files": [str(file.absolute()) for file in self.corpus.files],
            "preprocessor": self.preprocessor.describe(),
        }


def pair_tokenizer(preprocessor: Preprocessor) -> PairTokenizer:
    """The tokenizers of a preprocessor as translation uses them."""
    ratio = float(preprocessor.values["length_ratio"])
    return PairTokenizer(preprocessor["source"], preprocessor["target"], ratio)


def _unknown(sentences: Sentences, tokenizer: Tokenizer) -> int:
    return 0 if tokenizer.unk_id is None else int((sentences.ids == tokenizer.unk_id).sum())
