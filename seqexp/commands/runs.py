"""`seqexp runs`: list the runs under ``outputs/``; and ``show``, ``diff``, ``rm``."""

import json
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from seqexp.commands.plain import Parser
from seqexp.errors import UserError
from seqexp.quoting import printable
from seqexp.tracking.catalog import Entry, find, list_all, sweep_runs
from seqexp.tracking.run_folder import OUTPUTS, RunFolder
from seqexp.tracking.sweep_folder import SweepFolder

DESCRIPTION = """Runs and sweeps under outputs/, the newest last.

  seqexp runs                              training runs and sweeps
  seqexp runs --all                        evaluations, texts and the jobs of sweeps too
  seqexp runs --where model=lstm data.seq_len=50 status=failed
  seqexp runs --sort best --json
  seqexp runs show RUN                     one run: settings, result, files
  seqexp runs diff RUN RUN                 the settings in which two runs differ
  seqexp runs rm RUN ...                   remove folders, after asking

RUN is a folder, or latest."""

ACTIONS = ("show", "diff", "rm")
SORTS = ("age", "name", "model", "data", "status", "best", "size")
# Keys of --where besides the settings of a run.
COLUMNS = ("kind", "name", "model", "data", "status")
OPTIONS = ["--all", "--where", "--sort", "--reverse", "--json", "--yes", "--help"]


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] in ACTIONS:
        action, rest = arguments[0], arguments[1:]
        {"show": _show, "diff": _diff, "rm": _remove}[action](rest)
        return
    parser = Parser("seqexp runs", DESCRIPTION)
    parser.add_argument("--all", action="store_true", help="evaluations, texts and the jobs of sweeps too")
    parser.add_argument("--where", nargs="+", default=[], metavar="KEY=VALUE", help="only these")
    parser.add_argument("--sort", choices=SORTS, default="age", help="age, if not given")
    parser.add_argument("--reverse", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    conditions = [_condition(text) for text in options.where]
    # A condition on settings also selects runs in sweeps.
    entries = list_all(with_jobs=options.all or bool(conditions))
    if not options.all:
        entries = [entry for entry in entries if entry.kind in ("train", "sweep")]
    entries = [entry for entry in entries if all(holds(entry) for holds in conditions)]
    entries = _sorted(entries, options.sort)
    if options.reverse:
        entries.reverse()
    if options.json:
        print(json.dumps([_plain(entry) for entry in entries], indent=2, ensure_ascii=False))
    elif not entries:
        print(f"no runs{' like that' if conditions else ''} under {OUTPUTS.absolute()}", file=sys.stderr)
    else:
        _print_table(entries)


def _condition(text: str) -> Callable[[Entry], bool]:
    key, equals, wanted = text.partition("=")
    if not equals:
        raise UserError(f"--where {text}: write KEY=VALUE, such as status=failed or data.seq_len=50.")

    def holds(entry: Entry) -> bool:
        if key in COLUMNS:
            return str(getattr(entry, key)) == wanted
        found = key if key in entry.config else f"{key}.name"
        return found in entry.config and _same(entry.config[found], wanted)

    return holds


def _same(value: Any, wanted: str) -> bool:
    """Return whether a setting has the typed value; numbers are compared as numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _value(value).lower() == wanted.lower()
    try:
        return float(wanted) == value
    except ValueError:
        return False


def _sorted(entries: list[Entry], by: str) -> list[Entry]:
    if by == "age":
        return entries  # already sorted
    if by == "best":
        return sorted(entries, key=_rank)
    if by == "size":
        return sorted(entries, key=lambda entry: entry.size)
    return sorted(entries, key=lambda entry: str(getattr(entry, by)))


def _rank(entry: Entry) -> tuple[bool, str, float]:
    """Return a key that sorts by metric, best first; runs without a metric come last."""
    best = entry.best or 0.0
    return entry.best is None, entry.metric, -best if entry.mode == "max" else best


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "path": str(entry.path),
        "kind": entry.kind,
        "name": entry.name,
        "model": entry.model,
        "data": entry.data,
        "status": entry.status,
        "started": entry.started.isoformat() if entry.started else None,
        "metric": entry.metric or None,
        "best": entry.best,
        "bytes": entry.size,
        "error": entry.error or None,
        **({"jobs": entry.jobs} if entry.kind == "sweep" else {}),
    }


def age(started: datetime | None) -> str:
    """Format the time since `started` as ``5 min``, ``3 h`` or ``12 d``."""
    if started is None:
        return "—"
    seconds = (datetime.now().astimezone() - started.astimezone()).total_seconds()
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


STYLES = {
    "running": "cyan", "finished": "green", "failed": "red", "killed": "red", "damaged": "red",
    "interrupted": "yellow", "incomplete": "yellow", "empty": "yellow",
}  # fmt: skip


def _print_table(entries: list[Entry]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("run", "model", "data", "status", "age", "best", "size"):
        right = name in ("age", "best", "size")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for entry in entries:
        status = escape(entry.status)
        if entry.jobs:
            status += " (" + ", ".join(f"{n} {state}" for state, n in sorted(entry.jobs.items())) + ")"
        best = f"{entry.metric} {entry.best:.4g}" if entry.best is not None else ""
        cells = [_cell(_from_here(entry.path)), _cell(entry.model), _cell(entry.data)]
        style = STYLES.get(entry.status, "")
        cells += [f"[{style}]{status}[/{style}]" if style else status]
        table.add_row(*cells, age(entry.started), _cell(best), size(entry.size))
    # Without a terminal, break no line: programs expect one line per run.
    console = Console(emoji=False)
    if not console.is_terminal:
        console = Console(width=10_000, emoji=False)
    console.print(table)


def _cell(value: Any) -> str:
    """Escape text for a table: control characters and markup."""
    from rich.markup import escape

    return escape(printable(str(value)))


def _from_here(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _show(arguments: list[str]) -> None:
    parser = Parser("seqexp runs show", "One run or sweep: settings, result, files.")
    parser.add_argument("run", metavar="RUN", help="a folder, or latest")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    (entry,) = find(options.run)
    result = RunFolder(entry.path).result()
    if options.json:
        shown = {**_plain(entry), "config": entry.config, "result": result}
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    lines = [("folder", str(entry.path)), ("kind", entry.kind), ("status", entry.status)]
    lines += [("error", entry.error.strip().splitlines()[-1])] if entry.error.strip() else []
    lines += (
        [("started", f"{entry.started:%Y-%m-%d %H:%M:%S} ({age(entry.started)} ago)")]
        if entry.started
        else []
    )
    lines += [(f"best {entry.metric}", f"{entry.best:.6g}")] if entry.best is not None else []
    lines += [("size", size(entry.size))]
    lines += [(state, str(count)) for state, count in entry.jobs.items()]
    metrics = result.get("metrics")
    for name, value in metrics.items() if isinstance(metrics, dict) else ():
        lines.append((str(name), f"{value:.6g}" if isinstance(value, int | float) else str(value)))
    manifest = RunFolder(entry.path).manifest()
    lines += [("command", str(manifest["command_line"]))] if "command_line" in manifest else []
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(printable(f"{name:<{width}}  {value}"))
    if entry.config:
        print("\nconfiguration")
        for key, value in entry.config.items():
            print(printable(f"  {key} = {_value(value)}"))
    if entry.kind == "sweep":
        print()
        jobs = sweep_runs(SweepFolder(entry.path))
        if jobs:
            _print_table(jobs)


def _value(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or value is True or value is False
        else str(value)
    )


def _diff(arguments: list[str]) -> None:
    parser = Parser("seqexp runs diff", "The settings in which two runs differ.")
    parser.add_argument("first", metavar="RUN")
    parser.add_argument("second", metavar="RUN")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    runs = []
    for target in (options.first, options.second):
        (entry,) = find(target)
        if not entry.config:
            raise UserError(f"{target} has no readable configuration (it is {entry.kind}, {entry.status}).")
        runs.append(entry.config)
    first, second = runs
    keys = [
        key for key in dict.fromkeys([*first, *second]) if first.get(key, _ABSENT) != second.get(key, _ABSENT)
    ]
    if options.json:
        print(
            json.dumps({key: [first.get(key), second.get(key)] for key in keys}, indent=2, ensure_ascii=False)
        )
        return
    if not keys:
        print("the configurations are the same", file=sys.stderr)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("setting", options.first, options.second):
        table.add_column(escape(name), overflow="fold")
    for key in keys:
        cells = [_value(values[key]) if key in values else "—" for values in (first, second)]
        table.add_row(_cell(key), *map(_cell, cells))
    console = Console(emoji=False)
    (console if console.is_terminal else Console(width=10_000, emoji=False)).print(table)


_ABSENT = object()


def _remove(arguments: list[str]) -> None:
    parser = Parser("seqexp runs rm", "Remove the folders of runs and sweeps, after asking.")
    parser.add_argument("runs", metavar="RUN", nargs="+")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(arguments)
    entries = {entry.path.resolve(): entry for target in options.runs for entry in find(target)}
    # A folder inside another folder to be removed is removed with it.
    entries = {path: entry for path, entry in entries.items() if not set(path.parents) & set(entries)}
    here = Path.cwd().resolve()
    for path, entry in entries.items():
        if "running" in (entry.status, *entry.jobs):
            raise UserError(f"{entry.path} is running; stop it first. Nothing was removed.")
        if path == here or path in here.parents:
            raise UserError(f"{entry.path} contains the current folder. Nothing was removed.")
    if not options.yes and not _confirmed(list(entries.values())):
        print("nothing was removed", file=sys.stderr)
        return
    for entry in entries.values():
        try:
            # Remove a link itself, not its target.
            entry.path.unlink() if entry.path.is_symlink() else shutil.rmtree(entry.path)
        except OSError as error:
            raise UserError(f"{error.filename or entry.path} cannot be removed: {error.strerror}.") from error
    print(f"removed {len(entries)} folder{'s' if len(entries) > 1 else ''}", file=sys.stderr)


def _confirmed(entries: list[Entry]) -> bool:
    if not sys.stdin.isatty():
        raise UserError("without a terminal, rm needs --yes to remove. Nothing was removed.")
    for entry in entries:
        line = f"{_from_here(entry.path)}  ({entry.kind}, {entry.status}, {size(entry.size)})"
        print(printable(line), file=sys.stderr)
    what = "this folder" if len(entries) == 1 else f"these {len(entries)} folders"
    print(f"remove {what}? [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        return False
