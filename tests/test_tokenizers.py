"""Words, subwords and pairs of tokenizers: every text comes back, and damaged states are refused."""

import base64
import json
import math
import random
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Ran, make_book
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqexp.config.tokenizer import SentencePieceConfig, WhitespaceConfig, WordConfig
from seqexp.data.fitting import fit_tokenizer
from seqexp.data.parallel import pair_tokenizer
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import UserError
from seqexp.tokenizers import sentencepiece as sentencepiece_module
from seqexp.tokenizers.base import Tokenizer, tokenizer_from_plain
from seqexp.tokenizers.char import CharTokenizer
from seqexp.tokenizers.pair import PairTokenizer, length_ratio
from seqexp.tokenizers.sentencepiece import SentencePieceTokenizer
from seqexp.tokenizers.whitespace import WhitespaceTokenizer
from seqexp.tokenizers.word import WordTokenizer, join_words, split_words

Main = Callable[..., Ran]

# What the rules about spaces are made of, and the marks themselves.
FRAGMENTS = [
    " ", "  ", "\n", "\r\n", "\t", "'", "’", "-", "(", "[", "_", "▁", "￭", "▁▁", "￭a", " ?", " !", "« ", " »",
    "\u00a0", "\u202f", "\u2028", "l'", "L’", "n't", "'s", "'re ", "aujourd'hui", "Qu'est-ce que", "5 000",
    "été", "e\u0301", "a", "I", "1", "😀", "👩\u200d👧", "\ufffd", "\x00", "\ufeff",
]  # fmt: skip


def texts(characters: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    fragment = st.one_of(st.sampled_from(FRAGMENTS), st.text(characters, max_size=3))
    return st.lists(fragment, max_size=12).map("".join)


def through_json(tokenizer: Tokenizer) -> Tokenizer:
    return tokenizer_from_plain(json.loads(json.dumps(tokenizer.to_plain())))


# Words


@settings(max_examples=500)
@given(text=texts(st.characters()))
@example(text="It's  5 000 ￭km ▁ here :\n\n « où ? » ")
@example(text="\ud83d alone")
@example(text="")
def test_words_give_every_text_back(text: str) -> None:
    words = list(split_words(text))
    assert join_words(words) == text
    assert all(words)
    tokenizer = WordTokenizer.fit(WordConfig(min_count=1), [text])
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.decode([tokenizer.bos_id, *ids]) == text
    assert tokenizer.join(tokenizer.pieces(text)) == text
    assert [tokenizer.piece(number) for number in ids] == tokenizer.pieces(text) == words
    assert tokenizer.unk_id not in ids
    assert tokenizer.vocab_size == 2 + len(set(words))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't know, she's tired.", "I|don|'t|know|,|she|'s|tired|."),
        ("They’ve gone; we'll see, I'd say.", "They|’ve|gone|;|we|'ll|see|,|I|'d|say|."),
        ("L'homme qu'elle aime n’est pas là.", "L'|homme|qu'|elle|aime|n’|est|pas|là|."),
        ("Où est-il ?", "Où|est|-|il|▁?"),
        ("« Oui ! »", "«|Oui|▁!|▁»"),
        ("It is 20°C (or so) here", "It|is|20|°|￭C|▁(|or|so|)|here"),
        ("one\ntwo\n", "one|\n|two|\n"),
        ("a  b ", "a|▁ |￭b|▁"),
    ],
)
def test_words_of_english_and_french(text: str, words: str) -> None:
    assert list(split_words(text)) == words.split("|")


def test_a_word_is_the_same_wherever_it_stands() -> None:
    """At the start of a line or inside one, after a bracket or an elision: one entry of the vocabulary."""
    words = split_words("house (house) house\nhouse-house l'house")
    assert set(words) == {"house", "▁(", ")", "\n", "-", "l'"}


