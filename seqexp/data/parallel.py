"""Pairs of sentences for translation: split by source sentence, encoded once, batched by length."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqexp.config.data import OtherDataConfig, ParallelDataConfig
from seqexp.data.base import Data, View, check_same_corpus
from seqexp.data.batch import Batch
from seqexp.data.lines import TYPOGRAPHIC_SPACE
from seqexp.data.pair_batch import LengthBatches, pair_batch
from seqexp.data.pair_encoding import Sentences, encode_side, fit_tokenizers
from seqexp.data.pairs import Pair, PairCorpus, find_pairs, pairs_sha256, read_pairs
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import UserError
from seqexp.files import as_utf8, user_path
from seqexp.quoting import counted
from seqexp.tokenizers.base import Tokenizer
from seqexp.tokenizers.pair import PairTokenizer, length_ratio

log = logging.getLogger(__name__)

# How pairs are split is the same for every run, so that runs compare.
SPLIT_SEED = 2015
TEST_SHARE = {"source": 0.1, "random": 0.2}
DEV_SOURCES = 2000

# Target tokens for a source token, beyond what any language or a damaged checkpoint may ask for.
MOST_RATIO = 1000

# A share of unknown tokens that the user is warned of.
MUCH_UNKNOWN = 0.1

# Tokens in one batch of validation: enough to keep the machine busy, little enough for any memory.
EVAL_TOKENS = 8192
# Pairs with more tokens than this (and than data.max_seq_len) on a side are not evaluated: the attention of a
# single one would take gigabytes. Generation cuts sources at this length.
LONGEST_EVALUATED = 512


def divide(pairs: list[Pair], split: str, cut: Sequence[str] = ("val", "test")) -> dict[str, list[int]]:
    """The indices of the training, validation and test pairs, in the order of the corpus.

    With ``source``, all translations of a sentence are in the same split: a tenth of the sentences is the
    test split. With ``random``, a fifth of the pairs is, as in the course. The validation split has 2,000
    sentences, of small corpora a tenth. Only the splits in `cut` are cut from training.

    Raises:
        UserError: nothing is left for one of them.
    """
    units = (
        list(dict.fromkeys(source for source, _ in pairs)) if split == "source" else list(range(len(pairs)))
    )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(units)).tolist()
    n_test = max(1, int(TEST_SHARE[split] * len(units))) if "test" in cut else 0
    n_dev = max(1, min(DEV_SOURCES, len(units) // 10)) if "val" in cut else 0
    split_of = {units[number]: "test" for number in order[:n_test]}
    split_of |= {units[number]: "val" for number in order[n_test : n_test + n_dev]}
    members: dict[str, list[int]] = {"train": [], **{name: [] for name in ("val", "test") if name in cut}}
    for number, (source, _) in enumerate(pairs):
        members[split_of.get(source if split == "source" else number, "train")].append(number)
    if not all(members.values()):
        raise UserError(
            f"{len(units)} different sentences cannot be divided into {' and '.join(members)}; give more, "
            "or, where the same source stands in many pairs, use data.split=random."
        )
    return members


Chosen = dict[str, tuple[PairCorpus, list[int]]]


def choose(corpus: PairCorpus, split: str) -> Chosen:
    """The corpus of each split and the indices of its pairs there.

    Raises:
        UserError: there are too few pairs.
    """
    cut = [name for name in ("val", "test") if name not in corpus.held_out]
    chosen: Chosen = {name: (corpus, some) for name, some in divide(corpus.pairs, split, cut).items()}
    chosen |= {name: (some, list(range(len(some.pairs)))) for name, some in corpus.held_out.items()}
    return {name: chosen[name] for name in ("train", "val", "test")}


@dataclass(frozen=True)
class PairPart:
    """The sentences of one split, as text and as token numbers."""

    pairs: list[Pair]
    lines: list[int]  # where they stand in their files, from 1
    source: Sentences
    target: Sentences
    sha256: str
    overlong: int = 0  # pairs that are not in it because of their length

    def batch(self, members: Iterable[int], end: int) -> Batch:
        members = list(members)
        return pair_batch(
            [self.source[number] for number in members], [self.target[number] for number in members], end
        )

    @property
    def longer(self) -> Any:
        """The number of tokens of the longer side of each pair."""
        return np.maximum(self.source.lengths, self.target.lengths)

    def up_to(self, longest: int) -> "PairPart":
        """Without the pairs that have more than `longest` tokens on a side."""
        fit = np.flatnonzero(self.longer <= longest).tolist()
        if len(fit) == len(self.pairs):
            return self
        return replace(
            self,
            pairs=[self.pairs[number] for number in fit],
            lines=[self.lines[number] for number in fit],
            source=self.source.choose(fit),
            target=self.target.choose(fit),
            overlong=len(self.pairs) - len(fit),
        )


def encode_splits(chosen: Chosen, tokenizers: tuple[Tokenizer, Tokenizer]) -> dict[str, PairPart]:
    """The splits as text and token numbers."""
    encoded: dict[str, list[Sentences]] = {}
    splits = {}
    for name, (corpus, numbers) in chosen.items():
        if corpus.sha256 not in encoded:
            encoded[corpus.sha256] = [
                encode_side(corpus, tokenizer, side) for side, tokenizer in enumerate(tokenizers)
            ]
        source, target = (side.choose(numbers) for side in encoded[corpus.sha256])
        pairs = [corpus.pairs[number] for number in numbers]
        lines = [corpus.lines[number] for number in numbers]
        splits[name] = PairPart(pairs, lines, source, target, pairs_sha256(pairs))
    return splits


class ParallelData(Data):
    """Pairs of a corpus in their splits. Validation reads a split whole, by length."""

    default_split = "test"
    splits: dict[str, PairPart]

    def __init__(
        self, config: ParallelDataConfig, corpus: PairCorpus, preprocessor: Preprocessor, seed: int,
        splits: dict[str, PairPart],
    ) -> None:  # fmt: skip
        self.config, self.corpus, self.preprocessor, self.seed = config, corpus, preprocessor, seed
        self.tokenizer = pair_tokenizer(preprocessor)
        self.longest = max(LONGEST_EVALUATED, config.max_seq_len)
        self.splits = {name: part.up_to(self.longest) for name, part in splits.items()}
        for name, part in self.splits.items():
            if not part.pairs:
                raise UserError(
                    f"every pair of the {name} split has more than {self.longest} tokens on a side, and "
                    "longer ones are not evaluated; give shorter sentences."
                )
        self.overlap = _overlap(self.splits)
        self.overlong = {name: part.overlong for name, part in self.splits.items()}
        if "train" in self.splits:
            part = self.splits["train"]
            self._usable = np.flatnonzero(part.longer <= config.max_seq_len)
            self.overlong["train"] += len(part.pairs) - len(self._usable)
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
            UserError: there is no such file, or it is not text.
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
        chosen = choose(corpus, config.split)
        if preprocessor is None:
            training = [chosen["train"][0].pairs[number] for number in chosen["train"][1]]
            source, target = fit_tokenizers(training, pairs_sha256(training), tokenizer)
        else:
            source, target = preprocessor["source"], preprocessor["target"]
        splits = encode_splits(chosen, (source, target))
        train = splits["train"]
        ratio = length_ratio(train.source.lengths, train.target.lengths)
        values: dict[str, Any] = {"length_ratio": ratio}
        if any(TYPOGRAPHIC_SPACE.search(source) for source, _ in train.pairs):
            values["typographic_spaces"] = True
        fitted = Preprocessor({"source": source, "target": target}, values=values)
        data = cls(config, corpus, fitted, seed, splits)
        for note in data._notes():
            log.warning("NOTE: %s", note)
        for side, sentences in (("source", train.source), ("target", train.target)):
            share = _unknown(sentences, getattr(data.tokenizer, side)) / max(1, len(sentences.ids))
            if share > MUCH_UNKNOWN:
                log.warning("NOTE: %.0f %% of the %s tokens in training are unknown", 100 * share, side)
        if data.overlong["train"]:
            log.warning(
                "NOTE: train: %s of more than %d tokens on a side (data.max_seq_len) left out",
                counted(data.overlong["train"], "pair"), config.max_seq_len,
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
        """The pairs that `other` names, as one split ``all``, or those that the run was trained on.

        Raises:
            UserError: they are not there, or not the same, or `other` asks for data that is not pairs.
        """
        del seed
        other.refuse_all_but(("path", "source_path", "target_path", "encoding"))
        tokenizers = preprocessor["source"], preprocessor["target"]
        named = [user_path(path) for path in (other.path, other.source_path, other.target_path) if path]
        if named:
            for file in named:
                if not file.is_file():
                    raise UserError(f"{as_utf8(file)} is not a file; give a file of pairs as data.path=.")
            corpus = read_pairs(named, other.encoding, config.swap, least=1)
            chosen: Chosen = {"all": (corpus, list(range(len(corpus.pairs))))}
        else:
            recorded = (manifest.get("corpus") or {}).get("sha256")
            corpus = _recorded_pairs(config, manifest) or _as_hashed(cls.find_corpus(config), recorded)
            check_same_corpus(manifest, {"sha256": corpus.whole_sha256, "origin": corpus.origin})
            chosen = choose(corpus, config.split)
        return cls(config, corpus, preprocessor, 0, encode_splits(chosen, tokenizers))

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
        """The whole split once, by length."""
        return (batch for _, batch in self.numbered_batches(split))

    def numbered_batches(self, split: str) -> Iterator[tuple[list[int], Batch]]:
        """The same, with the numbers of a batch's pairs in the split."""
        part = self.splits[split]
        batches = LengthBatches(part.source.lengths + 1, part.target.lengths + 1, EVAL_TOKENS, None)
        for number in range(len(batches)):
            members = batches.in_order(number).tolist()
            yield members, part.batch(members, self.end)

    def eval_count(self, split: str) -> int:
        return len(self.splits[split].target.ids) + len(self.splits[split].pairs)

    def characters(self, split: str) -> int:
        return sum(len(target) for _, target in self.splits[split].pairs)

    def cut_of(self, split: str) -> str | None:
        """How a split was cut from the corpus, ``source`` or ``random``; None if it has its own files."""
        return None if split == "all" or split in self.corpus.held_out else self.config.split

    def views(self, max_len: int | None) -> tuple[list[View], list[str]]:
        """What `eval` judges: the split as a whole; and notes of what is skipped."""
        del max_len
        return [View({}, self)], self._notes()

    def _notes(self) -> list[str]:
        """What was not read, what is not evaluated, and what training shows of the other splits."""
        notes = [note for some in (self.corpus, *self.corpus.held_out.values()) for note in some.skipped]
        for name, part in self.splits.items():
            if part.overlong and name != "train":
                notes.append(
                    f"{name}: {counted(part.overlong, 'pair')} of more than {self.longest} tokens on a side "
                    "left out"
                )
        for name, seen in self.overlap.items():
            if seen["sources"]:
                notes.append(
                    f"{name}: the sources of {seen['sources']:,} pairs ({100 * seen['share_of_sources']:.1f} "
                    "%) "
                    f"also stand in training, {seen['pairs']:,} of them ({100 * seen['share_of_pairs']:.1f} "
                    "%) with the same target"
                )
        return notes

    def describe(self) -> dict[str, Any]:
        """The corpus for the manifest: name, origin, hash, what was not read, splits and files."""
        return {
            "name": self.config.name,
            "origin": self.corpus.origin,
            "stand_in": None,
            "generated": self.corpus.generated,
            "sha256": self.corpus.whole_sha256,
            "pairs": len(self.corpus.pairs),
            "skipped": self._notes(),
            "split": self.config.split,
            "splits": {name: self._describe_split(name, part) for name, part in self.splits.items()},
            "files": _names(self.corpus),
            "preprocessor": self.preprocessor.describe(),
        }

    def _describe_split(self, name: str, part: PairPart) -> dict[str, Any]:
        described: dict[str, Any] = {
            "pairs": len(part.pairs),
            "sources": len({source for source, _ in part.pairs}),
            "tokens": self.eval_count(name),
            "overlong": self.overlong[name],
            "unknown_source": _unknown(part.source, self.tokenizer.source),
            "unknown_target": _unknown(part.target, self.tokenizer.target),
            "sha256": part.sha256,
        }
        if name in self.corpus.held_out:
            described["files"] = _names(self.corpus.held_out[name])
        if name in self.overlap:
            described["in_training"] = self.overlap[name]
        return described


