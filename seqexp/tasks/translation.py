"""Translation: generate the target sentence of a source, token by token."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from seqexp.config.run import GenerationConfig
from seqexp.config.task import TranslationConfig
from seqexp.data.base import Data
from seqexp.data.batch import Batch
from seqexp.data.lines import fold_spaces
from seqexp.data.parallel import ParallelData, pair_tokenizer
from seqexp.data.preprocessor import Preprocessor
from seqexp.decoding.ensemble import Ensemble
from seqexp.decoding.sampling import evaluation_mode
from seqexp.decoding.translation import Translated, Translator
from seqexp.errors import UserError
from seqexp.metrics.bleu import (
    bleu_statistics,
    choose_tokenizer,
    corpus_scores,
    reference_lengths,
    short_references,
)
from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.metrics.outcomes import Outcome
from seqexp.metrics.translation import judge_translations
from seqexp.tasks.base import (
    EvalOptions,
    Evaluation,
    Forward,
    LossOutput,
    Prediction,
    PredictOptions,
    Sample,
    Sums,
    Table,
    Task,
    device_of,
)
from seqexp.tasks.cross_entropy import smoothed_cross_entropy
from seqexp.tracking.plots import attention_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# How the validation split is translated during training, quickly; `eval` searches with a beam.
GREEDY = GenerationConfig(beam_size=1)
# The number of rows of the output layer is a multiple of this.
ROWS = 64
# Sentences that are shown at each validation.
SAMPLES = 5
# Metrics of an evaluation, beside those of a validation.
SCORES = {
    "bleu": MetricSpec("0–100", higher_is_better=True),
    "chrf": MetricSpec("0–100", higher_is_better=True),
    "ter": MetricSpec("edits per 100 words", higher_is_better=False),
    "bleu_unseen": MetricSpec("0–100, targets not in training", higher_is_better=True),
}
# How the pairs of a corpus were split, in words.
SPLITS = {
    "source": "no source in two splits",
    "random": "pairs split at random",
    "own": "files of their own",
    None: "other pairs",
}


class Translation(Task):
    """The task of every model that maps a source and a prefix of the target to logits of the next token."""

    loss_unit = "nats per target token"

    def __init__(self, config: TranslationConfig) -> None:
        self.label_smoothing, self.bleu = config.label_smoothing, config.bleu
        self.bleu_tokenize = config.bleu_tokenize
        self.metrics = {
            "loss": MetricSpec(self.loss_unit, higher_is_better=False),
            "perplexity": MetricSpec("per target token", higher_is_better=False),
        }
        if config.bleu:
            self.metrics["bleu"] = SCORES["bleu"]

    def check(self, data: Data, split: str) -> list[str]:
        """Notes on the tokenizer of BLEU, if it is not the usual one, and on short references."""
        assert isinstance(data, ParallelData)
        references = [target for _, target in data.splits[split].pairs]
        tokenizer = choose_tokenizer(self.bleu_tokenize, references)
        notes = []
        if self.bleu_tokenize == "auto" and tokenizer != "13a":
            notes.append(
                f"BLEU is computed with sacreBLEU's tokenizer {tokenizer}, by the script of the references; "
                "task.bleu_tokenize= sets another."
            )
        short = short_references(reference_lengths(references, tokenizer), tokenizer)
        return [*notes, short] if short else notes

    def loss(self, model: Forward, batch: Batch, *, training: bool = False) -> LossOutput:
        """Return cross-entropy summed over the real target tokens, including each sentence's end."""
        positions = real_positions(batch)
        targets = batch.targets.flatten()[positions]
        # Repeat a position so that the output layer meets few shapes (models/layers.py, _round_lengths).
        rounded = F.pad(positions, (0, -len(positions) % ROWS))
        logits = model(batch.source, batch.lengths["source"], batch.inputs, rounded)
        smoothing = self.label_smoothing if training else 0.0
        return LossOutput(*smoothed_cross_entropy(logits, targets, smoothing))

    def averages(self, sums: Sums, data: Data, split: str) -> dict[str, Metric]:
        """Return `loss` in nats per target token, and `perplexity`."""
        del data, split
        loss = sums.nll / sums.count
        perplexity = math.exp(loss) if loss < 700 else math.inf
        return {
            "loss": self.metrics["loss"].of(loss, sums.count),
            "perplexity": self.metrics["perplexity"].of(perplexity, sums.count),
        }

    def evaluate(self, model: Any, data: Data, split: str, options: EvalOptions | None = None) -> Evaluation:
        """Return loss, perplexity and BLEU of greedy translations; with `options.generation` all scores."""
        assert isinstance(data, ParallelData)
        options = options or EvalOptions()
        evaluation = super().evaluate(model, data, split, options)
        if not math.isfinite(evaluation["loss"].value):
            return evaluation  # the model cannot generate
        pairs = data.splits[split].pairs
        if options.generation is not None:
            self._judge(evaluation, model, data, split, options.generation)
        elif self.bleu:
            translator = Translator(model, data.tokenizer, GREEDY, device_of(model))
            with options.autocast():
                hypotheses, _ = translate_pairs(translator, pairs)
            references = [target for _, target in pairs]
            tokenizer = choose_tokenizer(self.bleu_tokenize, references)
            score = corpus_scores(hypotheses, references, ["bleu"], tokenizer)["bleu"]
            evaluation["bleu"] = SCORES["bleu"].of(score.value, len(pairs))
        return evaluation

    def _judge(
        self, evaluation: Evaluation, model: Any, data: ParallelData, split: str, config: GenerationConfig
    ) -> None:
        """Add BLEU, chrF and TER, the details for `tables`, and files of sources, references, hypotheses."""
        pairs = data.splits[split].pairs
        notes = self.check(data, split)
        bleu_tokenizer = choose_tokenizer(self.bleu_tokenize, [target for _, target in pairs])
        translator = Translator(model, data.tokenizer, config, device_of(model))
        hypotheses, of_lines = translate_pairs(translator, pairs)
        evaluation.notes = notes + of_lines
        seen = {target for _, target in data.splits["train"].pairs} if "train" in data.splits else None
        nll = [-value for value in _log_probabilities(model, data, split)]
        tokens = (data.splits[split].target.lengths + 1).tolist()
        report = judge_translations(pairs, hypotheses, seen, nll, tokens, bleu_tokenizer)
        report["split"] = None if split == "all" else data.cut_of(split) or "own"
        evaluation.details = {"translation": report}
        for name, score in report["scores"].items():
            evaluation[name] = SCORES[name].of(score["value"], report["pairs"])
        unseen = report.get("unseen_targets")
        if unseen and unseen.get("bleu") is not None:
            evaluation["bleu_unseen"] = SCORES["bleu_unseen"].of(unseen["bleu"], unseen["pairs"])
        statistics = bleu_statistics(hypotheses, [target for _, target in pairs], bleu_tokenizer)
        evaluation.outcomes = {"bleu": Outcome(statistics, "bleu")}
        texts = {
            "sources": [source for source, _ in pairs],
            "references": [target for _, target in pairs],
            "hypotheses": hypotheses,
        }
        for name, lines in texts.items():
            evaluation.files[f"{name}.txt"] = "".join(f"{fold_spaces(line)}\n" for line in lines)

    def tables(self, details: Mapping[str, Any]) -> list[Table]:
        """Return a table of BLEU by source length, with the signatures of the scores."""
        report = details.get("translation")
        if not report:
            return []
        title = f"{report['pairs']:,} pairs of {report['sources']:,} sources ({SPLITS[report['split']]})"
        rows = [
            (
                row["words"], f"{row['pairs']:,}", "—" if row["bleu"] is None else f"{row['bleu']:.2f}",
                f"{row['loss']:.4f}", f"{row['perplexity']:.2f}",
            )
            for row in report["by_length"]
        ]  # fmt: skip
        signatures = "\n".join(score["signature"] for score in report["scores"].values())
        return [
            Table(title, ("words in the source", "pairs", "BLEU", "loss", "perplexity"), rows, signatures)
        ]

    def predict(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Return an iterator over `generation.n_best` translations of each sentence, the longest first.

        Raises:
            UserError: the settings need a model with attention.
        """
        want_attention = options.explain == "attention"
        tokenizer = pair_tokenizer(preprocessor)
        translator = Translator(model, tokenizer, options.generation, device_of(model), want_attention)
        return (
            _prediction(number, inputs[number], found, note)
            for number, found, note in translator.translate(inputs)
        )

    def check_explanation(self, model: Any, method: str) -> None:
        """Check that the model has attention, the only method."""
        if method != "attention":
            raise UserError(f"explain={method} is not available for translations; use explain=attention.")
        if not model.shows_attention:
            raise UserError(
                "explain= and attention= need a model with attention, and this one has none; leave them out."
            )

    def show(self, prediction: Prediction, options: PredictOptions) -> str | None:
        """The translation on one line; a line of JSON if several were asked for."""
        if options.generation.n_best > 1:
            return None
        # A translation that holds a line end would shift all that follow it.
        return fold_spaces(prediction.text)

    def sample(self, model: Any, data: Data, options: PredictOptions) -> Sample:
        """Return a few validation sentences, the same each time, with references and greedy translations.

        The figure shows the attention of the longest of them.
        """
        assert isinstance(data, ParallelData)
        pairs = data.splits["val"].pairs
        # Spread over the split: corpora are often sorted by length.
        pairs = [pairs[(2 * i + 1) * len(pairs) // (2 * SAMPLES)] for i in range(SAMPLES)]
        translator = Translator(model, data.tokenizer, GREEDY, device_of(model), want_attention=True)
        found = {number: some[0] for number, some, _ in translator.translate([s for s, _ in pairs])}
        text = "\n\n".join(
            f"source      {source}\nreference   {target}\ntranslation {found[number].text}"
            for number, (source, target) in enumerate(pairs)
        )
        shown = max(found.values(), key=lambda one: len(one.source_labels))
        if shown.attention is None:
            return Sample(text)
        return Sample(text, {"attention": _attention_figure(shown, "attention, greedy")})

    def example_input(self, data: Data) -> str:
        """Return the first sentence of the validation split."""
        assert isinstance(data, ParallelData)
        return data.splits["val"].pairs[0][0]

    def scores(self, model: Any, data: Data, split: str) -> Iterator[dict[str, Any]]:
        """Yield log p(target, end | source) of each pair in nats, in order."""
        assert isinstance(data, ParallelData)
        encoded = data.splits[split]
        found = _log_probabilities(model, data, split)
        for number, (source, target) in enumerate(encoded.pairs):
            yield {
                "line": encoded.lines[number],
                "source": source,
                "target": target,
                "log_probability": found[number],
                "tokens": len(encoded.target[number]) + 1,  # with the end
            }

    def combine(self, models: list[Any]) -> Ensemble:
        """Return the ensemble that averages the models' probabilities."""
        return Ensemble(models)


def real_positions(batch: Batch) -> Tensor:
    """Return the positions (N,) of real targets among all B * T, in order.

    Computed from counts on the host, without waiting for the GPU.
    """
    width, device = batch.targets.shape[1], batch.targets.device
    counts = batch.counts
    first = np.arange(len(counts)) * width - np.append(0, counts.cumsum()[:-1])
    positions = torch.from_numpy(np.repeat(first, counts) + np.arange(batch.count))
    if device.type == "cuda":
        positions = positions.pin_memory()
    return positions.to(device, non_blocking=True)


def translate_pairs(translator: Translator, pairs: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return the best translation of each pair's source, and notes. Repeated sources are translated once."""
    sources = list(dict.fromkeys(source for source, _ in pairs))
    texts: dict[str, str] = {}
    notes = []
    progress = tqdm(total=len(sources), desc="translating", unit="sent", delay=2, leave=False, disable=None)
    with progress:
        for number, found, note in translator.translate(sources):
            texts[sources[number]] = found[0].text
            if note:
                notes.append(f"{sources[number][:60]!r}: {note}")
            progress.update(1)
    return [texts[source] for source, _ in pairs], notes


def _log_probabilities(model: Any, data: ParallelData, split: str) -> list[float]:
    """log p(target, end | source) of each pair in nats, in fp32, in the order of the pairs."""
    found = [0.0] * len(data.splits[split].pairs)
    with evaluation_mode(model), torch.inference_mode():
        for members, batch in data.numbered_batches(split):
            batch = batch.to(device_of(model))
            positions = real_positions(batch)
            logits = model(batch.source, batch.lengths["source"], batch.inputs, positions).float()
            targets = batch.targets.flatten()[positions]
            each = logits.log_softmax(dim=-1).gather(1, targets[:, None]).squeeze(1)
            rows = positions.div(batch.targets.shape[1], rounding_mode="floor")
            sums: list[float] = each.new_zeros(len(batch)).index_add(0, rows, each).tolist()
            for number, value in zip(members, sums, strict=True):
                found[number] = value
    return found


def _prediction(number: int, source: str, found: list[Translated], note: str | None) -> Prediction:
    values: dict[str, Any] = {
        "line": number + 1,
        "source": source,
        "translations": [
            {"text": one.text, "score": one.score, "log_probability": one.log_probability} for one in found
        ],
    }
    figures: dict[str, Callable[[], Figure]] = {}
    if found[0].attention is not None:
        values["attention"] = {
            "source": found[0].source_labels,
            "target": found[0].target_labels,
            "weights": [[round(float(weight), 4) for weight in row] for row in found[0].attention],
        }
        figures["attention"] = partial(_attention_figure, found[0], found[0].text)
    return Prediction(number, tuple(one.text for one in found), values, note=note, figures=figures)


def _attention_figure(shown: Translated, title: str) -> "Figure":
    return attention_figure(shown.attention, shown.source_labels, shown.target_labels, title)
