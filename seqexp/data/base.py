"""What the loop, the commands and the tasks ask of a data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

from seqexp.config.data import OtherDataConfig
from seqexp.config.tokenizer import TokenizerConfig


@dataclass(frozen=True)
class View:
    """One row of what `eval` reports: the data it is about, with a label such as ``{"length": 100}``.

    The metrics of the `main` view are those of the run.
    """

    label: dict[str, int]
    data: "Data"
    main: bool = True


class FixedData:
    """What a data set has for a training that changes nothing about it, as a curriculum would."""

    review_every = None

    def review(self, loss: float) -> str | None:
        del loss
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        del state

    def metrics(self) -> dict[str, float]:
        return {}


class Data(Protocol):
    """A data set as the other rooms see it; `config` is its dataclass in `seqexp/config/data.py`."""

    tokenizer: Any  # a Tokenizer, or for two languages a PairTokenizer
    parts: Any  # the splits there are, by name
    default_split: str  # that `eval` judges

    @classmethod
    def build(cls, config: Any, tokenizer_config: TokenizerConfig, seed: int) -> Self: ...

    @classmethod
    def for_evaluation(
        cls, config: Any, tokenizer: Any, manifest: dict[str, Any], other: OtherDataConfig, seed: int
    ) -> Self: ...

    @staticmethod
    def read_tokenizer(plain: Any) -> Any:
        """The tokenizer in a checkpoint."""
        ...

    @staticmethod
    def sizes(tokenizer: Any) -> dict[str, int]:
        """Arguments of the model that the data decides."""
        ...

    @property
    def carries_state(self) -> bool:
        """Whether batches go on row by row, so that a recurrent model may carry its state."""
        ...

    @property
    def steps_per_epoch(self) -> float: ...

    def train_batch(self, step: int) -> Any:
        """A pure function of the seed, the step and `state`."""
        ...

    @property
    def review_every(self) -> int | None:
        """In how many steps `review` wants the mean training loss of these; None: not any more."""
        ...

    def review(self, loss: float) -> str | None:
        """Change `state`, as a curriculum does, and tell of it; or None."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain values that a checkpoint keeps."""
        ...

    def load_state(self, state: dict[str, Any]) -> None: ...

    def metrics(self) -> dict[str, float]:
        """What belongs into the log beside the loss."""
        ...

    def eval_batches(self, split: str) -> Iterator[Any]:
        """The whole split once, in a fixed order."""
        ...

    def eval_tokens(self, split: str) -> int: ...

    def characters(self, split: str) -> int: ...

    def views(self, max_len: int | None) -> tuple[list[View], list[str]]:
        """What `eval` judges, and notes of what it leaves out because of the model's window."""
        ...

    def describe(self) -> dict[str, Any]:
        """For the manifest: name, origin, stand_in, sha256, parts."""
        ...
