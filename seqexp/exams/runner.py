"""Run exams: make or read them once, then score a model on them at each call, beside a baseline."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seqexp.config.exams import ExamsConfig
from seqexp.data.base import Data
from seqexp.data.encoded import split_pieces
from seqexp.data.text import TextData
from seqexp.errors import UserError
from seqexp.exams.grading import Credits, grade
from seqexp.exams.grammar import make_grammar_exam
from seqexp.exams.lexicon import make_lexicon
from seqexp.exams.ngram import CharNgram
from seqexp.exams.questions import Exam
from seqexp.exams.reading import read_exams
from seqexp.exams.scoring import Scorer
from seqexp.exams.spelling import make_spelling_exam
from seqexp.metrics.metric import Metric, MetricSpec

ACCURACY = MetricSpec("share of pairs", higher_is_better=True)
# Characters of the training split that the baseline and the search for names read at most.
ENOUGH_CHARACTERS = 20_000_000
REST_OF_WORD = re.compile(r"^[^\W\d_]+")
# Pairs of each exam at a validation during training, unless `exams.pairs` is set.
PAIRS_IN_TRAINING = 500


class ExamRunner:
    """The exams of a configuration, with the scores of a character 5-gram model of the training split.

    Raises:
        UserError: a file of pairs is malformed, the data have no training split, or no exam can be made from
            the corpus.
    """

    def __init__(self, config: ExamsConfig, data: Data, seed: int, in_training: bool = False) -> None:
        assert isinstance(data, TextData)
        if "train" not in data.splits:
            raise UserError(
                "exams need the run's own corpus, for their questions and the baseline; leave out data.path=."
            )
        documents, cut = _training_documents(data)
        if config.path:
            exams = read_exams(config.path, config.wanted)
        else:
            exams = list(_made(config, data, documents, seed))
        most = config.pairs or (PAIRS_IN_TRAINING if in_training else None)
        self.exams = [_drawn(exam, most, seed) for exam in exams]
        baseline = CharNgram(documents)
        self.baseline = f"character 5-gram (Witten–Bell) of the training split{cut}"
        self._expected: list[tuple[Credits, Credits]] = []
        for exam in self.exams:
            good, bad = (baseline.log_probabilities(side, words=exam.of_words) for side in _sides(exam))
            self._expected.append((good, bad))

    def run(self, scorer: Scorer, answers: Path | None = None) -> list[dict[str, Any]]:
        """Return the report of each exam; with `answers`, write every pair and its scores to that folder.

        Raises:
            RunFailedError: the model gives NaN for a text.
        """
        reports = []
        for exam, expected in zip(self.exams, self._expected, strict=True):
            good_sides, bad_sides = _sides(exam)
            scores = scorer.score([*good_sides, *bad_sides], words=exam.of_words)
            good, bad = np.split(scores.log_probabilities, 2)
            n = len(exam.pairs)
            unknown = ["".join(both) for both in zip(scores.unknown[:n], scores.unknown[n:], strict=True)]
            reports.append({**grade(exam, good, bad, unknown, expected), "baseline": self.baseline})
            if answers:
                _write_answers(answers / f"exam_{exam.name}.jsonl", exam, (good, bad), expected)
        return reports

    def metrics(self, scorer: Scorer) -> dict[str, Metric]:
        """Run the exams and return ``exam/spelling`` and ``exam/grammar``."""
        return exam_metrics(self.run(scorer))


def exam_metrics(reports: list[dict[str, Any]]) -> dict[str, Metric]:
    """Return ``exam/spelling`` and ``exam/grammar``, the accuracy over all pairs, if any has a score."""
    overall = {report["name"]: report["overall"] for report in reports}
    return {
        f"exam/{name}": ACCURACY.of(cell["accuracy"], cell["pairs"], tuple(cell["interval"]))
        for name, cell in overall.items()
        if cell["pairs"]
    }


def _training_documents(data: TextData) -> tuple[list[str], str]:
    """Return the documents of the training split, and a note if only the first are read."""
    documents: dict[int, list[str]] = {}
    size = 0
    for split, number, _, text in split_pieces(data.corpus, data.config.split):
        if split == "train" and size < ENOUGH_CHARACTERS:
            documents.setdefault(number, []).append(text)
            size += len(text)
    cut = f" (its first {size:,} characters)" if size < data.splits["train"].characters else ""
    return ["".join(pieces) for pieces in documents.values()], cut


def _made(config: ExamsConfig, data: TextData, documents: list[str], seed: int) -> Iterator[Exam]:
    """Make the exams from the corpus."""
    lexicon = make_lexicon(_texts(data, "train"), _texts(data, "val"))
    if "spelling" in config.wanted:
        yield make_spelling_exam(lexicon, config.nonwords, seed)
    if "grammar" in config.wanted:
        yield make_grammar_exam(lexicon, documents, seed)


def _texts(data: TextData, wanted: str) -> Iterator[str]:
    """Yield the pieces of a split, without the rest of a word that the border of the splits cuts in two."""
    before = ""
    for split, _, position, text in split_pieces(data.corpus, data.config.split):
        if split == wanted:
            cut = position > 0 and before[-1:].isalpha()
            yield REST_OF_WORD.sub("", text, count=1) if cut and split == "val" else text
        before = "" if split == "val" else text


def _drawn(exam: Exam, most: int | None, seed: int) -> Exam:
    """Return the exam with at most `most` pairs, drawn by the seed."""
    if most is None or len(exam.pairs) <= most:
        return exam
    chosen = sorted(random.Random(seed).sample(range(len(exam.pairs)), most))
    note = f"{most:,} of {len(exam.pairs):,} pairs, drawn by the seed"
    return replace(exam, pairs=[exam.pairs[i] for i in chosen], notes=[*exam.notes, note])


def _sides(exam: Exam) -> tuple[list[str], list[str]]:
    return [pair.good for pair in exam.pairs], [pair.bad for pair in exam.pairs]


def _write_answers(
    file: Path, exam: Exam, scores: tuple[Credits, Credits], expected: tuple[Credits, Credits]
) -> None:
    """Write every pair with its log-probabilities in nats, null if the model cannot generate a side."""
    with file.open("w", encoding="utf-8") as lines:
        for i, pair in enumerate(exam.pairs):
            row = {key: value for key, value in vars(pair).items() if value not in ("", None)}
            for name, (good, bad) in (("model", scores), ("baseline", expected)):
                row[name] = [None if np.isnan(value) else float(value) for value in (good[i], bad[i])]
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
