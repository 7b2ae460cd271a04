"""One token per character of the training split."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seqexp.errors import UserError
from seqexp.tokenizers.base import Ids, Tokenizer

BOUNDARY, UNKNOWN, FIRST = 0, 1, 2


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    # surrogatepass: a lone surrogate is an unknown character, not a crash.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


class CharTokenizer(Tokenizer):
    """Token 0 is the boundary, 1 the unknown character, then the characters in code point order."""

    name = "char"
    bos_id = eos_id = BOUNDARY
    unk_id = UNKNOWN

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.vocab_size = FIRST + len(characters)
        points = _code_points(characters)
        self._table = np.full(int(points.max(initial=0)) + 2, UNKNOWN, dtype=np.uint32)
        self._table[points] = np.arange(FIRST, self.vocab_size, dtype=np.uint32)

    @classmethod
    def fit(cls, config: Any, texts: Iterable[str]) -> Self:
        del config
        seen: set[int] = set()
        for text in texts:
            seen.update(np.unique(_code_points(text)).tolist())
        return cls("".join(map(chr, sorted(seen))))

    def encode(self, text: str) -> Ids:
        # Points beyond the table meet its last entry, which is always unknown.
        points = np.minimum(_code_points(text), len(self._table) - 1)
        return self._table[points]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.characters[i - FIRST] if i >= FIRST else "\ufffd" for i in ids if i != BOUNDARY)

    def pieces(self, text: str) -> list[str]:
        return list(text)

    def unknown_characters(self, text: str) -> str:
        known = set(self.characters)
        return "".join(dict.fromkeys(character for character in text if character not in known))

    def state(self) -> dict[str, Any]:
        return {"characters": self.characters}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        characters = state.get("characters")
        if not isinstance(characters, str) or len(set(characters)) != len(characters):
            raise UserError("the saved char tokenizer is damaged: its characters are not distinct.")
        return cls(characters)
