"""Bits: the characters 0 and 1 as the tokens 0 and 1."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from seqexp.errors import UserError
from seqexp.tokenizers.base import Ids, Tokenizer


class BitTokenizer(Tokenizer):
    """Read sequences of bits; spaces between bits are skipped. There are no documents and no boundaries."""

    name = "bits"
    vocab_size = 2
    bos_id = eos_id = 0
    unk_id = None

    @classmethod
    def fit(cls, config: Any, texts: Iterable[str]) -> Self:
        del config, texts
        return cls()

    def encode(self, text: str) -> Ids:
        """The bits of `text`.

        Raises:
            UserError: something in it is neither 0 nor 1.
        """
        text = "".join(text.split())
        wrong = next((number for number, character in enumerate(text) if character not in "01"), None)
        if wrong is not None:
            raise UserError(
                f"{text[wrong]!r} at position {wrong + 1} is not a bit; write the sequence in 0 and 1, such "
                "as 0110100."
            )
        return (np.frombuffer(text.encode("ascii"), np.uint8) - ord("0")).astype(np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(str(int(i)) for i in ids)

    def state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        del state
        return cls()
