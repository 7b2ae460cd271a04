"""Helpers for tests of exams: models with known probabilities, an English text, and runs."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Ran, _main, _stand_clean
from torch import Tensor, nn

from seqexp.exams import grammar_words
from seqexp.exams.grading import grade
from seqexp.exams.questions import Exam, MinimalPair
from seqexp.exams.scoring import Scorer
from seqexp.tokenizers.base import Tokenizer

Main = Callable[..., Ran]


GRAMMAR = """himself herself themselves who had has have was were is are this that these those not ever any
nobody very quite the"""


class TableModel(nn.Module):
    """Logits from random tables of the last two tokens; the token before the first is V."""

    def __init__(self, vocab_size: int, max_len: int | None = None, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.max_len = max_len
        self.last = nn.Parameter(torch.randn(vocab_size, vocab_size, generator=draw))
        self.before = nn.Parameter(torch.randn(vocab_size + 1, vocab_size, generator=draw))

    def forward(self, tokens: Tensor) -> Tensor:
        assert self.max_len is None or tokens.shape[1] <= self.max_len
        first = torch.full_like(tokens[:, :1], len(self.last))
        return self.last[tokens] + self.before[torch.cat((first, tokens[:, :-1]), dim=1)]


class ConstantModel(nn.Module):
    """A model with equal probabilities of all tokens."""

    def __init__(self, vocab_size: int, max_len: int | None = None) -> None:
        super().__init__()
        self.max_len = max_len
        self.logits = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits.expand(*tokens.shape, -1)


class OracleModel(nn.Module):
    """A model that memorised some texts: their next tokens, and their ends, are more likely than others."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(tokenizer.vocab_size))
        self.next: dict[tuple[int, ...], set[int]] = {}
        for text in texts:
            ids = [tokenizer.bos_id, *tokenizer.encode(text).tolist(), tokenizer.bos_id]
            for i in range(1, len(ids)):
                self.next.setdefault(tuple(ids[:i]), set()).add(ids[i])

    def forward(self, tokens: Tensor) -> Tensor:
        logits = self.logits.repeat(*tokens.shape, 1)
        for b, row in enumerate(tokens.tolist()):
            for t in range(len(row)):
                logits[b, t, list(self.next.get(tuple(row[: t + 1]), ()))] = 6.0
        return logits


def judge(scorer: Scorer, pairs: Sequence[tuple[str, str]], name: str = "grammar") -> dict[str, Any]:
    """Return the report of an exam of these pairs, without a baseline."""
    exam = Exam(name, "here", [MinimalPair(good, bad) for good, bad in pairs])
    good, bad = (scorer.score(side, words=exam.of_words) for side in zip(*pairs, strict=True))
    unknown = [a + b for a, b in zip(good.unknown, bad.unknown, strict=True)]
    return grade(exam, good.log_probabilities, bad.log_probabilities, unknown)


def make_english(characters: int = 40_000, seed: int = 0) -> str:
    """Make sentences from the words of the grammar exam, with two speakers; the same for the same seed."""
    draw = random.Random(seed)
    tables = {name: grammar_words.rows(getattr(grammar_words, name)) for name in
              ("PEOPLE", "THINGS", "IRREGULAR", "ACTS", "LOOKED")}  # fmt: skip
    lists = {name: getattr(grammar_words, name).split() for name in
             ("DONE", "REFLEXIVE", "STATES", "QUALITIES", "BESIDE")}  # fmt: skip

    def one(name: str) -> str:
        return draw.choice(lists[name])

    def form(name: str) -> str:
        return draw.choice(draw.choice(tables[name])[:2])

    sentences = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]  # a non-word may begin with any of them
    size = 0
    while size < characters:
        name, own = draw.choice([("Anna", "she"), ("Peter", "he")])
        verb = draw.choice(draw.choice(tables["IRREGULAR"]))
        sentence = draw.choice([
            f"The {form('PEOPLE')} {one('BESIDE')} the {form('THINGS')} {form('ACTS')}.",
            f"{name} said that {own} had {one('DONE')} the {one('QUALITIES')} {form('THINGS')}.",
            f"The {one('STATES')} {form('PEOPLE')} {one('REFLEXIVE')} and {verb} the {form('THINGS')}!",
            f"{name} {' '.join(draw.choice(tables['LOOKED']))} a very {one('QUALITIES')} {form('THINGS')}?",
            f"Nobody {' '.join(draw.choices(GRAMMAR.split(), k=3))} the {form('PEOPLE')}.",
        ])  # fmt: skip
        sentences.append(sentence)
        size += len(sentence) + 1
    return " ".join(sentences)


def read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


DEVICE = ("device=cpu", "device.threads=1", "device.precision=fp32")
SHORT = (*TINY, "scheduler=constant", "scheduler.warmup_steps=0", "trainer.sample_tokens=0")
ALL = ("exams=all", "exams.pairs=20")


def train_in(place: Path, cache: Path, *words: str) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        _stand_clean(monkeypatch, cache, place)
        ran = _main("train", "data=text", *SHORT, *words)
    assert ran.code == 0, ran.err
    (folder,) = (place / "outputs/train").glob("*/*")
    return folder


def evaluate(run_main: Main, run: Path | str, *words: str) -> tuple[dict[str, Any], Path]:
    """Run `seqexp eval`; return its result and its folder."""
    before = set(Path("outputs").glob("eval/*/*"))
    ran = run_main("eval", f"run={run}", *DEVICE, *words)
    assert ran.code == 0, ran.err
    (folder,) = set(Path("outputs").glob("eval/*/*")) - before
    result = read(folder / "result.json")
    assert json.loads(ran.out) == result
    return result, folder
