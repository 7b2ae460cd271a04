"""A search by Optuna: the search space, the study in the sweep's folder, and its trials.

The study is a sqlite file. The sampler of each trial is seeded from the seed and the number of trials, so
that an interrupted search draws the same trials as an uninterrupted one.
"""

import contextlib
import functools
import io
import json
import math
import pickle
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import OptunaError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from seqexp.config.sweep import SweepConfig
from seqexp.errors import UserError
from seqexp.files import make_folder
from seqexp.tracking.sweep_folder import STUDY, SweepFolder

DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
# Overrides that may differ when a search is resumed: how to search, and where to compute.
FREE_OVERRIDES = (
    "sweep.n_trials=",
    "sweep.batch_size=",
    "sweep.sampler=",
    "sweep.pruner=",
    "sweep.name=",
    "hydra",
    "device",
)


class Space:
    """The search space of a command line: fixed overrides, and distributions of the searched settings."""

    def __init__(
        self, overrides: Sequence[Override], is_integer: Callable[[str], bool] = lambda key: False
    ) -> None:
        """`is_integer` returns whether a setting is an integer.

        Raises:
            UserError: no override has a range, or a range is invalid.
        """
        self.fixed: list[str] = []
        self.distributions: dict[str, BaseDistribution] = {}
        for override in overrides:
            key = override.get_key_element()
            if not override.is_sweep_override():
                self.fixed.append(f"{key}={override.get_value_element_as_str()}")
                continue
            values = [] if override.is_interval_sweep() else list(override.sweep_string_iterator())
            if len(values) == 1:
                self.fixed.append(f"{key}={values[0]}")
            else:
                try:
                    self.distributions[key] = _distribution(override, values, is_integer(key.lstrip("+")))
                except ValueError as error:
                    raise UserError(f"{override.input_line} is not a range to search: {error}") from error
        if not self.distributions:
            raise UserError(
                "sweep=optuna has nothing to search over; give a range: "
                "'optimizer.lr=tag(log,interval(1e-4,1e-2))', model.n_layer='range(1,5)' or model=rnn,lstm."
            )

    def overrides(self, parameters: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a job with these parameters."""
        return [*self.fixed, *(f"{key}={parameters[key]}" for key in self.distributions)]

    def first_overrides(self) -> list[str]:
        """Return the overrides of one job: the first of all choices, the lower ends of all ranges."""
        return self.overrides(
            {
                key: space.choices[0] if isinstance(space, CategoricalDistribution) else space.low  # type: ignore[attr-defined]
                for key, space in self.distributions.items()
            }
        )

    def described(self) -> dict[str, Any]:
        """Return what must be the same when the search is resumed, for the study."""
        return {
            "fixed": sorted(one for one in self.fixed if not one.lstrip("+").startswith(FREE_OVERRIDES)),
            "searched": {
                key: json.loads(optuna.distributions.distribution_to_json(distribution))
                for key, distribution in self.distributions.items()
            },
        }


def _lines(described: dict[str, Any]) -> set[str]:
    """Return the description of a search as lines that can be compared."""
    searched = {f"{key}: {value}" for key, value in described.get("searched", {}).items()}
    return {*described.get("fixed", []), *searched, f"sweep.objectives={described.get('objectives')}"}


def _distribution(override: Override, values: list[str], integer: bool) -> BaseDistribution:
    value, log = override.value(), "log" in getattr(override.value(), "tags", ())
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        if (integer or isinstance(low, int)) and float(low).is_integer() and float(high).is_integer():
            return IntDistribution(int(low), int(high), log=log)
        return FloatDistribution(float(low), float(high), log=log)
    numbers = [_number(text) for text in values]
    if isinstance(value, RangeSweep) and not log and not value.shuffle:
        step = abs(value.step)
        if all(isinstance(number, int) for number in numbers):
            return IntDistribution(min(numbers), max(numbers), step=int(step))
        return FloatDistribution(min(numbers), max(numbers), step=step)
    return CategoricalDistribution(numbers if None not in numbers else values)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


class Search:
    """The study of a sweep."""

    def __init__(
        self,
        sweep: SweepFolder,
        settings: SweepConfig,
        space: Space,
        objectives: Mapping[str, str],
        seed: int,
    ) -> None:
        """Open or create the study; `objectives` maps names of metrics to ``max`` or ``min``.

        Raises:
            UserError: the folder contains another search.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self.settings, self.space, self.seed = settings, space, seed
        make_folder(sweep.path)
        storage = open_storage(sweep)
        self.study = optuna.create_study(
            study_name=_study_name(storage, sweep),
            storage=storage,
            directions=["maximize" if mode == "max" else "minimize" for mode in objectives.values()],
            load_if_exists=True,
        )
        self._check_same({**space.described(), "objectives": list(objectives)})
        self.queue_again(failed=True)

    def _check_same(self, described: dict[str, Any]) -> None:
        before = self.study.user_attrs.get("search")
        if before is None:
            self.study.set_user_attr("search", described)
        elif before != described:
            was, now = (_lines(one) for one in (before, described))
            changed = [f"without {line}" for line in now - was] + [f"with {line}" for line in was - now]
            raise UserError(
                f"this sweep contains another search, started {', '.join(changed)}. Choose "
                "another sweep.name, or type the overrides of the first time."
            )

    def queue_again(self, failed: bool = False) -> None:
        """Put interrupted trials back into the queue, and failed ones too if `failed`."""
        trials = self.study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get("again") for trial in trials}
        if self.settings.sampler == "cmaes":
            for trial in trials:
                _check_cma_state(trial.system_attrs)
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                # Keep the trial's number and parameters.
                self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            elif failed and trial.state == TrialState.FAIL and trial.number not in repeated:
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def done(self) -> int:
        """Return how many trials have ended; a repeated trial counts once."""
        trials = self.study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get("again") for trial in trials}
        return sum(trial.state in DONE and trial.number not in repeated for trial in trials)

    def ask(self, count: int) -> list[optuna.trial.Trial]:
        """Draw up to `count` trials."""
        return [self._ask() for _ in range(int(min(count, self.drawable())))]

    def _ask(self) -> optuna.trial.Trial:
        self.study.sampler = self._sampler(len(self.study.get_trials(deepcopy=False)))
        with warnings.catch_warnings():
            # CMA-ES warns that its first trial is drawn at random.
            warnings.simplefilter("ignore", UserWarning)
            return self.study.ask(self.space.distributions)

    def _sampler(self, trials: int) -> optuna.samplers.BaseSampler:
        seed = (self.seed * 1_000_003 + trials) % 2**32
        if self.settings.sampler == "random":
            return optuna.samplers.RandomSampler(seed)
        if self.settings.sampler == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if self.settings.sampler == "grid":
            return optuna.samplers.GridSampler(
                {key: _values(space) for key, space in self.space.distributions.items()},
                seed=self.seed % 2**32,
            )
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def drawable(self) -> float:
        """Return how many trials can still be drawn: for a grid, its remaining points and waiting trials."""
        if self.settings.sampler != "grid":
            return math.inf
        trials = self.study.get_trials(deepcopy=False)
        drawn = sum("again" not in trial.user_attrs for trial in trials)
        waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        points = math.prod(len(_values(space)) for space in self.space.distributions.values())
        return points - drawn + waiting

    def overrides(self, trial: optuna.trial.Trial) -> list[str]:
        """Return the overrides of a trial's job."""
        return [*self.space.overrides(trial.params), f"sweep.trial={trial.number}"]

    def tell(self, trial: optuna.trial.Trial, result: Any) -> None:
        """Report what the job returned to the study: its values, ``pruned`` or ``failed``."""
        # GridSampler would call study.stop() after its last point, which only study.optimize() may.
        self.study.sampler = optuna.samplers.RandomSampler()
        if result == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        elif result == "failed":
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, result)


