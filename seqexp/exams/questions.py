"""Exams and minimal pairs: a model should find the good side of a pair more likely than the bad one."""

from dataclasses import dataclass, field

# Bands of a word's count in the training split: from, to, name.
BANDS = (
    (0, 0, "unseen"),
    (1, 5, "seen 1–5 times"),
    (6, 20, "6–20 times"),
    (21, 100, "21–100 times"),
    (101, None, "more often"),
)

# Length of the shortest letter sequence of a non-word that no training word contains, and its name.
NEW_STRETCHES = {
    4: "4 letters in a row are new",
    5: "5 letters in a row are new",
    6: "no 5 letters in a row are new",
}


@dataclass(frozen=True)
class MinimalPair:
    """A good and a bad text that differ in one respect.

    `phenomenon` (12), `field` (4) and `paradigm` (67) are the levels of BLiMP (Warstadt et al. 2020). `seen`
    is the word's count in the training split. `new_stretch` is the length of the shortest letter sequence of
    the non-word that no training word contains: 4, 5, or 6 for any longer. Both are None if unknown.
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
    """Pairs of words (``spelling``) or sentences (``grammar``), their origin, and notes for the report."""

    name: str
    origin: str
    pairs: list[MinimalPair]
    notes: list[str] = field(default_factory=list)

    @property
    def of_words(self) -> bool:
        """Whether a side is a word, scored with a space before it and a non-letter after it."""
        return self.name == "spelling"


def band_of(seen: int) -> str:
    """Return the name of the band that contains a count."""
    return next(name for low, high, name in BANDS if seen >= low and (high is None or seen <= high))
