"""How good is what a model writes? For the validations of a training run."""

from typing import Any

import torch

from seqexp.evaluation.bleu import corpus_scores
from seqexp.tasks.base import Metric, Task


def written_metrics(
    task: Task, model: torch.nn.Module, data: Any, split: str, device: torch.device
) -> dict[str, Metric]:
    """BLEU by name, such as ``val/bleu``, where the task writes what can be compared; else nothing."""
    was_training = model.training
    model.eval()
    found = task.written(model, data, split, device)
    model.train(was_training)
    if found is None:
        return {}
    score = corpus_scores(*found, names=["bleu"])["bleu"]
    return {f"{split}/bleu": Metric(score.value, len(found[0]))}
