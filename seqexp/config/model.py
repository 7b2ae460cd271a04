"""Options of the models."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import II, MISSING

from seqexp.config.checks import check_choice, check_range, check_rule

POSITIONS = ("learned", "sinusoidal", "rotary")
ACTIVATIONS = ("tanh", "relu", "sigmoid")
CELLS = ("gru", "lstm", "rnn")
ATTENTIONS = ("dot", "general", "concat", "bahdanau", "local_p", "none")
IMPLEMENTATIONS = ("fused", "reference")
INITIALISATIONS = ("uniform", "orthogonal", "identity")
MOST_LAYERS = 1000


def check_head_width(n_embd: int, n_head: int, positions: str) -> None:
    """Refuse a width that heads cannot share, or an odd one where positions need pairs.

    Raises:
        UserError: with a width that would do.
    """
    check_rule(
        n_embd % n_head == 0,
        f"model.n_embd={n_embd} is not a multiple of model.n_head={n_head}; "
        f"try model.n_embd={-(-n_embd // n_head) * n_head}.",
    )
    even = n_embd // n_head if positions == "rotary" else n_embd
    check_rule(
        positions == "learned" or even % 2 == 0,
        f"model.positions={positions} needs an even width, and it is {even} here "
        f"(model.n_embd={n_embd}, model.n_head={n_head}).",
    )


@dataclass
class GPTConfig:
    """A decoder-only Transformer; `max_len` is the window in tokens (the block size)."""

    TASKS: ClassVar = ("language_modeling", "parity")

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
        check_range("model.n_layer", self.n_layer, 1, MOST_LAYERS)
        check_range("model.n_head", self.n_head, 1)
        check_range("model.n_embd", self.n_embd, 1)
        check_range("model.max_len", self.max_len, 2)
        check_range("model.dropout", self.dropout, 0, below=1)
        check_choice("model.positions", self.positions, POSITIONS)
        check_head_width(self.n_embd, self.n_head, self.positions)


@dataclass
class RecurrentConfig:
    """What all recurrent networks have. `n_embd` 0 means no embedding: bits are numbers, tokens one-hot."""

    TASKS: ClassVar = ("language_modeling", "parity")

    name: str = MISSING
    hidden_size: int = 256
    n_layer: int = 1
    n_embd: int = 0
    dropout: float = 0.0
    impl: str = "fused"
    init: str = "uniform"

    def __post_init__(self) -> None:
        check_range("model.hidden_size", self.hidden_size, 1)
        check_range("model.n_layer", self.n_layer, 1, MOST_LAYERS)
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("model.forget_bias", self.forget_bias)


@dataclass
class NMTConfig:
    """Recurrent encoder and decoder with attention; `attention_size` is that of concat and bahdanau."""

    TASKS: ClassVar = ("translation",)

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

    def __post_init__(self) -> None:
        check_choice("model.cell", self.cell, CELLS)
        check_choice("model.attention", self.attention, ATTENTIONS)
        check_range("model.n_layer", self.n_layer, 1, MOST_LAYERS)
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
            "model.attention=none has nothing to feed: use model.input_feeding=false.",
        )
        check_rule(
            not self.tie_embeddings or self.n_embd == self.hidden_size,
            f"model.tie_embeddings=true needs model.n_embd={self.n_embd} and "
            f"model.hidden_size={self.hidden_size} to be equal.",
        )


@dataclass
class TransformerConfig:
    """Encoder and decoder of `n_layer` blocks each; `max_len` matters to learned positions alone."""

    TASKS: ClassVar = ("translation",)

    name: str = "transformer"
    n_layer: int = 3
    n_head: int = 4
    n_embd: int = 256
    ffn_size: int = 1024
    dropout: float = 0.1
    norm: str = "pre"
    positions: str = "sinusoidal"
    tie_embeddings: bool = True
    max_len: int = 256

    def __post_init__(self) -> None:
        check_range("model.n_layer", self.n_layer, 1, MOST_LAYERS)
        for key in ("n_head", "n_embd", "ffn_size"):
            check_range(f"model.{key}", getattr(self, key), 1)
        check_range("model.max_len", self.max_len, 2)
        check_range("model.dropout", self.dropout, 0, below=1)
        check_choice("model.norm", self.norm, ("pre", "post"))
        check_choice("model.positions", self.positions, POSITIONS)
        check_head_width(self.n_embd, self.n_head, self.positions)
