"""Paths as users type them, folders, and files that are written atomically."""

import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from seqexp.errors import UserError

# Largest file that a run writes, except checkpoints and logs.
MOST_BYTES = 20_000_000


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return the path that a user typed, with ``~`` and ``~name`` replaced by that user's home folder.

    As in a shell, ``~name`` stays as it is if there is no such user: ``~draft.txt`` is a file of this name.
    """
    return Path(os.path.expanduser(text))


def make_folder(path: Path) -> Path:
    """Create a folder with its parents, unless it exists; return it.

    Raises:
        UserError: the folder cannot be created; the message names the file or link that is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_make(path, error) from error
    return path


def cannot_make(path: Path, error: OSError) -> UserError:
    """Return the error for a folder that cannot be created: what is in the way, or the system's reason."""
    for parent in reversed((path, *path.parents)):
        if not os.path.lexists(parent) or parent.is_dir():
            continue
        if parent.is_symlink():
            return UserError(
                f"{path} cannot be made: {parent} is a link to {os.readlink(parent)}, which is not a folder; "
                "make that folder, or remove the link."
            )
        return UserError(f"{path} cannot be made: {parent} is a file; move it, or work in another folder.")
    return UserError(f"{path} cannot be made: {error.strerror}.")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file that is flushed to disk and renamed to `target` at the end.

    Readers see the complete file or none; if an exception is raised, `target` is unchanged.
    """
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_file(target: Path) -> Iterator[BinaryIO]:
    """Open a file for writing as `atomic_path` does."""
    with atomic_path(target) as path, path.open("wb") as file:
        yield file


def write_atomically(target: Path, data: bytes) -> None:
    """Write a file so that readers see all of it or none."""
    with atomic_file(target) as file:
        file.write(data)


def write_json(target: Path, value: Any) -> None:
    """Write indented JSON atomically; replace text that is not UTF-8 by U+FFFD."""
    write_atomically(target, (as_utf8(json.dumps(value, indent=2, ensure_ascii=False)) + "\n").encode())


def read_bounded(file: Path, limit: int = MOST_BYTES) -> bytes:
    """Return the bytes of an untrusted file, which must be a regular file of at most `limit` bytes.

    Raises:
        OSError: the file is missing, a link, a pipe, or too large.
    """
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as opened:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_size > limit:
            raise OSError(errno.EINVAL, f"not a regular file of at most {limit} bytes", str(file))
        return opened.read(about.st_size)


def _parse(data: bytes) -> Any:
    # Replace lone surrogates with U+FFFD; they cannot be encoded.
    return json.loads(re.sub(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}", rb"\\ufffd", data))


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one if the file is missing, incomplete or something else."""
    try:
        value = _parse(read_bounded(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_json_lines(file: Path, limit: int = MOST_BYTES) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file, without malformed lines such as an incomplete last one."""
    rows = []
    try:
        lines = read_bounded(file, limit).splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            row = _parse(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def number(value: Any) -> float | None:
    """Return the value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e300 else None


def as_utf8(path: str | os.PathLike[str]) -> str:
    """A path that can be written as UTF-8: bytes of its name that are not UTF-8 become U+FFFD.

    Python hands such bytes on as lone surrogates, which neither JSON nor a log can hold.
    """
    try:
        name = os.fspath(path).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        name = os.fspath(path).encode("utf-8", "replace")
    return name.decode("utf-8", "replace")
