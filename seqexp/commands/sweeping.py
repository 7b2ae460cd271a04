"""Run a sweep under Hydra: work before its jobs, around each job, and after them."""

import contextlib
import logging
import math
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from seqexp.errors import RunFailedError, UserError
from seqexp.files import make_folder
from seqexp.quoting import counted, param_overrides
from seqexp.sweeps.job import SweepJob, cores, jobs_at_once
from seqexp.sweeps.progress import SweepWatch, job_label, progress_line
from seqexp.tracking.run_folder import command_line
from seqexp.tracking.sweep_folder import SweepFolder

# In a process with parallel jobs: set after Ctrl-C, so that no further job is started.
_stop = False


class SweepCallback(Callback):
    """Called by Hydra once, before the first job, in the main process; see conf/hydra/."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweep = SweepFolder(Path(str(config.hydra.sweep.dir)))
        try:
            make_folder(sweep.path)
        except UserError:
            return  # the sweeper raises it again; Hydra turns an exception in a callback into a warning
        launcher = config.hydra.runtime.choices["hydra/launcher"]
        if "params" in config.hydra.sweeper and config.get("sweep", {}).get("method", "grid") == "grid":
            # For a search, the sweeper itself computes the number of remaining jobs.
            overrides = [*param_overrides(config.hydra.sweeper.params), *config.hydra.overrides.task]
            counts = _values_by_key(overrides)
            swept = [key for key, count in counts.items() if count > 1]
            if not math.prod(counts.values()):
                return  # an interval, which the sweeper rejects
            sweep.begin_call(command_line(), "grid", launcher, math.prod(counts.values()), swept)
        Call.current = Call(sweep, watched=launcher != "basic")


def _values_by_key(overrides: list[str]) -> dict[str, int]:
    """Return the number of values of each key; 0 for an interval."""
    counts = {}  # typed overrides come after those of an experiment, and win
    for override in OverridesParser.create().parse_overrides(overrides):
        swept, finite = override.is_sweep_override(), override.is_discrete_sweep()
        count = len(list(override.sweep_string_iterator())) if finite else int(not swept)
        counts[override.get_key_element()] = count
    return counts


class Call:
    """A command line's work on a sweep, in the main process."""

    current: "Call | None" = None

    def __init__(self, sweep: SweepFolder, watched: bool) -> None:
        self.sweep = sweep
        self.interrupted = False
        self._first = len(sweep.ledger())  # another terminal may start a call on the same sweep later
        self._watch = SweepWatch(sweep) if watched else None
        self._handler = signal.signal(signal.SIGINT, self._on_signal) if watched else None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Wait for the jobs, which receive the signal too, save and return."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("waiting for the running jobs to save; press Ctrl-C again to exit at once", file=sys.stderr)

    def close(self) -> None:
        if self._watch:
            self._watch.close()
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        Call.current = None

    def failures(self) -> list[dict[str, Any]]:
        last = {entry["job"]: entry for entry in self.sweep.ledger()[self._first :]}
        return [entry for entry in last.values() if entry["status"] == "failed"]


def run_sweep_job(cfg: DictConfig, work: Callable[[DictConfig, SweepJob], Any], command: str) -> Any:
    """Call `work` for one job of a sweep; its failure does not stop the other jobs.

    Returns the job's values, ``failed``, ``pruned`` or ``interrupted``, which Hydra passes to the sweeper.
    """
    global _stop
    job = _this_job(cfg)
    if _stop:
        return "interrupted"
    started = time.perf_counter()
    try:
        with _quiet(job) if job.parallel else contextlib.nullcontext():
            returned = work(cfg, job)
        if command != "train":  # train records its jobs with their values
            job.record("finished", seconds=time.perf_counter() - started)
        return returned
    except KeyboardInterrupt:
        job.record("interrupted")
        if not job.parallel:
            raise
        _stop = True
        return "interrupted"
    except Exception as error:
        if command == "train":
            job.fail(error)
        job.record("failed", error=str(error)[:2000], seconds=time.perf_counter() - started)
        if not isinstance(error, UserError | RunFailedError):
            traceback.print_exception(error)
        print(
            f"seqexp {command}: job failed ({job_label(job.sweep, job.number, job.overrides)}): {error}",
            file=sys.stderr,
        )
        return "failed"
    finally:
        if not job.parallel:
            done, total, rest = progress_line(job.sweep)
            print(f"{job.sweep.name}: {done} of {total} jobs done{rest and ', '}{rest}", file=sys.stderr)


def _this_job(cfg: DictConfig) -> SweepJob:
    hydra = HydraConfig.get()
    parallel = hydra.runtime.choices["hydra/launcher"] != "basic"
    trial = cfg.sweep.get("trial")
    at_once = jobs_at_once(hydra.launcher)
    return SweepJob(
        SweepFolder(Path(hydra.sweep.dir)),
        hydra.job.num if trial is None else trial,
        list(hydra.overrides.task),
        parallel,
        max(1, cores() // at_once) if at_once > 1 else None,
    )


@contextlib.contextmanager
def _quiet(job: SweepJob) -> Iterator[None]:
    """Redirect a job's messages to a file, because lines of parallel jobs would mix on a terminal."""
    folder = make_folder(job.sweep.path / "logs")
    with (folder / f"{job.number}.log").open("a", encoding="utf-8") as file:
        consoles = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]
        before = [handler.setStream(file) for handler in consoles]
        try:
            with contextlib.redirect_stderr(file):
                yield
        finally:
            for handler, stream in zip(consoles, before, strict=True):
                if stream is not None:
                    handler.setStream(stream)


def end_sweep(command: str) -> None:
    """After all jobs, print the failures and the next commands.

    Raises:
        SystemExit: a job failed.
        KeyboardInterrupt: the sweep was interrupted.
    """
    call = Call.current
    if call is None:
        return
    if call.interrupted:
        raise KeyboardInterrupt
    call.close()
    if command == "train":
        _draw(call.sweep)
        print(
            f"next    seqexp compare {_shown(call.sweep)}   or   seqexp report {_shown(call.sweep)}",
            file=sys.stderr,
        )
    failures = call.failures()
    if not failures:
        return
    again = "; the same line again runs only these" if command == "train" else ""
    print(f"seqexp {command}: {counted(len(failures), 'job')} failed{again}:", file=sys.stderr)
    for entry in failures:
        label = job_label(call.sweep, entry["job"], entry["words"])
        folder = f" ({entry['run']})" if entry["run"] else ""
        print(f"  {label}: {entry['error'].splitlines()[0]}{folder}", file=sys.stderr)
    sys.exit(1)


def _shown(sweep: SweepFolder) -> str:
    path = sweep.path
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _draw(sweep: SweepFolder) -> None:
    """Draw the curves of all jobs; print a failure, because the sweep itself is finished."""
    from seqexp.reports.figures import curves_figure, save_for_paper
    from seqexp.reports.frame import compare
    from seqexp.tracking.catalog import sweep_runs

    try:
        comparison = compare(sweep_runs(sweep))
        figure = curves_figure(comparison, comparison.monitor, comparison.settings, sweep.name)
        save_for_paper(figure, sweep.path / "compare" / "curves")
        print(f"curves of all jobs: {_shown(sweep)}/compare/curves.png", file=sys.stderr)
    except UserError:
        return  # no job is finished
    except Exception as error:
        print(f"the curves of all jobs could not be drawn: {error!r}", file=sys.stderr)
