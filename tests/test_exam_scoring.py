"""Scores of exams against sums by hand, for any batch, window and tokenizer."""

import math
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_book
from exam_helpers import ConstantModel, OracleModel, TableModel, judge

from seqexp.config.tokenizer import SentencePieceConfig, WordConfig
from seqexp.errors import RunFailedError
from seqexp.exams import scoring
from seqexp.exams.grading import credits_of, grade
from seqexp.exams.questions import Exam, MinimalPair, band_of
from seqexp.exams.runner import exam_metrics
from seqexp.exams.scoring import Scorer
from seqexp.models.gpt import GPT
from seqexp.models.rnn import GRU, LSTM, RNN
from seqexp.tokenizers.base import Tokenizer
from seqexp.tokenizers.byte import ByteTokenizer
from seqexp.tokenizers.char import CharTokenizer
from seqexp.tokenizers.sentencepiece import SentencePieceTokenizer
from seqexp.tokenizers.word import WordTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

CHARACTERS = CharTokenizer(" '.abcdeé")
SENTENCES = ["ab cé.", "a", "", "bad ade", "dé'a.", "cab bad cab bad.", "ab cé."]
WORDS = ["bad", "cab", "é", "a", "decade"]


def by_hand(model: TableModel, ids: Sequence[int], ends: Sequence[int] | None = None) -> float:
    """Return the sum of log p(token | last two tokens); with `ends`, add log p(any of these) at the end."""
    last, before = model.last.tolist(), model.before.tolist()

    def probabilities(t: int) -> list[float]:
        """After token t."""
        history = ids[t - 1] if t else len(last)
        weights = [math.exp(a + b) for a, b in zip(last[ids[t]], before[history], strict=True)]
        return [weight / sum(weights) for weight in weights]

    total = sum(math.log(probabilities(t)[ids[t + 1]]) for t in range(len(ids) - 1))
    if ends is not None:
        after = probabilities(len(ids) - 1)
        total += math.log(sum(after[number] for number in ends))
    return total


@pytest.mark.parametrize("max_len", [None, 4, 5, 64])
def test_sentences_by_hand(max_len: int | None) -> None:
    """Token 0 is the boundary, 1 the unknown character, and the others follow in order."""
    model = TableModel(11, max_len)
    scores = Scorer(model, CHARACTERS).score(SENTENCES, words=False)
    ids = [[0, *(2 + " '.abcdeé".index(character) for character in text)] for text in SENTENCES]
    expected = [by_hand(model, some) for some in ids]
    assert scores.log_probabilities == pytest.approx(expected, abs=1e-5)
    assert scores.log_probabilities[2] == 0
    assert scores.unknown == [""] * len(SENTENCES)


@pytest.mark.parametrize("max_len", [None, 4, 5, 64])
def test_words_by_hand(max_len: int | None) -> None:
    """After the word comes a non-letter or the boundary, not the unknown character; before it, a space."""
    model = TableModel(11, max_len, seed=1)
    scores = Scorer(model, CHARACTERS).score(WORDS, words=True)
    ids = [[0, 2, *(2 + " '.abcdeé".index(character) for character in word)] for word in WORDS]
    expected = [by_hand(model, some, ends=[0, 2, 3, 4]) for some in ids]
    assert scores.log_probabilities == pytest.approx(expected, abs=1e-5)


def test_words_in_bytes_by_hand() -> None:
    """Bytes from 128 on do not end a word: é is a letter."""
    model = TableModel(257, seed=2)
    scores = Scorer(model, ByteTokenizer()).score(["bé", "a"], words=True)
    ends = [256, *(byte for byte in range(128) if not chr(byte).isalpha())]
    ids = [[256, *" bé".encode()], [256, *b" a"]]
    assert scores.log_probabilities == pytest.approx([by_hand(model, i, ends) for i in ids], abs=1e-5)


