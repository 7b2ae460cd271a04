"""What is asked of word vectors in one line: ``king - man + woman``, one word, a pair, or several words."""

import re
from dataclasses import dataclass

from seqexp.errors import UserError

MINUS = "-−–"


@dataclass(frozen=True)
class Expression:
    """The words that are added and taken away in a question; `signed` if signs stood in it."""

    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()
    signed: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.plus, *self.minus)


def parse(text: str) -> Expression:
    """Return the words of a question with their signs.

    A sign stands between spaces, or ``+`` between words without spaces; commas may stand between words.

    Raises:
        UserError: there is no word, or no word after a sign.
    """
    plus: list[str] = []
    minus: list[str] = []
    sign, signed, waits = plus, False, False
    for part in re.sub(r"\+", " + ", text.replace(",", " ")).split():
        if part == "+" or part in MINUS:
            if waits:
                raise UserError(f"text={text!r} has two signs without a word between them.")
            sign, signed, waits = (plus if part == "+" else minus), True, True
        elif part[0] in MINUS and len(part) > 1 and (signed or not plus):  # "-man"
            minus.append(part[1:])
            signed, waits = True, False
        else:
            if signed and not waits:
                raise UserError(
                    f"text={text!r}: write a sign before {part!r}, as in king - man + woman, or no signs."
                )
            sign.append(part)
            waits = False
    if waits or not (plus or minus):
        raise UserError(f"text={text!r}: write one word, a pair, or words with signs: king - man + woman.")
    return Expression(tuple(plus), tuple(minus), signed)
