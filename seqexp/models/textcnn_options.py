"""Options of the convolutional classifier (`textcnn.py`)."""

from dataclasses import dataclass, field
from typing import ClassVar

from seqexp.config.checks import check_choice, check_range, check_rule
from seqexp.models.options import check_vectors

CHANNELS = ("static", "non_static", "multichannel")


@dataclass
class TextCNNConfig:
    """`n_filter` filters of each width in `widths`; Kim's sizes are the defaults."""

    KIND: ClassVar[str] = "classifier"

    # Not arguments of the model: `commands/vectors.py` reads them.
    OUTSIDE: ClassVar[tuple[str, ...]] = ("vectors", "vector_words")

    name: str = "textcnn"
    n_embd: int = 300
    n_filter: int = 100
    widths: list[int] = field(default_factory=lambda: [3, 4, 5])
    dropout: float = 0.5
    channels: str = "non_static"
    vectors: str | None = None
    vector_words: str | None = None

    def __post_init__(self) -> None:
        check_vectors(self.vectors, self.vector_words)
        check_range("model.n_embd", self.n_embd, 1)
        check_range("model.n_filter", self.n_filter, 1)
        check_rule(bool(self.widths), "model.widths=[] has no filters; give widths such as [3,4,5].")
        for width in self.widths:
            check_range("model.widths", width, 1, 1000)
        check_range("model.dropout", self.dropout, 0, below=1)
        check_choice("model.channels", self.channels, CHANNELS)

    def without_effect(self) -> list[str]:
        """Notes on settings that do not have the usual effect."""
        if self.channels == "static" and self.vectors is None:
            return ["model.channels=static keeps random vectors without model.vectors="]
        return []
