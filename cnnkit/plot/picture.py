"""`Picture`: a matplotlib figure that says in words what it shows, and is written as PNG or SVG, whole or not at all."""

from __future__ import annotations

import base64
import functools
import html
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec

from cnnkit.errors import CnnkitError, MissingDependency, OptionError
from cnnkit.files import write_whole
from cnnkit.tables import printable

try:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingDependency("Pictures", "matplotlib", "plot") from error

INK: Final = "#1f2328"
SOFT: Final = "#646c75"
GRID: Final = "#d5d9de"
SERIES: Final = ("#17437c", "#d97a0b", "#4c8f57", "#9a2f5f")
"""Colours of lines, in this order. Lines differ in their style and marker too, since grey shows only light and dark."""
LINES: Final = ("-", "--", ":", "-.")
MARKERS: Final = ("o", "s", "^", "D")
COUNTS: Final = "Blues"
"""For what begins at 0. Its lightness falls all the way, so that it means the same in grey."""
SIGNED: Final = "gray"
"""For what may be negative: dark below 0, light above, with limits of equal distance. Two-ended colour maps have two dark
ends, which grey cannot tell apart."""

STYLE: Final[Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture everywhere
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": GRID,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $x$
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # a letter looks the same on a machine without the font
    "svg.hashsalt": "cnnkit",  # the same picture is the same file
    "image.interpolation": "nearest",
}
DOTS_PER_INCH: Final = 144

P = ParamSpec("P")


class Picture(Figure):
    """A matplotlib `Figure` whose `alt` says in words what can be seen, for those who cannot see it.

    Change it as any figure; `save` writes it, and notebooks show it with its words.
    """

    def __init__(self, width: float, height: float) -> None:
        """An empty picture of `width` x `height` inches."""
        super().__init__(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self)
        self.alt = ""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to `path`, whose name ends in .png or .svg, and return the path.

        A file that is there is replaced. The words of `alt` are in the file: as the description of a PNG, as title of an
        SVG. Raises `OptionError` for another ending and `CnnkitError` where the file cannot be written.
        """
        path = Path(path)
        kind = path.suffix.lower().removeprefix(".")
        if kind not in ("png", "svg"):
            raise OptionError(f"the picture {path} ends in {path.suffix or 'nothing'!r}; expected .png or .svg.")
        data = self.svg().encode() if kind == "svg" else self.png()
        try:
            write_whole(path, data)
        except OSError as error:
            raise CnnkitError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error
        return path

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file."""
        with mpl.rc_context(STYLE):
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None, "Description": self.alt})
        return buffer.getvalue()

    def svg(self) -> str:
        """The picture as SVG: one element with role, title and no date, ready to stand in a page."""
        with mpl.rc_context(STYLE):
            buffer = io.BytesIO()
            self.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        drawn = buffer.getvalue().decode()
        title = f"<title>{html.escape(self.alt)}</title>"
        return re.sub(r"<svg ([^>]*)>", lambda found: f'<svg role="img" {found[1]}>{title}', drawn, count=1)

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png()).decode()
        width = round(self.get_figwidth() * 100)
        return f'<img alt="{html.escape(self.alt)}" width="{width}" src="data:image/png;base64,{data}">'


def picture(draw: Callable[P, Picture]) -> Callable[P, Picture]:
    """What a function draws is drawn in our style, whatever the user's own matplotlibrc says, and has words."""

    @functools.wraps(draw)
    def drawn(*arguments: P.args, **settings: P.kwargs) -> Picture:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            made = draw(*arguments, **settings)
        if not made.alt:
            raise AssertionError(f"{draw.__name__} has no words for its picture")
        made.alt = printable(made.alt)  # the names in it are a stranger's, and a control character is no XML
        return made

    return drawn
