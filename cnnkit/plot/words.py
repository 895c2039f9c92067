"""How pictures write names and figures: as they are, short enough, never as formulas, and not up to the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from matplotlib.layout_engine import ConstrainedLayoutEngine

from cnnkit.plot.picture import Picture

AS_WRITTEN: Final[dict[str, Any]] = {"parse_math": False}
"""For every text of a user's: a class may be called `$x$`, which matplotlib would set as a formula."""


def short(name: str, most: int) -> str:
    """`name` on one line, with an ellipsis in its middle where it is longer than `most`: both ends tell names apart."""
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    if len(name) <= most:
        return name
    end = (most - 1) // 3
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def percent(share: float) -> str:
    """`98 %`; 100 % is all and 0 % none, and nothing else is rounded to them."""
    if math.isnan(share):
        return "? %"
    if 0 < share < 0.01:
        return "< 1 %"
    if 0.99 < share < 1:
        return f"{math.floor(share * 1000) / 10:.1f} %" if share < 0.999 else "> 99.9 %"
    return f"{share:.0%}".replace("%", " %")


def counted(number: int, thing: str, things: str | None = None) -> str:
    """`1 image`, `1,000 images`."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """`a, b and c`; `a, b and 5 more`."""
    names = list(names)
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def with_margin(picture: Picture) -> Picture:
    """`picture`, whose layout leaves a tenth of an inch free at its edges."""
    engine = picture.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=0.1, h_pad=0.1)
    return picture
