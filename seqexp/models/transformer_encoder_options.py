"""Options of the Transformer encoder (`transformer_encoder.py`)."""

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import II

from seqexp.config.checks import check_choice, check_range
from seqexp.models.lora_options import NO_LORA, LoRAConfig
from seqexp.models.options import MAX_LAYERS, POSITIONS, check_head_width


@dataclass
class TransformerEncoderConfig:
    """`n_layer` blocks of self-attention without a causal mask; only learned positions use `max_len`."""

    KIND: ClassVar[str] = "encoder"
    ADDED: ClassVar = {"lora": NO_LORA}
    OUTSIDE: ClassVar[tuple[str, ...]] = ("lora",)

    name: str = "transformer_encoder"
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 128
    ffn_size: int = 512
    dropout: float = 0.1
    norm: str = "pre"
    positions: str = "sinusoidal"
    max_len: int = II("window:")
    lora: LoRAConfig = field(default_factory=LoRAConfig)

    @property
    def limited(self) -> bool:
        """Whether `max_len` limits what can be read."""
        return self.positions == "learned"

    def __post_init__(self) -> None:
        check_range("model.n_layer", self.n_layer, 1, MAX_LAYERS)
        for key in ("n_head", "n_embd", "ffn_size"):
            check_range(f"model.{key}", getattr(self, key), 1)
        check_range("model.max_len", self.max_len, 2)
        check_range("model.dropout", self.dropout, 0, below=1)
        check_choice("model.norm", self.norm, ("pre", "post"))
        check_choice("model.positions", self.positions, POSITIONS)
        check_head_width(self.n_embd, self.n_head, self.positions)
