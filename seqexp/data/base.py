"""What the loop, the commands and the tasks ask of a data set."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from seqexp.config.data import OtherDataConfig
from seqexp.data.batch import Batch
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import UserError


@dataclass(frozen=True)
class View:
    """One row of what `eval` reports: the data it is about, with a label such as ``{"length": 100}``.

    The metrics of the `main` view are those of the run.
    """

    label: Mapping[str, int | float | str]
    data: "Data"
    main: bool = True


class Data(ABC):
    """A data set with its splits. A subclass has at least the abstract methods; the others have defaults.

    `config` is the dataclass of the data set, `splits` the names of the splits that there are (a mapping from
    them serves), `default_split` the one that `eval` judges.
    """

    config: Any
    preprocessor: Preprocessor
    splits: Iterable[str]
    default_split: str = "val"
    # Whether batches go on row by row, so that a recurrent model may carry its state.
    carries_state: bool = False
    # Where it is not obvious what a validation reads, such as "50 bits": for the label of a curve.
    validated_on: str | None = None

    @classmethod
    @abstractmethod
    def build(
        cls, config: Any, tokenizer: Any = None, seed: int = 1, preprocessor: Preprocessor | None = None
    ) -> Self:
        """Read the data; fit a preprocessor on the training split, or take another run's.

        `tokenizer` is the configuration of the tokenizer to fit.

        Raises:
            UserError: the data is missing, too small, or does not go with the preprocessor.
        """

    @property
    @abstractmethod
    def steps_per_epoch(self) -> float: ...

    @abstractmethod
    def train_batch(self, step: int) -> Batch:
        """The batch of step 0, 1, 2, …: a pure function of the seed, the step and `state`."""

    @abstractmethod
    def eval_batches(self, split: str) -> Iterator[Batch]:
        """The whole split once, in a fixed order."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """For the manifest: at least `name`, `origin`, `sha256`, and `splits`, plain values by name."""

    # What a data set may add.

    @classmethod
    def for_evaluation(
        cls,
        config: Any,
        preprocessor: Preprocessor,
        manifest: dict[str, Any],
        other: OtherDataConfig,
        seed: int,
    ) -> Self:
        """The data that a run is judged on: its own, or what `other` names.

        Raises:
            UserError: it is missing, or is not what the run was trained on.
        """
        other.refuse_all_but(())
        data = cls.build(config, None, seed, preprocessor)
        described = data.describe()
        check_same_corpus(manifest, described["sha256"], described["origin"])
        return data

    def check_split(self, split: str) -> None:
        """Refuse a split that does not exist.

        Raises:
            UserError: naming those that do.
        """
        if split not in self.splits:
            hint = " (all is another text, with data.path=)" if "train" in self.splits else ""
            raise UserError(f"split={split} is not there; there is {', '.join(self.splits)}{hint}.")

    def state(self) -> dict[str, Any]:
        """Plain values that a checkpoint keeps, such as the length that a curriculum has reached."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        del state

    @property
    def review_every(self) -> int | None:
        """The number of steps between calls of `review`; None: never."""
        return None

    def review(self, loss: float) -> str | None:
        """Change `state` with the mean training loss since the last review; return what to tell the user."""
        del loss
        return None

    def metrics(self) -> dict[str, float]:
        """Values to log beside the training loss."""
        return {}

    def eval_count(self, split: str) -> int | None:
        """The number of items that `eval_batches` holds in all, for a progress bar; None: not known."""
        del split
        return None

    def views(self, max_len: int | None) -> tuple[list[View], list[str]]:
        """What `eval` judges, and notes of what a model with a window of `max_len` cannot be judged on."""
        del max_len
        return [View({}, self)], []


def check_same_corpus(
    manifest: dict[str, Any], sha256: str, origin: str, what: str = "the data of this run is"
) -> None:
    """Refuse data that a run was not trained on.

    Raises:
        UserError: the hash is not the one in the manifest.
    """
    recorded = (manifest.get("corpus") or {}).get("sha256")
    if recorded != sha256:
        raise UserError(
            f"{what} not here: its sha256 was {str(recorded)[:12]}…, and {origin} has "
            f"{sha256[:12]}…. Put the files back, or judge the run on other data with data.path=."
        )
