"""Count the words of a corpus, and read a list of English words."""

import importlib.metadata
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from seqexp.errors import UserError

# Letters, and letters after apostrophes: don't, Peter's.
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
POSSESSIVE = ("'s", "’s")

# A list of 82,765 English words, British and American, with inflected forms.
LIST_PACKAGE, LIST_FILE = "symspellpy", "frequency_dictionary_en_82_765.txt"


@dataclass(frozen=True)
class Lexicon:
    """Counts of lower-case words in the training and the validation split.

    `spelled` maps each validation word to its most frequent spelling there.
    """

    train: Counter[str]
    val: Counter[str]
    spelled: dict[str, str]

    def __contains__(self, word: str) -> bool:
        return word in self.train or word in self.val


def words_of(text: str) -> Iterable[str]:
    """Yield the words of a text, case kept; skip contractions, and yield Peter for ``Peter's``."""
    for match in WORD.finditer(text):
        word = match[0]
        if word.endswith(POSSESSIVE):
            word = word[:-2]
        if "'" not in word and "’" not in word:
            yield word


def make_lexicon(train: Iterable[str], val: Iterable[str]) -> Lexicon:
    """Count the words of both splits, given as pieces of text."""
    train_counts: Counter[str] = Counter()
    for text in train:
        train_counts.update(words_of(text))
    val_counts: Counter[str] = Counter()
    for text in val:
        val_counts.update(words_of(text))
    spelled: dict[str, str] = {}
    for word, _ in val_counts.most_common():
        spelled.setdefault(word.lower(), word)
    return Lexicon(_lower_case(train_counts), _lower_case(val_counts), spelled)


def _lower_case(counts: Counter[str]) -> Counter[str]:
    lower: Counter[str] = Counter()
    for word, n in counts.items():
        lower[word.lower()] += n
    return lower


@cache
def known_words() -> frozenset[str]:
    """Return the word list of the package symspellpy, without importing the package.

    Raises:
        UserError: the package is not installed, or it has no such list.
    """
    try:
        files = importlib.metadata.files(LIST_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    source = next((file.locate() for file in files if file.name == LIST_FILE), None)
    if source is None:
        raise UserError(
            f"the list of English words of the package {LIST_PACKAGE} is missing; run: pip install "
            f"{LIST_PACKAGE}"
        )
    with open(str(source), encoding="utf-8-sig") as lines:
        return frozenset(line.split()[0] for line in lines if line.strip())


def list_name() -> str:
    """Return the name of the list with its package and version, for the report."""
    return f"{LIST_FILE} of {LIST_PACKAGE} {importlib.metadata.version(LIST_PACKAGE)}"
