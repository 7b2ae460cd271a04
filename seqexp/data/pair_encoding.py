"""Pairs of sentences in token numbers: tokenizers fitted on the training part, and what they give, cached."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from seqexp import registry
from seqexp.data.cache import cache_dir
from seqexp.data.pairs import PairCorpus
from seqexp.errors import UserError
from seqexp.files import write_atomically
from seqexp.tokenizers.base import Tokenizer, tokenizer_from_plain


@dataclass(frozen=True)
class Sentences:
    """Encoded sentences, one after the other: sentence i is ``ids[offsets[i]:offsets[i + 1]]``."""

    ids: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sentences: Iterable[npt.NDArray[np.uint32]]) -> "Sentences":
        encoded = list(sentences)
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        return cls(np.concatenate([*encoded, np.empty(0, np.uint32)]), np.append(0, lengths.cumsum()))

    def choose(self, numbers: list[int]) -> "Sentences":
        """These sentences, in this order."""
        chosen = np.asarray(numbers, dtype=np.int64)
        lengths = self.lengths[chosen]
        offsets = np.append(0, lengths.cumsum())
        # Where each token comes from: its sentence's start, and how far it is into the sentence.
        places = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Sentences(self.ids[places], offsets)

    def __getitem__(self, number: int) -> npt.NDArray[np.uint32]:
        return self.ids[self.offsets[number] : self.offsets[number + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)


def fit_tokenizers(
    corpus: PairCorpus, split: str, training: list[int], config: Any
) -> tuple[Tokenizer, Tokenizer]:
    """The source's and the target's tokenizer, or one for both, from the training pairs alone."""
    if getattr(config, "joint", False):
        both = _fit(corpus, split, training, config, (0, 1))
        return both, both
    return _fit(corpus, split, training, config, (0,)), _fit(corpus, split, training, config, (1,))


def _fit(
    corpus: PairCorpus, split: str, training: list[int], config: Any, sides: tuple[int, ...]
) -> Tokenizer:
    """Fit, or take what was fitted before on the same sentences with the same options."""
    file = _cached("tokenizers", ["pair", corpus.sha256, split, asdict(config), sides], "json")
    try:
        return tokenizer_from_plain(json.loads(file.read_text()))
    except (OSError, ValueError, UserError):
        pass
    kind = registry.load("tokenizer", config.name)
    texts = (kind.sentence_start + corpus.pairs[number][side] for side in sides for number in training)
    tokenizer: Tokenizer = kind.fit(config, texts)
    write_atomically(file, json.dumps(tokenizer.to_plain()).encode())
    return tokenizer


def encode_side(corpus: PairCorpus, tokenizer: Tokenizer, side: int) -> Sentences:
    """All sentences of one side (0: source, 1: target), from the cache or encoded now."""
    file = _cached("pairs", [corpus.sha256, tokenizer.hash(), side], "npz")
    try:
        with np.load(file, allow_pickle=False) as saved:
            found = Sentences(saved["ids"], saved["offsets"])
        if len(found.offsets) == len(corpus.pairs) + 1 and found.offsets[-1] == len(found.ids):
            return found
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile):
        pass  # not there, or damaged
    progress = tqdm(
        corpus.pairs, desc="encoding", unit="pair", unit_scale=True, delay=1, leave=False, disable=None
    )
    encoded = Sentences.of(tokenizer.encode(tokenizer.sentence_start + pair[side]) for pair in progress)
    buffer = io.BytesIO()
    np.savez(buffer, ids=encoded.ids, offsets=encoded.offsets)
    write_atomically(file, buffer.getvalue())
    return encoded


def _cached(kind: str, key: list[Any], suffix: str) -> Any:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_dir(kind) / f"{digest}.{suffix}"
