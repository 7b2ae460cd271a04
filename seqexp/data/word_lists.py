"""Lists that word vectors are judged by: analogies, and pairs of words with a similarity given by people."""

import math
from pathlib import Path

from seqexp.data.lines import read_text
from seqexp.data.sources import find_files, find_in_usual_places
from seqexp.errors import UserError
from seqexp.files import as_utf8

# Lines of a list, which may come from a stranger.
MOST_LINES = 2_000_000

Questions = list[tuple[str, str, str, str]]
Pairs = list[tuple[str, str, float]]


def _files(path: str | None, folder: str, key: str) -> list[Path]:
    if path is not None:
        return find_files(path, key)
    found = find_in_usual_places(folder)
    return found[0] if found else []


def _lines(file: Path) -> list[str]:
    lines = read_text(file).lines
    if len(lines) > MOST_LINES:
        raise UserError(f"{as_utf8(file)} has more than {MOST_LINES:,} lines, too many for a list.")
    return lines


def read_analogies(path: str | None) -> dict[str, Questions]:
    """Return the analogies of a file or of the usual places, by category, in order; empty if there are none.

    Each line has four words; a line ``: name`` begins a category.

    Raises:
        UserError: a line has another form; the message names it.
    """
    found: dict[str, Questions] = {}
    for file in _files(path, "analogies", "lists.analogies"):
        category = file.stem
        for number, line in enumerate(_lines(file), start=1):
            words = line.split()
            if words and words[0].startswith(":"):
                category = line.strip().lstrip(":").strip() or file.stem
            elif words:
                if len(words) != 4:
                    raise UserError(
                        f"{as_utf8(file)}, line {number}: expected four words (a is to b as c is to d), got "
                        f"{len(words)}."
                    )
                found.setdefault(category, []).append((words[0], words[1], words[2], words[3]))
    return found


def read_similarities(path: str | None) -> dict[str, Pairs]:
    """Return the lists of similarities by the names of their files; empty if there are none.

    Each line has two words and a score, with white space, commas or semicolons between them. A first line
    whose score is not a number is taken for the names of the columns.

    Raises:
        UserError: a line has another form; the message names it.
    """
    found: dict[str, Pairs] = {}
    for file in _files(path, "wordsim", "lists.similarities"):
        pairs: Pairs = []
        for number, line in enumerate(_lines(file), start=1):
            cells = line.replace(",", " ").replace(";", " ").split()
            if not cells or line.startswith("#"):
                continue
            score = _number(cells[2]) if len(cells) >= 3 else None
            if score is None and number == 1:
                continue
            if score is None:
                raise UserError(
                    f"{as_utf8(file)}, line {number}: expected two words and a score, got {line[:60]!r}."
                )
            pairs.append((cells[0], cells[1], score))
        if pairs:
            found[file.stem] = pairs
    return found


def read_outliers(path: str | None) -> dict[str, tuple[list[str], list[str]]]:
    """Return groups of words and the words that do not belong to them, by the names of their files.

    A file has the words of the group, one a line, an empty line, and the outliers (the form of the data set
    8-8-8 of Camacho-Collados & Navigli 2016). Empty if there are none.

    Raises:
        UserError: a file has another form.
    """
    found: dict[str, tuple[list[str], list[str]]] = {}
    for file in _files(path, "outliers", "lists.outliers"):
        lines = [line.strip() for line in _lines(file)]
        middle = lines.index("") if "" in lines else len(lines)
        group, outliers = lines[:middle], [line for line in lines[middle:] if line]
        if len(group) < 3 or not outliers:
            raise UserError(
                f"{as_utf8(file)}: expected at least three words of a group, one a line, an empty line, and "
                "words that do not belong to it."
            )
        found[file.stem] = (group, outliers)
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
