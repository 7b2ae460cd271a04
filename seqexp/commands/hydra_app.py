"""The glue between a command and Hydra: compose, check, call; Hydra's errors in one short line."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqexp import registry
from seqexp.commands.hydra_errors import (
    bare_error,
    is_of_hydra,
    near_options,
    option_names,
    out_of_memory,
    short_error,
)
from seqexp.commands.sweeping import Call, end_sweep, run_sweep_job
from seqexp.config.paths import conf_dir, register_schemas, user_conf_dir
from seqexp.config.root import to_typed
from seqexp.config.sweep import check_sweep_name
from seqexp.errors import UserError
from seqexp.quoting import is_quoted, unquote
from seqexp.sweeps.job import SweepJob
from seqexp.sweeps.plugins import register_sweepers
from seqexp.tracking.run_folder import remember_typed_words
from seqexp.training.interrupt import interruptible


class SeqexpSearchPath(SearchPathPlugin):
    """`$SEQEXP_CONF` before the project's files, those of installed plugins after them."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        folder = user_conf_dir()
        if folder:
            search_path.prepend("SEQEXP_CONF", f"file://{folder}")
        for plugin_dir in registry.CONF_DIRS:
            search_path.append("seqexp.plugins", f"file://{plugin_dir}")


def run_app(
    command: str, work: Callable[[Any, SweepJob | None], Any], run_name: Callable[[str], str]
) -> None:
    """Compose the configuration of `command` from ``sys.argv`` and call `work` with its checked dataclass.

    In a sweep `work` is also told which job it is. `run_name` answers ``${run_name:...}`` in the YAML: the
    name of an existing run.

    Raises:
        UserError: anything wrong with the words typed or the files named.
    """
    register_schemas()
    Plugins.instance().register(SeqexpSearchPath)
    register_sweepers()
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    folder = user_conf_dir()
    if folder:
        print(f"options in {folder} (SEQEXP_CONF) come before seqexp's own", file=sys.stderr)

    # Let Hydra raise instead of printing: the door prints, unless the user asked for the whole story.
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # What a single job raised, kept here rather than raised into Hydra, which would print it in its own way.
    failure: Exception | None = None

    def checked(cfg: DictConfig, sweep_job: SweepJob | None = None) -> Any:
        try:
            return work(to_typed(cfg), sweep_job)
        except (HydraException, OmegaConfBaseException) as error:
            if full_error:
                raise
            raise short_error(error) from error
        except (MemoryError, RuntimeError, ValueError) as error:
            if full_error or not (failed := out_of_memory(error)):
                raise
            raise failed from error

    def job(cfg: DictConfig) -> Any:
        nonlocal failure
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return run_sweep_job(cfg, checked, command)
        try:
            return checked(cfg)
        except Exception as error:
            failure = error
            return None

    # Hydra takes the job's name, which --help prints, from the function.
    job.__module__ = command
    app = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(job)
    try:
        remember_typed_words()
        if {"-m", "--multirun"} & set(sys.argv):
            sys.argv = [sys.argv[0], *_for_each_job(sys.argv[1:])]
        with _without_base_names(), interruptible():
            app()
        end_sweep(command)
    except KeyboardInterrupt:
        if Call.current:
            print(f"to go on: the same line, with sweep.name={Call.current.sweep.name}", file=sys.stderr)
        raise
    except (HydraException, OmegaConfBaseException) as error:
        if full_error:
            raise
        raise short_error(error) from error
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        if full_error or not is_of_hydra(error):
            raise
        raise bare_error(error) from error
    finally:
        if Call.current:
            Call.current.close()
        if not full_error:
            del os.environ["HYDRA_FULL_ERROR"]
    if failure:
        raise failure


def _for_each_job(words: list[str]) -> list[str]:
    """In a sweep, settings such as ``model.hidden_size=64`` as sweeps over one value.

    Hydra composes once without what is swept over, to set up the sweep. There ``-m model=rnn,lstm
    model.hidden_size=64`` would meet the default model, which has no such setting.
    """
    parser = OverridesParser.create()
    changed = []
    for word in words:
        key, _, value = word.partition("=")
        if key.lstrip("+") == "sweep.name":
            check_sweep_name(unquote(value) if is_quoted(value) else value)
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
    names = option_names(group)
    pattern = override.value()
    found: list[str] = pattern.filter(names) if isinstance(pattern, Glob) else []
    if not found:
        typed = str(override.input_line)
        near = ", ".join(near_options(typed.partition("(")[2], names))
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
