"""Options of the tasks: what the loss is."""

from dataclasses import dataclass

from seqexp.config.checks import check_range


@dataclass
class LanguageModelingConfig:
    """Predict the next token; `label_smoothing` touches the training loss alone."""

    name: str = "language_modeling"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_range("task.label_smoothing", self.label_smoothing, 0, below=1)
