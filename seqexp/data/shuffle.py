"""A shuffled order of any length that needs no memory and no past.

Element `i` of a permutation of ``range(size)`` is computed alone, by a Feistel network (Luby & Rackoff
1988) on numbers of just enough bits, walking on where it leads outside the range (Black & Rogaway 2002).
So batch number 1,000,000 is as near as batch number 0, and a resumed run needs no replay.
"""

import numpy as np
import numpy.typing as npt

ROUNDS = 4
Index = npt.NDArray[np.uint64]


def permute(index: npt.ArrayLike, size: int, keys: Index) -> Index:
    """The elements at `index` of the permutation of ``range(size)`` that `keys` (ROUNDS numbers) name."""
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    result = np.asarray(index, dtype=np.uint64).copy()
    todo = np.ones(result.shape, dtype=bool)
    while todo.any():
        left, right = result[todo] >> half, result[todo] & mask
        for key in keys[:ROUNDS]:
            left, right = right, left ^ (_mix(right + key) & mask)
        result[todo] = (left << half) | right
        todo = result >= size
    return result


def _mix(x: Index) -> Index:
    """Scramble 64 bits (the finaliser of SplitMix64, Steele et al. 2014); overflow wraps, as meant."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
