"""The baseline: a character n-gram model (Witten & Bell 1991; Chen & Goodman 1999, section 2.4).

p(c | h) = (N(h c) + T(h) p(c | h')) / (N(h) + T(h)), where N counts occurrences, T(h) is the number of
distinct characters seen after the history h, and h' is h without its first character. The recursion ends in
the uniform distribution. Counts of each length are sorted arrays, searched for all texts at once.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
# Codes of the document boundary, and of all characters without a code of their own.
BOUNDARY, UNKNOWN = 0, 1


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


class CharNgram:
    """An interpolated Witten–Bell model of characters; `order` 5 conditions on the previous four."""

    def __init__(self, documents: Iterable[str], order: int = 5) -> None:
        self.order = order
        texts = list(documents)
        # An n-gram must fit into 63 bits, which limits the alphabet: the rarest characters are unknown.
        most = int(2 ** (62 / order)) - 2
        points, counts = np.unique(np.concatenate([_code_points(text) for text in texts]), return_counts=True)
        self._points = np.sort(points[np.argsort(-counts, kind="stable")[:most]])
        self.size = len(self._points) + 2
        boundary = np.array([BOUNDARY])
        codes = np.concatenate([part for text in texts for part in (boundary, self._codes(text))])
        self._tables = [self._count(codes, length) for length in range(1, order + 1)]
        self._ends = np.array([True, False, *(not chr(point).isalpha() for point in self._points)])

    def _codes(self, text: str) -> Codes:
        points = _code_points(text)
        index = np.minimum(np.searchsorted(self._points, points), len(self._points) - 1)
        return np.where(self._points[index] == points, index + 2, UNKNOWN)

    def _keys(self, codes: Codes, length: int) -> Codes:
        """Return one integer per n-gram of this length; the last character is the lowest digit."""
        n_grams = len(codes) - length + 1
        keys = np.zeros(max(0, n_grams), dtype=np.int64)
        for offset in range(length):
            keys = keys * self.size + codes[offset : offset + len(keys)]
        return keys

    def _count(self, codes: Codes, length: int) -> tuple[Codes, Codes, Codes, Codes, Codes]:
        """Return keys and N(h c) of n-grams of this length, and keys, N(h) and T(h) of their histories."""
        keys, counts = np.unique(self._keys(codes, length), return_counts=True)
        histories, first, kinds = np.unique(keys // self.size, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first) if len(first) else counts
        return keys, counts, histories, totals, kinds

    def log_probabilities(self, texts: Sequence[str], *, words: bool) -> npt.NDArray[np.float64]:
        """Return the log-probability of each text in nats, (N,), by the rules of `Scorer.score`."""
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        found = self._sums([*distinct], " " if words else "", words)
        return found[[distinct[text] for text in texts]]

    def _sums(self, texts: list[str], before: str, words: bool) -> npt.NDArray[np.float64]:
        sequences = [np.concatenate(([BOUNDARY], self._codes(before + text))) for text in texts]
        if not sequences:
            return np.zeros(0)
        found = np.zeros(len(texts))
        numbers = np.repeat(np.arange(len(texts)), [len(codes) - 1 for codes in sequences])
        histories = np.concatenate([self._histories(codes)[:-1] for codes in sequences])
        following = np.concatenate([codes[1:] for codes in sequences])
        np.add.at(found, numbers, np.log(self._probabilities(histories, following)))
        if words:
            last = np.stack([self._histories(codes)[-1] for codes in sequences])
            endings, index = np.unique(last, axis=0, return_inverse=True)
            total = np.zeros(len(endings))
            for end in np.flatnonzero(self._ends):
                total += self._probabilities(endings, np.full(len(endings), end))
            found += np.log(total)[index.reshape(-1)]
        return found

    def _histories(self, codes: Codes) -> Codes:
        """Return the history of each next character, -1 before the start, (len(codes), order - 1)."""
        padded = np.concatenate((np.full(self.order - 1, -1), codes))
        return np.lib.stride_tricks.sliding_window_view(padded, self.order - 1)[1:]

    def _probabilities(self, histories: Codes, following: Codes) -> npt.NDArray[np.float64]:
        """Return p(c | h) of histories (M, order - 1) and characters (M,)."""
        p = np.full(len(following), 1 / self.size)
        history = np.zeros(len(following), dtype=np.int64)
        for length, (keys, counts, known, totals, kinds) in enumerate(self._tables, start=1):
            if not len(keys):
                break  # the training text is shorter than this length
            whole: npt.NDArray[np.bool_] = np.ones(len(following), dtype=bool)
            if length > 1:
                earliest = histories[:, self.order - length]  # one character further back
                whole = np.all(histories[:, self.order - length :] >= 0, axis=1)
                history = history + np.maximum(earliest, 0) * self.size ** (length - 2)
            index = np.minimum(np.searchsorted(known, history), len(known) - 1)
            seen = whole & (known[index] == history)
            key = history * self.size + following
            found = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            n = np.where(keys[found] == key, counts[found], 0)
            p = np.where(seen, (n + kinds[index] * p) / (totals[index] + kinds[index]), p)
        return p
