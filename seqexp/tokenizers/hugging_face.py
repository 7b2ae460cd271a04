"""Subwords by the `tokenizers` library: WordPiece (Schuster & Nakajima 2012) and byte-level BPE.

A tokenizer is kept as the text of Hugging Face's ``tokenizer.json``, which other programs read too.
"""

import json
import string
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Library
from tqdm import tqdm

from seqexp.config.tokenizer import BPEConfig, WordPieceConfig
from seqexp.errors import UserError
from seqexp.files import as_utf8, read_bounded, user_path
from seqexp.tokenizers.base import Ids, Tokenizer

FILE = "tokenizer.json"
# Refuse larger files (a vocabulary of 250,000 takes 17 MB).
LARGEST_BYTES = 50_000_000
WORDPIECE_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# The names of special tokens in BERT's, RoBERTa's and GPT-2's files, by role; the first that exists counts.
NAMES = {
    "bos": ("[CLS]", "<s>", "<|endoftext|>"),
    "eos": ("[SEP]", "</s>", "<|endoftext|>"),
    "unk": ("[UNK]", "<unk>"),
    "pad": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
}


class HuggingFaceTokenizer(Tokenizer):
    """Subwords of a `tokenizers.Tokenizer`.

    ``[CLS]`` stands before a text and ``[SEP]`` after it, or what their file calls them. The names of special
    tokens in a text are text.
    """

    # The type of the library's model, and of its files that are not a ``tokenizer.json``.
    model_type: ClassVar[str]
    other_files: ClassVar[str]

    def __init__(self, library: Library) -> None:
        self.library = library
        library.encode_special_tokens = True
        library.no_padding()
        library.no_truncation()
        self.vocab_size = library.get_vocab_size(with_added_tokens=True)
        roles = {
            role: next((n for n in map(library.token_to_id, names) if n is not None), None)
            for role, names in NAMES.items()
        }
        if roles["bos"] is None or roles["eos"] is None:
            raise ValueError("it has no token for the start or the end of a text, such as [CLS] and [SEP]")
        self.bos_id, self.eos_id = roles["bos"], roles["eos"]
        self.unk_id, self.pad_id, self.mask_id = roles["unk"], roles["pad"], roles["mask"]
        self.cls_id, self.sep_id = self.bos_id, self.eos_id
        # Numbers without a token would be holes in the vocabulary.
        tokens = [library.id_to_token(number) for number in range(self.vocab_size)]
        self._tokens = [token for token in tokens if token is not None]
        if len(self._tokens) != self.vocab_size:
            raise ValueError("its token numbers have gaps")
        self._special = {
            number for number, token in library.get_added_tokens_decoder().items() if token.special
        }

    @classmethod
    def fit(cls, config: Any, texts: Iterable[str]) -> Self:
        """Learn subwords from the texts, or read the tokenizer that `config.path` names.

        Raises:
            UserError: the file cannot be read, or is not of this kind.
        """
        if config.path is not None:
            return cls.read(config.path, config)
        return cls(cls._trained(config, texts))

    @classmethod
    @abstractmethod
    def _trained(cls, config: Any, texts: Iterable[str]) -> Library:
        """Learn from the texts; the same texts give the same tokenizer."""

    @classmethod
    @abstractmethod
    def _of_vocabulary(cls, place: Path, config: Any) -> Library | None:
        """Return the tokenizer of older files in a folder, or None if they are missing."""

    @classmethod
    def read(cls, path: str, config: Any) -> Self:
        """Read Hugging Face's ``tokenizer.json``, or the files of an older form, from a file or folder.

        Raises:
            UserError: it cannot be read, or is not of this kind.
        """
        given = user_path(path)
        file = given / FILE if given.is_dir() else given
        shown = f"tokenizer.path={as_utf8(path)}"
        try:
            if file.is_file() and file.suffix == ".json" and _is_whole(file):
                return cls.from_json(read_bounded(file, LARGEST_BYTES).decode(), shown)
            library = cls._of_vocabulary(file.parent if file.name == FILE else file, config)
            if library is not None:
                return cls(library)
        except (OSError, ValueError) as error:
            raise UserError(f"{shown} cannot be read ({str(error).splitlines()[0][:200]}).") from error
        raise UserError(f"{shown}: there is no {FILE} and no {cls.other_files}; name a file or its folder.")

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Return the tokenizer of the text of a ``tokenizer.json``, which is untrusted.

        Raises:
            UserError: it is damaged or of another kind.
        """
        try:
            kind = json.loads(text)["model"]["type"]
            if kind != cls.model_type:
                raise ValueError(
                    f"its model is {str(kind)[:30]}, and tokenizer={cls.name} reads {cls.model_type}"
                )
            library = Library.from_str(text)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{where} is not a tokenizer ({_reason(error)}).") from error
        except Exception as error:  # the library raises no other type
            raise UserError(f"{where} is not a tokenizer ({_reason(error)}).") from error
        try:
            return cls(library)
        except ValueError as error:
            raise UserError(f"{where} cannot be used: {error}.") from error

    def encode(self, text: str) -> Ids:
        return np.array(self._encoding(text).ids, dtype=np.uint32)

    def _encoding(self, text: str) -> Any:
        return self.library.encode(_clean(text), add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        text: list[str] = []
        run: list[int] = []
        for number in [*map(int, ids), None]:
            if number is None or number in self._special:
                text.append(self.library.decode(run, skip_special_tokens=False))
                text.append("\ufffd" if number is not None and number == self.unk_id else "")
                run = []
            else:
                run.append(number)
        return self._joined(text)

    def _joined(self, parts: list[str]) -> str:
        return "".join(parts)

    def piece(self, number: int) -> str:
        return self._tokens[number] if number in self._special else self._shown(number)

    def _shown(self, number: int) -> str:
        return self.library.decode([number], skip_special_tokens=False)

    def ends_word(self, number: int) -> bool:
        if number in self._special:
            return number in (self.bos_id, self.eos_id)
        return super().ends_word(number)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return list(self._encoding(text).offsets)

    def suppress_tokens(self) -> list[int]:
        return sorted(self._special - {self.bos_id, self.eos_id})

    def files(self) -> dict[str, bytes]:
        return {FILE: self.library.to_str(pretty=True).encode()}

    def state(self) -> dict[str, Any]:
        return {"json": self.library.to_str()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        text = state.get("json")
        if not isinstance(text, str) or not 0 < len(text) <= LARGEST_BYTES:
            raise UserError(f"the saved {cls.name} tokenizer is damaged: it has no text, or too much.")
        return cls.from_json(text, f"the saved {cls.name} tokenizer")


class WordPieceTokenizer(HuggingFaceTokenizer):
    """Words cut into the longest known pieces; those inside a word begin with ``##`` (Devlin et al. 2019).

    A word with an unknown character is one unknown token. White space is not kept.
    """

    name = "wordpiece"
    model_type = "WordPiece"
    other_files = "vocab.txt"
    word_start = ""

    @classmethod
    def _of_pieces(cls, config: WordPieceConfig, vocabulary: dict[str, int]) -> Library:
        library = Library(models.WordPiece(vocabulary, unk_token="[UNK]"))
        library.normalizer = _normalizer(config)
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece(cleanup=False)
        library.add_special_tokens(WORDPIECE_SPECIALS)
        begin, end = (library.token_to_id(name) or 0 for name in ("[CLS]", "[SEP]"))
        library.post_processor = processors.BertProcessing(("[SEP]", end), ("[CLS]", begin))
        return library

    @classmethod
    def _trained(cls, config: WordPieceConfig, texts: Iterable[str]) -> Library:
        read = list(texts)
        # The library numbers the characters inside words in an order that changes from process to process,
        # and breaks ties by these numbers. So they are given to it, in the order of their code points.
        normalizer = _normalizer(config)
        counts = Counter[str]()
        for text in read:
            counts.update(normalizer.normalize_str(_clean(text)))
        most = config.vocab_size // 4
        known = sorted(one for one, _ in counts.most_common(most) if not one.isspace())
        inner = [f"##{one}" for one in known if not _is_punctuation(one)]
        library = Library(models.WordPiece(unk_token="[UNK]"))
        library.normalizer = normalizers.Sequence([normalizer, normalizers.Replace(_none_of(known), " ")])
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=config.vocab_size, special_tokens=[*WORDPIECE_SPECIALS, *inner], show_progress=False
        )
        library.train_from_iterator(map(_clean, _with_progress(read)), trainer)
        return cls._of_pieces(config, library.get_vocab())

    @classmethod
    def _of_vocabulary(cls, place: Path, config: WordPieceConfig) -> Library | None:
        file = place / cls.other_files if place.is_dir() else place
        if not file.is_file():
            return None
        lines = read_bounded(file, LARGEST_BYTES).decode().splitlines()
        vocabulary = {token: number for number, token in enumerate(lines)}
        if len(vocabulary) != len(lines) or "[UNK]" not in vocabulary:
            raise ValueError("a token a line is expected, each once, and one of them [UNK]")
        return cls._of_pieces(config, vocabulary)

    def _joined(self, parts: list[str]) -> str:
        return " ".join(filter(None, parts))

    def _shown(self, number: int) -> str:
        return self._tokens[number]

    def ends_word(self, number: int) -> bool:
        if number in self._special:
            return number in (self.bos_id, self.eos_id)
        return not self._tokens[number].startswith("##")

    def unknown_characters(self, text: str) -> str:
        seen = dict.fromkeys(text)
        return "".join(one for one in seen if self.unk_id in self.encode(one))


class BPETokenizer(HuggingFaceTokenizer):
    """Merged bytes (Sennrich et al. 2016; Radford et al. 2019): every text comes back as it was."""

    name = "bpe"
    model_type = "BPE"
    other_files = "vocab.json with merges.txt"
    sentence_start = " "

    @classmethod
    def _of_merges(cls, model: Any) -> Library:
        library = Library(model)
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        return library

    @classmethod
    def _trained(cls, config: BPEConfig, texts: Iterable[str]) -> Library:
        library = cls._of_merges(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        )  # fmt: skip
        library.train_from_iterator(map(_clean, _with_progress(texts)), trainer)
        library.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        return library

    @classmethod
    def _of_vocabulary(cls, place: Path, config: BPEConfig) -> Library | None:
        folder = place if place.is_dir() else place.parent
        for vocabulary, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
            files = folder / vocabulary, folder / merges
            if all(file.is_file() for file in files):
                numbers = json.loads(read_bounded(files[0], LARGEST_BYTES))
                lines = read_bounded(files[1], LARGEST_BYTES).decode().splitlines()
                pairs: Any = [
                    tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")
                ]
                if not isinstance(numbers, dict) or any(len(pair) != 2 for pair in pairs):
                    raise ValueError("a vocabulary, and lines of two tokens to merge, are expected")
                try:
                    library = cls._of_merges(models.BPE(numbers, pairs))
                except Exception as error:
                    raise ValueError(_reason(error)) from error
                names = {name for names in NAMES.values() for name in names}
                library.add_special_tokens([name for name in numbers if name in names])
                return library
        return None


def _clean(text: str) -> str:
    """Replace lone surrogates, which are no text for the library."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _with_progress(texts: Iterable[str]) -> Iterable[str]:
    return tqdm(texts, desc="tokenizer", unit="piece", delay=2, leave=False, disable=None)


def _normalizer(config: WordPieceConfig) -> Any:
    return normalizers.BertNormalizer(
        lowercase=config.lowercase, strip_accents=False, clean_text=True, handle_chinese_chars=True
    )


def _is_punctuation(one: str) -> bool:
    """Whether the library cuts words at this character."""
    return one in string.punctuation or unicodedata.category(one).startswith("P")


def _none_of(characters: list[str]) -> Regex:
    """Return a pattern for what is neither white space nor one of these characters."""
    listed = "".join(f"\\x{{{ord(one):x}}}" for one in characters)
    return Regex(f"[^\\s{listed}]")


def _is_whole(file: Path) -> bool:
    """Whether a JSON file is a ``tokenizer.json`` and not a vocabulary alone."""
    found = json.loads(read_bounded(file, LARGEST_BYTES))
    return isinstance(found, dict) and isinstance(found.get("model"), dict)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
