"""One job of a sweep: which folder is its own, and what is left to do in it."""

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

# So many times a job whose process was killed is tried again, before it has failed.
MOST_KILLS = 2


@dataclass
class SweepJob:
    """A job as its own process sees it; `threads` is its share of the cores where jobs run side by side."""

    sweep: SweepFolder
    number: int
    words: list[str]
    side_by_side: bool
    threads: int | None = None
    run: RunFolder | None = None  # once it is found or made

    def open(self, config: TrainConfig) -> str:
        """Find or make `run`; says what is to be done there.

        ``new``, ``resume`` (it was interrupted and has a checkpoint), ``again`` (it failed, or came to no
        checkpoint: the caller clears it), ``finished`` or ``elsewhere`` (another process works on it).

        Raises:
            RunFailedError: its process was killed several times since the command line was typed.
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
                # Another process came first.
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
        """How often this job's process was killed since the command line was typed."""
        assert self.run is not None
        entries = [entry for entry in self.sweep.this_call() if entry.get("run") == self.run.path.name]
        return sum(entry["status"] == "killed" for entry in entries)

    def fail(self, error: Exception) -> None:
        """Leave the error in the job's folder; one that failed before it had a folder gets one."""
        if self.run is None:
            words = " ".join(self.words)
            name = f"{self.number}_{hashlib.sha256(words.encode()).hexdigest()[:10]}"
            self.run = RunFolder(self.sweep.path / name)
            make_folder(self.run.path)
            text = str(error) if isinstance(error, UserError) else traceback.format_exc()
            self.run.write_status("failed", error=text, words=self.words)

    def record(self, status: str, **more: Any) -> None:
        """This job's line in the sweep's ledger."""
        folder = self.run.path.name if self.run else None
        monitor = self.run.result().get("monitor") if self.run else None
        if isinstance(monitor, dict) and monitor.get("name") == more.get("metric"):
            more["mode"] = monitor.get("mode")  # whether more or less of it is better
        self.sweep.record({"job": self.number, "words": self.words, "run": folder, "status": status, **more})


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_at_once(launcher: Mapping[str, Any]) -> int:
    """How many jobs a launcher with these settings runs side by side on this machine."""
    jobs = int(launcher.get("n_jobs") or 1)
    return max(1, jobs if jobs > 0 else cores() + 1 + jobs)


def note_killed_jobs(sweep: SweepFolder) -> bool:
    """Write jobs that were killed since the command line was typed into the ledger; whether there were any.

    When one process of several side by side is killed, joblib ends the others too: who is to blame shows
    when it happens again.
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
    """The folder of an earlier job with this configuration, whatever number it had then.

    The fingerprint leaves out what does not decide the result, such as the precision. Where a sweep varies
    that, the job must have the same value; else one with the very same settings comes first, then the one
    with the same number.
    """
    ours = flatten(to_plain(config))
    varied = {name for key in sweep.call.get("swept", []) for name in (key, f"{key}.name") if name in ours}
    # Files are part of the fingerprint as typed; a saved configuration has their absolute paths.
    varied = {name for name in varied if not name.endswith("path")}

    def strangeness(run: RunFolder) -> tuple[bool, bool]:
        other = read_flat_config(run)
        same = all(other.get(key) == ours[key] for key in ours if key.startswith(("device.", "generation.")))
        return not same, run.path.name.partition("_")[0] != str(number)

    def possible(run: RunFolder) -> bool:
        other = read_flat_config(run)
        return not other or all(other.get(key) == ours[key] for key in varied)

    paths = sorted(sweep.path.glob(f"*_{config.fingerprint()}"))
    runs = [RunFolder(path) for path in paths if path.is_dir()]  # a link may lead nowhere
    return min(filter(possible, runs), key=strangeness, default=None)
