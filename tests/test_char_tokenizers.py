"""Characters and bytes: every text comes back, and damaged states are refused."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seqexp.errors import UserError
from seqexp.tokenizers.base import Tokenizer, tokenizer_from_plain
from seqexp.tokenizers.byte import ByteTokenizer
from seqexp.tokenizers.char import CharTokenizer


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4), other=st.text())
@example(texts=[""], other="a")
@example(texts=["\U0010ffff\0"], other="")
def test_char_tokenizer(texts: list[str], other: str) -> None:
    tokenizer = CharTokenizer.fit(None, texts)
    whole = "".join(texts)
    ids = tokenizer.encode(whole)
    assert tokenizer.decode(ids.tolist()) == whole
    assert len(ids) == len(whole)
    assert tokenizer.vocab_size == len(set(whole)) + 2
    assert all(2 <= i < tokenizer.vocab_size for i in ids.tolist())
    expected = "".join(c if c in whole else "\ufffd" for c in other)
    assert tokenizer.decode(tokenizer.encode(other).tolist()) == expected
    assert tokenizer.unknown_characters(other) == "".join(dict.fromkeys(c for c in other if c not in whole))
    assert tokenizer.decode([tokenizer.bos_id]) == ""
    assert tokenizer.suppress_tokens() == [tokenizer.unk_id]
    # The order in which texts were read does not matter.
    assert CharTokenizer.fit(None, reversed(texts)).hash() == tokenizer.hash()


@given(text=st.text())
def test_byte_tokenizer(text: str) -> None:
    tokenizer = ByteTokenizer.fit(None, [])
    ids = tokenizer.encode(text).tolist()
    assert bytes(ids) == text.encode()
    assert tokenizer.decode([tokenizer.bos_id, *ids]) == text
    assert max(ids, default=0) < tokenizer.bos_id < tokenizer.vocab_size
    assert (tokenizer.unk_id, tokenizer.unknown_characters(text)) == (None, "")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_tokenizer_survives_a_checkpoint(text: str) -> None:
    for tokenizer in (CharTokenizer.fit(None, [text]), ByteTokenizer.fit(None, [text])):
        again: Tokenizer = tokenizer_from_plain(json.loads(json.dumps(tokenizer.to_plain())))
        assert type(again) is type(tokenizer)
        assert again.hash() == tokenizer.hash()
        assert np.array_equal(again.encode(text), tokenizer.encode(text))


@pytest.mark.parametrize(
    "plain",
    [
        None,
        "char",
        {},
        {"name": "char"},
        {"name": "char", "state": {}},
        {"name": "char", "state": {"characters": "aa"}},
        {"name": "char", "state": {"characters": ["a", "b"]}},
        {"name": "char", "state": {"characters": None}},
        {"name": "no such", "state": {"characters": "ab"}},
        {"name": "os:system", "state": {}},
    ],
)
def test_a_damaged_tokenizer_is_refused(plain: Any) -> None:
    with pytest.raises(UserError):
        tokenizer_from_plain(plain)


def test_different_tokenizers_have_different_hashes() -> None:
    hashes = {CharTokenizer("ab").hash(), CharTokenizer("abc").hash(), ByteTokenizer().hash()}
    assert len(hashes) == 3
