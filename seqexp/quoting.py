"""Words that Hydra's grammar and OmegaConf give back as they were."""

import re

# Values of these keys are text: commas, brackets, colons and '=' in them are the user's own.
LITERAL_KEYS = {"prompt", "text", "stop"}
# The same, but the bare word null still means "not given".
PATH_KEYS = {"input", "output", "path", "source_path", "target_path", "name", "run", "resume", "attention"}
# Values of these keys are mappings with keys of the user's own, which Hydra takes with ++ alone.
MAPPING_KEYS = {"lr_scale"}


def escape_interpolation(value: str) -> str:
    """Keep OmegaConf from reading ``${...}``: a backslash before it, and those already there doubled."""
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)


def quote(value: str) -> str:
    """A string in Hydra's single quotes; backslashes before a quote or at the end are doubled."""
    value = escape_interpolation(value)
    value = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"'{value}'"


def printable(text: str) -> str:
    """The text with signs that would steer a terminal or break a line spelled out."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def unquote(quoted: str) -> str:
    """The string that `quote` was given."""
    value = re.sub(r"(\\+)('|$)", lambda m: "\\" * (len(m[1]) // 2) + m[2], quoted[1:-1])
    return re.sub(r"(\\+)\$\{", lambda m: "\\" * (len(m[1]) // 2) + "${", value)


def quote_free_text(word: str) -> str:
    """Quote the value of an override if its key is one of free text; other words stay."""
    match = re.match(r"(\+{0,2}(?:[\w/]+\.)*(\w+))=(.*)", word, re.DOTALL)
    if match and match[2] in MAPPING_KEYS and not word.startswith("+"):
        return f"++{word}"
    if not match or match[2] not in LITERAL_KEYS | PATH_KEYS:
        return word
    if match[2] in PATH_KEYS and match[3] == "null":
        return word
    return f"{match[1]}={quote(match[3])}"
