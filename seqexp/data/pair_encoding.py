"""Pairs of sentences as token numbers: fit tokenizers on the training split, encode, cache."""

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from seqexp import registry
from seqexp.data.fitting import cached, encoding_key, fit_tokenizer
from seqexp.data.pairs import Pair, PairCorpus
from seqexp.files import write_atomically
from seqexp.tokenizers.base import Tokenizer

# In the key of encoded pairs: raise it when sentences are joined with tokens in another way.
ENCODING_VERSION = 2


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
        positions = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Sentences(self.ids[positions], offsets)

    def __getitem__(self, number: int) -> npt.NDArray[np.uint32]:
        return self.ids[self.offsets[number] : self.offsets[number + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)


def fit_tokenizers(pairs: list[Pair], sha256: str, config: Any) -> tuple[Tokenizer, Tokenizer]:
    """The source's and the target's tokenizer, or one for both, from the training pairs with this hash."""

    def fit(*sides: int) -> Tokenizer:
        start = registry.load("tokenizer", config.name).sentence_start
        texts = (start + pair[side] for side in sides for pair in pairs)
        return fit_tokenizer(config, texts, ["pairs", sha256, sides])

    if getattr(config, "joint", False):
        both = fit(0, 1)
        return both, both
    return fit(0), fit(1)


def encode_side(corpus: PairCorpus, tokenizer: Tokenizer, side: int) -> Sentences:
    """All sentences of one side (0: source, 1: target), from the cache or encoded now."""
    file = cached("pairs", [ENCODING_VERSION, corpus.sha256, *encoding_key(tokenizer), side], ".npz")
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
