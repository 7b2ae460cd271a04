"""The encoded corpus on disk: made once for a corpus and a tokenizer, then memory-mapped.

A folder in the cache holds one flat file of token numbers for each part (train and val, or all) and
``meta.json``. It is written under another name and renamed when whole, so that two processes may
build the same one at once, and an interrupted one leaves nothing behind that could be read.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from seqexp.data.cache import cache_dir
from seqexp.data.sources import Corpus
from seqexp.tokenizers.base import Tokenizer

FORMAT = 1
TRAIN_FRACTION = 0.9


@dataclass
class Part:
    """One part of an encoded corpus; its first token is context alone, every other is a target once."""

    file: str
    dtype: str
    tokens: int = 0
    characters: int = 0
    unknown: int = 0
    unknown_characters: str = ""
    folder: str = field(default="", repr=False)

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """`length` tokens from each start, (B, length); beyond the end the last token repeats."""
        # Mapped anew for each batch: pages that were touched long ago do not count as ours for ever.
        path = Path(self.folder) / self.file
        tokens = np.memmap(path, dtype=self.dtype, mode="r", shape=(self.tokens,))
        places = np.minimum(starts[:, None] + np.arange(length), self.tokens - 1)
        return tokens[places].astype(np.int64)


def split_pieces(corpus: Corpus, split: str) -> Iterator[tuple[str, int, int, str]]:
    """The corpus as (part, number of the document, place in it, text), in order.

    `split` is ``contiguous`` (the first 9/10 of all characters are train), ``per_file`` (of each file)
    or ``all`` (one part of that name).
    """
    if split == "contiguous":
        cuts = _cuts_of_whole(corpus)
    elif split == "per_file":
        cuts = [int(TRAIN_FRACTION * document.characters) for document in corpus.documents]
    for number, document in enumerate(corpus.documents):
        place = 0
        for piece in document.pieces():
            if split == "all":
                yield "all", number, place, piece
            else:
                cut = max(0, min(len(piece), cuts[number] - place))
                if cut:
                    yield "train", number, place, piece[:cut]
                if cut < len(piece):
                    yield "val", number, place + cut, piece[cut:]
            place += len(piece)


def _cuts_of_whole(corpus: Corpus) -> list[int]:
    left = int(TRAIN_FRACTION * corpus.characters)
    cuts = []
    for document in corpus.documents:
        cuts.append(min(left, document.characters))
        left -= cuts[-1]
    return cuts


def training_pieces(corpus: Corpus, split: str) -> Iterator[str]:
    """The text of the training part, for a tokenizer to be fitted on."""
    return (text for part, _, _, text in split_pieces(corpus, split) if part == "train")


def encode_corpus(corpus: Corpus, split: str, tokenizer: Tokenizer) -> dict[str, Part]:
    """The parts of the corpus in token numbers, from the cache or encoded now, by name."""
    key = json.dumps([FORMAT, corpus.sha256, split, tokenizer.hash()])
    target = cache_dir("tokens") / hashlib.sha256(key.encode()).hexdigest()[:24]
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
    """The parts in a cache folder, or None if it is not whole."""
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
    names = ["all"] if split == "all" else ["train", "val"]
    parts = {name: Part(f"{name}.bin", dtype) for name in names}
    boundary = np.array([tokenizer.bos_id], dtype=dtype)
    last = boundary  # the token before the current one, in the order of the corpus
    begun = dict.fromkeys(names, -1)
    progress = tqdm(
        total=corpus.characters, desc="encoding", unit="char", unit_scale=True, delay=1, leave=False,
        disable=None,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.enter_context(progress)
        files: dict[str, BinaryIO] = {
            name: stack.enter_context(open(folder / part.file, "wb")) for name, part in parts.items()
        }
        for name, number, place, text in split_pieces(corpus, split):
            part, ids = parts[name], tokenizer.encode(text).astype(dtype)
            if number != begun[name]:
                # Before the first token of a document stands the boundary; before a validation part
                # that begins inside a document, the last token of training.
                begun[name] = number
                lead = last if place > 0 and split == "contiguous" else boundary
                files[name].write(lead.tobytes())
                part.tokens += 1
            files[name].write(ids.tobytes())
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
    meta: dict[str, dict[str, Any]] = {name: asdict(part) for name, part in parts.items()}
    for values in meta.values():
        del values["folder"]
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))
