"""The folder of a sweep: its jobs' run folders, what was asked for, and the ledger of what came of it."""

import json
import time
from pathlib import Path
from typing import Any

from seqexp.files import make_folder, read_json, read_json_lines, write_json
from seqexp.tracking.run_folder import RunFolder

# Of a search: Optuna's study.
STUDY = "study.db"


class SweepFolder:
    """``outputs/sweeps/<name>/``: ``<number>_<fingerprint>/`` a job, ``sweep.json``, ``jobs.jsonl``."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def name(self) -> str:
        return self.path.name

    def begin_call(
        self, command_line: str, method: str, launcher: str, jobs: int, swept: list[str], before: int = 0
    ) -> None:
        """Note that a command line begins to work on `jobs` jobs, which differ in the keys `swept`.

        `before` of the jobs were done before.
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
        """What ``sweep.json`` says; calls that are not as we write them are left out."""
        calls = read_json(self.path / "sweep.json").get("calls")
        calls = calls if isinstance(calls, list) else []
        return {"calls": [_clean_call(call) for call in calls if isinstance(call, dict)]}

    @property
    def call(self) -> dict[str, Any]:
        """What the last command line asked for."""
        calls: list[dict[str, Any]] = self.about()["calls"]
        return calls[-1] if calls else {}

    def swept_words(self, words: list[str]) -> list[str]:
        """Of a job's overrides those in which the jobs differ, those of earlier command lines among them."""
        jobs = [_by_key(entry["words"]) for entry in self.ledger() if entry["words"]] + [_by_key(words)]
        keys = {key for job in jobs for key in job if not key.startswith(("sweep.", "hydra"))}
        differing = {key for key in keys if len({job.get(key) for job in jobs}) > 1}
        differing.update(self.call.get("swept", []))
        return [word for word in words if _key(word) in differing]

    def record(self, entry: dict[str, Any]) -> None:
        """Add a job's line to the ledger; jobs side by side may write at once."""
        with (self.path / "jobs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **entry}, ensure_ascii=False) + "\n")

    def ledger(self) -> list[dict[str, Any]]:
        """What was recorded, oldest first; lines that cannot be read are left out."""
        return [entry for entry in read_json_lines(self.path / "jobs.jsonl") if _is_entry(entry)]

    def this_call(self) -> list[dict[str, Any]]:
        """The ledger since the last command line began."""
        return self.ledger()[self.call.get("ledger_lines", 0) :]

    def jobs(self) -> list[RunFolder]:
        """The folders of its jobs, by number."""
        paths = self.path.glob("*_*")
        folders = [
            path for path in paths if _number(path) is not None and path.is_dir() and not path.is_symlink()
        ]
        return [RunFolder(path) for path in sorted(folders, key=lambda path: (_number(path), path.name))]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _by_key(words: list[str]) -> dict[str, str]:
    return {_key(word): word.partition("=")[2] for word in words}


def _clean_call(call: dict[str, Any]) -> dict[str, Any]:
    """Of a call in a file that may be a stranger's, what is as we write it."""
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
    words = entry.get("words")
    return (
        type(entry.get("job")) is int
        and isinstance(entry.get("status"), str)
        and isinstance(entry.get("run"), str | None)
        and isinstance(words, list)
        and all(isinstance(word, str) for word in words)
    )


def _number(path: Path) -> int | None:
    number = path.name.partition("_")[0]
    return int(number) if number.isascii() and number.isdigit() else None


def is_sweep(path: Path) -> bool:
    return (
        any((path / name).is_file() for name in ("sweep.json", STUDY)) or (path / "multirun.yaml").is_file()
    )
