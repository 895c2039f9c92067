"""A report as Markdown, for a terminal, a pull request or pandoc."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cnnkit.report.document import Block, Cell, Code, Document, Facts, Figure, Mono, Paragraph, Ref, Table, Words
from cnnkit.tables import printable


def to_markdown(document: Document, pictures: Sequence[str] = ()) -> str:
    """The report, with `pictures`, one path for each figure; without them, what each picture shows is said in words."""
    paths = dict(zip((figure.key for figure in document.figures()), pictures, strict=True)) if pictures else {}
    blocks = [f"# {text(document.kind)}", f"**{text(document.headline)}**", text(document.subtitle)]
    blocks.append("\n".join(f"- {text(name)}: {text(value)}" for name, value in document.facts))
    blocks += [f"> {_words(words, document)}" for words in (*document.warnings, *document.notes)]
    for number, section in enumerate(document.sections, start=1):
        blocks.append(f"## {number}. {text(section.title)}")
        blocks += [_block(block, document, paths) for block in section.blocks]
    return "\n\n".join(block for block in blocks if block) + "\n"


def text(words: object) -> str:
    """Running text in which nothing is markup, a link or a mention."""
    escaped = re.sub(r"([\\`*_\[\]<>#|~&$])", r"\\\1", re.sub(r"\s", " ", printable(words)))
    escaped = re.sub(r"(?i)(:(?=//)|(?<=www)\.)", r"\\\1", escaped)  # GitHub makes links of addresses as well
    return escaped.replace("@", "@\N{ZERO WIDTH SPACE}")


def _code(words: str) -> str:
    """Text as it is, on one line, fit for a table as well."""
    words = re.sub(r"\s", " ", printable(words)).replace("|", "\\|")
    fence = _longer_than_in(words, 0)
    pad = " " if "`" in words else ""
    return f"{fence}{pad}{words}{pad}{fence}"


def _longer_than_in(words: str, least: int) -> str:
    """More backticks than stand together anywhere in `words`."""
    return "`" * (1 + max([least, *(len(run) for run in re.findall("`+", words))]))


def _words(words: Words, document: Document) -> str:
    parts = (words,) if isinstance(words, str) else words
    said = []
    for part in parts:
        match part:
            case Mono(code):
                said.append(_code(code))
            case Ref(key):
                said.append(document.numbers[key])
            case _:
                said.append(text(part))
    return "".join(said)


def _block(block: Block, document: Document, paths: dict[str, str]) -> str:
    match block:
        case Paragraph(words):
            return _words(words, document)
        case Code(lines):
            fence = _longer_than_in(lines, 2)
            return f"{fence}text\n{printable(lines)}\n{fence}"
        case Facts():
            return "\n".join(f"- {text(name)}: {_words(value, document)}" for name, value in block.told())
        case Table():
            return _table(block, document)
        case Figure():
            said = f"**{document.numbers[block.key]}.** {text(block.caption)}"
            if block.key in paths:
                return f"![{text(block.picture.alt)}]({paths[block.key]})\n\n{said}"
            return f"{said} In words: {text(block.picture.alt)}"


def _table(table: Table, document: Document) -> str:
    marks = [":--" if not column or column in table.words else "--:" for column in range(len(table.head))]
    over = f" Columns: {text(table.corner).lower()}." if table.corner else ""
    lines = [f"**{document.numbers[table.key]}.** {text(table.caption)}{over}", ""]
    lines += [_row([text(cell) for cell in table.head]), _row(marks)]
    lines += [_row([_cell(cell) for cell in row]) for row in table.rows]
    return "\n".join(lines)


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return text(cell)
    return f"**{text(cell.text)}**" if cell.strong else text(cell.text)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
