"""The report of `eval` about word vectors: analogies and similarities, beside vectors by PPMI and SVD."""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqexp.config.word_lists import WordListsConfig
from seqexp.data.cooccurrences import BLOCK, Window, count_pairs, expected
from seqexp.data.fitting import cached, encoding_key
from seqexp.data.word_data import WordData
from seqexp.data.word_lists import read_analogies, read_outliers, read_similarities
from seqexp.files import atomic_path
from seqexp.metrics.intervals import accuracy_interval
from seqexp.metrics.metric import MetricSpec
from seqexp.metrics.ppmi import ppmi_vectors
from seqexp.metrics.vector_space import Answer, Floats, VectorSpace, spearman
from seqexp.tasks.base import Evaluation, Table

# A share of fewer questions, or of questions about fewer pairs of words, says nothing.
FEWEST_QUESTIONS, FEWEST_PAIRS = 30, 5
# In the key of cached baselines: raise it when they are computed in another way.
BASELINE_VERSION = 1
# Words whose neighbours are shown at a validation and in a report; and these neighbours.
SHOWN_WORDS, SHOWN_NEIGHBOURS = 8, 6
# They are as frequent as these ranks: not the most frequent ones, which stand near everything.
FIRST_RANK, RANK_FACTOR = 150, 1.6
SHARE = MetricSpec("share of covered questions", higher_is_better=True)
CORRELATION = MetricSpec("Spearman's rank correlation", higher_is_better=True)

MakeVectors = Callable[[Sequence[str]], Mapping[str, Floats]]


def add_report(
    evaluation: Evaluation,
    lists: WordListsConfig,
    space: VectorSpace,
    make_vectors: MakeVectors,
    find_baseline: Callable[[], VectorSpace | None] = lambda: None,
) -> None:
    """Add analogies, similarities, outliers and neighbours to an evaluation, and the scores of a baseline.

    `make_vectors` makes vectors of words outside the vocabulary, where the model can. `find_baseline` is
    called if there are lists.
    """
    analogies, similarities = read_analogies(lists.analogies), read_similarities(lists.similarities)
    outliers = read_outliers(lists.outliers)
    if not analogies:
        evaluation.notes.append(
            "no analogies: give lists.analogies=<file>, or put questions-words.txt into "
            "$SEQEXP_DATA/analogies/ or data/analogies/"
        )
    if not similarities:
        evaluation.notes.append(
            "no similarities: give lists.similarities=<file or folder>, or put lists into "
            "$SEQEXP_DATA/wordsim/ or data/wordsim/"
        )
    baseline = find_baseline() if analogies or similarities or outliers else None
    evaluation.details["vocabulary"] = len(space.words)
    if analogies:
        evaluation.details["analogies"] = _analogies(evaluation, analogies, space, baseline)
    if similarities:
        evaluation.details["similarities"] = _similarities(
            evaluation, similarities, space, baseline, make_vectors
        )
    if outliers:
        evaluation.details["outliers"] = _outliers(evaluation, outliers, space, baseline)
    evaluation.details["neighbours"] = {
        word: neighbours(space, word, SHOWN_NEIGHBOURS) for word in shown_words(space)
    }


def neighbours(space: VectorSpace, word: str, count: int) -> list[tuple[str, float]]:
    """Return the words nearest to a word of the space, with their cosines."""
    number = space.number(word)
    assert number is not None
    return space.nearest(space.units @ space.units[number], count, space.same(number))


def shown_words(space: VectorSpace) -> list[str]:
    """Return words of the space of falling frequency, the same for the same vocabulary."""
    usual = [word for word in space.words if word.isalpha() and len(word) > 3] or space.words
    ranks = [int(FIRST_RANK * RANK_FACTOR**i) for i in range(SHOWN_WORDS)]
    return list(dict.fromkeys(usual[min(rank, len(usual) - 1)] for rank in ranks))


def _outliers(
    evaluation: Evaluation,
    lists: Mapping[str, tuple[list[str], list[str]]],
    space: VectorSpace,
    baseline: VectorSpace | None,
) -> dict[str, Any]:
    """Return how often the word that does not belong to a group fits it least, by group and in all."""
    rows: list[dict[str, Any]] = []
    for name, (group, outliers) in lists.items():
        found = space.outliers(group, outliers)
        others = baseline.outliers(group, outliers) if baseline else []
        rows.append({"group": name, "questions": len(outliers), "found": found, "ppmi": others})
    total = [one for row in rows for one in row["found"]]
    if total:
        n = len(total)
        groups = np.array([i for i, row in enumerate(rows) for _ in row["found"]])
        interval = accuracy_interval(np.array(total, dtype=np.float64), groups)
        evaluation["outliers"] = SHARE.of(float(np.mean(total)), n, interval)
    return {"groups": rows}


