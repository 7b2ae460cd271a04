"""Subwords by SentencePiece (Kudo & Richardson 2018): unigram (Kudo 2018) or BPE (Sennrich et al. 2016)."""

import base64
import io
import logging
import random
import re
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import sentencepiece

from seqexp.config.tokenizer import SentencePieceConfig
from seqexp.errors import UserError
from seqexp.tokenizers.base import Ids, Tokenizer

log = logging.getLogger(__name__)

BOUNDARY, UNKNOWN = 0, 1
MASK = "[MASK]"
SPACE = "▁"  # SentencePiece's own sign for a space

# Longer lines are learnt from in pieces: SentencePiece would leave out those of more than 2^16 bytes.
LONGEST_LINE = 4096
# Of a longer text a sample is enough to learn subwords from, and quicker: so many characters of it.
ENOUGH_CHARACTERS = 4_000_000
# Refuse larger saved models (a vocabulary of 200,000 takes five megabytes).
LARGEST_MODEL_BYTES = 50_000_000


class SentencePieceTokenizer(Tokenizer):
    """Token 0 is the boundary, 1 unknown (never needed with byte fallback), then the pieces.

    Spaces and line ends are kept as they are, so that decoding gives the text back, unless normalised; but a
    ``▁`` in the text comes back as a space.
    """

    name = "sentencepiece"
    sentence_start = " "
    bos_id = eos_id = BOUNDARY

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.vocab_size()
        # With byte fallback every character can be written.
        has_bytes = self._processor.is_byte(self._processor.piece_to_id("<0x00>"))
        self.unk_id: int | None = None if has_bytes else UNKNOWN
        mask = self._processor.piece_to_id(MASK)
        self.mask_id = mask if self._processor.is_control(mask) else None

    @classmethod
    def fit(cls, config: SentencePieceConfig, texts: Iterable[str]) -> Self:
        """Train on lines of the text, on a sample of them where there are very many.

        `vocab_size` is a limit: a small text yields fewer pieces.

        Raises:
            UserError: the text is empty, or has more characters than `vocab_size` allows.
        """
        lines = [
            line[start : start + LONGEST_LINE]
            for text in texts
            for line in text.split("\n")
            for start in range(0, len(line), LONGEST_LINE)
        ]
        if sum(map(len, lines)) > ENOUGH_CHARACTERS:
            lines = _sample(lines, ENOUGH_CHARACTERS)
        try:
            try:
                return cls(_train(config, lines))
            except RuntimeError as error:
                if "too high" not in str(error):
                    raise
                return cls(_train(config, lines, hard_vocab_limit=False))
        except (RuntimeError, OSError) as error:
            needed = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
            advice = (
                f"raise tokenizer.vocab_size to at least {needed[1]}: each character needs a piece"
                if needed
                else "give more text"
            )
            raise UserError(
                f"SentencePiece cannot make tokenizer.vocab_size={config.vocab_size} pieces of this text "
                f"({_reason(error)}); {advice}."
            ) from error

    def encode(self, text: str) -> Ids:
        return np.array(self._processor.encode(text), dtype=np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        text: list[str] = []
        run: list[int] = []
        for number in map(int, ids):
            # Decoded by stretches: SentencePiece has a text of its own for the unknown one.
            if number in (BOUNDARY, UNKNOWN):
                text.append(self._processor.decode(run))
                text.append("\ufffd" if number == UNKNOWN else "")
                run = []
            else:
                run.append(number)
        text.append(self._processor.decode(run))
        # A space that training never showed is written in bytes, as the sign that stands for it.
        return "".join(text).replace(SPACE, " ")

    def piece(self, number: int) -> str:
        if number in (BOUNDARY, UNKNOWN):
            return {BOUNDARY: "</s>", UNKNOWN: "<unk>"}[number]
        piece: str = self._processor.id_to_piece(number)
        return piece

    def pieces(self, text: str) -> list[str]:
        found: list[str] = self._processor.encode(text, out_type=str)
        return found

    def offsets(self, text: str) -> list[tuple[int, int]] | None:
        found: Any = self._processor.encode(text, out_type="proto")
        return [(piece.begin, piece.end) for piece in found.pieces]

    def join(self, pieces: Sequence[str]) -> str:
        text: str = self._processor.decode_pieces(list(pieces))
        return text.replace(SPACE, " ")

    def unknown_characters(self, text: str) -> str:
        if self.unk_id is None:
            return ""
        return "".join(dict.fromkeys(c for c in text if UNKNOWN in self._processor.encode(c)))

    def state(self) -> dict[str, Any]:
        return {"model": base64.b64encode(self.model).decode("ascii")}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        model = state.get("model")
        try:
            if not isinstance(model, str) or not 0 < len(model) <= LARGEST_MODEL_BYTES:
                raise ValueError("no model, or too large a one")
            tokenizer = cls(base64.b64decode(model, validate=True))
            if tokenizer.vocab_size < 3 or tokenizer._processor.unk_id() != UNKNOWN:
                raise ValueError("not a model of seqexp")
            for number in range(tokenizer.vocab_size):
                tokenizer.piece(number)  # raises if a piece is not UTF-8
        except (ValueError, RuntimeError, IndexError) as error:
            raise UserError(f"the saved sentencepiece tokenizer is damaged ({_reason(error)}).") from error
        return tokenizer


def _train(config: SentencePieceConfig, lines: list[str], **options: Any) -> bytes:
    """The model that SentencePiece learns.

    Raises:
        RuntimeError, OSError: with SentencePiece's reason.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=config.model_type,
        vocab_size=config.vocab_size,
        byte_fallback=config.byte_fallback,
        character_coverage=1.0 if not config.byte_fallback else 0.9999,
        normalization_rule_name="nmt_nfkc" if config.normalization == "nfkc" else "identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        user_defined_symbols=["\n"],
        control_symbols=[MASK] if config.mask else [],
        eos_id=BOUNDARY,
        unk_id=UNKNOWN,
        bos_id=-1,
        pad_id=-1,
        max_sentence_length=1 << 16,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def _sample(lines: list[str], characters: int) -> list[str]:
    """Lines drawn by a fixed seed until they have this many characters, in their old order."""
    order = list(range(len(lines)))
    random.Random(1).shuffle(order)
    chosen, size = [], 0
    for number in order:
        size += len(lines[number])
        if size > characters:
            break
        chosen.append(number)
    log.info("subwords are learnt from %s of %s lines", f"{len(chosen):,}", f"{len(lines):,}")
    return [lines[number] for number in sorted(chosen)]


def _reason(error: Exception) -> str:
    """The last line of SentencePiece's message, without the position in its source."""
    if "sentences_.empty" in str(error):
        return "it has only empty lines"
    text = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return text.rpartition("] ")[2][:150].rstrip(". ")
