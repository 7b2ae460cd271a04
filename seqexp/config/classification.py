"""Options of the classification task (`tasks/classification.py`)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from seqexp.config.checks import check_choice, check_range, check_rule

POOLINGS = ("mean", "max", "last", "first", "attention")


@dataclass
class ClassificationConfig:
    """Predict the label of a text, or its labels.

    Language models and encoders have outputs at every token; `pooling` makes one of them: their ``mean``
    (also null), their ``max``, those of the ``last`` or the ``first`` token, or a mean weighted by learned
    ``attention``. Models that pool themselves leave no choice. `label_smoothing` affects only the training
    loss.
    """

    READS: ClassVar[tuple[str, ...]] = ("labelled text",)
    ACCEPTS: ClassVar[tuple[str, ...]] = ("causal", "encoder", "masked", "replaced", "classifier")
    GENERATION: ClassVar[tuple[str, ...]] = ()
    # The loss of small data sets rises again long before the labels get worse.
    MONITOR: ClassVar[str] = "val/macro_f1"

    name: str = "classification"
    pooling: str | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.pooling is not None:
            check_choice("task.pooling", self.pooling, POOLINGS)
        check_range("task.label_smoothing", self.label_smoothing, 0, below=1)

    def check_together(self, config: Any) -> None:
        """Check the settings against those of the model and the data."""
        check_rule(
            self.pooling is None or getattr(config.model, "KIND", None) != "classifier",
            f"task.pooling={self.pooling} has no effect on model={config.model.name}, which pools itself; "
            "leave it out.",
        )
        check_rule(
            not (self.label_smoothing and getattr(config.data, "multilabel", False)),
            "task.label_smoothing is for one label a text, and data.multilabel=true: leave one of them out.",
        )
