"""Exams made from a corpus: words and non-words, good and bad sentences, names of people."""

import math
import random
import re
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from exam_helpers import GRAMMAR, make_english

from seqexp.data.stand_in import stand_in_book
from seqexp.errors import UserError
from seqexp.exams import lexicon as lexicon_module
from seqexp.exams.grammar import PARADIGMS, make_grammar_exam
from seqexp.exams.lexicon import Lexicon, known_words, list_name, make_lexicon, words_of
from seqexp.exams.names import find_names
from seqexp.exams.questions import Exam
from seqexp.exams.spelling import make_spelling_exam, syllable_parts

NOVELS = (
    "amulet_837", "enchanted_castle_3536", "magic_city_20606", "north_wind_225", "phoenix_carpet_836",
    "princess_curdie_709", "princess_goblin_708", "railway_children_1874",
)  # fmt: skip


def halves(text: str) -> tuple[str, str]:
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


@cache
def novel(folder: Path, name: str) -> tuple[str, str]:
    return halves((folder / "stories" / f"{name}.txt").read_text(encoding="utf-8"))


@cache
def spelling_of(train: str, val: str, seed: int = 1) -> tuple[Lexicon, Exam]:
    lexicon = make_lexicon([train], [val])
    return lexicon, make_spelling_exam(lexicon, 4, seed)


def test_what_is_a_word() -> None:
    text = "Peter's dog, l'été -- don't! Well-known 3rd the_end ’tis O’Brien; naïve\nCats’ (Zoë’s) 5"
    expected = "Peter dog Well known rd the end tis naïve Cats Zoë"
    assert list(words_of(text)) == expected.split()


def test_the_words_of_both_splits_are_counted() -> None:
    """In lower case, however the text is cut; the spelling is the most frequent of the validation split."""
    lexicon = make_lexicon(["The dog. ", "the Dog's cat"], ["Dog THE the ", "dog the Dog Anna"])
    assert lexicon.train == {"the": 2, "dog": 2, "cat": 1}
    assert lexicon.val == {"dog": 3, "the": 3, "anna": 1}
    assert lexicon.spelled == {"the": "the", "dog": "Dog", "anna": "Anna"}
    assert [word in lexicon for word in ("cat", "anna", "Anna", "owl")] == [True, True, False, False]


def test_the_list_of_words() -> None:
    known = known_words()
    assert len(known) > 80_000
    assert {"colour", "color", "houses", "sang"} <= known
    assert not known & {"hosue", "The", ""}
    assert "symspellpy" in list_name()


def test_a_missing_list_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon_module, "LIST_PACKAGE", "no-such-package")
    known_words.cache_clear()
    with pytest.raises(UserError, match="pip install no-such-package"):
        known_words()
    known_words.cache_clear()


# Spelling


@pytest.mark.parametrize("word", ["garden", "a", "queue", "rhythm", "été", "strength", "ÿß"])
def test_syllable_parts(word: str) -> None:
    parts = syllable_parts(word)
    assert "".join(parts) == word
    vowels = ["aeiouyéÿ".find(part[0]) >= 0 for part in parts]
    assert all(a != b for a, b in pairwise(vowels))
    assert syllable_parts("garden") == ["g", "a", "rd", "e", "n"]


def all_trigrams(word: str) -> list[str]:
    edged = f"#{word.lower()}#"
    return [edged[i : i + 3] for i in range(len(edged) - 2)]


