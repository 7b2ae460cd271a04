"""Options of the plugin, with what they declare of themselves."""

from dataclasses import dataclass
from typing import ClassVar

from seqexp.config.checks import check_range


@dataclass
class ReviewsConfig:
    EXAMPLES: ClassVar = "labelled text"

    name: str = "reviews"
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_range("data.batch_size", self.batch_size, 1)


@dataclass
class BagConfig:
    KIND: ClassVar = "classifier"

    name: str = "bag"
    n_embd: int = 8


@dataclass
class SentimentConfig:
    READS: ClassVar = ("labelled text",)
    ACCEPTS: ClassVar = ("classifier",)
    GENERATION: ClassVar = ()

    name: str = "sentiment"
