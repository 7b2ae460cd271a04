"""Running text as windows with masked tokens, for encoders such as BERT.

A window is the token before a text (``[CLS]``), text of one document, and the token after it (``[SEP]``).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from seqexp.data.batch import IGNORE, Batch
from seqexp.data.encoded import Part
from seqexp.data.masking import Ids, Masking, Vocabulary
from seqexp.data.shuffle import ROUNDS, permute
from seqexp.data.text import EVAL_TOKENS, TextData
from seqexp.errors import UserError

# Streams of random numbers of their own: of the masks in training, and of those in evaluation.
TRAINING_MASKS, EVALUATION_MASKS = 1, 2
# The masks of an evaluation: the same for every run, and always shown as the mask token.
EVALUATION = Masking(mask_token_share=1.0, random_token_share=0.0)
# Tokens that are searched for boundaries at once.
CHUNK = 1 << 24


@dataclass(frozen=True)
class Documents:
    """Where the documents of a split begin in its tokens, and their lengths without boundaries, (N,) each."""

    starts: Ids
    lengths: Ids

    @classmethod
    def of(cls, part: Part, boundary: int) -> "Documents":
        """Find the documents of an encoded split between its boundary tokens."""
        tokens = part.mapped()
        edges = [
            first + np.flatnonzero(tokens[first : first + CHUNK] == boundary)
            for first in range(0, part.tokens, CHUNK)
        ]
        # The first token of a split is context, whatever it is.
        borders = np.unique(np.concatenate([[0], *edges, [part.tokens]]).astype(np.int64))
        starts, lengths = borders[:-1] + 1, np.diff(borders) - 1
        return cls(starts[lengths > 0], lengths[lengths > 0])

    @classmethod
    def whole(cls, part: Part) -> "Documents":
        """Return the split as a single document, with the boundaries in it."""
        return cls(np.array([1]), np.array([part.tokens - 1]))


class MaskedTextData(TextData):
    """A batch has `tokens` (B, T), the masked `positions` (B, K), and their true tokens as `targets` (B, K).

    Where windows are shorter than `data.seq_len`, it also has their lengths. Each epoch cuts the documents
    from other starts and visits every window once; documents shorter than a window are windows of their own.
    `uniform` (B, K), if there are samples, holds numbers in [0, 1).

    With `dynamic`, masks are drawn anew for each step, else once for each window, and the cuts stay.
    """

    @classmethod
    def of(
        cls, text: TextData, masking: Masking, dynamic: bool, cross_documents: bool, samples: bool = False
    ) -> "MaskedTextData":
        """Return the windows of a text with masks; with `samples`, also with numbers to draw tokens by.

        Raises:
            UserError: the tokenizer has no mask token, or a split has no text.
        """
        data = cls.__new__(cls)
        vars(data).update(vars(text))
        data.masking, data.dynamic, data.samples = masking, dynamic, samples
        data.vocabulary = Vocabulary.of(text.tokenizer)
        data.content = text.config.seq_len - 2
        boundary = text.tokenizer.bos_id
        data.documents = {
            name: Documents.whole(part) if cross_documents else Documents.of(part, boundary)
            for name, part in text.splits.items()
        }
        for name, documents in data.documents.items():
            if not len(documents.lengths):
                raise UserError(f"the {name} split has no tokens; give more text.")
        if "train" in data.documents:
            # Whole windows only, but of a short document the whole.
            lengths = data.documents["train"].lengths
            data.last_window = np.cumsum(np.maximum(1, lengths // data.content))
        data._phases = lru_cache(maxsize=2)(data._draw_phases)
        return data

    _phases: Callable[[int], Ids]
    masking: Masking
    dynamic: bool
    samples: bool
    vocabulary: Vocabulary
    content: int
    documents: dict[str, Documents]
    last_window: Ids

    @property
    def windows(self) -> int:
        """The number of training windows in an epoch."""
        return int(self.last_window[-1])

    @property
    def steps_per_epoch(self) -> float:
        return self.windows / self.config.batch_size

    def train_batch(self, step: int) -> Batch:
        """Return the batch of step 0, 1, 2, …: a pure function of seed and step."""
        size = self.config.batch_size
        count = np.arange(step * size, (step + 1) * size, dtype=np.int64)
        epochs, numbers = np.divmod(count, self.windows)
        starts, lengths = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            keys = (
                np.random.SeedSequence([self.seed, int(epoch)])
                .generate_state(ROUNDS, np.uint64)
                .astype(np.uint64)
            )
            numbers[here] = permute(numbers[here], self.windows, keys).astype(np.int64)
            phases = self._phases(int(epoch) if self.dynamic else 0)
            starts[here], lengths[here] = self._window(numbers[here], phases)
        if self.dynamic:
            draw = np.random.default_rng([self.seed, TRAINING_MASKS, step])
            return self._batch("train", starts, lengths, self.masking, [draw])
        draws = [np.random.default_rng([self.seed, TRAINING_MASKS, int(number)]) for number in numbers]
        return self._batch("train", starts, lengths, self.masking, draws)

    def _draw_phases(self, epoch: int) -> Ids:
        """Return how many tokens of each training document an epoch leaves out before its first window."""
        lengths = self.documents["train"].lengths
        slack = np.where(lengths > self.content, lengths % self.content, 0)
        draw = np.random.default_rng([self.seed, TRAINING_MASKS, epoch, 1])
        return draw.integers(0, slack + 1)

    def _window(self, numbers: Ids, phases: Ids) -> tuple[Ids, Ids]:
        """Return where these training windows begin in the tokens of the split, and their lengths."""
        documents = self.documents["train"]
        which = np.searchsorted(self.last_window, numbers, side="right")
        before = np.where(which > 0, self.last_window[which - 1], 0)
        starts = documents.starts[which] + phases[which] + (numbers - before) * self.content
        return starts, np.minimum(documents.lengths[which], self.content)

    def _batch(
        self, split: str, starts: Ids, lengths: Ids, masking: Masking, draws: list[np.random.Generator]
    ) -> Batch:
        """Return windows as a batch; `draws` has one generator for all, or one for each."""
        tokenizer, part = self.tokenizer, self.splits[split]
        padding = tokenizer.eos_id if tokenizer.pad_id is None else tokenizer.pad_id
        text = part.windows(starts, self.content)
        # A boundary inside a window separates two documents.
        text[text == tokenizer.bos_id] = tokenizer.eos_id
        tokens = np.full((len(starts), self.content + 2), padding, dtype=np.int64)
        tokens[:, 0] = tokenizer.bos_id
        tokens[:, 1:-1] = np.where(np.arange(self.content) < lengths[:, None], text, padding)
        tokens[np.arange(len(starts)), lengths + 1] = tokenizer.eos_id
        rows = [slice(None)] if len(draws) == 1 else [slice(b, b + 1) for b in range(len(starts))]
        masked = [
            masking.apply(tokens[some], self.vocabulary, self.content, draw)
            for some, draw in zip(rows, draws, strict=True)
        ]
        seen, positions, targets = (
            torch.from_numpy(np.concatenate(some)) for some in zip(*masked, strict=True)
        )
        real = torch.from_numpy(lengths + 2)
        tensors = {"tokens": seen, "positions": positions, "targets": targets}
        if self.samples:
            shape = positions.shape if len(draws) == 1 else positions.shape[1:]
            uniform = np.concatenate([draw.random(shape, dtype=np.float32) for draw in draws])
            tensors["uniform"] = torch.from_numpy(uniform.reshape(positions.shape))
        return Batch(
            tensors,
            (targets != IGNORE).sum(dim=1).numpy(),
            {"tokens": real} if int(lengths.min()) < self.content else {},
            tokens_read=int(lengths.sum()) + 2 * len(lengths),
        )

    def eval_windows(self, split: str) -> tuple[Ids, Ids]:
        """Return where the windows of a split begin in its tokens, and their lengths: each token once."""
        documents = self.documents[split]
        windows = -(-documents.lengths // self.content)
        which = np.repeat(np.arange(len(windows)), windows)
        offsets = (np.arange(len(which)) - np.repeat(np.cumsum(windows) - windows, windows)) * self.content
        return documents.starts[which] + offsets, np.minimum(documents.lengths[which] - offsets, self.content)

    def eval_batches(self, split: str) -> Iterator[Batch]:
        """Yield the whole split once, in order, with the same masks always."""
        starts, lengths = self.eval_windows(split)
        rows = max(1, EVAL_TOKENS // self.config.seq_len)
        for first in range(0, len(starts), rows):
            some = slice(first, first + rows)
            numbers = range(first, first + len(starts[some]))
            draws = [np.random.default_rng([EVALUATION_MASKS, number]) for number in numbers]
            yield self._batch(split, starts[some], lengths[some], EVALUATION, draws)

    def neighbours(self, split: str, offsets: Sequence[int]) -> tuple[Ids, Ids]:
        """Return the tokens at these offsets of each masked token in `eval_batches`, (N, n), and it, (N,).

        A neighbour that is masked, special or beyond the window is -1.
        """
        rows: list[Ids] = []
        true: list[Ids] = []
        for batch in self.eval_batches(split):
            tokens, targets = batch.tokens.numpy(), batch.targets.numpy()
            b, k = np.nonzero(targets != IGNORE)
            where = batch.positions.numpy()[b, k][:, None] + np.array(offsets)
            inside = (where >= 0) & (where < tokens.shape[1])
            shown = tokens[b[:, None], np.where(inside, where, 0)]
            rows.append(np.where(inside & self.vocabulary.ordinary[shown], shown, -1))
            true.append(targets[b, k])
        return np.concatenate(rows), np.concatenate(true)

    def eval_count(self, split: str) -> int:
        """Return the number of masked tokens in `eval_batches`, if no token is unknown."""
        _, lengths = self.eval_windows(split)
        return sum(EVALUATION.most(int(length)) for length in lengths)
