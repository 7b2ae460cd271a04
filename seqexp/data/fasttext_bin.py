"""Read the binary files of Facebook's fastText (``.bin``, version 12): vectors of known and unknown words."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from seqexp.errors import UserError
from seqexp.tokenizers.ngrams import fnv1a, ngrams

MAGIC, VERSION = 793712314, 12
# dim, window, epochs, min_count, negatives, word n-grams, loss, model, buckets, minn, maxn, lr update rate; t
ARGS = struct.Struct("<12id")
HEADER = struct.Struct("<3i2q")
SIZES = struct.Struct("<2q")
# Limits for files of strangers.
MOST_WORDS, MOST_BUCKETS, MOST_WORD_BYTES, MOST_COLUMNS = 50_000_000, 100_000_000, 10_000, 100_000
# Facebook's code gives the end of a line no n-grams.
END_OF_LINE = "</s>"


def is_fasttext(file: Path) -> bool:
    """Return whether a file begins like one of fastText's."""
    with file.open("rb") as opened:
        return opened.read(4) == struct.pack("<i", MAGIC)


def read_fasttext(
    file: Path, name: str, wanted: set[str] | None, most: int | None = None
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the vectors of the wanted words: those of the file's words, and those made from their n-grams.

    If `wanted` is None, those of the first `most` words of the file.

    Raises:
        UserError: the file is cut, malformed, quantised or of another version.
    """
    with file.open("rb") as opened:
        _, version = struct.unpack("<2i", _read(opened, 8, name))
        if version != VERSION:
            raise UserError(f"{name} is a fastText file of version {version}; version {VERSION} can be read.")
        args = ARGS.unpack(_read(opened, ARGS.size, name))
        dim, buckets, min_n, max_n = args[0], args[8], args[9], args[10]
        size, n_words, n_labels, _, pruned = HEADER.unpack(_read(opened, HEADER.size, name))
        plausible = (
            0 < dim <= MOST_COLUMNS
            and 0 <= buckets <= MOST_BUCKETS
            and 0 <= min_n <= 100
            and 0 <= max_n <= 100
            and 0 <= n_words <= size <= MOST_WORDS
            and n_words + n_labels == size
        )
        if not plausible:
            raise UserError(f"{name}: its sizes are not plausible; the file is damaged.")
        numbers = _words(opened, name, size)
        if pruned > 0:
            raise UserError(f"{name} is pruned (quantised) and cannot be read; use the full model.")
        if _read(opened, 1, name) != b"\0":
            raise UserError(f"{name} is quantised and cannot be read; use the full model.")
        rows, columns = SIZES.unpack(_read(opened, SIZES.size, name))
        # Without n-grams the file may still have rows for buckets, or none.
        if columns != dim or rows not in (n_words, n_words + buckets):
            raise UserError(
                f"{name}: a matrix of {rows} x {columns} numbers does not fit; the file is damaged."
            )
        offset = opened.tell()
        if file.stat().st_size < offset + 4 * rows * columns:
            raise UserError(f"{name} is cut off.")
    matrix = np.memmap(file, dtype="<f4", mode="r", offset=offset, shape=(rows, columns))
    found: dict[str, Any] = {}
    for word in list(numbers)[:most] if wanted is None else wanted:
        own = [numbers[word]] if word in numbers else []
        hashed = ngrams(word, min_n, max_n) if max_n and rows > n_words and word != END_OF_LINE else []
        used = own + [n_words + fnv1a(one) % buckets for one in hashed]
        if used:
            vector = np.asarray(matrix[used], dtype=np.float32).mean(axis=0, dtype=np.float64)
            if not np.isfinite(vector).all():
                raise UserError(f"{name}: a number of the vector of {word!r} is not finite.")
            found[word] = vector.astype(np.float32)
    return found


def _read(stream: BinaryIO, size: int, name: str) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise UserError(f"{name} is cut off.")
    return data


def _words(stream: BinaryIO, name: str, size: int) -> dict[str, int]:
    """Return the words by their numbers; labels are left out."""
    numbers: dict[str, int] = {}
    rest, at = b"", 0
    for number in range(size):
        # A word, a zero, its count in 8 bytes, and its type: 0 for a word, 1 for a label.
        while (end := rest.find(b"\0", at)) < 0 or len(rest) < end + 10:
            more = stream.read(1 << 20)
            if not more or (end < 0 and len(rest) - at > MOST_WORD_BYTES):
                raise UserError(f"{name}: word {number + 1} of {size} is cut off.")
            rest, at = rest[at:] + more, 0
        if end - at > MOST_WORD_BYTES:
            raise UserError(f"{name}: word {number + 1} of {size} is too long; the file is damaged.")
        if rest[end + 9] == 0:
            numbers.setdefault(rest[at:end].decode("utf-8", "replace"), number)
        at = end + 10
    stream.seek(at - len(rest), 1)
    return numbers
