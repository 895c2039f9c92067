"""Tables as text and as HTML: one place for what terminals and notebooks show."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Sequence


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[int] = ()) -> str:
    """A head and rows in columns as wide as their widest cell, aligned to the right but for the columns `left`."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def html_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    left: Collection[int] = (),
    wrapped: Collection[int] = (),
) -> str:
    """A `<table>` whose texts are never markup; only the columns `wrapped` may break into lines. No head is no `<thead>`.

    It says nothing of colours, so that it takes those of the page, light or dark.
    """

    def cell(column: int, text: str) -> str:
        side = "left" if column in left else "right"
        wrap = "normal" if column in wrapped else "nowrap"
        return f'<td style="text-align: {side}; white-space: {wrap}">{html.escape(text)}</td>'

    parts = ["<table>"]
    if caption:
        parts.append(f"<caption>{html.escape(caption)}</caption>")
    if head:
        parts.append(f"<thead><tr>{''.join(f'<th>{html.escape(text)}</th>' for text in head)}</tr></thead>")
    body = "".join(f"<tr>{''.join(map(cell, range(len(row)), row))}</tr>" for row in rows)
    return "".join([*parts, f"<tbody>{body}</tbody></table>"])


def html_text(text: str) -> str:
    """A `<pre>` with lines of text, which may be longer than the page is wide."""
    return f'<pre style="white-space: pre-wrap">{html.escape(text)}</pre>'


_UNPRINTABLE = re.compile(
    "[^\t\n -~\x85\xa0-\u061b\u061d-\u200d\u2010-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
"""Control characters and halves of pairs, which HTML forbids, and marks that turn the direction of what follows."""


def printable(text: object) -> str:
    """Text that may stand on a page, in a picture, and on a terminal, which takes some of the others for orders."""
    return _UNPRINTABLE.sub("", str(text))
