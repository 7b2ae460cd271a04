"""A text whose words carry scores, as plain data, plain text, and colours for a terminal, page or picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Colours for words that speak for and against a prediction; the colour-blind tell them apart.
FOR, AGAINST, WHITE = (33, 102, 172), (178, 24, 43), (255, 255, 255)
# Words below this share of the strongest score have no colour.
FAINT = 0.05


@dataclass(frozen=True)
class ScoredText:
    """A text, where each scored word begins and ends in it, in order, and its score.

    If it is `signed`, words above zero speak for something and words below it against that; else scores are
    weights of zero or more. `title` says what the scores are.
    """

    text: str
    words: tuple[tuple[int, int], ...]
    scores: tuple[float, ...]
    signed: bool = True
    title: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def scored(self) -> list[tuple[str, float]]:
        """Each word with its score."""
        return [
            (self.text[begin:end], score) for (begin, end), score in zip(self.words, self.scores, strict=True)
        ]

    def pieces(self) -> Iterator[tuple[str, float | None]]:
        """Yield the text in pieces: words with their score, divided by the largest, and what is between."""
        largest = max((abs(score) for score in self.scores), default=0.0) or 1.0
        place = 0
        for (begin, end), score in zip(self.words, self.scores, strict=True):
            if begin > place:
                yield self.text[place:begin], None
            yield self.text[begin:end], score / largest
            place = end
        if place < len(self.text):
            yield self.text[place:], None

    def plain(self) -> str:
        """Return the text with the score of each word behind it: ``A(+0.02) moving(+1.31) film(-0.10)``."""
        parts, place = [], 0
        for (_, end), score in zip(self.words, self.scores, strict=True):
            parts += [self.text[place:end], f"({self._number(score)})"]
            place = end
        return "".join([*parts, self.text[place:]])

    def strongest(self, count: int = 3) -> str:
        """Name the words with the highest scores, and if signed those with the lowest."""
        ranked = sorted(self.scored, key=lambda one: -one[1])
        best = [one for one in ranked if one[1] > 0][:count]
        worst = [one for one in ranked[::-1] if one[1] < 0][:count]
        parts = [("for it", best), ("against it", worst)] if self.signed else [("most", best)]
        return "; ".join(
            f"{name}: " + ", ".join(f"{word} {self._number(score)}" for word, score in some)
            for name, some in parts
            if some
        )

    def _number(self, score: float) -> str:
        return f"{score:+.2f}" if self.signed else f"{score:.2f}"

    def cut(self, most: int) -> "ScoredText":
        """Shorten the text to `most` characters."""
        if len(self.text) <= most:
            return self
        kept = sum(end < most for _, end in self.words)
        return ScoredText(
            self.text[: most - 1] + "…", self.words[:kept], self.scores[:kept], self.signed, self.title
        )

    def to_plain(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "words": [list(word) for word in self.words],
            "scores": list(self.scores),
            "signed": self.signed,
            "title": self.title,
        }


def scored_text(plain: Any) -> ScoredText | None:
    """The inverse of `ScoredText.to_plain`; None if the value, which is untrusted, is anything else."""
    if not isinstance(plain, dict) or not isinstance(plain.get("text"), str):
        return None
    text, words, scores = plain["text"], plain.get("words"), plain.get("scores")
    if (
        not isinstance(words, list | tuple)
        or not isinstance(scores, list | tuple)
        or len(words) != len(scores)
    ):
        return None
    spans, place = [], 0
    for word, score in zip(words, scores, strict=True):
        sound = isinstance(word, list | tuple) and len(word) == 2 and all(type(end) is int for end in word)
        if not sound or not place <= word[0] < word[1] <= len(text):
            return None
        if type(score) not in (int, float) or not abs(score) < 1e300:
            return None
        spans.append((word[0], word[1]))
        place = word[1]
    title, signed = plain.get("title"), plain.get("signed") is not False
    return ScoredText(text, tuple(spans), tuple(scores), signed, title if isinstance(title, str) else "")


def colours(share: float | None) -> tuple[str, str] | None:
    """Return the background and the colour of the letters, such as ``#d1e5f0``, for a score from -1 to 1.

    None if the word stays as it is.
    """
    if share is None or abs(share) < FAINT:
        return None
    depth = 0.15 + 0.75 * min(1.0, abs(share))
    target = FOR if share > 0 else AGAINST
    red, green, blue = (round(w + depth * (t - w)) for w, t in zip(WHITE, target, strict=True))
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    return f"#{red:02x}{green:02x}{blue:02x}", "#ffffff" if dark else "#000000"
