"""Predict the label of a text; monitored by macro-F1, where higher is better."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.tasks.base import LossOutput, Prediction, PredictOptions, Task, device_of


class Sentiment(Task):
    loss_unit = "nats per text"

    def __init__(self, config: Any) -> None:
        del config
        self.metrics = {
            "loss": MetricSpec("nats per text", higher_is_better=False),
            "f1": MetricSpec("macro average", higher_is_better=True),
            "entropy": MetricSpec("nats"),  # neither more nor less of it is better
        }

    def loss(self, model: Any, batch: Any, *, training: bool = False) -> LossOutput:
        logits = model(batch.tokens, batch.lengths["tokens"]).float()
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        if training:
            return LossOutput(loss, loss.detach())
        said, p = logits.argmax(1), logits.softmax(1)
        sums = {"entropy": -(p * p.log()).sum()}
        for label in range(logits.shape[1]):
            sums[f"hit{label}"] = ((said == label) & (batch.labels == label)).sum()
            sums[f"said{label}"], sums[f"true{label}"] = (said == label).sum(), (batch.labels == label).sum()
        return LossOutput(loss, loss.detach(), sums)

    def averages(self, sums: Any, data: Any, split: str) -> dict[str, Metric]:
        labels = range(len(data.preprocessor.labels))
        found = sums.metrics
        f1 = [2 * found[f"hit{i}"] / max(1, found[f"said{i}"] + found[f"true{i}"]) for i in labels]
        return {
            "loss": self.metrics["loss"].of(sums.nll / sums.count, sums.count),
            "f1": self.metrics["f1"].of(sum(f1) / len(f1), sums.count),
            "entropy": self.metrics["entropy"].of(found["entropy"] / sums.count, sums.count),
        }

    def predict(
        self, model: Any, preprocessor: Any, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        for index, text in enumerate(inputs):
            ids = torch.from_numpy(preprocessor["text"].encode(text).astype("int64")).to(device_of(model))
            with torch.inference_mode():
                p = model(ids[None], torch.tensor([len(ids)], device=ids.device)).softmax(1)[0].tolist()
            label = preprocessor.labels[p.index(max(p))]
            yield Prediction(index, (label,), {"text": text, "label": label, "probability": max(p)})

    def example_input(self, data: Any) -> str:
        return data.splits["val"][0][0]
