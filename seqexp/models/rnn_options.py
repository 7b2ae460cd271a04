"""Options of the recurrent networks (`rnn.py`)."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from seqexp.config.checks import check_choice, check_range, check_rule
from seqexp.models.options import IMPLEMENTATIONS, MAX_LAYERS

ACTIVATIONS = ("tanh", "relu", "sigmoid")
INITIALISATIONS = ("uniform", "orthogonal", "identity")


@dataclass
class RecurrentConfig:
    """Options of every recurrent network; with `n_embd` 0 bits are read as numbers and tokens as one-hot."""

    KIND: ClassVar[str] = "causal"

    name: str = MISSING
    hidden_size: int = 256
    n_layer: int = 1
    n_embd: int = 0
    dropout: float = 0.0
    impl: str = "fused"
    init: str = "uniform"

    def __post_init__(self) -> None:
        check_range("model.hidden_size", self.hidden_size, 1)
        check_range("model.n_layer", self.n_layer, 1, MAX_LAYERS)
        check_range("model.n_embd", self.n_embd, 0)
        check_range("model.dropout", self.dropout, 0, below=1)
        check_choice("model.impl", self.impl, IMPLEMENTATIONS)
        check_choice("model.init", self.init, INITIALISATIONS)
        check_rule(
            self.dropout == 0 or self.n_layer > 1,
            f"model.dropout={self.dropout} applies between layers, and there is one layer; "
            "use model.n_layer=2 or more, or model.dropout=0.",
        )


@dataclass
class RNNConfig(RecurrentConfig):
    """Options of the vanilla network."""

    activation: str = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("model.activation", self.activation, ACTIVATIONS)


@dataclass
class LSTMConfig(RecurrentConfig):
    """Options of the LSTM; with `forget_bias` null the forget gate's bias starts as `init` sets it."""

    forget_bias: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("model.forget_bias", self.forget_bias)
