"""The folder of a run: where it is made, what lies in it, and how it is found again."""

import logging
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from seqexp.config.root import SCHEMA_VERSION, TrainConfig, from_plain
from seqexp.errors import UserError
from seqexp.files import read_json, write_atomically, write_json

OUTPUTS = Path("outputs")
# Norms over time within a sequence, a row a validation; beside metrics.jsonl.
GRADIENT_FLOW = "gradient_flow.jsonl"


class RunFolder:
    """``outputs/<command>/<name>/<time>/`` or, in a sweep, ``outputs/sweeps/<sweep>/<job>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @classmethod
    def create(cls, command: str, name: str, sweep_job: tuple[str, str] | None = None) -> "RunFolder":
        """A new folder that no other run has; `sweep_job` is (sweep name, job name)."""
        while True:
            now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
            path = OUTPUTS / command / name / now
            if sweep_job:
                path = OUTPUTS / "sweeps" / sweep_job[0] / sweep_job[1]
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if sweep_job:
                    raise UserError(f"{path} is there already; choose another sweep.name.") from None
                continue
            except OSError as error:
                raise UserError(f"{path} cannot be made: {error.strerror}.") from error
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

    def subfolder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder

    def write_config(self, config: dict[str, Any]) -> None:
        values = {"schema_version": SCHEMA_VERSION, **config}
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_atomically(self.config_file, text.encode())

    def read_config(self) -> TrainConfig:
        """The training configuration of this run, checked as if it were typed.

        Raises:
            UserError: it is not there or cannot be read.
        """
        try:
            values = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{self.config_file} cannot be read ({error}).") from error
        return from_plain(values, str(self.config_file))

    def manifest(self) -> dict[str, Any]:
        return read_json(self.path / "manifest.json")

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_json(self.path / "manifest.json", manifest)

    def read_status(self) -> dict[str, Any]:
        return read_json(self.path / "status.json")

    def restore_status(self, status: dict[str, Any]) -> None:
        """Put back what `read_status` gave."""
        write_json(self.path / "status.json", status)

    def write_status(self, status: str, **more: Any) -> None:
        """`status` is running, finished, failed or interrupted."""
        before = self.read_status()
        now = datetime.now().astimezone().isoformat(timespec="microseconds")
        values = {"status": status, "started": before.get("started", now), "updated": now, **more}
        write_json(self.path / "status.json", values)

    def write_result(self, result: dict[str, Any]) -> None:
        write_json(self.path / "result.json", result)

    def log_to_file(self, command: str) -> logging.Handler:
        """Copy what is logged to ``<command>.log``; the caller removes the handler at the end."""
        handler = logging.FileHandler(self.path / f"{command}.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        return handler


def _is_training_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and (path / "checkpoints" / "index.json").is_file()


def _started(path: Path) -> str:
    return str(read_json(path / "status.json").get("started", ""))


def find_run(run: str, key: str = "run") -> RunFolder:
    """The training run that `run` names: a folder, or ``latest``.

    Raises:
        UserError: there is none, or the folder is no training run with a checkpoint.
    """
    if run == "latest":
        folders = [*OUTPUTS.glob("train/*/*"), *OUTPUTS.glob("sweeps/*/*")]
        runs = [folder for folder in folders if _is_training_run(folder)]
        if not runs:
            raise UserError(
                f"{key}=latest: there is no training run with a checkpoint under {OUTPUTS.absolute()}. "
                "Train one with `seqexp train`, or go to the folder where you did."
            )
        return RunFolder(max(runs, key=_started))
    path = Path(run).expanduser()
    if not path.is_dir():
        raise UserError(f"{key}={run}: there is no such folder. Give a run's folder, or {key}=latest.")
    if not _is_training_run(path):
        raise UserError(
            f"{key}={run} is no training run: a folder with config.yaml and checkpoints/ is needed, such "
            "as outputs/train/<name>/<time>."
        )
    return RunFolder(path)


def command_line() -> str:
    """The words that were typed, as one line."""
    words = [*sys.argv[0].split(), *sys.argv[1:]]
    return " ".join(word if re.fullmatch(r"[\w./=,:+@%-]+", word) else repr(word) for word in words)
