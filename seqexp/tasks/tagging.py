"""Tagging: predict a tag for each word of a sentence."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from seqexp.config.tagging import TaggingConfig
from seqexp.data.base import Data
from seqexp.data.batch import IGNORE, Batch
from seqexp.data.preprocessor import Preprocessor
from seqexp.data.span_schemes import OUTSIDE, is_span_scheme, may_follow
from seqexp.data.tagged_data import TaggedData, TaggedSplit, encode_words, word_batch
from seqexp.decoding.sampling import evaluation_mode
from seqexp.errors import UserError
from seqexp.metrics.classification import label_scores
from seqexp.metrics.intervals import accuracy_interval
from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.metrics.outcomes import Outcome, ratio
from seqexp.metrics.spans import score_spans
from seqexp.models.crf import CRF, marginals, negative_log_likelihood, viterbi
from seqexp.tasks.base import (
    EvalOptions,
    Evaluation,
    Forward,
    LossOutput,
    Prediction,
    PredictOptions,
    Sample,
    Table,
    Task,
    device_of,
)

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Sentences per batch of predictions.
PREDICT_SENTENCES = 64
# Sentences in a sample at a validation, and lines of the tables of confusions.
SAMPLES, CONFUSIONS = 3, 10
# Words on each side of a mistake in its table, and characters of each that are shown.
CONTEXT, MOST_CHARACTERS = 3, 16
SPAN_F1 = MetricSpec("F1 of spans, micro average", higher_is_better=True)
# The micro average over the words of a sentence: each has one tag and one prediction.
WORD_F1 = MetricSpec("F1 of words, micro average: their accuracy", higher_is_better=True)
# What an invalid step costs. It is finite: if no sequence is valid, one with the fewest such steps is chosen.
INVALID = -1e6
SCORES = {
    "unknown_accuracy": MetricSpec("share of words not in training", higher_is_better=True),
    "baseline_accuracy": MetricSpec("most frequent tag of each word", higher_is_better=True),
    "baseline_f1": MetricSpec("most frequent tag of each word", higher_is_better=True),
}


@dataclass(frozen=True)
class _Predicted:
    """The predicted tag of each word of a split, its probability, (N,) each, and the summed loss."""

    numbers: Numbers
    probabilities: Floats
    nll: float


class Tagging(Task):
    """The task of models that map tokens to logits of the tags at every token (B, T, C).

    The tag of a word is predicted at its first token. `f1` is that of spans; if the tags of training are no
    spans, it is that of words. The interval of accuracies treats the words of a sentence as correlated.
    """

    loss_unit = "nats per word"

    def __init__(self, config: TaggingConfig) -> None:
        self.crf, self.constrained = config.crf, config.constrained
        self.label_smoothing = config.label_smoothing
        self.metrics = {
            "loss": MetricSpec(self.loss_unit, higher_is_better=False),
            "accuracy": MetricSpec("share of words", higher_is_better=True),
            "f1": SPAN_F1,
        }

    def extend(self, model: nn.Module, preprocessor: Preprocessor) -> None:
        """Add the transitions between tags, if they are learned."""
        if self.crf:
            model.add_module("crf", CRF(len(preprocessor.labels)))

    def check(self, data: Data, split: str) -> list[str]:
        """Declare what `f1` is for the tags of the data."""
        del split
        spans = is_span_scheme(data.preprocessor.labels)
        self.metrics = {**self.metrics, "f1": SPAN_F1 if spans else WORD_F1}
        return []

    def loss(self, model: Forward, batch: Batch, *, training: bool = False) -> LossOutput:
        """Return cross-entropy summed over words; of sequences of tags, if their transitions are learned."""
        return self._loss_of(_emissions(model, batch), _transitions(model), batch, training)

    def _loss_of(
        self, emissions: Tensor, transitions: Tensor | None, batch: Batch, training: bool
    ) -> LossOutput:
        if transitions is not None:
            nll = negative_log_likelihood(emissions, _real(batch), transitions, batch.targets).sum()
            return LossOutput(nll, nll.detach())
        flat, wanted = emissions.flatten(0, 1), batch.targets.flatten()
        smoothing = self.label_smoothing if training else 0.0
        loss = F.cross_entropy(flat, wanted, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
        if not smoothing:
            return LossOutput(loss, loss.detach())
        return LossOutput(loss, F.cross_entropy(flat.detach(), wanted, ignore_index=IGNORE, reduction="sum"))

    def _choose(
        self, emissions: Tensor, transitions: Tensor | None, allowed: Tensor | None, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return the chosen tags (B, N) and their probabilities (B, N).

        `allowed` (C + 1, C + 1) is `INVALID` for steps that must not be chosen, and 0 for others.
        """
        if transitions is None:
            probabilities, steps = emissions.softmax(dim=2), allowed
        else:
            probabilities = marginals(emissions, _real(batch), transitions)
            steps = transitions if allowed is None else transitions + allowed
        chosen = emissions.argmax(dim=2) if steps is None else viterbi(emissions, _real(batch), steps)
        return chosen, probabilities.gather(2, chosen[:, :, None])[:, :, 0]

    def _allowed(self, preprocessor: Preprocessor, device: torch.device) -> Tensor | None:
        """Return the costs of steps between tags, and from and to the boundary, as `_choose` reads them."""
        scheme = preprocessor.values.get("span_scheme")
        if not self.constrained or scheme is None:
            return None
        tags = [*preprocessor.labels, OUTSIDE]
        steps = [[0.0 if may_follow(scheme, one, other) else INVALID for other in tags] for one in tags]
        return torch.tensor(steps, device=device)

    # Evaluation

    def evaluate(self, model: Any, data: Data, split: str, options: EvalOptions | None = None) -> Evaluation:
        """Return loss, accuracy and F1; with `options.generation` the full report."""
        assert isinstance(data, TaggedData)
        options = options or EvalOptions()
        part, tags = data.splits[split], data.preprocessor.labels
        predicted = self._predict_split(model, data, split, options)
        known = int((part.targets != IGNORE).sum())
        evaluation = Evaluation({"loss": self.metrics["loss"].of(predicted.nll / max(1, known), known)})
        evaluation["accuracy"] = _accuracy(self.metrics["accuracy"], part, predicted.numbers)
        spans = is_span_scheme(tags)
        if spans:
            total, _ = score_spans(*_sequences(part, predicted.numbers, tags))
            evaluation["f1"] = SPAN_F1.of(total.f1, total.true)
        else:
            evaluation["f1"] = WORD_F1.of(evaluation["accuracy"].value, evaluation["accuracy"].count)
        if options.generation is not None and np.isfinite(predicted.probabilities).all():
            self._report(evaluation, data.preprocessor, part, predicted, spans)
        return evaluation

    def _predict_split(self, model: Any, data: TaggedData, split: str, options: EvalOptions) -> _Predicted:
        part, device, was_training = data.splits[split], device_of(model), model.training
        model.eval()
        n, nll = len(part.targets), 0.0
        numbers, probabilities = np.zeros(n, dtype=np.int64), np.zeros(n)
        transitions, allowed = _transitions(model), self._allowed(data.preprocessor, device)
        progress = tqdm(total=n, desc=f"evaluating {split}", unit="word", delay=2, leave=False, disable=None)
        with torch.inference_mode(), progress:
            for batch in data.eval_batches(split):
                batch = batch.to(device)
                with options.autocast():
                    emissions = _emissions(model, batch)
                nll += float(self._loss_of(emissions, transitions, batch, training=False).nll_sum)
                found = self._choose(emissions, transitions, allowed, batch)
                for member, tags, some in zip(
                    batch.index.tolist(), *(one.cpu() for one in found), strict=True
                ):
                    words = part.rows[member].words
                    numbers[words] = tags[: words.stop - words.start]
                    probabilities[words] = some[: words.stop - words.start]
                progress.update(batch.count)
        model.train(was_training)
        return _Predicted(numbers, probabilities, nll)

    def _report(
        self,
        evaluation: Evaluation,
        preprocessor: Preprocessor,
        part: TaggedSplit,
        predicted: _Predicted,
        spans: bool,
    ) -> None:
        """Add the scores of each tag or type of span, confusions, unknown words and the baseline."""
        tags, (word_tags, other) = preprocessor.labels, _training_words(preprocessor)
        true_tags, chosen_tags = _sequences(part, predicted.numbers, tags)
        words = [word for sentence in part.sentences for word in sentence.words]
        unknown = np.array([word not in word_tags for word in words])
        baseline = np.array([word_tags.get(word, other) for word in words], dtype=np.int64)
        report: dict[str, Any] = {
            "sentences": len(part.sentences), "words": len(words), "unknown_words": int(unknown.sum()),
        }  # fmt: skip
        if unknown.any():
            evaluation["unknown_accuracy"] = _accuracy(
                SCORES["unknown_accuracy"], part, predicted.numbers, unknown
            )
        evaluation["baseline_accuracy"] = _accuracy(SCORES["baseline_accuracy"], part, baseline)
        if spans:
            total, by_type = score_spans(true_tags, chosen_tags)
            report["spans"] = [
                {
                    "type": kind, "precision": one.precision, "recall": one.recall, "f1": one.f1,
                    "true": one.true, "predicted": one.predicted, "correct": one.correct,
                }
                for kind, one in [*by_type.items(), ("all", total)]
            ]  # fmt: skip
            usual, _ = score_spans(*_sequences(part, baseline, tags))
            evaluation["baseline_f1"] = SCORES["baseline_f1"].of(usual.f1, usual.true)
        else:
            report["tags"] = _scores_of_tags(true_tags, chosen_tags)
        report |= _confusions(part, predicted, true_tags, chosen_tags)
        evaluation.outcomes = _outcomes(part, predicted.numbers, true_tags, chosen_tags, spans)
        evaluation.details = {"tagging": report}
        evaluation.files["predictions.tsv"] = "\n".join(
            "".join(
                f"{word}\t{tag}\t{guess}\n"
                for word, tag, guess in zip(one.words, one.tags, some, strict=True)
            )
            for one, some in zip(part.sentences, chosen_tags, strict=True)
        )

    def tables(self, details: Mapping[str, Any]) -> list[Table]:
        """Return tables of spans or tags, of the most frequent confusions, and of the surest ones."""
        report = details.get("tagging")
        if not report:
            return []
        unit, key = ("spans", "type") if "spans" in report else ("words", "tag")
        rows = [
            (one[key], *(f"{one[name]:.3f}" for name in ("precision", "recall", "f1")),
             f"{one['true']:,}", f"{one['predicted']:,}")
            for one in report.get("spans") or report["tags"]
        ]  # fmt: skip
        tables = [
            Table(
                f"{report['words']:,} words of {report['sentences']:,} sentences by {key}",
                (key, "precision", "recall", "F1", unit, "predicted"),
                rows,
                f"{report['unknown_words']:,} of the words do not occur in training",
            )
        ]
        pairs = [(one["true"], one["predicted"], f"{one['words']:,}") for one in report["confusions"]]
        if pairs:
            tables.append(Table("most frequent confusions", ("true", "predicted", "words"), pairs))
        sure = [
            (one["true"], one["predicted"], f"{one['probability']:.3f}", one["word"], one["context"])
            for one in report["surest"]
        ]
        if sure:
            header = ("true", "predicted", "probability", "word", "in its sentence")
            tables.append(Table("surest confusions", header, sure))
        return tables

    # Prediction

    def predict(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Return an iterator over the tagged words of each input, which white space separates."""
        del options
        return self._predictions(model, preprocessor, inputs)

    def _predictions(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str]
    ) -> Iterator[Prediction]:
        tokenizer, tags, device = preprocessor["text"], preprocessor.labels, device_of(model)
        allowed = self._allowed(preprocessor, device)
        most = getattr(model, "max_len", None) or 1 << 30
        for begin in range(0, len(inputs), PREDICT_SENTENCES):
            sentences = [text.split() for text in inputs[begin : begin + PREDICT_SENTENCES]]
            rows = [encode_words(tokenizer, words, most) for words in sentences]
            batch = word_batch([row for some in rows for row in some]).to(device)
            with evaluation_mode(model), torch.inference_mode():
                chosen = self._choose(_emissions(model, batch), _transitions(model), allowed, batch)
            outputs = zip(*(one.cpu() for one in chosen), strict=True)
            for number, (words, some) in enumerate(zip(sentences, rows, strict=True), start=begin):
                found: list[str] = []
                probabilities: list[float] = []
                for row in some:
                    numbers, p = (one[: len(row.starts)].tolist() for one in next(outputs))
                    found += [tags[tag] for tag in numbers]
                    probabilities += p
                text = " ".join(f"{word}/{tag}" for word, tag in zip(words, found, strict=True))
                values = {"line": number + 1, "words": words, "tags": found, "probabilities": probabilities}
                yield Prediction(number, (text,), values, note=None if words else "empty text")

    def sample(self, model: Any, data: Data, options: PredictOptions) -> Sample:
        """Return a few validation sentences, the same each time, with their tags and the predicted ones."""
        assert isinstance(data, TaggedData)
        sentences = data.splits["val"].sentences
        chosen = [sentences[(2 * i + 1) * len(sentences) // (2 * SAMPLES)] for i in range(SAMPLES)]
        found = self.predict(model, data.preprocessor, [" ".join(one.words) for one in chosen], options)
        lines = [
            f"tags        {' '.join(map('/'.join, zip(one.words, one.tags, strict=True)))}\n"
            f"prediction  {prediction.text}"
            for one, prediction in zip(chosen, found, strict=True)
        ]
        return Sample("\n\n".join(lines))

    def example_input(self, data: Data) -> str:
        """Return the words of the first validation sentence."""
        assert isinstance(data, TaggedData)
        return " ".join(data.splits["val"].sentences[0].words)


def _emissions(model: Forward, batch: Batch) -> Tensor:
    """Return the logits of the tags at the first token of each word, (B, N, C), in fp32."""
    inputs = [batch.tokens]
    if getattr(model, "reads_lengths", False):
        inputs.append(batch.lengths["tokens"])
    if getattr(model, "reads_characters", False):
        inputs.append(batch.characters)
    logits: Tensor = model(*inputs).float()
    return logits.gather(1, batch.starts[:, :, None].expand(-1, -1, logits.shape[2]))


def _transitions(model: Any) -> Tensor | None:
    """Return the learned transitions between tags (C + 1, C + 1), if there are any."""
    crf = getattr(model, "crf", None)
    return None if crf is None else crf.transitions


def _real(batch: Batch) -> Tensor:
    """Return which words of a batch are not padding, (B, N)."""
    return torch.arange(batch.starts.shape[1], device=batch.starts.device) < batch.lengths["words"][:, None]


def _accuracy(spec: MetricSpec, part: TaggedSplit, chosen: Numbers, among: Any = None) -> Metric:
    """Return the share of right tags, with Wilson's interval for words correlated in sentences."""
    among = slice(None) if among is None else among
    right = (chosen == part.targets)[among].astype(np.float64)
    return spec.of(float(right.mean()), len(right), accuracy_interval(right, part.sentence_numbers[among]))


def _sequences(
    part: TaggedSplit, chosen: Numbers, tags: Sequence[str]
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return the true and the predicted tags of each sentence."""
    names = iter(chosen.tolist())
    predicted = [tuple(tags[next(names)] for _ in sentence.words) for sentence in part.sentences]
    return [sentence.tags for sentence in part.sentences], predicted


def _outcomes(
    part: TaggedSplit,
    chosen: Numbers,
    true_tags: list[tuple[str, ...]],
    chosen_tags: list[tuple[str, ...]],
    spans: bool,
) -> dict[str, Outcome]:
    """Return what each sentence adds to accuracy and to the F1 of spans: its words depend on each other."""
    words = np.bincount(part.sentence_numbers, minlength=len(part.sentences))
    right = np.bincount(part.sentence_numbers, chosen == part.targets, minlength=len(part.sentences))
    found = {"accuracy": ratio(right, words)}
    if spans:
        pairs = zip(true_tags, chosen_tags, strict=True)
        scores = [score_spans([true], [guess])[0] for true, guess in pairs]
        correct, both = np.array([(2 * one.correct, one.true + one.predicted) for one in scores]).T
        found["f1"] = ratio(correct, both)
    return found


def _training_words(preprocessor: Preprocessor) -> tuple[Mapping[str, int], int]:
    """Return the baseline: the number of the usual tag of each training word, and that of other words.

    For these it is O, or without it the most frequent tag.

    Raises:
        UserError: the preprocessor, which is untrusted, does not know them.
    """
    tags = preprocessor.labels
    found, counts = (preprocessor.values.get(key) for key in ("word_tags", "tag_counts"))
    well_formed = (
        isinstance(found, dict)
        and isinstance(counts, dict)
        and all(type(number) is int and 0 <= number < len(tags) for number in found.values())
        and all(type(count) is int for count in counts.values())
    )
    if not well_formed:
        raise UserError("the checkpoint does not have the tags of the training words; it is damaged.")
    assert isinstance(found, dict)
    assert isinstance(counts, dict)
    often = max(tags, key=lambda tag: int(counts.get(tag, 0)))
    return found, tags.index(OUTSIDE if OUTSIDE in tags else often)


def _scores_of_tags(true: list[tuple[str, ...]], predicted: list[tuple[str, ...]]) -> list[dict[str, Any]]:
    """Return precision, recall and F1 of each tag that occurs."""
    pairs = Counter(
        pair for one, other in zip(true, predicted, strict=True) for pair in zip(one, other, strict=True)
    )
    tags = sorted({tag for pair in pairs for tag in pair})
    support, guesses = Counter[str](), Counter[str]()
    for (tag, guess), n in pairs.items():
        support[tag] += n
        guesses[guess] += n
    hits = np.array([pairs[tag, tag] for tag in tags])
    guessed, wanted = (np.array([counts[tag] for tag in tags]) for counts in (guesses, support))
    scores = label_scores(hits, guessed, wanted)
    return [
        {
            "tag": tag, "precision": float(scores.precision[i]), "recall": float(scores.recall[i]),
            "f1": float(scores.f1[i]), "true": int(wanted[i]), "predicted": int(guessed[i]),
        }
        for i, tag in enumerate(tags)
    ]  # fmt: skip


def _confusions(
    part: TaggedSplit,
    predicted: _Predicted,
    true: list[tuple[str, ...]],
    chosen: list[tuple[str, ...]],
) -> dict[str, Any]:
    """Return the most frequent pairs of true and predicted tags, and the surest wrong predictions."""
    wrong = np.flatnonzero(predicted.numbers != part.targets)
    sentences = part.sentence_numbers
    starts = np.searchsorted(sentences, np.arange(len(part.sentences)))
    places = [(int(sentences[i]), int(i - starts[sentences[i]])) for i in wrong]
    pairs = Counter((true[s][w], chosen[s][w]) for s, w in places)
    order = np.argsort(-predicted.probabilities[wrong], kind="stable")[:CONFUSIONS]
    surest = []
    for rank in order:
        s, w = places[rank]
        words = part.sentences[s].words
        surest.append(
            {
                "word": words[w], "true": true[s][w], "predicted": chosen[s][w],
                "probability": float(predicted.probabilities[wrong[rank]]),
                "context": " ".join(map(_short, words[max(0, w - CONTEXT) : w + CONTEXT + 1])),
                "where": part.sentences[s].where,
            }
        )  # fmt: skip
    return {
        "confusions": [
            {"true": tag, "predicted": guess, "words": n}
            for (tag, guess), n in sorted(pairs.items(), key=lambda one: (-one[1], one[0]))[:CONFUSIONS]
        ],
        "surest": surest,
    }


def _short(word: str) -> str:
    return word if len(word) <= MOST_CHARACTERS else word[: MOST_CHARACTERS - 1] + "…"
