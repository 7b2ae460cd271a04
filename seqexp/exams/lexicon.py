"""The words of a corpus and of the language: what counts as a word, and how often it was seen."""

import importlib.metadata
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from seqexp.errors import UserError

# Letters, with what stands after an apostrophe: don't, Peter's.
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
POSSESSIVE = ("'s", "’s")

# A list of 82,765 English words, British and American, inflected forms among them.
LIST_PACKAGE, LIST_FILE = "symspellpy", "frequency_dictionary_en_82_765.txt"


@dataclass(frozen=True)
class Lexicon:
    """How often each word, in small letters, stands in the training and the validation part.

    `spelled` is how a word is mostly written in the validation part.
    """

    train: Counter[str]
    val: Counter[str]
    spelled: dict[str, str]

    def __contains__(self, word: str) -> bool:
        return word in self.train or word in self.val


def words_of(text: str) -> Iterable[str]:
    """The words of a text as they are written; contractions are left out, of ``Peter's`` there is Peter."""
    for match in WORD.finditer(text):
        word = match[0]
        if word.endswith(POSSESSIVE):
            word = word[:-2]
        if "'" not in word and "’" not in word:
            yield word


def make_lexicon(train: Iterable[str], val: Iterable[str]) -> Lexicon:
    """Count the words of both parts, given as pieces of text."""
    counts: Counter[str] = Counter()
    for text in train:
        counts.update(words_of(text))
    written: Counter[str] = Counter()
    for text in val:
        written.update(words_of(text))
    spelled: dict[str, str] = {}
    for word, _ in written.most_common():
        spelled.setdefault(word.lower(), word)
    return Lexicon(_in_small_letters(counts), _in_small_letters(written), spelled)


def _in_small_letters(counts: Counter[str]) -> Counter[str]:
    small: Counter[str] = Counter()
    for word, n in counts.items():
        small[word.lower()] += n
    return small


@cache
def known_words() -> frozenset[str]:
    """The word list of the package symspellpy, which is read, not imported.

    Raises:
        UserError: the package is not installed, or its list is not where it was.
    """
    try:
        files = importlib.metadata.files(LIST_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    source = next((file.locate() for file in files if file.name == LIST_FILE), None)
    if source is None:
        raise UserError(
            f"the list of English words of the package {LIST_PACKAGE} is not there; run: pip install "
            f"{LIST_PACKAGE}"
        )
    with open(str(source), encoding="utf-8-sig") as lines:
        return frozenset(line.split()[0] for line in lines if line.strip())


def list_name() -> str:
    """The list, its package and version, for the report."""
    return f"{LIST_FILE} of {LIST_PACKAGE} {importlib.metadata.version(LIST_PACKAGE)}"
