"""The characters of words as numbers: bytes of UTF-8 between two marks, as in ELMo (Peters et al. 2018).

There is nothing to fit, and no character is unknown. Number 0 is padding, 1 to 256 are bytes, then come the
marks that begin and end a word.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Characters = npt.NDArray[np.int16]

BEGIN, END = 257, 258
# Of a longer word, such as an address, only the first bytes are read.
MOST_BYTES = 48


def word_characters(words: Sequence[str]) -> Characters:
    """Return the numbers of the characters of N words, (N, W), zeros after each word; W is at least 2."""
    encoded = [word.encode("utf-8", "replace")[:MOST_BYTES] for word in words]
    found = np.zeros((len(words), 2 + max(map(len, encoded), default=0)), dtype=np.int16)
    for row, one in zip(found, encoded, strict=True):
        row[0], row[1 + len(one)] = BEGIN, END
        row[1 : 1 + len(one)] = np.frombuffer(one, dtype=np.uint8)
        row[1 : 1 + len(one)] += 1
    return found


def is_cut(word: str) -> bool:
    """Whether the word has more bytes than are read."""
    return len(word) > MOST_BYTES or len(word.encode("utf-8", "replace")) > MOST_BYTES
