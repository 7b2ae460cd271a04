"""Exams from the command line: at validations and by eval, refused settings, and the pairs of an exam."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_NMT, make_pairs, write_pairs
from exam_helpers import ALL, DEVICE, SHORT, Main, evaluate, make_english, read, rows_of
from small_trainer import make_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_resume import assert_same_run

from seqexp.config.exams import ExamsConfig
from seqexp.config.root import to_plain
from seqexp.data.text import TextData
from seqexp.exams.ngram import CharNgram
from seqexp.exams.runner import ExamRunner

pytestmark = pytest.mark.usefixtures("one_thread")


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


# At validations


def test_exams_at_validations(sat_run: Path) -> None:
    rows = rows_of(sat_run / "metrics.jsonl")
    logged = scalars(sat_run)
    for name in ("exam/spelling", "exam/grammar"):
        points = {row["step"]: row[name] for row in rows if name in row}
        assert list(points) == [3, 6]
        assert all(value * 40 == pytest.approx(round(value * 40)) for value in points.values())
        assert all(0 < value < 1 for value in points.values())
        assert logged[name] == pytest.approx(points)
    result = read(sat_run / "result.json")
    for name in ("exam/spelling", "exam/grammar"):
        detail = result["details"][name]
        assert (detail["unit"], detail["higher_is_better"], detail["count"]) == ("share of pairs", True, 20)
        low, high = detail["interval"]
        assert low <= result["metrics"][name] <= high
    points = {row["step"]: row["exam/spelling"] for row in rows if "exam/spelling" in row}
    best = max(points, key=lambda step: points[step])
    monitor = {"name": "exam/spelling", "mode": "max", "best": points[best], "step": best}
    assert result["monitor"] == monitor
    assert result["metrics"]["exam/spelling"] == points[best]


def test_exams_change_no_weights(run_main: Main, sat_run: Path, english: Path) -> None:
    """The same overrides without exams train the same weights."""
    words = (f"data.path={english}", "trainer.max_steps=6", "trainer.eval_every=3", "name=sat")
    ran = run_main("train", "data=text", *SHORT, *words)
    assert ran.code == 0, ran.err
    (plain,) = Path("outputs/train/sat").iterdir()

    def losses(run: Path) -> list[float]:
        rows = rows_of(run / "metrics.jsonl")
        return [row[name] for row in rows for name in ("train/loss", "val/loss") if name in row]

    assert losses(plain) == losses(sat_run)
    prints = [read(run / "manifest.json")["fingerprint"] for run in (plain, sat_run)]
    assert prints[0] != prints[1]


def test_a_resumed_run_has_the_same_exams(run_main: Main, sat_run: Path, english: Path) -> None:
    words = (f"data.path={english}", "trainer.max_steps=3", "trainer.eval_every=3", "name=sat", *ALL)
    ran = run_main("train", "data=text", *SHORT, *words, "trainer.monitor=exam/spelling")
    assert ran.code == 0, ran.err
    ran = run_main("train", "resume=latest", "trainer.max_steps=6")
    assert ran.code == 0, ran.err
    (run,) = Path("outputs/train/sat").iterdir()
    assert_same_run(sat_run, run)
    assert [row["step"] for row in rows_of(run / "metrics.jsonl") if "exam/grammar" in row] == [3, 6]


def test_resume_finds_a_file_of_pairs_from_another_folder(
    run_main: Main, english: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`exams.path` is made absolute, as `data.path` is."""
    Path("pairs.csv").write_text("The king was,The king were\n", encoding="utf-8")
    words = (f"data.path={english}", "trainer.max_steps=1", "exams=grammar", "exams.path=pairs.csv", "name=x")
    ran = run_main("train", "data=text", *SHORT, *words)
    assert ran.code == 0, ran.err
    (run,) = Path("outputs/train/x").iterdir()
    Path("there").mkdir()
    run = run.absolute()
    monkeypatch.chdir("there")
    ran = run_main("train", f"resume={run}", "trainer.max_steps=2")
    assert ran.code == 0, ran.err


def test_exams_of_a_recurrent_model(run_main: Main, english: Path) -> None:
    words = (f"data.path={english}", "model=lstm", "model.hidden_size=8", "debug=fast", "data.seq_len=16")
    few = ("trainer.max_steps=2", "trainer.eval_every=2", "trainer.sample_tokens=0", "name=lstm")
    ran = run_main("train", "data=text", *words, *few, *DEVICE, "device.compile=false", *ALL)
    assert ran.code == 0, ran.err
    (run,) = Path("outputs/train/lstm").iterdir()
    assert {"exam/spelling", "exam/grammar"} <= read(run / "result.json")["metrics"].keys()
    result, _ = evaluate(run_main, run, *ALL)
    assert [exam["overall"]["pairs"] for exam in result["exams"]] == [20, 20]


