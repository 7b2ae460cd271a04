"""Exam results as tables, for the terminal and the page. The report may be a stranger's file."""

from typing import Any

from seqexp.files import number


def exam_table(report: Any, by: tuple[str, ...] | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and rows of an exam's report: over all, then group by group, of the kinds in `by` or of all."""
    header = ["pairs about", "pairs", "accuracy", "95 % interval", "5-gram", "ahead of it"]
    if not isinstance(report, dict):
        return header, []
    rows = [_row("all", report.get("overall"))]
    groups = report.get("groups")
    for group in groups if isinstance(groups, list) else []:
        if isinstance(group, dict) and (by is None or group.get("by") in by):
            rows.append(_row(f"{group.get('by')}: {group.get('name')}", group))
    return header, rows


def _row(name: str, cell: Any) -> list[str]:
    if not isinstance(cell, dict) or number(cell.get("accuracy")) is None:
        return [name, "0", "—", "", "—", ""]
    baseline, ahead = cell.get("baseline"), cell.get("ahead")
    return [
        name,
        f"{number(cell.get('pairs')) or 0:,.0f}",
        _share(cell.get("accuracy")),
        _interval(cell.get("interval")),
        _share(baseline.get("accuracy")) if isinstance(baseline, dict) else "—",
        f"{_share(ahead.get('value'), '+')} ({_interval(ahead.get('interval'), '+')})"
        if isinstance(ahead, dict)
        else "",
    ]


def _share(value: Any, sign: str = "") -> str:
    """As per cent."""
    share = number(value)
    return "—" if share is None else f"{100 * share:{sign}.1f} %"


def _interval(value: Any, sign: str = "") -> str:
    ends = [number(end) for end in value] if isinstance(value, list | tuple) and len(value) == 2 else []
    shown = [f"{100 * end:{sign}.1f}" for end in ends if end is not None]
    return " to ".join(shown) if len(shown) == 2 else ""
