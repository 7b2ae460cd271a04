"""Tell replaced tokens from original ones (ELECTRA): binary cross-entropy in nats per token."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqexp.config.masked import ReplacedTokensConfig
from seqexp.data.base import Data
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.masked_text import MaskedTextData
from seqexp.data.masking import Masking
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.text import TextData
from seqexp.decoding.sampling import evaluation_mode
from seqexp.errors import UserError
from seqexp.metrics.intervals import wilson
from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.tasks.base import (
    Forward,
    LossOutput,
    Prediction,
    PredictOptions,
    Sums,
    Task,
    device_of,
)

# The least plausible tokens that a prediction lists, unless `generation.top_k` says how many.
LISTED = 5


class ReplacedTokens(Task):
    """The task of `Electra`: a generator fills in masks, a discriminator says what is not original."""

    loss_unit = "nats per token"

    def __init__(self, config: ReplacedTokensConfig) -> None:
        self.config = config
        self.metrics = {
            "loss": MetricSpec(self.loss_unit, higher_is_better=False),
            "accuracy": MetricSpec("share of tokens", higher_is_better=True),
            "replaced_f1": MetricSpec("F1 of replaced tokens", higher_is_better=True),
            "original_share": MetricSpec("share of tokens; accuracy of always saying original"),
            "generator_loss": MetricSpec("nats per masked token", higher_is_better=False),
        }

    def prepare(self, data: Data, model: Any, preprocessor: Preprocessor | None = None) -> Data:
        """Return windows with masked tokens, and numbers that decide what the generator fills in."""
        del model, preprocessor
        assert isinstance(data, TextData)
        config = self.config
        masking = Masking(config.mask_share, 1.0, 0.0, config.mask_unit)
        return MaskedTextData.of(data, masking, config.dynamic, config.cross_documents, samples=True)

    def count(self, batch: Batch) -> int:
        """Return the number of tokens between the boundaries of the windows."""
        lengths = batch.lengths.get("tokens")
        rows, width = batch.tokens.shape
        return (rows * width if lengths is None else int(lengths.sum())) - 2 * rows

    def loss(self, model: Forward, batch: Batch, *, training: bool = False) -> LossOutput:
        """Return the losses of discriminator and generator, weighted as in the paper (section 2.1).

        The generator's is a mean over masked tokens. It counts once for each token of its window, so that the
        sum over rows can be divided by the number of tokens.
        """
        replace: Any = model.replace  # type: ignore[attr-defined]
        lengths = batch.lengths.get("tokens")
        found = replace(batch.tokens, lengths, batch.positions, batch.uniform)
        real = batch.targets != IGNORE
        here = batch.tokens.gather(1, batch.positions)
        original = batch.tokens.scatter(1, batch.positions, torch.where(real, batch.targets, here))
        replaced = (found.tokens != original).float()
        inside = self._inside(batch.tokens, lengths)
        logits = found.discriminator.float()
        each = F.binary_cross_entropy_with_logits(logits, replaced, reduction="none") * inside
        nll = F.cross_entropy(
            found.generator.float().flatten(0, 1),
            batch.targets.flatten(),
            ignore_index=IGNORE,
            reduction="none",
        ).view(real.shape)
        share = inside.sum(dim=1) / real.sum(dim=1).clamp(min=1)
        generator = (nll.sum(dim=1) * share).sum()
        loss = generator + self.config.weight * each.sum()
        if training:
            return LossOutput(loss, each.detach().sum())
        guess = (logits > 0).float()
        sums = {
            "accuracy": ((guess == replaced) * inside).sum(),
            "generator_loss": generator,
            "hits": (guess * replaced * inside).sum(),
            "replaced": (replaced * inside).sum(),
            "guessed": (guess * inside).sum(),
        }
        return LossOutput(loss, each.detach().sum(), sums)

    def _inside(self, tokens: Tensor, lengths: Tensor | None) -> Tensor:
        """Return 1 for tokens between the boundaries of each window, (B, T)."""
        T = tokens.shape[1]
        places = torch.arange(T, device=tokens.device)
        last = places.new_full((len(tokens),), T - 1) if lengths is None else lengths - 1
        return ((places > 0) & (places < last[:, None])).float()

    def averages(self, sums: Sums, data: Data, split: str) -> dict[str, Metric]:
        """Return both losses, accuracy with Wilson's interval, and the F1 of replaced tokens."""
        del data, split
        n, m = sums.count, sums.metrics
        f1 = 2 * m["hits"] / max(1.0, m["replaced"] + m["guessed"])
        return {
            "loss": self.metrics["loss"].of(sums.nll / n, n),
            "accuracy": self.metrics["accuracy"].of(m["accuracy"] / n, n, wilson(m["accuracy"], n)),
            "replaced_f1": self.metrics["replaced_f1"].of(f1, int(m["replaced"])),
            "original_share": self.metrics["original_share"].of(1 - m["replaced"] / n, n),
            "generator_loss": self.metrics["generator_loss"].of(m["generator_loss"] / n, n),
        }

    # Prediction

    def predict(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Return an iterator over the texts with the probability of each token of being replaced.

        Raises:
            UserError: a text is longer than the model's window.
        """
        tokenizer, most = preprocessor["text"], getattr(model, "max_len", None)
        encoded = []
        for number, text in enumerate(inputs, start=1):
            ids = tokenizer.encode(tokenizer.sentence_start + text.strip()).tolist()
            if most is not None and len(ids) + 2 > most:
                raise UserError(
                    f"line {number}: the text has {len(ids) + 2} tokens, and the model's window is {most}; "
                    "give a shorter text."
                )
            encoded.append(ids)
        return self._judge(model, preprocessor, inputs, encoded)

    def _judge(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str], encoded: list[list[int]]
    ) -> Iterator[Prediction]:
        tokenizer = preprocessor["text"]
        for index, (text, ids) in enumerate(zip(inputs, encoded, strict=True)):
            tokens = torch.tensor([[tokenizer.bos_id, *ids, tokenizer.eos_id]], device=device_of(model))
            with evaluation_mode(model), torch.inference_mode():
                p = model(tokens)[0, 1:-1, 0].float().sigmoid().tolist()
            rows = [
                {"token": tokenizer.piece(number), "replaced": value}
                for number, value in zip(ids, p, strict=True)
            ]
            values = {"line": index + 1, "text": text, "tokens": rows}
            yield Prediction(index, (text,), values, note=None if ids else "empty text")

    def show(self, prediction: Prediction, options: PredictOptions) -> str:
        """The text, then its least plausible tokens."""
        rows = sorted(prediction.values["tokens"], key=lambda one: -one["replaced"])
        rows = rows[: options.generation.top_k or LISTED]
        shown = ", ".join(f"{one['token'].strip()} {one['replaced']:.3f}" for one in rows)
        return f"{prediction.text}\n  replaced: {shown}" if rows else prediction.text

    def example_input(self, data: Data) -> str | None:
        """Return the first words of the validation text."""
        assert isinstance(data, TextData)
        return data.some_text("val", 60)