def test_which_words_are_kept_and_their_order() -> None:
    """By count, then by alphabet, whatever the order in which the texts came."""
    texts = ["dog cat cat owl\n", "bee owl ant bee"]
    for some in (texts, texts[::-1]):
        every = WordTokenizer.fit(WordConfig(min_count=1), some)
        assert every.words == ["bee", "cat", "owl", "\n", "ant", "dog"]
        assert WordTokenizer.fit(WordConfig(min_count=2), some).words == ["bee", "cat", "owl"]
        assert WordTokenizer.fit(WordConfig(min_count=1, vocab_size=4), some).words == every.words[:4]
        assert WordTokenizer.fit(WordConfig(min_count=3), some).vocab_size == 2
    assert WordTokenizer.fit(WordConfig(min_count=1), []).vocab_size == 2


def test_unknown_words() -> None:
    tokenizer = WordTokenizer.fit(WordConfig(min_count=1), ["the cat, the dog"])
    ids = tokenizer.encode("the zebra, the owl")
    assert [number == tokenizer.unk_id for number in ids.tolist()] == [False, True, False, False, True]
    assert tokenizer.decode(ids.tolist()).count("\ufffd") == 2
    assert tokenizer.unknown_characters("the zebra, the owl") == "zebraowl"
    assert tokenizer.suppress_tokens() == [tokenizer.unk_id]
    assert tokenizer.pieces("the zebra") == ["the", "zebra"]
    assert tokenizer.piece(tokenizer.unk_id) == "<unk>"


@pytest.mark.parametrize("words", [None, "ab", ["a", "a"], ["a", ""], ["a", 1], {"a": 1}])
def test_a_damaged_word_state_is_refused(words: Any) -> None:
    for state in ({"words": words}, {"word": ["a"]}):
        with pytest.raises(UserError, match="damaged"):
            tokenizer_from_plain({"name": "word", "state": state})


# Subwords

BOOK = make_book(30_000)
ALPHABET = "".join(sorted(set(BOOK)))
KINDS = [("unigram", 340), ("bpe", 400)]
# Everything but lone surrogates, which are no text, and the sign that stands for a space.
PLAIN = texts(st.characters(exclude_categories=["Cs"])).map(lambda text: text.replace("▁", "_"))


@cache
def subwords(model_type: str, vocab_size: int, **options: Any) -> SentencePieceTokenizer:
    config = SentencePieceConfig(model_type=model_type, vocab_size=vocab_size, **options)
    return SentencePieceTokenizer.fit(config, [BOOK])


@pytest.mark.parametrize(("model_type", "vocab_size"), KINDS)
@given(text=PLAIN)
@example(text="\n\n a  b\t\n  ")
@example(text="<unk></s><0x41>")
def test_with_byte_fallback_every_text_comes_back(model_type: str, vocab_size: int, text: str) -> None:
    tokenizer = subwords(model_type, vocab_size)
    assert (tokenizer.vocab_size, tokenizer.unk_id, tokenizer.suppress_tokens()) == (vocab_size, None, [])
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.decode([tokenizer.bos_id, *ids]) == text
    assert 1 < min(ids, default=2) <= max(ids, default=2) < vocab_size
    pieces = tokenizer.pieces(text)
    assert pieces == [tokenizer.piece(number) for number in ids]
    assert tokenizer.join(pieces) == text
    assert pieces.count("\n") == text.count("\n")
    assert tokenizer.unknown_characters(text) == ""


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@given(text=st.one_of(PLAIN, texts(st.sampled_from(ALPHABET)).map(lambda text: text.replace("▁", ""))))
@example(text="☃☃ the old 鬼😀house\n")
def test_without_it_what_is_unknown_is_a_replacement_sign(model_type: str, text: str) -> None:
    tokenizer = subwords(model_type, 100, byte_fallback=False)
    shown = re.sub(f"[^{re.escape(ALPHABET)}]+", "\ufffd", text)
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.decode(ids) == shown
    assert ids.count(tokenizer.unk_id) == shown.count("\ufffd")
    unknown = (c for c in text if c not in ALPHABET)
    assert tokenizer.unknown_characters(text) == "".join(dict.fromkeys(unknown))
    # The pieces keep what the numbers lose.
    assert len(tokenizer.pieces(text)) == len(ids)
    assert tokenizer.join(tokenizer.pieces(text)) == text


