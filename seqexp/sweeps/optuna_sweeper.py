"""Hydra's sweeper for ``sweep=optuna``: draws trials, launches them, and reports results to the study."""

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
from seqexp.quoting import param_overrides
from seqexp.sweeps.job import jobs_at_once, note_killed_jobs
from seqexp.sweeps.overrides import keep_quotes
from seqexp.tracking.run_folder import LOCK, command_line
from seqexp.tracking.sweep_folder import SweepFolder


class OptunaSweeper(Sweeper):
    """Run one study in the sweep's folder, up to `sweep.n_trials` trials over all its command lines."""

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
        from seqexp.sweeps.search import Search, Space, check_sampler, explain_damage
        from seqexp.tasks.declared import declared_metrics

        parser = OverridesParser.create(config_loader=self._context.config_loader)
        overrides = [*param_overrides(self._params), *arguments]
        space = Space(keep_quotes(parser.parse_overrides(overrides)), self._is_integer)
        # Hydra's own configuration lacks overrides with a range: read the settings from that of a job.
        first = to_typed(self._composed(space.first_overrides()))
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
                with explain_damage(sweep):
                    search = Search(sweep, settings, space, objectives, first.seed)
                self._run(search, sweep, settings)
        except Timeout:
            raise UserError(f"{sweep.path} is in use by another search; wait for it, or stop it.") from None

    def _is_integer(self, key: str) -> bool:
        """Return whether a setting is an integer; Hydra reads interval(4,16) as floats."""
        value = OmegaConf.select(self._config, key)
        return isinstance(value, int) and not isinstance(value, bool)

    def _composed(self, overrides: list[str]) -> DictConfig:
        composed: DictConfig = self._context.config_loader.load_sweep_config(self._config, overrides)
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
            trials = self._composable(search, sweep, search.ask(min(at_once, left)))
            if not trials:
                continue
            jobs = [search.overrides(trial) for trial in trials]
            try:
                returned = self._launcher.launch(jobs, initial_job_idx=trials[0].number)
            except TerminatedWorkerError:
                if not note_killed_jobs(sweep):
                    raise
                print("a job's process was killed; its trial is resumed", file=sys.stderr)
                search.queue_again()
                continue
            results = [job.return_value for job in returned]
            for trial, result in zip(trials, results, strict=True):
                if result not in ("interrupted", "elsewhere"):
                    search.tell(trial, result)
            if "interrupted" in results:
                raise KeyboardInterrupt
            if "elsewhere" in results:
                # Two trials of a batch were equal and one did the work: the other finds its result.
                search.queue_again()

    def _composable(self, search: Any, sweep: SweepFolder, trials: list[Any]) -> list[Any]:
        """Return the trials with a valid configuration; record the others as failed."""
        good = []
        for trial in trials:
            try:
                self._composed(search.overrides(trial))
            except (HydraException, OmegaConfBaseException) as error:
                search.tell(trial, "failed")
                lines = [line for line in f"{error.__cause__ or error}".splitlines() if line.strip()]
                entry = {"job": trial.number, "words": search.overrides(trial), "run": None}
                sweep.record({**entry, "status": "failed", "error": lines[0]})
                print(f"seqexp train: trial {trial.number} failed: {lines[0]}", file=sys.stderr)
            else:
                good.append(trial)
        return good
