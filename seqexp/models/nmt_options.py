"""Options of the recurrent translator (`nmt.py`)."""

from dataclasses import dataclass, field
from typing import ClassVar

from seqexp.config.checks import check_choice, check_range, check_rule
from seqexp.models.lora_options import NO_LORA, LoRAConfig
from seqexp.models.options import IMPLEMENTATIONS, MAX_LAYERS

CELLS = ("gru", "lstm", "rnn")
ATTENTIONS = ("dot", "general", "concat", "bahdanau", "local_p", "none")


@dataclass
class NMTConfig:
    """A recurrent encoder and decoder; concat and bahdanau use `attention_size`, local_p uses `window`."""

    KIND: ClassVar[str] = "encoder_decoder"
    ADDED: ClassVar = {"impl": "fused", "lora": NO_LORA}
    OUTSIDE: ClassVar[tuple[str, ...]] = ("lora",)

    name: str = "nmt"
    cell: str = "gru"
    n_embd: int = 256
    hidden_size: int = 256
    n_layer: int = 1
    bidirectional: bool = True
    reverse_source: bool = False
    attention: str = "general"
    attention_size: int = 256
    window: int = 4
    input_feeding: bool = True
    dropout: float = 0.0
    tie_embeddings: bool = False
    impl: str = "fused"
    lora: LoRAConfig = field(default_factory=LoRAConfig)

    def without_effect(self) -> list[str]:
        """Notes on settings that the attention does not read."""
        sizes = (256, self.hidden_size)  # the default, and what goes with the size of the state
        readers = {"attention_size": (sizes, ("concat", "bahdanau")), "window": ((4,), ("local_p",))}
        return [
            f"model.{key}={getattr(self, key)} has no effect with model.attention={self.attention}"
            for key, (usual, attentions) in readers.items()
            if getattr(self, key) not in usual and self.attention not in attentions
        ]

    def __post_init__(self) -> None:
        check_choice("model.cell", self.cell, CELLS)
        check_choice("model.attention", self.attention, ATTENTIONS)
        check_choice("model.impl", self.impl, IMPLEMENTATIONS)
        check_range("model.n_layer", self.n_layer, 1, MAX_LAYERS)
        for key in ("n_embd", "hidden_size", "attention_size", "window"):
            check_range(f"model.{key}", getattr(self, key), 1)
        check_range("model.dropout", self.dropout, 0, below=1)
        check_rule(
            not (self.attention == "dot" and self.bidirectional),
            "model.attention=dot needs an encoder as wide as the decoder: use model.bidirectional=false, or "
            "model.attention=general.",
        )
        check_rule(
            not (self.attention == "none" and self.input_feeding),
            "model.input_feeding=true needs attention: use model.input_feeding=false, or another "
            "model.attention.",
        )
        check_rule(
            not self.tie_embeddings or self.n_embd == self.hidden_size,
            f"model.tie_embeddings=true needs model.n_embd={self.n_embd} and "
            f"model.hidden_size={self.hidden_size} to be equal.",
        )
