"""Predict the next token, in words: loss in nats per token, perplexity, bits per character."""

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F

from seqexp.config.run import GenerationConfig
from seqexp.config.task import LanguageModelingConfig
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.text import TextData
from seqexp.decoding.text import generate_texts, prompt_ids
from seqexp.tasks.base import Forward, LossOutput, Metric, Task
from seqexp.tokenizers.base import Tokenizer


class LanguageModeling(Task):
    """The task of every model that maps tokens (B, T) to logits of the next token (B, T, V)."""

    metric_names = ("loss", "perplexity", "bits_per_char")
    loss_unit = "nats per token"

    def __init__(self, config: LanguageModelingConfig) -> None:
        self.label_smoothing = config.label_smoothing

    def count(self, batch: Batch) -> int:
        return batch.count

    def loss(self, model: Forward, batch: Batch) -> LossOutput:
        """Cross-entropy summed over the targets that are not padding."""
        logits = model(batch.inputs).flatten(0, 1).float()
        targets = batch.targets.flatten()
        nll = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
        if not self.label_smoothing or not torch.is_grad_enabled():
            return LossOutput(nll, nll.detach())
        loss = F.cross_entropy(
            logits,
            targets,
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return LossOutput(loss, nll.detach())

    def metrics(
        self, nll_sum: float, count: int, metric_sums: Mapping[str, float], characters: int
    ) -> dict[str, Metric]:
        """`loss` in nats per token, `perplexity`, and `bits_per_char` of the text that was read."""
        loss = nll_sum / count
        return {
            "loss": Metric(loss, count),
            "perplexity": Metric(math.exp(loss) if loss < 700 else math.inf, count),
            "bits_per_char": Metric(nll_sum / math.log(2) / characters, characters),
        }

    def sample(self, model: torch.nn.Module, data: TextData, config: GenerationConfig, seed: int) -> str:
        """Text from the beginning of a document on, drawn as `config` says."""
        device = next(model.parameters()).device
        text = ""
        for texts in generate_texts(model, data.tokenizer, "", config, seed, device):  # type: ignore[arg-type]
            text = texts[0]
        return text

    def generate(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        prompt: str | None,
        config: GenerationConfig,
        seed: int,
        device: torch.device,
    ) -> Iterator[list[str]]:
        """The prompt and what follows it, token by token.

        Raises:
            UserError: the prompt holds characters that the model never saw.
        """
        prompt = prompt or ""
        prompt_ids(tokenizer, prompt)
        yield [prompt] * config.num_samples
        for texts in generate_texts(model, tokenizer, prompt, config, seed, device):  # type: ignore[arg-type]
            yield [prompt + text for text in texts]
