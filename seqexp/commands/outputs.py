"""Where `seqexp generate` writes: checks before the work, and handing out what was generated."""

import os
import stat
import sys
from pathlib import Path

from seqexp.config.root import GenerateConfig
from seqexp.errors import RunFailedError, UserError
from seqexp.files import user_path
from seqexp.tracking.plots import FORMATS


def check_outputs(config: GenerateConfig) -> None:
    """Refuse, before the work, outputs that could not be written or would overwrite what is read.

    Raises:
        UserError: naming the setting and the file.
    """
    files = {key: user_path(value) for key in ("output", "attention") if (value := getattr(config, key))}
    for key, path in files.items():
        _check_writable(key, path)
        if config.input not in (None, "-") and _same_file(path, user_path(str(config.input))):
            raise UserError(f"{key}={path} is the file that input={config.input} reads; name another file.")
        if config.input == "-" and _is_stdin(path):
            raise UserError(f"{key}={path} is the file that standard input reads; name another file.")
    if len(files) == 2 and _same_file(files["output"], files["attention"]):
        raise UserError(f"output= and attention= both name {files['output']}; name two files.")
    if "attention" in files and files["attention"].suffix.lower().lstrip(".") not in FORMATS:
        raise UserError(
            f"attention={files['attention']} is not a kind of picture; let the name end in "
            f"{' or '.join(f'.{kind}' for kind in FORMATS)}."
        )


def _check_writable(key: str, path: Path) -> None:
    if (
        path.is_dir()
        or not path.absolute().parent.is_dir()
        or (path.exists() and not os.access(path, os.W_OK))
    ):
        raise UserError(f"{key}={path} cannot be written; name a file in a folder that exists.")


def _same_file(one: Path, other: Path) -> bool:
    """Whether two names are one file, also through links; devices such as /dev/null do not count."""
    if one.is_file() and other.is_file():
        return one.samefile(other)
    return not one.exists() and one.resolve() == other.resolve()


def _is_stdin(path: Path) -> bool:
    try:
        about = os.fstat(sys.stdin.fileno())
        return stat.S_ISREG(about.st_mode) and os.path.samestat(about, path.stat())
    except (OSError, ValueError):
        return False


def hand_out(text: str, output: str | None, folder: Path) -> None:
    """Write what was generated to the file `output`, or else to standard output.

    Raises:
        RunFailedError: it cannot be written, for instance because the disk is full; the message names the
            run's `folder`, which keeps the text.
    """
    try:
        if output:
            user_path(output).write_text(text, encoding="utf-8")
            print(f"written to {output}", file=sys.stderr)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        target = f"output={output}" if output else "standard output"
        raise RunFailedError(
            f"{target} cannot be written ({error.strerror}); what was generated is in {folder}."
        ) from error
