"""Tags that mark spans of words, such as names, and which of them may follow each other.

A tag is ``O`` or a prefix and a type, such as ``B-person``. In IOB2 (BIO) a span begins with B and goes on
with I. In IOB1 it begins with I, or with B right after a span of its type. In IOBES, spans of several words
begin with B and end with E, and spans of one word are S.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

OUTSIDE = "O"
SPAN_TAG = re.compile("([BIES])-(.+)", re.DOTALL)
SCHEMES = ("IOB2", "IOB1", "IOBES")


def tag_parts(tag: str) -> tuple[str, str]:
    """Return the prefix and the type of a tag; O has no type, and neither has a tag of no span scheme."""
    match = SPAN_TAG.fullmatch(tag)
    return (match[1], match[2]) if match else (OUTSIDE, "")


def odd_tags(tags: Iterable[str]) -> list[str]:
    """Return the tags that keep others from being spans; none if no tag looks like a span."""
    distinct = set(tags) - {OUTSIDE}
    odd = sorted(tag for tag in distinct if not SPAN_TAG.fullmatch(tag))
    return odd if len(odd) < len(distinct) else []


def is_span_scheme(tags: Iterable[str]) -> bool:
    """Whether all tags are ``O``, or B, I, E or S with a type, and at least one has a type."""
    inside = set(tags) - {OUTSIDE}
    return bool(inside) and all(SPAN_TAG.fullmatch(tag) for tag in inside)


def may_follow(scheme: str, before: str, after: str) -> bool:
    """Whether a scheme allows the tag `after` next to the tag `before`; the ends of a sentence count as O."""
    (prefix, kind), (next_prefix, next_kind) = tag_parts(before), tag_parts(after)
    continues_type = kind == next_kind != ""
    if scheme == "IOBES":
        inside = prefix in ("B", "I")
        return inside == (next_prefix in ("I", "E")) and (continues_type or not inside)
    if next_prefix in ("E", "S"):
        return False
    return continues_type or next_prefix != ("I" if scheme == "IOB2" else "B")


def invalid_steps(scheme: str, sentences: Iterable[Sequence[str]]) -> int:
    """Count the pairs of neighbouring tags that a scheme does not allow."""
    steps = Counter(pair for tags in sentences for pair in pairwise([OUTSIDE, *tags, OUTSIDE]))
    return sum(count for pair, count in steps.items() if not may_follow(scheme, *pair))


def find_scheme(sentences: Sequence[Sequence[str]]) -> str | None:
    """Return the scheme of `SCHEMES` that the tags break least; None if they are not spans."""
    if not is_span_scheme(tag for tags in sentences for tag in tags):
        return None
    return min(SCHEMES, key=lambda scheme: invalid_steps(scheme, sentences))
