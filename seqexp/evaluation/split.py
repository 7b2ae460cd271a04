"""The metrics of a whole split: sums over every batch, divided once."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from tqdm import tqdm

from seqexp.tasks.base import Metric, Task
from seqexp.tasks.carried import CarriedState


def evaluate_split(
    task: Task,
    model: torch.nn.Module,
    data: Any,
    split: str,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, Metric]:
    """Read the whole split once, in order, and return its metrics by name, such as ``val/loss``.

    Shows progress on a terminal when it takes more than two seconds. Leaves the random state and the
    model's mode as they were.
    """
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64)
    sums: dict[str, float] = {}
    count = 0
    carried = CarriedState(model) if data.carries_state else None
    progress = tqdm(
        total=data.eval_tokens(split), desc=f"evaluating {split}", unit="tok", unit_scale=True,
        delay=2, leave=False, disable=None,
    )  # fmt: skip
    with torch.inference_mode(), progress:
        for batch in data.eval_batches(split):
            if carried is not None:
                carried.begin(batch)
            with autocast():
                output = task.loss(carried or model, batch.to(device))
            total += output.nll_sum.double().cpu()
            for name, value in output.metric_sums.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            count += task.count(batch)
            progress.update(batch.count)
    model.train(was_training)
    metrics = task.metrics(float(total), count, sums, data.characters(split))
    return {f"{split}/{name}": value for name, value in metrics.items()}
