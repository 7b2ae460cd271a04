"""The glue between a command and Hydra: compose, check, call; Hydra's errors in one short line."""

import contextlib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqexp import registry
from seqexp.config.data import OtherDataConfig
from seqexp.config.paths import conf_dir, register_schemas, user_conf_dir
from seqexp.config.root import (
    EvalConfig,
    GenerateConfig,
    SweepConfig,
    TrainConfig,
    to_typed,
)
from seqexp.config.run import DeviceConfig, GenerationConfig, TrainerConfig
from seqexp.errors import RunFailedError, UserError, suggest


class SeqexpSearchPath(SearchPathPlugin):
    """`$SEQEXP_CONF` before the project's files, those of installed plugins after them."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        folder = user_conf_dir()
        if folder:
            search_path.prepend("SEQEXP_CONF", f"file://{folder}")
        for plugin_dir in registry.CONF_DIRS:
            search_path.append("seqexp.plugins", f"file://{plugin_dir}")


def run_app(
    command: str,
    work: Callable[[Any], Any],
    run_name: Callable[[str], str],
    afterwards: Callable[[], None] = lambda: None,
) -> None:
    """Compose the configuration of `command` from ``sys.argv`` and call `work` with its checked dataclass.

    `run_name` answers ``${run_name:...}`` in the YAML: the name of an existing run. `afterwards` is called
    when all jobs are done, failed or not.

    Raises:
        UserError: anything wrong with the words typed or the files named.
    """
    register_schemas()
    Plugins.instance().register(SeqexpSearchPath)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    folder = user_conf_dir()
    if folder:
        print(f"options in {folder} (SEQEXP_CONF) come before seqexp's own", file=sys.stderr)

    # Let Hydra raise instead of printing: the door prints, unless the user asked for the whole story.
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Failures are kept here rather than raised into Hydra, which would print them in its own way and,
    # in a sweep, show only the first.
    failures: list[tuple[str, Exception]] = []

    def job(cfg: DictConfig) -> Any:
        try:
            return work(to_typed(cfg))
        except Exception as raised:
            from_hydra = isinstance(raised, HydraException | OmegaConfBaseException)
            error = short_error(raised) if from_hydra and not full_error else raised
            overrides = " ".join(HydraConfig.get().overrides.task)
            failures.append((overrides, error))
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                if not isinstance(error, UserError | RunFailedError):
                    traceback.print_exception(error)
                print(f"seqexp {command}: job failed ({overrides}): {error}", file=sys.stderr)
            return None

    # Hydra takes the job's name, which --help prints, from the function.
    job.__module__ = command
    app = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(job)
    try:
        if {"-m", "--multirun"} & set(sys.argv):
            sys.argv = [sys.argv[0], *_for_each_job(sys.argv[1:])]
        with _without_base_names():
            app()
        afterwards()
    except (HydraException, OmegaConfBaseException) as error:
        if full_error:
            raise
        raise short_error(error) from error
    except ValueError as error:
        # Hydra's bare error for `model=3` or `model=null`, where an option's name is needed.
        if full_error or "override must be a string or a list" not in str(error):
            raise
        raise _unnamed_option() from error
    finally:
        if not full_error:
            del os.environ["HYDRA_FULL_ERROR"]
    if len(failures) == 1 and not {"-m", "--multirun"} & set(sys.argv):
        raise failures[0][1]
    if failures:
        print(f"seqexp {command}: {len(failures)} jobs failed:", file=sys.stderr)
        for overrides, failure in failures:
            print(f"  {overrides}: {failure}", file=sys.stderr)
        sys.exit(1)


def _for_each_job(words: list[str]) -> list[str]:
    """In a sweep, settings such as ``model.hidden_size=64`` as sweeps over one value.

    Hydra composes once without what is swept over, to set up the sweep. There ``-m model=rnn,lstm
    model.hidden_size=64`` would meet the default model, which has no such setting.
    """
    parser = OverridesParser.create()
    changed = []
    for word in words:
        key, _, value = word.partition("=")
        if value.startswith("glob("):
            word = _expanded(key, parser.parse_override(word))
        setting = re.fullmatch(r"[a-z_]+\.[\w.]+", key) and not key.startswith(("hydra.", "sweep."))
        # Hydra's choice() takes every kind of value but null.
        if setting and value != "null" and not parser.parse_override(word).is_sweep_override():
            word = f"{key}=choice({value})"
        changed.append(word)
    return changed


def _expanded(group: str, override: Override) -> str:
    """``experiment=glob(nmt/luong/*)`` with the options it names; Hydra's own glob knows no folders.

    Raises:
        UserError: it names none.
    """
    names = _yaml_names(group)
    pattern = override.value()
    found: list[str] = pattern.filter(names) if isinstance(pattern, Glob) else []
    if not found:
        typed = str(override.input_line)
        near = ", ".join(_near(typed.partition("(")[2], names))
        raise UserError(f"{typed} names no option; there are {near}.")
    return f"{group}={','.join(found)}"


@contextlib.contextmanager
def _without_base_names() -> Any:
    """Leave the schemas (base_*) out of what --help and tab completion list."""
    if not {"--help", "-h", "-sc", "--shell-completion"} & set(sys.argv):
        yield
        return
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        sys.stdout.write(re.sub(r"(\S+=)?\bbase_\w+(, |\s)", "", printed.getvalue()))


def short_error(error: BaseException) -> UserError:
    """Hydra's or OmegaConf's error as one message: what was given, what is allowed, what to do."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, UserError):
            return cause
        cause = cause.__cause__ or cause.__context__
    text = f"{error}"
    inner = f"{error.__cause__}" if error.__cause__ else ""

    if isinstance(error, OverrideParseException):
        return UserError(f"cannot read {error.override!r}; write group=option or key=value.")
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
    said = " ".join(line for line in lines if not line.startswith(("full_key", "object_type")))
    return UserError(said[:400])


def _yaml_names(folder: str) -> list[str]:
    """The options of a group such as ``model``, over all places where options are found."""
    places = [user_conf_dir(), conf_dir(), *map(Path, registry.CONF_DIRS)]
    for i, word in enumerate(sys.argv):
        if word in ("--config-dir", "-cd") and i + 1 < len(sys.argv):
            places.append(Path(sys.argv[i + 1]))
        elif word.startswith("--config-dir="):
            places.append(Path(word.partition("=")[2]))
    names = {
        str(file.relative_to(place / folder).with_suffix(""))
        for place in places
        if place
        for file in (place / folder).glob("**/*.yaml")
    }
    return sorted(names)


def _unknown_option(path: str, text: str) -> UserError:
    group, _, option = path.partition("/")
    names = _yaml_names(group)
    if not names:
        return UserError(text.splitlines()[0])
    near = ", ".join(_near(option, names))
    return UserError(f"{group}={option} is not known; there are {near}." + suggest(option, names))


def _near(option: str, names: list[str]) -> list[str]:
    """The options in the folder that was named; else all, each folder as one."""
    folder = option.rpartition("/")[0]
    same = [name for name in names if folder and name.startswith(f"{folder}/")]
    return same or list(dict.fromkeys(re.sub(r"/.*", "/…", name) for name in names))


def _unnamed_option() -> UserError:
    for word in sys.argv[1:]:
        group, equals, option = word.partition("=")
        names = _yaml_names(group) if re.fullmatch(r"[\w/]+", group) else []
        if equals and names and option not in names:
            return UserError(f"{word} is not known; there are {', '.join(names)}.")
    return UserError("a group such as model= needs the name of an option.")


def _unknown_key(key: str, text: str) -> UserError:
    """List the keys of the dataclass that refused this one; OmegaConf's message names the class."""
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
