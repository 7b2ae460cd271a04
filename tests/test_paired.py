"""Runs compared on the same examples: outcomes, the paired bootstrap, and `seqexp compare --paired`."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import safetensors.numpy
from conftest import Ran
from run_folders import csv_rows, make_run, markdown_rows, said_shortly, strict_json, write
from scipy import stats
from sklearn import metrics as sk

from seqexp.errors import UserError
from seqexp.metrics import outcomes as module
from seqexp.metrics.bleu import bleu_statistics
from seqexp.metrics.outcomes import OUTCOMES, Outcome, from_bytes, paired_differences, ratio, to_bytes
from seqexp.metrics.spans import score_spans

Main = Callable[..., Ran]

N, C = 300, 4


def labels(seed: int, wrong: float) -> tuple[Any, Any]:
    """True labels, some rare, and predictions of which about a share is wrong."""
    draw = np.random.default_rng(0)
    true = draw.choice(C, N, p=[0.5, 0.3, 0.15, 0.05])
    other = np.random.default_rng(seed)
    return true, np.where(other.random(N) < wrong, other.integers(0, C, N), true)


def f1(true: Any, predicted: Any) -> Outcome:
    one, other = np.eye(C, dtype=int)[true], np.eye(C, dtype=int)[predicted]
    return ratio(2 * one * other, one + other)


def translations(seed: int) -> tuple[list[str], list[str]]:
    draw, words = random.Random(0), ["the", "a", "cat", "dog", "sees", ",", "one", "two", "house", ".", "big"]
    references = [" ".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(80)]
    other = random.Random(seed)
    return [
        " ".join(word if other.random() < 0.8 else other.choice(words) for word in line.split())
        for line in references
    ], references


# Metrics from sums


def test_metrics_of_all_examples() -> None:
    true, predicted = labels(1, 0.3)
    assert ratio(predicted == true).value == sk.accuracy_score(true, predicted)
    assert f1(true, predicted).value == pytest.approx(
        sk.f1_score(true, predicted, average="macro"), rel=1e-12
    )
    hypotheses, references = translations(1)
    found = Outcome(bleu_statistics(hypotheses, references, "13a"), "bleu").value
    assert found == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score, rel=1e-12)


def test_a_label_that_does_not_occur_is_left_out() -> None:
    true, predicted = np.array([0, 0, 1]), np.array([0, 1, 1])
    assert f1(true, predicted).value == pytest.approx(sk.f1_score(true, predicted, average="macro"))
    assert ratio(np.zeros((3, 2)), np.zeros((3, 2))).value == 0


def test_what_is_right_or_wrong() -> None:
    assert ratio(np.array([True, False])).right.tolist() == [True, False]  # type: ignore[union-attr]
    assert ratio(np.array([1, 3]), np.array([2, 4])).right is None
    assert f1(*labels(1, 0.3)).right is None
    assert Outcome(np.ones((2, 10), dtype=int), "bleu").right is None


# The bootstrap


def by_hand(seed: int, count: int, n: int, difference: Callable[[Any], float]) -> list[float]:
    """The 2.5 % and 97.5 % quantiles of a difference, computed anew for each sample of examples."""
    chosen = np.random.default_rng(seed).integers(0, n, (count, n))
    return list(np.quantile([difference(some) for some in chosen], (0.025, 0.975)))


def test_the_bootstrap_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 60)
    monkeypatch.setattr(module, "FEWEST_RESAMPLES", 60)
    true, predicted = labels(1, 0.3)
    _, other = labels(2, 0.5)
    found = paired_differences(
        {"accuracy": ratio(predicted == true), "macro_f1": f1(true, predicted)},
        {"macro_f1": f1(true, other), "accuracy": ratio(other == true), "more": ratio(true == 0)},
        seed=7,
    )
    assert list(found) == ["accuracy", "macro_f1"]

    def macro(chosen: Any) -> float:
        scores = [sk.f1_score(true[chosen], one[chosen], average="macro") for one in (predicted, other)]
        return float(scores[1] - scores[0])

    everything = np.arange(N)
    assert found["macro_f1"].value == pytest.approx(macro(everything))
    assert found["macro_f1"].interval == pytest.approx(by_hand(7, 60, N, macro))
    assert found["macro_f1"].p is None
    accuracy = by_hand(7, 60, N, lambda i: float(((other == true)[i] * 1.0 - (predicted == true)[i]).mean()))
    assert found["accuracy"].interval == pytest.approx(accuracy)


def test_bleu_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 20)
    monkeypatch.setattr(module, "FEWEST_RESAMPLES", 20)
    (first, references), (second, _) = translations(1), translations(2)
    both = [{"bleu": Outcome(bleu_statistics(one, references, "13a"), "bleu")} for one in (first, second)]

    def bleu(chosen: Any) -> float:
        scores = [
            sacrebleu.corpus_bleu([one[i] for i in chosen], [[references[i] for i in chosen]]).score
            for one in (first, second)
        ]
        return scores[1] - scores[0]

    found = paired_differences(*both, seed=3)["bleu"]
    assert found.interval == pytest.approx(by_hand(3, 20, 80, bleu))


def test_the_interval_of_accuracy_in_closed_form() -> None:
    """The variance of the difference of paired shares is (b + c - (b - c)^2 / n) / n^2."""
    draw = np.random.default_rng(0)
    first = draw.random(2000) < 0.8
    second = np.where(draw.random(2000) < 0.1, ~first, first)
    found = paired_differences({"a": ratio(first)}, {"a": ratio(second)})["a"]
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    assert (found.only_first, found.only_second) == (b, c)
    assert found.p == pytest.approx(stats.binomtest(b, b + c).pvalue)
    margin = 1.959964 * math.sqrt(b + c - (b - c) ** 2 / 2000) / 2000
    middle = (c - b) / 2000
    assert found.interval == pytest.approx((middle - margin, middle + margin), abs=0.05 * margin)


def test_chunks_change_nothing_but_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    true, predicted = labels(1, 0.3)
    pair = [{"a": ratio(one == true)} for one in (predicted, labels(2, 0.5)[1])]
    whole = paired_differences(*pair)["a"]
    monkeypatch.setattr(module, "CHUNK", 10 * N)
    assert paired_differences(*pair)["a"] == whole
    assert paired_differences(pair[0], pair[0])["a"].interval == (0, 0)
    assert paired_differences(pair[0], pair[0])["a"].p == 1
    assert paired_differences(pair[0], {"b": pair[1]["a"]}) == {}


def test_spans_of_sentences() -> None:
    """The F1 of all spans is that of the sums over sentences."""
    draw = random.Random(1)
    tags = ["O", "B-x", "I-x", "B-y", "I-y"]
    true, guess = ([[draw.choice(tags) for _ in range(6)] for _ in range(40)] for _ in range(2))
    scores = [score_spans([a], [b])[0] for a, b in zip(true, guess, strict=True)]
    correct = np.array([2 * one.correct for one in scores])
    both = np.array([one.true + one.predicted for one in scores])
    assert ratio(correct, both).value == pytest.approx(score_spans(true, guess)[0].f1)


# The file


def test_a_file_of_outcomes() -> None:
    true, predicted = labels(1, 0.3)
    bleu = np.full((N, 10), 70_000)
    given = {
        "accuracy": ratio(predicted == true),
        "macro_f1": f1(true, predicted),
        "x/y": Outcome(bleu, "bleu"),
    }
    data = to_bytes(given)
    found = from_bytes(data)
    assert list(found) == ["x/y", "accuracy", "macro_f1"]
    for name, one in given.items():
        assert found[name].formula == one.formula
        assert np.array_equal(found[name].values, one.values)
    assert len(data) < N * (2 + 2 * C) + 4 * 10 * N + 500


@pytest.mark.parametrize(
    "tensors",
    [
        b"",
        b"\x00" * 100,
        {},
        {"ratio/a": np.ones((2, 3))},
        {"ratio/a": np.ones((2, 0))},
        {"ratio/a": np.ones((0, 2))},
        {"ratio/a": np.ones(2)},
        {"ratio/": np.ones((2, 2))},
        {"bleu/a": np.ones((2, 2))},
        {"other/a": np.ones((2, 2))},
        {"ratio/a": np.array([[1, np.nan]])},
        {"ratio/a": np.array([[1, -1]])},
        {"ratio/a": np.array([[True, True]])},
        {"ratio/a": np.ones((2, 2)), "ratio/b": np.ones((3, 2))},
    ],
)
def test_damaged_files(tensors: Any) -> None:
    data = tensors if isinstance(tensors, bytes) else safetensors.numpy.save(tensors)
    with pytest.raises(UserError):
        from_bytes(data)


# The command


def judged(run: Path, right: Any, time: str, *, split: str = "test", sha256: str = "ab", **more: Any) -> Path:
    """An evaluation as `seqexp eval` leaves it."""
    folder = Path(f"outputs/eval/{run.parent.name}/{time}")
    result = {
        "run": str(run.absolute()), "split": split, "step": 20, "checkpoint": "best", "sha256": sha256,
        "corpus": {"origin": "some.csv"}, **more,
    }  # fmt: skip
    write(folder / "result.json", result)
    write(folder / "status.json", {"status": "finished"})
    if right is not None:
        (folder / OUTCOMES).write_bytes(to_bytes({"accuracy": ratio(np.array(right))}))
    return folder


@pytest.fixture
def two() -> list[Path]:
    """Two runs with evaluations; of the first ten texts only one is right, of three more the other."""
    runs = [make_run(Path(f"outputs/train/{name}/one")) for name in ("a", "b")]
    second = [True] * 3 + [False] * 7 + [True] * 40
    first = [False] * 3 + [True] * 7 + [True] * 40
    judged(runs[0], first, "2026-01-01")
    judged(runs[1], second, "2026-01-02")
    return runs


def test_two_runs(run_main: Main, two: list[Path]) -> None:
    ran = run_main("compare", *two, "--paired", "--json")
    assert ran.code == 0, ran.err
    found = strict_json(ran.out)
    assert (found["split"], found["examples"]) == ("test", 50)
    (row,) = found["differences"]
    assert (row["run"], row["metric"], row["first"], row["value"]) == (2, "accuracy", 47 / 50, 43 / 50)
    assert row["difference"] == pytest.approx(-4 / 50)
    assert (row["only_first_right"], row["only_this_right"]) == (7, 3)
    assert row["p"] == pytest.approx(stats.binomtest(3, 10).pvalue)
    low, high = row["interval"]
    assert low < -0.08 < high
    assert "50 examples" in ran.err
    assert not Path("outputs/compare").exists()
    (line,) = csv_rows(run_main("compare", *two, "--paired", "--format", "csv").out)
    assert float(line["difference"]) == row["difference"]
    assert (float(line["interval 1"]), float(line["interval 2"])) == (low, high)
    _, _, *rows = markdown_rows(run_main("compare", *two, "--paired", "--format", "markdown").out)
    assert [cells[:4] for cells in rows] == [["accuracy", "1", "0.94", ""], ["", "2", "0.86", "-0.0800"]]
    assert rows[1][5:] == ["7", "3", "0.34"]
    assert r"\toprule" in run_main("compare", *two, "--paired", "--format", "latex").out
    assert "0.94" in run_main("compare", *two, "--paired").out


def test_evaluations_sweeps_and_more_runs(run_main: Main, two: list[Path]) -> None:
    folders = sorted(Path("outputs/eval").glob("*/*"))
    given = strict_json(run_main("compare", *folders, "--paired", "--json").out)
    assert (
        given["differences"]
        == strict_json(run_main("compare", *two, "--paired", "--json").out)["differences"]
    )
    ran = run_main("compare", two[1], *two, "--paired", "--json")
    rows = strict_json(ran.out)["differences"]
    assert [(row["run"], row["difference"]) for row in rows] == [(2, pytest.approx(4 / 50)), (3, 0)]
    assert rows[1]["p"] == 1
    assert "0.05 / 2" in ran.err
    for i, right in enumerate(([True], [False])):
        judged(make_run(Path(f"outputs/sweeps/s/{i}_aa")), right, f"2026-02-0{i + 1}")
    write(Path("outputs/sweeps/s/sweep.json"), {"calls": [{"jobs": 2}]})
    (row,) = strict_json(run_main("compare", "outputs/sweeps/s", "--paired", "--json").out)["differences"]
    assert (row["first"], row["value"]) == (1, 0)


def test_the_newest_evaluation_of_the_split(run_main: Main, two: list[Path]) -> None:
    judged(two[1], [True] * 50, "2026-03-01")
    judged(two[1], [False] * 50, "2026-03-02", split="val")
    ensemble = judged(two[1], [False] * 50, "2026-03-03")
    write(ensemble / "manifest.json", {"ensemble": ["other"]})
    (row,) = strict_json(run_main("compare", *two, "--paired", "--json").out)["differences"]
    assert row["value"] == 1
    judged(two[0], [True] * 50, "2026-03-04", split="val")
    ran = run_main("compare", *two, "--paired", "--split", "val", "--json")
    assert strict_json(ran.out)["differences"][0]["difference"] == -1
    judged(two[0], [True] * 50, "2026-03-05", step=10)
    ran = run_main("compare", *two, "--paired")
    assert "NOTE: run 1 was evaluated at step 10, and its best step is now 20" in ran.err


def test_what_cannot_be_compared(run_main: Main, two: list[Path]) -> None:
    other = make_run(Path("outputs/train/c d/one"))

    def refused(message: str, *words: Any) -> None:
        ran = run_main("compare", *words)
        assert ran.code == 2
        said_shortly(ran)
        assert message in ran.err, ran.err

    refused("run `seqexp eval 'run=", *two, other, "--paired")
    judged(other, None, "2026-04-01", split="val")
    refused("It was evaluated on val: --split", *two, other, "--paired")
    judged(other, None, "2026-04-02")
    refused("does not say what each example adds", *two, other, "--paired")
    judged(other, [True] * 50, "2026-04-03", sha256="cd")
    refused("has other examples (50 of some.csv) than", *two, other, "--paired")
    judged(other, [True] * 49, "2026-04-04")
    refused("has other examples (49 of some.csv) than", *two, other, "--paired")
    folder = judged(other, [True] * 50, "2026-04-05")
    (folder / OUTCOMES).write_bytes(to_bytes({"bleu": ratio(np.ones(50))}))
    refused("have no metric in common: bleu and accuracy", *two, other, "--paired")
    (folder / OUTCOMES).write_bytes(b"{}")
    refused("cannot be read", *two, other, "--paired")
    (folder / OUTCOMES).unlink()
    (folder / OUTCOMES).symlink_to("/dev/zero")
    refused("cannot be read", *two, other, "--paired")
    refused("name another one", two[0], "--paired")
    refused("--x has no effect with --paired", *two, "--paired", "--x", "seed")
    refused("--split is the split of --paired", *two, "--split", "val")
    write(Path("outputs/generate/a/b/status.json"), {"status": "finished"})
    refused("is from `seqexp generate`", two[0], "outputs/generate/a/b", "--paired")


@pytest.mark.parametrize("value", [None, 5, [], {"a": 1}, "\x1b[31m", json.dumps("x") * 3])
def test_results_that_are_damaged(run_main: Main, two: list[Path], value: Any) -> None:
    for key in ("step", "split", "sha256", "corpus", "checkpoint"):
        judged(two[1], [True] * 50, "2026-05-01", **{key: value})  # type: ignore[arg-type]
        ran = run_main("compare", *two, "--paired")
        assert ran.code in (0, 2), ran.err
        assert "Traceback" not in ran.err
        assert "\x1b" not in ran.err + ran.out
