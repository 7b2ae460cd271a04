"""The baseline: a model of characters that counts (Witten & Bell 1991; Chen & Goodman 1999, section 2.4).

p(c | h) = (N(h c) + T(h) p(c | h')) / (N(h) + T(h)), where N counts occurrences, T(h) is the number of
distinct characters seen after the history h, and h' is h without its first character. At the end of this
chain stands the uniform distribution. The counts of each length are sorted arrays, looked up for all texts at
once.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
# The document boundary, and every character that the training part does not have.
BOUNDARY, UNKNOWN = 0, 1


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


class CharNgram:
    """Interpolated Witten–Bell over characters; `order` 5 looks at the four before."""

    def __init__(self, documents: Iterable[str], order: int = 5) -> None:
        self.order = order
        texts = list(documents)
        # As many characters as a stretch of them has room for in 63 bits; of more, the rarest are unknown.
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
        place = np.minimum(np.searchsorted(self._points, points), len(self._points) - 1)
        return np.where(self._points[place] == points, place + 2, UNKNOWN)

    def _keys(self, codes: Codes, length: int) -> Codes:
        """One number for each stretch of this length; the character that comes last has the lowest digit."""
        stretches = len(codes) - length + 1
        keys = np.zeros(max(0, stretches), dtype=np.int64)
        for offset in range(length):
            keys = keys * self.size + codes[offset : offset + len(keys)]
        return keys

    def _count(self, codes: Codes, length: int) -> tuple[Codes, Codes, Codes, Codes, Codes]:
        """Of stretches of this length: keys and N(h c); of their histories: keys, N(h) and T(h)."""
        keys, counts = np.unique(self._keys(codes, length), return_counts=True)
        histories, first, kinds = np.unique(keys // self.size, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first) if len(first) else counts
        return keys, counts, histories, totals, kinds

    def log_probabilities(self, texts: Sequence[str], *, words: bool) -> npt.NDArray[np.float64]:
        """Of each text in nats, (N,), under the same rules as `Scorer.score`: see `scoring.py`."""
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
            endings, place = np.unique(last, axis=0, return_inverse=True)
            total = np.zeros(len(endings))
            for end in np.flatnonzero(self._ends):
                total += self._probabilities(endings, np.full(len(endings), end))
            found += np.log(total)[place.reshape(-1)]
        return found

    def _histories(self, codes: Codes) -> Codes:
        """The characters before each next one, nearest last, -1 before the beginning: (n, order - 1)."""
        padded = np.concatenate((np.full(self.order - 1, -1), codes))
        return np.lib.stride_tricks.sliding_window_view(padded, self.order - 1)[1:]

    def _probabilities(self, histories: Codes, following: Codes) -> npt.NDArray[np.float64]:
        """p(c | h) of M histories (M, order - 1) and characters (M,)."""
        p = np.full(len(following), 1 / self.size)
        history = np.zeros(len(following), dtype=np.int64)
        for length, (keys, counts, known, totals, kinds) in enumerate(self._tables, start=1):
            if not len(keys):
                break  # the text is shorter than this
            whole: npt.NDArray[np.bool_] = np.ones(len(following), dtype=bool)
            if length > 1:
                newest = histories[:, self.order - length]  # one character further back
                whole = np.all(histories[:, self.order - length :] >= 0, axis=1)
                history = history + np.maximum(newest, 0) * self.size ** (length - 2)
            place = np.minimum(np.searchsorted(known, history), len(known) - 1)
            seen = whole & (known[place] == history)
            key = history * self.size + following
            found = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            n = np.where(keys[found] == key, counts[found], 0)
            p = np.where(seen, (n + kinds[place] * p) / (totals[place] + kinds[place]), p)
        return p
