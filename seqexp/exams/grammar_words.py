"""English words for the grammar exam, with all forms; an exam uses the words that its corpus has."""

# Singular, plural, and gender: m for himself, f for herself, absent for both.
PEOPLE = """
king kings m; queen queens f; boy boys m; girl girls f; man men m; woman women f; prince princes m; princess
princesses f; father fathers m; mother mothers f; brother brothers m; sister sisters f; uncle uncles m; aunt
aunts f; lady ladies f; gentleman gentlemen m; son sons m; daughter daughters f; husband husbands m; wife
wives f; nurse nurses f; lord lords m; witch witches f; wizard wizards m; maid maids f; policeman policemen
m; soldier soldiers; servant servants; child children; friend friends; stranger strangers; doctor doctors;
teacher teachers; captain captains; cook cooks; thief thieves; guard guards; visitor visitors; traveller
travellers; player players; writer writers; student students; neighbour neighbours; prisoner prisoners;
client clients
"""

# Things that can be seen, taken and looked at.
THINGS = """
stone stones; door doors; book books; tree trees; house houses; window windows; table tables; lamp lamps;
candle candles; horse horses; dog dogs; bird birds; cat cats; flower flowers; letter letters; picture
pictures; chair chairs; ship ships; box boxes; garden gardens; room rooms; ring rings; key keys; coat coats;
boat boats; basket baskets; bottle bottles; castle castles; cave caves; city cities; cup cups; knife knives;
road roads; rope ropes; river rivers; field fields; fire fires; glass glasses; hat hats; wall walls; tower
towers; cake cakes; apple apples; bell bells; brick bricks; bridge bridges; cloak cloaks; dress dresses; egg
eggs; gate gates; leaf leaves; mountain mountains; mouse mice; paper papers; plate plates; shell shells;
star stars; sword swords; train trains; carriage carriages; engine engines; basin basins; plant plants;
animal animals; village villages
"""

# Present, past and participle of verbs whose past and participle differ.
IRREGULAR = """
see saw seen; take took taken; give gave given; break broke broken; choose chose chosen; forget forgot
forgotten; steal stole stolen; draw drew drawn; know knew known; throw threw thrown; shake shook shaken;
eat ate eaten; write wrote written; wear wore worn; tear tore torn
"""

# Participles of transitive verbs that fit any object.
DONE = """
seen taken given broken chosen forgotten hidden stolen known found lost bought sold kept left
brought loved wanted touched noticed painted opened carried dropped moved watched
"""

# Intransitive verbs in the singular and the plural.
ACTS = """
laughs laugh; sleeps sleep; sings sing; waits wait; talks talk; walks walk; smiles smile; cries cry; works
work; runs run; sits sit; stands stand; speaks speak; comes come; goes go; knows know; thinks think; looks
look
"""

# Past forms of verbs that take a reflexive object.
REFLEXIVE = """
hurt hid washed dressed blamed saw found amused enjoyed asked told threw helped killed comforted
warmed excused called thought pulled lost knew
"""

# Adjectives for people.
STATES = """
tired angry happy afraid hungry asleep ill late frightened alone ready sorry glad busy safe quiet
pleased surprised cold wet dead awake clever brave kind silent
"""

# Adjectives for things.
QUALITIES = """
old new big small little large great heavy dark white black red green blue beautiful strange golden
long short round broken empty dirty clean cold warm pretty quiet tall wonderful
"""

# Prepositions of place between two people.
BESIDE = "near behind beside with before"

# Verb phrases that take a thing as object.
LOOKED = """
looked at; saw; found; remembered; took; wanted; liked; thought of; spoke of; ran to; came to;
talked about
"""


def rows(table: str) -> list[list[str]]:
    """Split a table into rows of words; rows are separated by semicolons."""
    return [row.split() for row in table.split(";")]
