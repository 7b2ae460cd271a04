"""Comparison tables: for the terminal, as CSV, Markdown, LaTeX and JSON."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seqexp.quoting import printable
from seqexp.reports.frame import Comparison, best_rows, plain_number

if TYPE_CHECKING:
    from rich.table import Table

FORMATS = ("table", "csv", "markdown", "latex", "json")


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]], list[list[bool]]]:
    """Return header, cells, and a mask of the best cells of each column."""
    groups = comparison.by_setting()
    header = [*comparison.settings, "n", *comparison.metrics]
    rows = [
        [*map(plain_number, group.settings.values()), str(len(group.rows))]
        + [mean_and_deviation(group.mean(name), group.deviation(name)) for name in comparison.metrics]
        for group in groups
    ]
    best = {name: best_rows(groups, name, comparison.mode(name)) for name in comparison.metrics}
    bold = [
        [False] * (len(comparison.settings) + 1) + [best[name][i] for name in comparison.metrics]
        for i in range(len(rows))
    ]
    return header, rows, bold


def mean_and_deviation(mean: float | None, deviation: float | None) -> str:
    """Format as ``0.823 ± 0.012``: two digits of the deviation, the mean to the same decimal place.

    A mean without deviation has four digits. Values below 0.001 share a power of ten: ``(7.6 ± 6.7)e-06``.
    """
    if mean is None:
        return "—"
    if deviation is None:
        return number(mean)
    if deviation == 0:
        return f"{number(mean)} ± 0"
    digits = max(0, 1 - math.floor(math.log10(float(f"{deviation:.1e}"))))
    if max(abs(mean), deviation) < 1e-3:
        power = math.floor(math.log10(max(abs(mean), deviation)))
        digits = max(0, digits + power)
        return f"({mean / 10.0**power:.{digits}f} ± {deviation / 10.0**power:.{digits}f})e{power:03d}"
    return f"{mean:,.{digits}f} ± {deviation:,.{digits}f}"


def number(value: float) -> str:
    """Format with four significant digits, integers in full: 1.885, 37.29, 0.0121, 5,798,256."""
    if isinstance(value, int) and abs(value) >= 10**15:
        return (
            f"{str(value)[:1]}e{len(str(abs(value))) - 1}"
            if abs(value) < 10**300
            else "a number too large to show"
        )
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 1000:
        return f"{value:,.1f}"
    return f"{value:.4g}"


def as_rich(comparison: Comparison, title: str) -> "Table":
    """Return the table for the terminal, with the best of each column in bold."""
    from rich.markup import escape
    from rich.table import Table

    header, rows, bold = cells(comparison)
    table = Table(title=escape(printable(title)), title_justify="left")
    settings = len(comparison.settings)
    for i, name in enumerate(header):
        table.add_column(
            escape(printable(name)), justify="left" if i < settings else "right", overflow="fold"
        )
    for row, marks in zip(rows, bold, strict=True):
        marked = zip(row, marks, strict=True)
        table.add_row(*(f"[bold]{escape(cell)}[/bold]" if mark else escape(cell) for cell, mark in marked))
    return table


def as_text(comparison: Comparison, form: str) -> str:
    """Format the table as ``csv``, ``markdown``, ``latex`` or ``json``."""
    if form == "csv":
        return _csv(comparison)
    if form == "json":
        return json.dumps(as_plain(comparison), indent=2, ensure_ascii=False)
    align = ["left"] * len(comparison.settings) + ["right"] * (1 + len(comparison.metrics))
    return grid(*cells(comparison), align, form)


def grid(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    bold: Sequence[Sequence[bool]],
    align: Sequence[str],
    form: str,
) -> str:
    """Format cells, some of them bold, as ``markdown`` or ``latex``; `align` is left or right by column."""
    from tabulate import tabulate

    escape = _escape_latex if form == "latex" else escape_markdown
    strong = r"\textbf{%s}" if form == "latex" else "**%s**"
    shown = [
        [strong % escape(cell) if mark else escape(cell) for cell, mark in zip(row, marks, strict=True)]
        for row, marks in zip(rows, bold, strict=True)
    ]
    if form == "latex":
        shown = [[cell.replace("±", r"$\pm$").replace("—", "---") for cell in row] for row in shown]
    form = {"latex": "latex_booktabs", "markdown": "github"}[form]
    if form == "latex_booktabs":
        form = "latex_raw"  # the cells are escaped already; the rules of booktabs are inserted below
    text = tabulate(
        shown, [escape(name) for name in header], tablefmt=form, disable_numparse=True, colalign=align
    )
    if form == "latex_raw":
        rules = iter((r"\toprule", r"\midrule", r"\bottomrule"))
        text = re.sub(r"\\hline", lambda _: next(rules), text)
    return text


def plain_rich(header: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> "Table":
    """Return a table of plain text for the terminal; the first column is text, the others are numbers."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title)), title_justify="left")
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, map(printable, row)))
    return table


def plain_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows as CSV with a header; lists become several columns."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    flat = [
        {
            (f"{key} {place}" if isinstance(value, list) else key): item
            for key, value in row.items()
            for place, item in enumerate(value if isinstance(value, list) else [value], start=1)
        }
        for row in rows
    ]
    writer.writerow(flat[0])
    writer.writerows(["" if cell is None else cell for cell in row.values()] for row in flat)
    return file.getvalue().rstrip("\n")


def as_plain(comparison: Comparison) -> dict[str, Any]:
    """Return the table, its runs and the skipped runs as plain values in full precision."""
    rows = [
        {
            "settings": group.settings,
            "n": len(group.rows),
            "metrics": {
                name: {"mean": group.mean(name), "std": group.deviation(name)} for name in comparison.metrics
            },
        }
        for group in comparison.by_setting()
    ]
    runs = comparison.table.astype(object).where(comparison.table.notna(), None).to_dict("records")
    skipped = [{"run": str(run.path), "status": run.status, "error": run.error} for run in comparison.skipped]
    return {"rows": rows, "runs": runs, "skipped": skipped}


def _csv(comparison: Comparison) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    numbers = [f"{name} {kind}" for name in comparison.metrics for kind in ("mean", "std")]
    writer.writerow([*comparison.settings, "n", *numbers])
    for group in comparison.by_setting():
        cells = [*group.settings.values(), len(group.rows)]
        for name in comparison.metrics:
            cells += [group.mean(name), group.deviation(name)]
        writer.writerow("" if cell is None else cell for cell in cells)
    return file.getvalue().rstrip("\n")


def _escape_latex(text: str) -> str:
    text = text.replace("\\", r"\textbackslash ")
    text = printable(text)
    return re.sub(r"([&%$#_{}~^])", lambda m: rf"\{m[1]}" if m[1] not in "~^" else rf"\{m[1]}{{}}", text)


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it on one line without markup, links, pictures or HTML."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*_\[\]<>!|&~#])", r"\\\1", printable(text))
    return text.replace("://", ":\\/\\/")  # some renderers turn bare addresses into links
