"""A search by Optuna: what is searched over, the study in the sweep's folder, and its trials.

The study is a sqlite file. Each trial is drawn by a sampler that is seeded anew from the seed and the trial's
number, so that a search that was interrupted draws what it would have drawn.
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
# Words that say how to search or where to compute, and may differ when a search goes on.
FREE_WORDS = (
    "sweep.n_trials=",
    "sweep.batch_size=",
    "sweep.sampler=",
    "sweep.pruner=",
    "sweep.name=",
    "hydra",
    "device",
)


class Space:
    """What the words typed hold fixed, and what they leave to the search."""

    def __init__(
        self, overrides: Sequence[Override], is_whole: Callable[[str], bool] = lambda key: False
    ) -> None:
        """`is_whole` tells of a setting whether it is a whole number.

        Raises:
            UserError: there is nothing to search over, or a range is none.
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
                    self.distributions[key] = _distribution(override, values, is_whole(key.lstrip("+")))
                except ValueError as error:
                    raise UserError(f"{override.input_line} is no range to search: {error}") from error
        if not self.distributions:
            raise UserError(
                "sweep=optuna has nothing to search over; give a range: "
                "'optimizer.lr=tag(log,interval(1e-4,1e-2))', model.n_layer='range(1,5)' or model=rnn,lstm."
            )

    def words(self, parameters: Mapping[str, Any]) -> list[str]:
        """The words of a job with these parameters."""
        return [*self.fixed, *(f"{key}={parameters[key]}" for key in self.distributions)]

    def first_words(self) -> list[str]:
        """The words of some job: the first of all choices, the lower ends of all ranges."""
        return self.words(
            {
                key: space.choices[0] if isinstance(space, CategoricalDistribution) else space.low  # type: ignore[attr-defined]
                for key, space in self.distributions.items()
            }
        )

    def described(self) -> dict[str, Any]:
        """What must be the same when the search goes on."""
        return {
            "fixed": sorted(word for word in self.fixed if not word.lstrip("+").startswith(FREE_WORDS)),
            "searched": {
                key: json.loads(optuna.distributions.distribution_to_json(distribution))
                for key, distribution in self.distributions.items()
            },
        }


def _lines(described: dict[str, Any]) -> set[str]:
    """What describes a search, as words that can be compared one by one."""
    searched = {f"{key}: {value}" for key, value in described.get("searched", {}).items()}
    return {*described.get("fixed", []), *searched, f"sweep.objectives={described.get('objectives')}"}


def _distribution(override: Override, values: list[str], whole: bool) -> BaseDistribution:
    value, log = override.value(), "log" in getattr(override.value(), "tags", ())
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        if (whole or isinstance(low, int)) and float(low).is_integer() and float(high).is_integer():
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
        """Open the study, or make it; `objectives` are names of metrics with ``max`` or ``min``.

        Raises:
            UserError: the folder holds another search.
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
            changed = [f"without {word}" for word in now - was] + [f"with {word}" for word in was - now]
            raise UserError(
                f"another search is in this sweep, begun {', '.join(changed)}. Choose "
                "another sweep.name, or type the words of the first time."
            )

    def queue_again(self, failed: bool = False) -> None:
        """Trials that were interrupted go back into the queue, with those that `failed` if asked for."""
        trials = self.study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get("again") for trial in trials}
        if self.settings.sampler == "cmaes":
            for trial in trials:
                _check_cma_state(trial.system_attrs)
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                # The same trial, with the parameters it has.
                self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            elif failed and trial.state == TrialState.FAIL and trial.number not in repeated:
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def done(self) -> int:
        """How many trials came to an end; one that was tried again counts once."""
        trials = self.study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get("again") for trial in trials}
        return sum(trial.state in DONE and trial.number not in repeated for trial in trials)

    def ask(self, count: int) -> list[optuna.trial.Trial]:
        """As many trials as asked for, or as there still may be."""
        return [self._ask() for _ in range(int(min(count, self.drawable())))]

    def _ask(self) -> optuna.trial.Trial:
        self.study.sampler = self._sampler(len(self.study.get_trials(deepcopy=False)))
        with warnings.catch_warnings():
            # CMA-ES says of its first trial that it is drawn at random.
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
        """How many trials there may still be; of a grid its points that were not drawn, and those waiting."""
        if self.settings.sampler != "grid":
            return math.inf
        trials = self.study.get_trials(deepcopy=False)
        drawn = sum("again" not in trial.user_attrs for trial in trials)
        waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        points = math.prod(len(_values(space)) for space in self.space.distributions.values())
        return points - drawn + waiting

    def words(self, trial: optuna.trial.Trial) -> list[str]:
        """The words of a trial's job."""
        return [*self.space.words(trial.params), f"sweep.trial={trial.number}"]

    def tell(self, trial: optuna.trial.Trial, came: Any) -> None:
        """`came` is what the job returned: its values, ``pruned`` or ``failed``."""
        # GridSampler would call study.stop() after its last point, which only study.optimize() may.
        self.study.sampler = optuna.samplers.RandomSampler()
        if came == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        elif came == "failed":
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, came)


