"""The spelling exam: words of the validation split, each against non-words of the same length.

A non-word is the word with one or two syllable parts (runs of vowels or of consonants) exchanged for parts
that occur between the same letters in other words of the corpus (after Keuleers & Brysbaert 2010). Its letter
trigrams, with those at its edges, all occur in words of the corpus, and are about as frequent as the word's.
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

SHORTEST = 3  # letters of a word in the exam
TRIES = 60  # candidates per word
EDGE = "#"  # marks both ends of a word in its n-grams
ROMAN = re.compile(r"[IVXLCDM]+")


@cache
def is_vowel(letter: str) -> bool:
    """Whether a lower-case Latin, Greek or Cyrillic letter is a vowel (y is one), accented or not."""
    return unicodedata.normalize("NFD", letter)[0] in "aeiouyαεηιουωаеиоуыэюяіє"


def syllable_parts(word: str) -> list[str]:
    """Split a word into runs of vowels and of consonants: ``garden`` is g, a, rd, e, n."""
    parts: list[str] = []
    for letter in word:
        if parts and is_vowel(parts[-1][-1]) == is_vowel(letter):
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def stretches(word: str, n: int) -> list[str]:
    """Return the letter n-grams of a word with its edges: ``#ga``, ``gar``, …, ``en#``."""
    edged = f"{EDGE}{word}{EDGE}"
    return [edged[i : i + n] for i in range(len(edged) - n + 1)]


class Stretches:
    """The letter 4-grams and 5-grams of given words."""

    def __init__(self, words: Collection[str]) -> None:
        self._known = {n: {n_gram for word in words for n_gram in stretches(word, n)} for n in (4, 5)}

    def shortest_new(self, word: str) -> int:
        """Return the length of the shortest new n-gram of `word`: 4, 5, or 6 for any longer."""
        for n, known in self._known.items():
            if not known.issuperset(stretches(word, n)):
                return n
        return 6


class NonWords:
    """Make non-words from the syllable parts of given words."""

    def __init__(self, words: Collection[str]) -> None:
        self._counts = Counter(trigram for word in words for trigram in stretches(word, 3))
        starts = Counter[str]()
        for trigram, n in self._counts.items():
            starts[trigram[:2]] += n
        self._logs = {t: math.log(n / starts[t[:2]]) for t, n in self._counts.items()}
        # Syllable parts by context.
        pools: dict[tuple[str, str, int, bool], set[str]] = defaultdict(set)
        for word in words:
            for context, part in _with_contexts(syllable_parts(word)):
                pools[context].add(part)
        self._pools = {context: sorted(parts) for context, parts in pools.items()}

    def usualness(self, word: str) -> float:
        """Return the log-probability of a word under trigrams of distinct words; -inf for an unknown one."""
        return sum(self._logs.get(trigram, -math.inf) for trigram in stretches(word, 3))

    def make(self, word: str, number: int, forbidden: Collection[str], draw: random.Random) -> list[str]:
        """Return up to `number` non-words for a lower-case word, the best matched first."""
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
        """Exchange one syllable part of the word."""
        parts = syllable_parts(word)
        contexts = [context for context, _ in _with_contexts(parts)]
        i = draw.randrange(len(parts))
        parts[i] = draw.choice(self._pools.get(contexts[i], [parts[i]]))
        return "".join(parts)


def _with_contexts(parts: list[str]) -> Iterator[tuple[tuple[str, str, int, bool], str]]:
    """Yield (context, part): the letters before and after, the length, and whether the part is vowels."""
    for i, part in enumerate(parts):
        before = parts[i - 1][-1] if i else EDGE
        after = parts[i + 1][0] if i + 1 < len(parts) else EDGE
        yield (before, after, len(part), is_vowel(part[0])), part


def make_spelling_exam(lexicon: Lexicon, nonwords: int, seed: int) -> Exam:
    """Pair each distinct validation word of at least three letters with up to `nonwords` non-words.

    Non-words occur neither in the corpus, in any case, nor in the list of English words.

    Raises:
        UserError: no pairs can be made, e.g. if the script has no vowels and consonants.
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
        f"{words:,} words of the validation split, {len(pairs):,} pairs; non-words are neither in the corpus "
        f"nor in {list_name()}"
    ]
    if without:
        notes.append(f"{without:,} words of the validation split were skipped: no non-word matches them")
    listed = sum(word in known for word in lexicon.val) / len(lexicon.val)
    if listed < 0.5:
        notes.append(f"only {100 * listed:.0f} % of the words are in that list of English words")
    gap = sum(maker.usualness(p.good.lower()) - maker.usualness(p.bad.lower()) for p in pairs) / max(
        1, len(pairs)
    )
    notes.append(f"letter trigrams: words are {gap:+.2f} nats more likely than their non-words on average")
    return Exam("spelling", "words of the corpus", pairs, notes)


def _like(pattern: str, word: str) -> str:
    """Capitalise the letters of a word that are capitals in `pattern`, a word of the same length."""
    letters = zip(pattern, word, strict=True)
    return "".join(letter.upper() if model.isupper() else letter for model, letter in letters)
