"""Read and write word vectors: word2vec's text and binary, GloVe's text, fastText's files, numpy arrays."""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from seqexp.data.fasttext_bin import is_fasttext, read_fasttext
from seqexp.data.lines import read_text
from seqexp.data.unpack import open_unpacked
from seqexp.errors import UserError
from seqexp.files import as_utf8, atomic_file, user_path, write_atomically

Vector = npt.NDArray[np.float32]

# Limits for files of strangers: the width of a vector, the bytes of a line, and the number of vectors.
MOST_COLUMNS, MOST_WORD_BYTES, MOST_VECTORS = 100_000, 10_000, 100_000_000

# What `write_vectors` writes, and the endings of names that stand for it.
FORMATS = ("word2vec", "word2vec_binary", "glove", "npy")
ENDINGS = {".txt": "word2vec", ".vec": "word2vec", ".bin": "word2vec_binary", ".npy": "npy"}


def write_vectors(target: Path, words: Sequence[str], vectors: Vector, form: str | None = None) -> list[Path]:
    """Write words and their vectors (V, D); return the files.

    ``word2vec`` is a line of V and D and a line a word, ``glove`` the same without the first line,
    ``word2vec_binary`` the first line and binary numbers, ``npy`` an array with the words beside it, one a
    line. Without `form` the ending of the name decides: ``.txt``, ``.vec``, ``.bin`` or ``.npy``.

    Raises:
        UserError: the form is not known, the ending stands for none, or a word holds white space.
    """
    form = form or ENDINGS.get(target.suffix)
    if form not in FORMATS:
        raise UserError(
            f"format={form}: vectors are written as {', '.join(FORMATS)}; or end the name of the file in "
            f"{', '.join(ENDINGS)}. A map of words ends in .png, .svg or .html, or has format=projector."
        )
    spaced = next((word for word in words if not word or word.split() != [word]), None)
    if spaced is not None:
        raise UserError(f"the word {spaced!r} holds white space, which these formats cannot hold.")
    if form == "npy":
        with atomic_file(target) as file:
            np.save(file, vectors)
        list_of_words = target.with_suffix(".words.txt")
        write_atomically(list_of_words, "".join(f"{word}\n" for word in words).encode())
        return [target, list_of_words]
    with atomic_file(target) as file:
        if form != "glove":
            file.write(f"{len(words)} {vectors.shape[1]}\n".encode())
        for word, vector in zip(words, vectors, strict=True):
            if form == "word2vec_binary":
                file.write(word.encode() + b" " + vector.astype("<f4").tobytes() + b"\n")
            else:
                # Nine digits give back the same number of 32 bits.
                file.write(f"{word} {' '.join(f'{number:.9g}' for number in vector)}\n".encode())
    return [target]


def read_vectors(
    path: str,
    wanted: set[str] | None,
    words_path: str | None = None,
    most: int | None = None,
    makes_only: bool = False,
) -> dict[str, Vector]:
    """Read the vectors of the wanted words; None: of the first `most` words of the file, in its order.

    With `makes_only`, those of files that make vectors of words by their n-grams, and no others.

    A ``.npy`` file has one row a word; `words_path` is its list of words, one a line (or ``.parquet``, whose
    first column of strings is taken). Files may be packed.

    Raises:
        UserError: the file cannot be read, or is malformed; the message names the line.
    """
    file, name = user_path(path), as_utf8(path)
    if not file.is_file():
        raise UserError(f"model.vectors: {name} is not a file (seen from {as_utf8(Path.cwd())}).")
    if file.suffix == ".npy":
        return {} if makes_only else _read_array(file, name, wanted, words_path, most)
    if words_path is not None:
        raise UserError(f"model.vector_words= goes with a .npy file, and {name} has its words inside.")
    if is_fasttext(file):
        return read_fasttext(file, name, wanted, most)
    if makes_only:
        return {}
    with open_unpacked(file, name) as unpacked:
        stream = unpacked.stream
        first = stream.readline(MOST_COLUMNS * 30)
        header = first.split()
        if len(header) == 2 and all(one.isdigit() for one in header):
            count, columns = map(int, header)
            if not (0 < columns <= MOST_COLUMNS and 0 < count <= MOST_VECTORS):
                raise UserError(f"{name}: {count} vectors of {columns} numbers are not plausible.")
            # The text form has a line end after each vector, and digits in it.
            if _is_binary(stream, columns):
                return _read_binary(stream, name, count, columns, wanted, most)
            return _read_lines(stream, name, columns, wanted, b"", 2, most)
        return _read_lines(stream, name, len(header) - 1, wanted, first, 1, most)


