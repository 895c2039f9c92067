"""A report as data: sections of paragraphs, tables and pictures, in plain text; `page` and `markdown` write it down.

Nothing here is markup. Names of models, classes and files are text like any other, and each form escapes it its own way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from cnnkit.plot import Picture


@dataclass(frozen=True)
class Mono:
    """A piece of text that a computer reads: a command, a path."""

    text: str


@dataclass(frozen=True)
class Ref:
    """`Table 3`, `Figure 1`: the table or figure with this key, by its number."""

    key: str


Words: TypeAlias = str | tuple[str | Mono | Ref, ...]
"""Running text, perhaps with pieces of another kind in it."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table that looks otherwise: `shade` from 0 to 9 behind it, or a bold face."""

    text: str
    shade: int = 0
    strong: bool = False


@dataclass(frozen=True)
class Paragraph:
    """Some sentences; of the kind `warning` they stand out."""

    words: Words
    kind: Literal["", "soft", "warning"] = ""


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values. Where a value is empty, the name is left out."""

    pairs: Sequence[tuple[str, Words]]

    def told(self) -> list[tuple[str, Words]]:
        """The pairs that have a value."""
        return [(name, value) for name, value in self.pairs if value]


@dataclass(frozen=True)
class Table:
    """Rows under a head. The first cell of a row says what the row is; of the other columns, `words` hold no numbers."""

    key: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    words: frozenset[int] = frozenset()
    kind: str = ""
    corner: str = ""
    """What stands over the head, from the second column on."""

    def __post_init__(self) -> None:
        """A row is as long as the head."""
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"table {self.key}: a row is not as long as the head")


@dataclass(frozen=True)
class Figure:
    """A picture with its caption."""

    key: str
    caption: str
    picture: Picture
    dark: bool = False
    """Whether it may be turned to light lines on dark paper: one that is made of lines and words alone."""


Block: TypeAlias = Paragraph | Code | Facts | Table | Figure


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A whole report: what it is, the one sentence, what to know first, and the sections."""

    kind: str
    headline: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    warnings: Sequence[Words] = ()
    notes: Sequence[Words] = ()
    broad: bool = False
    """Whether its tables take all the room there is."""
    numbers: dict[str, str] = field(init=False)
    """`Table 1`, `Figure 2`... by key."""

    def __post_init__(self) -> None:
        """Number tables and figures in the order in which they stand."""
        numbers: dict[str, str] = {}
        counts = {"Table": 0, "Figure": 0}
        for block in self.blocks():
            if isinstance(block, Table | Figure):
                kind = type(block).__name__
                counts[kind] += 1
                numbers[block.key] = f"{kind} {counts[kind]}"
        object.__setattr__(self, "numbers", numbers)

    def blocks(self) -> Iterator[Block]:
        """All blocks of all sections."""
        for section in self.sections:
            yield from section.blocks

    def figures(self) -> list[Figure]:
        """The pictures, in their order."""
        return [block for block in self.blocks() if isinstance(block, Figure)]
