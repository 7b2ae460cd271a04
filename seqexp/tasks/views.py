"""Evaluate a model on the views of a data set, one row each."""

from collections.abc import Sequence
from typing import Any

from seqexp.data.base import View
from seqexp.tasks.base import EvalOptions, Evaluation, Row, Task


def evaluate_views(
    task: Task,
    model: Any,
    views: Sequence[View],
    split: str,
    options: EvalOptions,
) -> list[Row]:
    """Return one row per view, in order."""
    rows = []
    for view in views:
        found = task.evaluate(model, view.data, split, options)
        evaluation = found if isinstance(found, Evaluation) else Evaluation(found)
        rows.append(Row(view.label, evaluation, view.main))
    return rows
