"""The user's cache folder: what is in it may be deleted at any time."""

import os
import tempfile
from pathlib import Path

import platformdirs

from seqexp.errors import UserError


def cache_dir(kind: str) -> Path:
    """`$SEQEXP_CACHE`, or the system's cache folder for seqexp; a folder in it, made if needed.

    Raises:
        UserError: it cannot be made.
    """
    root = os.environ.get("SEQEXP_CACHE") or platformdirs.user_cache_dir("seqexp")
    folder = Path(root).expanduser() / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache folder {folder} cannot be made ({error.strerror}); set SEQEXP_CACHE to a folder "
            "that can be written."
        ) from error
    return folder


def write_atomically(target: Path, data: bytes) -> None:
    """Write beside, flush to disk, rename: a reader sees the whole file or none."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