def check_spelling(train: str, val: str) -> Exam:
    """Check a spelling exam against its texts, without the code that made it."""
    _, exam = spelling_of(train, val)
    contractions = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)+")

    def words_in(text: str) -> list[str]:
        plain = contractions.sub(lambda m: m[0][:-2] if m[0][-2:] in ("'s", "’s") else " ", text)
        return re.findall(r"[A-Za-zÀ-ÖØ-öø-ÿœŒ]+", contractions.sub(" ", plain))

    asked = {pair.good for pair in exam.pairs}
    counts = Counter(word.lower() for word in words_in(train))
    corpus = set(counts) | {word.lower() for word in words_in(val)}
    wanted = {word.lower() for word in words_in(val) if len(word) >= 3}
    assert len({word.lower() for word in asked}) == len(asked)
    left = wanted - {word.lower() for word in asked}
    note = re.search(r"([\d,]+) words of the validation split were skipped", " ".join(exam.notes))
    roman = {word for word in left if re.fullmatch("[ivxlcdm]+", word)}
    without = int(note[1].replace(",", "")) if note else 0
    assert len(left) - len(roman) <= without <= len(left)
    assert {word.lower() for word in asked} <= wanted
    assert without < 0.1 * len(wanted)
    usual = {trigram for word in corpus for trigram in all_trigrams(word)}
    trained = "".join(f"#{word}#" for word in counts)
    for pair in exam.pairs:
        assert len(pair.bad) == len(pair.good)
        assert [c.isupper() for c in pair.bad] == [c.isupper() for c in pair.good], pair
        assert pair.bad.lower() not in corpus
        assert pair.bad.lower() not in known_words()
        assert usual.issuperset(all_trigrams(pair.bad)), pair
        assert pair.seen == counts[pair.good.lower()], pair
        bad = f"#{pair.bad.lower()}#"
        new = [n for n in (4, 5) if any(bad[i : i + n] not in trained for i in range(len(bad) - n + 1))]
        assert pair.new_stretch == min([*new, 6]), pair
    assert {pair.new_stretch for pair in exam.pairs} == {4, 5, 6}
    each = Counter(pair.good for pair in exam.pairs)
    assert set(each.values()) <= {1, 2, 3, 4}
    assert sum(each.values()) / len(each) > 3
    assert len({pair.bad.lower() for pair in exam.pairs}) == len(exam.pairs)
    return exam


def gap_of(exam: Exam, corpus: str) -> float:
    """Return the mean margin of words over non-words in nats, by trigrams of the corpus's distinct words."""
    words = {word.lower() for word in words_of(corpus)}
    trigrams = Counter(trigram for word in words for trigram in all_trigrams(word))
    starts: Counter[str] = Counter()
    for trigram, n in trigrams.items():
        starts[trigram[:2]] += n

    def nats(word: str) -> float:
        return sum(math.log(trigrams[t] / starts[t[:2]]) for t in all_trigrams(word))

    return sum(nats(pair.good) - nats(pair.bad) for pair in exam.pairs) / len(exam.pairs)


def test_the_spelling_exam_of_a_made_up_text() -> None:
    exam = check_spelling(*halves(make_english()))
    assert exam.of_words
    assert any("symspellpy" in note for note in exam.notes)


def test_the_spelling_exam_of_the_stand_in() -> None:
    text = stand_in_book().read_text(encoding="utf-8")
    exam = check_spelling(*halves(text))
    assert len({pair.good for pair in exam.pairs}) > 900
    gap = gap_of(exam, text)
    assert abs(gap) < 0.5
    assert f"{gap:+.2f} nats" in exam.notes[-1]


@pytest.mark.parametrize("name", ["princess_goblin_708", "north_wind_225"])
def test_the_spelling_exam_of_a_novel(shared_data: Path, name: str) -> None:
    """Even the shortest novel has 900 words in the exam."""
    train, val = novel(shared_data, name)
    exam = check_spelling(train, val)
    assert len({pair.good for pair in exam.pairs}) >= 900
    assert abs(gap_of(exam, train + val)) < 0.5
    unseen = [pair for pair in exam.pairs if pair.seen == 0]
    assert 100 < len(unseen) < len(exam.pairs) / 2


