"""The phrasebook: pairs written by hand, spellings that do not exist, sizes, and the same book anywhere."""

import hashlib
import re
import subprocess
import sys
from collections import Counter

import pytest

from seqexp.data.phrasebook import VERSION, finish, phrasebook

# One or more for every rule; written down by hand, so that a rule that changes is seen.
BY_HAND = [
    # the present: progressive, habits, verbs that have no progressive
    ("Anna is staying at the restaurant now.", "Anna reste au restaurant maintenant."),
    ("I sleep at the station every day.", "Je dors à la gare tous les jours."),
    ("I am leaving now.", "Je pars maintenant."),
    ("We are drinking water.", "Nous buvons de l'eau."),
    ("She wants horses.", "Elle veut des chevaux."),
    # passé composé with avoir, and with être and its agreement
    ("I saw this old man.", "J'ai vu ce vieil homme."),
    ("He came back.", "Il est revenu."),
    ("The girl came back.", "La fille est revenue."),
    ("They never stayed in the house.", "Ils ne sont jamais restés dans la maison."),
    ("His aunts went to the school.", "Ses tantes sont allées à l'école."),
    ("When did she leave?", "Quand est-ce qu'elle est partie ?"),
    # the future, of irregular stems too
    ("I will buy an orange.", "J'achèterai une orange."),
    ("You will come back.", "Tu reviendras."),
    ("They will never drink milk.", "Ils ne boiront jamais de lait."),
    ("What will she have?", "Qu'est-ce qu'elle aura ?"),
    # negation, and what it does to the article
    ("I will not sleep.", "Je ne dormirai pas."),
    ("You do not see birds.", "Tu ne vois pas d'oiseaux."),
    ("I am not looking for a bird.", "Je ne cherche pas d'oiseau."),
    ("You never gave eggs to the women.", "Tu n'as jamais donné d'œufs aux femmes."),
    ("These young men do not like apples.", "Ces jeunes hommes n'aiment pas les pommes."),
    # questions
    ("Do we work every day?", "Est-ce que nous travaillons tous les jours ?"),
    ("Who saw the old king?", "Qui a vu le vieux roi ?"),
    ("Where will we eat two eggs?", "Où est-ce que nous mangerons deux œufs ?"),
    ("Where are the dogs?", "Où sont les chiens ?"),
    ("Am I very sad?", "Est-ce que je suis très triste ?"),
    # agreement and place of adjectives, forms before a vowel
    ("Our old aunts are tired.", "Nos vieilles tantes sont fatiguées."),
    ("You do not see beautiful white houses.", "Tu ne vois pas de belles maisons blanches."),
    ("I have beautiful dogs.", "J'ai de beaux chiens."),
    ("You will buy our new computer.", "Tu achèteras notre nouvel ordinateur."),
    ("He wants their old bird.", "Il veut leur vieil oiseau."),
    ("Our old uncle is not sleeping.", "Notre vieil oncle ne dort pas."),
    ("They never eat my orange.", "Ils ne mangent jamais mon orange."),
    # plurals in -x, contractions, elision
    ("I am reading newspapers.", "Je lis des journaux."),
    ("I bought our old boats.", "J'ai acheté nos vieux bateaux."),
    ("I sold a white egg to the kings.", "J'ai vendu un œuf blanc aux rois."),
    ("Is there a queen near the bridge?", "Est-ce qu'il y a une reine près du pont ?"),
    (
        "Paul knows that I come back from the church every morning.",
        "Paul sait que je reviens de l'église tous les matins.",
    ),
    ("We will come back from Oslo.", "Nous reviendrons d'Oslo."),
    # pronouns, their place and the participle
    ("I see her.", "Je la vois."),
    ("I saw her.", "Je l'ai vue."),
    ("You did not wait for her.", "Tu ne l'as pas attendue."),
    ("Is Paul helping you now?", "Est-ce que Paul t'aide maintenant ?"),
    ("He gave her a red book last week.", "Il lui a donné un livre rouge la semaine dernière."),
    # two verbs
    ("Can they sleep tonight?", "Est-ce qu'ils peuvent dormir ce soir ?"),
    ("He does not want to open gifts tonight.", "Il ne veut pas ouvrir de cadeaux ce soir."),
    ("I think that she is going to the station.", "Je pense qu'elle va à la gare."),
]

# Words before which nothing is elided would need a list; this vocabulary has none, and every h is silent.
VOWEL = "[aàâeéèêiîoôuûyhœ]"


@pytest.fixture(scope="module")
def book() -> dict[str, str]:
    return dict(phrasebook())


def test_the_sentences_by_hand_are_in_it(book: dict[str, str]) -> None:
    assert {english: book.get(english) for english, _ in BY_HAND} == dict(BY_HAND)


def test_an_english_sentence_has_one_translation(book: dict[str, str]) -> None:
    pairs = phrasebook()
    assert len({english.casefold() for english, _ in pairs}) == len(book) == len(pairs)
    assert 8_000 <= len(pairs) <= 12_000


def test_the_book_is_the_same_in_another_process_and_as_its_version_says() -> None:
    """Whoever changes the sentences changes VERSION, and then the figure here."""
    digest = hashlib.sha256(repr(phrasebook()).encode()).hexdigest()
    assert (VERSION, digest[:16]) == ("phrasebook 1: English to French", "786823f591382399")
    code = "import hashlib; from seqexp.data.phrasebook import phrasebook as p; "
    code += "print(hashlib.sha256(repr(p()).encode()).hexdigest())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest


