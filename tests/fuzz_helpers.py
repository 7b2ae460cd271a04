"""How often the fuzz tests try, and what they take for an answer."""

import pytest
from conftest import Ran


def told_shortly(words: list[str], ran: Ran) -> None:
    """Success; or in short a mistake (2), or a failure of another kind, such as too little memory (1)."""
    assert "Traceback" not in ran.err, (words, ran.err[-1500:])
    last = ran.err.rstrip("\n").rpartition("\n")[2]
    if ran.code == 1 and "-m" in words:
        again = "; the same line again runs only these" if words[0] == "train" else ""
        assert f" failed{again}:\n" in ran.err, (words, ran.err[-1500:])
    elif ran.code != 0:
        kind = {1: ": failed: ", 2: ": error: "}[ran.code]
        assert kind in ran.err, (words, ran.err[-1500:])
        assert len(last) < 1000, (words, last)


def examples(quick: int, slow: int) -> pytest.MarkDecorator:
    """So many examples in the quick tests, and so many in the slow ones."""
    return pytest.mark.parametrize("count", [quick, pytest.param(slow, marks=pytest.mark.slow)])
