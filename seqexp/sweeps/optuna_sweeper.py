"""Hydra's sweeper for ``sweep=optuna``: draws trials, launches them with any launcher, tells the study."""

import sys
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from seqexp.config.sweep import SweepConfig
from seqexp.errors import UserError
from seqexp.sweeps.job import jobs_at_once, note_killed_jobs
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
        from seqexp.sweeps.search import Search, Space

        settings = OmegaConf.to_object(self._config.sweep)
        assert isinstance(settings, SweepConfig)
        parser = OverridesParser.create(config_loader=self._context.config_loader)
        words = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        space = Space(parser.parse_overrides(words))
        sweep = SweepFolder(Path(str(self._config.hydra.sweep.dir)))
        sweep.path.mkdir(parents=True, exist_ok=True)
        objectives = settings.objectives or [self._config.trainer.monitor]
        try:
            with FileLock(sweep.path / LOCK, timeout=0):
                search = Search(sweep, settings, space, objectives, self._config.seed)
                self._run(search, sweep, settings)
        except Timeout:
            raise UserError(f"{sweep.path} is in use by another search; wait for it, or stop it.") from None

    def _run(self, search: Any, sweep: SweepFolder, settings: SweepConfig) -> None:
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        assert settings.n_trials is not None
        before = search.done()
        launcher = self._config.hydra.runtime.choices["hydra/launcher"]
        swept = list(search.space.distributions)
        sweep.begin_call(command_line(), str(settings.sampler), launcher, settings.n_trials, swept, before)
        at_once = settings.batch_size or jobs_at_once(self._config.hydra.launcher)
        while (left := settings.n_trials - search.done()) > 0 and not search.exhausted():
            trials = search.ask(min(at_once, left))
            jobs = [[*search.space.words(trial), f"sweep.trial={trial.number}"] for trial in trials]
            try:
                returned = self._launcher.launch(jobs, initial_job_idx=trials[0].number)
            except TerminatedWorkerError:
                if not note_killed_jobs(sweep):
                    raise
                print("a job's process was killed; its trial goes on", file=sys.stderr)
                search.queue_again()
                continue
            for trial, job in zip(trials, returned, strict=True):
                if job.return_value != "interrupted":
                    search.tell(trial, job.return_value)
            if any(job.return_value == "interrupted" for job in returned):
                raise KeyboardInterrupt
