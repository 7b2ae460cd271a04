"""Comparison tables: for the terminal, as CSV, Markdown, LaTeX and JSON."""

import csv
import io
import json
import math
import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from seqexp.reports.frame import Comparison, best_rows, plain_number

if TYPE_CHECKING:
    from rich.table import Table

FORMATS = ("table", "csv", "markdown", "latex", "json")


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]], list[list[bool]]]:
    """Header, cells, and which cells are the best of their column."""
    gathered = comparison.by_setting()
    header = [*comparison.settings, "n", *comparison.metrics]
    rows = [
        [*(plain_number(row[key]) for key in comparison.settings), str(row["n"])]
        + [mean_and_deviation(row[f"{name} mean"], row[f"{name} std"]) for name in comparison.metrics]
        for row in gathered.to_dict("records")
    ]
    best = {name: best_rows(gathered, name) for name in comparison.metrics}
    bold = [
        [False] * (len(comparison.settings) + 1) + [best[name][i] for name in comparison.metrics]
        for i in range(len(rows))
    ]
    return header, rows, bold


def mean_and_deviation(mean: float, deviation: float) -> str:
    """``0.823 ± 0.012``: the deviation with two digits, the mean as far; 0.8231 of one run alone."""
    if pd.isna(mean):
        return "—"
    if pd.isna(deviation):
        return number(mean)
    if deviation == 0:
        return f"{number(mean)} ± 0"
    digits = max(0, 1 - math.floor(math.log10(float(f"{deviation:.1e}"))))
    return f"{mean:,.{digits}f} ± {deviation:,.{digits}f}"


def number(value: float) -> str:
    """Four significant digits, and whole numbers in full: 1.885, 37.29, 0.0121, 5,798,256."""
    if value == int(value) and abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 1000:
        return f"{value:,.1f}"
    return f"{value:.4g}"


def as_rich(comparison: Comparison, title: str) -> "Table":
    """For the terminal, the best of each column in bold."""
    from rich.markup import escape
    from rich.table import Table

    header, rows, bold = cells(comparison)
    table = Table(title=escape(title), title_justify="left")
    settings = len(comparison.settings)
    for i, name in enumerate(header):
        table.add_column(escape(name), justify="left" if i < settings else "right", overflow="fold")
    for row, marks in zip(rows, bold, strict=True):
        marked = zip(row, marks, strict=True)
        table.add_row(*(f"[bold]{escape(cell)}[/bold]" if mark else escape(cell) for cell, mark in marked))
    return table


def as_text(comparison: Comparison, form: str) -> str:
    """The table as ``csv``, ``markdown``, ``latex`` or ``json``."""
    if form == "csv":
        return _csv(comparison)
    if form == "json":
        return json.dumps(as_plain(comparison), indent=2, ensure_ascii=False)
    from tabulate import tabulate

    header, rows, bold = cells(comparison)
    escape = _escape_latex if form == "latex" else _escape_markdown
    strong = r"\textbf{%s}" if form == "latex" else "**%s**"
    shown = [
        [strong % escape(cell) if mark else escape(cell) for cell, mark in zip(row, marks, strict=True)]
        for row, marks in zip(rows, bold, strict=True)
    ]
    if form == "latex":
        shown = [[cell.replace("±", r"$\pm$").replace("—", "---") for cell in row] for row in shown]
    align = ["left"] * len(comparison.settings) + ["right"] * (1 + len(comparison.metrics))
    form = {"latex": "latex_booktabs", "markdown": "github"}[form]
    if form == "latex_booktabs":
        form = "latex_raw"  # the cells are escaped already; its rules are made booktabs' below
    text = tabulate(
        shown, [escape(name) for name in header], tablefmt=form, disable_numparse=True, colalign=align
    )
    if form == "latex_raw":
        rules = iter((r"\toprule", r"\midrule", r"\bottomrule"))
        text = re.sub(r"\\hline", lambda _: next(rules), text)
    return text


def as_plain(comparison: Comparison) -> dict[str, Any]:
    """The table, the runs behind it, and those left out, as plain values of full precision."""
    gathered = comparison.by_setting()
    rows = [
        {
            "settings": {key: row[key] for key in comparison.settings},
            "n": int(row["n"]),
            "metrics": {
                name: {"mean": _or_none(row[f"{name} mean"]), "std": _or_none(row[f"{name} std"])}
                for name in comparison.metrics
            },
        }
        for row in gathered.astype(object).to_dict("records")
    ]
    runs = comparison.table.astype(object).where(comparison.table.notna(), None).to_dict("records")
    left_out = [
        {"run": str(run.path), "status": run.status, "error": run.error} for run in comparison.left_out
    ]
    return {"rows": rows, "runs": runs, "left_out": left_out}


def _or_none(value: Any) -> Any:
    return None if pd.isna(value) else value


def _csv(comparison: Comparison) -> str:
    gathered = comparison.by_setting()
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(gathered.columns)
    for row in gathered.astype(object).to_dict("records"):
        writer.writerow("" if pd.isna(value) else value for value in row.values())
    return file.getvalue().rstrip("\n")


def _escape_latex(text: str) -> str:
    text = text.replace("\\", r"\textbackslash ")
    return re.sub(r"([&%$#_{}~^])", lambda m: rf"\{m[1]}" if m[1] not in "~^" else rf"\{m[1]}{{}}", text)


def _escape_markdown(text: str) -> str:
    return re.sub(r"([|*_`<\\])", r"\\\1", text)
