"""Tables of exam results, for the terminal and the page. The report may come from an untrusted file."""

from typing import Any

from seqexp.files import number


def exam_table(report: Any, by: tuple[str, ...] | None = None) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of an exam's report: all pairs, then its groups, only of the kinds in `by`."""
    header = ["about", "pairs", "right, %", "95 % interval", "5-gram, %", "ahead of it"]
    if not isinstance(report, dict):
        return header, []
    rows = [_row("all", report.get("overall"))]
    groups = report.get("groups")
    for group in groups if isinstance(groups, list) else []:
        if isinstance(group, dict) and (by is None or group.get("by") in by):
            rows.append(_row(str(group.get("name")), group))
    return header, rows


def _row(name: str, cell: Any) -> list[str]:
    if not isinstance(cell, dict) or number(cell.get("accuracy")) is None:
        return [name, "0", "—", "", "—", ""]
    baseline, ahead = cell.get("baseline"), cell.get("ahead")
    row = [name, f"{number(cell.get('pairs')) or 0:,.0f}", _share(cell.get("accuracy"))]
    row += [_interval(cell.get("interval")), "—", ""]
    if isinstance(baseline, dict):
        row[4] = _share(baseline.get("accuracy"))
    if isinstance(ahead, dict):
        row[5] = _share(ahead.get("value"), "+") + _margin(ahead)
    return row


def _share(value: Any, sign: str = "") -> str:
    """Format a share in per cent."""
    share = number(value)
    return "—" if share is None else f"{100 * share:{sign}.1f}"


def _interval(value: Any) -> str:
    return " to ".join(f"{100 * end:.1f}" for end in _ends(value))


def _margin(cell: dict[str, Any]) -> str:
    """Format the half-width of a symmetric interval, in points."""
    ends = _ends(cell.get("interval"))
    return f" ± {50 * (ends[1] - ends[0]):.1f}" if ends else ""


def _ends(value: Any) -> list[float]:
    """Return the two ends of an interval, or an empty list."""
    ends = [number(end) for end in value] if isinstance(value, list | tuple) and len(value) == 2 else []
    shown = [end for end in ends if end is not None]
    return shown if len(shown) == 2 else []
