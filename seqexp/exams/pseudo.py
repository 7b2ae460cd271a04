"""Score texts with a masked language model: pseudo-log-likelihoods (Salazar et al. 2020).

The score of a text is the sum of log p(token | all other tokens), where each token in turn is masked. With
`within_word`, the later tokens of its word are masked too (Kauf & Ivanova 2023), so that the rest of a rare
word does not give a part of it away.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seqexp.exams.scoring import BATCH_TOKENS, Ids64, Scorer, batches_of
from seqexp.tokenizers.base import Tokenizer


class PseudoScorer(Scorer):
    """Score texts with a model that predicts masked tokens, `Bert` for instance."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        within_word: bool = False,
    ) -> None:
        super().__init__(model, tokenizer, autocast)
        assert tokenizer.mask_id is not None
        self.mask_id, self.within_word = tokenizer.mask_id, within_word

    def _score_tokens(self, encoded: dict[int, Ids64], words: bool) -> tuple[npt.NDArray[np.float64], int]:
        """Return the pseudo-log-likelihood of each text; the end of a word is always shown to the model."""
        del words
        begin, end = [self.tokenizer.bos_id], [self.tokenizer.eos_id]
        texts = [np.concatenate((begin, ids, end)).astype(np.int64) for ids in encoded.values()]
        lengths = np.array([len(text) - 2 for text in texts], dtype=np.int64)
        # A row for each token: the text that it is in, and its position there.
        which = np.repeat(np.arange(len(texts)), lengths)
        place = 1 + np.arange(len(which)) - np.repeat(lengths.cumsum() - lengths, lengths)
        size = self.window or (1 << 60)
        sizes = np.minimum(lengths[which] + 2, size)
        batches = list(batches_of(sizes.tolist(), BATCH_TOKENS))
        numbers = list(encoded)

        def sum_batch(batch: list[int]) -> Tensor:
            return self._masked_batch([self._row(texts[which[i]], int(place[i]), size) for i in batch])

        found = np.zeros(len(texts))
        np.add.at(found, which, self._run(batches, sum_batch, lambda i: numbers[which[i]]))
        return found, int(sizes.sum())

    def _row(self, tokens: Ids64, t: int, size: int) -> tuple[Ids64, int, int]:
        """Return a text with token t masked, in a window around it; its place there; and the token."""
        last = t + 1
        while self.within_word and last < len(tokens) - 1 and not self._ends[tokens[last]]:
            last += 1
        seen = tokens.copy()
        seen[t:last] = self.mask_id
        start = min(max(0, t - size // 2), max(0, len(tokens) - size))
        return seen[start : start + size], t - start, int(tokens[t])

    def _masked_batch(self, rows: list[tuple[Ids64, int, int]]) -> Tensor:
        """Return the log-probability of each row's token, (B,), in fp64."""
        lengths = torch.tensor([len(seen) for seen, _, _ in rows])
        inputs = np.full((len(rows), int(lengths.max())), self.tokenizer.eos_id)
        for b, (seen, _, _) in enumerate(rows):
            inputs[b, : len(seen)] = seen
        tokens = torch.from_numpy(inputs).to(self.device)
        positions = torch.tensor([[t] for _, t, _ in rows], device=self.device)
        wanted = torch.tensor([[token] for _, _, token in rows], device=self.device)
        padded = int(lengths.min()) < inputs.shape[1]
        with self.autocast():
            logits = self.model(tokens, lengths.to(self.device) if padded else None, positions)
        return logits[:, 0].float().log_softmax(dim=1).gather(1, wanted)[:, 0].double()