def test_words_with_capitals_inside() -> None:
    """A non-word has capitals at the positions of the word's."""
    train, val = halves(make_english())
    val += " McDarden MacMarden deMarlo McBarken" * 3
    pairs = [pair for pair in spelling_of(train, val)[1].pairs if pair.good[1:].lower() != pair.good[1:]]
    assert pairs
    for pair in pairs:
        assert [c.isupper() for c in pair.bad] == [c.isupper() for c in pair.good], pair


def test_the_seed_draws_the_non_words() -> None:
    train, val = halves(make_english())
    one = spelling_of(train, val)[1]
    space = train.index(" ", 500)
    again = make_spelling_exam(make_lexicon([train[:space], train[space:]], [val]), 4, 1)
    assert again.pairs == one.pairs
    other = spelling_of(train, val, 2)[1]
    assert other.pairs != one.pairs
    lexicon = spelling_of(train, val)[0]
    counts = Counter(pair.good for pair in make_spelling_exam(lexicon, 1, 1).pairs)
    assert set(counts.values()) == {1}


# Grammar


def test_find_names() -> None:
    text = (
        "Anna said that she would. “Why?” asked Peter, and he smiled. Anna cried, and her lamp fell. "
        "Peter said he saw it. Sam said so. Anna answered herself. Peter thought of his dog. The king said "
        "no. He said nothing. He said he knew. He said he did. "
        "Kim said it. Kim said he came. Kim said she went. "
    )
    more = "Anna took her hat. Peter lost his. Kim had her own, and he his. "
    assert find_names([text, more * 4]) == (["Peter"], ["Anna"])
    assert find_names([text.replace("said", "had"), more * 4]) == ([], [])
    assert find_names([text, more]) == ([], []), "too few pronouns to be sure"
    assert find_names([]) == ([], [])


def test_pronouns_after_another_name_are_not_counted() -> None:
    text = "Anna said to Peter that he must go. " * 10 + "The end. " * 8 + "Peter said no. " * 3
    assert find_names([text]) == (["Peter"], [])


EIGHT = [
    "reflexive gender", "reflexive number", "subject–verb agreement", "agreement with a distractor",
    "determiner–noun agreement", "irregular forms", "negative polarity", "word order",
]  # fmt: skip


def grammar_of(train: str, val: str, seed: int = 1) -> tuple[Lexicon, Exam]:
    lexicon = make_lexicon([train], [val])
    return lexicon, make_grammar_exam(lexicon, [train], seed)


def check_grammar(train: str, val: str) -> Exam:
    """Check that words are from the training split, and that sides differ in one word or in word order."""
    lexicon, exam = grammar_of(train, val)
    names = {name for some in find_names([train]) for name in some}
    grammatical = set(GRAMMAR.split())
    assert not exam.of_words
    assert len(exam.pairs) >= 1000
    assert list(dict.fromkeys(pair.phenomenon for pair in exam.pairs)) == EIGHT == list(PARADIGMS)
    for pair in exam.pairs:
        assert pair.good != pair.bad
        good, bad = ([re.sub(r"\.$", "", w) for w in side.split(" ")] for side in (pair.good, pair.bad))
        lower = [w.lower() for w in good], [w.lower() for w in bad]
        assert len(good) == len(bad)
        assert pair.good[0].isupper()
        assert pair.good[-1] == pair.bad[-1] == "."
        different = [(a, b) for a, b in zip(*lower, strict=True) if a != b]
        reordered = pair.phenomenon in ("negative polarity", "word order")
        assert sorted(lower[0]) == sorted(lower[1]) if reordered else len(different) == 1, pair
        for word in {*good, *bad}:
            known = word in names or word.lower() in grammatical or lexicon.train[word.lower()] >= 2
            assert known, (word, pair)
    most = Counter(pair.paradigm for pair in exam.pairs)
    assert max(most.values()) <= 150
    assert len({(pair.good, pair.paradigm) for pair in exam.pairs}) == len(exam.pairs)
    assert len({(pair.good, pair.bad) for pair in exam.pairs}) == len(exam.pairs)
    return exam


