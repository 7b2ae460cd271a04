"""Classification: predict the label of a text, or several labels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from seqexp.config.classification import ClassificationConfig
from seqexp.data.base import Data
from seqexp.data.batch import Batch
from seqexp.data.labelled import Example
from seqexp.data.labelled_data import LabelledData, encode_text, text_batch
from seqexp.data.lines import fold_spaces
from seqexp.data.preprocessor import Preprocessor
from seqexp.decoding.sampling import evaluation_mode
from seqexp.errors import UserError, suggest
from seqexp.metrics.classification import (
    BINS,
    LabelScores,
    calibration,
    confusion_matrix,
    fit_temperature,
    rejection_curve,
    softmax,
)
from seqexp.metrics.intervals import wilson
from seqexp.metrics.metric import MetricSpec
from seqexp.quoting import counted
from seqexp.scored_text import ScoredText
from seqexp.tasks.base import (
    EvalOptions,
    Evaluation,
    Forward,
    LossOutput,
    Prediction,
    PredictOptions,
    Row,
    Sample,
    Table,
    Task,
    device_of,
)
from seqexp.tasks.classification_report import (
    SCORES,
    compare_with_baselines,
    labels_of,
    one_text,
    outcomes,
    report_tables,
    short,
    split_scores,
)
from seqexp.tasks.explanations import METHODS, Explainer, of_attention, text_in_words
from seqexp.tracking.plots import scored_text_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Texts per batch of predictions.
PREDICT_ROWS = 64
# Texts in a sample at a validation, and surest mistakes in a report.
SAMPLES, MISTAKES = 5, 10
# Longer mistakes are not explained, in characters.
MOST_EXPLAINED = 4_000
# The user is told if integrated gradients miss their sum by more nats than this.
MOST_ERROR = 0.2


def pool(outputs: Tensor, lengths: Tensor, pooling: str) -> tuple[Tensor, Tensor | None]:
    """Make one row of outputs of those at every token.

    Args:
        outputs: (B, T, C); with ``attention`` (B, T, C + 1), where the last output is a token's score.
        lengths: the number of real tokens of each text, (B,).

    Returns:
        The outputs (B, C), and the weights of the tokens (B, T) if they are learned.
    """
    positions = torch.arange(outputs.shape[1], device=outputs.device)
    real = positions < lengths[:, None]
    if pooling == "first":
        return outputs[:, 0], None
    if pooling == "last":
        return outputs[torch.arange(len(outputs), device=outputs.device), lengths - 1], None
    if pooling == "max":
        return outputs.masked_fill(~real[:, :, None], -math.inf).amax(dim=1), None
    if pooling == "attention":
        outputs, scores = outputs[:, :, :-1], outputs[:, :, -1]
        weights = scores.masked_fill(~real, -math.inf).softmax(dim=1)
        return (outputs * weights[:, :, None]).sum(dim=1), weights
    return (outputs * real[:, :, None]).sum(dim=1) / lengths[:, None], None


class Classification(Task):
    """The task of models that map a text to logits of its labels, or of labels at every token.

    One label a text is trained with cross-entropy, several with the binary cross-entropy of each label.
    """

    loss_unit = "nats per text"

    def __init__(self, config: ClassificationConfig) -> None:
        self.pooling, self.label_smoothing = config.pooling or "mean", config.label_smoothing
        self.metrics = {
            "loss": MetricSpec(self.loss_unit, higher_is_better=False),
            "accuracy": MetricSpec("share of texts", higher_is_better=True),
            "macro_f1": MetricSpec("mean F1 of the labels", higher_is_better=True),
        }

    def sizes(self, preprocessor: Preprocessor) -> dict[str, Any]:
        """The sizes of the model: attention needs one more output, the score of a token."""
        sizes = preprocessor.sizes()
        return {**sizes, "n_outputs": sizes["n_outputs"] + (self.pooling == "attention")}

    def _logits(self, model: Forward, batch: Batch) -> Tensor:
        """Return logits (B, C) in fp32."""
        return self._pooled(model, batch)[0]

    def _pooled(self, model: Forward, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return logits (B, C) in fp32, and the weights of the tokens (B, T) if they are learned."""
        lengths = batch.lengths["tokens"]
        inputs = (batch.tokens, lengths) if getattr(model, "reads_lengths", False) else (batch.tokens,)
        outputs = model(*inputs).float()
        return pool(outputs, lengths, self.pooling) if outputs.dim() == 3 else (outputs, None)

    def loss(self, model: Forward, batch: Batch, *, training: bool = False) -> LossOutput:
        """Return cross-entropy summed over texts; over labels too where a text has several."""
        return self._loss_of(self._logits(model, batch), batch, training)

    def _loss_of(self, logits: Tensor, batch: Batch, training: bool) -> LossOutput:
        weights = batch.tensors.get("weights") if training else None
        if batch.labels.dim() == 2:
            each = F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none").sum(dim=1)
            nll = each.detach().sum()
        else:
            smoothing = self.label_smoothing if training else 0.0
            each = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=smoothing)
            nll = each.detach().sum()
            if smoothing:
                nll = F.cross_entropy(logits.detach(), batch.labels, reduction="sum")
        return LossOutput((each if weights is None else each * weights).sum(), nll)

    # Evaluation

    def evaluate(self, model: Any, data: Data, split: str, options: EvalOptions | None = None) -> Evaluation:
        """Return loss, accuracy and macro-F1; with `options.generation` the full report."""
        assert isinstance(data, LabelledData)
        options = options or EvalOptions()
        logits, nll = self._split_logits(model, data, split, options)
        true = labels_of(data, split)
        predicted = (logits > 0).astype(np.int64) if true.ndim == 2 else logits.argmax(axis=1)
        scores, right = split_scores(predicted, true, logits.shape[1])
        n = len(true)
        evaluation = Evaluation(
            {
                "loss": self.metrics["loss"].of(nll / n, n),
                "accuracy": self.metrics["accuracy"].of(float(right.mean()), n, wilson(right.sum(), n)),
                "macro_f1": self.metrics["macro_f1"].of(scores.macro_f1, n),
            }
        )
        if options.generation is not None and np.isfinite(logits).all():
            evaluation["weighted_f1"] = SCORES["weighted_f1"].of(scores.weighted_f1, n)
            self._report(evaluation, model, data, split, options, logits, scores, right)
        return evaluation

    def _split_logits(
        self, model: Any, data: LabelledData, split: str, options: EvalOptions
    ) -> tuple[Any, float]:
        """Return the logits (N, C) of a split in the order of its texts, and the summed loss."""
        was_training, device = model.training, device_of(model)
        model.eval()
        n, found, nll = data.eval_count(split), None, 0.0
        progress = tqdm(total=n, desc=f"evaluating {split}", unit="text", delay=2, leave=False, disable=None)
        with torch.inference_mode(), progress:
            for batch in data.eval_batches(split):
                batch = batch.to(device)
                with options.autocast():
                    logits = self._logits(model, batch)
                nll += float(self._loss_of(logits, batch, training=False).nll_sum)
                if found is None:
                    found = np.zeros((n, logits.shape[1]))
                found[batch.index.cpu().numpy()] = logits.double().cpu().numpy()
                progress.update(len(batch))
        model.train(was_training)
        return found, nll

    def _report(
        self,
        evaluation: Evaluation,
        model: Any,
        data: LabelledData,
        split: str,
        options: EvalOptions,
        logits: Any,
        scores: LabelScores,
        right: Any,
    ) -> None:
        """Add the scores of each label, confusion, calibration, baselines and mistakes to an evaluation."""
        names, examples = data.preprocessor.labels, data.splits[split].examples
        true, n = labels_of(data, split), len(examples)
        several = true.ndim == 2
        report: dict[str, Any] = {
            "split": split,
            "texts": n,
            "labels": [
                {
                    "label": name, "precision": float(scores.precision[i]), "recall": float(scores.recall[i]),
                    "f1": float(scores.f1[i]), "support": int(scores.support[i]),
                    "predicted": int(scores.predicted[i]),
                }
                for i, name in enumerate(names)
            ],
        }  # fmt: skip
        predicted = (logits > 0).astype(np.int64) if several else logits.argmax(axis=1)
        if not several:
            confidence = softmax(logits).max(axis=1)
            report["confusion"] = confusion_matrix(true, predicted, len(names)).tolist()
            report |= self._calibrate(model, data, split, options, logits, right)
            evaluation["calibration_error"] = SCORES["calibration_error"].of(report["calibration_error"], n)
            wrong = np.flatnonzero(~right)
            surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
            explained = self._explained(model, data, [examples[i] for i in surest], predicted[surest])
            report["mistakes"] = [
                {
                    "text": one_text(examples[i]), "true": names[true[i]], "predicted": names[predicted[i]],
                    "probability": float(confidence[i]), "where": examples[i].where, **explanation,
                }
                for i, explanation in zip(surest, explained, strict=True)
            ]  # fmt: skip
            long = sum("scored_words" not in one for one in report["mistakes"])
            if long:
                said = f"{counted(long, 'mistake')} longer than {MOST_EXPLAINED:,} characters not explained"
                evaluation.notes.append(said)
            evaluation.files["predictions.tsv"] = "true\tpredicted\tprobability\n" + "".join(
                f"{names[t]}\t{names[p]}\t{c:.6f}\n"
                for t, p, c in zip(true, predicted, confidence, strict=True)
            )
        evaluation.outcomes = outcomes(predicted, true, len(names))
        compare_with_baselines(evaluation, data, split, true)
        evaluation.details = {"classification": report}

    def _explained(
        self, model: Any, data: LabelledData, examples: Sequence[Example], labels: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        """Yield the words of texts with their scores by leave one out, which every model has."""
        shown = tqdm(examples, desc="explaining", unit="text", delay=2, leave=False, disable=None)
        for one, label in zip(shown, labels, strict=True):
            if len(one.text) + len(one.pair or "") > MOST_EXPLAINED:
                yield {}
            else:
                scored, _ = self._explain(
                    model, data.preprocessor, one.text, one.pair, int(label), "leave_one_out"
                )
                yield {"scored_words": scored.to_plain()}

    def _calibrate(
        self, model: Any, data: LabelledData, split: str, options: EvalOptions, logits: Any, right: Any
    ) -> dict[str, Any]:
        """Return calibration before and after temperature scaling on the validation split."""
        confidence = softmax(logits).max(axis=1)
        before = calibration(confidence, right)
        found: dict[str, Any] = {
            "calibration_error": before.error,
            "calibration": [
                {"to": float(before.edges[i + 1]), "texts": int(before.counts[i]),
                 "confidence": float(before.confidence[i]), "accuracy": float(before.accuracy[i])}
                for i in range(BINS) if before.counts[i]
            ],
            "rejection": rejection_curve(confidence, right),
        }  # fmt: skip
        if split != "val" and "val" in data.splits:
            held_out, _ = self._split_logits(model, data, "val", options)
            temperature = fit_temperature(held_out, labels_of(data, "val"))
            scaled = calibration(softmax(logits, temperature).max(axis=1), right)
            found |= {"temperature": temperature, "scaled_calibration_error": scaled.error}
        return found

    def tables(self, details: Mapping[str, Any]) -> list[Table]:
        """Return tables of the labels, of the confusions, and of the surest mistakes."""
        report = details.get("classification")
        return report_tables(report) if report else []

    # Prediction

    def predict(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Return an iterator over the label of each text, or its labels, with the probabilities of all.

        If the run was trained on pairs of texts, an input is two texts with a tab between them.

        `options.explain` adds the scores of the words for the likeliest label.

        Raises:
            UserError: an input is not a pair of texts.
        """
        pairs: list[tuple[str, str | None]] = [(text, None) for text in inputs]
        if preprocessor.values.get("pairs") is True:
            pairs = [_split_pair(text, number) for number, text in enumerate(inputs, start=1)]
        return self._predictions(model, preprocessor, inputs, pairs, options.explain)

    def _predictions(
        self,
        model: Any,
        preprocessor: Preprocessor,
        inputs: Sequence[str],
        pairs: Sequence[tuple[str, str | None]],
        explain: str | None,
    ) -> Iterator[Prediction]:
        tokenizer, names, device = preprocessor["text"], preprocessor.labels, device_of(model)
        most = _longest(model, preprocessor)
        several = preprocessor.values.get("multilabel") is True
        for first in range(0, len(inputs), PREDICT_ROWS):
            texts = inputs[first : first + PREDICT_ROWS]
            tokens = [
                encode_text(tokenizer, fold_spaces(text), None if pair is None else fold_spaces(pair), most)
                for text, pair in pairs[first : first + PREDICT_ROWS]
            ]
            with evaluation_mode(model), torch.inference_mode():
                logits = self._logits(model, text_batch(tokens).to(device))
                p = (logits.sigmoid() if several else logits.softmax(dim=1)).tolist()
            for number, (text, row) in enumerate(zip(texts, p, strict=True), start=first):
                ranked = sorted(zip(names, row, strict=True), key=lambda one: -one[1])
                chosen = [name for name, q in ranked if q > 0.5] if several else [ranked[0][0]]
                values = {"line": number + 1, "text": text, "label": chosen if several else chosen[0],
                          "probabilities": dict(ranked)}  # fmt: skip
                note = "empty text" if not text.strip() else None
                if explain is None:
                    yield Prediction(number, (", ".join(chosen),), values, note=note)
                    continue
                label = names.index(ranked[0][0])
                scored, about = self._explain(model, preprocessor, *pairs[number], label, explain)
                values["explanation"] = {"method": explain, "label": names[label], **about,
                                         "words": [list(one) for one in scored.scored]}  # fmt: skip
                error = about.get("completeness_error", 0.0)
                if abs(error) > MOST_ERROR:
                    note = f"integrated gradients miss their sum by {error:+.2f}; use explain=leave_one_out"
                figures = {explain: partial(scored_text_figure, scored)}
                yield Prediction(number, (", ".join(chosen),), values, True, note, figures, scored)

    def check_explanation(self, model: Any, method: str) -> None:
        """Check that the method exists, and that the model has what it needs."""
        if method not in METHODS:
            raise UserError(
                f"explain={method} is not known; there are {', '.join(METHODS)}.{suggest(method, METHODS)}"
            )
        if method == "attention" and self.pooling != "attention":
            raise UserError(
                "explain=attention needs a run that was trained with task.pooling=attention, which this one "
                "was not; use explain=gradients or explain=leave_one_out."
            )
        if method == "gradients" and not any(isinstance(one, nn.Embedding) for one in model.modules()):
            raise UserError(
                "explain=gradients needs a model with an embedding, and this one has none (model.n_embd=0); "
                "use explain=leave_one_out."
            )

    def _explain(
        self, model: Any, preprocessor: Preprocessor, text: str, pair: str | None, label: int, method: str
    ) -> tuple[ScoredText, dict[str, Any]]:
        """Score the words of a text for a label; return them with further values for JSON."""
        words = text_in_words(preprocessor["text"], text, pair, _longest(model, preprocessor))
        device, several = device_of(model), preprocessor.values.get("multilabel") is True
        with evaluation_mode(model):
            if method == "attention":
                with torch.inference_mode():
                    _, weights = self._pooled(model, text_batch([words.tokens]).to(device))
                assert weights is not None
                return of_attention(words, weights[0].double().cpu().numpy())
            explainer = Explainer(model, self._logits, several, device)
            explain = explainer.gradients if method == "gradients" else explainer.leave_one_out
            return explain(words, label, preprocessor.labels[label])

    def show(self, prediction: Prediction, options: PredictOptions) -> str | None:
        """The label and its probability, with a tab between them."""
        del options
        best = max(prediction.values["probabilities"].values())
        return f"{prediction.text}\t{best:.4f}"

    def sample(self, model: Any, data: Data, options: PredictOptions) -> Sample:
        """Return a few validation texts, the same each time, with their labels and predictions."""
        assert isinstance(data, LabelledData)
        examples = data.splits["val"].examples
        chosen = [examples[(2 * i + 1) * len(examples) // (2 * SAMPLES)] for i in range(SAMPLES)]
        found = self.predict(model, data.preprocessor, [_input(one) for one in chosen], options)
        lines = [
            f"text        {short(one_text(one), 200)}\nlabel       {', '.join(one.labels)}\nprediction  "
            f"{self.show(prediction, options)}"
            for one, prediction in zip(chosen, found, strict=True)
        ]
        return Sample("\n\n".join(lines))

    def figures(self, model: Any, data: Data, rows: Sequence[Row]) -> "dict[str, Figure]":
        """Return the confusion matrix and the reliability diagram of the split in `rows`, else of val."""
        from seqexp.tracking.plots import confusion_figure, reliability_figure

        assert isinstance(data, LabelledData)
        reports = [row.evaluation.details.get("classification", {}) for row in rows]
        usual = "val" if "val" in data.splits else data.default_split
        split = next((report["split"] for report in reports if "split" in report), usual)
        true = labels_of(data, split)
        if true.ndim == 2:
            return {}
        logits, _ = self._split_logits(model, data, split, EvalOptions())
        predicted, names = logits.argmax(axis=1), data.preprocessor.labels
        measured = calibration(softmax(logits).max(axis=1), predicted == true)
        return {
            "confusion": confusion_figure(confusion_matrix(true, predicted, len(names)), names, split),
            "reliability": reliability_figure(measured, split),
        }

    def example_input(self, data: Data) -> str:
        """Return the first text of the validation split."""
        assert isinstance(data, LabelledData)
        return _input(data.splits["val"].examples[0])


def _longest(model: Any, preprocessor: Preprocessor) -> int:
    """Return the most tokens of a text that the model reads."""
    limits = (getattr(model, "max_len", None), preprocessor.values.get("max_seq_len"))
    return min((n for n in limits if isinstance(n, int) and n > 1), default=1 << 30)


def _input(example: Example) -> str:
    """Return an example as an input of `predict`."""
    return example.text if example.pair is None else f"{example.text}\t{example.pair}"


def _split_pair(text: str, number: int) -> tuple[str, str]:
    parts = text.split("\t")
    if len(parts) != 2:
        raise UserError(
            f"line {number}: expected two texts with a tab between them, as this run was trained on, got "
            f"{short(text)!r}."
        )
    return parts[0], parts[1]
