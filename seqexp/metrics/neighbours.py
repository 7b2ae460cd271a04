"""The baseline of masked language models: an n-gram model of tokens that sees both sides.

The context of a masked token is its two neighbours on each side, in the order left, right, second left,
second right, without those that are masked themselves: a 5-gram with the gap in its middle. The probabilities
of longer contexts are interpolated with those of shorter ones (Witten & Bell 1991):
p(w | h) = (N(h w) + T(h) p(w | h')) / (N(h) + T(h)), where N counts occurrences, T(h) is the number of
distinct tokens seen in the context h, and h' is h without its last neighbour. Only the contexts that are
asked for are counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Where the neighbours are, in the order of contexts, and odd multipliers that hash their tokens.
OFFSETS = (-1, 1, -2, 2)
FACTORS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], dtype=np.uint64
)
# Tokens that are counted at once, and bits of the table that skips most of them.
CHUNK, TABLE_BITS = 1 << 20, 22


@dataclass
class _Counts:
    """Counts of one kind of context: hashes, N(h), T(h) and the most frequent token of each, and N(h w)."""

    keys: npt.NDArray[np.uint64]
    totals: Ids
    kinds: Ids
    best: Ids
    pairs: Ids  # index of the context * V + token, ascending
    pair_counts: Ids


@dataclass(frozen=True)
class FilledIn:
    """The most likely tokens (N,), the most frequent one, and log-probabilities of the true tokens (N,)."""

    best: Ids
    most_frequent: int
    log_probabilities: Floats


def fill_in(training: npt.NDArray[np.unsignedinteger], neighbours: Ids, true: Ids, size: int) -> FilledIn:
    """Predict masked tokens from their neighbours.

    Args:
        training: token numbers of the training text, (M,), read in chunks.
        neighbours: the tokens at `OFFSETS` of each masked token, -1 where one is not shown, (N, 4).
        true: the masked tokens, (N,).
        size: the number of tokens V.
    """
    unigrams = np.zeros(size, dtype=np.int64)
    for first in range(0, len(training), CHUNK):
        unigrams += np.bincount(training[first : first + CHUNK], minlength=size)
    seen = int((unigrams > 0).sum())
    base = (unigrams + seen / size) / (unigrams.sum() + seen)
    levels = list(_levels(neighbours))
    kinds = {kind for level in levels for kind in np.unique(level)} - {0}
    tables: dict[int, _Counts] = {}
    for kind in tqdm(sorted(kinds), desc="n-gram", unit="pass", delay=2, leave=False, disable=None):
        rows = np.concatenate([neighbours[level == kind] for level in levels])
        tables[kind] = _count(training, kind, np.unique(_hash(rows, kind)), size)
    steps = [_find(tables, level, neighbours) for level in levels]

    def probability(tokens: Ids) -> Floats:
        p = base[tokens]
        for kinds_of, index in steps:
            for kind, table in tables.items():
                here = (kinds_of == kind) & (index >= 0)
                i = index[here]
                wanted = i * size + tokens[here]
                place = np.minimum(np.searchsorted(table.pairs, wanted), len(table.pairs) - 1)
                n = np.where(table.pairs[place] == wanted, table.pair_counts[place], 0)
                p[here] = (n + table.kinds[i] * p[here]) / (table.totals[i] + table.kinds[i])
        return p

    best = np.full(len(true), int(unigrams.argmax()))
    highest = probability(best)
    for kinds_of, index in steps:
        candidate = best.copy()
        for kind, table in tables.items():
            here = (kinds_of == kind) & (index >= 0)
            candidate[here] = table.best[index[here]]
        p = probability(candidate)
        best, highest = np.where(p > highest, candidate, best), np.maximum(p, highest)
    return FilledIn(best, int(unigrams.argmax()), np.log(probability(true)))


def _levels(neighbours: Ids) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the kinds (bits of `OFFSETS`) of contexts with 1, 2, 3 and 4 neighbours; 0: there are fewer."""
    shown = neighbours >= 0
    count = shown.cumsum(axis=1)
    for n in range(1, len(OFFSETS) + 1):
        bits = (shown & (count <= n)) @ (1 << np.arange(len(OFFSETS)))
        yield np.where(count[:, -1] >= n, bits, 0)


def _hash(rows: Ids, kind: int) -> npt.NDArray[np.uint64]:
    """Return the hash of the neighbours in `kind` of each row (N, 4)."""
    chosen = [j for j in range(len(OFFSETS)) if kind >> j & 1]
    return _mixed([rows[:, j].astype(np.uint64) for j in chosen], chosen)


def _mixed(columns: list[npt.NDArray[np.uint64]], chosen: list[int]) -> npt.NDArray[np.uint64]:
    total = np.zeros(len(columns[0]), dtype=np.uint64)
    for column, j in zip(columns, chosen, strict=True):
        mixed = (column + np.uint64(1)) * FACTORS[j]
        total += mixed ^ (mixed >> np.uint64(29))
    return total * FACTORS[0] ^ (total >> np.uint64(32))


def _count(
    training: npt.NDArray[np.unsignedinteger], kind: int, keys: npt.NDArray[np.uint64], size: int
) -> _Counts:
    """Count the tokens of the training text in the contexts with these hashes."""
    chosen = [j for j in range(len(OFFSETS)) if kind >> j & 1]
    mask = np.uint64((1 << TABLE_BITS) - 1)
    table = np.zeros(1 << TABLE_BITS, dtype=bool)
    table[keys & mask] = True
    found: list[Ids] = []
    # The first and the last two tokens have no full context.
    for first in range(2, len(training) - 2, CHUNK):
        last = min(first + CHUNK, len(training) - 2)
        columns = [training[first + OFFSETS[j] : last + OFFSETS[j]].astype(np.uint64) for j in chosen]
        hashes = _mixed(columns, chosen)
        maybe = np.flatnonzero(table[hashes & mask])
        index = np.minimum(np.searchsorted(keys, hashes[maybe]), len(keys) - 1)
        hit = keys[index] == hashes[maybe]
        found.append(index[hit] * size + training[first + maybe[hit]].astype(np.int64))
    pairs, counts = np.unique(np.concatenate([np.empty(0, np.int64), *found]), return_counts=True)
    contexts, tokens = np.divmod(pairs, size)
    totals = np.bincount(contexts, counts, len(keys)).astype(np.int64)
    kinds = np.bincount(contexts, minlength=len(keys))
    best = np.zeros(len(keys), dtype=np.int64)
    order = np.lexsort((-tokens, counts, contexts))  # of equal counts the lowest token comes last
    best[contexts[order]] = tokens[order]
    return _Counts(keys, totals, kinds, best, pairs, counts)


def _find(tables: dict[int, _Counts], level: Ids, neighbours: Ids) -> tuple[Ids, Ids]:
    """Return the kind of each context, and its number in the counts of that kind; -1 if it was never seen."""
    index = np.full(len(level), -1)
    for kind, table in tables.items():
        here = np.flatnonzero(level == kind)
        if len(here):
            number = np.searchsorted(table.keys, _hash(neighbours[here], kind))
            index[here] = np.where(table.totals[number] > 0, number, -1)
    return level, index
