"""Files that are whole or not there."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


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


def write_json(target: Path, value: Any) -> None:
    """Readable JSON, atomically."""
    write_atomically(target, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one if the file is missing, half-written or something else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