def pair_tokenizer(preprocessor: Preprocessor) -> PairTokenizer:
    """The tokenizers of a preprocessor as translation uses them.

    Raises:
        UserError: the preprocessor, which is untrusted, was not fitted on pairs.
    """
    ratio = preprocessor.values.get("length_ratio")
    if not isinstance(ratio, float) or not 0 < ratio < MOST_RATIO:
        raise UserError("the checkpoint holds no pair of tokenizers.")
    spaces = preprocessor.values.get("typographic_spaces") is True
    return PairTokenizer(preprocessor["source"], preprocessor["target"], ratio, spaces)


def _unknown(sentences: Sentences, tokenizer: Tokenizer) -> int:
    return 0 if tokenizer.unk_id is None else int((sentences.ids == tokenizer.unk_id).sum())


def _names(corpus: PairCorpus) -> list[str]:
    return [as_utf8(file.absolute()) for file in corpus.files]


def _overlap(splits: dict[str, PairPart]) -> dict[str, dict[str, Any]]:
    """Count the pairs of each held-out split whose source, or both sides, are in training."""
    if "train" not in splits:
        return {}
    pairs = set(splits["train"].pairs)
    sources = {source for source, _ in pairs}
    overlap: dict[str, dict[str, Any]] = {}
    for name, part in splits.items():
        if name != "train":
            seen = sum(source in sources for source, _ in part.pairs)
            same = sum(pair in pairs for pair in part.pairs)
            shares = {"share_of_sources": seen / len(part.pairs), "share_of_pairs": same / len(part.pairs)}
            overlap[name] = {"sources": seen, "pairs": same, **shares}
    return overlap


