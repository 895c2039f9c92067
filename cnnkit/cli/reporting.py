"""`cnnkit report`: the report of a run once more, or several runs side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from cnnkit import report as reports
from cnnkit.cli import common
from cnnkit.errors import OptionError
from cnnkit.report.markdown import to_markdown
from cnnkit.report.pictures import HOW_TO_GET_THEM

ENDINGS: Final = {"": "html", ".html": "html", ".htm": "html", ".md": "md"}
"""What a file is by its name, where nobody says it."""


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders: of one its report, of several a comparison.")
    ],
    format_: Annotated[
        str | None, typer.Option("--format", "-f", help="html or md. Default: what --out ends with, or html.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Default: RUN/report.html, comparison.html; Markdown is printed."),
    ] = None,
    json_: common.JsonOption = False,
) -> None:
    """Write the report of a run again, or compare several runs."""
    ending = "" if out is None else out.suffix.lower()
    if format_ is None and ending not in ENDINGS:
        raise OptionError(f"--out is {out}, which ends in {ending!r}; expected .html or .md, or say --format.")
    kind = format_ or ENDINGS[ending]
    if kind not in reports.FORMATS:
        raise OptionError(f"--format is {kind!r}; expected {' or '.join(reports.FORMATS)}.")
    if kind == "md" and out is None and json_:
        raise OptionError("--json and Markdown cannot both be printed. Give --out PATH for the Markdown.")
    common.show_warnings_as_notes()
    document = reports.document_of(runs)
    if not reports.has_pictures():
        tell_without_pictures("the same command again")
    if kind == "md" and out is None:
        sys.stdout.write(to_markdown(document))
        return
    default = runs[0] / reports.NAME if len(runs) == 1 else Path("comparison.html")
    path = reports.write(document, kind, out or default)
    if json_:
        common.print_json({"path": str(path), "format": kind, "runs": [str(run) for run in runs]})
    else:
        common.console.print(f"Wrote {path}.", soft_wrap=True)


def tell_without_pictures(then: str) -> None:
    """Say that a report has no pictures, and how to get them."""
    common.notes.print(
        f"note: the report is without pictures, since matplotlib is not installed. For them: {HOW_TO_GET_THEM}, then {then}",
        soft_wrap=True,
    )