def open_storage(sweep: SweepFolder) -> optuna.storages.RDBStorage:
    """Open, or make, the sqlite file of the study."""
    # The path is no part of a URL, in which '?', '#', '%' and, for Optuna, braces have a meaning.
    connect = functools.partial(sqlite3.connect, sweep.path / STUDY, check_same_thread=False)
    return optuna.storages.RDBStorage("sqlite://", {"creator": connect, "poolclass": QueuePool})


def open_study(
    sweep: SweepFolder, pruner: optuna.pruners.BasePruner | None = None
) -> tuple[optuna.Study, list[optuna.trial.FrozenTrial]]:
    """The study of a sweep, which may be a stranger's, and all its trials.

    Raises:
        UserError: there is none, or it is damaged.
    """
    with damage_said(sweep):
        storage = open_storage(sweep)
        study = optuna.load_study(study_name=_study_name(storage, sweep), storage=storage, pruner=pruner)
        return study, study.get_trials(deepcopy=False)


def _study_name(storage: optuna.storages.RDBStorage, sweep: SweepFolder) -> str:
    """The name of the one study in the file: that of the folder, unless the folder was renamed."""
    names = optuna.get_all_study_names(storage)
    return names[0] if len(names) == 1 else sweep.name


@contextlib.contextmanager
def damage_said(sweep: SweepFolder) -> Iterator[None]:
    """Turn what Optuna and sqlite raise for a damaged study into one message.

    Raises:
        UserError: what is damaged, where, and what to do.
    """
    try:
        yield
    except (SQLAlchemyError, OptunaError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0][:150] or type(error).__name__
        raise UserError(
            f"{sweep.path / STUDY} cannot be used ({reason}): Optuna's study is damaged. Put back a copy, or "
            "search under another sweep.name; the runs are unharmed."
        ) from error


def pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner()
    return optuna.pruners.NopPruner()


class PruningWatch:
    """Tells the study a job's validations, and the job whether it does so badly that it should end."""

    def __init__(self, sweep: SweepFolder, settings: SweepConfig, metric: str, eval_every: int) -> None:
        assert settings.trial is not None
        self._metric, self._eval_every = metric, eval_every
        study, trials = open_study(sweep, pruner(str(settings.pruner)))
        trial = trials[settings.trial]
        self._reported = set(trial.intermediate_values)
        self._trial = optuna.trial.Trial(study, trial._trial_id)

    def __call__(self, step: int, results: dict[str, float]) -> bool:
        validation = -(-step // self._eval_every)
        if validation not in self._reported:  # a job that was resumed reports some a second time
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
    """Raises UserError if the sampler does not go with what is searched over."""
    for key, kind in space.distributions.items():
        categorical = isinstance(kind, CategoricalDistribution)
        if settings.sampler == "cmaes" and categorical:
            raise UserError(
                f"sweep.sampler=cmaes searches over numbers, and {key} is a choice; write interval(…) or "
                "range(…), or use sweep.sampler=tpe."
            )
        endless = isinstance(kind, FloatDistribution) and kind.step is None
        if settings.sampler == "grid" and endless:
            raise UserError(
                f"sweep.sampler=grid needs values to go through, and {key} is an interval; write "
                f"{key}=1e-4,1e-3 or range(…), or use sweep.sampler=tpe."
            )


class _OnlyCmaState(pickle.Unpickler):
    """Reads what Optuna's CMA-ES sampler stores, and no other class or function."""

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
    """Optuna keeps the state of CMA-ES as a pickle, which could run anything: look before it is read.

    Raises:
        UserError: it is not such a state.
    """
    stored: dict[str, list[str]] = {}
    for key in sorted(attributes, key=lambda key: (len(key), key)):
        if key.startswith("cma:") and isinstance(attributes[key], str) and "optimizer" in key:
            stored.setdefault(key.rpartition(":")[0], []).append(attributes[key])
    for parts in stored.values():
        try:
            _OnlyCmaState(io.BytesIO(bytes.fromhex("".join(parts)))).load()
        except Exception as error:
            raise UserError(
                f"study.db holds something else than the state of CMA-ES ({error}) and is not read; "
                "choose another sweep.name."
            ) from error