def open_storage(sweep: SweepFolder) -> optuna.storages.RDBStorage:
    """Open or create the sqlite file of the study."""
    # Connect by path: in a URL, '?', '#', '%' and (for Optuna) braces have a meaning.
    connect = functools.partial(sqlite3.connect, sweep.path / STUDY, check_same_thread=False)
    return optuna.storages.RDBStorage("sqlite://", {"creator": connect, "poolclass": QueuePool})


def open_study(
    sweep: SweepFolder, pruner: optuna.pruners.BasePruner | None = None
) -> tuple[optuna.Study, list[optuna.trial.FrozenTrial]]:
    """Return the study of a sweep and all its trials; the file is untrusted.

    Raises:
        UserError: the study is missing or damaged.
    """
    with explain_damage(sweep):
        storage = open_storage(sweep)
        study = optuna.load_study(study_name=_study_name(storage, sweep), storage=storage, pruner=pruner)
        return study, study.get_trials(deepcopy=False)


def _study_name(storage: optuna.storages.RDBStorage, sweep: SweepFolder) -> str:
    """Return the name of the study in the file, which differs from the folder's if that was renamed."""
    names = optuna.get_all_study_names(storage)
    return names[0] if len(names) == 1 else sweep.name


@contextlib.contextmanager
def explain_damage(sweep: SweepFolder) -> Iterator[None]:
    """Convert the exceptions of Optuna and sqlite for a damaged study to one message.

    Raises:
        UserError: naming the file, the reason, and what to do.
    """
    try:
        yield
    except (SQLAlchemyError, OptunaError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0][:150] or type(error).__name__
        raise UserError(
            f"{sweep.path / STUDY} cannot be used ({reason}): Optuna's study is damaged. Restore a copy, or "
            "search under another sweep.name; the runs are intact."
        ) from error


def pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner()
    return optuna.pruners.NopPruner()


class PruningWatch:
    """Report a job's validations to the study; calling it returns whether the trial should be pruned."""

    def __init__(self, sweep: SweepFolder, settings: SweepConfig, metric: str, eval_every: int) -> None:
        assert settings.trial is not None
        self._metric, self._eval_every = metric, eval_every
        study, trials = open_study(sweep, pruner(str(settings.pruner)))
        trial = trials[settings.trial]
        self._reported = set(trial.intermediate_values)
        self._trial = optuna.trial.Trial(study, trial._trial_id)

    def __call__(self, step: int, results: dict[str, float]) -> bool:
        validation = -(-step // self._eval_every)
        if validation not in self._reported:  # a resumed job repeats some validations
            self._trial.report(results[self._metric], validation)
        return self._trial.should_prune()


def _values(space: BaseDistribution) -> list[Any]:
    if isinstance(space, CategoricalDistribution):
        return list(space.choices)
    assert isinstance(space, IntDistribution | FloatDistribution)
    step = space.step
    assert step is not None
    return [space.low + i * step for i in range(round((space.high - space.low) / step) + 1)]


def check_sampler(settings: SweepConfig, space: Space) -> None:
    """Raise UserError if the sampler does not support one of the distributions."""
    for key, kind in space.distributions.items():
        categorical = isinstance(kind, CategoricalDistribution)
        if settings.sampler == "cmaes" and categorical:
            raise UserError(
                f"sweep.sampler=cmaes searches over numbers, and {key} is a choice; write interval(…) or "
                "range(…), or use sweep.sampler=tpe."
            )
        continuous = isinstance(kind, FloatDistribution) and kind.step is None
        if settings.sampler == "grid" and continuous:
            raise UserError(
                f"sweep.sampler=grid needs discrete values, and {key} is an interval; write "
                f"{key}=1e-4,1e-3 or range(…), or use sweep.sampler=tpe."
            )


class _OnlyCmaState(pickle.Unpickler):
    """Unpickle only the classes that Optuna's CMA-ES sampler stores."""

    ALLOWED = ("cmaes.", "numpy")

    def find_class(self, module: str, name: str) -> Any:
        plain = module.startswith(self.ALLOWED) and name in (
            "CMA", "_reconstruct", "ndarray", "dtype", "scalar", "RandomState", "__randomstate_ctor",
            "__bit_generator_ctor", "MT19937", "_frombuffer",
        )  # fmt: skip
        if not plain:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def _check_cma_state(attributes: dict[str, Any]) -> None:
    """Check the pickled state of CMA-ES before Optuna loads it, because a pickle can run any code.

    Raises:
        UserError: it contains other classes.
    """
    stored: dict[str, list[str]] = {}
    for key in sorted(attributes, key=lambda key: (len(key), key)):
        if key.startswith("cma:") and isinstance(attributes[key], str) and "optimizer" in key:
            stored.setdefault(key.rpartition(":")[0], []).append(attributes[key])
    for chunks in stored.values():
        try:
            _OnlyCmaState(io.BytesIO(bytes.fromhex("".join(chunks)))).load()
        except Exception as error:
            raise UserError(
                f"study.db contains other data than the state of CMA-ES ({error}) and is not read; "
                "choose another sweep.name."
            ) from error
