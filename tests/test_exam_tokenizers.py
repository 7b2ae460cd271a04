"""Runs with characters, bytes, words and subwords: bits per character, and the same exams."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exam_helpers import ALL, DEVICE, SHORT, Main, evaluate, read, rows_of, train_in

from seqexp.commands import build
from seqexp.config.run import DeviceConfig
from seqexp.tracking.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENIZERS = {
    "char": ("tokenizer=char",),
    "byte": ("tokenizer=byte",),
    "word": ("tokenizer=word",),
    "sentencepiece": ("tokenizer=sentencepiece", "tokenizer.vocab_size=400"),
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path, english: Path) -> dict[str, Path]:
    """A run of two steps with each tokenizer."""
    few = (f"data.path={english}", "trainer.max_steps=2", "trainer.eval_every=2")
    return {
        name: train_in(tmp_path_factory.mktemp(name), cache_folder, *few, f"name={name}", *words)
        for name, words in TOKENIZERS.items()
    }


def test_no_exams_leave_no_trace(runs: dict[str, Path]) -> None:
    rows = rows_of(runs["char"] / "metrics.jsonl")
    assert not [name for row in rows for name in row if name.startswith("exam")]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_bits_per_character(run_main: Main, runs: dict[str, Path], english: Path, name: str) -> None:
    """Nats of all tokens of the validation split, over its characters and ln 2, for every tokenizer."""
    result, _ = evaluate(run_main, runs[name])
    text = english.read_text(encoding="utf-8")
    cut = int(0.9 * len(text))
    trained = build.load_trained_run(RunFolder(runs[name]), "best", DeviceConfig("cpu", "fp32", "false", 1))
    tokenizer = trained.preprocessor["text"]
    train, val = (tokenizer.encode(part).astype(np.int64) for part in (text[:cut], text[cut:]))
    tokens = torch.from_numpy(np.concatenate((train[-1:], val)))
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(val), 16):
            window = tokens[start : start + 17]
            logits = trained.model(window[None, :-1])[0].double()
            nats -= float(logits.log_softmax(1).gather(1, window[1:, None]).sum())
    bits = nats / math.log(2) / (len(text) - cut)
    assert result["metrics"]["val/bits_per_char"] == pytest.approx(bits, rel=1e-5)
    assert result["metrics"]["val/loss"] == pytest.approx(nats / len(val), rel=1e-5)
    assert result["rows"][0]["metrics"]["bits_per_char"]["count"] == len(text) - cut
    assert result["characters"] == len(text) - cut


@pytest.mark.parametrize("name", TOKENIZERS)
def test_exams_with_every_tokenizer(run_main: Main, runs: dict[str, Path], name: str) -> None:
    """A word tokenizer knows no non-words: a note, no metric, and the other exam still runs."""
    result, folder = evaluate(run_main, runs[name], *ALL)
    spelling, grammar = result["exams"]
    assert grammar["overall"]["pairs"] == 20
    assert "exam/grammar" in result["metrics"]
    if name != "word":
        assert spelling["overall"]["pairs"] == 20
        assert spelling["skipped"] == 0
        return
    assert spelling["overall"] == {"pairs": 0}
    assert (spelling["questions"], spelling["skipped"]) == (20, 20)
    assert "exam/spelling" not in result["metrics"]
    assert any("20 of 20 pairs were skipped" in note for note in spelling["notes"])
    assert (folder / "plots/exam_spelling.png").is_file()


def test_exams_in_training_with_a_word_tokenizer(run_main: Main, english: Path) -> None:
    words = (f"data.path={english}", "tokenizer=word", "trainer.max_steps=1", "name=words")
    ran = run_main("train", "data=text", *SHORT, *words, *ALL)
    assert ran.code == 0, ran.err
    (run,) = Path("outputs/train/words").iterdir()
    (row,) = (row for row in rows_of(run / "metrics.jsonl") if "exam/grammar" in row)
    assert row["exam/spelling"] is None
    assert 0 < row["exam/grammar"] < 1


def test_weights_that_are_nan(run_main: Main, runs: dict[str, Path]) -> None:
    """A damaged run fails with a one-line message."""
    load = build.load_trained_run

    def damaged(*arguments: Any) -> Any:
        trained = load(*arguments)
        with torch.no_grad():
            next(trained.model.parameters()).fill_(math.nan)
        return trained

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(build, "load_trained_run", damaged)
        ran = run_main("eval", f"run={runs['char']}", *ALL, *DEVICE)
    assert ran.code == 1, ran.err
    assert "NaN" in ran.err.splitlines()[-1]
    (status,) = Path("outputs/eval").glob("*/*/status.json")
    assert read(status)["status"] == "failed"
