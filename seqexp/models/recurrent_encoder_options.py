"""Options of the networks that read in both directions (`recurrent_encoder.py`)."""

from dataclasses import dataclass
from typing import ClassVar

from seqexp.config.checks import check_choice, check_range
from seqexp.models.options import MAX_LAYERS, check_vectors

CELLS = ("rnn", "lstm", "gru")


@dataclass
class RecurrentEncoderConfig:
    """`hidden_size` units in each direction."""

    KIND: ClassVar[str] = "encoder"

    # Not arguments of the model: `commands/vectors.py` reads them.
    OUTSIDE: ClassVar[tuple[str, ...]] = ("vectors", "vector_words")

    name: str = "birnn"
    cell: str = "lstm"
    hidden_size: int = 128
    n_layer: int = 1
    n_embd: int = 128
    dropout: float = 0.3
    vectors: str | None = None
    vector_words: str | None = None

    def __post_init__(self) -> None:
        check_vectors(self.vectors, self.vector_words)
        check_choice("model.cell", self.cell, CELLS)
        for key in ("hidden_size", "n_embd"):
            check_range(f"model.{key}", getattr(self, key), 1)
        check_range("model.n_layer", self.n_layer, 1, MAX_LAYERS)
        check_range("model.dropout", self.dropout, 0, below=1)
