"""Pieces of HTML: escaped text, names that may break at their dots, tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import urlsplit

from cnnkit.conformance.reports.digest import SYMBOLS, State, printable


def e(text: object) -> str:
    """Text in which nothing is markup, for the inside of an element or of a quoted attribute."""
    return escape(printable(str(text)))


def name(text: str) -> str:
    """A case, a feature, a path: as code that may break after its dots where a line is short."""
    return f"<code>{e(text).replace('.', '.<wbr>').replace('/', '/<wbr>')}</code>"


def mark(state: State, words: str, symbol: State | None = None) -> str:
    """A symbol, and the same in words, which are HTML: no fact is told by a colour or a symbol alone."""
    return f'<span class="{state}"><span aria-hidden="true">{SYMBOLS[symbol or state]}</span>&nbsp;{words}</span>'


def link(address: str) -> str:
    """A link if the address is one of the web; else the text alone, so that nothing in it can run."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return e(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return e(address)
    return f'<a href="{e(address)}" rel="noopener noreferrer">{e(address)}</a>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "", right: str = "") -> str:
    """A table with a caption, a row of headings, and a heading in front of each row. Cells are HTML.

    `right` names the columns, counted from 0, whose cells are numbers.
    """
    side = [' class="number"' if str(column) in right.split() else "" for column in range(len(head))]
    top = "".join(f'<th scope="col"{at}>{cell}</th>' for cell, at in zip(head, side, strict=True))
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td{at}>{cell}</td>" for cell, at in zip(rest, side[1:], strict=True))}</tr>'
        for first, *rest in rows
    )
    return (
        f'<table class="{kind}">\n<caption>{caption}</caption>\n<thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and values; values are HTML, and those that are empty are left out."""
    return f'<dl class="facts">{"".join(f"<div><dt>{e(key)}</dt><dd>{value}</dd></div>" for key, value in pairs if value)}</dl>'


def folded(summary: str, inside: str, kind: str = "") -> str:
    """Something to unfold."""
    return f'<details class="{kind}"><summary>{summary}</summary>\n{inside}\n</details>'


def section(anchor: str, title: str, *inside: str) -> str:
    """A part of the page with its heading."""
    body = "\n".join(part for part in inside if part)
    return f'<section id="{anchor}" aria-labelledby="{anchor}-title">\n<h2 id="{anchor}-title">{e(title)}</h2>\n{body}\n</section>'