# By eval


def test_eval_with_exams(run_main: Main, sat_run: Path, english: Path) -> None:
    text = english.read_text(encoding="utf-8")
    five = CharNgram([text[: int(0.9 * len(text))]])
    result, folder = evaluate(run_main, sat_run, *ALL)
    assert [exam["name"] for exam in result["exams"]] == ["spelling", "grammar"]
    for exam in result["exams"]:
        name, overall = exam["name"], exam["overall"]
        assert result["metrics"][f"exam/{name}"] == overall["accuracy"]
        low, high = overall["interval"]
        assert 0 <= low < overall["accuracy"] < high <= 1
        assert exam["questions"] == overall["pairs"] == 20
        assert {"value", "interval"} == overall["ahead"].keys()
        assert overall["ahead"]["value"] == pytest.approx(
            overall["accuracy"] - overall["baseline"]["accuracy"]
        )
        assert exam["baseline"] == "character 5-gram (Witten–Bell) of the training split"
        assert any(note.startswith("20 of ") for note in exam["notes"])
        answers = rows_of(folder / f"exam_{name}.jsonl")
        credit = [
            1.0 if good > bad else 0.5 if good == bad else 0.0 for good, bad in (a["model"] for a in answers)
        ]
        assert sum(credit) / 20 == pytest.approx(overall["accuracy"])
        baseline = [float(good > bad) for good, bad in (a["baseline"] for a in answers)]
        for i, side in enumerate(("good", "bad")):
            plain = five.log_probabilities([a[side] for a in answers], words=name == "spelling")
            assert [a["baseline"][i] for a in answers] == pytest.approx(plain)
        assert sum(baseline) / 20 == pytest.approx(overall["baseline"]["accuracy"])
        worst = sorted(
            (a for a in answers if a["model"][0] < a["model"][1]), key=lambda a: a["model"][0] - a["model"][1]
        )
        assert [(m["good"], m["bad"]) for m in exam["mistakes"]] == [
            (a["good"], a["bad"]) for a in worst[:10]
        ]
        assert (folder / f"plots/exam_{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    spelling, grammar = result["exams"]
    assert {group["by"] for group in spelling["groups"]} == {"training", "frequency", "non-word"}
    assert [group["name"] for group in spelling["groups"]][:2] == ["seen", "unseen"]
    pairs = {group["name"]: group["pairs"] for group in spelling["groups"]}
    assert pairs["seen"] + pairs["unseen"] == 20
    assert sum(group["pairs"] for group in spelling["groups"] if group["by"] == "frequency") == pairs["seen"]
    assert sum(group["pairs"] for group in spelling["groups"] if group["by"] == "non-word") == 20
    assert {group["by"] for group in grammar["groups"]} == {"phenomenon", "paradigm"}
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert set(events.Tags()["images"]) == {"exam/spelling", "exam/grammar"}
    metrics = {name: result["metrics"][name] for name in ("exam/spelling", "exam/grammar")}
    assert {tag: values[result["step"]] for tag, values in scalars(folder).items()} == pytest.approx(metrics)
    assert read(folder / "status.json")["status"] == "finished"


def test_the_exam_is_the_one_of_training(run_main: Main, sat_run: Path) -> None:
    """With the same seed and pairs, eval repeats the accuracies of training; another draws other pairs."""
    logged = {row["step"]: row for row in rows_of(sat_run / "metrics.jsonl") if "exam/spelling" in row}
    result, folder = evaluate(run_main, sat_run, *ALL, "checkpoint=last", "seed=1")
    for name in ("exam/spelling", "exam/grammar"):
        assert result["metrics"][name] == logged[6][name]
    _, other = evaluate(run_main, sat_run, *ALL, "checkpoint=last", "seed=2")
    asked = [{row["good"] for row in rows_of(f / "exam_spelling.jsonl")} for f in (folder, other)]
    assert asked[0] != asked[1]


def test_exams_from_a_file(run_main: Main, sat_run: Path) -> None:
    """All pairs are sentences, so there is one report; it counts ties and skipped pairs."""
    lines = "The king was ill.,The king were ill.\nAnna ran.,Anna ran.\nAnna \u2603.,Anna ran.\n"
    Path("pairs.csv").write_text(lines, encoding="utf-8")
    result, folder = evaluate(run_main, sat_run, "exams=all", "exams.path=pairs.csv")
    (exam,) = result["exams"]
    assert (exam["name"], exam["origin"], exam["questions"]) == ("grammar", "exams.path=pairs.csv", 3)
    assert (exam["overall"]["pairs"], exam["skipped"], exam["unknown_characters"]) == (2, 1, "\u2603")
    assert exam["ties"] == 1
    assert exam["overall"]["accuracy"] in (0.25, 0.75)
    answers = rows_of(folder / "exam_grammar.jsonl")
    assert answers[2]["model"][0] is None
    assert answers[1]["model"][0] == answers[1]["model"][1]


# Refused settings


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("exams=gramar",), "grammar"),
        (("exams=foo",), "spelling"),
        (("exams=all", "exams.pairs=0"), "exams.pairs"),
        (("exams.path=x.csv",), "needs exams=all"),
        (("exams=all", "exams.nonwords=0"), "exams.nonwords"),
        (("exams=all", "exams.path=nowhere/*.csv"), "exams.path=nowhere/*.csv"),
        (("exams=grammar", "exams.path=wrong.csv"), "wrong.csv, line 2: no comma"),
        (("exams=all", "exams.path=wrong.zip"), "wrong.zip: a.jsonl, line 1"),
        (("exams=all", "data.path=wrong.csv"), "exams need the run's own corpus"),
    ],
)
def test_mistakes_with_eval(run_main: Main, sat_run: Path, words: tuple[str, ...], message: str) -> None:
    Path("wrong.csv").write_text("a b,b a\nno pair\n", encoding="utf-8")
    with zipfile.ZipFile("wrong.zip", "w") as archive:
        archive.writestr("a.jsonl", '{"good": 1, "bad": 2}')
    ran = run_main("eval", f"run={sat_run}", *words, *DEVICE)
    assert ran.code == 2, ran.err
    assert message in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("task", ["parity", "translation"])
