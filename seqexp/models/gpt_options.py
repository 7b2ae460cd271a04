"""Options of the GPT (`gpt.py`)."""

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import II

from seqexp.config.checks import check_choice, check_range
from seqexp.models.lora_options import NO_LORA, LoRAConfig
from seqexp.models.options import MAX_LAYERS, POSITIONS, check_head_width


@dataclass
class GPTConfig:
    """A decoder-only Transformer; `max_len` is the window in tokens, by default that of the data."""

    KIND: ClassVar[str] = "causal"
    ADDED: ClassVar = {"lora": NO_LORA}
    OUTSIDE: ClassVar[tuple[str, ...]] = ("lora",)

    name: str = "gpt"
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = False
    positions: str = "learned"
    tie_embeddings: bool = True
    max_len: int = II("window:")
    lora: LoRAConfig = field(default_factory=LoRAConfig)

    def __post_init__(self) -> None:
        check_range("model.n_layer", self.n_layer, 1, MAX_LAYERS)
        check_range("model.n_head", self.n_head, 1)
        check_range("model.n_embd", self.n_embd, 1)
        check_range("model.max_len", self.max_len, 2)
        check_range("model.dropout", self.dropout, 0, below=1)
        check_choice("model.positions", self.positions, POSITIONS)
        check_head_width(self.n_embd, self.n_head, self.positions)
