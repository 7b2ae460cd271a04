"""Predict the next token: loss in nats per token, perplexity, bits per character."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F

from seqexp.config.exams import ExamsConfig
from seqexp.config.task import LanguageModelingConfig
from seqexp.data.base import Data
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.text import TextData
from seqexp.decoding.text import generate_texts, prompt_ids
from seqexp.exams.scoring import Scorer
from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.tasks.base import (
    Forward,
    LossOutput,
    Prediction,
    PredictOptions,
    Row,
    Sample,
    Sums,
    Task,
    device_of,
)
from seqexp.tasks.recurrence import hidden_states_figures
from seqexp.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Length of the suggested prompt in characters.
EXAMPLE_CHARACTERS = 24


class LanguageModeling(Task):
    """The task of every model that maps tokens (B, T) to logits of the next token (B, T, V)."""

    loss_unit = "nats per token"
    input_key = "prompt"
    reads_lines = False

    def __init__(self, config: LanguageModelingConfig) -> None:
        self.label_smoothing = config.label_smoothing
        self.metrics = {
            "loss": MetricSpec(self.loss_unit, higher_is_better=False),
            "perplexity": MetricSpec("per token", higher_is_better=False),
            "bits_per_char": MetricSpec("bits", higher_is_better=False),
        }

    def loss(self, model: Forward, batch: Batch, *, training: bool = False) -> LossOutput:
        """Return cross-entropy summed over all targets except padding."""
        logits = model(batch.inputs).flatten(0, 1).float()
        targets = batch.targets.flatten()
        nll = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
        if not self.label_smoothing or not training:
            return LossOutput(nll, nll.detach())
        loss = F.cross_entropy(
            logits,
            targets,
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return LossOutput(loss, nll.detach())

    def averages(self, sums: Sums, data: Data, split: str) -> dict[str, Metric]:
        """Return `loss` in nats per token, `perplexity`, and `bits_per_char` over all characters."""
        assert isinstance(data, TextData)
        loss, characters = sums.nll / sums.count, data.characters(split)
        return {
            "loss": self.metrics["loss"].of(loss, sums.count),
            "perplexity": self.metrics["perplexity"].of(
                math.exp(loss) if loss < 700 else math.inf, sums.count
            ),
            "bits_per_char": self.metrics["bits_per_char"].of(
                sums.nll / math.log(2) / characters, characters
            ),
        }

    def scorer(
        self,
        model: Any,
        preprocessor: Preprocessor,
        autocast: Callable[[], AbstractContextManager[Any]],
        exams: ExamsConfig,
    ) -> Scorer:
        """Return what scores texts by their log-probabilities."""
        del exams
        return Scorer(model, preprocessor["text"], autocast)

    def predict(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Return an iterator over each prompt with `generation.num_samples` continuations, token by token.

        Raises:
            UserError: a prompt contains characters outside the vocabulary.
        """
        tokenizer = preprocessor["text"]
        for prompt in inputs:
            prompt_ids(tokenizer, prompt)
        return self._grow(model, tokenizer, inputs, options)

    def _grow(
        self, model: Any, tokenizer: Tokenizer, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        for index, prompt in enumerate(inputs):
            texts = (prompt,) * options.generation.num_samples
            yield Prediction(index, texts, final=False)
            device = device_of(model)
            for new in generate_texts(model, tokenizer, prompt, options.generation, options.seed, device):
                texts = tuple(prompt + text for text in new)
                yield Prediction(index, texts, final=False)
            yield Prediction(index, texts, {"prompt": prompt, "samples": list(texts)})

    def default_inputs(self, model: Any, options: PredictOptions) -> list[str]:
        """Return the empty prompt: text from the beginning of a document."""
        del model, options
        return [""]

    def show(self, prediction: Prediction, options: PredictOptions) -> str:
        """The text; of several samples each under a line with its number."""
        del options
        if len(prediction.texts) == 1:
            return prediction.text
        return "\n".join(
            f"----- sample {number} of {len(prediction.texts)} -----\n{text}"
            for number, text in enumerate(prediction.texts, start=1)
        )

    def sample(self, model: Any, data: Data, options: PredictOptions) -> Sample:
        """Return text generated from the beginning of a document."""
        *_, last = self.predict(model, data.preprocessor, [""], options)
        return Sample(last.text)

    def figures(self, model: Any, data: Data, rows: Sequence[Row]) -> "dict[str, Figure]":
        """Return the hidden states of a recurrent model on validation text."""
        del rows
        batch = next(data.eval_batches(data.default_split if data.default_split in data.splits else "all"))
        return hidden_states_figures(model, batch.inputs[0], {}, "hidden states")

    def example_input(self, data: Data) -> str | None:
        """Return the first words of the validation text that the model can encode."""
        assert isinstance(data, TextData)
        return data.some_text("val", EXAMPLE_CHARACTERS)
