"""Progress of a sweep: a line after each job, or a bar over parallel jobs."""

import math
import sys
import threading
import time
from typing import Any

from tqdm import tqdm

from seqexp.quoting import as_typed
from seqexp.tracking.sweep_folder import SweepFolder

DONE = ("finished", "pruned", "failed")


def best_jobs(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the ledger's entry with the best value, for each metric that jobs are monitored by."""
    last = {entry["run"]: entry for entry in entries if _is_number(entry.get("value"))}
    best: dict[str, dict[str, Any]] = {}
    for entry in last.values():
        metric = str(entry.get("metric"))
        higher = entry.get("mode") == "max"
        other = best.get(metric)
        if other is None or (entry["value"] > other["value"] if higher else entry["value"] < other["value"]):
            best[metric] = entry
    return best


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def job_label(sweep: SweepFolder, number: int, overrides: list[str]) -> str:
    """Return the overrides in which a job differs from the sweep's other jobs, or its number."""
    return " ".join(_rounded(as_typed(one)) for one in sweep.swept_overrides(overrides)) or f"job {number}"


def _rounded(override: str) -> str:
    """Shorten ``lr=0.013714285714285714``, as drawn by a search, to ``lr=0.01371``."""
    key, _, value = override.partition("=")
    try:
        return f"{key}={float(value):.4g}" if len(value) > 7 else override
    except ValueError:
        return override


def time_left(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def progress_line(sweep: SweepFolder) -> tuple[int, int, str]:
    """Return jobs done, jobs in total, and the rest of the line: failures, best so far, time left."""
    call, entries = sweep.call, sweep.this_call()
    total = call.get("jobs", 0)
    by_job = {entry["job"]: entry for entry in entries if entry["status"] in DONE}
    worked = [entry for entry in by_job.values() if not entry.get("before")]
    done = call.get("before", 0) + len(by_job)
    parts = []
    failed = sum(entry["status"] == "failed" for entry in by_job.values())
    pruned = sum(entry["status"] == "pruned" for entry in by_job.values())
    if failed or pruned:
        parts.append(", ".join(f"{n} {state}" for n, state in ((failed, "failed"), (pruned, "pruned")) if n))
    for metric, best in best_jobs(sweep.ledger()).items():
        label = job_label(sweep, best["job"], best["words"])
        parts.append(f"best {metric} {best['value']:.4g} ({label})")
    if worked and done < total:
        per_job = (time.time() - call["started"]) / len(worked)
        parts.append(f"about {time_left(per_job * (total - done))} left")
    return done, total, ", ".join(parts)


class SweepWatch:
    """Progress of parallel jobs: a bar on a terminal, elsewhere a line whenever a job has ended."""

    def __init__(self, sweep: SweepFolder) -> None:
        self._sweep = sweep
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        bar: Any = None
        shown = -1
        while True:
            over = self._over.wait(1.0)
            done, total, rest = progress_line(self._sweep)
            if sys.stderr.isatty():
                bar = bar or tqdm(total=total, unit="job", dynamic_ncols=True)
                bar.set_postfix_str(rest, refresh=False)
                bar.update(done - bar.n)
                bar.refresh()
            elif done > shown and done:
                print(
                    f"{self._sweep.name}: {done} of {total} jobs done{rest and ', '}{rest}", file=sys.stderr
                )
            shown = max(shown, done)
            if over:
                break
        if bar is not None:
            bar.close()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
