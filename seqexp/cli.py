"""The command line: find the command, quote free text, serve tab completion, print short errors.

Imports only the standard library, so that ``seqexp --help`` is fast. The commands are the modules of
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
    "eval": "evaluate a run on held-out data, or on other data",
    "generate": "generate text with a run",
    "export": "write the word vectors of a run for other programs",
    "runs": "list, show, compare and remove runs",
    "compare": "compare runs in a table and figures",
    "report": "write a report about a run or a sweep, to read or hand in",
}
# Commands with plain arguments instead of Hydra's grammar.
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

# Hydra's flags with the number of their arguments. Hydra 1.3 accepts them only before the overrides.
FLAGS = {
    "--help": 0, "-h": 0, "--hydra-help": 0, "--version": 0, "--resolve": 0, "--run": 0, "-r": 0,
    "--multirun": 0, "-m": 0, "--info": 0, "-i": 0, "--cfg": 1, "-c": 1, "--package": 1, "-p": 1,
    "--config-path": 1, "-cp": 1, "--config-name": 1, "-cn": 1, "--config-dir": 1, "-cd": 1,
}  # fmt: skip
# Arguments of --info.
INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}

# Errors of an unusable path: too long, in a protected or read-only folder, or a circle of links.
NO_PATH = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EROFS}


def flags_first(arguments: list[str]) -> list[str]:
    """Return the arguments with flags and their values before all overrides.

    Raises:
        UserError: a flag is not known, or its value is missing.
    """
    flags, overrides, rest = [], [], list(arguments)
    sweep = bool({"-m", "--multirun"} & set(arguments))
    while rest:
        argument = rest.pop(0)
        name, equals, _ = argument.partition("=")
        if not argument.startswith("-"):
            overrides.append(quote_free_text(argument, sweep))
            continue
        if name == "--experimental-rerun":
            raise UserError(f"{name} is refused: it reads a pickle, which can run any code.")
        if name not in FLAGS:
            raise UserError(f"there is no flag {name}; there are {', '.join(FLAGS)}." + suggest(name, FLAGS))
        flags.append(argument)
        if FLAGS[name] and not equals:
            if not rest:
                raise UserError(f"{name} needs a word after it.")
            flags.append(rest.pop(0))
        elif name in ("--info", "-i") and rest and rest[0] in INFO:
            flags.append(rest.pop(0))
    return flags + overrides


def _complete_command_name(line: str) -> str | None:
    """Return completions of the command's name, or None if the name is complete."""
    words = line.split()
    if len(words) > 2 or (len(words) == 2 and line[-1:].isspace()):
        return None
    prefix = words[1] if len(words) == 2 else ""
    return " ".join(name for name in COMMANDS if name.startswith(prefix))


def _complete(arguments: list[str]) -> int:
    """Serve a shell's completion: ``-sc install=SHELL``, ``uninstall=SHELL`` or ``query=SHELL``."""
    command = "train"
    if arguments[-1].startswith("query="):
        line = os.environ.get("COMP_LINE", "")
        answer = _complete_command_name(line)
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
    prefix = "" if line[-1:].isspace() else line.split()[-1]
    found = completions(prefix, module.OPTIONS, list(getattr(module, "ACTIONS", ())))
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
    # The command is the first argument without a dash, so that `seqexp -m train` works too.
    index = next((i for i, argument in enumerate(arguments) if argument[:1] != "-"), 0)
    command = arguments[index]
    if command not in COMMANDS:
        raise UserError(
            f"there is no command {command!r}; there are {', '.join(COMMANDS)}." + suggest(command, COMMANDS)
        )
    rest = [argument for i, argument in enumerate(arguments) if i != index]
    for argument in rest:
        if re.search("[\ud800-\udfff]", argument):  # Python's escape of bytes that are not UTF-8
            raise UserError(
                f"{argument[:60]!a} is not UTF-8 text; check the encoding of your terminal or script."
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
        finish_output()  # raise write errors here instead of a warning at exit
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
        return 0  # the reader of the output has ended (`| head`), which is not a failure
    except OutputError as error:
        print(f"{name}: failed: standard output cannot be written ({error.strerror}).", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in NO_PATH or error.filename is None:
            traceback.print_exc()
            return 1
        message = f"{str(error.filename)[:200]!r}: {error.strerror}"
        print(f"{name}: error: {message}; name another path.", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        return 1


def run() -> None:
    """Run the console script."""
    # Libraries and corpora allocate millions of permanent objects. With the default thresholds, garbage
    # collection takes a tenth of the time to the first training step.
    gc.set_threshold(100_000, 20, 20)
    prepare_streams()
    sys.exit(main(sys.argv[1:]))