@cache
def tokenizer(name: str) -> Tokenizer:
    book = make_book(8000)
    if name == "char":
        return CharTokenizer.fit(None, [book])
    if name == "word":
        return WordTokenizer.fit(WordConfig(min_count=1), [book, "20°C (or) ﻿l'eau don't"])
    if name == "byte":
        return ByteTokenizer()
    return SentencePieceTokenizer.fit(SentencePieceConfig(vocab_size=380), [book])


def ending(name: str) -> list[str]:
    """Return the pieces of a tokenizer that end the word before them."""
    some = tokenizer(name)
    return [some.piece(number) for number in range(some.vocab_size) if some.ends_word(number)]


def test_which_characters_end_a_word() -> None:
    some = tokenizer("char")
    letters = {piece for piece in map(some.piece, range(some.vocab_size)) if piece.isalpha()}
    assert {"ë", "ù", "A", "y"} <= letters
    every = {some.piece(number) for number in range(some.vocab_size)}
    assert set(ending("char")) == every - letters - {"<unk>"}
    assert {"</s>", " ", "\n", "1", "-", "'", "."} <= set(ending("char"))


def test_which_bytes_end_a_word() -> None:
    """Bytes of multi-byte characters do not end a word."""
    some = tokenizer("byte")
    ends = [number for number in range(257) if some.ends_word(number)]
    letters = [*range(ord("a"), ord("z") + 1), *range(ord("A"), ord("Z") + 1)]
    assert ends == [number for number in [*range(128), 256] if number not in letters]


def test_which_words_end_a_word() -> None:
    """Every word except the unknown one and those joined to the word before."""
    some = tokenizer("word")
    every = {some.piece(number) for number in range(some.vocab_size)}
    joined = {piece for piece in every if piece.startswith("￭")}
    assert {"￭C", "￭Why"} <= joined
    assert set(ending("word")) == every - {"<unk>"} - joined
    assert {"</s>", "the", "'t", "."} <= set(ending("word"))


def test_which_subwords_end_a_word() -> None:
    """Subwords that begin with a space, a sign, a digit or a line end, and the boundary end a word."""
    some = tokenizer("sentencepiece")
    every = [some.piece(number) for number in range(some.vocab_size)]
    inner = [piece for piece in every if piece[0].isalpha()]
    assert {"s", "e", "Z"} <= {piece[0] for piece in inner}
    ends = set(ending("sentencepiece"))
    assert not ends & {*inner, "<unk>", "<0x41>", "<0x7A>", "<0xC3>", "<0xA9>"}
    wanted = {piece for piece in every if piece[0] not in "<" and piece not in inner}
    assert {"</s>", "<0x20>", "<0x0A>", "<0x31>", "\n"} | wanted <= ends
    assert "▁" in wanted
    assert any(piece[0] == "▁" and piece[1:].isalpha() for piece in wanted)
    assert some.sentence_start == some.word_start == " "


# Models of the registry


