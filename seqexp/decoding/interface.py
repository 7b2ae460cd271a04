"""The incremental interface of all models that generate."""

from typing import Any, Protocol

from torch import Tensor


class IncrementalModel(Protocol):
    """Read tokens step by step. `start` makes a state from a context, which is None for language models.

    Do not use a state again after passing it to `step`, which may overwrite its tensors.
    """

    def start(self, context: Any = None) -> Any: ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read tokens (B, T >= 1); return logits (B, T, V) and the new state."""
        ...

    def select(self, state: Any, rows: Tensor, sources: list[int] | None = None) -> Any:
        """Return the state of these rows, in this order; rows may repeat.

        If the context has several sources, `sources` lists those to keep, and the rows come in equal groups,
        one for each of them. Without `sources` the rows may belong to any source.
        """
        ...
