"""One token per byte of UTF-8."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from seqexp.tokenizers.base import Ids, Tokenizer


class ByteTokenizer(Tokenizer):
    """Tokens 0 to 255 are bytes, 256 is the boundary; nothing is unknown."""

    name = "byte"
    vocab_size = 257
    bos_id = eos_id = 256
    unk_id = None

    @classmethod
    def fit(cls, config: Any, texts: Iterable[str]) -> Self:
        del config, texts
        return cls()

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        # Not final: the beginning of a character at the end is held back, not shown as U+FFFD.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(bytes(i for i in ids if i < 256))

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        """The character that each byte is a part of."""
        sizes = [len(character.encode("utf-8", "surrogatepass")) for character in text]
        return [(i, i + 1) for i, size in enumerate(sizes) for _ in range(size)]

    def state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        del state
        return cls()
