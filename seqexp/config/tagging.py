"""Options of the tagging task (`tasks/tagging.py`)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from seqexp.config.checks import check_range, check_rule


@dataclass
class TaggingConfig:
    """Predict a tag for each word of a sentence.

    With `crf` the transitions between tags are learned too (Lample et al. 2016), and the loss is that of
    whole sequences. If the tags are spans and `constrained`, the most probable sequence of those that their
    scheme allows is chosen, else the most probable of all. `label_smoothing` affects only the training loss.
    """

    READS: ClassVar[tuple[str, ...]] = ("tagged words",)
    ACCEPTS: ClassVar[tuple[str, ...]] = ("causal", "encoder", "masked", "replaced")
    GENERATION: ClassVar[tuple[str, ...]] = ()
    ADDED: ClassVar[dict[str, Any]] = {"crf": False, "constrained": True}
    # Few words are in names: the loss is lowest when hardly any span is found; their F1 grows after that.
    MONITOR: ClassVar[str] = "val/f1"

    name: str = "tagging"
    crf: bool = False
    constrained: bool = True
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_range("task.label_smoothing", self.label_smoothing, 0, below=1)
        check_rule(
            not (self.crf and self.label_smoothing),
            "task.label_smoothing is for tags one by one, and task.crf=true has the loss of whole sequences: "
            "leave one of them out.",
        )
