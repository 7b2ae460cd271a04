"""Options of tagged words (`data/tagged.py`)."""

from dataclasses import dataclass
from typing import ClassVar

from seqexp.config.checks import check_range, check_rule
from seqexp.config.example_files import ExampleFilesConfig

# Columns of CoNLL-U with tags, and their indices.
UNIVERSAL_TAGS = {"upos": 3, "xpos": 4}


@dataclass
class TaggedConfig(ExampleFilesConfig):
    """Sentences with a tag for each word.

    A missing split is a tenth of the training sentences. `format` ``conll`` is a word a line, in columns
    between tabs or spaces, with blank lines between sentences; ``conllu`` is CoNLL-U; ``auto`` goes by the
    name of the file and its first row. `word_column` and `tag_column` are indices from 0; `tag_column` null
    is the last column. For CoNLL-U `tag_column` is ``upos`` (also null) or ``xpos``.

    Sentences of more than `max_seq_len` tokens are cut between words, and all parts are read.
    """

    EXAMPLES: ClassVar = "tagged words"
    # Batches have the characters of words.
    CHARACTERS: ClassVar = True
    FORMATS: ClassVar[tuple[str, ...]] = ("auto", "conll", "conllu")
    # A boundary on each side, and a token between them.
    SHORTEST: ClassVar[int] = 3

    word_column: int = 0
    tag_column: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("data.word_column", self.word_column, 0)
        self._check_tag_column()

    def _check_tag_column(self) -> None:
        column = self.tag_column
        if column is None:
            return
        check_rule(
            column in UNIVERSAL_TAGS or (column.isascii() and column.isdecimal() and len(column) < 5),
            f"data.tag_column={column} is not a column; give an index from 0 for CoNLL columns, or "
            f"{' or '.join(UNIVERSAL_TAGS)} for CoNLL-U.",
        )
        check_rule(
            column in UNIVERSAL_TAGS or int(column) != self.word_column,
            f"data.tag_column={column} and data.word_column={self.word_column} are the same column; "
            "change one of them.",
        )


@dataclass
class OwnTaggedConfig(TaggedConfig):
    """The user's own tagged words; `path` is required."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(
            self.path is not None,
            "no words were given; write data.path=<a file with a word and its tag in each line and blank "
            "lines between sentences, or a .conllu file>.",
        )
