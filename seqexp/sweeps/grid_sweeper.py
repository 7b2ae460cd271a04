"""Hydra's basic sweeper, changed to compose each job once."""

import sys
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig

from seqexp.files import make_folder
from seqexp.quoting import param_overrides
from seqexp.sweeps.job import note_killed_jobs
from seqexp.sweeps.overrides import keep_quotes
from seqexp.tracking.sweep_folder import SweepFolder


class GridSweeper(BasicSweeper):
    """Run every combination of the swept values.

    Hydra composes all jobs before the first one to find mistakes, and composes each again at its launch.
    That takes longer than the training of short jobs, so the first result is kept.
    """

    __module__ = "hydra_plugins.seqexp"

    def setup(self, *, hydra_context: HydraContext, **more: Any) -> None:
        self._loader = _ComposedOnce(hydra_context.config_loader)
        loader: Any = self._loader
        super().setup(hydra_context=HydraContext(loader, hydra_context.callbacks), **more)

    def _parse_config(self) -> list[str]:
        return param_overrides(self.params)

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        return BasicSweeper.split_arguments(keep_quotes(overrides), max_batch_size)

    def validate_batch_is_legal(self, batch: Any) -> None:
        self._loader.keep = True
        super().validate_batch_is_legal(batch)
        self._loader.keep = False

    def sweep(self, arguments: list[str]) -> Any:
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        assert self.config is not None
        make_folder(Path(str(self.config.hydra.sweep.dir)))
        while True:
            try:
                return super().sweep(arguments)
            except TerminatedWorkerError:
                # Sweep again: finished jobs are found in the folder, the others are resumed.
                if not note_killed_jobs(SweepFolder(Path(str(self.config.hydra.sweep.dir)))):
                    raise
                print("a job's process was killed; continuing with the others", file=sys.stderr)
                self.batch_index = 0


class _ComposedOnce:
    """A configuration loader that keeps the configurations of validated jobs until their launch."""

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self.keep = False
        self._kept: dict[tuple[str, ...], list[DictConfig]] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        kept = self._kept.setdefault(tuple(sweep_overrides), [])
        if kept and not self.keep:
            return kept.pop()
        config = self._loader.load_sweep_config(master_config, sweep_overrides)
        if self.keep:
            kept.append(config)
        return config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __getstate__(self) -> dict[str, Any]:
        # Jobs in other processes compose their own configuration.
        return {"_loader": self._loader, "keep": False, "_kept": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
