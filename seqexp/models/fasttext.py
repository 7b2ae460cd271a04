"""Word vectors made of character n-grams (Bojanowski et al. 2017)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqexp.models.word2vec import Word2Vec
from seqexp.tokenizers.ngrams import fnv1a, ngrams


class FastText(Word2Vec):
    """Like `Word2Vec`; the vector of a word is the mean of its own row and those of its n-grams.

    The embedding has a row for each word, then `buckets` rows that n-grams share by their hash. Each row of a
    word is moved by the gradient of the mean, as in the authors' code: the gradient of a row would be smaller
    by the number of rows, and words with many n-grams would learn slowly.
    """

    def __init__(
        self,
        words: Sequence[str],
        n_embd: int = 100,
        architecture: str = "skipgram",
        min_n: int = 3,
        max_n: int = 6,
        buckets: int = 200_000,
    ) -> None:
        self.min_n, self.max_n, self.buckets = min_n, max_n, buckets
        super().__init__(words, n_embd, architecture)
        found = [torch.tensor([number, *self.rows_of(word)]) for number, word in enumerate(words)]
        self._counts = torch.tensor([len(rows) for rows in found])
        # The rows of each word, (V, most rows of a word), filled up with the row that stays zero.
        self._table = nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=self.n_rows)
        self._table = self._table.to(torch.int32)

    @property
    def n_rows(self) -> int:
        return len(self.words) + self.buckets

    def make_embedding(self, n_embd: int) -> nn.Embedding:
        return nn.Embedding(self.n_rows + 1, n_embd, padding_idx=self.n_rows)

    def rows_of(self, word: str) -> list[int]:
        """Return the rows of the n-grams of a word."""
        return [len(self.words) + fnv1a(one) % self.buckets for one in ngrams(word, self.min_n, self.max_n)]

    def subwords(self) -> tuple[Tensor, Tensor]:
        """Return `ends` (V + 1,) and `rows`: those of word w are ``rows[ends[w]:ends[w + 1]]``."""
        ends = nn.functional.pad(self._counts.cumsum(0), (1, 0))
        return ends, self._table[self._table < self.n_rows]

    def vectors(self, words: Tensor) -> Tensor:
        flat = words.flatten()
        rows = self._table.to(words.device)[flat]
        total = F.embedding_bag(
            rows, self.embedding.weight, mode="sum", padding_idx=self.n_rows, sparse=self.embedding.sparse
        )
        mean = total / self._counts.to(words.device)[flat].unsqueeze(1)
        if torch.is_grad_enabled():  # the value of the mean, with the gradient of the sum
            mean = total + (mean - total).detach()
        return mean.unflatten(0, words.shape)

    @torch.no_grad()
    def vector_of(self, word: str) -> Tensor | None:
        """Return the vector (D,) of a word that is not in the vocabulary; None if it has no n-grams."""
        rows = self.rows_of(word)
        return self.embedding.weight[rows].mean(0) if rows else None
