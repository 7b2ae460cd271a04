"""`seqexp report`: a report about a run or a sweep, to read, print, or hand in."""

import sys

from seqexp.commands.plain import Parser
from seqexp.errors import UserError
from seqexp.files import user_path
from seqexp.tracking.catalog import find

DESCRIPTION = """Write a report about a run or a sweep: how to run it again, corpus, settings, curves,
samples, evaluations, comparison, failures, environment. One self-contained HTML file, and a Markdown file.

  seqexp report latest
  seqexp report outputs/sweeps/length
  seqexp report outputs/train/gpt_potter/2026-01-31_12-00-00-000000 --output handin.html"""

OPTIONS = ["--output", "--json", "--help"]


def main(arguments: list[str]) -> None:
    parser = Parser("seqexp report", DESCRIPTION)
    parser.add_argument("target", metavar="RUN|SWEEP", help="a folder, or latest")
    parser.add_argument(
        "--output", metavar="FILE", help="ends in .html or .md; else report.html and report.md there"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the content of the report as JSON, and write no file"
    )
    options = parser.parse_args(arguments)
    (entry,) = find(options.target)
    if entry.kind not in ("train", "sweep"):
        raise UserError(
            f"{options.target} is from `seqexp {entry.kind}`; name the training run or the sweep."
        )

    from seqexp.reports.report import as_json, write_report

    if options.json:
        print(as_json(entry))
        return
    files = [entry.path / "report.html", entry.path / "report.md"]
    if options.output:
        files = [user_path(options.output)]
    for file in files:
        if file.suffix not in (".html", ".md"):
            raise UserError(f"--output {file}: the name must end in .html or .md.")
        write_report(entry, file)
        print(f"wrote {file}", file=sys.stderr)
