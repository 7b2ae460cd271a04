"""Options of the models."""

from dataclasses import dataclass

from omegaconf import II, MISSING

from seqexp.config.checks import check_choice, check_range, check_rule

POSITIONS = ("learned", "sinusoidal", "rotary")
ACTIVATIONS = ("tanh", "relu", "sigmoid")
IMPLEMENTATIONS = ("fused", "reference")
INITIALISATIONS = ("uniform", "orthogonal", "identity")


@dataclass
class GPTConfig:
    """A decoder-only Transformer; `max_len` is the window in tokens (the block size)."""

    name: str = "gpt"
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = False
    positions: str = "learned"
    tie_embeddings: bool = True
    max_len: int = II("data.seq_len")

    def __post_init__(self) -> None:
        check_range("model.n_layer", self.n_layer, 1)
        check_range("model.n_head", self.n_head, 1)
        check_range("model.n_embd", self.n_embd, 1)
        check_range("model.max_len", self.max_len, 2)
        check_range("model.dropout", self.dropout, 0, below=1)
        check_choice("model.positions", self.positions, POSITIONS)
        check_rule(
            self.n_embd % self.n_head == 0,
            f"model.n_embd={self.n_embd} is not a multiple of model.n_head={self.n_head}; "
            f"try model.n_embd={-(-self.n_embd // self.n_head) * self.n_head}.",
        )
        even = self.n_embd // self.n_head if self.positions == "rotary" else self.n_embd
        check_rule(
            self.positions == "learned" or even % 2 == 0,
            f"model.positions={self.positions} needs an even width, and it is {even} here "
            f"(model.n_embd={self.n_embd}, model.n_head={self.n_head}).",
        )


@dataclass
class RecurrentConfig:
    """What all recurrent networks have. `n_embd` 0 means no embedding: bits are numbers, tokens one-hot."""

    name: str = MISSING
    hidden_size: int = 256
    n_layer: int = 1
    n_embd: int = 0
    dropout: float = 0.0
    impl: str = "fused"
    init: str = "uniform"

    def __post_init__(self) -> None:
        check_range("model.hidden_size", self.hidden_size, 1)
        check_range("model.n_layer", self.n_layer, 1)
        check_range("model.n_embd", self.n_embd, 0)
        check_range("model.dropout", self.dropout, 0, below=1)
        check_choice("model.impl", self.impl, IMPLEMENTATIONS)
        check_choice("model.init", self.init, INITIALISATIONS)
        check_rule(
            self.dropout == 0 or self.n_layer > 1,
            f"model.dropout={self.dropout} is between layers, and there is one layer; "
            "use model.n_layer=2 or more, or model.dropout=0.",
        )


@dataclass
class RNNConfig(RecurrentConfig):
    """The vanilla network."""

    activation: str = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("model.activation", self.activation, ACTIVATIONS)


@dataclass
class LSTMConfig(RecurrentConfig):
    """Long short-term memory; `forget_bias` null leaves the forget gate's bias as `init` has it."""

    forget_bias: float | None = None
