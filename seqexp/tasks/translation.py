"""Translation: write the target sentence of a source, token by token."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from seqexp.config.run import GenerationConfig
from seqexp.config.task import TranslationConfig
from seqexp.data.pair_batch import PairBatch
from seqexp.data.parallel import ParallelData
from seqexp.decoding.translation import Translated, Translator
from seqexp.tasks.base import Forward, LossOutput, Metric, Task
from seqexp.tasks.cross_entropy import smoothed_cross_entropy
from seqexp.tracking.plots import attention_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# How the development part is translated at validations, quickly; `eval` searches with a beam.
GREEDY = GenerationConfig(beam_size=1)
# Sentences that are shown at each validation.
SAMPLES = 5


class Translation(Task):
    """The task of every model that maps a source and what is written so far to logits of the next token."""

    loss_unit = "nats per target token"

    def __init__(self, config: TranslationConfig) -> None:
        self.label_smoothing, self.bleu = config.label_smoothing, config.bleu
        self.metric_names = ("loss", "perplexity", "bleu") if config.bleu else ("loss", "perplexity")

    def count(self, batch: PairBatch) -> int:
        return batch.count

    def loss(self, model: Forward, batch: PairBatch) -> LossOutput:
        """Cross-entropy summed over the real target tokens, each sentence's end among them."""
        logits = model(batch.source, batch.source_lengths, batch.inputs, batch.places)
        smoothing = self.label_smoothing if torch.is_grad_enabled() else 0.0
        return LossOutput(*smoothed_cross_entropy(logits, batch.targets, smoothing))

    def metrics(
        self, nll_sum: float, count: int, metric_sums: Mapping[str, float], characters: int
    ) -> dict[str, Metric]:
        """`loss` in nats per target token, and `perplexity`."""
        del metric_sums, characters
        loss = nll_sum / count
        return {
            "loss": Metric(loss, count),
            "perplexity": Metric(math.exp(loss) if loss < 700 else math.inf, count),
        }

    def written(
        self, model: torch.nn.Module, data: ParallelData, split: str, device: torch.device
    ) -> tuple[list[str], list[str]] | None:
        """Greedy translations of a part, and its references."""
        if not self.bleu:
            return None
        pairs = data.parts[split].pairs
        sources = list(dict.fromkeys(source for source, _ in pairs))
        translator = Translator(model, data.tokenizer, GREEDY, device)
        texts = {sources[number]: found[0].text for number, found, _ in translator.translate(sources)}
        return [texts[source] for source, _ in pairs], [target for _, target in pairs]

    def sample(self, model: torch.nn.Module, data: ParallelData, config: GenerationConfig, seed: int) -> str:
        """The same few sentences of the development part, with reference and greedy translation."""
        del config, seed
        pairs, found = self._some(model, data)
        return "\n\n".join(
            f"source      {source}\nreference   {target}\ntranslation {one.text}"
            for (source, target), one in zip(pairs, found, strict=True)
        )

    def sample_pictures(self, model: torch.nn.Module, data: ParallelData) -> "dict[str, Figure]":
        """What the model looked at in the longest of them."""
        _, found = self._some(model, data)
        shown = max(found, key=lambda one: len(one.source_labels))
        if shown.attention is None:
            return {}
        title = "attention, greedy"
        return {
            "attention": attention_figure(shown.attention, shown.source_labels, shown.target_labels, title)
        }

    def _some(
        self, model: torch.nn.Module, data: ParallelData
    ) -> tuple[list[tuple[str, str]], list[Translated]]:
        pairs = data.parts["val"].pairs
        # Of every length: the part is in the order of its corpus, which is often that of length.
        pairs = [pairs[(2 * i + 1) * len(pairs) // (2 * SAMPLES)] for i in range(SAMPLES)]
        device = next(model.parameters()).device
        translator = Translator(model, data.tokenizer, GREEDY, device, want_attention=True)
        found = {number: some[0] for number, some, _ in translator.translate([s for s, _ in pairs])}
        return pairs, [found[number] for number in range(len(pairs))]
