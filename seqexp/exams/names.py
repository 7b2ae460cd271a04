"""Find the names of people in a novel, and the pronouns that refer to them."""

import re
from collections import Counter
from collections.abc import Iterable

# Verbs of speech: a name beside one of them is a person's.
SPEECH = "said|asked|cried|answered|replied|whispered|shouted|remarked|thought|laughed"
SPEAKERS = (re.compile(rf"\b(?:{SPEECH}) ([A-Z][a-z]+)\b"), re.compile(rf"\b([A-Z][a-z]+) (?:{SPEECH})\b"))
AFTER = 60  # characters after a name in which pronouns are counted
PRONOUNS = {"he": "m", "him": "m", "his": "m", "himself": "m",
            "she": "f", "her": "f", "hers": "f", "herself": "f"}  # fmt: skip
PRONOUN = re.compile(rf"\b(?:{'|'.join(PRONOUNS)})\b")
# Capitalised words that are not names: titles, relatives, and first words of sentences.
NO_NAMES = re.findall(
    r"\w+",
    """
    The He She It They We You And But So Then Who What One Mr Mrs Miss Dr Sir Lady Lord Master Mother Father
    Mamma Papa Mummy Daddy Aunt Uncle King Queen Prince Princess Captain Doctor Professor God Nobody Everybody
    Somebody Everyone Someone This That There Here Now Not No Yes Oh Ah Well Both All
    """,
)
SPOKE = 3  # times that a name must speak
EVIDENCE, SHARE = 6, 0.7  # pronouns that a name needs, and the share of them that must agree


def find_names(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the names of men and of women, the most frequent speakers first.

    A name is a capitalised word that speaks at least three times. At least six pronouns must occur within
    sixty characters after it, and 70 % of them must agree.
    """
    speakers: Counter[str] = Counter()
    texts = list(texts)
    for text in texts:
        for pattern in SPEAKERS:
            speakers.update(pattern.findall(text))
    names = [name for name, n in speakers.items() if n >= SPOKE and name not in NO_NAMES]
    if not names:
        return [], []
    kinds: dict[str, Counter[str]] = {name: Counter() for name in names}
    anywhere = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")
    for text in texts:
        for match in anywhere.finditer(text):
            following = text[match.end() : match.end() + AFTER]
            # Pronouns after another name may refer to that one.
            other = anywhere.search(following)
            following = following[: other.start()] if other else following
            for pronoun in PRONOUN.findall(following):
                kinds[match[0]][PRONOUNS[pronoun]] += 1
    found: tuple[list[str], list[str]] = ([], [])
    for name in sorted(names, key=lambda name: (-speakers[name], name)):
        m, f = kinds[name]["m"], kinds[name]["f"]
        if m + f >= EVIDENCE and max(m, f) >= SHARE * (m + f):
            found[0 if m > f else 1].append(name)
    return found
