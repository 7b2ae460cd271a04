"""The door: find the command, quote free text, complete words, print short errors.

Standard library only, so that ``seqexp --help`` answers at once. The commands themselves are the modules of
`seqexp.commands`, each with a ``main()`` that reads ``sys.argv``.
"""

import errno
import gc
import os
import re
import sys
import traceback
from importlib import import_module, metadata

from seqexp.errors import RunFailedError, UserError, suggest
from seqexp.quoting import quote_free_text
from seqexp.streams import OutputError, finish_output, prepare_streams

COMMANDS = {
    "train": "train a model and write a run folder",
    "eval": "judge a run on held-out text, or on another text",
    "generate": "write text with a run",
    "runs": "list, show, compare and remove runs",
    "compare": "a table and pictures of several runs",
    "report": "a page about a run or a sweep, to read or hand in",
}
# These take plain arguments, not Hydra's grammar.
PLAIN = ("runs", "compare", "report")

HELP = f"""usage: seqexp <command> [group=option] [key=value] ...
       seqexp runs|compare|report [folders] [--options]

commands:
{chr(10).join(f"  {name:<10}{text}" for name, text in COMMANDS.items())}

examples:
  seqexp train model=gpt data=potter
  seqexp train debug=fast                        a run of seconds
  seqexp train -m optimizer.lr=1e-3,3e-3         one run for each value; also of files: data.path=a.txt,b.txt
  seqexp eval run=latest
  seqexp generate run=latest prompt="The door opened and"
  seqexp compare outputs/sweeps/NAME             after: train -m … sweep.name=NAME
  seqexp train model=nmt data=phrasebook         translation; then: generate text="She is reading a book."

more:
  seqexp <command> --help       choices and settings of a command
  seqexp <command> --cfg job    the configuration that would be used
  seqexp --version
  tab completion:  eval "$(seqexp -sc install=bash)"     (in fish: seqexp -sc install=fish | source)"""

# Hydra's flags, and how many words follow each. Hydra 1.3 takes them only before the overrides.
FLAGS = {
    "--help": 0, "-h": 0, "--hydra-help": 0, "--version": 0, "--resolve": 0, "--run": 0, "-r": 0,
    "--multirun": 0, "-m": 0, "--info": 0, "-i": 0, "--cfg": 1, "-c": 1, "--package": 1, "-p": 1,
    "--config-path": 1, "-cp": 1, "--config-name": 1, "-cn": 1, "--config-dir": 1, "-cd": 1,
}  # fmt: skip
# What --info may be followed by.
INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}

# A path that is too long, that leads through a folder which may not be entered, or in a circle.
NO_PATH = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EROFS}


def flags_first(words: list[str]) -> list[str]:
    """The words with flags, and what follows them, before all overrides.

    Raises:
        UserError: a flag is not known, or what must follow it is missing.
    """
    flags, overrides, rest = [], [], list(words)
    sweep = bool({"-m", "--multirun"} & set(words))
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if not word.startswith("-"):
            overrides.append(quote_free_text(word, sweep))
            continue
        if name == "--experimental-rerun":
            raise UserError(f"{name} is refused: it reads a pickle, which could run anything.")
        if name not in FLAGS:
            raise UserError(f"there is no flag {name}; there are {', '.join(FLAGS)}." + suggest(name, FLAGS))
        flags.append(word)
        if FLAGS[name] and not equals:
            if not rest:
                raise UserError(f"{name} needs a word after it.")
            flags.append(rest.pop(0))
        elif name in ("--info", "-i") and rest and rest[0] in INFO:
            flags.append(rest.pop(0))
    return flags + overrides


def _answer_first_word(line: str) -> str | None:
    """Completions of the command's own name, or None if the name stands there already."""
    words = line.split()
    if len(words) > 2 or (len(words) == 2 and line[-1:].isspace()):
        return None
    begun = words[1] if len(words) == 2 else ""
    return " ".join(name for name in COMMANDS if name.startswith(begun))


def _complete(arguments: list[str]) -> int:
    """Serve a shell's completion: ``-sc install=SHELL``, ``uninstall=SHELL`` or ``query=SHELL``."""
    command = "train"
    if arguments[-1].startswith("query="):
        line = os.environ.get("COMP_LINE", "")
        answer = _answer_first_word(line)
        if answer is not None:
            print(answer if arguments[-1] == "query=bash" else answer.replace(" ", "\n"))
            return 0
        command = line.split()[1]
        if command not in COMMANDS:
            return 0
        if command in PLAIN:
            return _complete_plain(command, line, arguments[-1] == "query=bash")
        os.environ["COMP_LINE"] = re.sub(r"^(\s*\S+)\s+\S+", r"\1", line)
    sys.argv = ["seqexp", *arguments]
    import_module(f"seqexp.commands.{command}").main()
    return 0


def _complete_plain(command: str, line: str, in_one_line: bool) -> int:
    from seqexp.commands.plain import completions

    module = import_module(f"seqexp.commands.{command}")
    begun = "" if line[-1:].isspace() else line.split()[-1]
    found = completions(begun, module.OPTIONS, list(getattr(module, "ACTIONS", ())))
    print((" " if in_one_line else "\n").join(found))
    return 0


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"seqexp {metadata.version('seqexp')}")
        return 0
    if arguments[0] in ("-sc", "--shell-completion"):
        return _complete(arguments)
    # The command is the first word without a dash, so that `seqexp -m train` works too.
    place = next((i for i, word in enumerate(arguments) if word[:1] != "-"), 0)
    command = arguments[place]
    if command not in COMMANDS:
        raise UserError(
            f"there is no command {command!r}; there are {', '.join(COMMANDS)}." + suggest(command, COMMANDS)
        )
    rest = [word for i, word in enumerate(arguments) if i != place]
    for word in rest:
        if re.search("[\ud800-\udfff]", word):  # what Python makes of bytes that are no text
            raise UserError(
                f"{word[:60]!a} is not UTF-8 text; check the encoding of your terminal or script."
            )
    if command in PLAIN:
        import_module(f"seqexp.commands.{command}").main(rest)
        return 0
    sys.argv = [f"seqexp {command}", *flags_first(rest)]
    import_module(f"seqexp.commands.{command}").main()
    return 0


def main(arguments: list[str]) -> int:
    """Run the command line and return its exit code: 0, 1 (failed), 2 (user's mistake), 130 (interrupted)."""
    command = next((word for word in arguments if word in COMMANDS), "")
    name = f"seqexp {command}".strip()
    try:
        try:
            code = _dispatch(arguments)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        finish_output()  # what cannot be written is an error now, not a warning at exit
        return code
    except UserError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except RunFailedError as error:
        print(f"{name}: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # the reader of our output went away (`| head`): no failure, and nobody to tell
    except OutputError as error:
        print(f"{name}: failed: standard output cannot be written ({error.strerror}).", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in NO_PATH or error.filename is None:
            traceback.print_exc()
            return 1
        place = f"{str(error.filename)[:200]!r}: {error.strerror}"
        print(f"{name}: error: {place}; name another place.", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        return 1


def run() -> None:
    """The console script."""
    # Libraries and corpora are millions of objects that stay. Looking through them for cycles after every few
    # hundred new ones takes a tenth of the time to the first training step.
    gc.set_threshold(100_000, 20, 20)
    prepare_streams()
    sys.exit(main(sys.argv[1:]))
