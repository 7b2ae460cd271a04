"""The grammar exam: sentences about people and things of a corpus, each with a copy that breaks a rule.

Phenomena and format follow BLiMP (Warstadt et al. 2020): the two sentences differ in one word, or have the
same words in another order. Each rule is tested in both directions (``this stone``, ``these stones``), so
that a preference for one form does not raise the score.
"""

import random
from collections.abc import Callable, Iterable
from typing import TypeVar

from seqexp.errors import UserError
from seqexp.exams import grammar_words as words
from seqexp.exams.lexicon import Lexicon
from seqexp.exams.names import find_names
from seqexp.exams.questions import Exam, MinimalPair

MOST_PAIRS = 150  # per paradigm
LEAST_SEEN = 2  # occurrences in the training split that a word needs
LEAST_PAIRS = 200  # fewer pairs are an error
SELF = {"m": "himself", "f": "herself"}

T = TypeVar("T")
# A good and a bad sentence.
Sides = tuple[str, str]


class Words:
    """The words and names of a corpus that fill the templates, and random draws from them."""

    def __init__(self, lexicon: Lexicon, names: tuple[list[str], list[str]], seed: int) -> None:
        self._seen = lexicon.train
        self.draw = random.Random(seed)
        men, women = names
        self.named = [*((name, "himself") for name in men), *((name, "herself") for name in women)]
        people = self._rows(words.PEOPLE, 2)
        self.people = [(row[0], row[1]) for row in people]
        self.gendered = [(row[0], row[1], SELF[row[2]]) for row in people if len(row) > 2]
        self.things = [(one, many) for one, many in self._rows(words.THINGS, 2)]
        self.irregular = [(past, done) for _, past, done in self._rows(words.IRREGULAR, 3)]
        self.acts = [(one, many) for one, many in self._rows(words.ACTS, 2)]
        self.done = self._known(words.DONE)
        self.reflexive = self._known(words.REFLEXIVE)
        self.states = self._known(words.STATES)
        self.qualities = self._known(words.QUALITIES)
        self.beside = self._known(words.BESIDE)
        self.looked = [" ".join(row) for row in words.rows(words.LOOKED) if self._all_seen(row)]

    def _all_seen(self, row: Iterable[str]) -> bool:
        return all(self._seen[word] >= LEAST_SEEN for word in row)

    def _rows(self, table: str, forms: int) -> list[list[str]]:
        """Return the rows of a table whose first `forms` words all occur in the corpus."""
        return [row for row in words.rows(table) if self._all_seen(row[:forms])]

    def _known(self, listed: str) -> list[str]:
        return [word for word in listed.split() if self._all_seen([word])]

    def one(self, choices: list[T]) -> T:
        """Draw one choice.

        Raises:
            IndexError: there are no choices in the corpus.
        """
        return self.draw.choice(choices)

    def two(self, choices: list[T]) -> tuple[T, T]:
        """Draw two different choices."""
        first = self.one(choices)
        return first, self.one([other for other in choices if other != first])

    def coin(self) -> bool:
        return self.draw.random() < 0.5

    def subject(self) -> str:
        """Draw a name, or ``The`` and a person."""
        if self.named and self.coin():
            return self.one(self.named)[0]
        return f"The {self.one(self.people)[0]}"

    def number(self, choices: list[tuple[str, str]]) -> tuple[str, bool]:
        """Draw a word in the singular or the plural; return it, and whether it is the plural."""
        several = self.coin()
        return self.one(choices)[several], several


def reflexive_gender(w: Words) -> Sides:
    if w.named and w.coin():
        subject, own = w.one(w.named)
    else:
        noun, _, own = w.one(w.gendered)
        subject = f"The {noun}"
    other = "herself" if own == "himself" else "himself"
    begin = f"{subject} {w.one(w.reflexive)}"
    return f"{begin} {own}.", f"{begin} {other}."


def reflexive_number(w: Words) -> Sides:
    one, many, own = w.one(w.gendered)
    sides = [own, "themselves"]
    several = w.coin()
    begin = f"The {many if several else one} {w.one(w.reflexive)}"
    return f"{begin} {sides[several]}.", f"{begin} {sides[not several]}."


def _agreement(subject: str, several: bool, rest: str, forms: Sides) -> Sides:
    """Return the sentence whose verb agrees with the subject, and the other one.

    `forms` are the verb in the singular and in the plural.
    """
    good, bad = forms[several], forms[not several]
    return f"{subject} {good}{rest}.", f"{subject} {bad}{rest}."


def agreement_be(w: Words) -> Sides:
    noun, several = w.number(w.people)
    forms = ("was", "were") if w.coin() else ("is", "are")
    return _agreement(f"The {noun}", several, f" {w.one(w.states)}", forms)


def agreement_have(w: Words) -> Sides:
    noun, several = w.number(w.people)
    rest = f" {w.one(w.done)} the {w.one(w.things)[0]}"
    return _agreement(f"The {noun}", several, rest, ("has", "have"))


def agreement_verb(w: Words) -> Sides:
    noun, several = w.number(w.people)
    return _agreement(f"The {noun}", several, "", w.one(w.acts))


def distractor_beside(w: Words) -> Sides:
    """The noun beside the verb differs from the subject in number."""
    several = w.coin()
    near, far = w.two(w.people)
    subject = f"The {far[several]} {w.one(w.beside)} the {near[not several]}"
    return _agreement(subject, several, f" {w.one(w.states)}", ("was", "were"))