def test_the_sign_of_a_space_comes_back_as_a_space() -> None:
    tokenizer = subwords(*KINDS[0])
    assert tokenizer.decode(tokenizer.encode("a▁b").tolist()) == "a b"


@given(text=texts(st.characters(exclude_categories=["Cs", "Cc", "Cf"])))
@example(text="ﬁn ① Ａ ½ é e\u0301")
def test_nfkc(text: str) -> None:
    """Compatibility forms are one with the plain ones; the spaces' number stays."""
    letters = "".join(c for c in text if unicodedata.category(c)[0] in "LN" and ord(c) < 0x3000)
    tokenizer = subwords("bpe", 400, normalization="nfkc")
    assert tokenizer.decode(tokenizer.encode(letters).tolist()) == unicodedata.normalize("NFKC", letters)
    assert tokenizer.decode(tokenizer.encode("a  ﬁ\u00a0b").tolist()) == "a  fi b"


@pytest.mark.parametrize(("model_type", "vocab_size"), KINDS)
def test_pieces_do_not_cross_spaces(model_type: str, vocab_size: int) -> None:
    """So a sentence that begins with `sentence_start` begins with a word like any other."""
    tokenizer = subwords(model_type, vocab_size)
    assert tokenizer.sentence_start == " "
    words = ["The", "old", "house", "opened", "Zoë", "zebra?"]
    whole = tokenizer.pieces(tokenizer.sentence_start + " ".join(words))
    assert whole == [piece for word in words for piece in tokenizer.pieces(" " + word)]


@pytest.mark.parametrize("byte_fallback", [True, False])
@pytest.mark.parametrize("text", ["ab", "a\n" * 5, "a small cat\n" * 5, make_book(1000)])
@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_small_text_yields_what_it_can(model_type: str, text: str, byte_fallback: bool) -> None:
    """The size is a limit, and no advice runs in a circle: every limit from 400 on works."""
    sizes = []
    for most in (20_000, 2000, 400):
        config = SentencePieceConfig(model_type=model_type, vocab_size=most, byte_fallback=byte_fallback)
        tokenizer = SentencePieceTokenizer.fit(config, [text])
        sizes.append(tokenizer.vocab_size)
        assert tokenizer.decode(tokenizer.encode(text).tolist()) == text
        assert through_json(tokenizer).vocab_size == sizes[-1] <= most
    assert sizes[0] == sizes[1] < 2000


def test_a_space_that_training_never_showed_comes_back() -> None:
    tokenizer = SentencePieceTokenizer.fit(SentencePieceConfig(), ["ab"])
    ids = tokenizer.encode("a b  c").tolist()
    assert tokenizer.decode(ids) == tokenizer.join(tokenizer.pieces("a b  c")) == "a b  c"


@pytest.mark.parametrize("text", ["", "\n\n"])
@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_too_small_a_text(model_type: str, text: str) -> None:
    with pytest.raises(UserError, match=r"vocab_size=400 pieces.*only empty lines.*give more text"):
        SentencePieceTokenizer.fit(SentencePieceConfig(model_type=model_type, vocab_size=400), [text])


def test_too_small_a_vocabulary() -> None:
    with pytest.raises(UserError, match=r"vocab_size=8 pieces.*raise tokenizer\.vocab_size to") as caught:
        SentencePieceTokenizer.fit(SentencePieceConfig(vocab_size=8, byte_fallback=False), [BOOK])
    enough = int(re.findall(r"at least (\d+)", str(caught.value))[0])
    config = SentencePieceConfig(vocab_size=enough, byte_fallback=False)
    assert SentencePieceTokenizer.fit(config, [BOOK]).vocab_size == enough  # the advice works
    with pytest.raises(UserError, match=r"raise it above 300"):
        SentencePieceConfig(vocab_size=300)


