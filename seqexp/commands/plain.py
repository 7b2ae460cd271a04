"""Commands with plain arguments (runs, compare, report): their parser, and the shell's completion of them."""

import argparse
import glob
from typing import NoReturn

from seqexp.errors import UserError


class Parser(argparse.ArgumentParser):
    """Mistakes become the short errors of all commands."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help.")


def completions(begun: str, options: list[str], words: list[str]) -> list[str]:
    """What may stand where `begun` does: an option, a word of the command, or a folder."""
    if begun.startswith("-"):
        return [option for option in options if option.startswith(begun)]
    folders = [f"{folder}/".replace("//", "/") for folder in glob.glob(f"{glob.escape(begun)}*/")]
    return [word for word in ["latest", *words] if word.startswith(begun)] + folders
