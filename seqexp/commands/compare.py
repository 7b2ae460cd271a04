"""`seqexp compare`: a table and figures of several runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seqexp.commands.plain import Parser
from seqexp.errors import UserError
from seqexp.files import user_path

if TYPE_CHECKING:
    from seqexp.reports.frame import Comparison

DESCRIPTION = """Compare runs: the settings in which they differ, and the metrics of their best checkpoints;
mean ± standard deviation over seeds, the best in bold. Pictures go to <sweep>/compare/.
With --paired: how much better than the first run are the others on the same examples, and is it chance?

  seqexp compare outputs/sweeps/length
  seqexp compare outputs/sweeps/length --x data.seq_len --hue model.name --y val/accuracy
  seqexp compare outputs/train/gpt_potter/* --by optimizer.lr --format latex > table.tex
  seqexp compare latest --format csv --no-figures
  seqexp compare outputs/train/birnn_sst2/* outputs/train/textcnn_sst2/* --paired   after eval of each"""

OPTIONS = [
    "--x", "--y", "--hue", "--by", "--paired", "--split", "--format", "--json", "--figures", "--no-figures",
    "--help",
]  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = Parser("seqexp compare", DESCRIPTION)
    parser.add_argument(
        "targets", nargs="*", default=["latest"], metavar="RUN|SWEEP", help="folders, or latest"
    )
    parser.add_argument("--y", nargs="+", metavar="METRIC", help="the metrics; else all of the validation")
    parser.add_argument("--x", metavar="SETTING", help="the axis of a picture; else the first that differs")
    parser.add_argument(
        "--hue", nargs="+", metavar="SETTING", help="the lines of the pictures; else the others"
    )
    parser.add_argument("--by", nargs="+", metavar="SETTING", help="further columns of the table")
    parser.add_argument(
        "--paired", action="store_true", help="compare with the first run, example by example of a split"
    )
    parser.add_argument("--split", metavar="SPLIT", help="the split of --paired; else test")
    parser.add_argument("--format", default="table", help="table, csv, markdown, latex or json (stdout)")
    parser.add_argument("--json", action="store_const", const="json", dest="format")
    parser.add_argument("--figures", metavar="FOLDER", help="the folder of the pictures")
    parser.add_argument("--no-figures", action="store_true", help="print only the table")
    options = parser.parse_args(arguments)

    from seqexp.reports.figures import comparison_figures, save_for_paper
    from seqexp.reports.frame import compare, gather
    from seqexp.reports.tables import FORMATS, as_rich, as_text

    if options.format not in FORMATS:
        raise UserError(f"--format {options.format} is not known; there are {', '.join(FORMATS)}.")
    if options.paired:
        unused = [key for key in ("x", "y", "hue", "by", "figures") if getattr(options, key)]
        if unused:
            raise UserError(f"--{unused[0]} has no effect with --paired; leave one of them out.")
        _print_paired(options.targets, options.split or "test", options.format)
        return
    if options.split:
        raise UserError("--split is the split of --paired; add that, or leave --split out.")
    runs = gather(options.targets)
    named = [*([options.x] if options.x else []), *(options.hue or []), *(options.by or [])]
    comparison = compare(runs, options.y, named)
    if options.format == "table":
        from rich.console import Console

        console = Console(emoji=False)
        console = console if console.is_terminal else Console(width=10_000, emoji=False)
        console.print(as_rich(comparison, " ".join(options.targets)))
    else:
        print(as_text(comparison, options.format))
    _print_skipped(comparison)
    if not options.no_figures:
        folder = user_path(options.figures) if options.figures else _folder(comparison)
        figures = comparison_figures(comparison, options.x, options.hue)
        for name, figure in figures.items():
            save_for_paper(figure, folder / name)
        names = ", ".join(f"{name}.png" for name in figures)
        print(f"pictures: {names} (and .svg) in {folder}", file=sys.stderr)


def _print_paired(targets: list[str], split: str, form: str) -> None:
    import json

    from seqexp.reports.paired import compare_paired, paired_cells, paired_plain
    from seqexp.reports.tables import grid, plain_csv, plain_rich

    comparison = compare_paired(targets, split)
    header, rows = paired_cells(comparison)
    if form == "json":
        print(json.dumps(paired_plain(comparison), indent=2, ensure_ascii=False))
    elif form == "csv":
        print(plain_csv(paired_plain(comparison)["differences"]))
    elif form == "table":
        from rich.console import Console

        console = Console(emoji=False)
        console = console if console.is_terminal else Console(width=10_000, emoji=False)
        console.print(plain_rich(header, rows, f"differences from run 1 on {comparison.split}"))
    else:
        print(
            grid(
                header,
                rows,
                [[False] * len(row) for row in rows],
                ["left"] + ["right"] * (len(header) - 1),
                form,
            )
        )
    for place, run in enumerate(comparison.runs, start=1):
        print(f"{place}: {run.name}", file=sys.stderr)
    for note in (comparison.caption, *comparison.notes):
        print(note, file=sys.stderr)


def _print_skipped(comparison: "Comparison") -> None:
    states: dict[str, int] = {}
    for run in comparison.skipped:
        states[run.status] = states.get(run.status, 0) + 1
    if states:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        print(f"skipped: {counts} (of {len(comparison.runs)} runs)", file=sys.stderr)


def _folder(comparison: "Comparison") -> Path:
    """Return ``compare/`` in the sweep that contains all runs, else in ``outputs/``."""
    from seqexp.tracking.run_folder import OUTPUTS

    return (comparison.sweep.path if comparison.sweep else OUTPUTS) / "compare"