def model_of(kind: str, vocab_size: int, max_len: int = 48) -> torch.nn.Module:
    torch.manual_seed(3)
    if kind in ("rnn", "lstm", "gru"):
        network = {"rnn": RNN, "lstm": LSTM, "gru": GRU}[kind]
        model: torch.nn.Module = network(vocab_size, 12, n_layer=2, n_embd=8)
    else:
        model = GPT(vocab_size, max_len, n_layer=2, n_head=2, n_embd=16, dropout=0.2, positions=kind)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def some_texts(number: int, longest: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    book = make_book(8000)
    spans = [(draw.randrange(7000), draw.randint(1, longest)) for _ in range(number)]
    return [book[start : start + length] for start, length in spans]


def alone(model: Any, some: Tokenizer, text: str, words: bool) -> float:
    """Score one text token by token through `start` and `step`, in fp64."""
    ids = some.encode((some.word_start if words else some.sentence_start) + text).tolist()
    state, total, token = model.start(), 0.0, some.bos_id
    with torch.no_grad():
        for following in [*ids, None]:
            logits, state = model.step(torch.tensor([[token]]), state)
            log_p = logits[0, -1].double().log_softmax(0)
            if following is not None:
                total += float(log_p[following])
                token = following
        if words:
            ends = [number for number in range(some.vocab_size) if some.ends_word(number)]
            total += float(log_p[ends].logsumexp(0))
    return total


KINDS = ["learned", "rotary", "sinusoidal", "rnn", "lstm", "gru"]


@pytest.mark.parametrize("words", [False, True], ids=["sentences", "words"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_changes_nothing(kind: str, words: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text alone, all together, in another order, in small batches, twice: the same to 1e-5."""
    some = tokenizer("char")
    model = model_of(kind, some.vocab_size)
    scorer = Scorer(model, some)
    texts = [*some_texts(40, 40), "a", "The"]
    together = scorer.score(texts, words=words).log_probabilities
    single = [scorer.score([text], words=words).log_probabilities[0] for text in texts]
    assert together == pytest.approx(single, abs=1e-5)
    reference = [alone(model.eval(), some, text, words) for text in texts[::8]]
    assert together[::8] == pytest.approx(reference, abs=1e-5)
    order = random.Random(1).sample(range(len(texts)), len(texts))
    shuffled = scorer.score([texts[i] for i in order], words=words).log_probabilities
    assert shuffled == pytest.approx(together[order], abs=1e-5)
    twice = scorer.score([*texts, "More", *texts], words=words).log_probabilities
    assert twice[: len(texts)].tolist() == twice[len(texts) + 1 :].tolist()
    assert twice[: len(texts)] == pytest.approx(together, abs=1e-5)
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 100)
    assert scorer.score(texts, words=words).log_probabilities == pytest.approx(together, abs=1e-5)


def test_the_model_is_left_in_its_mode() -> None:
    """Dropout is off while texts are scored, and the model's mode is restored."""
    some = tokenizer("char")
    model = model_of("learned", some.vocab_size).train()
    scorer = Scorer(model, some)
    first, second = (scorer.score(["The old door"], words=False).log_probabilities for _ in range(2))
    assert first.tolist() == second.tolist()
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("max_len", [8, 7, 2])
@pytest.mark.parametrize("words", [False, True], ids=["sentences", "words"])
@pytest.mark.parametrize("kind", ["learned", "rotary", "sinusoidal", "gru"])
def test_texts_longer_than_the_window(kind: str, words: bool, max_len: int) -> None:
    """As in generation, a full window keeps its last half; a recurrent model has no window."""
    some = tokenizer("char")
    model = model_of(kind, some.vocab_size, max_len).eval()
    book = make_book(8000)
    texts = [book[100 : 100 + length] for length in (1, 5, 6, 7, 8, 9, 11, 12, 13, 40, 61)]
    found = Scorer(model, some).score(texts, words=words).log_probabilities
    assert found == pytest.approx([alone(model, some, text, words) for text in texts], abs=1e-4)


@pytest.mark.parametrize("max_len", [2, 3, 8, 64, None])
def test_every_token_counts_once(max_len: int | None) -> None:
    """With uniform probabilities a text costs its length times log V."""
    scorer = Scorer(ConstantModel(11, max_len), CHARACTERS)
    texts = ["a" * n for n in range(1, 40)]
    found = scorer.score(texts, words=False).log_probabilities
    assert found == pytest.approx([-n * math.log(11) for n in range(1, 40)], rel=1e-6)
    words = scorer.score(texts, words=True).log_probabilities
    end = math.log(4 / 11)
    assert words == pytest.approx([-(n + 1) * math.log(11) + end for n in range(1, 40)], rel=1e-6)


def test_no_texts() -> None:
    scores = Scorer(ConstantModel(11, 8), CHARACTERS).score([], words=True)
    assert (len(scores.log_probabilities), scores.unknown, scores.tokens) == (0, [], 0)


# From scores to accuracies


SENTENCE_PAIRS = [("bad cab.", "cab bad."), ("a cab", "a dab"), ("dé a", "da é"), ("ad.", "da.")]
WORD_PAIRS = [("bad", "bbd"), ("cab", "cba"), ("cabé", "caéb"), ("bad", "ddd")]


@pytest.mark.parametrize(("name", "pairs"), [("grammar", SENTENCE_PAIRS), ("spelling", WORD_PAIRS)])
def test_an_oracle_is_always_right_and_a_constant_model_half(name: str, pairs: list[tuple[str, str]]) -> None:
    before = " " if name == "spelling" else ""
    oracle = Scorer(OracleModel(CHARACTERS, [before + good for good, _ in pairs]), CHARACTERS)
    backwards = [(bad, good) for good, bad in pairs]
    right, wrong = judge(oracle, pairs, name), judge(oracle, backwards, name)
    assert right["overall"]["accuracy"] == 1
    assert wrong["overall"]["accuracy"] == 0
    assert (right["ties"], right["mistakes"], len(wrong["mistakes"])) == (0, [], 4)
    constant = judge(Scorer(ConstantModel(11, 4), CHARACTERS), pairs, name)
    assert constant["overall"]["accuracy"] == 0.5
    assert (constant["ties"], constant["mistakes"]) == (4, [])


@pytest.mark.parametrize("name", ["grammar", "spelling"])
def test_good_and_bad_swapped(name: str) -> None:
    """The accuracy becomes one minus itself, with ties or without."""
    some = tokenizer("char")
    scorer = Scorer(model_of("rotary", some.vocab_size), some)
    texts = some_texts(101, 12)
    pairs = [*zip(texts[:50], texts[50:100], strict=True), (texts[0], texts[0])]
    score = judge(scorer, pairs, name)["overall"]["accuracy"]
    swapped = judge(scorer, [(bad, good) for good, bad in pairs], name)["overall"]["accuracy"]
    assert swapped == pytest.approx(1 - score, abs=1e-12)
    assert 0.1 < score < 0.9
    assert score * 51 % 1 == pytest.approx(0.5)


def test_sums_decide_not_means() -> None:
    """A longer text is less likely, whatever the mean log-probability of its tokens."""
    scorer = Scorer(ConstantModel(11), CHARACTERS)
    assert judge(scorer, [("a cab", "a cabé")])["overall"]["accuracy"] == 1
    assert judge(scorer, [("a cabé", "a cab")])["overall"]["accuracy"] == 0


def test_credits() -> None:
    good = np.array([-1.0, -2.0, -3.0, np.nan, -1.0, np.nan, -np.inf])
    bad = np.array([-2.0, -1.0, -3.0, -1.0, np.nan, np.nan, -np.inf])
    assert str(credits_of(good, bad).tolist()) == "[1.0, 0.0, 0.5, nan, nan, nan, 0.5]"


@pytest.mark.parametrize("words", [False, True], ids=["sentences", "words"])
def test_no_number_is_an_error(words: bool) -> None:
    """NaN in one text of many is an error; NaN in the padding is not."""
    model = TableModel(11, 4)
    scorer = Scorer(model, CHARACTERS)
    with torch.no_grad():
        model.last[CHARACTERS.encode("é")[0]] = math.nan
    assert np.isfinite(scorer.score(["bad", "cabba"], words=words).log_probabilities).all()
    with pytest.raises(RunFailedError, match="NaN for text 2 "):
        scorer.score(["bad", "éa", "a"], words=words)


def test_pairs_with_unknown_characters_are_counted_and_skipped() -> None:
    pairs = [("bad", "bzd"), ("cab", "cba"), ("xab", "bqa"), ("bad", "bbd")]
    report = judge(Scorer(ConstantModel(11, 8), CHARACTERS), pairs, "spelling")
    assert (report["questions"], report["skipped"], report["overall"]["pairs"]) == (4, 2, 2)
    assert report["unknown_characters"] == "zxq"
    assert any("2 of 4 pairs" in note and "zxq" in note for note in report["notes"])
    (name, metric), *rest = exam_metrics([report]).items()
    assert (name, metric.value, metric.count, rest) == ("exam/spelling", 0.5, 2, [])
    assert metric.interval == tuple(report["overall"]["interval"])
    assert metric.higher_is_better
    scores = Scorer(ConstantModel(11, 8), CHARACTERS).score(["bad", "bzdz"], words=True)
    assert np.isnan(scores.log_probabilities).tolist() == [False, True]
    assert scores.unknown == ["", "z"]


def test_all_pairs_are_skipped() -> None:
    """There is a report with a note, and no metric."""
    report = judge(Scorer(ConstantModel(11, 8), CHARACTERS), [("xyz", "zyx"), ("zzz", "xxx")])
    assert report["overall"] == {"pairs": 0}
    assert (report["skipped"], report["mistakes"]) == (2, [])
    assert any("2 of 2 pairs" in note for note in report["notes"])
    assert exam_metrics([report]) == {}


def test_an_exam_without_pairs_has_a_report() -> None:
    empty = np.zeros(0)
    report = grade(Exam("spelling", "here", []), empty, empty, [], (empty, empty))
    assert (report["questions"], report["overall"]) == (0, {"pairs": 0})


def test_the_report_by_hand() -> None:
    """Groups with their baseline, and mistakes, the most confident first."""
    seen = [0, 3, 3, 6, 20, 21, 100, 101, 5000]
    new = [4, 4, 5, 5, 5, 6, 6, 6, 6]
    pairs = [MinimalPair(f"good{i}", f"bad{i}", seen=seen[i], new_stretch=new[i]) for i in range(9)]
    good = -np.array([1.0, 5.0, 2.0, 2.0, 2.0, 2.0, 9.0, 2.0, np.nan])
    bad = -np.array([2.0, 1.0, 2.0, 3.0, 3.0, 3.0, 8.0, 3.0, 1.0])
    baseline = (bad, good)
    report = grade(Exam("spelling", "here", pairs), good, bad, [""] * 8 + ["ö"], baseline)
    assert report["words"] == 9
    assert report["overall"]["pairs"] == 8
    assert report["overall"]["accuracy"] == 5.5 / 8
    assert report["overall"]["baseline"]["accuracy"] == 2.5 / 8
    assert report["overall"]["ahead"]["value"] == pytest.approx(3 / 8)
    low, high = report["overall"]["interval"]
    assert 0 < low < 5.5 / 8 < high < 1
    cells = {
        (group["by"], group["name"]): (group["pairs"], group.get("accuracy")) for group in report["groups"]
    }
    assert cells == {
        ("training", "seen"): (7, 4.5 / 7),
        ("training", "unseen"): (1, 1.0),
        ("frequency", "seen 1–5 times"): (2, 0.25),
        ("frequency", "6–20 times"): (2, 1.0),
        ("frequency", "21–100 times"): (2, 0.5),
        ("frequency", "more often"): (1, 1.0),
        ("non-word", "4 letters in a row are new"): (2, 0.5),
        ("non-word", "5 letters in a row are new"): (3, 2.5 / 3),
        ("non-word", "no 5 letters in a row are new"): (3, 2 / 3),
    }
    assert [mistake["good"] for mistake in report["mistakes"]] == ["good1", "good6"]
    assert report["mistakes"][0]["log_probability_good"] == -5
    assert (report["ties"], report["skipped"], report["unknown_characters"]) == (1, 1, "ö")
    bands = [band_of(n) for n in (0, 1, 5, 6, 101)]
    assert bands == ["unseen", "seen 1–5 times", "seen 1–5 times", "6–20 times", "more often"]


def test_ten_mistakes_at_most() -> None:
    pairs = [MinimalPair(f"good{i}", f"bad{i}", phenomenon=f"p{i % 2}") for i in range(30)]
    margins = np.arange(30.0)
    report = grade(Exam("grammar", "here", pairs), -margins, np.zeros(30), [""] * 30)
    assert [mistake["good"] for mistake in report["mistakes"]] == [f"good{i}" for i in range(29, 19, -1)]
    assert [(group["by"], group["name"], group["pairs"]) for group in report["groups"]] == [
        ("phenomenon", "p0", 15),
        ("phenomenon", "p1", 15),
    ]
    assert report["words"] is None
