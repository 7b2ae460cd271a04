"""Options of the tasks: what the loss is."""

from dataclasses import dataclass

from seqexp.config.checks import check_choice, check_range


@dataclass
class LanguageModelingConfig:
    """Predict the next token; `label_smoothing` touches the training loss alone."""

    name: str = "language_modeling"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_range("task.label_smoothing", self.label_smoothing, 0, below=1)


@dataclass
class TranslationConfig:
    """Write the target sentence of a source; `label_smoothing` touches the training loss alone.

    At validations the development part is translated greedily for its BLEU, unless `bleu` is false.
    """

    name: str = "translation"
    label_smoothing: float = 0.0
    bleu: bool = True

    def __post_init__(self) -> None:
        check_range("task.label_smoothing", self.label_smoothing, 0, below=1)


@dataclass
class ParityConfig:
    """Tell at each step whether the ones so far are odd.

    The loss is taken at every step with `full_supervision`, else at the last alone: `bce` is the binary
    cross-entropy in nats, `mse` the squared error of the probability.
    """

    name: str = "parity"
    full_supervision: bool = True
    loss: str = "bce"

    def __post_init__(self) -> None:
        check_choice("task.loss", self.loss, ("bce", "mse"))
