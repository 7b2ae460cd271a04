"""WordPiece and byte-level BPE: training repeats, texts come back, Hugging Face's files are read."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_book
from hypothesis import example, given
from hypothesis import strategies as st

from seqexp.config.tokenizer import BPEConfig, WordPieceConfig
from seqexp.errors import UserError
from seqexp.tokenizers import hugging_face
from seqexp.tokenizers.base import Tokenizer, tokenizer_from_plain
from seqexp.tokenizers.hugging_face import BPETokenizer, HuggingFaceTokenizer, WordPieceTokenizer

BOOK = make_book(30_000)
KINDS: dict[str, tuple[type[HuggingFaceTokenizer], Any]] = {
    "wordpiece": (WordPieceTokenizer, WordPieceConfig),
    "bpe": (BPETokenizer, BPEConfig),
}


@cache
def fitted(name: str, **options: Any) -> Any:
    kind, config = KINDS[name]
    return kind.fit(config(**{"vocab_size": 400, **options}), [BOOK[:20_000], BOOK[20_000:]])


@pytest.mark.parametrize("name", KINDS)
def test_training_repeats_in_another_process(name: str) -> None:
    """The library hashes words with other seeds in each process."""
    program = (
        "import sys; from conftest import make_book; from seqexp.tokenizers.hugging_face import *\n"
        "from seqexp.config.tokenizer import *\n"
        f"book = make_book(30_000); fit = {KINDS[name][0].__name__}.fit\n"
        f"print(fit({KINDS[name][1].__name__}(vocab_size=400), [book[:20_000], book[20_000:]]).hash())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            cwd=Path(__file__).parent,
        ).stdout.strip()
        for _ in range(2)
    }  # fmt: skip
    assert hashes == {fitted(name).hash()}


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text="<s>the</s><mask> old\n\n house  \t👩\u200d👧 ")
def test_bytes_come_back(text: str) -> None:
    tokenizer = fitted("bpe")
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.mask_id]) == text
    assert not set(ids) & set(tokenizer.special_tokens().values())
    assert len(tokenizer.offsets(text)) == len(ids)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text="[CLS]the [MASK] old\n house")
def test_pieces_of_words_are_known_or_unknown(text: str) -> None:
    """Special tokens in a text are text; what is unknown is said; offsets lie in the text, in order."""
    tokenizer = fitted("wordpiece")
    ids = tokenizer.encode(text).tolist()
    special = set(tokenizer.special_tokens().values()) - {tokenizer.unk_id}
    assert not set(ids) & special
    if tokenizer.unk_id in ids:
        assert tokenizer.unknown_characters(text) or max(map(len, text.split())) > 100
    offsets = tokenizer.offsets(text)
    assert len(offsets) == len(ids)
    assert all(0 <= i <= j <= len(text) for i, j in offsets)
    assert offsets == sorted(offsets)


@pytest.mark.parametrize("name", KINDS)
def test_offsets_cut_the_text_into_its_tokens(name: str) -> None:
    tokenizer = fitted(name)
    text = "The old house, opened by the man"
    shown = [tokenizer.piece(int(number)).removeprefix("##").strip() for number in tokenizer.encode(text)]
    assert [text[i:j].strip() for i, j in tokenizer.offsets(text)] == shown


def test_words_come_back_with_single_spaces() -> None:
    tokenizer = fitted("wordpiece")
    assert tokenizer.decode(tokenizer.encode("The  old\nhouse.").tolist()) == "The old house ."
    assert "The".lower() in fitted("wordpiece", lowercase=True).decode(
        fitted("wordpiece", lowercase=True).encode("The").tolist()
    )


def test_where_words_begin() -> None:
    wordpiece, bpe = fitted("wordpiece"), fitted("bpe")
    for number in range(wordpiece.vocab_size):
        token = wordpiece.library.id_to_token(number)
        expected = token in ("[CLS]", "[SEP]") or not token.startswith(("##", "["))
        assert wordpiece.ends_word(number) == expected or token == "["
    assert {bpe.piece(n)[0] for n in range(bpe.vocab_size) if bpe.ends_word(n)} >= {" ", ".", "\n"}
    assert not [n for n in range(5, bpe.vocab_size) if bpe.ends_word(n) and bpe.piece(n)[0].isalpha()]


def test_roles_of_special_tokens() -> None:
    """Numbers as in BERT's and RoBERTa's vocabularies; padding is 0 or 1."""
    assert fitted("wordpiece").special_tokens() == {
        "bos": 2, "eos": 3, "unk": 1, "pad": 0, "cls": 2, "sep": 3, "mask": 4,
    }  # fmt: skip
    assert fitted("bpe").special_tokens() == {
        "bos": 0, "eos": 2, "unk": 3, "pad": 1, "cls": 0, "sep": 2, "mask": 4,
    }  # fmt: skip
    assert fitted("wordpiece").suppress_tokens() == [0, 1, 4]


# Files


@pytest.mark.parametrize("name", KINDS)
def test_files_are_read_back(name: str) -> None:
    """By seqexp from a file or its folder, and by the library with its own special tokens."""
    from tokenizers import Tokenizer as Library

    kind, config = KINDS[name]
    tokenizer = fitted(name)
    for file, content in tokenizer.files().items():
        Path(file).write_bytes(content)
    for path in ("tokenizer.json", "."):
        read = kind.fit(config(path=path), [])
        assert read.hash() == tokenizer.hash()
        assert tokenizer_from_plain(json.loads(json.dumps(read.to_plain()))).hash() == tokenizer.hash()
    library = Library.from_file("tokenizer.json")
    ids = tokenizer.encode("The old house").tolist()
    assert library.encode("The old house").ids == [tokenizer.bos_id, *ids, tokenizer.eos_id]


def test_transformers_reads_our_files() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install -e .[bench]")
    tokenizer = fitted("wordpiece")
    Path("tokenizer.json").write_bytes(tokenizer.files()["tokenizer.json"])
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file="tokenizer.json")
    ids = tokenizer.encode("The old house").tolist()
    assert theirs("The old house")["input_ids"] == [2, *ids, 3]


def test_a_vocabulary_of_bert() -> None:
    Path("vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##do", "do"])
    )
    for path in ("vocab.txt", "."):
        read = WordPieceTokenizer.fit(WordPieceConfig(path=path, lowercase=True), [])
        assert read.encode("Undo do dodo it").tolist() == [5, 6, 7, 7, 6, 1]


def test_gpt2s_vocabulary(shared_data: Path) -> None:
    """Its published encoder, with the numbers that its users know."""
    read = BPETokenizer.fit(BPEConfig(path=str(shared_data / "gpt2_tokenizer")), [])
    assert read.vocab_size == 50_257
    assert read.encode("Hello world").tolist() == [15496, 995]
    assert read.encode(" The quick brown fox").tolist() == [383, 2068, 7586, 21831]
    assert (read.bos_id, read.eos_id, read.mask_id) == (50_256, 50_256, None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "there is no tokenizer.json and no vocab.txt"),
        ({"tokenizer.json": "{"}, "cannot be read"),
        ({"tokenizer.json": "[]"}, "there is no"),
        (
            {"tokenizer.json": '{"model": {"type": "BPE"}}'},
            "its model is BPE, and tokenizer=wordpiece",
        ),
        ({"tokenizer.json": '{"model": {"type": "WordPiece"}}'}, "is not a tokenizer"),
        ({"vocab.txt": "a\nb"}, "one of them \\[UNK\\]"),
        ({"vocab.txt": "[UNK]\n[UNK]"}, "each once"),
        ({"vocab.txt": "[UNK]\n[CLS]\n[SEP]\n\xff"}, "cannot be read"),
    ],
)
def test_damaged_files_are_refused(files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        Path(name).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        WordPieceTokenizer.fit(WordPieceConfig(path="."), [])


@pytest.mark.parametrize("text", [None, "", "x", '{"model": {"type": "WordPiece", "vocab": 3}}', "[" * 5000])
def test_damaged_states_are_refused(text: Any) -> None:
    with pytest.raises(UserError, match="the saved wordpiece tokenizer"):
        tokenizer_from_plain({"name": "wordpiece", "state": {"json": text}})


def test_a_state_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = fitted("wordpiece").to_plain()
    monkeypatch.setattr(hugging_face, "LARGEST_BYTES", 1000)
    with pytest.raises(UserError, match="too much"):
        tokenizer_from_plain(state)


def test_changed_states_are_refused_or_read() -> None:
    """A changed file never raises anything else, and never a panic of the library."""
    text = fitted("wordpiece").library.to_str()
    draw = np.random.default_rng(0)
    for _ in range(60):
        at = int(draw.integers(len(text)))
        changed = text[:at] + chr(int(draw.integers(32, 127))) + text[at + int(draw.integers(0, 30)) :]
        try:
            read: Tokenizer = tokenizer_from_plain({"name": "wordpiece", "state": {"json": changed}})
        except UserError:
            continue
        read.encode("The old house")
