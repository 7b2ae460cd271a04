"""Options of data sets and tokenizers."""

from dataclasses import dataclass

from omegaconf import MISSING

from seqexp.config.checks import check_choice, check_range, check_rule

TEXT_SPLITS = ("contiguous", "per_file")


@dataclass
class TextDataConfig:
    """Running text: files of words, cut into windows of `seq_len` tokens.

    Files are looked for in `path`, then ``$SEQEXP_DATA/<name>``, then ``./data/<name>``; then comes the
    download from `url` (whose bytes must have this `sha256`), then, if `stand_in`, the stand-in book.
    """

    name: str = MISSING
    path: str | None = None
    encoding: str | None = None
    url: str | None = None
    sha256: str | None = None
    stand_in: bool = False
    split: str = "contiguous"
    seq_len: int = 128
    batch_size: int = 16

    def __post_init__(self) -> None:
        check_choice("data.split", self.split, TEXT_SPLITS)
        check_range("data.seq_len", self.seq_len, 2)
        check_range("data.batch_size", self.batch_size, 1)
        check_encoding(self.encoding)
        check_rule(
            self.name != "text" or bool(self.path),
            "data.path was not given; write data.path=<a file, a folder of .txt files, or a glob>.",
        )
        check_rule(
            (self.url is None) == (self.sha256 is None),
            "data.url and data.sha256 go together: what is downloaded must be what was meant.",
        )


@dataclass
class TokenizerConfig:
    """A tokenizer without options (char, byte)."""

    name: str = MISSING


def check_encoding(encoding: str | None) -> None:
    """Refuse the name of a text encoding that Python does not know.

    Raises:
        UserError: with examples of encodings.
    """
    if encoding is None:
        return
    try:
        "".encode(encoding)
        known = True
    except (LookupError, ValueError):
        known = False
    check_rule(
        known,
        f"data.encoding={encoding} is not known; use utf-8, latin-1, cp1252 or another of Python's "
        "text encodings, or leave it out.",
    )
