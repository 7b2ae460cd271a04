"""How likely a language model finds texts: sums of log-probabilities, batched, windowed, never a mean.

Every text begins after the document boundary. A word stands as in running text: a space before it, and after
it, whatever ends a word. That end counts with the probability of all tokens that do not begin with a letter,
so that characters and subwords are asked the same.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from seqexp.data.batch import IGNORE, Batch
from seqexp.errors import RunFailedError
from seqexp.models.layers import window_start
from seqexp.tokenizers.base import Tokenizer

Ids64 = npt.NDArray[np.int64]

# Tokens in a batch: enough to keep the machine busy. The logits of a batch are bounded too.
BATCH_TOKENS = 8192
MOST_LOGITS = 1 << 26


@dataclass(frozen=True)
class Scores:
    """The log-probability of each text in nats, (N,); NaN where a text cannot be written.

    `unknown` are the characters that this is about, text by text; `tokens` were read in all.
    """

    log_probabilities: npt.NDArray[np.float64]
    unknown: list[str]
    tokens: int


@dataclass(frozen=True)
class _Row:
    """A window of a text: its number, what is read, what is predicted, and whether a word ends with it."""

    text: int
    inputs: Ids64
    targets: Ids64
    ends_word: bool


def batches_of(lengths: list[int], room: int) -> Iterator[list[int]]:
    """Numbers of rows of about the same length, as many as fit into `room` tokens with their padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):  # the last of a batch is its longest
        if batch and (len(batch) + 1) * lengths[i] > room:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


class Scorer:
    """Scores texts with a language model, in evaluation mode, on the model's device."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.model, self.tokenizer, self.autocast = model, tokenizer, autocast
        self.window: int | None = getattr(model, "max_len", None)
        self.device = next(model.parameters()).device
        ends = [tokenizer.ends_word(number) for number in range(tokenizer.vocab_size)]
        self._ends = torch.tensor(ends, device=self.device)

    def score(self, texts: Sequence[str], *, words: bool) -> Scores:
        """Sum of log p(token | boundary, earlier tokens) of each text; of a word with its end.

        A text that is longer than the model's window is read in several, each of which keeps the last half of
        the one before, as when text is generated. Neither order nor padding changes anything.

        Raises:
            RunFailedError: the model gives no number for a text.
        """
        before = self.tokenizer.word_start if words else self.tokenizer.sentence_start
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        rows: list[_Row] = []
        unknown = [""] * len(distinct)
        for text, number in distinct.items():
            ids = self.tokenizer.encode(before + text).astype(np.int64)
            if self.tokenizer.unk_id is not None and (ids == self.tokenizer.unk_id).any():
                unknown[number] = self.tokenizer.unknown_characters(text) or text
            else:
                rows += self._windows(number, ids, words)
        found = np.zeros(len(distinct))
        np.add.at(found, [row.text for row in rows], self._sums(rows))
        found[[number for number, characters in enumerate(unknown) if characters]] = math.nan
        places = [distinct[text] for text in texts]
        tokens = sum(len(row.inputs) for row in rows)
        return Scores(found[places], [unknown[place] for place in places], tokens)

    def _windows(self, number: int, ids: Ids64, words: bool) -> Iterator[_Row]:
        """A text as one row, or as several that overlap."""
        inputs = np.concatenate(([self.tokenizer.bos_id], ids))
        # The end of a word is predicted too; what follows the last token of a sentence is not asked.
        targets = np.append(ids, IGNORE)
        if not words:
            inputs, targets = inputs[:-1], targets[:-1]
        size = self.window or len(inputs)
        start = done = 0  # the window begins at `start`; predictions before `done` are made
        while done < len(inputs):
            start = window_start(done + 1, size)
            end = min(start + size, len(inputs))
            counted = targets[start:end].copy()
            counted[: done - start] = IGNORE
            yield _Row(number, inputs[start:end], counted, words and end == len(inputs))
            done = end

    def _sums(self, rows: list[_Row]) -> npt.NDArray[np.float64]:
        """The log-probability of each row's targets, in the order given, (N,)."""
        room = max(1, min(BATCH_TOKENS, MOST_LOGITS // self.tokenizer.vocab_size))
        batches = list(batches_of([len(row.inputs) for row in rows], room))
        was_training = self.model.training
        self.model.eval()
        progress = tqdm(total=len(rows), desc="exam", unit="text", delay=2, leave=False, disable=None)
        parts = []
        with torch.inference_mode(), progress:
            for some in batches:
                parts.append(self._sum_batch([rows[i] for i in some]))
                progress.update(len(some))
        self.model.train(was_training)
        sums = np.zeros(len(rows))
        if parts:
            sums[np.concatenate(batches)] = torch.cat(parts).cpu().numpy()
        if np.isnan(sums).any():
            bad = rows[int(np.isnan(sums).argmax())].text
            raise RunFailedError(
                f"the model gives NaN for text {bad + 1} of the exam; its weights are damaged, or training "
                "went wrong. Look at train/loss, or take another checkpoint=."
            )
        return sums

    def _sum_batch(self, rows: list[_Row]) -> Tensor:
        """(B,) in fp64, on the device: nothing here waits for a GPU."""
        lengths = [len(row.inputs) for row in rows]
        inputs = np.full((len(rows), max(lengths)), self.tokenizer.bos_id)
        targets = np.full(inputs.shape, IGNORE)
        for b, row in enumerate(rows):
            inputs[b, : lengths[b]], targets[b, : lengths[b]] = row.inputs, row.targets
        tensors = {"inputs": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}
        batch = Batch(tensors, np.zeros(len(rows), np.int64)).to(self.device)
        with self.autocast():
            logits = self.model(batch.inputs)
        B, T, V = logits.shape
        nll = F.cross_entropy(
            logits.reshape(B * T, V).float(),
            batch.targets.reshape(B * T),
            ignore_index=IGNORE,
            reduction="none",
        )
        sums = -nll.view(B, T).sum(1, dtype=torch.float64)
        ending = [b for b, row in enumerate(rows) if row.ends_word]
        if ending:
            last = logits[ending, [lengths[b] - 1 for b in ending]].double()
            end = last.masked_fill(~self._ends, -math.inf).logsumexp(1) - last.logsumexp(1)
            sums[ending] += end
        return sums
