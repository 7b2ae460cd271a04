"""A sweep as Hydra runs it: what is known before the jobs, around each of them, and after them."""

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
from seqexp.quoting import param_words
from seqexp.sweeps.job import SweepJob, cores, jobs_at_once
from seqexp.sweeps.progress import SweepWatch, progress_line, told
from seqexp.tracking.run_folder import command_line
from seqexp.tracking.sweep_folder import SweepFolder

# In a process that works through jobs beside others: Ctrl-C came, so begin no further one.
_stop = False


class SweepCallback(Callback):
    """Called by Hydra once, before the first job, in the process that was started; see conf/hydra/."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweep = SweepFolder(Path(str(config.hydra.sweep.dir)))
        try:
            make_folder(sweep.path)
        except UserError:
            return  # the sweeper raises it again; of a callback Hydra would make a warning
        launcher = config.hydra.runtime.choices["hydra/launcher"]
        if "params" in config.hydra.sweeper and config.get("sweep", {}).get("method", "grid") == "grid":
            # Of a search, the sweeper itself knows what is left to do.
            words = [*param_words(config.hydra.sweeper.params), *config.hydra.overrides.task]
            counts = _values_by_key(words)
            swept = [key for key, count in counts.items() if count > 1]
            if not math.prod(counts.values()):
                return  # an interval, which the sweeper will refuse
            sweep.begin_call(command_line(), "grid", launcher, math.prod(counts.values()), swept)
        Call.current = Call(sweep, watched=launcher != "basic")


def _values_by_key(words: list[str]) -> dict[str, int]:
    """How many values each key is swept over; 0 for an interval."""
    counts = {}  # what is typed comes after what an experiment says, and wins
    for override in OverridesParser.create().parse_overrides(words):
        swept, finite = override.is_sweep_override(), override.is_discrete_sweep()
        count = len(list(override.sweep_string_iterator())) if finite else int(not swept)
        counts[override.get_key_element()] = count
    return counts


class Call:
    """A command line's work on a sweep, in the process that was started."""

    current: "Call | None" = None

    def __init__(self, sweep: SweepFolder, watched: bool) -> None:
        self.sweep = sweep
        self.interrupted = False
        self._first = len(sweep.ledger())  # another terminal may begin a call on the same sweep meanwhile
        self._watch = SweepWatch(sweep) if watched else None
        self._handler = signal.signal(signal.SIGINT, self._ask) if watched else None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        """The jobs got the signal too: they save and come back."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("waiting for the running jobs to save; once more to leave at once", file=sys.stderr)

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
    """`work` for one job of a sweep, whose failure stops no other.

    Returns what Hydra hands to the sweeper: the job's values, ``failed``, ``pruned`` or ``interrupted``.
    """
    global _stop
    job = _this_job(cfg)
    if _stop:
        return "interrupted"
    started = time.perf_counter()
    try:
        with _quiet(job) if job.side_by_side else contextlib.nullcontext():
            returned = work(cfg, job)
        if command != "train":  # which records its jobs with their values
            job.record("finished", seconds=time.perf_counter() - started)
        return returned
    except KeyboardInterrupt:
        job.record("interrupted")
        if not job.side_by_side:
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
            f"seqexp {command}: job failed ({told(job.sweep, job.number, job.words)}): {error}",
            file=sys.stderr,
        )
        return "failed"
    finally:
        if not job.side_by_side:
            done, total, rest = progress_line(job.sweep)
            print(f"{job.sweep.name}: {done} of {total} jobs done{rest and ', '}{rest}", file=sys.stderr)


def _this_job(cfg: DictConfig) -> SweepJob:
    hydra = HydraConfig.get()
    beside = hydra.runtime.choices["hydra/launcher"] != "basic"
    trial = cfg.sweep.get("trial")
    at_once = jobs_at_once(hydra.launcher)
    return SweepJob(
        SweepFolder(Path(hydra.sweep.dir)),
        hydra.job.num if trial is None else trial,
        list(hydra.overrides.task),
        beside,
        max(1, cores() // at_once) if at_once > 1 else None,
    )


@contextlib.contextmanager
def _quiet(job: SweepJob) -> Iterator[None]:
    """What a job says goes to a file: lines of several jobs at once would be a muddle on a terminal."""
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
    """When all jobs are done: the failures, the exit code, what may be typed next.

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
    print(f"seqexp {command}: {len(failures)} jobs failed{again}:", file=sys.stderr)
    for entry in failures:
        words = told(call.sweep, entry["job"], entry["words"])
        folder = f" ({entry['run']})" if entry["run"] else ""
        print(f"  {words}: {entry['error'].splitlines()[0]}{folder}", file=sys.stderr)
    sys.exit(1)


def _shown(sweep: SweepFolder) -> str:
    path = sweep.path
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _draw(sweep: SweepFolder) -> None:
    """The curves of all jobs; the sweep is done, and stays so whatever happens here."""
    from seqexp.reports.figures import curves_figure, save_for_paper
    from seqexp.reports.frame import compare
    from seqexp.tracking.catalog import sweep_runs

    try:
        comparison = compare(sweep_runs(sweep))
        figure = curves_figure(comparison, comparison.monitor, comparison.settings, sweep.name)
        save_for_paper(figure, sweep.path / "compare" / "curves")
        print(f"curves of all jobs: {_shown(sweep)}/compare/curves.png", file=sys.stderr)
    except UserError:
        return  # nothing is finished
    except Exception as error:
        print(f"the curves of all jobs could not be drawn: {error!r}", file=sys.stderr)
