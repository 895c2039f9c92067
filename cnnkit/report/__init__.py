"""Reports: of one run, made from its folder alone, and of several runs side by side; as a page or as Markdown.

`cnnkit train` writes `report.html` into the run folder; `cnnkit report` writes it again, and compares runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cnnkit.errors import CnnkitError, OptionError
from cnnkit.files import write_whole
from cnnkit.report.comparison import comparison_document
from cnnkit.report.document import Document
from cnnkit.report.folder import read_run
from cnnkit.report.markdown import to_markdown
from cnnkit.report.page import to_html
from cnnkit.report.pictures import Studio
from cnnkit.report.single import run_document

__all__ = ["FORMATS", "NAME", "compare", "document_of", "has_pictures", "write", "write_report"]

NAME: Final = "report.html"
"""The report in a run folder."""
FORMATS: Final = ("html", "md")

Folder = str | os.PathLike[str]


def write_report(folder: Folder) -> Path:
    """Write `report.html` into the run folder and return its path. The same folder gives the same bytes.

    Without matplotlib (the extra `plot`) the report has no pictures, and says so; `has_pictures` tells. Raises
    `TrainingError` for a run that is not finished, `CheckpointError` where no run is there or it is damaged.
    """
    return write(document_of([folder]), "html", Path(folder) / NAME)


def compare(folders: Sequence[Folder], format: str = "html") -> str:  # noqa: A002 - the word of the command line
    """The comparison of at least two runs as `"html"` or `"md"`. Raises as `write_report` does, and `OptionError`."""
    if len(folders) < 2:
        raise OptionError(f"compare was given {len(folders)} run folders; expected at least 2.")
    _check_format(format)
    document = document_of(folders)
    return to_html(document) if format == "html" else to_markdown(document)


def document_of(folders: Sequence[Folder]) -> Document:
    """The report of one run, or the comparison of several, as data."""
    paths = [Path(folder) for folder in folders]
    twice = {path for path in paths if [other.resolve() for other in paths].count(path.resolve()) > 1}
    if twice:
        raise OptionError(f"{min(twice)} is given twice. Name every run once.")
    runs = [read_run(path) for path in paths]
    return run_document(runs[0], Studio()) if len(runs) == 1 else comparison_document(runs, Studio())


def has_pictures() -> bool:
    """Whether matplotlib is there to draw them."""
    return not Studio().missing


def write(document: Document, format: str, path: Path) -> Path:  # noqa: A002 - as above
    """Write a document to `path`; pictures of Markdown go into a folder beside it. Raises `CnnkitError` where that fails."""
    _check_format(format)
    try:
        text = to_html(document) if format == "html" else to_markdown(document, _saved_pictures(document, path))
        write_whole(path, text.encode())
    except OSError as error:
        raise CnnkitError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error
    return path


def _saved_pictures(document: Document, path: Path) -> list[str]:
    figures = document.figures()
    folder = path.with_name(f"{path.stem}-pictures")
    if figures:
        folder.mkdir(exist_ok=True)
    for number, figure in enumerate(figures, start=1):
        figure.picture.save(folder / f"figure-{number}.png")
    return [f"{quote(folder.name)}/figure-{number}.png" for number in range(1, len(figures) + 1)]


def _check_format(name: str) -> None:
    if name not in FORMATS:
        raise OptionError(f"the format is {name!r}; expected {' or '.join(FORMATS)}.")
