"""Small images in rows with words beside or above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from cnnkit.arrays import Images, Shape
from cnnkit.plot.picture import SERIES, SOFT, Picture
from cnnkit.plot.words import AS_WRITTEN, short

GAP: Final = 0.08
"""Between neighbours, in lengths of an image."""
MARGIN: Final = 0.2
"""Inches around the grid."""
BROKEN: Final = SERIES[1]
"""The colour of pixels that are NaN or infinite."""
FINEST: Final = 256
"""Pixels a side that are enough for a small picture of a large image."""
LEAST: Final = 0.17
"""Inches that a row has at least, however flat its images are."""
FONT: Final = 7.5
LETTER: Final = 0.63
"""How wide a letter is at most on average, in font sizes."""


class Grid:
    """`.made` is a `Picture` of images in rows, in one pair of axes: a hundred pairs would take matplotlib seconds.

    The longer side of an image is `size` inches; `shape`, which begins (height, width), is that of the largest. Above
    each is room for `lines` of `.letters` letters; `names`, where given, stand before the rows, and a `title` over all.
    """

    def __init__(
        self,
        columns: int,
        rows: int,
        shape: Shape,
        *,
        size: float = 0.7,
        lines: int = 0,
        names: Sequence[str] = (),
        title: str = "",
    ) -> None:
        # All lengths but those of the figure are in units of `size`.
        self._half = tuple(side / max(shape[:2]) / 2 for side in shape[:2])
        self._line = FONT * 1.25 / 72 / size
        self._words = lines * self._line
        self._down, self._across = (max(2 * half + GAP, LEAST / size) for half in self._half)
        self._down += self._words
        if lines:
            self._across = max(self._across, 0.7)
        self.letters = int(self._across * size * 72 / (FONT * LETTER))
        names = [short(name, 30) for name in names]
        before = max((len(name) * FONT * LETTER / 72 for name in names), default=0.0)  # inches, as the next
        width, height = columns * self._across * size, rows * self._down * size
        over = 0.25 if title else 0.0
        full = (max(width + before, len(title) * 9.5 * LETTER / 72) + 2 * MARGIN, height + over + 2 * MARGIN)
        self.made = Picture(*full)
        self.made.set_layout_engine("none")
        place = ((before + MARGIN) / full[0], MARGIN / full[1], width / full[0], height / full[1])
        self._axes = self.made.add_axes(place)
        self._axes.set_axis_off()
        self._axes.set_xlim(0, columns * self._across)
        self._axes.set_ylim(rows * self._down, 0)
        self.made.text(MARGIN / full[0], 1 - MARGIN / full[1], title, ha="left", va="top", fontsize=9.5, **AS_WRITTEN)
        for row, name in enumerate(names):
            self._axes.text(-GAP / 2, self._middle(row), name, ha="right", va="center", fontsize=FONT, **AS_WRITTEN)

    def _middle(self, row: int) -> float:
        return (row + 0.5) * self._down + self._words / 2  # the words stand above

    def show(self, row: int, column: int, tile: NDArray[np.float64]) -> None:
        """Put an image `(height, width, 3)` at its place."""
        x, y, (high, wide) = (column + 0.5) * self._across, self._middle(row), self._half
        left, right, bottom, top = x - wide, x + wide, y + high, y - high
        self._axes.imshow(tile, extent=(left, right, bottom, top), aspect="auto", interpolation="auto")
        # A white image on white has no edge of its own.
        self._axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=SOFT, linewidth=0.4)

    def caption(self, row: int, column: int, lines: Sequence[str]) -> None:
        """Words above the image, one line under the other."""
        x, y = (column + 0.5) * self._across, self._middle(row) - self._half[0] - GAP / 4
        for place, line in enumerate(reversed(lines)):
            self._axes.text(x, y - place * self._line, line, ha="center", va="bottom", fontsize=FONT, **AS_WRITTEN)

    def remark(self, row: int, text: str) -> None:
        """Words where images would be."""
        style: Any = {"fontsize": FONT, "color": SOFT, "style": "italic"}
        self._axes.text(GAP / 2, self._middle(row), text, ha="left", va="center", **style)


def tiles_of(images: Images) -> tuple[NDArray[np.float64], str]:
    """Images `(n, height, width, channels)` as red, green and blue from 0 to 1, `(n, h, w, 3)`, and their scale in words.

    One scale for all: 0 to 255 for uint8, else 0 to 1 where all values lie there, else from the lowest to the highest.
    """
    step = max(1, -(-max(images.shape[1:3]) // FINEST))
    values = images[:, ::step, ::step].astype(np.float64)  # (n, h, w, channels)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 1.0)
    scale = f"values {low:.4g} to {high:.4g} from black to white"
    if images.dtype == np.uint8:
        low, high, scale = 0.0, 255.0, "values 0 to 255"
    elif low >= 0 and high <= 1:
        low, high, scale = 0.0, 1.0, "values 0 to 1"
    spread = (high - low) or 1.0
    broken = ~finite.all(axis=-1)  # (n, h, w)
    shades = (np.where(finite, values, low) - low) / spread
    channels = shades.shape[-1]
    if channels != 3:
        shades = np.repeat(shades.mean(axis=-1, keepdims=True), 3, axis=-1)
        scale += f", the mean of {channels} channels" if channels > 1 else ""
    shades[broken] = to_rgb(BROKEN)
    if broken.any():
        scale += f", {int(broken.sum()):,} pixels not finite and orange"
    return shades, scale
