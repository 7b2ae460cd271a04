"""The environment of a run, for its manifest: command line, versions, machine."""

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
    """Return versions, platform, git commit (of a clone) and command line."""
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


@cache  # calling git takes longer than some jobs of a sweep
def _git_commit() -> str | None:
    """Return the commit of the clone that contains this package, with ``-dirty`` if it has changes."""
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
