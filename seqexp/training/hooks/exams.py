"""Exams at every validation."""

import math
from typing import TYPE_CHECKING

from seqexp.exams.runner import ACCURACY, ExamRunner
from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.training.hooks.base import Hook

if TYPE_CHECKING:
    from seqexp.training.loop import Trainer


class Exams(Hook):
    """Add ``exam/<name>``, the share of right answers, to the results of a validation."""

    def __init__(self, runner: ExamRunner) -> None:
        self.runner = runner

    def declared(self) -> dict[str, MetricSpec]:
        return {f"exam/{exam.name}": ACCURACY for exam in self.runner.exams}

    def at_validation(self, trainer: "Trainer", results: dict[str, Metric]) -> None:
        if math.isfinite(results["val/loss"].value):
            scorer = trainer.task.scorer(
                trainer.model, trainer.data.preprocessor, trainer.device.autocast, trainer.config.exams
            )
            results |= self.runner.metrics(scorer)
