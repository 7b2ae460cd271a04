"""Vectors of words as a space: neighbours, analogies, and agreement with people's judgements.

Axes: V words, D embedding, Q questions.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqexp.metrics.intervals import Z

Floats = npt.NDArray[np.float32]
Question = tuple[str, str, str, str]
Pair = tuple[str, str, float]

# Of 3CosMul: what keeps the denominator from zero (Levy & Goldberg 2014).
EPSILON = 1e-3
# Questions that are compared with all words at a time.
BLOCK = 256


@dataclass(frozen=True)
class Answer:
    """A question about four words that all have vectors, and whether each method finds the fourth."""

    question: Question
    cosadd: bool
    cosmul: bool


class VectorSpace:
    """Words from the most frequent on, with vectors (V, D); `most` of them can be answers (None: all).

    Words are found without regard to case; the most frequent of several forms counts, as in gensim.
    """

    def __init__(self, words: Sequence[str], vectors: Floats, most: int | None = None) -> None:
        self.words, self.vectors = list(words[:most]), np.asarray(vectors[:most], dtype=np.float32)
        self.units = unit(self.vectors)
        self._number: dict[str, int] = {}
        forms: dict[str, list[int]] = {}
        for number, word in enumerate(self.words):
            self._number.setdefault(word.upper(), number)
            forms.setdefault(word.upper(), []).append(number)
        # Of words that are written in several ways: all of them.
        self._forms = {self._number[word]: numbers for word, numbers in forms.items() if len(numbers) > 1}

    def number(self, word: str) -> int | None:
        """Return the number of a word, or None."""
        return self._number.get(word.upper())

    def same(self, number: int) -> list[int]:
        """Return the numbers of all forms of a word."""
        return self._forms.get(number, [number])

    def nearest(self, scores: Floats, count: int, without: Iterable[int] = ()) -> list[tuple[str, float]]:
        """Return the `count` words of the highest scores (V,), but not those `without`."""
        scores = scores.copy()
        scores[list(without)] = -np.inf
        best = np.argsort(-scores, kind="stable")[:count]
        return [(self.words[i], float(scores[i])) for i in best if np.isfinite(scores[i])]

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """Answer the questions "a is to b as c is to …" whose four words are known.

        3CosAdd takes the word x nearest to b - a + c (Mikolov et al. 2013c), 3CosMul that of the greatest
        cos(x, b) cos(x, c) / (cos(x, a) + 1e-3), with cosines in [0, 1] (Levy & Goldberg 2014, eq. 4). Words
        of the question are no answers.
        """
        for first in range(0, len(questions), BLOCK):
            known = [
                (question, [number for word in question if (number := self.number(word)) is not None])
                for question in questions[first : first + BLOCK]
            ]
            known = [(question, numbers) for question, numbers in known if len(numbers) == 4]
            if not known:
                continue
            asked, places = np.unique([numbers[:3] for _, numbers in known], return_inverse=True)
            a, b, c = places.reshape(-1, 3).T
            cosines = self.units[asked] @ self.units.T
            sums = cosines[b] - cosines[a] + cosines[c]
            shifted = (cosines + 1) / 2
            products = shifted[b] * shifted[c] / (shifted[a] + np.float32(EPSILON))
            for row, (question, numbers) in enumerate(known):
                taken = [same for number in numbers[:3] for same in self.same(number)]
                sums[row, taken] = products[row, taken] = -np.inf
                right = self.same(numbers[3])
                yield Answer(question, sums[row].argmax() in right, products[row].argmax() in right)

    def similarities(
        self, pairs: Sequence[Pair], more: Mapping[str, Floats] | None = None
    ) -> tuple[list[float], list[float]]:
        """Return the cosines and the given scores of pairs whose words have vectors, here or in `more`."""
        cosines, given = [], []
        for first, second, score in pairs:
            vectors = [self._unit_of(word, more or {}) for word in (first, second)]
            if vectors[0] is not None and vectors[1] is not None:
                cosines.append(float(vectors[0] @ vectors[1]))
                given.append(score)
        return cosines, given

    def outliers(self, group: Sequence[str], outliers: Sequence[str]) -> list[bool]:
        """Return of each known outlier whether it fits a group of words less than each of these fits.

        A word fits as much as its mean cosine with the others (Camacho-Collados & Navigli 2016). Words of the
        group that are not known are left out; if fewer than three are left, no outlier counts.
        """
        known = [number for word in group if (number := self.number(word)) is not None]
        found = []
        for word in outliers if len(known) >= 3 else ():
            number = self.number(word)
            if number is not None:
                units = self.units[[*known, number]]
                fits = (units @ units.T).sum(axis=1) - 1
                found.append(bool(fits[-1] < fits[:-1].min()))
        return found

    def _unit_of(self, word: str, more: Mapping[str, Floats]) -> Floats | None:
        number = self.number(word)
        if number is not None:
            found: Floats = self.units[number]
            return found
        return unit(more[word]) if word in more else None


def unit(vectors: Floats) -> Floats:
    """Return vectors (..., D) of length 1; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-30)).astype(np.float32)


def spearman(first: Sequence[float], second: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Return Spearman's rank correlation and its 95 % interval; None for fewer than ten pairs.

    The interval is Fisher's, with the standard error of Bonett & Wright (2000).
    """
    from scipy.stats import rankdata

    n = len(first)
    ranks = [rankdata(values) for values in (first, second)]
    if n < 2 or any(len(set(values)) < 2 for values in (first, second)):
        return math.nan, None
    r = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    if n < 10 or abs(r) > 1 - 1e-12:
        return r, None
    margin = Z * math.sqrt((1 + r * r / 2) / (n - 3))
    return r, (math.tanh(math.atanh(r) - margin), math.tanh(math.atanh(r) + margin))