def test_a_text_without_line_ends() -> None:
    line = BOOK.replace("\n", " ") * 3
    assert len(line) > 1 << 16
    config = SentencePieceConfig(model_type="bpe", vocab_size=400)
    tokenizer = SentencePieceTokenizer.fit(config, [line])
    assert len(tokenizer.encode(line)) < len(line) / 2


def test_of_a_large_text_a_sample_is_enough(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sentencepiece_module, "ENOUGH_CHARACTERS", 20_000)
    caplog.set_level("INFO")
    one, again = (SentencePieceTokenizer.fit(SentencePieceConfig(vocab_size=330), [BOOK]) for _ in range(2))
    assert one.hash() == again.hash() != subwords("unigram", 340).hash()
    learnt, lines = map(int, re.findall(r"from (\d+) of (\d+) lines", caplog.text)[0])
    assert lines == len([line for line in BOOK.split("\n") if line])
    assert 0.5 * lines < learnt < 0.8 * lines


@pytest.mark.parametrize("options", [{}, {"byte_fallback": False}, {"normalization": "nfkc"}])
def test_a_subword_state_comes_back(options: dict[str, Any]) -> None:
    tokenizer = subwords("bpe", 400, **options)
    again = through_json(tokenizer)
    assert again.hash() == tokenizer.hash()
    assert (again.vocab_size, again.unk_id) == (tokenizer.vocab_size, tokenizer.unk_id)
    text = "The old ﬁsh asked:\n  Où ☃?"
    assert np.array_equal(again.encode(text), tokenizer.encode(text))


@pytest.mark.parametrize("model", [None, 3, "", "no base64!", "é", base64.b64encode(b"no model").decode()])
def test_no_subword_model(model: Any) -> None:
    with pytest.raises(UserError, match="damaged"):
        tokenizer_from_plain({"name": "sentencepiece", "state": {"model": model}})


