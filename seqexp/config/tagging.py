"""Options of the tagging task (`tasks/tagging.py`)."""

from dataclasses import dataclass
from typing import ClassVar

from seqexp.config.checks import check_range


@dataclass
class TaggingConfig:
    """Predict a tag for each word of a sentence. `label_smoothing` affects only the training loss."""

    READS: ClassVar[tuple[str, ...]] = ("tagged words",)
    ACCEPTS: ClassVar[tuple[str, ...]] = ("causal", "encoder")
    GENERATION: ClassVar[tuple[str, ...]] = ()

    name: str = "tagging"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_range("task.label_smoothing", self.label_smoothing, 0, below=1)
