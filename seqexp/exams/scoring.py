"""Score texts with a language model: sums of log-probabilities, not normalised by length.

Every text follows the document boundary. A word is scored as in running text: after a space, and with the
end of the word. The probability of that end is the sum over all tokens that do not begin with a letter, so
that models of characters and of subwords are asked the same question.
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

# Tokens of a batch: enough to keep the machine busy. The number of logits is limited too.
BATCH_TOKENS = 8192
MOST_LOGITS = 1 << 26


@dataclass(frozen=True)
class Scores:
    """The log-probability of each text in nats, (N,); NaN if the tokenizer cannot encode a text.

    `unknown` holds the unknown characters of each text; `tokens` is the number of tokens read.
    """

    log_probabilities: npt.NDArray[np.float64]
    unknown: list[str]
    tokens: int


@dataclass(frozen=True)
class _Row:
    """A window of text number `text`: inputs, targets, and whether the end of a word follows."""

    text: int
    inputs: Ids64
    targets: Ids64
    ends_word: bool


def batches_of(lengths: list[int], max_tokens: int) -> Iterator[list[int]]:
    """Yield indices of rows of similar length; a batch has at most `max_tokens`, with padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):  # the last of a batch is its longest
        if batch and (len(batch) + 1) * lengths[i] > max_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


class Scorer:
    """Score texts with a language model, in evaluation mode, on the model's device."""

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
        self._ends = np.array(ends)

    def score(self, texts: Sequence[str], *, words: bool) -> Scores:
        """Return the sum of log p(token | boundary, earlier tokens) of each text; `words` adds a word's end.

        A text longer than the model's window is read in several windows. Each keeps the last half of the one
        before, as in generation. Scores do not depend on the order of texts or on padding.

        Raises:
            RunFailedError: the model gives NaN for a text.
        """
        before = self.tokenizer.word_start if words else self.tokenizer.sentence_start
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        encoded: dict[int, Ids64] = {}
        unknown = [""] * len(distinct)
        for text, number in distinct.items():
            ids = self.tokenizer.encode(before + text).astype(np.int64)
            if self.tokenizer.unk_id is not None and (ids == self.tokenizer.unk_id).any():
                unknown[number] = self.tokenizer.unknown_characters(text) or text
            else:
                encoded[number] = ids
        found = np.full(len(distinct), math.nan)
        found[list(encoded)], tokens = self._score_tokens(encoded, words)
        positions = [distinct[text] for text in texts]
        return Scores(found[positions], [unknown[position] for position in positions], tokens)

    def _score_tokens(self, encoded: dict[int, Ids64], words: bool) -> tuple[npt.NDArray[np.float64], int]:
        """Return the score of each text, by number, in their order, and the number of tokens read."""
        rows = [row for number, ids in encoded.items() for row in self._windows(number, ids, words)]
        found = np.zeros(max(encoded, default=0) + 1)
        np.add.at(found, [row.text for row in rows], self._sums(rows))
        return found[list(encoded)], sum(len(row.inputs) for row in rows)

    def _windows(self, number: int, ids: Ids64, words: bool) -> Iterator[_Row]:
        """Yield a text as one row, or as several that overlap."""
        inputs = np.concatenate(([self.tokenizer.bos_id], ids))
        # The end of a word is predicted too; the token after a sentence is not.
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
        """Return the log-probability of each row's targets, (N,).

        Raises:
            RunFailedError: the model gives NaN for a row.
        """
        max_tokens = max(1, min(BATCH_TOKENS, MOST_LOGITS // self.tokenizer.vocab_size))
        batches = list(batches_of([len(row.inputs) for row in rows], max_tokens))
        return self._run(
            batches, lambda batch: self._sum_batch([rows[i] for i in batch]), lambda i: rows[i].text
        )

    def _run(
        self,
        batches: list[list[int]],
        sum_batch: Callable[[list[int]], Tensor],
        text_of: Callable[[int], int],
    ) -> npt.NDArray[np.float64]:
        """Return what `sum_batch` gives for each row, (N,); `text_of` is the number of a row's text.

        Raises:
            RunFailedError: the model gives NaN for a row.
        """
        n = sum(map(len, batches))
        was_training = self.model.training
        self.model.eval()
        progress = tqdm(total=n, desc="exam", unit="text", delay=2, leave=False, disable=None)
        batch_sums = []
        with torch.inference_mode(), progress:
            for batch in batches:
                batch_sums.append(sum_batch(batch))
                progress.update(len(batch))
        self.model.train(was_training)
        sums = np.zeros(n)
        if batches:
            sums[np.concatenate(batches)] = torch.cat(batch_sums).cpu().numpy()
        if np.isnan(sums).any():
            bad = text_of(int(np.isnan(sums).argmax()))
            raise RunFailedError(
                f"the model gives NaN for text {bad + 1} of the exam: its weights are damaged, or training "
                "diverged. Check train/loss, or use another checkpoint=."
            )
        return sums

    def _sum_batch(self, rows: list[_Row]) -> Tensor:
        """Return the log-probability of each row, (B,), in fp64, without waiting for the device."""
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
            ends = torch.from_numpy(self._ends).to(self.device)
            end = last.masked_fill(~ends, -math.inf).logsumexp(1) - last.logsumexp(1)
            sums[ending] += end
        return sums
