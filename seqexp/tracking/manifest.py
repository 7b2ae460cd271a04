"""What one must know to trust a number: command, versions, machine, corpus."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from seqexp.tracking.run_folder import command_line

PACKAGES = ("seqexp", "torch", "numpy", "hydra-core", "omegaconf", "tensorboard")


def environment() -> dict[str, Any]:
    """Versions, the machine, the git commit of a clone, and the command line."""
    return {
        "command_line": command_line(),
        "folder": os.getcwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "git_commit": _git_commit(),
        "argv": sys.argv[1:],
    }


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@cache  # a sweep's jobs are of one commit, and asking git takes longer than some of them
def _git_commit() -> str | None:
    """The commit of the clone that this package runs from, with ``-dirty`` if it was changed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip()
