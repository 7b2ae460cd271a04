"""The base class of tasks: a task maps a model's outputs to a loss, metrics, predictions and figures.

A new task is a subclass of `Task` with `loss` and `predict`; all other methods have defaults.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from seqexp.config.exams import ExamsConfig
from seqexp.config.root import ExportConfig
from seqexp.config.run import GenerationConfig
from seqexp.config.word_lists import WordListsConfig
from seqexp.data.base import Data
from seqexp.data.batch import Batch
from seqexp.data.preprocessor import Preprocessor
from seqexp.errors import UserError
from seqexp.exams.scoring import Scorer
from seqexp.metrics.metric import Metric, MetricSpec
from seqexp.scored_text import ScoredText
from seqexp.tasks.carried import CarriedState

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from seqexp.metrics.outcomes import Outcome

Forward = Callable[..., Tensor]


@dataclass
class LossOutput:
    """Sums over the counted items of a batch, in fp32; the caller divides by the count.

    `loss_sum` is minimised. `nll_sum` is reported as the loss: the negative log-likelihood in nats, without
    label smoothing, or the loss itself if it is not a likelihood.
    """

    loss_sum: Tensor
    nll_sum: Tensor
    metric_sums: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Sums:
    """`LossOutput`s of a whole split, added up on the host in fp64."""

    nll: float = 0.0
    count: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EvalOptions:
    """Options of an evaluation: the context of forward passes, the settings of generation, seed, and lists.

    If `generation` is None, a task generates quickly, as at the validations of a training run.
    """

    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    generation: GenerationConfig | None = None
    seed: int = 1
    lists: WordListsConfig = field(default_factory=WordListsConfig)


class Updater(Protocol):
    """Updates a model in place, instead of gradients and an optimizer.

    `about` says how, for the manifest; `repeats` is False if the same batch may give another result.
    """

    about: str
    repeats: bool

    def __call__(self, batch: Batch, rate: float) -> tuple[float, int]:
        """Update the model by a batch; return the loss, summed over so many of its items."""


class Evaluation(dict[str, Metric]):
    """Metrics by name, without the split's prefix, and other results of an evaluation.

    `details` are plain values for ``result.json`` from which `Task.tables` makes tables, `notes` are for the
    user, and `files` maps file names to texts for the run folder. `outcomes` are what each example of the
    split adds to a metric, by its name, with which runs are compared example by example.
    """

    def __init__(self, metrics: Mapping[str, Metric] | None = None) -> None:
        super().__init__(metrics or {})
        self.details: dict[str, Any] = {}
        self.notes: list[str] = []
        self.files: dict[str, str] = {}
        self.outcomes: dict[str, Outcome] = {}


@dataclass(frozen=True)
class Row:
    """The evaluation of one view of the data."""

    label: Mapping[str, int | float | str]
    evaluation: "Evaluation"
    main: bool = True


@dataclass(frozen=True)
class Table:
    """A table of text: one header cell per column, and rows of as many cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | ScoredText]]
    caption: str = ""


@dataclass(frozen=True)
class PredictOptions:
    """Options of predictions: the settings of generation, the seed, and the names of requested figures.

    `explain` is the method by which predictions are explained, or None.
    """

    generation: GenerationConfig = field(default_factory=GenerationConfig)
    seed: int = 1
    figures: frozenset[str] = frozenset()
    explain: str | None = None


@dataclass(frozen=True)
class Prediction:
    """The prediction of a model for input number `index`.

    `texts` are the answers, best first, or several samples. A prediction that is not `final` is followed by a
    longer one for the same input. `values` are plain values for JSON, `note` is a message to the user, and
    `figures` maps names to functions that draw the requested figures; that of an explanation has the name of
    its method. `scored` is the input with the scores of its words that explain the prediction.
    """

    index: int
    texts: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict)
    final: bool = True
    note: str | None = None
    figures: "Mapping[str, Callable[[], Figure]]" = field(default_factory=dict)
    scored: ScoredText | None = None

    @property
    def text(self) -> str:
        return self.texts[0]


