"""Parser and shell completion of the commands with plain arguments (runs, compare, report)."""

import argparse
import glob
from typing import NoReturn

from seqexp.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help.")


def completions(prefix: str, options: list[str], actions: list[str]) -> list[str]:
    """Return the completions of `prefix`: options, actions of the command, ``latest``, or folders."""
    if prefix.startswith("-"):
        return [option for option in options if option.startswith(prefix)]
    folders = [f"{folder}/".replace("//", "/") for folder in glob.glob(f"{glob.escape(prefix)}*/")]
    return [name for name in ["latest", *actions] if name.startswith(prefix)] + folders
