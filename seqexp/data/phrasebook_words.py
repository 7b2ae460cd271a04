"""The words of the phrase book, as tables: verbs, nouns, adjectives and what goes with them, in both.

`phrasebook.py` is the grammar that makes sentences of them.
"""

Pair = tuple[str, str]
Slot = tuple[int, str]  # person and gender of a subject

# The persons of a verb: je, tu, il or elle, nous, ils or elles.
JE, TU, IL, NOUS, ILS = range(5)
SLOTS: tuple[Slot, ...] = ((JE, ""), (TU, ""), (NOUS, ""), (IL, "m"), (IL, "f"), (ILS, "m"), (ILS, "f"))
BE = ("am", "are", "is", "are", "are")
FUTURE = ("ai", "as", "a", "ons", "ont")
WITH_ETRE = {"aller", "revenir", "arriver", "rester", "partir"}

# base third past -ing particle | infinitive | je tu il nous ils | future | participle | objects | may follow
# A dash stands for a form that is not used: without -ing there is no progressive. "er" is conjugated like
# chanter. What may follow the object is nothing, a place, "with" somebody or "to" somebody: "whom".
VERBS = """
see sees saw - | voir | vois vois voit voyons voient | verr | vu | thing animal person | -
look looks looked looking for | chercher | er | chercher | cherché | thing animal person | - in
buy buys bought buying | acheter | achète achètes achète achetons achètent | achèter | acheté | food thing | -
sell sells sold selling | vendre | vends vends vend vendons vendent | vendr | vendu | thing food | - at whom
eat eats ate eating | manger | mange manges mange mangeons mangent | manger | mangé | food | - in with
drink drinks drank drinking | boire | bois bois boit buvons boivent | boir | bu | drink | - in with at
read reads read reading | lire | lis lis lit lisons lisent | lir | lu | reading | - in whom
write writes wrote writing | écrire | écris écris écrit écrivons écrivent | écrir | écrit | letter | - whom
open opens opened opening | ouvrir | ouvre ouvres ouvre ouvrons ouvrent | ouvrir | ouvert | opening | -
close closes closed closing | fermer | er | fermer | fermé | closing | -
help helps helped helping | aider | er | aider | aidé | person | - in at
wait waits waited waiting for | attendre | attends attends attend attendons attendent \
| attendr | attendu | person | - at
give gives gave giving | donner | er | donner | donné | thing food animal | whom
sleep sleeps slept sleeping | dormir | dors dors dort dormons dorment | dormir | dormi | | - in at
work works worked working | travailler | er | travailler | travaillé | | - in at with
go goes went going | aller | vais vas va allons vont | ir | allé | | to
come comes came coming back | revenir | reviens reviens revient revenons reviennent \
| reviendr | revenu | | - from
arrive arrives arrived arriving | arriver | er | arriver | arrivé | | - at
stay stays stayed staying | rester | er | rester | resté | | in at with
leave leaves left leaving | partir | pars pars part partons partent | partir | parti | | - for with
have has - - | avoir | ai as a avons ont | aur | - | thing animal | -
want wants - - | vouloir | veux veux veut voulons veulent | - | - | thing animal | -
like likes - - | aimer | er | - | - | food drink animal reading | -
"""
# Those with patterns of their own.
AUXILIARIES = """
be is - - | être | suis es est sommes sont | ser | - | | -
can can - - | pouvoir | peux peux peut pouvons peuvent | - | - | | -
must must - - | devoir | dois dois doit devons doivent | - | - | | -
think thinks - - | penser | er | - | - | | -
know knows - - | savoir | sais sais sait savons savent | - | - | | -
say says - - | dire | dis dis dit disons disent | - | - | | -
"""

