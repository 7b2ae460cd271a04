"""The folder of a run: how it is created, what it contains, and how it is found."""

import logging
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from seqexp.config.root import SCHEMA_VERSION, TrainConfig, from_plain
from seqexp.errors import UserError
from seqexp.files import (
    cannot_make,
    make_folder,
    number,
    read_bounded,
    read_json,
    read_json_lines,
    user_path,
    write_atomically,
    write_json,
)
from seqexp.quoting import as_typed

OUTPUTS = Path("outputs")
# Gradient norms per time step, one row per validation; beside metrics.jsonl.
GRADIENT_FLOW = "gradient_flow.jsonl"
# Held by the process that trains in the folder.
LOCK = ".lock"


class RunFolder:
    """``outputs/<command>/<name>/<time>/`` or, in a sweep, ``outputs/sweeps/<sweep>/<job>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @classmethod
    def create(cls, command: str, name: str) -> "RunFolder":
        """Create a new folder, named after the current time.

        Raises:
            UserError: the folder cannot be created.
        """
        parent = make_folder(OUTPUTS / command / name)
        while True:
            path = parent / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
            try:
                path.mkdir()
            except FileExistsError:  # another run started in this microsecond
                continue
            except OSError as error:
                raise cannot_make(path, error) from error
            return cls(path)

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def gradient_flow_file(self) -> Path:
        return self.path / GRADIENT_FLOW

    def has_checkpoint(self) -> bool:
        """Return whether this is a training run that eval, generate and resume can load."""
        return self.config_file.is_file() and (self.checkpoints / "index.json").is_file()

    def subfolder(self, name: str) -> Path:
        return make_folder(self.path / name)

    def write_config(self, config: dict[str, Any]) -> None:
        values = {"schema_version": SCHEMA_VERSION, **config}
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_atomically(self.config_file, text.encode())

    def read_config(self) -> TrainConfig:
        """Return the training configuration of this run, checked as if it were typed.

        Raises:
            UserError: the file is missing or cannot be read.
        """
        try:
            values = yaml.safe_load(read_bounded(self.config_file).decode())
        except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"{self.config_file} cannot be read ({error}).") from error
        return from_plain(values, str(self.config_file))

    def manifest(self) -> dict[str, Any]:
        """Return ``manifest.json`` without entries of the wrong type; empty if it is missing."""
        kinds = {"corpus": dict, "resumed": list}
        found = read_json(self.path / "manifest.json")
        return {key: value for key, value in found.items() if isinstance(value, kinds.get(key, object))}

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_json(self.path / "manifest.json", manifest)

    def read_status(self) -> dict[str, Any]:
        return read_json(self.path / "status.json")

    def restore_status(self, status: dict[str, Any]) -> None:
        """Write a status that `read_status` returned."""
        write_json(self.path / "status.json", status)

    def write_status(self, status: str, **more: Any) -> None:
        """Write `status`, which is running, finished, failed or interrupted."""
        before = self.read_status()
        now = datetime.now().astimezone().isoformat(timespec="microseconds")
        values = {"status": status, "started": before.get("started", now), "updated": now, **more}
        values |= {"host": platform.node(), "process": os.getpid()}
        write_json(self.path / "status.json", values)

    def state(self) -> str:
        """Return the status: running, finished, failed, interrupted, killed, damaged or empty.

        ``killed`` means that the status is running, but its process is gone.
        """
        file = self.path / "status.json"
        if not file.exists():
            # The process ended while it created the folder, or is creating it now.
            return "running" if self.is_owned() else "empty"
        status = str(self.read_status().get("status"))
        if status not in ("running", "finished", "failed", "interrupted"):
            return "damaged"
        if status == "running":
            return "running" if self.is_owned() else "killed"
        if status == "finished" and not self.config_file.is_file():
            return "damaged"
        return str(status)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Return a context that locks the folder against other processes; a lock ends with its process.

        Raises:
            UserError: another process has locked it.
        """
        lock = FileLock(self.path / LOCK, timeout=0)
        try:
            with lock:
                yield
        except Timeout:
            status = self.read_status()
            who = f"process {status['process']} on {status['host']}" if "process" in status else "a process"
            raise UserError(f"{self.path} is in use by {who}; wait for it, or stop it.") from None

    def is_owned(self) -> bool:
        """Return whether a process has locked this folder."""
        if not (self.path / LOCK).exists():
            return False
        try:
            with FileLock(self.path / LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # another user's folder: rely on its status
            return True

    def clear(self) -> None:
        """Remove the files of an earlier attempt; the caller must hold the lock."""
        for entry in self.path.iterdir():
            if entry.name == LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def result(self) -> dict[str, Any]:
        """Return ``result.json``; empty if it is missing."""
        return read_json(self.path / "result.json")

    def write_result(self, result: dict[str, Any]) -> None:
        write_json(self.path / "result.json", result)

    def log_to_file(self, command: str) -> logging.Handler:
        """Copy log messages to ``<command>.log``; the caller removes the returned handler."""
        handler = logging.FileHandler(self.path / f"{command}.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        return handler


def _started(path: Path) -> str:
    return str(read_json(path / "status.json").get("started", ""))


def find_run(
    run: str, key: str = "run", fits: Callable[[RunFolder], bool] | None = None, kind: str = "training run"
) -> RunFolder:
    """Return the training run that `run` names: a folder, or ``latest``.

    The latest is the one that started last of those that fit, which a message calls `kind`.

    Raises:
        UserError: the folder does not exist, or is not a training run with a checkpoint.
    """
    if run == "latest":
        folders = [*OUTPUTS.glob("train/*/*"), *OUTPUTS.glob("sweeps/*/*")]
        runs = [folder for folder in folders if RunFolder(folder).has_checkpoint()]
        runs = [folder for folder in runs if fits is None or fits(RunFolder(folder))]
        if not runs:
            raise UserError(
                f"{key}=latest: there is no {kind} with a checkpoint under {OUTPUTS.absolute()}. "
                "Train one with `seqexp train`, or go to the folder where you did."
            )
        return RunFolder(max(runs, key=_started))
    path = user_path(run)
    if not path.is_dir():
        raise UserError(f"{key}={run}: there is no such folder. Give a run's folder, or {key}=latest.")
    if not RunFolder(path).has_checkpoint():
        raise UserError(
            f"{key}={run} is not a training run; give a folder with config.yaml and checkpoints/, such as "
            "outputs/train/<name>/<time>."
        )
    return RunFolder(path)


# Limit for files with a row per step, in bytes; a million rows are 250 MB.
MOST_METRICS = 1_000_000_000


def read_metrics(jsonl: Path) -> list[dict[str, Any]]:
    """Return the rows of a ``metrics.jsonl``, without an incomplete last line."""
    rows = read_json_lines(jsonl, MOST_METRICS)
    return [row for row in rows if type(row.get("step")) is int and abs(row["step"]) < 2**53]


def read_numbers(jsonl: Path) -> list[dict[str, float]]:
    """Return the rows of an untrusted ``metrics.jsonl``, with finite numbers only."""
    rows = []
    for row in read_metrics(jsonl):
        numbers = {key: number(value) for key, value in row.items()}
        rows.append({key: value for key, value in numbers.items() if value is not None})
    return rows


_typed: list[str] = []


def remember_command_line() -> None:
    """Keep the command line as typed, before overrides are changed for Hydra."""
    _typed[:] = sys.argv


def command_line() -> str:
    """Return the command line as typed, quoted for a shell."""
    command, *arguments = _typed or sys.argv
    return " ".join([*command.split(), *(shlex.quote(as_typed(argument)) for argument in arguments)])
