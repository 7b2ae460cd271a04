"""The base class of data sets, and of their views."""

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
    """A row of the report of `eval`: data, with a label such as ``{"length": 100}``.

    The metrics of the `main` view are the metrics of the run.
    """

    label: Mapping[str, int | float | str]
    data: "Data"
    main: bool = True


class Data(ABC):
    """A data set with its splits. A subclass has at least the abstract methods; the others have defaults.

    `config` is the dataclass of the data set, `splits` the names of its splits (or a mapping from them), and
    `default_split` the split that `eval` reads by default.
    """

    config: Any
    preprocessor: Preprocessor
    splits: Iterable[str]
    default_split: str = "val"
    # Whether each row continues that row of the batch before, so that a recurrent model can carry its state.
    carries_state: bool = False
    # What a validation reads, such as "50 bits", for the label of its curve.
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
        """Return the batch of step 0, 1, 2, …: a pure function of the seed, the step and `state`."""

    @abstractmethod
    def eval_batches(self, split: str) -> Iterator[Batch]:
        """Yield the whole split once, in a fixed order."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return plain values for the manifest: at least `name`, `origin`, `sha256`, and `splits` by name."""

    # Optional methods

    @classmethod
    def for_evaluation(
        cls,
        config: Any,
        preprocessor: Preprocessor,
        manifest: dict[str, Any],
        other: OtherDataConfig,
        seed: int,
    ) -> Self:
        """Return the data to evaluate a run on: its own, or the data that `other` names.

        Raises:
            UserError: the data is missing, or differs from that of the run.
        """
        other.refuse_all_but(())
        data = cls.build(config, None, seed, preprocessor)
        check_same_corpus(manifest, data.describe())
        return data

    def check_split(self, split: str) -> None:
        """Check that a split exists.

        Raises:
            UserError: it does not; the message names those that do.
        """
        if split not in self.splits:
            hint = " (all is another text, with data.path=)" if "train" in self.splits else ""
            raise UserError(f"split={split} does not exist; choose from {', '.join(self.splits)}{hint}.")

    def state(self) -> dict[str, Any]:
        """Return plain values for the checkpoint, such as the length that a curriculum has reached."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        del state

    @property
    def review_every(self) -> int | None:
        """The number of steps between calls of `review`; None for no calls."""
        return None

    def review(self, loss: float) -> str | None:
        """Update `state` by the mean training loss since the last review; return a message for the user."""
        del loss
        return None

    def metrics(self) -> dict[str, float]:
        """Return values to log beside the training loss."""
        return {}

    def eval_count(self, split: str) -> int | None:
        """Return the number of items in `eval_batches` for a progress bar; None if it is not known."""
        del split
        return None

    def views(self, max_len: int | None) -> tuple[list[View], list[str]]:
        """Return the views to evaluate, and notes on those too long for a window of `max_len`."""
        del max_len
        return [View({}, self)], []


def check_same_corpus(
    manifest: dict[str, Any], now: dict[str, Any], advice: str = "evaluate other data with data.path="
) -> None:
    """Compare the data with that of a run's manifest; `now` is as from `Data.describe`.

    Raises:
        UserError: the hash differs. The message names the splits that changed, if their hashes are known.
    """
    was = manifest.get("corpus") or {}
    if was.get("sha256") == now["sha256"]:
        return
    before, after = was.get("splits", {}), now.get("splits", {})
    changed = [
        name for name in before.keys() & after.keys()
        if before[name].get("sha256") != after[name].get("sha256")
    ]  # fmt: skip
    where = f" (split {', '.join(sorted(changed))})" if changed else ""
    raise UserError(
        f"the corpus has changed{where}: this run was trained on sha256 {str(was.get('sha256'))[:12]}…, and "
        f"{now['origin']} has {now['sha256'][:12]}…. Restore the files, or {advice}."
    )