def _analogies(
    evaluation: Evaluation,
    lists: Mapping[str, Sequence[tuple[str, str, str, str]]],
    space: VectorSpace,
    baseline: VectorSpace | None,
) -> dict[str, Any]:
    answers = {name: list(space.answer(questions)) for name, questions in lists.items()}
    others = {name: list(baseline.answer(questions)) for name, questions in lists.items()} if baseline else {}
    rows = [
        {"category": name, "questions": len(lists[name]), **_score(found, others.get(name))}
        for name, found in answers.items()
    ]
    total = [one for found in answers.values() for one in found]
    total_others = [one for found in others.values() for one in found] if baseline else None
    overall = {"questions": sum(map(len, lists.values())), **_score(total, total_others)}
    if overall["covered"]:
        n = overall["covered"]
        evaluation["analogies"] = SHARE.of(overall["cosadd"], n, tuple(overall["interval"]))
        evaluation["analogies_cosmul"] = SHARE.of(overall["cosmul"], n)
        if total_others is not None:
            evaluation["ppmi_analogies"] = SHARE.of(overall["ppmi"], n)
    else:
        evaluation.notes.append("no analogy is covered: its words are not in the vocabulary")
    return {"categories": rows, "all": overall}


def _score(answers: Sequence[Answer], others: Sequence[Answer] | None) -> dict[str, Any]:
    """Return the shares of right answers; the interval takes questions on one pair of words as a cluster."""
    n = len(answers)
    first = list(dict.fromkeys(one.question[:2] for one in answers))
    number = {pair: i for i, pair in enumerate(first)}
    credits = np.array([one.cosadd for one in answers], dtype=np.float64)
    clusters = np.array([number[one.question[:2]] for one in answers], dtype=np.int64)
    return {
        "covered": n,
        "pairs": len(first),
        "cosadd": float(credits.mean()) if n else math.nan,
        "interval": list(accuracy_interval(credits, clusters)) if n else None,
        "cosmul": float(np.mean([one.cosmul for one in answers])) if n else math.nan,
        "ppmi": float(np.mean([one.cosadd for one in others])) if others else None,
        "enough": n >= FEWEST_QUESTIONS and len(first) >= FEWEST_PAIRS,
    }


def _similarities(
    evaluation: Evaluation,
    lists: Mapping[str, Sequence[tuple[str, str, float]]],
    space: VectorSpace,
    baseline: VectorSpace | None,
    make_vectors: MakeVectors,
) -> list[dict[str, Any]]:
    rows = []
    for name, pairs in lists.items():
        cosines, given = space.similarities(pairs)
        value, interval = spearman(cosines, given)
        row: dict[str, Any] = {
            "list": name, "pairs": len(pairs), "covered": len(given), "spearman": value,
            "interval": interval, "enough": len(given) >= FEWEST_QUESTIONS,
        }  # fmt: skip
        unknown = {word for one in pairs for word in one[:2] if space.number(word) is None}
        made = make_vectors(sorted(unknown))
        if made:
            more, judged = space.similarities(pairs, made)
            row |= {"with_unknown": spearman(more, judged)[0], "covered_with_unknown": len(judged)}
        if baseline:
            row["ppmi"] = spearman(*baseline.similarities(pairs))[0]
        rows.append(row)
        if row["enough"]:
            evaluation[f"similarity_{name.lower()}"] = CORRELATION.of(value, len(given), interval)
    return rows


def baseline_of(space: VectorSpace, data: WordData, evaluation: Evaluation) -> VectorSpace | None:
    """Return vectors of the same words by PPMI and SVD of the training split, with the same window."""
    if "train" not in data.splits:
        evaluation.notes.append("no baseline: the training text is not at hand")
        return None
    tokenizer, dim = data.text.tokenizer, space.vectors.shape[1]
    key = [
        BASELINE_VERSION, data.text.corpus.sha256, data.config.split, *encoding_key(tokenizer),
        data.options.window, len(space.words), dim,
    ]  # fmt: skip
    file = cached("ppmi", key, ".npy")
    try:
        vectors = np.load(file, allow_pickle=False)
        if vectors.shape[0] != len(space.words):
            raise ValueError
    except (OSError, ValueError):
        vectors = _ppmi(space, data, dim)
        with atomic_path(file) as path, path.open("wb") as opened:
            np.save(opened, vectors)
    return VectorSpace(space.words, vectors)