# English singular and plural | French | gender | kinds | adjectives before it | adjectives after it
# Without a plural it is a mass.
NOUNS = """
boy boys | garçon garçons | m | person | little |
girl girls | fille filles | f | person | little |
man men | homme hommes | m | person | young old |
woman women | femme femmes | f | person | young old |
child children | enfant enfants | m | person |  |
king kings | roi rois | m | person | young old |
queen queens | reine reines | f | person | young old |
brother brothers | frère frères | m | kin | little |
sister sisters | sœur sœurs | f | kin | little |
uncle uncles | oncle oncles | m | kin | old |
aunt aunts | tante tantes | f | kin | old |
dog dogs | chien chiens | m | animal | small old beautiful | black white
cat cats | chat chats | m | animal | small old beautiful | black white
horse horses | cheval chevaux | m | animal | small old beautiful | black white
bird birds | oiseau oiseaux | m | animal | small old beautiful | black white red
car cars | voiture voitures | f | thing | small big old new beautiful | black white red
house houses | maison maisons | f | thing | small big old new beautiful | black white red
computer computers | ordinateur ordinateurs | m | thing | old new beautiful |
boat boats | bateau bateaux | m | thing | small big old new beautiful | white red
hotel hotels | hôtel hôtels | m | thing | new beautiful |
hat hats | chapeau chapeaux | m | thing portable | small big old new beautiful | black white red
gift gifts | cadeau cadeaux | m | thing portable opening | small big beautiful |
key keys | clé clés | f | portable thing | small old new | black
book books | livre livres | m | thing portable reading closing | small old new good beautiful | red
letter letters | lettre lettres | f | portable reading letter opening | beautiful new old |
newspaper newspapers | journal journaux | m | portable reading | old new good |
apple apples | pomme pommes | f | food portable | small beautiful good | red
orange oranges | orange oranges | f | food portable | small beautiful good |
egg eggs | œuf œufs | m | food portable | small | white
cake cakes | gâteau gâteaux | m | food portable | small big beautiful good |
door doors | porte portes | f | opening closing | small big old new | black white red
window windows | fenêtre fenêtres | f | opening closing | small big old new | white
bread - | pain - | m | food | good | white
soup - | soupe - | f | food | good |
water - | eau - | f | drink |  |
milk - | lait - | m | drink | good |
coffee - | café - | m | drink | good | black
"""

# English | masculine, feminine, their plurals; the masculine before a vowel, if that is another
ADJECTIVES = """
little | petit petite petits petites
small | petit petite petits petites
big | grand grande grands grandes
young | jeune jeune jeunes jeunes
old | vieux vieille vieux vieilles vieil
new | nouveau nouvelle nouveaux nouvelles nouvel
beautiful | beau belle beaux belles bel
good | bon bonne bons bonnes
black | noir noire noirs noires
white | blanc blanche blancs blanches
red | rouge rouge rouges rouges
sad | triste triste tristes tristes
sick | malade malade malades malades
rich | riche riche riches riches
tall | grand grande grands grandes
strong | fort forte forts fortes
tired | fatigué fatiguée fatigués fatiguées
happy | heureux heureuse heureux heureuses
"""
STATES = ("sad", "sick", "rich", "tall", "strong", "tired", "happy")

# Masculine, feminine, plural. English has no word for `some` (bread, apples) or for `any` (in general).
DETERMINERS = {
    "the": ("le", "la", "les"), "a": ("un", "une", ""), "some": ("de le", "de la", "des"),
    "this": ("ce", "cette", ""), "these": ("", "", "ces"), "any": ("le", "la", "les"),
    "my": ("mon", "ma", "mes"), "your": ("ton", "ta", "tes"), "his": ("son", "sa", "ses"),
    "her": ("son", "sa", "ses"), "our": ("notre", "notre", "nos"), "their": ("leur", "leur", "leurs"),
    "two": ("", "", "deux"), "three": ("", "", "trois"), "five": ("", "", "cinq"),
}  # fmt: skip
SILENT = ("some", "any")
POSSESSIVE = ("my", "your", "his", "her", "our", "their")
DEFINITE = (*3 * ("the",), *2 * ("this", "these"), *POSSESSIVE)
INDEFINITE = (*4 * ("a",), *4 * ("some",))
COUNTED = ("two", "three", "five")

