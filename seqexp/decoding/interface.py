"""The one incremental interface that every generating model has."""

from typing import Any, Protocol

from torch import Tensor


class IncrementalModel(Protocol):
    """`start` makes a state from a context, which is None for language models.

    A state that was passed to `step` is used up: its tensors may have been written to.
    """

    def start(self, context: Any = None) -> Any: ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Tokens (B, T >= 1) to logits (B, T, V), and the state after them."""
        ...

    def select(self, state: Any, rows: Tensor, sources: list[int] | None = None) -> Any:
        """The state of these rows, in this order; rows may repeat.

        Where there is a context of several sources, `sources` says which of them stay, and the rows come in
        equal groups, one for each; without it the rows may be of any source.
        """
        ...
