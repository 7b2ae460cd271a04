"""Options of the tokenizers."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from seqexp.config.checks import check_choice, check_range, check_rule

NORMALIZATIONS = ("none", "nfkc")


@dataclass
class TokenizerConfig:
    """A tokenizer without options; `READS` are the kinds of text that it reads (see `config/data.py`)."""

    READS: ClassVar[tuple[str, ...]] = ("text", "sentences")

    name: str = MISSING


@dataclass
class ByteConfig(TokenizerConfig):
    """Bytes of UTF-8, for running text."""

    READS: ClassVar[tuple[str, ...]] = ("text",)


@dataclass
class BitsConfig(TokenizerConfig):
    """The characters 0 and 1."""

    READS: ClassVar[tuple[str, ...]] = ("bits",)


@dataclass
class WordConfig:
    """One token per word: the `vocab_size` most frequent of those seen at least `min_count` times."""

    READS: ClassVar[tuple[str, ...]] = ("text", "sentences")

    name: str = "word"
    min_count: int = 2
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        check_range("tokenizer.min_count", self.min_count, 1)
        check_range("tokenizer.vocab_size", self.vocab_size, 1)


@dataclass
class BareWordConfig(WordConfig):
    """Lower-case words without the signs between them. `LOSSY`: a text does not come back from its tokens.

    Two words whose score (Mikolov et al. 2013b, eq. 6) is above `phrases` are one token; 0: none are.
    """

    ADDED: ClassVar = {"phrases": 0.0}
    LOSSY: ClassVar[bool] = True

    name: str = "bare_word"
    min_count: int = 5
    phrases: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("tokenizer.phrases", self.phrases, 0)


@dataclass
class WhitespaceConfig:
    """One token per word between white space, of those seen at least `min_count` times in training.

    `words_path` names a file of further words, such as those that have pretrained vectors: the first of each
    line, or the first column of strings of a ``.parquet`` file. `vocab_size` limits all of them, training
    first. With `lower`, words are read in lower case.
    """

    READS: ClassVar[tuple[str, ...]] = ("sentences",)

    name: str = "whitespace"
    min_count: int = 2
    vocab_size: int | None = None
    lower: bool = False
    words_path: str | None = None

    def __post_init__(self) -> None:
        check_range("tokenizer.min_count", self.min_count, 1)
        check_range("tokenizer.vocab_size", self.vocab_size, 1)


@dataclass
class SentencePieceConfig:
    """Subwords: at most `vocab_size` of them, fewer if the text yields no more.

    For pairs of languages, `joint` trains one vocabulary for both. `mask` adds a mask token.
    """

    ADDED: ClassVar = {"mask": False}

    READS: ClassVar[tuple[str, ...]] = ("text", "sentences")

    name: str = "sentencepiece"
    model_type: str = "unigram"
    vocab_size: int = 2000
    byte_fallback: bool = True
    normalization: str = "none"
    joint: bool = False
    mask: bool = False

    @property
    def masks(self) -> bool:
        """Whether there is a mask token."""
        return self.mask

    def __post_init__(self) -> None:
        check_choice("tokenizer.model_type", self.model_type, ("unigram", "bpe"))
        check_choice("tokenizer.normalization", self.normalization, NORMALIZATIONS)
        check_range("tokenizer.vocab_size", self.vocab_size, 8, 200_000)
        check_rule(
            not self.byte_fallback or self.vocab_size > 300,
            f"tokenizer.vocab_size={self.vocab_size} is too small for the 256 bytes of "
            "tokenizer.byte_fallback=true; raise it above 300, or use byte_fallback=false.",
        )


@dataclass
class WordPieceConfig:
    """WordPiece: at most `vocab_size` pieces of words, fewer if the text yields no more.

    `path` names a file of Hugging Face (``tokenizer.json``, ``vocab.txt``) or its folder to read instead.
    """

    READS: ClassVar[tuple[str, ...]] = ("text", "sentences")

    name: str = "wordpiece"
    vocab_size: int = 8000
    lowercase: bool = False
    path: str | None = None

    @property
    def masks(self) -> bool:
        """Whether there is a mask token."""
        return True

    def __post_init__(self) -> None:
        check_range("tokenizer.vocab_size", self.vocab_size, 100, 500_000)


@dataclass
class BPEConfig:
    """Byte-level BPE: at most `vocab_size` tokens, fewer if the text yields no more.

    `path` names files of Hugging Face (``tokenizer.json``, or ``vocab.json`` with ``merges.txt``) to read
    instead.
    """

    READS: ClassVar[tuple[str, ...]] = ("text", "sentences")

    name: str = "bpe"
    vocab_size: int = 8000
    path: str | None = None

    @property
    def masks(self) -> bool:
        """Whether there is a mask token."""
        return True

    def __post_init__(self) -> None:
        check_range("tokenizer.vocab_size", self.vocab_size, 300, 500_000)
