"""Write the report about a run or a sweep as HTML, Markdown or JSON.

Folders are untrusted. In HTML all text is escaped, pictures are embedded as PNG, and no external resource is
loaded; in Markdown all text from the folder is escaped.
"""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from seqexp.errors import UserError
from seqexp.files import make_folder, write_atomically
from seqexp.reports.page import MOST_CELL, MOST_TEXT, Picture, cut, run_page, sweep_page
from seqexp.reports.tables import escape_markdown
from seqexp.scored_text import colours
from seqexp.tracking.catalog import Entry

# Limit for all pictures of a report together.
MOST_PICTURES_BYTES = 30_000_000


def write_report(entry: Entry, target: Path) -> None:
    """Write the report about a run or sweep as HTML, or as Markdown if `target` ends in ``.md``.

    HTML embeds the pictures; Markdown links to them in ``<name>-files/``.

    Raises:
        UserError: the file cannot be written.
    """
    page = make_page(entry)
    make_folder(target.parent)
    try:
        if target.suffix == ".md":
            page["links"] = _write_pictures(page, target)
        text = render(page, "report.md.j2" if target.suffix == ".md" else "report.html.j2")
        write_atomically(target, text.encode(errors="backslashreplace"))
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from error


def _write_pictures(page: dict[str, Any], target: Path) -> dict[int, str]:
    """Write the pictures beside a Markdown report; return the link to each by the picture's ``id()``."""
    pictures = [*page["pictures"], *page["sample_pictures"]]
    for _, _, more in page["evaluations"]:
        pictures += more
    folder = target.with_name(f"{target.stem}-files")
    if pictures:
        make_folder(folder)
    links, written = {}, set()
    for i, picture in enumerate(pictures):
        name = re.sub("[^A-Za-z0-9]+", "_", picture.title).strip("_")[:60] + ".png"
        if name in written:
            name = f"{i}_{name}"
        written.add(name)
        write_atomically(folder / name, picture.png)
        links[id(picture)] = quote(f"{folder.name}/{name}")
    return links


def render(page: dict[str, Any], template: str) -> str:
    """Render the report with a template."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("seqexp.reports", "templates"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fence"] = _fence
    environment.filters["colours"] = colours
    environment.filters["cell"] = lambda text: escape_markdown(str(text))
    environment.filters["link"] = lambda picture: page["links"][id(picture)]
    return environment.get_template(template).render(**page) + "\n"


def _fence(text: str) -> str:
    """Return a code block with a fence longer than any run of backticks in the text."""
    text = text.replace("\r", "\n")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}\n{text}\n{marks}"


def make_page(entry: Entry) -> dict[str, Any]:
    """Return the content of the report, with long texts cut and pictures limited in total size."""
    page = sweep_page(entry) if entry.kind == "sweep" else run_page(entry)
    page["commands"] = [cut(command, MOST_TEXT) for command in page["commands"]]
    page["failures"] = [(cut(name), cut(error, MOST_TEXT)) for name, error in page["failures"][:100]]
    tables = [page[key] for key in ("facts", "comparison", "corpus", "config", "environment", "jobs")]
    for table in [*tables, *(table for _, tables, _ in page["evaluations"] for table in tables)]:
        if table:
            table.header = [cut(cell) for cell in table.header]
            table.rows = [
                [cut(cell) if isinstance(cell, str) else cell.cut(MOST_CELL) for cell in row]
                for row in table.rows
            ]
    bytes_left = MOST_PICTURES_BYTES
    for pictures in (
        page["pictures"],
        page["sample_pictures"],
        *(more for _, _, more in page["evaluations"]),
    ):
        kept = []
        for picture in pictures:
            bytes_left -= len(picture.png)
            kept += [picture] if bytes_left > 0 else []
        pictures[:] = kept
    return page


def as_json(entry: Entry) -> str:
    """Return the content of the report as JSON, with the titles of the pictures in their place."""

    def plain(value: Any) -> Any:
        return value.title if isinstance(value, Picture) else vars(value)

    return json.dumps(make_page(entry), default=plain, indent=2, ensure_ascii=False)