def test_too_large_a_subword_model(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = subwords("bpe", 400).to_plain()
    monkeypatch.setattr(sentencepiece_module, "LARGEST_MODEL_BYTES", 1000)
    with pytest.raises(UserError, match="too large"):
        tokenizer_from_plain(plain)


def test_a_damaged_subword_model_is_refused_or_works() -> None:
    """Bytes changed, cut off or left out, by chance: a message, or a tokenizer that can be used."""
    good = subwords("unigram", 340).model
    refused = 0
    for seed in range(400):
        draw, data = random.Random(seed), bytearray(good)
        place = draw.randrange(len(data))
        if seed % 4 == 0:
            del data[place:]
        elif seed % 4 == 1:
            del data[place : place + draw.randint(1, 20)]
        else:
            for _ in range(draw.randint(1, 8)):
                data[draw.randrange(len(data))] = draw.randrange(256)
        state = {"model": base64.b64encode(data).decode()}
        try:
            tokenizer = SentencePieceTokenizer.from_state(state)
        except UserError:
            refused += 1
            continue
        ids = tokenizer.encode("The old house ☃\n  x").tolist()
        tokenizer.decode([*ids, *range(tokenizer.vocab_size)])
        tokenizer.unknown_characters("x☃")
        assert len(tokenizer.pieces("The old ☃")) == len(tokenizer.encode("The old ☃"))
    assert 200 < refused < 400


# Two languages


def of_pairs(source: Tokenizer, target: Tokenizer, ratio: Any = 2.0) -> Preprocessor:
    return Preprocessor({"source": source, "target": target}, values={"length_ratio": ratio})


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("kind", ["word", "sentencepiece", "char"])
def test_a_pair_of_tokenizers_comes_back(kind: str, joint: bool) -> None:
    source: Tokenizer = {
        "word": WordTokenizer(["the", "cat", "?"]),
        "char": CharTokenizer("aceht"),
        "sentencepiece": subwords("unigram", 340),
    }[kind]
    target = source if joint else WordTokenizer(["le", "chat", "▁?"])
    plain = json.loads(json.dumps(of_pairs(source, target, 1.75).to_plain()))
    again = Preprocessor.from_plain(plain)
    assert again.hash() == of_pairs(source, target, 1.75).hash()
    pair = pair_tokenizer(again)
    assert [side.hash() for side in pair.sides] == [source.hash(), target.hash()]
    assert (pair.joint, pair.length_ratio) == (joint, 1.75)
    assert again.sizes()["joint_vocabulary"] is joint


@pytest.mark.parametrize("ratio", [None, "2", 0.0, -1.0, math.nan, math.inf, 1e6])
def test_a_damaged_length_ratio_is_refused(ratio: Any) -> None:
    with pytest.raises(UserError, match="no pair of tokenizers"):
        pair_tokenizer(of_pairs(CharTokenizer("a"), CharTokenizer("b"), ratio))
    tokenizers = {"source": CharTokenizer("a").to_plain(), "target": None}
    with pytest.raises(UserError, match="no pair of tokenizers"):
        Preprocessor.from_schema_1({"name": "pair", "state": {**tokenizers, "length_ratio": ratio}})


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizers": None},
        {"tokenizers": {"source": None}},
        {"tokenizers": {"source": {"name": "word", "state": {"words": "x"}}}},
        {"tokenizers": {"source": {"same_as": "target"}}},
        {"labels": [1]},
        {"labels": "ab"},
        {"values": []},
        {"n_outputs": -1},
        {"n_outputs": "2"},
    ],
)
def test_a_damaged_preprocessor_is_refused(change: dict[str, Any]) -> None:
    good = of_pairs(CharTokenizer("a"), CharTokenizer("b")).to_plain()
    with pytest.raises(UserError):
        Preprocessor.from_plain(good | change)
    for plain in (None, [], {}, CharTokenizer("a").to_plain()):
        with pytest.raises(UserError):
            Preprocessor.from_plain(plain)


def test_sentences_of_a_pair_begin_like_any_word() -> None:
    both = subwords(*KINDS[1])
    pair = PairTokenizer(both, both, 1.0)
    ids = pair.encode_target("The old house ")
    assert np.array_equal(pair.encode_source("The old house "), ids)
    assert pair.source_pieces("The")[0].startswith("▁")
    assert pair.decode_target(ids.tolist()) == "The old house "


@given(data=st.data(), n=st.integers(1, 3000))
def test_999_of_1000_translations_fit(data: st.DataObject, n: int) -> None:
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    source = draw.integers(0, 60, n)
    target = draw.poisson(source * 1.3 + 0.5)
    pair = PairTokenizer(CharTokenizer("a"), CharTokenizer("a"), length_ratio(source, target))
    fits = [t <= pair.longest_target(int(s)) for s, t in zip(source, target, strict=True)]
    assert sum(fits) >= 0.999 * n


def test_a_few_long_translations_do_not_decide() -> None:
    source, target = np.full(10_000, 15), np.full(10_000, 30)
    target[:5] = 1000
    assert length_ratio(source, target) == 1.5
    pair = PairTokenizer(CharTokenizer("a"), CharTokenizer("a"), 1.5)
    assert [pair.longest_target(n) for n in (0, 1, 15)] == [8, 9, 30]
    assert pair.longest_target(15, ratio=0.5) == 10
    assert pair.longest_target(0, ratio=0.01) == 1


# In language models


