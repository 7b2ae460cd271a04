"""Choices, limits and checks shared by the options of several models."""

from seqexp.config.checks import check_rule

POSITIONS = ("learned", "sinusoidal", "rotary")
IMPLEMENTATIONS = ("fused", "reference")
MAX_LAYERS = 1000


def check_head_width(n_embd: int, n_head: int, positions: str) -> None:
    """Check that the heads divide the width, and that it is even if positions need pairs.

    Raises:
        UserError: a check fails; the message names a width that works.
    """
    check_rule(
        n_embd % n_head == 0,
        f"model.n_embd={n_embd} is not a multiple of model.n_head={n_head}; "
        f"try model.n_embd={-(-n_embd // n_head) * n_head}.",
    )
    even = n_embd // n_head if positions == "rotary" else n_embd
    check_rule(
        positions == "learned" or even % 2 == 0,
        f"model.positions={positions} needs an even width, and it is {even} here "
        f"(model.n_embd={n_embd}, model.n_head={n_head}).",
    )


def check_vectors(vectors: str | None, vector_words: str | None) -> None:
    """Check that a list of words is not given without the vectors that it belongs to.

    Raises:
        UserError: it is.
    """
    check_rule(
        vectors is not None or vector_words is None,
        f"model.vector_words={vector_words} has the words of model.vectors=<a .npy file>; give both.",
    )
