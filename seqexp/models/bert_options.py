"""Options of BERT (`bert.py`)."""

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import II

from seqexp.config.checks import check_choice, check_range
from seqexp.models.lora_options import LoRAConfig
from seqexp.models.options import MAX_LAYERS, POSITIONS, check_head_width

ACTIVATIONS = ("gelu", "geglu", "relu")


@dataclass
class BertConfig:
    """An encoder of `n_layer` blocks, by default RoBERTa's; only learned positions use `max_len`.

    `ffn_size` null is four times `n_embd`. `n_segment` is 2 for BERT, whose tokens are of the first or the
    second text. `head_transform` and `tie_embeddings` are of the head that predicts masked tokens, and
    `pooler` of the head that predicts labels.
    """

    KIND: ClassVar[str] = "masked"
    OUTSIDE: ClassVar[tuple[str, ...]] = ("lora",)

    name: str = "bert"
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 256
    ffn_size: int | None = None
    dropout: float = 0.1
    norm: str = "post"
    positions: str = "learned"
    activation: str = "gelu"
    bias: bool = True
    n_segment: int = 0
    embedding_norm: bool = True
    head_transform: bool = True
    tie_embeddings: bool = True
    pooler: bool = False
    norm_eps: float = 1e-5
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
        check_range("model.n_segment", self.n_segment, 0, 100)
        check_range("model.max_len", self.max_len, 2)
        check_range("model.dropout", self.dropout, 0, below=1)
        check_range("model.norm_eps", self.norm_eps, above=0, high=1)
        check_choice("model.norm", self.norm, ("pre", "post"))
        check_choice("model.positions", self.positions, POSITIONS)
        check_choice("model.activation", self.activation, ACTIVATIONS)
        check_head_width(self.n_embd, self.n_head, self.positions)
