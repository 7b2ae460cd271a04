"""Options that data sets of examples in files share: labelled texts, and tagged words."""

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from seqexp.config.checks import check_choice, check_range, check_rule
from seqexp.config.data import check_encoding


@dataclass
class ExampleFilesConfig:
    """Examples of each split in a file, in batches of similar length.

    The training examples are in `path`, and those of other splits in `val_path` and `test_path`; a missing
    split is cut from the training examples. Without `path` the files `train_file`, … are read from
    ``$SEQEXP_DATA/<folder>`` or ``./data/<folder>``, or downloaded from below `url` if `sha256` has their
    hashes by name; `source` says where they come from.

    A batch has examples of similar length: `batch_size` of them, or up to `batch_tokens` tokens with padding.
    """

    TOKENIZES: ClassVar = "sentences"
    FORMATS: ClassVar[tuple[str, ...]] = ("auto",)
    # The fewest tokens that an example can have.
    SHORTEST: ClassVar[int] = 2

    name: str = MISSING
    path: str | None = None
    val_path: str | None = None
    test_path: str | None = None
    folder: str | None = None
    train_file: str | None = None
    val_file: str | None = None
    test_file: str | None = None
    source: str | None = None
    url: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    format: str = "auto"
    encoding: str | None = None
    batch_size: int = 32
    batch_tokens: int | None = None
    max_seq_len: int = 256

    def __post_init__(self) -> None:
        check_choice("data.format", self.format, self.FORMATS)
        check_encoding(self.encoding)
        check_range("data.batch_size", self.batch_size, 1)
        check_range("data.batch_tokens", self.batch_tokens, 1)
        check_range("data.max_seq_len", self.max_seq_len, self.SHORTEST)
        check_rule(
            self.path is not None or (self.val_path is None and self.test_path is None),
            "data.val_path and data.test_path go with data.path; give the training file as data.path=.",
        )