def test_exams_are_for_language_models(run_main: Main, task: str) -> None:
    """Exams of other tasks are refused, and no folder is created."""
    words: tuple[str, ...] = ("data=parity", "model=lstm", "data.eval_sequences=20", "data.seq_len=8")
    if task == "translation":
        words = (*TINY_NMT, f"data.path={write_pairs(Path('pairs.tsv'), make_pairs()[:40])}")
    few = ("trainer.max_steps=0", "trainer.sample_tokens=0", "name=x", *DEVICE, "generation.max_new_tokens=2")
    ran = run_main("train", *words, *few)
    assert ran.code == 0, ran.err
    before = set(Path("outputs").iterdir())
    ran = run_main("eval", "exams=all", *DEVICE)
    assert ran.code == 2
    tasks = "language_modeling, masked_language_modeling"
    message = f"exams=all is for task={tasks}; this is task={task}. Leave exams= out."
    assert ran.err.splitlines()[-1].endswith(message)
    assert set(Path("outputs").iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data=parity", "model=lstm", "exams=spelling"), "exams=spelling is for task=language_modeling"),
        (("data=text", "data.path=BOOK", "trainer.monitor=exam/spelling"), "trainer.monitor"),
        (("data=text", "data.path=BOOK", "trainer.monitor=exam/spelling", "exams=grammar"), "exam/spelling"),
        (("data=text", "data.path=BOOK", "exams=spel"), "exams"),
    ],
)
def test_mistakes_with_train(run_main: Main, english: Path, words: tuple[str, ...], message: str) -> None:
    tiny = ("debug=fast", *DEVICE, "data.seq_len=16")
    ran = run_main("train", *(word.replace("BOOK", str(english)) for word in words), *tiny)
    assert ran.code == 2, ran.err
    assert message in ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    "letters",
    ["дом сад река король письмо камень девочка", "房子很大 国王在花园里 他说的话"],
    ids=["ru", "zh"],
)
def test_other_languages(run_main: Main, letters: str) -> None:
    """A corpus without English words has no grammar exam; without non-words there is no traceback."""
    words = letters.split()
    text = " ".join(words[(i * i + i // 7) % len(words)] for i in range(3000))
    Path("text.txt").write_text(text, encoding="utf-8")
    few = ("data.path=text.txt", "trainer.max_steps=0", "data.seq_len=16", "name=x")
    ran = run_main("train", "data=text", *SHORT, *few)
    assert ran.code == 0, ran.err
    ran = run_main("eval", "exams=grammar", *DEVICE)
    assert ran.code == 2, ran.err
    assert "too few English words" in ran.err.splitlines()[-1]
    assert "exams.path=" in ran.err.splitlines()[-1]
    ran = run_main("eval", "exams=spelling", *DEVICE)
    assert "Traceback" not in ran.err
    assert ran.code in (0, 2), ran.err


# Fingerprints, and the pairs of an exam


def test_the_fingerprint_without_exams_is_the_one_of_before() -> None:
    """Without exams the options do not change it; with exams, each option does."""
    config = make_config(Path("text.txt"))
    values = to_plain(config)
    assert values["exams"]["name"] == "none"
    # What does not decide a result, and what runs of schema 1 did not have yet.
    for key in ("device", "name", "sweep", "resume", "generation", "exams", "init_from"):
        del values[key]
    for group in ("model", "optimizer", "data", "trainer"):
        for key in type(getattr(config, group)).ADDED:
            del values[group][key]
    hidden = (
        "log_every",
        "checkpoint_every",
        "checkpoint_minutes",
        "keep_last",
        "keep_best",
        "sample_tokens",
    )
    values["trainer"] = {key: value for key, value in values["trainer"].items() if key not in hidden}
    before = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]
    assert config.fingerprint() == before
    config.exams = ExamsConfig("none", pairs=3)
    assert config.fingerprint() == before
    seen = {before}
    for exams in (
        ExamsConfig("all"),
        ExamsConfig("spelling"),
        ExamsConfig("all", pairs=3),
        ExamsConfig("all", "x"),
    ):
        config.exams = exams
        seen.add(config.fingerprint())
    assert len(seen) == 5


def make_runner(text: str, exams: ExamsConfig, seed: int = 1, **options: Any) -> ExamRunner:
    Path("text.txt").write_text(text, encoding="utf-8")
    config = make_config(Path("text.txt"))
    return ExamRunner(exams, TextData.build(config.data, config.tokenizer, 1), seed, **options)


def test_how_many_pairs_are_asked() -> None:
    """All by eval, 500 in training, or `exams.pairs`; the same draw each time."""
    text = make_english()
    (every,) = make_runner(text, ExamsConfig("grammar")).exams
    (some,) = make_runner(text, ExamsConfig("grammar"), in_training=True).exams
    (few,) = make_runner(text, ExamsConfig("grammar", pairs=7), in_training=True).exams
    assert [len(exam.pairs) for exam in (every, some, few)] == [len(set(every.pairs)), 500, 7]
    assert set(few.pairs) < set(every.pairs)
    assert len({pair.phenomenon for pair in some.pairs}) == 8
    assert few.notes[-1] == f"7 of {len(every.pairs):,} pairs, drawn by the seed"
    assert make_runner(text, ExamsConfig("grammar", pairs=7)).exams[0].pairs == few.pairs


def test_which_pairs_of_a_file_are_asked() -> None:
    """All pairs, or those that the seed draws."""
    Path("pairs.csv").write_text("".join(f"a {n},{n} a\n" for n in range(100)), encoding="utf-8")
    text = make_english(2000)
    (every,) = make_runner(text, ExamsConfig("all", "pairs.csv")).exams
    assert [pair.good for pair in every.pairs] == [f"a {n}" for n in range(100)]
    exams = ExamsConfig("all", "pairs.csv", 10)
    drawn = [make_runner(text, exams, seed).exams[0].pairs for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(set(some) < set(every.pairs) for some in drawn)


def test_the_rest_of_a_word_after_the_cut_is_skipped() -> None:
    """The training split may end inside a word: the rest of that word is not in the exam."""
    text = make_english(20_000)
    cut = int(0.9 * len(text))
    text = f"{text[: cut - 5]} notlanders {text[cut + 7 :]}"
    assert text[int(0.9 * len(text)) :].startswith("anders ")
    (exam,) = make_runner(text, ExamsConfig("spelling")).exams
    assert "anders" not in {pair.good for pair in exam.pairs}


def test_a_training_split_of_three_characters() -> None:
    """The baseline's longest n-grams do not fit into the training text."""
    Path("pairs.csv").write_text("ab,ba\n", encoding="utf-8")
    Path("text.txt").write_text("abab", encoding="utf-8")
    config = make_config(Path("text.txt"), data={"seq_len": 2})
    data = TextData.build(config.data, config.tokenizer, 1)
    assert ExamRunner(ExamsConfig("spelling", "pairs.csv"), data, 1).exams[0].pairs
