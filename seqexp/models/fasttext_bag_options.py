"""Options of the bag of n-grams (`fasttext_bag.py`)."""

from dataclasses import dataclass
from typing import ClassVar

from seqexp.config.checks import check_range


@dataclass
class FastTextBagConfig:
    """N-grams of up to `n_gram` tokens, hashed into `buckets` rows."""

    KIND: ClassVar[str] = "classifier"

    name: str = "fasttext_bag"
    n_embd: int = 100
    n_gram: int = 2
    buckets: int = 100_000

    def __post_init__(self) -> None:
        check_range("model.n_embd", self.n_embd, 1)
        check_range("model.n_gram", self.n_gram, 1, 10)
        check_range("model.buckets", self.buckets, 1, 100_000_000)

    def without_effect(self) -> list[str]:
        """Notes on settings that these choices do not read."""
        if self.n_gram == 1 and self.buckets != 100_000:
            return [f"model.buckets={self.buckets} has no effect with model.n_gram=1"]
        return []
