"""Ensembles: several models that predict together, with the interface of one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class EnsembleState:
    """The state of each model; `attention` is the mean over the models, or None if one has no attention."""

    states: list[Any]
    attention: Tensor | None


class Ensemble:
    """The mean of the models' probabilities of each token; the models share their vocabularies."""

    training = False  # evaluation reads and restores the mode of a model

    def __init__(self, models: list[Any]) -> None:
        self.models = models

    def eval(self) -> None:
        for model in self.models:
            model.eval()

    def train(self, mode: bool) -> None:
        assert not mode, "an ensemble is not trained"

    def parameters(self) -> Iterator[Tensor]:
        """Yield the parameters of all models."""
        return chain.from_iterable(model.parameters() for model in self.models)

    @property
    def shows_attention(self) -> bool:
        return all(model.shows_attention for model in self.models)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the log of the mean probabilities, in the shape of the models' logits (..., V)."""
        return _mean([model(*inputs) for model in self.models])

    def start(self, context: Any = None) -> EnsembleState:
        return EnsembleState([model.start(context) for model in self.models], None)

    def step(self, tokens: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        outputs = [model.step(tokens, one) for model, one in zip(self.models, state.states, strict=True)]
        states = [after for _, after in outputs]
        attention = (
            torch.stack([after.attention for after in states]).mean(0) if self.shows_attention else None
        )
        return _mean([logits for logits, _ in outputs]), EnsembleState(states, attention)

    def select(self, state: EnsembleState, rows: Tensor, sources: list[int] | None = None) -> EnsembleState:
        chosen = [
            model.select(one, rows, sources) for model, one in zip(self.models, state.states, strict=True)
        ]
        return EnsembleState(chosen, None if state.attention is None else state.attention[rows])


def _mean(logits: list[Tensor]) -> Tensor:
    """Return log(mean of softmax(logits)) over the models, in fp32."""
    stacked = torch.stack([some.float().log_softmax(dim=-1) for some in logits])
    return stacked.logsumexp(dim=0) - math.log(len(logits))
