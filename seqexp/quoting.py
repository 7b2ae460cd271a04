"""Quote overrides whose values are text or paths, so that Hydra and OmegaConf keep every character."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

# Values of these keys are text, in which commas, brackets, colons and '=' have no special meaning.
LITERAL_KEYS = {"prompt", "text", "stop", "label_separator", "label_until"}
# The same, except that an unquoted null means "not given", and a comma separates values in a sweep.
PATH_KEYS = {
    "input", "output", "path", "source_path", "target_path", "val_path", "test_path", "val_source_path",
    "val_target_path", "test_source_path", "test_target_path", "init_from", "name", "run", "resume",
    "attention", "picture", "label_path", "val_label_path", "test_label_path", "vectors", "vector_words",
    "words_path",
}  # fmt: skip
# Values of these keys are mappings with arbitrary keys, which Hydra accepts only with ++.
MAPPING_KEYS = {"lr_scale"}
# One value of a sweep over paths, and the comma or the end after it.
_VALUE = re.compile(r"""(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<plain>(?:\\,|[^,])*))(?P<end>,|$)""")


def escape_interpolation(value: str) -> str:
    """Escape ``${...}`` for OmegaConf: double the backslashes before it, and add one."""
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)


def quote(value: str) -> str:
    """Return a string in Hydra's single quotes, with backslashes before a quote or the end doubled."""
    value = escape_interpolation(value)
    value = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"'{value}'"


def printable(text: str) -> str:
    """Replace unprintable characters, such as control characters and line breaks, by their escapes."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def unquote(quoted: str) -> str:
    """Return the string that `quote` was given."""
    value = re.sub(r"(\\+)('|$)", lambda m: "\\" * (len(m[1]) // 2) + m[2], quoted[1:-1])
    return re.sub(r"(\\+)\$\{", lambda m: "\\" * (len(m[1]) // 2) + "${", value)


def is_quoted(value: str) -> bool:
    return len(value) > 1 and value.startswith("'") and value.endswith("'")


def split_values(value: str) -> list[str]:
    r"""Split the paths of a sweep at commas.

    A comma after a backslash (``a\,b.txt``), or in a value in quotes (``'a,b.txt'``), is part of the value.
    """
    values, position = [], 0
    while True:
        found = _VALUE.match(value, position)
        assert found is not None  # the plain form matches everything
        quoted = found["single"] if found["single"] is not None else found["double"]
        values.append(found["plain"].replace("\\,", ",") if quoted is None else quoted)
        if not found["end"]:
            return values
        position = found.end()


def quote_free_text(override: str, sweep: bool = False) -> str:
    """Quote the value of an override if its key takes text or a path; return other overrides unchanged.

    In a `sweep`, ``data.path=a.txt,b.txt`` becomes a choice of two, and a ``choice(...)`` stays one.
    """
    match = re.match(r"(\+{0,2}(?:[\w/]+\.)*(\w+))=(.*)", override, re.DOTALL)
    if match and match[2] in MAPPING_KEYS and not override.startswith("+"):
        return f"++{override}"
    if not match or match[2] not in LITERAL_KEYS | PATH_KEYS:
        return override
    key, leaf, value = match.groups()
    if leaf in PATH_KEYS and value == "null":
        return override
    if sweep and value.startswith("choice(") and value.endswith(")"):
        return override
    if sweep and leaf in PATH_KEYS and key.lstrip("+") != "sweep.name":
        values = split_values(value)
        return f"{key}={as_choice(values) if len(values) > 1 else quote(values[0])}"
    return f"{key}={quote(value)}"


def counted(number: int, noun: str) -> str:
    """Return ``1 line``, ``2 lines``, ``1,000 lines``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def as_choice(values: Iterable[str]) -> str:
    """Return Hydra's sweep over these strings; `seqexp.sweeps.overrides` keeps them quoted."""
    return f"choice({','.join(map(quote, values))})"


def as_typed(override: str) -> str:
    """Return the override that `quote_free_text` was given, up to the way in which commas are escaped."""
    key, equals, value = override.partition("=")
    if equals and is_quoted(value):
        return f"{key}={unquote(value)}"
    if key.rpartition(".")[2].lstrip("+") in PATH_KEYS and re.fullmatch(r"choice\('.*'\)", value, re.DOTALL):
        values = map(unquote, re.findall(r"'(?:[^'\\]|\\.)*'", value, re.DOTALL))
        return f"{key}={','.join(value.replace(',', chr(92) + ',') for value in values)}"
    return override


def param_overrides(params: Mapping[str, Any] | None) -> list[str]:
    """Return the overrides that an experiment sweeps over (``hydra.sweeper.params``)."""
    return [quote_free_text(f"{key}={value}", sweep=True) for key, value in (params or {}).items()]
