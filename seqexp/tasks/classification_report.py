"""What an evaluation of classifiers reports beside its metrics: baselines, outcomes of texts, and tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqexp.data.labelled import Example
from seqexp.data.labelled_data import LabelledData
from seqexp.metrics.baseline import majority, tfidf_logistic
from seqexp.metrics.classification import LabelScores, scores_of_labels, scores_of_sets
from seqexp.metrics.intervals import wilson
from seqexp.metrics.metric import MetricSpec
from seqexp.metrics.outcomes import Outcome, ratio
from seqexp.scored_text import ScoredText, scored_text
from seqexp.tasks.base import Evaluation, Table

# The largest confusion matrix that is printed, in labels.
MOST_SHOWN = 20
# Baselines are fitted on at most so many texts; TF-IDF of more takes minutes.
MOST_FITTED = 200_000
# Characters of a mistake that are shown.
MOST_SHOWN_CHARACTERS = 400
SCORES = {
    "weighted_f1": MetricSpec("F1 weighted by support", higher_is_better=True),
    "calibration_error": MetricSpec("expected calibration error", higher_is_better=False),
    "majority_accuracy": MetricSpec("most frequent label", higher_is_better=True),
    "tfidf_accuracy": MetricSpec("TF-IDF and logistic regression", higher_is_better=True),
    "majority_macro_f1": MetricSpec("most frequent label", higher_is_better=True),
    "tfidf_macro_f1": MetricSpec("TF-IDF and logistic regression", higher_is_better=True),
}


def labels_of(data: LabelledData, split: str) -> Any:
    """Return the true labels of a split: numbers (N,), or zeros and ones (N, C)."""
    labels = data.splits[split].labels
    if not data.config.multilabel:
        return np.array([one[0] for one in labels], dtype=np.int64)
    found = np.zeros((len(labels), len(data.preprocessor.labels)), dtype=np.int64)
    for row, some in zip(found, labels, strict=True):
        row[list(some)] = 1
    return found


def split_scores(predicted: Any, true: Any, labels: int) -> tuple[LabelScores, Any]:
    """Return the scores of each label, and which texts are right."""
    if true.ndim == 2:
        return scores_of_sets(true, predicted), (predicted == true).all(axis=1)
    return scores_of_labels(true, predicted, labels), predicted == true


def outcomes(predicted: Any, true: Any, labels: int) -> dict[str, Outcome]:
    """Return what each text adds to accuracy and macro-F1."""
    _, right = split_scores(predicted, true, labels)
    if true.ndim == 1:
        true, predicted = (np.eye(labels, dtype=np.int64)[one] for one in (true, predicted))
    return {"accuracy": ratio(right), "macro_f1": ratio(2 * true * predicted, true + predicted)}


def compare_with_baselines(evaluation: Evaluation, data: LabelledData, split: str, true: Any) -> None:
    """Add the most frequent label and TF-IDF with logistic regression, fitted on the training split."""
    if "train" not in data.splits:
        evaluation.notes.append("no baselines: the training texts are not at hand")
        return
    fitted = labels_of(data, "train")
    predictions = {"majority": majority(fitted, len(true))}
    texts = {name: [one_text(e) for e in data.splits[name].examples] for name in ("train", split)}
    if len(fitted) > MOST_FITTED:
        evaluation.notes.append(f"no TF-IDF baseline: more than {MOST_FITTED:,} training texts")
    elif not any(text.strip() for text in texts["train"]):
        evaluation.notes.append("no TF-IDF baseline: the training texts are empty")
    else:
        predictions["tfidf"] = tfidf_logistic(texts["train"], fitted, texts[split])
    for name, predicted in predictions.items():
        scores, right = split_scores(predicted, true, len(data.preprocessor.labels))
        n = len(true)
        evaluation[f"{name}_accuracy"] = SCORES[f"{name}_accuracy"].of(
            float(right.mean()), n, wilson(right.sum(), n)
        )
        evaluation[f"{name}_macro_f1"] = SCORES[f"{name}_macro_f1"].of(scores.macro_f1, n)


def report_tables(report: Mapping[str, Any]) -> list[Table]:
    """Return tables of the labels, of the confusions, and of the surest mistakes."""
    rows = [
        (one["label"], *(f"{one[key]:.3f}" for key in ("precision", "recall", "f1")),
         f"{one['support']:,}", f"{one['predicted']:,}")
        for one in report["labels"]
    ]  # fmt: skip
    caption = ""
    if "calibration_error" in report:
        caption = f"expected calibration error {report['calibration_error']:.3f}"
        if "temperature" in report:
            caption += (
                f"; {report['scaled_calibration_error']:.3f} with temperature "
                f"{report['temperature']:.2f}, fitted on the validation split"
            )
        half = next((acc for kept, acc in report["rejection"] if kept <= 0.5), None)
        if half is not None:
            caption += f"; accuracy on the surest half {half:.3f}"
    header = ("label", "precision", "recall", "F1", "texts", "predicted")
    tables = [Table(f"{report['texts']:,} texts by label", header, rows, caption)]
    matrix, names = report.get("confusion"), [one["label"] for one in report["labels"]]
    if matrix and len(names) <= MOST_SHOWN:
        cells = [(name, *(f"{n:,}" for n in row)) for name, row in zip(names, matrix, strict=True)]
        tables.append(Table("true label (rows) and predicted label (columns)", ("", *names), cells))
    if report.get("mistakes"):
        mistakes = [
            (one["true"], one["predicted"], f"{one['probability']:.3f}", _shown_mistake(one))
            for one in report["mistakes"]
        ]
        caption = (
            "coloured by leave one out: without a blue word the predicted label is less probable, "
            "without a red word more"
        )
        columns = ("true", "predicted", "probability", "text")
        tables.append(Table("surest mistakes", columns, mistakes, caption))
    return tables


def _shown_mistake(mistake: Mapping[str, Any]) -> str | ScoredText:
    scored = scored_text(mistake.get("scored_words"))
    return scored.cut(MOST_SHOWN_CHARACTERS) if scored else short(mistake["text"])


def one_text(example: Example) -> str:
    return example.text if example.pair is None else f"{example.text} {example.pair}"


def short(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
