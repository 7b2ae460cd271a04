"""What ties a model's outputs to a loss, metrics and decoding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from seqexp.config.run import GenerationConfig
from seqexp.data.batch import Batch

Forward = Callable[[Tensor], Tensor]


@dataclass
class LossOutput:
    """Sums over the counted items of a batch, in fp32; the caller divides by the count.

    `loss_sum` is what is minimised, `nll_sum` the negative log-likelihood in nats, never smoothed.
    """

    loss_sum: Tensor
    nll_sum: Tensor
    metric_sums: dict[str, Tensor] = field(default_factory=dict)


class Data(Protocol):
    """What a task and the loop ask of a data set."""

    def train_batch(self, step: int) -> Batch: ...
    def eval_batches(self, split: str) -> Any: ...
    def characters(self, split: str) -> int: ...
    def model_sizes(self) -> dict[str, int]: ...
    def describe(self) -> dict[str, Any]: ...
    @property
    def steps_per_epoch(self) -> float: ...


class Task(Protocol):
    """A task is made from its configuration; `model` in `loss` is anything that gives logits."""

    metric_names: tuple[str, ...]  # what `metrics` returns

    def loss(self, model: Forward, batch: Batch) -> LossOutput: ...

    def metrics(
        self, nll_sum: float, count: int, metric_sums: Mapping[str, float], characters: int
    ) -> dict[str, float]:
        """Averages over a whole split, by metric name without the split's prefix."""
        ...

    def sample(self, model: torch.nn.Module, data: Any, config: GenerationConfig, seed: int) -> str:
        """A piece of what the model makes now, for the log."""
        ...
