"""Options of the networks that read in both directions (`recurrent_encoder.py`)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from seqexp.config.checks import check_choice, check_range, check_rule
from seqexp.models.options import MAX_LAYERS, check_vectors

CELLS = ("rnn", "lstm", "gru")


@dataclass
class RecurrentEncoderConfig:
    """`hidden_size` units in each direction.

    `char_filters` filters of a convolution over the characters of each word, which have `char_embd` numbers
    each; with 0 filters, words alone are read.
    """

    KIND: ClassVar[str] = "encoder"

    # Not arguments of the model: `commands/vectors.py` reads them.
    OUTSIDE: ClassVar[tuple[str, ...]] = ("vectors", "vector_words")

    ADDED: ClassVar[dict[str, Any]] = {"char_embd": 30, "char_filters": 0}

    name: str = "birnn"
    cell: str = "lstm"
    hidden_size: int = 128
    n_layer: int = 1
    n_embd: int = 128
    dropout: float = 0.3
    char_embd: int = 30
    char_filters: int = 0
    vectors: str | None = None
    vector_words: str | None = None

    def __post_init__(self) -> None:
        check_vectors(self.vectors, self.vector_words)
        check_choice("model.cell", self.cell, CELLS)
        for key in ("hidden_size", "n_embd", "char_embd"):
            check_range(f"model.{key}", getattr(self, key), 1)
        check_range("model.char_filters", self.char_filters, 0)
        check_range("model.n_layer", self.n_layer, 1, MAX_LAYERS)
        check_range("model.dropout", self.dropout, 0, below=1)

    def check_together(self, config: Any) -> None:
        """Check that the data gives the characters that the model reads."""
        check_rule(
            not self.char_filters or getattr(config.data, "CHARACTERS", False),
            f"model.char_filters={self.char_filters} reads the characters of words, and "
            f"data={config.data.name} gives none; use tagged words, or model.char_filters=0.",
        )

    def without_effect(self) -> list[str]:
        """Notes on settings that these choices do not read."""
        if self.char_filters or self.char_embd == 30:
            return []
        return [f"model.char_embd={self.char_embd} has no effect with model.char_filters=0"]
