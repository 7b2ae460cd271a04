"""What every tokenizer is: text to token numbers and back, and plain data to keep it as."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from seqexp import registry
from seqexp.errors import UserError

Ids = npt.NDArray[np.uint32]


class Tokenizer(ABC):
    """Text to token numbers below `vocab_size` and back.

    A tokenizer knows its special tokens by number; None means that it has no such token. `bos_id` stands
    before a text, and between documents, and `eos_id` ends it; most tokenizers of this package have one token
    for both. `unk_id` stands for text that training never showed; it is read,
    never generated. `pad_id`, `cls_id`, `sep_id` and `mask_id` are those of encoders.
    """

    name: ClassVar[str]
    # In the keys of caches: raise it when the same text, options or state give other tokens than before.
    version: ClassVar[int] = 1
    # What a sentence that stands alone begins with, so that its first word looks like any other word.
    sentence_start: ClassVar[str] = ""
    # What a word that stands alone begins with, for the same reason.
    word_start: ClassVar[str] = " "
    # Whether tokens leave out parts of the text, which then cannot be modelled as language.
    lossy: ClassVar[bool] = False
    vocab_size: int
    bos_id: int
    eos_id: int
    unk_id: int | None
    pad_id: int | None = None
    cls_id: int | None = None
    sep_id: int | None = None
    mask_id: int | None = None

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, texts: Iterable[str]) -> Self:
        """Learn from pieces of the training split; `config` is the tokenizer's dataclass."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Token numbers of `text`, without special tokens."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of token numbers; special tokens are skipped, unknown ones become U+FFFD."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain data from which `from_state` makes the same tokenizer."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`.

        Raises:
            UserError: the data is not of this tokenizer.
        """

    def piece(self, number: int) -> str:
        """How a token is shown in pictures and tables."""
        names = {self.eos_id: "</s>", self.unk_id: "<unk>"}
        return names[number] if number in names else self.decode([number])

    def ends_word(self, number: int) -> bool:
        """Whether a word that stands before this token is finished: this one begins with no letter."""
        begin = self.decode([number])[:1]
        return number == self.eos_id or not (begin.isalpha() or begin in ("", "\ufffd"))

    def pieces(self, text: str) -> list[str]:
        """The strings that the tokens of `encode` stand for, unknown ones included."""
        return [self.piece(int(number)) for number in self.encode(text)]

    def join(self, pieces: Sequence[str]) -> str:
        """The text of `pieces`."""
        return "".join(pieces)

    def special_tokens(self) -> dict[str, int]:
        """The special tokens that there are, by role: ``{"bos": 0, "eos": 0, "unk": 1}``."""
        roles = ("bos", "eos", "unk", "pad", "cls", "sep", "mask")
        found = {role: getattr(self, f"{role}_id") for role in roles}
        return {role: number for role, number in found.items() if number is not None}

    def suppress_tokens(self) -> list[int]:
        """Tokens that a sampler must never draw: those that stand for no text, except the end."""
        return sorted({*self.special_tokens().values()} - {self.bos_id, self.eos_id})

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        """Where each token of `encode(text)` begins and ends in `text`, in characters; None where unknown."""
        begin, found = 0, []
        for piece in self.pieces(text):
            found.append((begin, begin + len(piece)))
            begin += len(piece)
        return found if begin == len(text) else None

    def unknown_characters(self, text: str) -> str:
        """The distinct characters of `text` that can only be encoded as unknown, in order."""
        del text
        return ""

    def files(self) -> dict[str, bytes]:
        """Return files that other programs read, by name."""
        return {}

    def hash(self) -> str:
        """A short hash of the state: two tokenizers with the same one encode alike."""
        return hashlib.sha256(json.dumps(self.to_plain(), sort_keys=True).encode()).hexdigest()[:16]

    def to_plain(self) -> dict[str, Any]:
        """The name and the state, for a checkpoint."""
        return {"name": self.name, "state": self.state()}


def tokenizer_from_plain(plain: Any) -> Tokenizer:
    """The tokenizer that `Tokenizer.to_plain` described.

    Raises:
        UserError: the data names no tokenizer or does not fit it.
    """
    if not isinstance(plain, dict) or not isinstance(plain.get("state"), dict):
        raise UserError("the checkpoint holds no tokenizer.")
    tokenizer: Tokenizer = registry.load("tokenizer", str(plain.get("name"))).from_state(plain["state"])
    return tokenizer
