"""Options of tagged words (`data/tagged.py`)."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from seqexp.config.checks import check_choice, check_range, check_rule
from seqexp.config.data import check_encoding

FORMATS = ("auto", "conll", "conllu")
# Columns of CoNLL-U with tags, and their indices.
UNIVERSAL_TAGS = {"upos": 3, "xpos": 4}


@dataclass
class TaggedConfig:
    """Sentences with a tag for each word.

    The training sentences are in the file `path`, and those of other splits in `val_path` and `test_path`;
    a missing split is a tenth of the training sentences. Without `path` the files `train_file`, … are read
    from ``$SEQEXP_DATA/<folder>`` or ``./data/<folder>``.

    `format` ``conll`` is a word a line, in columns between tabs or spaces, with blank lines between
    sentences; ``conllu`` is CoNLL-U; ``auto`` goes by the name of the file and its first row. `word_column`
    and `tag_column` are indices from 0; `tag_column` null is the last column. For CoNLL-U `tag_column` is
    ``upos`` (also null) or ``xpos``.

    A batch has sentences of similar length: `batch_size` of them, or up to `batch_tokens` tokens with
    padding. Sentences of more than `max_seq_len` tokens are cut between words, and all parts are read.
    """

    EXAMPLES: ClassVar = "tagged words"
    TOKENIZES: ClassVar = "sentences"
    # Batches have the characters of words.
    CHARACTERS: ClassVar = True

    name: str = MISSING
    path: str | None = None
    val_path: str | None = None
    test_path: str | None = None
    folder: str | None = None
    train_file: str | None = None
    val_file: str | None = None
    test_file: str | None = None
    source: str | None = None
    format: str = "auto"
    word_column: int = 0
    tag_column: str | None = None
    encoding: str | None = None
    batch_size: int = 32
    batch_tokens: int | None = None
    max_seq_len: int = 256

    def __post_init__(self) -> None:
        check_choice("data.format", self.format, FORMATS)
        check_encoding(self.encoding)
        check_range("data.word_column", self.word_column, 0)
        self._check_tag_column()
        check_range("data.batch_size", self.batch_size, 1)
        check_range("data.batch_tokens", self.batch_tokens, 1)
        # A boundary on each side, and a token between them.
        check_range("data.max_seq_len", self.max_seq_len, 3)
        check_rule(
            self.path is not None or (self.val_path is None and self.test_path is None),
            "data.val_path and data.test_path go with data.path; give the training file as data.path=.",
        )

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
