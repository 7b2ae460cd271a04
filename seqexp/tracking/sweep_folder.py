"""The folder of a sweep: the run folders of its jobs, its command lines, and the ledger of its jobs."""

import json
import time
from pathlib import Path
from typing import Any

from seqexp.files import make_folder, read_json, read_json_lines, write_json
from seqexp.tracking.run_folder import RunFolder

# Optuna's study, in the folder of a search.
STUDY = "study.db"


class SweepFolder:
    """``outputs/sweeps/<name>/`` with ``<number>_<fingerprint>/`` per job, ``sweep.json``, ``jobs.jsonl``."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def name(self) -> str:
        return self.path.name

    def begin_call(
        self, command_line: str, method: str, launcher: str, jobs: int, swept: list[str], before: int = 0
    ) -> None:
        """Record in ``sweep.json`` that a command line starts `jobs` jobs, which differ in the keys `swept`.

        `before` is the number of jobs that were already done.
        """
        make_folder(self.path)
        about = self.about()
        call = {
            "command_line": command_line,
            "method": method,
            "launcher": launcher,
            "jobs": jobs,
            "swept": swept,
            "before": before,
            "started": time.time(),
            "ledger_lines": len(self.ledger()),
        }
        write_json(self.path / "sweep.json", {"calls": [*about["calls"], call]})

    def about(self) -> dict[str, Any]:
        """Return the content of ``sweep.json`` without malformed entries."""
        calls = read_json(self.path / "sweep.json").get("calls")
        calls = calls if isinstance(calls, list) else []
        return {"calls": [_clean_call(call) for call in calls if isinstance(call, dict)]}

    @property
    def call(self) -> dict[str, Any]:
        """The entry of the last command line."""
        calls: list[dict[str, Any]] = self.about()["calls"]
        return calls[-1] if calls else {}

    def swept_overrides(self, overrides: list[str]) -> list[str]:
        """Return those of a job's overrides in which the jobs of all command lines so far differ."""
        jobs = [_by_key(entry["words"]) for entry in self.ledger() if entry["words"]] + [_by_key(overrides)]
        keys = {key for job in jobs for key in job if not key.startswith(("sweep.", "hydra"))}
        differing = {key for key in keys if len({job.get(key) for job in jobs}) > 1}
        differing.update(self.call.get("swept", []))
        return [override for override in overrides if _key(override) in differing]

    def record(self, entry: dict[str, Any]) -> None:
        """Append a job's line to the ledger; parallel jobs may write at the same time."""
        with (self.path / "jobs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **entry}, ensure_ascii=False) + "\n")

    def ledger(self) -> list[dict[str, Any]]:
        """Return the recorded entries, oldest first, without malformed lines."""
        return [entry for entry in read_json_lines(self.path / "jobs.jsonl") if _is_entry(entry)]

    def this_call(self) -> list[dict[str, Any]]:
        """Return the entries since the last command line started."""
        return self.ledger()[self.call.get("ledger_lines", 0) :]

    def jobs(self) -> list[RunFolder]:
        """Return the folders of the jobs, sorted by number."""
        paths = self.path.glob("*_*")
        folders = [
            path for path in paths if _number(path) is not None and path.is_dir() and not path.is_symlink()
        ]
        return [RunFolder(path) for path in sorted(folders, key=lambda path: (_number(path), path.name))]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _by_key(overrides: list[str]) -> dict[str, str]:
    return {_key(override): override.partition("=")[2] for override in overrides}


def _clean_call(call: dict[str, Any]) -> dict[str, Any]:
    """Return the well-formed fields of an entry; the file is untrusted."""
    kinds = {
        "command_line": str, "method": str, "launcher": str, "jobs": int, "before": int, "ledger_lines": int,
        "started": float,
    }  # fmt: skip
    kept = {key: call[key] for key, kind in kinds.items() if type(call.get(key)) is kind}
    kept = {key: value for key, value in kept.items() if isinstance(value, str) or 0 <= value < 10**12}
    swept = call.get("swept")
    if isinstance(swept, list) and all(isinstance(key, str) for key in swept):
        kept["swept"] = swept
    return kept


def _is_entry(entry: dict[str, Any]) -> bool:
    overrides = entry.get("words")
    return (
        type(entry.get("job")) is int
        and isinstance(entry.get("status"), str)
        and isinstance(entry.get("run"), str | None)
        and isinstance(overrides, list)
        and all(isinstance(override, str) for override in overrides)
    )


def _number(path: Path) -> int | None:
    number = path.name.partition("_")[0]
    return int(number) if number.isascii() and number.isdigit() else None


def is_sweep(path: Path) -> bool:
    return (
        any((path / name).is_file() for name in ("sweep.json", STUDY)) or (path / "multirun.yaml").is_file()
    )