def _ppmi(space: VectorSpace, data: WordData, dim: int) -> Floats:
    tokenizer = data.text.tokenizer
    number = {word: i for i, word in enumerate(space.words)}
    numbers = np.array(
        [
            number.get(tokenizer.piece(token), len(space.words)) if data.counts[token] else -1
            for token in range(tokenizer.vocab_size)
        ],
        dtype=np.int64,
    )
    window = Window(numbers, len(space.words), expected(data.options.window), tokenizer.bos_id)
    with tempfile.TemporaryDirectory() as folder:
        pairs = count_pairs(data.text.splits["train"].blocks(BLOCK), window, Path(folder))
        rows, columns = np.divmod(pairs["key"], len(space.words))
        return ppmi_vectors(rows, columns, np.array(pairs["weight"]), len(space.words), dim)


def report_tables(details: Mapping[str, Any]) -> list[Table]:
    """Return the tables of analogies, similarities and neighbours in the details of an evaluation."""
    tables = []
    among = f"among the {details.get('vocabulary', 0):,} most frequent words"
    analogies = details.get("analogies")
    if analogies:
        rows = [_analogy_row(row["category"], row) for row in analogies["categories"]]
        rows.append(_analogy_row("all", analogies["all"]))
        header = ("category", "questions", "covered", "3CosAdd", "95 % interval", "3CosMul", "PPMI + SVD")
        caption = f"share of covered questions that are answered rightly; too few: under {FEWEST_QUESTIONS}"
        caption += f" questions, or about fewer than {FEWEST_PAIRS} pairs; PPMI + SVD by 3CosAdd"
        tables.append(Table(f"analogies {among}", header, rows, caption))
    similarities = details.get("similarities")
    if similarities:
        made = any("with_unknown" in row for row in similarities)
        columns = ["list", "pairs", "covered", "Spearman", "95 % interval", "PPMI + SVD"]
        columns += ["with unknown words", "covered"] if made else []
        rows = [_similarity_row(row, made) for row in similarities]
        tables.append(Table(f"similarities {among}", columns, rows))
    outliers = details.get("outliers")
    if outliers:
        cells = [
            (
                row["group"], str(row["questions"]), str(len(row["found"])), str(sum(row["found"])),
                str(sum(row["ppmi"])) if row["ppmi"] else "",
            )
            for row in outliers["groups"]
        ]  # fmt: skip
        caption = "an outlier is found if it fits the words of its group less than each of them does"
        tables.append(
            Table(
                f"outliers {among}", ("group", "outliers", "covered", "found", "PPMI + SVD"), cells, caption
            )
        )
    nearest = details.get("neighbours")
    if nearest:
        rows = [
            (word, ", ".join(f"{other} {cosine:.2f}" for other, cosine in found))
            for word, found in nearest.items()
        ]
        tables.append(Table("neighbours", ("word", "nearest words and their cosines"), rows))
    return tables


def _percent(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def _analogy_row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (name, f"{row['questions']:,}", f"{row['covered']:,}")
    if not row["enough"]:
        return (*counts, "too few", "", "", "")
    low, high = row["interval"]
    interval = f"{100 * low:.1f}–{100 * high:.1f} %"
    return (*counts, _percent(row["cosadd"]), interval, _percent(row["cosmul"]), _percent(row["ppmi"]))


def _similarity_row(row: Mapping[str, Any], made: bool) -> tuple[str, ...]:
    counts = (row["list"], f"{row['pairs']:,}", f"{row['covered']:,}")
    more = ("", "")
    if "with_unknown" in row:
        more = (f"{row['with_unknown']:.3f}", f"{row['covered_with_unknown']:,}")
    if not row["enough"]:
        return (*counts, "too few", "", "", *(more if made else ()))
    low, high = row["interval"] or (math.nan, math.nan)
    ppmi = f"{row['ppmi']:.3f}" if row.get("ppmi") is not None else ""
    return (*counts, f"{row['spearman']:.3f}", f"{low:.3f}–{high:.3f}", ppmi, *(more if made else ()))
