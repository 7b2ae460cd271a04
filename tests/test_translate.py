"""`seqexp generate` with a translation run: a line out for each line in, whatever stands in it."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ran, make_pairs, write_pairs

from seqexp.commands.build import TrainedRun, load_trained_run
from seqexp.config.run import DeviceConfig, GenerationConfig
from seqexp.data.parallel import pair_tokenizer
from seqexp.decoding.translation import LONGEST_SOURCE, Translated, Translator
from seqexp.tokenizers.word import WordTokenizer, join_words, split_words
from seqexp.tracking.plots import attention_figure, save
from seqexp.tracking.run_folder import RunFolder

Main = Callable[..., Ran]
Process = Callable[..., subprocess.CompletedProcess[str]]

DEVICE = ("device=cpu", "device.threads=1", "device.precision=fp32")
GREEDY = ("generation.beam_size=1", *DEVICE)
SOURCES = [source for source, _ in make_pairs()[:25]]
PNG = b"\x89PNG\r\n\x1a\n"


def only(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path


def recorded() -> list[dict[str, Any]]:
    """What the one run folder of `generate` keeps, by line."""
    text = only("outputs/generate/tiny/*/predictions.jsonl").read_text(encoding="utf-8")
    # Not splitlines(): a source may hold U+2028.
    return sorted(map(json.loads, text.removesuffix("\n").split("\n")), key=lambda row: row["line"])


def loaded(run: Path) -> TrainedRun:
    return load_trained_run(RunFolder(run), "best", DeviceConfig(name="cpu", precision="fp32", threads=1))


def translations(trained: TrainedRun, sources: list[str], **options: Any) -> list[Translated]:
    """The best translation of each source, with attention."""
    config = GenerationConfig(**options)
    tokenizer = pair_tokenizer(trained.preprocessor)
    translator = Translator(trained.model, tokenizer, config, torch.device("cpu"), want_attention=True)
    found = {number: some[0] for number, some, _ in translator.translate(sources)}
    return [found[number] for number in range(len(sources))]


# One sentence, and what is kept of it


def test_a_sentence(run_main: Main, nmt_run: Path) -> None:
    ran = run_main("generate", f"run={nmt_run}", f"text={SOURCES[0]}", *DEVICE)
    assert ran.code == 0, ran.err
    assert ran.out.count("\n") == 1
    (row,) = recorded()
    assert (row["line"], row["source"], row["translations"][0]["text"] + "\n") == (1, SOURCES[0], ran.out)
    (expected,) = translations(loaded(nmt_run), SOURCES[:1])
    assert row["translations"] == [
        {
            "text": expected.text,
            "score": pytest.approx(expected.score, rel=1e-5),
            "log_probability": pytest.approx(expected.log_probability, rel=1e-5),
        }
    ]
    folder = only("outputs/generate/tiny/*")
    result = json.loads((folder / "result.json").read_text())
    assert (result["command"], result["step"], result["predictions"]) == ("generate", 10, 1)
    assert (result["run"], result["generated_data"]) == (str(nmt_run), False)
    assert json.loads((folder / "status.json").read_text())["status"] == "finished"


def test_text_is_free_text(run_main: Main, nmt_run: Path) -> None:
    text = "Don't go, (he said): ${x} = [1, 2]; Où? 'yes' \\"
    ran = run_main("generate", f"run={nmt_run}", f"text={text}", *GREEDY)
    assert ran.code == 0, ran.err
    assert recorded()[0]["source"] == text


# Files and pipes

STRANGE = [
    b"I am cold .",
    b"",
    b"  \t ",
    b"\xff\xfe broken",
    b"He came back.\r",
    b"a " * 700,
    "Où ? \u2028 😀".encode(),
]


@pytest.mark.parametrize("end", [b"\n", b""])
def test_as_many_lines_out_as_in(run_main: Main, nmt_run: Path, end: bytes) -> None:
    Path("in.txt").write_bytes(b"\xef\xbb\xbf" + b"\n".join(STRANGE) + end)
    ran = run_main("generate", f"run={nmt_run}", "input=in.txt", *GREEDY)
    assert ran.code == 0, ran.err
    assert len(ran.out.removesuffix("\n").split("\n")) == len(STRANGE)
    assert len(ran.out.splitlines()) == len(STRANGE)
    lines = ran.out.splitlines()
    assert [bool(line) for line in lines] == [True, False, False, True, True, True, True]
    rows = recorded()
    assert [row["line"] for row in rows] == list(range(1, len(STRANGE) + 1))
    assert [row["translations"][0]["text"] for row in rows] == lines
    notes = {row["line"]: row["note"] for row in rows if "note" in row}
    assert notes[2] == notes[3] == "blank"
    assert "not UTF-8" in notes[4]
    assert notes[6].startswith(f"cut: 700 tokens, and the limit is {LONGEST_SOURCE}")
    assert notes[1] == "never seen in training: cold, ."
    assert "broken" in notes[4]
    assert rows[0]["source"] == "I am cold ."  # without the byte order mark
    assert rows[4]["source"] == "He came back."
    assert rows[3]["source"] == "\ufffd\ufffd broken"
    for number, note in notes.items():
        assert f"line {number}: {note}" in ran.err


@pytest.mark.parametrize(("content", "count"), [(b"", 0), (b"\n", 1), (b"\n\n\n", 3), (b"\r\n\r\n", 2)])
def test_files_without_a_sentence(run_main: Main, nmt_run: Path, content: bytes, count: int) -> None:
    Path("in.txt").write_bytes(content)
    ran = run_main("generate", f"run={nmt_run}", "input=in.txt", *GREEDY)
    assert (ran.code, ran.out) == (0, "\n" * count), ran.err


def test_many_notes_are_counted(run_main: Main, nmt_run: Path) -> None:
    Path("in.txt").write_text("\n" * 15)
    ran = run_main("generate", f"run={nmt_run}", "input=in.txt", *GREEDY)
    assert ran.err.count(": blank") == 10
    assert "5 more lines with notes" in ran.err


def test_the_order_is_that_of_the_file(run_main: Main, nmt_run: Path) -> None:
    """However they are sorted into batches: as each by itself, to an output file too."""
    Path("in.txt").write_text("".join(f"{source}\n" for source in SOURCES), encoding="utf-8")
    ran = run_main("generate", f"run={nmt_run}", "input=in.txt", "output=out=1.txt", *GREEDY)
    assert (ran.code, ran.out) == (0, ""), ran.err
    lines = Path("out=1.txt").read_text(encoding="utf-8").splitlines()
    trained = loaded(nmt_run)
    assert lines == [translations(trained, [source], beam_size=1)[0].text for source in SOURCES]
    assert len(set(lines)) > 1


def test_standard_input(
    run_main: Main, seqexp: Process, nmt_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in.txt").write_text("".join(f"{source}\n" for source in SOURCES[:3]), encoding="utf-8")
    words = ("generate", f"run={nmt_run}", *GREEDY)
    expected = run_main(*words, "input=in.txt").out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("in.txt").read_bytes())))
    assert run_main(*words, "input=-").out == expected
    done = seqexp(*words, input=Path("in.txt").read_text(encoding="utf-8"))
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


class Terminal(io.TextIOWrapper):
    """Standard input on which someone types."""

    def __init__(self, typed: bytes) -> None:
        super().__init__(io.BytesIO(typed), encoding="utf-8")

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no file")


def test_sentences_typed_one_by_one(run_main: Main, nmt_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = f"{SOURCES[0]}\n\n{SOURCES[1]}\n".encode() + b"\xff\n"
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    ran = run_main("generate", f"run={nmt_run}", "attention=out.png", *GREEDY)
    assert ran.code == 0, ran.err
    expected = [one.text for one in translations(loaded(nmt_run), SOURCES[:2], beam_size=1)]
    # Standard output has the translations alone; what asks for sentences is on standard error.
    assert ran.out.splitlines()[:3] == [expected[0], "", expected[1]]
    assert [row["line"] for row in recorded()] == [1, 2, 3, 4]
    assert {file.name for file in Path().glob("*.png")} >= {"out_001.png", "out_003.png"}
    assert "Ctrl-D ends" in ran.err
    assert ran.err.count("> ") == 5


# Options


def test_several_translations_are_json_lines(run_main: Main, nmt_run: Path) -> None:
    Path("in.txt").write_text(f"{SOURCES[0]}\n\n{SOURCES[1]}\n", encoding="utf-8")
    ran = run_main("generate", f"run={nmt_run}", "input=in.txt", "generation.n_best=3", *DEVICE)
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert rows == recorded()
    assert [len(row["translations"]) for row in rows] == [3, 1, 3]
    for row in (rows[0], rows[2]):
        scores = [one["score"] for one in row["translations"]]
        assert scores == sorted(scores, reverse=True)
        assert len({one["text"] for one in row["translations"]}) > 1
    Path("one.txt").write_text(f"{SOURCES[0]}\n")
    best = run_main("generate", f"run={nmt_run}", "input=one.txt", *DEVICE).out
    assert rows[0]["translations"][0]["text"] + "\n" == best


def test_attention_pictures(run_main: Main, nmt_run: Path) -> None:
    Path("pictures").mkdir()
    words = ("generate", f"run={nmt_run}", "attention=pictures/out.png", *GREEDY)
    ran = run_main(*words, f"text={SOURCES[0]}")
    assert ran.code == 0, ran.err
    assert "attention: pictures/out.png" in ran.err
    assert [file.name for file in Path("pictures").iterdir()] == ["out.png"]
    assert Path("pictures/out.png").read_bytes()[:8] == PNG
    Path("in.txt").write_text("\n$x_1$ costs 5 $ \x07\n", encoding="utf-8")
    ran = run_main(*words, "input=in.txt")
    assert ran.code == 0, ran.err
    # None of a blank line.
    assert {file.name for file in Path("pictures").iterdir()} == {"out.png", "out_002.png"}
    assert Path("pictures/out_002.png").read_bytes()[:8] == PNG


@pytest.mark.parametrize("sign", ["$", r"$\bad{$", "￭", "鬼", "\x07", "_^", "</s>"])
def test_any_sign_can_be_drawn(sign: str) -> None:
    """Nothing is read as a formula, and what the font does not have is no warning."""
    figure = attention_figure(np.eye(2), [sign, "b"], ["a", sign * 2], f"{sign} and {sign}")
    assert save(figure, Path("out.png"))[:8] == PNG


def test_what_was_written_scores_what_was_reported(run_main: Main, nmt_run: Path) -> None:
    """`eval score=true` on the translations gives their log-probabilities again."""
    options = {"beam_size": 3, "replace_unknown": False}
    Path("in.txt").write_text("".join(f"{source}\n" for source in SOURCES), encoding="utf-8")
    words = ("generation.beam_size=3", "generation.replace_unknown=false", *DEVICE)
    ran = run_main("generate", f"run={nmt_run}", "input=in.txt", *words)
    assert ran.code == 0, ran.err
    reported = [row["translations"][0]["log_probability"] for row in recorded()]
    trained = loaded(nmt_run)
    tokens = [one.tokens for one in translations(trained, SOURCES, **options)]
    lines = ran.out.splitlines()
    assert all(lines)
    write_pairs(Path("written.tsv"), list(zip(SOURCES, lines, strict=True)))
    ran = run_main("eval", f"run={nmt_run}", "data.path=written.tsv", "score=true", *DEVICE)
    assert ran.code == 0, ran.err
    scored = [json.loads(line)["log_probability"] for line in ran.out.splitlines()]
    # A model of ten steps may write a text in an unusual way, which is another way than it is read.
    usual = [
        number for number, line in enumerate(lines)
        if pair_tokenizer(trained.preprocessor).encode_target(line).tolist() == tokens[number]
    ]  # fmt: skip
    assert len(usual) >= 10
    assert [scored[n] for n in usual] == pytest.approx([reported[n] for n in usual], rel=1e-5)


def test_an_ensemble_of_a_run_with_itself_writes_the_same(run_main: Main, nmt_run: Path) -> None:
    words = ("generate", f"run={nmt_run}", f"text={SOURCES[3]}", *DEVICE)
    alone = run_main(*words)
    together = run_main(*words, f"ensemble=[{nmt_run},{nmt_run}]")
    assert (together.code, together.out) == (0, alone.out), together.err


# Unknown words


def test_unknown_words_are_copied_from_where_the_model_looked(nmt_run: Path) -> None:
    """A model that hardly writes anything but unknown words: each becomes the source word of most weight."""
    trained = loaded(nmt_run)
    tokenizer = pair_tokenizer(trained.preprocessor)
    unknown = tokenizer.target.unk_id
    with torch.no_grad():
        trained.model.head.bias[unknown] += 8
    source = "Zebulon asked the king Xerxes ?"
    assert unknown in tokenizer.encode_source(source)
    words = list(split_words(source))
    (found,) = translations(trained, [source], beam_size=2)
    assert found.tokens.count(unknown) >= 3
    assert found.attention is not None
    assert found.attention.shape == (len(found.tokens) + 1, len(words) + 1)
    assert found.source_labels == [*words, "</s>"]
    np.testing.assert_allclose(found.attention.sum(axis=1), 1, rtol=1e-5)
    target = tokenizer.target
    assert isinstance(target, WordTokenizer)
    expected = [
        words[int(np.argmax(weights[: len(words)]))] if token == unknown else target.piece(token)
        for token, weights in zip(found.tokens, found.attention, strict=False)
    ]
    assert found.text == join_words(expected)
    assert "\ufffd" not in found.text
    (known,) = translations(trained, [source], beam_size=2, replace_unknown=False)
    assert unknown not in known.tokens
    assert "\ufffd" not in known.text


# Mistakes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prompt=I am cold.",), "prompt= is not what the task of this run reads: give its input as text="),
        (("input=nothing.txt",), "input=nothing.txt cannot be read (No such file or directory)"),
        (("input=.",), "input=. cannot be read (Is a directory)"),
        (("text=a", "input=b"), "text= and input= were given together"),
        (("text=a", "output=no/such/folder.txt"), "output=no/such/folder.txt cannot be written"),
        (("text=a", "attention=no/such/folder.png"), "attention=no/such/folder.png cannot be written"),
        (("text=a", "ensemble=[LM]"), "has other tokenizers than"),
        (("text=a", "checkpoint=7"), "checkpoint=7 is not in"),
        (("text=I \udcff am",), "'text=I \\udcff am' is not UTF-8 text"),
        ((), "there is no input; write text="),
        (("run=LM", "text=a"), "text= is not what the task of this run reads: give its input as prompt="),
        (("run=LM", "prompt=a", "attention=a.png"), "explain= and attention= are not available"),
    ],
)
def test_mistakes_with_generate(
    run_main: Main, nmt_run: Path, tiny_run: Path, words: tuple[str, ...], told: str
) -> None:
    run = [] if words and words[0].startswith("run=") else [f"run={nmt_run}"]
    ran = run_main("generate", *run, *(word.replace("LM", str(tiny_run)) for word in words), *GREEDY)
    assert ran.code == 2, ran.err
    assert told in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert not Path("outputs").exists()
