"""One job of a sweep: which folder is its own, and what is left to do in it."""

import hashlib
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seqexp.config.root import TrainConfig, to_plain
from seqexp.errors import RunFailedError, UserError
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
        kills = [entry for entry in self.sweep.this_call() if entry["job"] == self.number]
        if sum(entry["status"] == "killed" for entry in kills) >= MOST_KILLS:
            raise RunFailedError(f"its process was killed {MOST_KILLS} times (was there too little memory?).")
        self.run = find_job(self.sweep, self.number, config)
        if self.run is None:
            path = self.sweep.path / f"{self.number}_{config.fingerprint()}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:  # another process came first
                self.run = RunFolder(path)
                return "elsewhere"
            self.run = RunFolder(path)
            return "new"
        state = self.run.state()
        if state == "finished":
            return "finished"
        if state == "running":
            return "elsewhere"
        if state in ("interrupted", "killed") and self.run.has_checkpoint():
            return "resume"
        return "again"

    def fail(self, error: Exception) -> None:
        """Leave the error in the job's folder; one that failed before it had a folder gets one."""
        if self.run is None:
            words = " ".join(self.words)
            name = f"{self.number}_{hashlib.sha256(words.encode()).hexdigest()[:10]}"
            self.run = RunFolder(self.sweep.path / name)
            self.run.path.mkdir(parents=True, exist_ok=True)
            text = str(error) if isinstance(error, UserError) else traceback.format_exc()
            self.run.write_status("failed", error=text, words=self.words)

    def record(self, status: str, **more: Any) -> None:
        """This job's line in the sweep's ledger."""
        folder = self.run.path.name if self.run else None
        self.sweep.record({"job": self.number, "words": self.words, "run": folder, "status": status, **more})


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_at_once(launcher: Mapping[str, Any]) -> int:
    """How many jobs a launcher with these settings runs side by side on this machine."""
    jobs = int(launcher.get("n_jobs") or 1)
    return max(1, jobs if jobs > 0 else cores() + 1 + jobs)


def note_killed_jobs(sweep: SweepFolder) -> list[int]:
    """Write the jobs whose process is gone into the ledger; returns their numbers.

    When one process of several side by side is killed, joblib ends the others too: who is to blame shows
    when it happens again.
    """
    killed = [run for run in sweep.jobs() if run.state() == "killed"]
    numbers = [int(run.path.name.partition("_")[0]) for run in killed]
    for number, run in zip(numbers, killed, strict=True):
        sweep.record({"job": number, "words": [], "run": run.path.name, "status": "killed"})
    return numbers


def find_job(sweep: SweepFolder, number: int, config: TrainConfig) -> RunFolder | None:
    """The folder of an earlier job with this configuration, whatever number it had then.

    The fingerprint leaves out what does not decide the result, such as the precision; where a sweep varies
    that, the job with the very same settings comes first, then the one with the same number.
    """
    candidates = [RunFolder(path) for path in sorted(sweep.path.glob(f"*_{config.fingerprint()}"))]

    def strangeness(run: RunFolder) -> tuple[bool, bool]:
        try:
            other = run.read_config()
        except UserError:
            other = None
        same = other is not None and _settings(other) == _settings(config)
        return not same, run.path.name.partition("_")[0] != str(number)

    return min(candidates, key=strangeness, default=None)


def _settings(config: TrainConfig) -> dict[str, Any]:
    plain = to_plain(config)
    return {key: plain[key] for key in ("device", "generation", "trainer")}