@dataclass(frozen=True)
class Sample:
    """A sample of a model's predictions for the log, with figures by name."""

    text: str
    figures: "Mapping[str, Figure]" = field(default_factory=dict)


class Task(ABC):
    """A task, made from its configuration. In `loss`, `model` is any callable with the model's signature.

    `metrics` declares the metrics of a validation, by name without the split's prefix; `trainer.monitor` may
    name any that declares its direction. `loss_unit` is the unit of the loss.
    """

    metrics: Mapping[str, MetricSpec]
    loss_unit: str
    # The precision of precision=auto, or None for the device's choice.
    auto_precision: ClassVar[str | None] = None
    # The key of an input on the command line, and whether each line of a file is an input, or the whole file.
    input_key: ClassVar[str] = "text"
    reads_lines: ClassVar[bool] = True

    def sizes(self, preprocessor: Preprocessor) -> dict[str, Any]:
        """Return the arguments of a model that data and task decide, such as the size of the vocabulary."""
        return preprocessor.sizes()

    def extend(self, model: nn.Module, preprocessor: Preprocessor) -> None:
        """Add to a model, as submodules, what the task learns beside the model's outputs; nothing here."""
        del model, preprocessor

    def prepare(self, data: Data, model: Any, preprocessor: Preprocessor | None = None) -> Data:
        """Return the data as a model with these options reads it; by default as it is.

        `preprocessor` is that of a trained run, if any.
        """
        del model, preprocessor
        return data

    def updater(self, model: Any, config: Any, optimizers: Any = None) -> tuple[Updater | None, str | None]:
        """Return what updates the model instead of gradients, if anything, and a note for the user.

        `config` is that of the training, and `optimizers` are its own, whose state an updater may keep.

        Raises:
            UserError: it was asked for and cannot be had.
        """
        del model, config, optimizers
        return None, None

    def count(self, batch: Batch) -> int:
        """Return the number of items that the loss of a batch averages over."""
        return batch.count

    @abstractmethod
    def loss(self, model: Forward, batch: Batch, *, training: bool = False) -> LossOutput:
        """Return sums over a batch: regularised in `training` (label smoothing), with metrics otherwise."""

    def check(self, data: Data, split: str) -> list[str]:
        """What the user should know before a split is evaluated.

        Raises:
            UserError: the split cannot be evaluated.
        """
        del data, split
        return []

    def evaluate(self, model: Any, data: Data, split: str, options: EvalOptions | None = None) -> Evaluation:
        """Return the metrics of a whole split: sums over all batches, divided once."""
        return Evaluation(self.averages(self.sums(model, data, split, options or EvalOptions()), data, split))

    def sums(self, model: Any, data: Data, split: str, options: EvalOptions) -> Sums:
        """Return the sums over a whole split, read once, in order, in evaluation mode.

        Shows progress on a terminal if it takes more than two seconds. Keeps the random state, and restores
        the model's mode.
        """
        was_training = model.training
        model.eval()
        device = device_of(model)
        total = torch.zeros((), dtype=torch.float64)
        sums = Sums()
        carried = CarriedState(model) if data.carries_state else None
        progress = tqdm(
            total=data.eval_count(split), desc=f"evaluating {split}", unit="item", unit_scale=True,
            delay=2, leave=False, disable=None,
        )  # fmt: skip
        with torch.inference_mode(), progress:
            for batch in data.eval_batches(split):
                if carried is not None:
                    carried.begin(batch)
                with options.autocast():
                    output = self.loss(carried or model, batch.to(device), training=False)
                total += output.nll_sum.double().cpu()
                for name, value in output.metric_sums.items():
                    sums.metrics[name] = sums.metrics.get(name, 0.0) + float(value)
                sums.count += self.count(batch)
                progress.update(batch.count)
        model.train(was_training)
        sums.nll = float(total)
        return sums

    def averages(self, sums: Sums, data: Data, split: str) -> dict[str, Metric]:
        """Return metrics from sums: `loss`, and each metric sum divided by the count."""
        del data, split
        found = {"loss": self.metrics["loss"].of(sums.nll / sums.count, sums.count)}
        for name, value in sums.metrics.items():
            found[name] = self.metrics[name].of(value / sums.count, sums.count)
        return found

    def word_vectors(self, model: Any, preprocessor: Preprocessor, words: Iterable[str]) -> dict[str, Any]:
        """Return the vectors (D,) of those of the words that the model has a vector for, as numpy arrays.

        Raises:
            UserError: the models of this task have no word vectors.
        """
        del model, preprocessor, words
        raise UserError("a run of this task has no word vectors; give a run of word embeddings, or a file.")

    def export(
        self, model: Any, preprocessor: Preprocessor, target: "Path", options: ExportConfig
    ) -> "list[Path]":
        """Write a trained model for other programs; return the files.

        Raises:
            UserError: the task has nothing to export, or not in this form.
        """
        del model, preprocessor, target, options
        raise UserError("a run of this task has nothing to export.")

    @abstractmethod
    def predict(
        self, model: Any, preprocessor: Preprocessor, inputs: Sequence[str], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Return an iterator over the predictions of each input. Prints nothing, and writes no files.

        Raises:
            UserError: an input cannot be read; raised by the call, before the first prediction.
        """

    def default_inputs(self, model: Any, options: PredictOptions) -> list[str] | None:
        """Return the inputs to use if none are given; None if inputs are required."""
        del model, options
        return None

    def figure_names(self, model: Any) -> tuple[str, ...]:
        """Return the names of the figures that predictions of this model can have."""
        del model
        return ()

    def check_explanation(self, model: Any, method: str) -> None:
        """Check that `predict` can explain the predictions of this model by a method.

        Raises:
            UserError: naming the methods that there are.
        """
        del model, method
        raise UserError("explain= and attention= are not available for the task of this run; leave them out.")

    def show(self, prediction: Prediction, options: PredictOptions) -> str | None:
        """What the command line prints for a final prediction; None: its values as a line of JSON."""
        del options
        return prediction.text if len(prediction.texts) == 1 else None

    def sample(self, model: Any, data: Data, options: PredictOptions) -> Sample | None:
        """Return a sample of the model's predictions at a validation, or None."""
        del model, data, options
        return None

    def figures(self, model: Any, data: Data, rows: Sequence[Row]) -> "dict[str, Figure]":
        """Return figures of a trained model by name; `rows` are its evaluations on the views of the data."""
        del model, data, rows
        return {}

    def tables(self, details: Mapping[str, Any]) -> list[Table]:
        """Return tables of the `details` of an evaluation."""
        del details
        return []

    def example_input(self, data: Data) -> str | None:
        """Return an input that the model can read, for the suggested next command, or None."""
        del data
        return None

    def scores(self, model: Any, data: Data, split: str) -> Iterator[dict[str, Any]]:
        """Yield the log-probability of each reference answer in a split, in nats, as plain values.

        Raises:
            UserError: the task has no such scores.
        """
        del model, data, split
        raise UserError("score= is not available for the task of this run; leave it out.")

    def scorer(
        self,
        model: Any,
        preprocessor: Preprocessor,
        autocast: Callable[[], AbstractContextManager[Any]],
        exams: ExamsConfig,
    ) -> Scorer:
        """Return what scores the texts of exams, for tasks that declare `EXAMS`.

        Raises:
            UserError: the task has no exams.
        """
        del model, preprocessor, autocast, exams
        raise UserError("exams= is not available for the task of this run; leave it out.")

    def combine(self, models: list[Any]) -> Any:
        """Return one model that combines the predictions of several.

        Raises:
            UserError: the task cannot combine models.
        """
        del models
        raise UserError("ensemble= is not available for the task of this run; leave it out.")


def device_of(model: Any) -> torch.device:
    """The device of a model's parameters; without any, the CPU."""
    first = next(iter(model.parameters()), None)
    return torch.device("cpu") if first is None else first.device
