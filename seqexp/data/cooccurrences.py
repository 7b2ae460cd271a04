"""How often words stand near each other, counted once, in memory that does not grow with the text.

Pairs are counted a block of text at a time; each block leaves a sorted run on disk, and the runs are merged
range by range. Words i <= j near each other, in whatever order, have the key ``i * V + j``.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

# Words that are counted at a time, and pairs that are merged at a time.
BLOCK, MERGED = 1 << 20, 1 << 23
RUN = np.dtype([("key", np.int64), ("weight", np.float32)])


@dataclass(frozen=True)
class Window:
    """What is a pair: two of the words `numbers` within a window, in one document.

    `numbers` (tokens,) has the number of each token among the `size` words, or -1 for tokens that are left
    out before words are counted as neighbours; numbers from `size` on are neighbours, but in no pair. A pair
    at distance d weighs ``weights[d - 1]``. `boundary` is the token between documents.
    """

    numbers: npt.NDArray[np.int64]
    size: int
    weights: Sequence[float]
    boundary: int


def harmonic(window: int) -> list[float]:
    """Weights of GloVe: 1 / d."""
    return [1 / d for d in range(1, window + 1)]


def expected(window: int) -> list[float]:
    """Weights of word2vec: the share of draws from 1 to `window` that reach distance d."""
    return [(window - d + 1) / window for d in range(1, window + 1)]


def count_pairs(blocks: Iterable[Tokens], window: Window, folder: Path) -> npt.NDArray[np.void]:
    """Return all pairs of a text as a memory-mapped array of (key, weight), sorted by key, each once.

    `blocks` are the tokens of the text in pieces of any size; the array is in a file in `folder`.
    """
    runs = []
    for keys, weights in _counted(blocks, window):
        runs.append(_save(folder, keys, weights))
    target = folder / "pairs.bin"
    with target.open("wb") as file:
        for keys, weights in _merged(runs):
            file.write(_rows(keys, weights).tobytes())
    for run in runs:
        run.unlink()
    if target.stat().st_size == 0:
        return np.zeros(0, RUN)
    return np.memmap(target, dtype=RUN, mode="r")


def _counted(blocks: Iterable[Tokens], window: Window) -> Iterator[tuple[Keys, Weights]]:
    """Yield the pairs whose later word is in each block, sorted and added up."""
    reach = len(window.weights)
    words, documents = np.zeros(0, np.int64), np.zeros(0, np.int64)
    document = 0
    for block in blocks:
        ends = document + np.cumsum(block == window.boundary)
        document = int(ends[-1]) if len(ends) else document
        numbers = window.numbers[block]
        kept = numbers >= 0
        before = len(words)
        words = np.concatenate([words, numbers[kept]])
        documents = np.concatenate([documents, ends[kept]])
        found = []
        for distance, weight in enumerate(window.weights, start=1):
            first = max(0, before - distance)
            left, right = words[first : len(words) - distance], words[first + distance :]
            near = documents[first : len(words) - distance] == documents[first + distance :]
            near &= (left < window.size) & (right < window.size)
            lower, upper = np.minimum(left, right)[near], np.maximum(left, right)[near]
            keys, counts = np.unique(lower * window.size + upper, return_counts=True)
            found.append((keys, counts * np.float32(weight)))
        yield _added([keys for keys, _ in found], [weights for _, weights in found])
        words, documents = words[-reach:], documents[-reach:]


def _added(keys: Sequence[Keys], weights: Sequence[Weights]) -> tuple[Keys, Weights]:
    """Merge pairs: sorted by key, the weights of equal keys added up."""
    all_keys, all_weights = np.concatenate(keys), np.concatenate(weights)
    if not len(all_keys):
        return all_keys.astype(np.int64), all_weights.astype(np.float32)
    order = np.argsort(all_keys, kind="stable")
    all_keys, all_weights = all_keys[order], all_weights[order]
    begins = np.flatnonzero(np.diff(all_keys, prepend=all_keys[0] - 1))
    return all_keys[begins], np.add.reduceat(all_weights.astype(np.float64), begins).astype(np.float32)


def _rows(keys: Keys, weights: Weights) -> npt.NDArray[np.void]:
    rows = np.empty(len(keys), RUN)
    rows["key"], rows["weight"] = keys, weights
    return rows


def _save(folder: Path, keys: Keys, weights: Weights) -> Path:
    handle, name = tempfile.mkstemp(dir=folder, prefix="run.")
    with os.fdopen(handle, "wb") as file:
        file.write(_rows(keys, weights).tobytes())
    return Path(name)


def _merged(runs: Sequence[Path]) -> Iterator[tuple[Keys, Weights]]:
    """Yield the pairs of all runs in order of their keys, a range of keys at a time."""
    arrays = [np.memmap(run, dtype=RUN, mode="r") for run in runs if run.stat().st_size]
    if not arrays:
        return
    total = sum(len(array) for array in arrays)
    pieces = max(1, -(-total // MERGED))
    longest = max(arrays, key=len)
    cuts = [int(longest["key"][len(longest) * piece // pieces]) for piece in range(1, pieces)]
    starts = [0] * len(arrays)
    for cut in [*cuts, None]:
        stops = [len(array) if cut is None else int(np.searchsorted(array["key"], cut)) for array in arrays]
        parts = [array[start:stop] for array, start, stop in zip(arrays, starts, stops, strict=True)]
        yield _added([part["key"] for part in parts], [part["weight"] for part in parts])
        starts = stops
