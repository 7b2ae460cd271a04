"""Run a command through Hydra: compose, check and call it; convert Hydra's errors to one short line."""

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
from seqexp.tracking.run_folder import remember_command_line
from seqexp.training.interrupt import interruptible


class SeqexpSearchPath(SearchPathPlugin):
    """Search `$SEQEXP_CONF` before the project's files, and installed plugins after them."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        folder = user_conf_dir()
        if folder:
            search_path.prepend("SEQEXP_CONF", f"file://{folder}")
        for plugin_dir in registry.CONF_DIRS:
            search_path.append("seqexp.plugins", f"file://{plugin_dir}")


def run_app(command: str, work: Callable[[Any, SweepJob | None], Any], run_name: Callable[..., str]) -> None:
    """Compose the configuration of `command` from ``sys.argv`` and call `work` with its checked dataclass.

    In a sweep `work` also receives the job, else None. `run_name` resolves ``${run_name:...}`` in the YAML to
    the name of an existing run.

    Raises:
        UserError: an override is invalid, or a file is missing or invalid.
    """
    register_schemas()
    Plugins.instance().register(SeqexpSearchPath)
    register_sweepers()
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    folder = user_conf_dir()
    if folder:
        print(f"options in {folder} (SEQEXP_CONF) come before seqexp's own", file=sys.stderr)

    # Let Hydra raise instead of printing: the command line prints a short error, unless the user asked for
    # the full one.
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Exception of a single job, raised after Hydra has returned, because Hydra would print it in its own way.
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

    # Hydra takes the job's name, which --help prints, from the function's module.
    job.__module__ = command
    app = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=command)(job)
    try:
        remember_command_line()
        if {"-m", "--multirun"} & set(sys.argv):
            sys.argv = [sys.argv[0], *_for_each_job(sys.argv[1:])]
        with _without_base_names(), interruptible():
            app()
        end_sweep(command)
    except KeyboardInterrupt:
        if Call.current:
            print(f"to resume: the same line, with sweep.name={Call.current.sweep.name}", file=sys.stderr)
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


def _for_each_job(overrides: list[str]) -> list[str]:
    """Turn settings such as ``model.hidden_size=64`` into sweeps over one value.

    To set up a sweep, Hydra composes once without the swept overrides. Of ``-m model=rnn,lstm
    model.hidden_size=64`` that would leave the default model, which has no such setting.
    """
    parser = OverridesParser.create()
    changed = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key.lstrip("+") == "sweep.name":
            check_sweep_name(unquote(value) if is_quoted(value) else value)
        if value.startswith("glob("):
            override = _expanded(key, parser.parse_override(override))
        setting = re.fullmatch(r"[a-z_]+\.[\w.]+", key) and not key.startswith(("hydra.", "sweep."))
        # Hydra's choice() accepts every kind of value except null.
        if setting and value != "null" and not parser.parse_override(override).is_sweep_override():
            override = f"{key}=choice({value})"
        changed.append(override)
    return changed


def _expanded(group: str, override: Override) -> str:
    """Expand ``experiment=glob(nmt/luong/*)`` to the matching options; Hydra's glob does not match folders.

    Raises:
        UserError: no option matches.
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
    """Remove the schemas (base_*) from the output of --help and tab completion."""
    if not {"--help", "-h", "-sc", "--shell-completion"} & set(sys.argv):
        yield
        return
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        sys.stdout.write(re.sub(r"(\S+=)?\bbase_\w+(, |\s)", "", printed.getvalue()))
