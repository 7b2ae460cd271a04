"""The parity task: random bits, and at each step whether the ones so far are odd (the running XOR).

Nothing is read from files: a batch is drawn from (seed, step, the curriculum's length), and the held-out
sequences of each length are the same for every run, so that runs compare.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seqexp.config.data import OtherDataConfig, ParityDataConfig
from seqexp.config.tokenizer import TokenizerConfig
from seqexp.data.base import Data, View
from seqexp.data.batch import Batch
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import UserError
from seqexp.tokenizers.bits import BitTokenizer

# Bits in one batch of validation: enough to keep the machine busy, little enough for any memory.
EVAL_BITS = 100_000
# More held-out bits of one length than this are refused: they are in memory at once.
MOST_BITS = 50_000_000
# Training draws from (seed, step), and seeds are not this long: held-out sequences are other sequences.
HELD_OUT = {"val": 2**63, "test": 2**63 + 1}


def running_parity(bits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """y_t = x_1 xor … xor x_t along the last axis."""
    return np.bitwise_xor.accumulate(bits, axis=-1)


class ParityData(Data):
    """Sequences of bits of one length, or of lengths drawn between bounds, with a curriculum if asked for."""

    splits = ("val", "test")

    def __init__(
        self, config: ParityDataConfig, preprocessor: Preprocessor, seed: int, sequences: int
    ) -> None:
        self.config, self.preprocessor, self.seed = config, preprocessor, seed
        self.sequences = sequences
        self.validated_on = f"{self.eval_length} bits"
        self.length = config.seq_len  # the longest in training now: the state of the curriculum
        self.lengths = sorted({*config.eval_lengths, self.eval_length})  # that `eval` judges
        self.origin = f"drawn from the seed, {_lengths(config)}"

    @classmethod
    def build(
        cls,
        config: ParityDataConfig,
        tokenizer: TokenizerConfig | None = None,
        seed: int = 1,
        preprocessor: Preprocessor | None = None,
    ) -> "ParityData":
        """There is nothing to fit: bits in, one logit out."""
        del tokenizer
        preprocessor = preprocessor or Preprocessor({"text": BitTokenizer()}, n_outputs=1)
        return cls(config, preprocessor, seed, config.eval_sequences)

    @classmethod
    def for_evaluation(
        cls,
        config: ParityDataConfig,
        preprocessor: Preprocessor,
        manifest: dict[str, Any],
        other: OtherDataConfig,
        seed: int,
    ) -> "ParityData":
        """The held-out sequences that a run is judged on, of `other.lengths` if these are given.

        The test split is drawn from `seed`: another seed gives fresh sequences.

        Raises:
            UserError: another text was named, or more bits than memory holds.
        """
        del manifest
        other.refuse_all_but(("lengths", "sequences"))
        data = cls(config, preprocessor, seed, sequences=other.sequences or config.eval_sequences)
        data.lengths = sorted(set(other.lengths)) if other.lengths else data.lengths
        data.origin = "held-out sequences, the same for every run"
        bits = data.lengths[-1] * data.sequences
        if bits > MOST_BITS:
            raise UserError(
                f"{data.sequences:,} sequences of {data.lengths[-1]:,} bits are {bits:,} bits, and the "
                f"limit is {MOST_BITS:,}; lower data.sequences or data.lengths."
            )
        return data

    @property
    def steps_per_epoch(self) -> float:
        """Sequences never repeat; count as many as the held-out set has as an epoch."""
        return self.sequences / self.config.batch_size

    # Training

    def train_batch(self, step: int) -> Batch:
        """The batch of step 0, 1, 2, …: a pure function of seed, step and the curriculum's length."""
        draw = np.random.default_rng([self.seed, step])
        rows, shortest = self.config.batch_size, self.config.min_seq_len
        bits = draw.integers(0, 2, (rows, self.length))
        if shortest is None:
            return _batch(bits)
        return _batch(bits, draw.integers(min(shortest, self.length), self.length + 1, rows))

    @property
    def review_every(self) -> int | None:
        """In how many steps the curriculum looks at the training loss; None: never."""
        growing = self.config.max_seq_len is not None and self.length < self.config.max_seq_len
        return self.config.grow_every if growing else None

    def review(self, loss: float) -> str | None:
        """Grow if the training loss since the last review is under the threshold; what to tell the user."""
        longest = self.config.max_seq_len
        if longest is None or self.length >= longest or not loss < self.config.grow_below:
            return None
        self.length = min(longest, self.length + self.config.grow_by)
        return f"curriculum: sequences now have up to {self.length} bits"

    def state(self) -> dict[str, Any]:
        return {"length": self.length}

    def load_state(self, state: dict[str, Any]) -> None:
        length = int(state["length"])
        if not self.config.seq_len <= length <= self.eval_length:
            raise ValueError(f"sequences of {length} bits are not part of the curriculum")
        self.length = length

    def metrics(self) -> dict[str, float]:
        """What belongs into the log beside the loss."""
        return {"train/seq_len": self.length}

    # Held-out sequences

    @property
    def eval_length(self) -> int:
        """The length at which the run is validated: the longest of training."""
        return self.config.max_seq_len or self.config.seq_len

    def held_out(self, split: str, length: int, sequences: int) -> npt.NDArray[np.int64]:
        """The first `sequences` held-out sequences of this length, (N, length): the same for every run."""
        key = [HELD_OUT[split], length] if split == "val" else [HELD_OUT[split], length, self.seed]
        return np.random.default_rng(key).integers(0, 2, (sequences, length))

    def eval_batches(self, split: str) -> Iterator[Batch]:
        bits = self.held_out(split, self.eval_length, self.sequences)
        rows = max(1, EVAL_BITS // self.eval_length)
        for first in range(0, len(bits), rows):
            yield _batch(bits[first : first + rows])

    def eval_count(self, split: str) -> int:
        del split
        return self.sequences * self.eval_length

    def views(self, max_len: int | None) -> tuple[list[View], list[str]]:
        """The data at each length that `eval` judges, and notes of the lengths that the model cannot hold."""
        fit = [length for length in self.lengths if max_len is None or length <= max_len]
        views = []
        for length in fit:
            config = replace(self.config, seq_len=length, min_seq_len=None, max_seq_len=None)
            data = ParityData(config, self.preprocessor, self.seed, self.sequences)
            views.append(View({"length": length}, data, main=length == self.eval_length))
        skipped = ", ".join(str(length) for length in self.lengths if length not in fit)
        return views, [f"not judged: lengths {skipped}; the model's window is {max_len}"] if skipped else []

    def describe(self) -> dict[str, Any]:
        """The sequences for the manifest; the hash stands for the way in which they are drawn."""
        digest = hashlib.sha256(b"parity 1: numpy default_rng, integers").hexdigest()
        return {
            "name": self.config.name,
            "origin": self.origin,
            "stand_in": None,
            "sha256": digest,
            "splits": {split: {"sequences": self.sequences} for split in self.splits},
        }


def _lengths(config: ParityDataConfig) -> str:
    shortest = f"{config.min_seq_len} to " if config.min_seq_len else ""
    grown = f", growing to {config.max_seq_len}" if config.max_seq_len else ""
    return f"{shortest}{config.seq_len} bits{grown}"


def _batch(bits: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | None = None) -> Batch:
    """Bits (B, T) with their running parity; of row b only the first `lengths[b]` count."""
    targets = running_parity(bits)
    lengths = np.full(len(bits), bits.shape[1]) if lengths is None else lengths
    return Batch.of_targets(torch.from_numpy(bits), torch.from_numpy(targets), lengths)