PRONOUNS: dict[Slot, Pair] = {
    (JE, ""): ("I", "je"), (TU, ""): ("you", "tu"), (NOUS, ""): ("we", "nous"),
    (IL, "m"): ("he", "il"), (IL, "f"): ("she", "elle"), (ILS, "m"): ("they", "ils"),
}  # fmt: skip
NAMES = {"Paul": "m", "Louis": "m", "Antoine": "m", "Marie": "f", "Julie": "f", "Anna": "f"}
# Direct object, indirect object, after a preposition; what the direct object adds to a participle, if known.
CLITICS = {
    "me": ("me", "me", "moi", "?"), "you": ("te", "te", "toi", "?"), "us": ("nous", "nous", "nous", "?"),
    "him": ("le", "lui", "lui", ""), "her": ("la", "lui", "elle", "e"), "them": ("les", "leur", "eux", "s"),
}  # fmt: skip
SELF = {"I": ("me", "us"), "you": ("you",), "we": ("me", "us")}

PUBLIC = {
    "the station": "la gare", "the market": "le marché", "the hospital": "le hôpital",
    "the beach": "la plage", "the church": "la église", "the restaurant": "le restaurant",
    "the school": "la école",
}  # fmt: skip
ROOMS = {"the garden": "le jardin", "the kitchen": "la cuisine", "the house": "la maison"}
CITIES = {"Paris": "Paris", "Lyon": "Lyon", "Rome": "Rome", "Oslo": "Oslo"}
OBJECTS = {"the table": "la table", "the bridge": "le pont", "the chair": "la chaise"}
PLACES = {
    "to": ("à", PUBLIC | CITIES), "from": ("de", PUBLIC | CITIES), "for": ("pour", CITIES),
    "at": ("à", PUBLIC), "in": ("dans", ROOMS), "on": ("sur", OBJECTS), "under": ("sous", OBJECTS),
    "behind": ("derrière", PUBLIC | OBJECTS), "near": ("près de", PUBLIC | OBJECTS),
}  # fmt: skip
SPOTS = ("in", "at", "behind", "near", "on", "under")  # the first four also for people
TIMES = {
    "now": {"": "", "now": "maintenant"},  # English takes the progressive
    "habit": {"every day": "tous les jours", "every morning": "tous les matins"},
    "past": {"": "", "yesterday": "hier", "this morning": "ce matin", "last week": "la semaine dernière"},
    "future": {"": "", "tomorrow": "demain", "tonight": "ce soir", "next week": "la semaine prochaine"},
}

YES_NO = ""
NEGATIONS = {"not": "pas", "never": "jamais"}
ASK = {
    YES_NO: "est-ce que", "what": "qu'est-ce que", "why": "pourquoi est-ce que",
    "where": "où est-ce que", "when": "quand est-ce que",
}  # fmt: skip
# How many sentences for a verb and person in a tense: about twenty, so that no form is rare.
MOODS = {
    "now": {"statement": 3, "not": 3, YES_NO: 3, "wh": 2},
    "habit": {"statement": 3, "not": 2, "never": 2, YES_NO: 2, "wh": 1},
    "past": {"statement": 6, "not": 5, "never": 2, YES_NO: 4, "wh": 3},
    "future": {"statement": 6, "not": 5, "never": 2, YES_NO: 4, "wh": 3},
}
BEFORE_VOWEL = {
    "je": "j'", "me": "m'", "te": "t'", "le": "l'", "la": "l'", "ne": "n'", "de": "d'", "que": "qu'",
    "ce": "cet ", "ma": "mon ", "ta": "ton ", "sa": "son ",
}  # fmt: skip
CONTRACTED = {"de le": "du", "de les": "des", "à le": "au", "à les": "aux"}
