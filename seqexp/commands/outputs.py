"""The outputs of `seqexp generate`: check the files before generation, and write the text after it."""

import os
import stat
import sys
from pathlib import Path

from seqexp.config.root import GenerateConfig
from seqexp.errors import RunFailedError, UserError
from seqexp.files import user_path
from seqexp.tracking.plots import FORMATS

# The keys that name a picture; at most one of them is given.
PICTURE_KEYS = ("picture", "attention")


def check_outputs(config: GenerateConfig) -> None:
    """Check that `output` and the picture can be written, and differ from the input and each other.

    Raises:
        UserError: naming the setting and the file.
    """
    keys = ("output", *PICTURE_KEYS)
    files = {key: user_path(value) for key in keys if (value := getattr(config, key))}
    for key, path in files.items():
        _check_writable(key, path)
        if config.input not in (None, "-") and _same_file(path, user_path(str(config.input))):
            raise UserError(f"{key}={path} is the file that input={config.input} reads; name another file.")
        if config.input == "-" and _is_stdin(path):
            raise UserError(f"{key}={path} is the file that standard input reads; name another file.")
    for key in PICTURE_KEYS:
        if key not in files:
            continue
        if "output" in files and _same_file(files["output"], files[key]):
            raise UserError(f"output= and {key}= both name {files['output']}; name two files.")
        if files[key].suffix.lower().lstrip(".") not in FORMATS:
            raise UserError(
                f"{key}={files[key]} is not the name of a picture; let it end in "
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
    """Return whether two names are one regular file, also through links."""
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
    """Write the generated text to the file `output`, or to standard output if it is None.

    Raises:
        RunFailedError: the text cannot be written, for instance because the disk is full; the message names
            the run's `folder`, which has the text.
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
