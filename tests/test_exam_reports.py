"""Tables of exams, in the terminal and on the page of a run."""

import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from exam_helpers import ALL, SHORT, Main, evaluate
from rich.console import Console

from seqexp.commands.exams import show_exams
from seqexp.reports.exams import exam_table

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_report_shows_the_exams(run_main: Main, sat_run: Path) -> None:
    run = Path(shutil.copytree(sat_run, "outputs/train/sat/one"))
    result, _ = evaluate(run_main, run, *ALL)
    ran = run_main("report", str(run))
    assert ran.code == 0, ran.err
    (page,) = Path().glob("**/*.html")
    text = page.read_text(encoding="utf-8")
    cells = re.findall(r"<t[dh](?: [^>]*)?>([^<]*)</t[dh]>", text)
    for exam in result["exams"]:
        header, rows = exam_table(exam)
        assert rows[0][2] == f"{100 * exam['overall']['accuracy']:.1f}"
        for row in (header, *rows):
            assert row[0] in cells, row
        assert rows[0][2] in cells
        assert rows[0][3] in cells
    assert {"unseen", "word order", "6–20 times"} <= set(cells)


def test_tables_of_malformed_reports() -> None:
    groups = [3, {"by": "x", "accuracy": []}, {"pairs": [], "accuracy": 1, "interval": [1], "ahead": {}}]
    strange: list[Any] = [None, [], 3, {}, {"overall": 3, "groups": 4}, {"groups": groups}]
    for report in strange:
        header, rows = exam_table(report)
        assert all(len(row) == len(header) for row in rows)
    cell = {"pairs": 1200, "accuracy": 0.75, "interval": [0.7, 0.8], "baseline": {"accuracy": 0.5},
            "ahead": {"value": 0.25, "interval": [0.2, 0.3]}}  # fmt: skip
    _, (row,) = exam_table({"overall": cell})
    assert row == ["all", "1,200", "75.0", "70.0 to 80.0", "50.0", "+25.0 ± 5.0"]


def test_the_terminal_shows_words_as_they_are(run_main: Main, english: Path) -> None:
    """Brackets in a sentence or a file name are not markup."""
    few = (f"data.path={english}", "tokenizer=byte", "trainer.max_steps=0", "name=bytes")
    assert run_main("train", "data=text", *SHORT, *few).code == 0
    pairs = "The king [/b] was.,The [red]king were [/b].\nThe [red]king were [/b].,The king [/b] was.\n"
    Path("[bold]x.csv").write_text(pairs, encoding="utf-8")
    result, _ = evaluate(run_main, "latest", "exams=grammar", "exams.path=[bold]x.csv")
    shown = io.StringIO()
    show_exams(result["exams"], Console(file=shown, width=300))
    assert "The [red]king were [/b]." in shown.getvalue()
    assert "[bold]x.csv" in shown.getvalue()


def test_the_terminal_shows_tables(run_main: Main, sat_run: Path) -> None:
    result, _ = evaluate(run_main, sat_run, *ALL)
    shown = io.StringIO()
    show_exams(result["exams"], Console(file=shown, width=200))
    text = shown.getvalue()
    assert "most confident mistakes" in text
    assert "unseen" in text
    assert "word order" in text
    assert "order_of_" not in text
    assert result["exams"][0]["mistakes"][0]["bad"] in text
    assert result["exams"][1]["notes"][0] in " ".join(text.split())