@pytest.mark.parametrize(
    "words",
    [
        ("tokenizer=word",),
        pytest.param(("tokenizer=sentencepiece", "tokenizer.vocab_size=340"), marks=pytest.mark.slow),
        pytest.param(
            ("tokenizer=sentencepiece", "tokenizer.vocab_size=400", "tokenizer.model_type=bpe"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_language_models_of_words_and_subwords(run_main: Main, book: Path, words: tuple[str, ...]) -> None:
    ran = run_main("train", "data=text", f"data.path={book}", *TINY, *words)
    assert ran.code == 0, ran.err
    ran = run_main("eval", "device=cpu", "device.threads=1", "device.precision=fp32")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    metrics = result["metrics"]
    (run,) = Path("outputs/train").glob("*/*")
    trained = json.loads((run / "result.json").read_text())["metrics"]
    assert metrics == pytest.approx(trained, rel=1e-6)
    assert result["characters"] == len(BOOK) - len(BOOK) * 9 // 10
    assert result["tokens"] < result["characters"]
    bits = metrics["val/loss"] * result["tokens"] / math.log(2) / result["characters"]
    assert metrics["val/bits_per_char"] == pytest.approx(bits)
    for prompt in ("The old house", "Zoë asked", "The "):
        ran = run_main("generate", f"prompt={prompt}", "generation.max_new_tokens=30", "device.threads=1")
        assert ran.code == 0, ran.err
        assert ran.out.startswith(prompt)
        if "tokenizer=word" in words:
            # What follows is a word of its own.
            assert list(split_words(ran.out))[: len(prompt.split())] == prompt.split()
            assert not ran.out.startswith("The  ")


# White space


def test_words_between_white_space() -> None:
    tokenizer = WhitespaceTokenizer.fit(WhitespaceConfig(min_count=2), ["a b a", "don't b", "\u3000a\tc"])
    assert tokenizer.words == ["a", "b"]
    text = " a  don't\nb "
    ids = tokenizer.encode(text).tolist()
    assert ids == [2, 1, 3]
    assert tokenizer.pieces(text) == ["a", "don't", "b"]
    assert [text[slice(*place)] for place in tokenizer.offsets(text) or ()] == tokenizer.pieces(text)
    assert tokenizer.decode([0, *ids, 0]) == "a \ufffd b"
    assert tokenizer.unknown_characters(text) == "don't"
    assert [tokenizer.piece(number) for number in range(4)] == ["</s>", "<unk>", "a", "b"]
    again = through_json(tokenizer)
    assert (again.encode(text).tolist(), again.hash()) == (ids, tokenizer.hash())


def test_further_words_in_lower_case() -> None:
    """After the words of training, without doubles, up to the size of the vocabulary."""
    options = WhitespaceConfig(min_count=2, lower=True, vocab_size=4)
    tokenizer = WhitespaceTokenizer.fit(options, ["Oslo oslo x"], ["the", "Oslo", "of", "The", "to", "in"])
    assert tokenizer.words == ["oslo", "the", "of", "to"]
    assert through_json(tokenizer).encode("THE x").tolist() == [3, 1]


def test_further_words_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("the 0.1 0.2\n\nof 1 2\n", encoding="utf-8")
    options = WhitespaceConfig(min_count=1, words_path=str(file))
    tokenizer = fit_tokenizer(options, ["a"], ["key"])
    assert tokenizer.state()["words"] == ["a", "the", "of"]
    file.write_text("in\n", encoding="utf-8")
    assert fit_tokenizer(options, ["a"], ["key"]).state()["words"] == ["a", "in"]


@pytest.mark.parametrize(
    "state",
    [{}, {"words": ["a"]}, {"words": "a", "lower": True}, {"words": ["a", "a"], "lower": False},
     {"words": [""], "lower": False}, {"words": [1], "lower": False}],
)  # fmt: skip
def test_damaged_words_between_white_space(state: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="damaged"):
        tokenizer_from_plain({"name": "whitespace", "state": state})