def test_the_head_of_the_book_is_like_the_rest_of_it() -> None:
    """Whoever takes the first thousand has questions, negations and the past among them."""
    pairs = phrasebook()
    for pattern in (r"\?$", r" not ", r"\bwill\b", r"^Did ", r" that "):
        share = sum(re.search(pattern, english, re.I) is not None for english, _ in pairs) / len(pairs)
        head = sum(re.search(pattern, english, re.I) is not None for english, _ in pairs[:1000]) / 1000
        assert abs(head - share) < 0.06, pattern


@pytest.mark.parametrize(
    "wrong",
    [
        rf"\b(je|me|te|le|la|ne|de|que|ce|ma|ta|sa) (?={VOWEL})",  # not elided
        rf"\b(cet|bel|nouvel|vieil) (?!{VOWEL})|'(?!{VOWEL})",  # no vowel follows
        r"\b(à|de) les?\b",  # not contracted
        r"\b(pas|jamais) (\w+[éuti] )?(un|une|des)\b",  # the article of a negated object
        r"\b(boi\w+|buv\w+|mang\w+) (pas|jamais) (du |de la |de l')",
        r"\bdes (petit|grand|beaux|belles|vieux|vieilles|nouve|bon|jeune)",  # de belles pommes
        r"\b(un|ce|le|mon|ton|son) (belle|bonne|petite|grande|vieille|nouvelle)\b",
        r"\b(une|cette|la|ma) (beau|bon|petit|grand|vieux|vieil|nouveau|nouvel)\b",
        r"\b(elle|Marie|Julie|Anna) est (n'|pas |jamais )*(allé|venu|revenu|parti|resté|arrivé)\b",
        r"\b(\w+) \1\b",  # a word twice
    ],
)
def test_no_french_sentence_is_spelt(wrong: str, book: dict[str, str]) -> None:
    assert [french for french in book.values() if re.search(wrong, french, re.I)] == []


@pytest.mark.parametrize(
    "wrong",
    [
        r"\ba [aeiou]|\ban [^aeiou]",
        r"^(He|She|Paul|Marie|Julie|Anna|Louis|Antoine) (are|am|have|do|go|see|want|like)\b",
        r"^(I|You|We|They) (is|has|does|goes|sees|wants|likes)\b",
        r"\b(do not|does not|did not|will not|will never|cannot|must not) \w+(s|ed|ing)\b",
        r"\bcan not\b|  ",
        r"^(I|We) ((will|did) )?(not )?(see|help|helped|saw) (me|us)\b",
    ],
)
def test_no_english_sentence_has(wrong: str, book: dict[str, str]) -> None:
    assert [english for english in book if re.search(wrong, english)] == []


def test_capitals_marks_and_spaces(book: dict[str, str]) -> None:
    for english, french in book.items():
        assert re.fullmatch(r"[A-Z][A-Za-z ]*[a-z][.?]", english), english
        assert re.fullmatch(r"[A-Z][A-Za-zùàâçéèêîôûœ' -]*[a-zéà](\.| \?)", french), french
        assert english[-1] == french[-1]
        assert 2 <= len(english.split()) <= 12
        assert "  " not in english + french


def test_every_word_is_seen_often(book: dict[str, str]) -> None:
    for language in (book.keys(), book.values()):
        words = Counter(word for text in language for word in re.findall(r"[^\W\d_]+'?", text.casefold()))
        assert min(words.values()) >= 20, words.most_common()[-5:]


@pytest.mark.parametrize(
    ("subject", "ending"),
    [
        ("He|Paul|Louis|Antoine|This man|My brother", "[éiu]"),
        ("She|Marie|Julie|Anna|This woman|My sister", "[éiu]e"),
        ("They|Paul and Marie|These men|My brothers|Anna and Louis", "[éiu]s"),
        (r"Marie and Anna|These women|The girls|[A-Z]\w+ (little )?sisters|[A-Z]\w+ (old )?aunts", "[éiu]es"),
    ],
)
def test_participles_agree_with_the_subject(subject: str, ending: str, book: dict[str, str]) -> None:
    pattern = rf"({subject}) (never )?(went|came back|arrived|stayed|left)\b"
    found = [french for english, french in book.items() if re.match(pattern, english)]
    assert len(found) >= 5
    for french in found:
        assert re.search(rf"(est|sont) (jamais )?(all|reven|arriv|rest|part){ending}\b", french), french


@pytest.mark.parametrize(("pronoun", "participle"), [("him", "aidé"), ("her", "aidée"), ("them", "aidés")])
def test_participles_agree_with_the_pronoun(pronoun: str, participle: str, book: dict[str, str]) -> None:
    pattern = rf"\b(helped|Did .* help) {pronoun}\b"
    found = [french for english, french in book.items() if re.search(pattern, english)]
    plain = [french for french in found if re.search(r"\b(l'|les )(ai|as|a|avons|ont)\b", french)]
    assert len(plain) >= 5
    assert all(re.search(rf"\b{participle}\b", french) for french in plain)


@pytest.mark.parametrize(
    ("french", "written"),
    [
        ("je ai vu le arbre", "J'ai vu l'arbre."),
        ("elle a vu ce homme de le village", "Elle a vu cet homme du village."),
        ("il parle à les enfants de la eau", "Il parle aux enfants de l'eau."),
        ("tu la as vue à la école", "Tu l'as vue à l'école."),
        ("que est-ce que Anna mange", "Qu'est-ce qu'Anna mange."),
    ],
)
def test_elision_and_contraction(french: str, written: str) -> None:
    assert finish("a egg", french, ".") == ("An egg.", written)