def _recorded_pairs(config: ParallelDataConfig, manifest: dict[str, Any]) -> PairCorpus | None:
    """The pairs in the files that a manifest names; None if they are not there or not the same.

    The manifest is untrusted: use the files it names only if their pairs have the right hash.
    """
    recorded = manifest.get("corpus") or {}
    splits = recorded.get("splits")
    splits = splits if isinstance(splits, dict) else {}
    lists = {"train": recorded.get("files")}
    for name in ("val", "test"):
        if any(config.files_of(f"{name}_")):
            lists[name] = splits[name].get("files") if isinstance(splits.get(name), dict) else None
    found = {}
    for name, files in lists.items():
        if not isinstance(files, list) or len(files) not in (1, 2):
            return None
        paths = [Path(str(file)) for file in files]
        if not all(map(os.path.isfile, paths)):
            return None
        try:
            found[name] = read_pairs(paths, config.encoding, config.swap, least=10 if name == "train" else 1)
        except UserError:
            return None
    corpus = replace(found.pop("train"), held_out=found)
    corpus = _as_hashed(corpus, recorded.get("sha256"))
    return corpus if corpus.whole_sha256 == recorded.get("sha256") else None


def _as_hashed(corpus: PairCorpus, sha256: Any) -> PairCorpus:
    """The corpus, or as earlier versions read it (with typographic spaces folded) if that has this hash."""
    if corpus.whole_sha256 == sha256:
        return corpus
    folded = corpus.folded()
    return folded if folded.whole_sha256 == sha256 else corpus
