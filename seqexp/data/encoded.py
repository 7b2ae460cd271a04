"""The encoded corpus on disk: made once for a corpus and a tokenizer, then memory-mapped.

A folder in the cache holds one flat file of token numbers for each split (train, val, test, or all) and
``meta.json``. It is written under another name and renamed when whole, so that two processes may
build the same one at once, and an interrupted one leaves nothing behind that could be read.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from seqexp.data.fitting import cached, encoding_key
from seqexp.data.sources import Corpus
from seqexp.tokenizers.base import Tokenizer

# In the key of encoded corpora: raise it when files are read, cut, joined or counted in another way.
ENCODING_VERSION = 2
TRAIN_FRACTION = 0.9
# Held-out lines of at least so many characters are looked for in training; shorter ones recur by nature.
LONG_LINE = 40


@dataclass
class Part:
    """One split of an encoded corpus; its first token is context alone, every other is a target once.

    `sha256` is the hash of its text. Of a held-out split, `long_lines` is the number of lines of at least
    `LONG_LINE` characters, and `seen_lines` how many of these also stand in training.
    """

    file: str
    dtype: str
    tokens: int = 0
    characters: int = 0
    unknown: int = 0
    unknown_characters: str = ""
    sha256: str = ""
    long_lines: int = 0
    seen_lines: int = 0
    folder: str = field(default="", repr=False)

    def blocks(self, size: int) -> Iterator[npt.NDArray[np.int64]]:
        """All tokens in order, at most `size` at a time."""
        path = Path(self.folder) / self.file
        for first in range(0, self.tokens, size):
            tokens = np.memmap(path, dtype=self.dtype, mode="r", shape=(self.tokens,))
            yield tokens[first : first + size].astype(np.int64)

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """`length` tokens from each start, (B, length); beyond the end the last token repeats."""
        # Mapped anew for each batch: pages that were touched long ago do not count as ours for ever.
        positions = np.minimum(starts[:, None] + np.arange(length), self.tokens - 1)
        return self.mapped()[positions].astype(np.int64)

    def mapped(self) -> npt.NDArray[np.unsignedinteger]:
        """All tokens, (N,), mapped from the file."""
        path = Path(self.folder) / self.file
        return np.memmap(path, dtype=self.dtype, mode="r", shape=(self.tokens,))


class Piece(NamedTuple):
    """A piece of text of a split: the number of its document, and its position there, in characters."""

    split: str
    document: int
    position: int
    text: str


def split_pieces(corpus: Corpus, split: str) -> Iterator[Piece]:
    """The corpus in pieces, in order, splits with files of their own last.

    `split` is ``contiguous`` (the first 9/10 of all characters are train), ``per_file`` (of each file)
    or ``all`` (one split of that name). Where validation text is held out already, all is train.
    """
    cuts = None
    if "val" not in corpus.held_out and split != "all":
        cuts = _cuts(corpus, split)
    for number, document in enumerate(corpus.documents):
        position = 0
        for text in document.pieces():
            cut = len(text) if cuts is None else max(0, min(len(text), cuts[number] - position))
            if cut:
                yield Piece("all" if split == "all" else "train", number, position, text[:cut])
            if cut < len(text):
                yield Piece("val", number, position + cut, text[cut:])
            position += len(text)
    before = len(corpus.documents)
    for name, held_out in corpus.held_out.items():
        for piece in split_pieces(held_out, "all"):
            yield piece._replace(split=name, document=before + piece.document)
        before += len(held_out.documents)


def _cuts(corpus: Corpus, split: str) -> list[int]:
    """How many characters of each document are training text."""
    if split == "per_file":
        return [int(TRAIN_FRACTION * document.characters) for document in corpus.documents]
    left = int(TRAIN_FRACTION * corpus.characters)
    cuts = []
    for document in corpus.documents:
        cuts.append(min(left, document.characters))
        left -= cuts[-1]
    return cuts


def texts_of(corpus: Corpus, split: str, wanted: str) -> Iterator[str]:
    """The text of one split in pieces, such as training text for a tokenizer to be fitted on."""
    return (piece.text for piece in split_pieces(corpus, split) if piece.split == wanted)


def encode_corpus(corpus: Corpus, split: str, tokenizer: Tokenizer) -> dict[str, Part]:
    """The splits of the corpus in token numbers, from the cache or encoded now, by name."""
    target = cached("tokens", [ENCODING_VERSION, corpus.sha256, split, *encoding_key(tokenizer)])
    parts = _read(target)
    if parts is None:
        building = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            _build(building, corpus, split, tokenizer)
            # What another process has made meanwhile stays: it is the same, and may be in use.
            if _read(target) is None:
                shutil.rmtree(target, ignore_errors=True)
                with contextlib.suppress(OSError):
                    os.rename(building, target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        parts = _read(target)
        assert parts is not None
    return parts


def _read(folder: Path) -> dict[str, Part] | None:
    """The splits in a cache folder, or None if the folder is incomplete."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        parts = {name: Part(**values, folder=str(folder)) for name, values in meta.items()}
    except (OSError, ValueError, TypeError):
        return None
    for part in parts.values():
        file = folder / part.file
        expected = part.tokens * np.dtype(part.dtype).itemsize
        if not file.is_file() or file.stat().st_size != expected:
            return None
    return parts


