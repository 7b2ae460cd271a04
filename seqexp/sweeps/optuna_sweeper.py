"""Hydra's sweeper for ``sweep=optuna``: draws trials, launches them with any launcher, tells the study."""

import sys
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from seqexp.config.root import to_typed
from seqexp.config.sweep import SweepConfig
from seqexp.errors import UserError
from seqexp.files import make_folder
from seqexp.quoting import param_words
from seqexp.sweeps.job import jobs_at_once, note_killed_jobs
from seqexp.sweeps.overrides import keep_quotes
from seqexp.tracking.run_folder import LOCK, command_line
from seqexp.tracking.sweep_folder import SweepFolder


class OptunaSweeper(Sweeper):
    """One study in the sweep's folder; the same line again goes on to `sweep.n_trials` in all."""

    __module__ = "hydra_plugins.seqexp"

    def __init__(self, params: Any = None) -> None:
        self._params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._config, self._context = config, hydra_context
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from seqexp.metrics.metric import check_monitor
        from seqexp.sweeps.search import Search, Space, check_sampler, damage_said
        from seqexp.tasks.declared import declared_metrics

        parser = OverridesParser.create(config_loader=self._context.config_loader)
        words = [*param_words(self._params), *arguments]
        space = Space(keep_quotes(parser.parse_overrides(words)), self._is_whole)
        # Hydra's own configuration knows only words without a range: settings come from one like a job's.
        first = to_typed(self._composed(space.first_words()))
        settings = first.sweep
        check_sampler(settings, space)
        sweep = SweepFolder(Path(str(self._config.hydra.sweep.dir)))
        make_folder(sweep.path)
        declared = declared_metrics(first)
        objectives = {
            name: check_monitor("sweep.objectives", name, declared).mode
            for name in settings.objectives or [first.trainer.monitor]
        }
        try:
            with FileLock(sweep.path / LOCK, timeout=0):
                with damage_said(sweep):
                    search = Search(sweep, settings, space, objectives, first.seed)
                self._run(search, sweep, settings)
        except Timeout:
            raise UserError(f"{sweep.path} is in use by another search; wait for it, or stop it.") from None

    def _is_whole(self, key: str) -> bool:
        """Whether a setting is a whole number; Hydra makes real ones of interval(4,16)."""
        value = OmegaConf.select(self._config, key)
        return isinstance(value, int) and not isinstance(value, bool)

    def _composed(self, words: list[str]) -> DictConfig:
        composed: DictConfig = self._context.config_loader.load_sweep_config(self._config, words)
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        return composed

    def _run(self, search: Any, sweep: SweepFolder, settings: SweepConfig) -> None:
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        assert settings.n_trials is not None
        launcher = self._config.hydra.runtime.choices["hydra/launcher"]
        swept, before = list(search.space.distributions), search.done()
        sweep.begin_call(command_line(), str(settings.sampler), launcher, settings.n_trials, swept, before)
        at_once = settings.batch_size or jobs_at_once(self._config.hydra.launcher)
        while (left := settings.n_trials - search.done()) > 0 and search.drawable():
            trials = self._those_that_compose(search, sweep, search.ask(min(at_once, left)))
            if not trials:
                continue
            jobs = [search.words(trial) for trial in trials]
            try:
                returned = self._launcher.launch(jobs, initial_job_idx=trials[0].number)
            except TerminatedWorkerError:
                if not note_killed_jobs(sweep):
                    raise
                print("a job's process was killed; its trial goes on", file=sys.stderr)
                search.queue_again()
                continue
            came = [job.return_value for job in returned]
            for trial, result in zip(trials, came, strict=True):
                if result not in ("interrupted", "elsewhere"):
                    search.tell(trial, result)
            if "interrupted" in came:
                raise KeyboardInterrupt
            if "elsewhere" in came:
                # Two of a batch were the same, and one has done the work: the other finds its result.
                search.queue_again()

    def _those_that_compose(self, search: Any, sweep: SweepFolder, trials: list[Any]) -> list[Any]:
        """A trial whose words do not go together has failed; it stops no other."""
        good = []
        for trial in trials:
            try:
                self._composed(search.words(trial))
            except (HydraException, OmegaConfBaseException) as error:
                search.tell(trial, "failed")
                lines = [line for line in f"{error.__cause__ or error}".splitlines() if line.strip()]
                words, said = search.words(trial), lines[0]
                entry = {"job": trial.number, "words": words, "run": None, "status": "failed", "error": said}
                sweep.record(entry)
                print(f"seqexp train: trial {trial.number} failed: {said}", file=sys.stderr)
            else:
                good.append(trial)
        return good
