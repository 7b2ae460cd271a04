"""Hydra's and OmegaConf's errors as one short message: what was given, what is allowed, what to do."""

import re
import sys
import traceback
from dataclasses import fields
from pathlib import Path

from hydra.errors import OverrideParseException

from seqexp import registry
from seqexp.config.data import OtherDataConfig
from seqexp.config.paths import conf_dir, user_conf_dir
from seqexp.config.root import EvalConfig, GenerateConfig, TrainConfig
from seqexp.config.run import DeviceConfig, GenerationConfig, TrainerConfig
from seqexp.config.sweep import SweepConfig
from seqexp.errors import RunFailedError, UserError, suggest
from seqexp.quoting import MAPPING_KEYS


def short_error(error: BaseException) -> UserError:
    """Convert an error of Hydra or OmegaConf to one message: what was given, what is allowed, what to do."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, UserError):
            return cause
        cause = cause.__cause__ or cause.__context__
    text = f"{error}"
    inner = f"{error.__cause__}" if error.__cause__ else ""

    if isinstance(error, OverrideParseException):
        typed = str(error.override)[:200]
        if typed.startswith("++") and typed[2:].partition("=")[0].rpartition(".")[2] in MAPPING_KEYS:
            return UserError(
                f"cannot read {typed[2:]!r}; write a mapping without quotes around its keys, such as "
                "optimizer.lr_scale={blocks.*:0.1}."
            )
        return UserError(f"cannot read {typed!r}; write group=option or key=value.")
    found = re.search(r"Could not (?:find|load) '([^']+)'", text) or re.search(
        r"In '[^']*': Could not find '([^']+)'", text
    )
    if found:
        return _unknown_option(found[1], text)
    found = re.search(r"Could not override '([^']+)'", text)
    if found:
        return _unknown_key(found[1], inner or text)
    found = re.search(r"override ([\w.]+)=(\S*).*is not a ListConfig", f"{text}\n{inner}", re.DOTALL)
    if found:
        return UserError(f"{found[1]}={found[2]} must be a list; write {found[1]}=[{found[2]}].")
    found = re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", text + inner)
    if found:
        key = re.search(r"full_key: (\S+)", text + inner)
        kind = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        return UserError(
            f"{key[1] if key else 'the value'}={found[1]} is not {kind.get(found[2], found[2])}."
        )
    found = re.search(r"override ([\w.]+)=null.*not Optional", text + inner, re.DOTALL)
    if found:
        return UserError(f"{found[1]}=null is not allowed; give a value, or leave it out.")
    found = re.search(r"override ([\w.]+)=.*Value '(.*)' is not a valid (\w+)", text + inner, re.DOTALL)
    if found:
        wanted = {"bool": "true or false", "int": "a whole number"}.get(found[3], found[3])
        return UserError(f"{found[1]}={found[2]} is not {wanted}.")
    if "does not support sweep type" in text:
        return UserError("a grid needs discrete values; for interval(…) search with sweep=optuna.")
    found = re.search(r"Interpolation key '([^']+)' not found", text + inner)
    if found:
        return UserError(
            f"these choices do not go together: one of them needs {found[1]}, which the others do not have "
            "(a language model and sentences to translate, for instance); change model= or data=."
        )
    found = re.search(r"Key '([^']+)' (?:not in|is not in struct)", text + inner)
    if found:
        key = re.search(r"full_key: (\S+)", text + inner)
        return _unknown_key(key[1] if key else found[1], inner or text)
    lines = [line.strip() for line in (text + "\n" + inner).splitlines() if line.strip()]
    message = " ".join(line for line in lines if not line.startswith(("full_key", "object_type")))
    return UserError(message[:400])


def option_names(group: str) -> list[str]:
    """Return the options of a group such as ``model`` in all configuration folders."""
    folders = [user_conf_dir(), conf_dir(), *map(Path, registry.CONF_DIRS)]
    for i, argument in enumerate(sys.argv):
        if argument in ("--config-dir", "-cd") and i + 1 < len(sys.argv):
            folders.append(Path(sys.argv[i + 1]))
        elif argument.startswith("--config-dir="):
            folders.append(Path(argument.partition("=")[2]))
    names = {
        str(file.relative_to(folder / group).with_suffix(""))
        for folder in folders
        if folder
        for file in (folder / group).glob("**/*.yaml")
    }
    return sorted(names)


def _unknown_option(path: str, text: str) -> UserError:
    group, _, option = path.partition("/")
    names = option_names(group)
    if not names:
        return UserError(text.splitlines()[0])
    near = ", ".join(near_options(option, names))
    return UserError(f"{group}={option} is not known; there are {near}." + suggest(option, names))


def near_options(option: str, names: list[str]) -> list[str]:
    """Return the options in the folder of `option`; without such a folder all, with each folder as one."""
    folder = option.rpartition("/")[0]
    same = [name for name in names if folder and name.startswith(f"{folder}/")]
    return same or list(dict.fromkeys(re.sub(r"/.*", "/…", name) for name in names))


def is_of_hydra(error: BaseException) -> bool:
    """Return whether Hydra raised it; some malformed overrides cause a plain Python error there."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0] in ("hydra", "omegaconf")