def _build(folder: Path, corpus: Corpus, split: str, tokenizer: Tokenizer) -> None:
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    names = ["all"] if split == "all" else ["train", *dict.fromkeys(["val", *corpus.held_out])]
    parts = {name: Part(f"{name}.bin", dtype) for name in names}
    digests = {name: hashlib.sha256() for name in names}
    boundary = np.array([tokenizer.bos_id], dtype=dtype)
    last = boundary  # the token before the current one, in the order of the corpus
    begun = dict.fromkeys(names, -1)
    total = sum(one.characters for one in (corpus, *corpus.held_out.values()))
    progress = tqdm(
        total=total, desc="encoding", unit="char", unit_scale=True, delay=1, leave=False, disable=None
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(progress)
        files: dict[str, BinaryIO] = {
            name: stack.enter_context(open(folder / part.file, "wb")) for name, part in parts.items()
        }
        for name, number, position, text in split_pieces(corpus, split):
            part, ids = parts[name], tokenizer.encode(text).astype(dtype)
            if number != begun[name]:
                # Before the first token of a document stands the boundary; before validation text that
                # begins inside a document, the last token of its training text.
                begun[name] = number
                last = last if position > 0 else boundary
                files[name].write(last.tobytes())
                part.tokens += 1
            files[name].write(ids.tobytes())
            digests[name].update(text.encode("utf-8", "surrogatepass"))
            part.tokens += len(ids)
            part.characters += len(text)
            if tokenizer.unk_id is not None:
                unknown = int((ids == tokenizer.unk_id).sum())
                part.unknown += unknown
                if unknown:
                    seen = part.unknown_characters + tokenizer.unknown_characters(text)
                    part.unknown_characters = "".join(dict.fromkeys(seen))[:100]
            last = ids[-1:] if len(ids) else last
            progress.update(len(text))
    for name, part in parts.items():
        part.sha256 = digests[name].hexdigest()
    if "train" in parts:
        _count_seen_lines(corpus, split, parts)
    meta: dict[str, dict[str, Any]] = {name: asdict(part) for name, part in parts.items()}
    for values in meta.values():
        del values["folder"]
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))


def _count_seen_lines(corpus: Corpus, split: str, parts: dict[str, Part]) -> None:
    """Fill in `long_lines` and `seen_lines`; only hashes of the lines held out are in memory."""
    lines = {name: Counter[int]() for name in parts if name != "train"}
    for piece in split_pieces(corpus, split):
        if piece.split != "train":
            lines[piece.split].update(map(hash, _long_lines(piece.text)))
    wanted = set[int]().union(*lines.values())
    if not wanted:
        return
    seen = {
        number
        for text in texts_of(corpus, split, "train")
        for number in map(hash, _long_lines(text))
        if number in wanted
    }
    for name, counts in lines.items():
        parts[name].long_lines = counts.total()
        parts[name].seen_lines = sum(counts[number] for number in seen)


def _long_lines(text: str) -> Iterator[str]:
    return (line for line in map(str.strip, text.split("\n")) if len(line) >= LONG_LINE)
