"""One job of a sweep: its folder, and what remains to be done in it."""

import hashlib
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from seqexp.config.root import TrainConfig, to_plain
from seqexp.errors import RunFailedError, UserError
from seqexp.files import cannot_make, make_folder
from seqexp.tracking.catalog import flatten, read_flat_config
from seqexp.tracking.run_folder import RunFolder
from seqexp.tracking.sweep_folder import SweepFolder

# Number of times that a job's process may be killed before the job counts as failed.
MOST_KILLS = 2


@dataclass
class SweepJob:
    """A job in its own process; `threads` is its share of the cores if several jobs run in parallel."""

    sweep: SweepFolder
    number: int
    overrides: list[str]
    parallel: bool
    threads: int | None = None
    run: RunFolder | None = None  # set by `open`

    def open(self, config: TrainConfig) -> str:
        """Find or create the folder `run`; return what remains to be done there.

        ``new``; ``resume``: interrupted, with a checkpoint; ``again``: failed, or without a checkpoint (the
        caller clears the folder); ``finished``; or ``elsewhere``: another process works on it.

        Raises:
            RunFailedError: the job's process was killed several times during this command line.
        """
        self.run = find_job(self.sweep, self.number, config)
        if self.run and self._kills() >= MOST_KILLS:
            raise RunFailedError(f"its process was killed {MOST_KILLS} times (was there too little memory?).")
        if self.run is None:
            path = make_folder(self.sweep.path) / f"{self.number}_{config.fingerprint()}"
            try:
                path.mkdir()
            except FileExistsError as error:
                if not path.is_dir():
                    raise cannot_make(path, error) from error
                # Another process created it first.
                self.run = RunFolder(path)
                return "elsewhere"
            self.run = RunFolder(path)
            return "new"
        state = self.run.state()
        if state == "finished":
            return "finished"
        if state == "running" or self.run.is_owned():
            return "elsewhere"
        if state in ("interrupted", "killed") and self.run.has_checkpoint():
            return "resume"
        return "again"

    def _kills(self) -> int:
        """Return how often this job's process was killed during this command line."""
        assert self.run is not None
        entries = [entry for entry in self.sweep.this_call() if entry.get("run") == self.run.path.name]
        return sum(entry["status"] == "killed" for entry in entries)

    def fail(self, error: Exception) -> None:
        """Create a folder with the error, if the job failed before it had a folder."""
        if self.run is None:
            overrides = " ".join(self.overrides)
            name = f"{self.number}_{hashlib.sha256(overrides.encode()).hexdigest()[:10]}"
            self.run = RunFolder(self.sweep.path / name)
            make_folder(self.run.path)
            text = str(error) if isinstance(error, UserError) else traceback.format_exc()
            self.run.write_status("failed", error=text, words=self.overrides)

    def record(self, status: str, **more: Any) -> None:
        """Append this job's line to the sweep's ledger."""
        folder = self.run.path.name if self.run else None
        monitor = self.run.result().get("monitor") if self.run else None
        if isinstance(monitor, dict) and monitor.get("name") == more.get("metric"):
            more["mode"] = monitor.get("mode")
        entry = {"job": self.number, "words": self.overrides, "run": folder, "status": status}
        self.sweep.record({**entry, **more})


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_at_once(launcher: Mapping[str, Any]) -> int:
    """Return how many jobs a launcher with these settings runs in parallel on this machine."""
    jobs = int(launcher.get("n_jobs") or 1)
    return max(1, jobs if jobs > 0 else cores() + 1 + jobs)


def note_killed_jobs(sweep: SweepFolder) -> bool:
    """Record jobs that were killed during this command line in the ledger; return whether there were any.

    When one of several parallel processes is killed, joblib ends the others too. All of them are recorded;
    the job at fault is the one that is killed again.
    """
    begun = datetime.fromtimestamp(sweep.call.get("started", 0.0)).astimezone().isoformat()
    killed = [
        run
        for run in sweep.jobs()
        if run.state() == "killed" and run.read_status().get("updated", "") > begun
    ]
    for run in killed:
        number = run.manifest().get("sweep", {}).get("job", 0)
        sweep.record({"job": number, "words": [], "run": run.path.name, "status": "killed"})
    return bool(killed)


def find_job(sweep: SweepFolder, number: int, config: TrainConfig) -> RunFolder | None:
    """Return the folder of an earlier job with this configuration and any number, or None.

    The fingerprint excludes settings that do not decide the result, such as the precision. If the sweep
    varies such a setting, its value must be equal; otherwise a job with equal settings is preferred, then
    one with the same number.
    """
    ours = flatten(to_plain(config))
    varied = {name for key in sweep.call.get("swept", []) for name in (key, f"{key}.name") if name in ours}
    # The fingerprint has paths as typed, a saved configuration has absolute paths.
    varied = {name for name in varied if not name.endswith("path")}

    def mismatch(run: RunFolder) -> tuple[bool, bool]:
        other = read_flat_config(run)
        same = all(other.get(key) == ours[key] for key in ours if key.startswith(("device.", "generation.")))
        return not same, run.path.name.partition("_")[0] != str(number)

    def possible(run: RunFolder) -> bool:
        other = read_flat_config(run)
        return not other or all(other.get(key) == ours[key] for key in varied)

    paths = sorted(sweep.path.glob(f"*_{config.fingerprint()}"))
    runs = [RunFolder(path) for path in paths if path.is_dir()]  # excludes broken links
    return min(filter(possible, runs), key=mismatch, default=None)