def bare_error(error: BaseException) -> UserError:
    """Return the message for an error that `is_of_hydra`: `model=3`, `model=null`, `hydra.verbose=3`."""
    for override in sys.argv[1:]:
        group, equals, option = override.lstrip("+~").partition("=")
        names = option_names(group) if re.fullmatch(r"[\w/]+", group) else []
        if equals and names and option not in names:
            return UserError(f"{override} is not known; there are {', '.join(names)}.")
    of_hydra = [override for override in sys.argv[1:] if override.lstrip("+~").startswith("hydra")]
    if of_hydra:
        return UserError(f"Hydra cannot use {' '.join(of_hydra)[:200]}; leave it out.")
    reason = f"{type(error).__name__} {error}".splitlines()[0][:200]
    return UserError(
        f"Hydra cannot compose these overrides ({reason}); a group such as model= needs the name of an "
        "option."
    )


NO_MEMORY = re.compile(
    "can't allocate memory|not enough memory|out of memory|size calculation overflowed|array is too big"
    "|Maximum allowed dimension exceeded"
)


def out_of_memory(error: BaseException) -> RunFailedError | None:
    """Return the message for an out-of-memory error of NumPy or PyTorch; None for other errors."""
    if not isinstance(error, MemoryError) and not NO_MEMORY.search(str(error)):
        return None
    return RunFailedError(
        f"there is not enough memory ({(str(error) or 'MemoryError').splitlines()[0][:200]}); lower "
        "data.batch_size, data.seq_len or the sizes of the model."
    )


def _unknown_key(key: str, text: str) -> UserError:
    """List the keys of the dataclass that rejected this key; OmegaConf's message names the class."""
    parent, _, leaf = key.rpartition(".")
    owner = re.search(r"object_type=(\w+)", text)
    known = _field_names(owner[1]) if owner else []
    if owner and not parent:
        known += ["experiment", "debug"]
    if not known:
        return UserError(f"{key} is not a setting; --help lists all settings.")
    hint = suggest(leaf, known)
    if hint and parent:
        hint = hint.replace("'", f"'{parent}.", 1)
    return UserError(f"{key} is not a setting; {parent or 'the top level'} has {', '.join(known)}.{hint}")


def _field_names(class_name: str) -> list[str]:
    schemas = [TrainConfig, EvalConfig, GenerateConfig, OtherDataConfig, SweepConfig]
    schemas += [DeviceConfig, TrainerConfig, GenerationConfig]
    for group, entries in registry.ENTRIES.items():
        schemas += [registry.load_schema(group, name) for name in entries]
    for schema in schemas:
        if schema.__name__ == class_name:
            return [field.name for field in fields(schema)]
    return []
