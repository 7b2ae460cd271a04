"""The user's cache folder: what is in it may be deleted at any time."""

import os
from pathlib import Path

import platformdirs

from seqexp.errors import UserError
from seqexp.files import make_folder, user_path


def cache_dir(kind: str) -> Path:
    """`$SEQEXP_CACHE`, or the system's cache folder for seqexp; a folder in it, made if needed.

    Raises:
        UserError: it cannot be made.
    """
    root = os.environ.get("SEQEXP_CACHE") or platformdirs.user_cache_dir("seqexp")
    try:
        return make_folder(user_path(root) / kind)
    except UserError as error:
        raise UserError(f"cache: {error} Or set SEQEXP_CACHE to a folder that can be written.") from error
