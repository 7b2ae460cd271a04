"""Evaluate a model on the views of a data set, one row each."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from seqexp.config.run import GenerationConfig
from seqexp.data.base import View
from seqexp.tasks.base import EvalOptions, Evaluation, Row, Task


def evaluate_views(
    task: Task,
    model: Any,
    views: Sequence[View],
    split: str,
    autocast: Callable[[], AbstractContextManager[Any]],
    generation: GenerationConfig | None = None,
    seed: int = 1,
) -> list[Row]:
    """Return one row per view, in order."""
    options = EvalOptions(autocast, generation, seed)
    rows = []
    for view in views:
        found = task.evaluate(model, view.data, split, options)
        evaluation = found if isinstance(found, Evaluation) else Evaluation(found)
        rows.append(Row(view.label, evaluation, view.main))
    return rows
