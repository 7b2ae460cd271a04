"""The door: find the command, quote free text, complete words, print short errors.

Standard library only, so that ``seqexp --help`` answers at once. The commands themselves are the modules of
`seqexp.commands`, each with a ``main()`` that reads ``sys.argv``.
"""

import os
import re
import sys
import traceback
from importlib import import_module, metadata

from seqexp.errors import RunFailedError, UserError, suggest

COMMANDS = {
    "train": "train a model and write a run folder",
    "eval": "judge a run on held-out text, or on another text",
    "generate": "write text with a run",
}

HELP = f"""usage: seqexp <command> [group=option] [key=value] ...

commands:
{chr(10).join(f"  {name:<10}{text}" for name, text in COMMANDS.items())}

examples:
  seqexp train model=gpt data=potter
  seqexp train debug=fast                        a run of seconds
  seqexp train -m optimizer.lr=1e-3,3e-3         one run for each value
  seqexp eval run=latest
  seqexp generate run=latest prompt="The door opened and"

more:
  seqexp <command> --help       choices and settings of a command
  seqexp <command> --cfg job    the configuration that would be used
  seqexp --version
  tab completion:  eval "$(seqexp -sc install=bash)"     (in fish: seqexp -sc install=fish | source)"""

# Values of these keys are text: commas, brackets, colons and '=' in them are the user's own.
LITERAL_KEYS = {"prompt", "text", "stop"}
# The same, but the bare word null still means "not given".
PATH_KEYS = {"input", "output", "path", "source_path", "target_path", "name", "run", "resume"}
# Flags of Hydra that read a pickle, or have no meaning where folders are made by seqexp.
REFUSED_FLAGS = {"--experimental-rerun": "it reads a pickle, which could run anything"}


def quote_free_text(word: str) -> str:
    """Put the value of a free-text key into quotes that Hydra's grammar and OmegaConf both give back."""
    match = re.match(r"(\+{0,2}(?:[\w/]+\.)*(\w+))=(.*)", word, re.DOTALL)
    if not match or match[2] not in LITERAL_KEYS | PATH_KEYS:
        return word
    key, leaf, value = match[1], match[2], match[3]
    if leaf in PATH_KEYS and value == "null":
        return word
    # OmegaConf: '\${' is a plain '${', so a backslash before one is doubled. Hydra: '\'' is a quote, and
    # the backslashes before a quote or at the end are doubled.
    value = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + r"\${", value)
    value = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"{key}='{value}'"


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
        os.environ["COMP_LINE"] = re.sub(r"^(\s*\S+)\s+\S+", r"\1", line)
    sys.argv = ["seqexp", *arguments]
    import_module(f"seqexp.commands.{command}").main()
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
    place = next((i for i, word in enumerate(arguments) if not word.startswith("-")), 0)
    command = arguments[place]
    if command not in COMMANDS:
        raise UserError(
            f"there is no command {command!r}; there are {', '.join(COMMANDS)}." + suggest(command, COMMANDS)
        )
    rest = [quote_free_text(word) for i, word in enumerate(arguments) if i != place]
    for word in rest:
        for flag, reason in REFUSED_FLAGS.items():
            if word.startswith(flag[:8]):
                raise UserError(f"{flag} is refused: {reason}.")
    # Hydra 1.3 refuses a flag between overrides: flags without a value go to the front.
    flags = [word for word in rest if word in ("-m", "--multirun", "--help", "-h", "--resolve")]
    sys.argv = [f"seqexp {command}", *flags, *(word for word in rest if word not in flags)]
    import_module(f"seqexp.commands.{command}").main()
    return 0


def main(arguments: list[str]) -> int:
    """Run the command line and return its exit code: 0, 1 (failed), 2 (user's mistake), 130 (interrupted)."""
    command = next((word for word in arguments if word in COMMANDS), "")
    try:
        return _dispatch(arguments)
    except UserError as error:
        print(f"{f'seqexp {command}'.strip()}: error: {error}", file=sys.stderr)
        return 2
    except RunFailedError as error:
        print(f"{f'seqexp {command}'.strip()}: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{f'seqexp {command}'.strip()}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not a failure, and nothing more to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception:
        traceback.print_exc()
        return 1


def run() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))