def _is_binary(stream: BinaryIO, columns: int) -> bool:
    peek = getattr(stream, "peek", None)
    start: bytes = peek(256)[:256] if peek else b""
    word, _, rest = start.partition(b" ")
    del word
    return not set(rest[: 4 * min(columns, 16)]) <= set(b"0123456789.eE+- \t\r\n")


def _read_lines(
    stream: BinaryIO,
    name: str,
    columns: int,
    wanted: set[str] | None,
    first: bytes,
    number: int,
    most: int | None,
) -> dict[str, Vector]:
    if not 0 < columns <= MOST_COLUMNS:
        raise UserError(f"{name}, line {number}: expected a word and its vector.")
    found: dict[str, Vector] = {}
    for row, line in enumerate(_lines(stream, first, columns), start=number):
        # From the right: a few words of GloVe contain spaces.
        parts = line.rstrip().rsplit(b" ", columns)
        if len(parts) != columns + 1:
            if not line.strip():
                continue
            raise UserError(
                f"{name}, line {row}: expected a word and {columns} numbers, got {len(parts) - 1}."
            )
        word = parts[0].decode("utf-8", "replace")
        if (wanted is not None and word not in wanted) or word in found:
            continue
        try:
            vector = np.array(parts[1:], dtype=np.float32)
        except ValueError as error:
            raise UserError(f"{name}, line {row}: {error}.") from error
        found[word] = _finite(vector, f"{name}, line {row}")
        if len(found) == most:
            break
    return found


def _lines(stream: BinaryIO, first: bytes, columns: int) -> Iterator[bytes]:
    most = MOST_WORD_BYTES + 40 * columns
    if first:
        yield first.removeprefix(codecs.BOM_UTF8)
    while line := stream.readline(most):
        yield line


def _read_binary(
    stream: BinaryIO, name: str, count: int, columns: int, wanted: set[str] | None, most: int | None
) -> dict[str, Vector]:
    found: dict[str, Vector] = {}
    for row in range(1, count + 1):
        word = bytearray()
        while (sign := stream.read(1)) != b" ":
            if not sign or len(word) > MOST_WORD_BYTES:
                raise UserError(f"{name}: vector {row} of {count} has no word; the file is cut or damaged.")
            word += sign
        data = stream.read(4 * columns)
        if len(data) != 4 * columns:
            raise UserError(f"{name}: vector {row} of {count} is cut off.")
        text = word.lstrip(b"\n").decode("utf-8", "replace")
        if wanted is None or text in wanted:
            found[text] = _finite(np.frombuffer(data, "<f4").astype(np.float32), f"{name}, vector {row}")
        if len(found) == most:
            break
    return found


def _read_array(
    file: Path, name: str, wanted: set[str] | None, words_path: str | None, most: int | None
) -> dict[str, Vector]:
    if words_path is None:
        raise UserError(f"{name} has no words; give their list, one a line, as model.vector_words=.")
    words = read_words(words_path, "model.vector_words")
    try:
        matrix = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{name} is not an array of numbers ({error}).") from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or len(matrix) != len(words):
        raise UserError(
            f"{name} has shape {matrix.shape} and type {matrix.dtype}, and {words_path} has {len(words):,} "
            "words; a row a word is needed."
        )
    return {
        word: _finite(np.array(matrix[row], dtype=np.float32), f"{name}, row {row + 1}")
        for row, word in enumerate(words[:most])
        if wanted is None or word in wanted
    }


def read_words(path: str, key: str) -> list[str]:
    """Return the lines of a file, or the first column of strings of a ``.parquet`` file.

    `key` is the setting that names the file, for messages.

    Raises:
        UserError: the file cannot be read.
    """
    file = user_path(path)
    if not file.is_file():
        raise UserError(f"{key}: {as_utf8(path)} is not a file (seen from {as_utf8(Path.cwd())}).")
    if file.suffix != ".parquet":
        return read_text(file).lines
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("parquet files need the package pyarrow; run: pip install pyarrow") from error
    try:
        table = pyarrow.parquet.read_table(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{as_utf8(path)} is not a parquet file ({str(error).splitlines()[0]}).") from error
    for name in table.column_names:
        values = table[name].to_pylist()
        if values and isinstance(values[0], str):
            return [str(value) for value in values]
    raise UserError(f"{as_utf8(path)} has no column of words; it has {', '.join(table.column_names)}.")


def _finite(vector: Vector, where: str) -> Vector:
    if not np.isfinite(vector).all():
        raise UserError(f"{where}: a number is not finite.")
    return vector
