"""Small images in rows with words beside or above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from cnnkit.arrays import Images
from cnnkit.plot.picture import INK, SERIES, SOFT, Picture
from cnnkit.plot.words import AS_WRITTEN, short

GAP: Final = 0.08
"""Between neighbours, in lengths of an image."""
MARGIN: Final = 0.2
"""Inches around the grid."""
BROKEN: Final = SERIES[1]
"""The colour of pixels that are NaN or infinite."""
FINEST: Final = 256
"""Pixels a side that are enough for a small picture of a large image."""
LETTER: Final = 0.63
"""How wide a letter is at most on average, in font sizes."""


class Grid:
    """`.made` is a `Picture` of images in rows, in one pair of axes: a hundred pairs would take matplotlib seconds.

    An image is `size` inches wide or high. Above each is room for `lines` of words; `names`, where given, stand before
    the rows; a `title` stands over all. `.letters` have room above an image.
    """

    def __init__(
        self,
        columns: int,
        rows: int,
        *,
        size: float = 0.7,
        lines: int = 0,
        font: float = 7.5,
        names: Sequence[str] = (),
        title: str = "",
    ) -> None:
        self._font = font
        self._line = font * 1.25 / 72 / size  # in lengths of an image, as all that follows
        self._pitch = 1 + GAP + lines * self._line
        names = [short(name, 30) for name in names]
        before = max((len(name) * font * LETTER / 72 for name in names), default=0.0)  # inches
        self.letters = int(size * (1 + GAP) * 72 / (font * LETTER))
        width, height = columns * size * (1 + GAP), rows * size * self._pitch
        over = 0.25 if title else 0.0
        wide = max(width + before, len(title) * 9.5 * LETTER / 72)
        self.made = Picture(wide + 2 * MARGIN, height + over + 2 * MARGIN)
        self.made.set_layout_engine("none")
        whole = self.made.get_size_inches()
        self._axes = self.made.add_axes(
            ((before + MARGIN) / whole[0], MARGIN / whole[1], width / whole[0], height / whole[1])
        )
        self._axes.set_axis_off()
        self.made.text(MARGIN / whole[0], 1 - MARGIN / whole[1], title, ha="left", va="top", fontsize=9.5, **AS_WRITTEN)
        self._axes.set_xlim(-(1 + GAP) / 2, columns * (1 + GAP) - (1 + GAP) / 2)
        self._axes.set_ylim(rows * self._pitch - (1 + GAP) / 2, -(1 + GAP) / 2)
        for row, name in enumerate(names):
            self._axes.text(
                -(1 + 2 * GAP) / 2, self._middle(row), name, ha="right", va="center", fontsize=font, **AS_WRITTEN
            )

    def _middle(self, row: int) -> float:
        return row * self._pitch + (self._pitch - 1 - GAP)  # the words stand above

    def show(self, row: int, column: int, tile: NDArray[np.float64]) -> None:
        """Put an image `(height, width, 3)` at its place, its longer side as long as there is room."""
        height, width = (side / max(tile.shape[:2]) / 2 for side in tile.shape[:2])
        x, y = column * (1 + GAP), self._middle(row)
        edges = (x - width, x + width, y + height, y - height)
        self._axes.imshow(tile, extent=edges, aspect="auto", interpolation="auto")
        across, down = (
            (edges[0], edges[1], edges[1], edges[0], edges[0]),
            (edges[3], edges[3], edges[2], edges[2], edges[3]),
        )
        self._axes.plot(across, down, color=SOFT, linewidth=0.4)  # or a white image would have no edge

    def caption(self, row: int, column: int, lines: Sequence[str]) -> None:
        """Words above the image, one line under the other."""
        y = self._middle(row) - 0.5 - GAP / 4
        for place, line in enumerate(reversed(lines)):
            self._axes.text(
                column * (1 + GAP),
                y - place * self._line,
                line,
                ha="center",
                va="bottom",
                fontsize=self._font,
                color=INK,
                **AS_WRITTEN,
            )

    def remark(self, row: int, text: str) -> None:
        """Words where images would be."""
        self._axes.text(
            -0.5, self._middle(row), text, ha="left", va="center", fontsize=self._font, color=SOFT, style="italic"
        )


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