@pytest.mark.parametrize("name", NOVELS)
def test_the_grammar_exam_of_a_novel(shared_data: Path, name: str) -> None:
    check_grammar(*novel(shared_data, name))


def test_rules_are_asked_from_both_sides() -> None:
    """A preference for one form does not help: each form is good about as often as bad."""
    exam = check_grammar(*halves(make_english()))
    for one, other in (("himself", "herself"), ("was", "were"), ("this", "these"), ("has", "have")):
        wins = Counter()  # type: ignore[var-annotated]
        for pair in exam.pairs:
            good, bad = (set(re.findall(r"\w+", side)) for side in (pair.good, pair.bad))
            if good ^ bad == {one, other}:
                wins[one in good] += 1
        assert sum(wins.values()) > 20, one
        assert 0.3 < wins[True] / sum(wins.values()) < 0.7, (one, wins)


def test_the_sentences_of_each_rule() -> None:
    """Good sentences are grammatical: checks by hand for some rules."""
    exam = check_grammar(*halves(make_english()))
    by: dict[str, list[tuple[str, str]]] = {}
    for pair in exam.pairs:
        by.setdefault(pair.paradigm, []).append((pair.good, pair.bad))
    for good, bad in by["reflexive_gender"]:
        subject = good.replace("The ", "").split()[0]
        if subject in ("Anna", "queen", "girl", "witch", "mother"):
            assert good.endswith(" herself.")
            assert bad.endswith(" himself.")
        if subject in ("Peter", "king", "boy", "wizard", "uncle"):
            assert good.endswith(" himself.")
            assert bad.endswith(" herself.")
    for good, bad in by["determiner_noun"]:
        this, noun = good.rstrip(".").split()[-2:]
        plural = noun == "mice" or (noun.endswith("s") and not noun.endswith("ss"))
        assert plural == (this in ("these", "those")), good
        assert this != bad.split()[-2]
    for good, bad in by["distractor_beside"]:
        words = good.split()
        assert ("were" in words) == (words[1].endswith(("s", "men", "children")) and words[1] != "princess")
        assert ("were" in words) != ("were" in bad.split())
    for good, bad in by["irregular_participle"]:
        assert " had " in good
        assert not re.search(r" had (saw|took|gave|broke|wrote|ate) ", good)
        assert not re.search(r" had (seen|taken|given|broken|written|eaten) ", bad)
    assert all(good.startswith("Nobody had ever ") for good, _ in by["ever_below_nobody"])
    assert all(bad.endswith(" nobody.") for _, bad in by["ever_below_nobody"])
    assert all(" had not " in good and " not had " in bad for good, bad in by["order_of_negation"])


def test_the_seed_draws_the_sentences() -> None:
    train, val = halves(make_english())
    assert grammar_of(train, val)[1].pairs == grammar_of(train, val)[1].pairs
    assert grammar_of(train, val)[1].pairs != grammar_of(train, val, 2)[1].pairs


def test_a_corpus_that_is_not_english() -> None:
    draw = random.Random(0)
    words = "le la maison chien vieux jardin rivière fut roi reine était dans avec petit grand livre"
    text = " ".join(draw.choices(words.split(), k=20_000))
    with pytest.raises(UserError, match="too few English words"):
        grammar_of(*halves(text))


def test_a_corpus_with_some_of_the_words() -> None:
    """A note lists the rules without words; the others are in the exam."""
    text = make_english().replace("nobody", "x")
    text = re.sub(
        r"\b(saw|took|gave|broke|chose|forgot|stole|drew|knew|threw|shook|ate|wrote|wore|tore)\b", "x", text
    )
    _, exam = grammar_of(*halves(text))
    assert not {pair.phenomenon for pair in exam.pairs} & {"irregular forms"}
    assert any("irregular_participle, irregular_past" in note for note in exam.notes)
