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
    """Tokens are numbers below `vocab_size`.

    `boundary_id` stands between documents, and before the first character of each. `unknown_id` (None
    where nothing can be unknown) stands for what training never showed; it can be read, not written.
    """

    name: ClassVar[str]
    # What a sentence that stands alone begins with, so that its first word looks like any other word.
    sentence_start: ClassVar[str] = ""
    # What a word that stands alone begins with, for the same reason.
    word_start: ClassVar[str] = " "
    vocab_size: int
    boundary_id: int
    unknown_id: int | None

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, texts: Iterable[str]) -> Self:
        """Learn from pieces of the training part; `config` is the tokenizer's dataclass."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Token numbers of `text`, without boundaries."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of token numbers; boundaries are left out, unknown ones become U+FFFD."""

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
        names = {self.boundary_id: "</s>", self.unknown_id: "<unk>"}
        return names[number] if number in names else self.decode([number])

    def ends_word(self, number: int) -> bool:
        """Whether a word that stands before this token is finished: this one begins with no letter."""
        begin = self.decode([number])[:1]
        return number == self.boundary_id or not (begin.isalpha() or begin in ("", "\ufffd"))

    def pieces(self, text: str) -> list[str]:
        """The parts of `text` that the tokens of `encode` stand for, unknown ones too."""
        return [self.piece(int(number)) for number in self.encode(text)]

    def join(self, pieces: Sequence[str]) -> str:
        """The text of parts as `pieces` gives them."""
        return "".join(pieces)

    def unwritable_ids(self) -> list[int]:
        """Tokens that a sampler must never draw."""
        return [] if self.unknown_id is None else [self.unknown_id]

    def unknown_characters(self, text: str) -> str:
        """The distinct characters of `text` that can only be encoded as unknown, in order."""
        del text
        return ""

    def hash(self) -> str:
        """A short hash of the state: two tokenizers with the same one encode alike."""
        return hashlib.sha256(json.dumps(self.to_plain(), sort_keys=True).encode()).hexdigest()[:16]

    def to_plain(self) -> dict[str, Any]:
        """The name and the state, for a checkpoint."""
        return {"name": self.name, "state": self.state()}


def tokenizer_from_plain(plain: Any) -> Tokenizer:
    """The tokenizer of one language in a checkpoint (`PairTokenizer.from_plain` is for two).

    Raises:
        UserError: the data names no tokenizer or does not fit it.
    """
    if not isinstance(plain, dict) or not isinstance(plain.get("state"), dict):
        raise UserError("the checkpoint holds no tokenizer.")
    tokenizer: Tokenizer = registry.load("tokenizer", str(plain.get("name"))).from_state(plain["state"])
    return tokenizer
