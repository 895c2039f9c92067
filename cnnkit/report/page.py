"""A report as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

import base64
from html import escape
from typing import Final

import cnnkit
from cnnkit.report.document import Block, Cell, Code, Document, Facts, Figure, Mono, Paragraph, Ref, Table, Words
from cnnkit.report.style import STYLE
from cnnkit.tables import printable

NARROW: Final = 5.0
"""Inches of a picture that can be read on a telephone without scrolling."""
MOST_LYING: Final = 4
"""Letters of a name over a column of a matrix that lies."""
PIXELS_PER_INCH: Final = 104

DARKENED: Final = {
    "#ffffff": "#16181b",
    "#1f2328": "#e8e8e4",
    "#646c75": "#a9aeb5",
    "#d5d9de": "#3a3e44",
    "#17437c": "#8fb8f5",
    "#d97a0b": "#f0a04b",
    "#4c8f57": "#74cc91",
    "#9a2f5f": "#f08bb8",
}
"""The colours of pictures on light paper, and what stands for each on dark paper."""


def to_html(document: Document) -> str:
    """The whole page. Whatever stands in the document is escaped, and nothing on the page may run or be fetched."""
    title = f"{document.kind}: {document.headline}"
    sections = [
        f'<section id="section-{section.anchor}" aria-labelledby="section-{section.anchor}-title">\n'
        f'<h2 id="section-{section.anchor}-title">{number}. {e(section.title)}</h2>\n'
        + "\n".join(_block(block, document) for block in section.blocks)
        + "\n</section>"
        for number, section in enumerate(document.sections, start=1)
    ]
    contents = "".join(
        f'<li><a href="#section-{section.anchor}">{number}. {e(section.title)}</a></li>'
        for number, section in enumerate(document.sections, start=1)
    )
    key = "".join(f"<div><dt>{e(name)}</dt><dd>{e(value)}</dd></div>" for name, value in document.facts)
    said = [Paragraph(words, "warning") for words in document.warnings]
    said += [Paragraph(words, "soft") for words in document.notes]
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="generator" content="cnnkit {e(cnnkit.__version__)}">
<title>{e(title)}</title>
<style>
{STYLE}
</style>
</head>
<body{' class="broad"' if document.broad else ""}>
<header>
<h1>{e(document.kind)}</h1>
<p class="headline">{e(document.headline)}</p>
<p class="soft">{e(document.subtitle)}</p>
<dl class="key">{key}</dl>
{"".join(_block(words, document) for words in said)}
<nav aria-label="Contents"><ol>{contents}</ol></nav>
</header>
<main>
{"".join(sections)}
</main>
<footer>Written by cnnkit {e(cnnkit.__version__)} from what lies in the run folder{"s" if document.broad else ""}.</footer>
</body>
</html>
"""


def e(text: object) -> str:
    """Text in which nothing is markup, for the inside of an element or of a quoted attribute."""
    return escape(printable(text))


def _words(words: Words, document: Document) -> str:
    parts = (words,) if isinstance(words, str) else words
    said = []
    for part in parts:
        match part:
            case Mono(text):
                said.append(f"<code>{e(text).replace('/', '/<wbr>')}</code>")
            case Ref(key):
                said.append(f'<a href="#{e(key)}">{document.numbers[key]}</a>')
            case _:
                said.append(e(part))
    return "".join(said)


def _block(block: Block, document: Document) -> str:
    match block:
        case Paragraph(words, kind):
            return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{_words(words, document)}</p>"
        case Code(text):
            return f"<pre>{e(text)}</pre>"
        case Facts():
            pairs = "".join(
                f"<div><dt>{e(name)}</dt><dd>{_words(value, document)}</dd></div>" for name, value in block.told()
            )
            return f'<dl class="facts">{pairs}</dl>'
        case Table():
            return _table(block, document)
        case Figure():
            return _figure(block, document)


# -------------------------------------------------------------------------------------------------------------- tables


def _table(table: Table, document: Document) -> str:
    """A table with a caption, a row of headings, and a heading in front of each row, in a region that scrolls sideways."""
    columns = range(len(table.head))
    side = ["" if not column or column in table.words else ' class="number"' for column in columns]
    top = "".join(_heading(cell, at, table) for cell, at in zip(table.head, side, strict=True))
    corner = (
        f'<tr><td></td><th scope="colgroup" class="corner" colspan="{len(table.head) - 1}">{e(table.corner)}</th></tr>'
        if table.corner
        else ""
    )
    rows = "\n".join(
        f'<tr><th scope="row">{e(_text(first))}</th>'
        + "".join(_cell(cell, at) for cell, at in zip(rest, side[1:], strict=True))
        + "</tr>"
        for first, *rest in table.rows
    )
    caption = f'<caption id="{e(table.key)}-caption"><span><b>{document.numbers[table.key]}.</b> {e(table.caption)}</span></caption>'
    made = (
        f'<table id="{e(table.key)}"{f" class={chr(34)}{table.kind}{chr(34)}" if table.kind else ""}>\n{caption}\n'
        f"<thead>{corner}<tr>{top}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    )
    return _scrolling(f"{table.key}-caption", made)


def _heading(text: str, side: str, table: Table) -> str:
    """Of a column. Where the names of a matrix are long they stand upright, to keep its columns narrow."""
    if table.kind == "matrix" and side and max(map(len, table.head[1:])) > MOST_LYING:
        return f'<th scope="col" class="number upright"><span>{e(text)}</span></th>'
    return f'<th scope="col"{side}>{e(text)}</th>'


def _cell(cell: str | Cell, side: str) -> str:
    if isinstance(cell, str):
        return f"<td{side}>{e(cell)}</td>"
    classes = [*(["number"] if side else []), *([f"s{cell.shade}"] if cell.shade else [])]
    attribute = f' class="{" ".join(classes)}"' if classes else ""
    inside = f"<b>{e(cell.text)}</b>" if cell.strong else e(cell.text)
    return f"<td{attribute}>{inside}</td>"


def _text(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


def _scrolling(label: str, inside: str) -> str:
    """What may be wider than the screen scrolls by itself, by the keyboard too."""
    return f'<div class="wide" role="region" tabindex="0" aria-labelledby="{e(label)}">\n{inside}\n</div>'


# ------------------------------------------------------------------------------------------------------------ pictures


def _figure(figure: Figure, document: Document) -> str:
    width = figure.picture.get_figwidth()
    svg = figure.picture.svg()
    if figure.dark:
        svg = darkened(svg)
    data = base64.b64encode(svg.encode()).decode()
    kind = "broad" if width > NARROW else "narrow"
    image = (
        f'<img class="{kind}" width="{round(width * PIXELS_PER_INCH)}" '
        f'height="{round(figure.picture.get_figheight() * PIXELS_PER_INCH)}" alt="{e(figure.picture.alt)}" '
        f'src="data:image/svg+xml;base64,{data}">'
    )
    label = f"{figure.key}-caption"
    caption = f'<figcaption id="{e(label)}"><b>{document.numbers[figure.key]}.</b> {e(figure.caption)}</figcaption>'
    return f'<figure id="{e(figure.key)}">\n{_scrolling(label, image)}\n{caption}\n</figure>'


def darkened(svg: str) -> str:
    """The same drawing with a rule for dark screens in it: each colour of ours, wherever it is used, has another there."""
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARKENED.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media screen and (prefers-color-scheme: dark){{{rules}}}</style>"
    start = svg.index(">", svg.index("<svg ")) + 1
    return svg[:start] + style + svg[start:]
