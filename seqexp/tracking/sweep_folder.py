"""The folder of a sweep: its jobs' run folders, what was asked for, and the ledger of what came of it."""

import json
import time
from pathlib import Path
from typing import Any

from seqexp.files import read_json, write_json
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
        self.path.mkdir(parents=True, exist_ok=True)
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
        write_json(self.path / "sweep.json", {"calls": [*about.get("calls", []), call]})

    def about(self) -> dict[str, Any]:
        about = read_json(self.path / "sweep.json")
        calls = about.get("calls")
        return about if isinstance(calls, list) and all(isinstance(call, dict) for call in calls) else {}

    @property
    def call(self) -> dict[str, Any]:
        """What the last command line asked for."""
        calls = self.about().get("calls", [])
        return calls[-1] if calls else {}

    def swept_words(self, words: list[str]) -> list[str]:
        """Of a job's words those in which the jobs differ."""
        swept = self.call.get("swept", [])
        return [word for word in words if word.partition("=")[0].lstrip("+") in swept]

    def record(self, entry: dict[str, Any]) -> None:
        """Add a job's line to the ledger; jobs side by side may write at once."""
        with (self.path / "jobs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **entry}, ensure_ascii=False) + "\n")

    def ledger(self) -> list[dict[str, Any]]:
        """What was recorded, oldest first; lines that cannot be read are left out."""
        entries = []
        try:
            text = (self.path / "jobs.jsonl").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return []
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("job"), int):
                entries.append(entry)
        return entries

    def this_call(self) -> list[dict[str, Any]]:
        """The ledger since the last command line began."""
        first = self.call.get("ledger_lines", 0)
        return self.ledger()[first if isinstance(first, int) else 0 :]

    def jobs(self) -> list[RunFolder]:
        """The folders of its jobs, by number."""
        folders = [path for path in self.path.glob("*_*") if path.is_dir() and _number(path) is not None]
        return [RunFolder(path) for path in sorted(folders, key=lambda path: (_number(path), path.name))]


def _number(path: Path) -> int | None:
    number = path.name.partition("_")[0]
    return int(number) if number.isascii() and number.isdigit() else None


def is_sweep(path: Path) -> bool:
    return (
        any((path / name).is_file() for name in ("sweep.json", STUDY)) or (path / "multirun.yaml").is_file()
    )