def distractor_relative(w: Words) -> Sides:
    several = w.coin()
    near, far = w.two(w.people)
    subject = f"The {far[several]} who {w.one(w.looked)} the {near[not several]}"
    return _agreement(subject, several, f" {w.one(w.states)}", ("was", "were"))


def determiner_noun(w: Words, quality: str = "") -> Sides:
    noun, several = w.number(w.things)
    forms = ("this", "these") if w.coin() else ("that", "those")
    begin = f"{w.subject()} {w.one(w.looked)}"
    return f"{begin} {forms[several]} {quality}{noun}.", f"{begin} {forms[not several]} {quality}{noun}."


def determiner_adjective_noun(w: Words) -> Sides:
    return determiner_noun(w, quality=f"{w.one(w.qualities)} ")


def irregular_participle(w: Words) -> Sides:
    past, done = w.one(w.irregular)
    begin, end = f"{w.subject()} had", f"the {w.one(w.things)[0]}."
    return f"{begin} {done} {end}", f"{begin} {past} {end}"


def irregular_past(w: Words) -> Sides:
    past, done = w.one(w.irregular)
    begin, end = w.subject(), f"the {w.one(w.things)[0]}."
    return f"{begin} {past} {end}", f"{begin} {done} {end}"


def ever_below_nobody(w: Words) -> Sides:
    """Put the negation before ``ever`` (good) or after it (bad)."""
    person, verb = f"he {w.one(w.people)[0]}", f"had ever {w.one(w.done)}"
    return f"Nobody {verb} t{person}.", f"T{person} {verb} nobody."


def _scope(w: Words, ending: str, act: str) -> Sides:
    """Put ``not`` into the main clause (good), or into the relative clause, where it licenses no `ending`."""
    subject = f"The {w.one(w.people)[0]} who"
    rest = f"{w.one(w.done)} the {w.one(w.things)[0]}"
    return f"{subject} had {rest} {act} not {ending}.", f"{subject} had not {rest} {act} {ending}."


def ever_in_scope(w: Words) -> Sides:
    return _scope(w, f"ever {w.one(w.done)} the {w.one(w.things)[0]}", "had")


def any_in_scope(w: Words) -> Sides:
    return _scope(w, f"{w.one(w.done)} any {w.one(w.things)[1]}", "had")


def order_of_adjective(w: Words) -> Sides:
    begin, quality, thing = f"{w.subject()} {w.one(w.looked)} the", w.one(w.qualities), w.one(w.things)[0]
    return f"{begin} {quality} {thing}.", f"{begin} {thing} {quality}."


def order_of_article(w: Words) -> Sides:
    begin, quality = f"{w.subject()} {w.one(w.looked)}", w.one(w.qualities)
    thing = w.number(w.things)[0]
    return f"{begin} the {quality} {thing}.", f"{begin} {quality} the {thing}."


def order_of_negation(w: Words) -> Sides:
    subject, rest = w.subject(), f"{w.one(w.done)} the {w.one(w.things)[0]}."
    return f"{subject} had not {rest}", f"{subject} not had {rest}"


def order_of_adverb(w: Words) -> Sides:
    subject, state = w.subject(), w.one(w.states)
    adverb = w.one(["very", "quite"])
    return f"{subject} was {adverb} {state}.", f"{subject} {adverb} was {state}."


PARADIGMS: dict[str, tuple[Callable[[Words], Sides], ...]] = {
    "reflexive gender": (reflexive_gender,),
    "reflexive number": (reflexive_number,),
    "subject–verb agreement": (agreement_be, agreement_have, agreement_verb),
    "agreement with a distractor": (distractor_beside, distractor_relative),
    "determiner–noun agreement": (determiner_noun, determiner_adjective_noun),
    "irregular forms": (irregular_participle, irregular_past),
    "negative polarity": (ever_below_nobody, ever_in_scope, any_in_scope),
    "word order": (order_of_adjective, order_of_article, order_of_negation, order_of_adverb),
}


def make_grammar_exam(lexicon: Lexicon, training: Iterable[str], seed: int) -> Exam:
    """Return up to 150 distinct pairs of each paradigm, with words that occur at least twice in training.

    `training` holds the documents of the training split.

    Raises:
        UserError: the corpus has too few of the English words.
    """
    names = find_names(training)
    w = Words(lexicon, names, seed)
    pairs: list[MinimalPair] = []
    missing = []
    for phenomenon, paradigms in PARADIGMS.items():
        for paradigm in paradigms:
            found: dict[str, MinimalPair] = {}
            try:
                for _ in range(4 * MOST_PAIRS):
                    good, bad = paradigm(w)
                    found[good] = MinimalPair(good, bad, phenomenon, paradigm=paradigm.__name__)
            except IndexError:
                missing.append(paradigm.__name__)
            pairs += list(found.values())[:MOST_PAIRS]
    if len(pairs) < LEAST_PAIRS:
        raise UserError(
            f"the corpus has too few English words for a grammar exam ({len(pairs)} pairs; at least "
            f"{LEAST_PAIRS} are needed); give exams.path=<file of lines with a good sentence, a comma, a bad "
            "sentence>."
        )
    notes = [f"{len(pairs):,} pairs; men: {', '.join(names[0][:8]) or 'none found'}; women: "
             f"{', '.join(names[1][:8]) or 'none found'}"]  # fmt: skip
    if missing:
        notes.append(f"the corpus has no words for {', '.join(missing)}")
    return Exam("grammar", "words and names of the corpus", pairs, notes)
