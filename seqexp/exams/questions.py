"""What an exam is made of: minimal pairs, of which the model should find the first side likelier."""

from dataclasses import dataclass, field

# How often a word stands in the training part: from, to, and what the band is called.
BANDS = (
    (0, 0, "unseen"),
    (1, 5, "seen 1–5 times"),
    (6, 20, "6–20 times"),
    (21, 100, "21–100 times"),
    (101, None, "more often"),
)

# The shortest stretch of letters of a non-word that no word of the training part has, and its name.
NEW_STRETCHES = {
    4: "4 letters in a row are new",
    5: "5 letters in a row are new",
    6: "no 5 letters in a row are new",
}


@dataclass(frozen=True)
class MinimalPair:
    """A good side and a bad one that differ in one thing.

    `phenomenon`, `field` and `paradigm` are BLiMP's three levels (Warstadt et al. 2020), from a dozen to 67.
    `seen` is how often a word stands in the training part, `new_stretch` how long the shortest stretch of
    letters of its non-word is that no word there has (4 at least, 6 at most); None where that is not known.
    """

    good: str
    bad: str
    phenomenon: str = ""
    field: str = ""
    paradigm: str = ""
    seen: int | None = None
    new_stretch: int | None = None


@dataclass(frozen=True)
class Exam:
    """Pairs of words (``spelling``) or of sentences (``grammar``), where they are from, and notes."""

    name: str
    origin: str
    pairs: list[MinimalPair]
    notes: list[str] = field(default_factory=list)

    @property
    def of_words(self) -> bool:
        """Whether a side is a word, with a space before it and something that is no letter after it."""
        return self.name == "spelling"


def band_of(seen: int) -> str:
    """The name of the band that a count falls into."""
    return next(name for low, high, name in BANDS if seen >= low and (high is None or seen <= high))
