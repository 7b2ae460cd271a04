"""The spelling exam: words of the validation part, each against non-words of the same length.

A non-word is the word with one or two of its syllable parts, runs of vowels or of consonants, exchanged for
parts that stand between the same letters in other words of the corpus (after Keuleers & Brysbaert 2010).
Every three letters of it, and those at its ends, stand in some word, and of many such candidates those are
taken whose letter trigrams are about as usual as the word's.
"""

import math
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from functools import cache

from tqdm import tqdm

from seqexp.errors import UserError
from seqexp.exams.lexicon import Lexicon, known_words, list_name
from seqexp.exams.questions import Exam, MinimalPair

SHORTEST = 3  # letters of a word that is asked for
TRIES = 60  # exchanges that are tried for a word
EDGE = "#"  # stands before and after a word in its trigrams
ROMAN = re.compile(r"[IVXLCDM]+")


@cache
def is_vowel(letter: str) -> bool:
    """a, e, i, o, u, y and their like in Greek and Cyrillic, with or without an accent."""
    return unicodedata.normalize("NFD", letter)[0] in "aeiouyαεηιουωаеиоуыэюяіє"


def syllable_parts(word: str) -> list[str]:
    """The runs of vowels and of consonants: ``garden`` is g, a, rd, e, n."""
    parts: list[str] = []
    for letter in word:
        if parts and is_vowel(parts[-1][-1]) == is_vowel(letter):
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def stretches(word: str, n: int) -> list[str]:
    """Its stretches of n letters, the ends among them: ``#ga``, ``gar``, …, ``en#``."""
    edged = f"{EDGE}{word}{EDGE}"
    return [edged[i : i + n] for i in range(len(edged) - n + 1)]


class Stretches:
    """The stretches of four and five letters that stand in given words."""

    def __init__(self, words: Collection[str]) -> None:
        self._known = {n: {stretch for word in words for stretch in stretches(word, n)} for n in (4, 5)}

    def shortest_new(self, word: str) -> int:
        """How long the shortest stretch is that stands in none of the words: 4, 5, or 6 for any longer."""
        for n, known in self._known.items():
            if not known.issuperset(stretches(word, n)):
                return n
        return 6


class NonWords:
    """Makes non-words out of the parts of given words."""

    def __init__(self, words: Collection[str]) -> None:
        self._counts = Counter(trigram for word in words for trigram in stretches(word, 3))
        starts = Counter[str]()
        for trigram, n in self._counts.items():
            starts[trigram[:2]] += n
        self._logs = {t: math.log(n / starts[t[:2]]) for t, n in self._counts.items()}
        # Parts by the letters on both sides, their length and kind.
        pools: dict[tuple[str, str, int, bool], set[str]] = defaultdict(set)
        for word in words:
            for key, part in _places(syllable_parts(word)):
                pools[key].add(part)
        self._pools = {key: sorted(parts) for key, parts in pools.items()}

    def usualness(self, word: str) -> float:
        """The log-probability of the letters under trigrams of distinct words; -inf where one is unknown."""
        return sum(self._logs.get(trigram, -math.inf) for trigram in stretches(word, 3))

    def make(self, word: str, number: int, forbidden: Collection[str], draw: random.Random) -> list[str]:
        """Up to `number` non-words for a word in small letters, the best matched first."""
        wanted = self.usualness(word)
        found: dict[str, float] = {}
        for _ in range(TRIES):
            candidate = self._exchange(word, draw)
            if draw.random() < 0.5:
                candidate = self._exchange(candidate, draw)
            usual = self.usualness(candidate)
            if usual > -math.inf and candidate not in forbidden:
                found[candidate] = abs(usual - wanted)
        return sorted(found, key=lambda candidate: (found[candidate], candidate))[:number]

    def _exchange(self, word: str, draw: random.Random) -> str:
        """The word with one of its parts exchanged."""
        parts = syllable_parts(word)
        places = list(_places(parts))
        i = draw.randrange(len(parts))
        parts[i] = draw.choice(self._pools.get(places[i][0], [parts[i]]))
        return "".join(parts)


def _places(parts: list[str]) -> Iterator[tuple[tuple[str, str, int, bool], str]]:
    """Each part with the letter before it, the letter after it, its length, and whether it is vowels."""
    for i, part in enumerate(parts):
        before = parts[i - 1][-1] if i else EDGE
        after = parts[i + 1][0] if i + 1 < len(parts) else EDGE
        yield (before, after, len(part), is_vowel(part[0])), part


def make_spelling_exam(lexicon: Lexicon, nonwords: int, seed: int) -> Exam:
    """All distinct words of the validation part with three letters or more, each with up to `nonwords`.

    None of these is in the corpus, in any spelling, or in the list of English words.

    Raises:
        UserError: there are no words, or no non-words like them, as where words are not written with letters.
    """
    maker = NonWords([*lexicon.train, *(word for word in lexicon.val if word not in lexicon.train)])
    known = known_words()
    trained = Stretches(lexicon.train)
    draw = random.Random(seed)
    pairs, without = [], 0
    taken: set[str] = set()
    progress = tqdm(sorted(lexicon.val), desc="non-words", unit="word", delay=2, leave=False, disable=None)
    for word in progress:
        spelled = lexicon.spelled[word]
        if len(word) < SHORTEST or ROMAN.fullmatch(spelled):
            continue
        tried = maker.make(word, 3 * nonwords, taken, draw)
        made = [other for other in tried if other not in lexicon and other not in known][:nonwords]
        taken.update(made)
        without += not made
        seen = lexicon.train[word]
        pairs += [
            MinimalPair(spelled, _like(spelled, other), seen=seen, new_stretch=trained.shortest_new(other))
            for other in made
        ]
    if not pairs:
        raise UserError(
            "no non-words can be made from this corpus; give exams.path=<file of lines with a word, a comma, "
            "a non-word>."
        )
    words = len({pair.good for pair in pairs})
    notes = [
        f"{words:,} words of the validation part, {len(pairs):,} pairs; non-words are in no part of the "
        f"corpus, and not in {list_name()}"
    ]
    if without:
        notes.append(
            f"{without:,} words of the validation part have no non-word like them and are not asked for"
        )
    listed = sum(word in known for word in lexicon.val) / len(lexicon.val)
    if listed < 0.5:
        notes.append(f"only {100 * listed:.0f} % of the words are in that list, which is of English words")
    gap = sum(maker.usualness(p.good.lower()) - maker.usualness(p.bad.lower()) for p in pairs) / max(
        1, len(pairs)
    )
    notes.append(f"letter trigrams: words are {gap:+.2f} nats likelier than their non-words on average")
    return Exam("spelling", "words of the corpus", pairs, notes)


def _like(pattern: str, word: str) -> str:
    """The word with capital letters where `pattern`, which is as long, has them."""
    letters = zip(pattern, word, strict=True)
    return "".join(letter.upper() if like.isupper() else letter for like, letter in letters)
