"""What ties a model's outputs to a loss, metrics and decoding."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from seqexp.config.run import GenerationConfig
from seqexp.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Forward = Callable[..., Tensor]


@dataclass
class LossOutput:
    """Sums over the counted items of a batch, in fp32; the caller divides by the count.

    `loss_sum` is what is minimised, `nll_sum` what is reported as the loss: the negative log-likelihood
    in nats, never smoothed, or for a loss that is no likelihood, that loss.
    """

    loss_sum: Tensor
    nll_sum: Tensor
    metric_sums: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A number, how many items it is an average of, and its 95 % interval where it is a share."""

    value: float
    count: int
    interval: tuple[float, float] | None = None


class Task(Protocol):
    """A task is made from its configuration; `model` in `loss` is anything that gives logits."""

    metric_names: tuple[str, ...]  # what a validation measures, and `trainer.monitor` may name
    loss_unit: str

    def count(self, batch: Any) -> int:
        """The items that the loss of a batch averages over, known before the forward pass."""
        ...

    def loss(self, model: Forward, batch: Any) -> LossOutput: ...

    def metrics(
        self, nll_sum: float, count: int, metric_sums: Mapping[str, float], characters: int
    ) -> dict[str, Metric]:
        """Averages over a whole split, by metric name without the split's prefix."""
        ...

    def written(
        self, model: torch.nn.Module, data: Any, split: str, device: torch.device
    ) -> tuple[list[str], list[str]] | None:
        """What the model writes at a validation and what it should have, for BLEU; or None."""
        return None

    def sample(self, model: torch.nn.Module, data: Any, config: GenerationConfig, seed: int) -> str:
        """A piece of what the model makes now, for the log."""
        ...

    def sample_pictures(self, model: torch.nn.Module, data: Any) -> "dict[str, Figure]":
        """Pictures that go with the sample, by name."""
        return {}

    def generate(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        prompt: str | None,
        config: GenerationConfig,
        seed: int,
        device: torch.device,
    ) -> Iterator[list[str]]:
        """What `seqexp generate` writes, one text a sample, yielded again and again as they grow.

        Not of translation: `seqexp/commands/translate.py` works sentence by sentence.
        """
        ...
