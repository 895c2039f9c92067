"""Many small pictures of one size in one pair of axes: kernels, feature maps, patches, and numbers in their cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cnnkit.plot.picture import INK, SIGNED, SOFT
from cnnkit.worked import as_text

Limits = tuple[float, float]

GAP: Final = 0.14
"""Between neighbours, in widths of a tile."""
SMALLEST: Final = 4.5
"""Points of the smallest numbers."""
TITLE: Final = 0.088
"""Inches of a letter of a title, about."""
HATCH: Final = "////"
"""What lies over padding."""


def signed_limits(*arrays: NDArray[Any]) -> Limits:
    """Limits of equal distance from 0 that hold every finite value."""
    most = max((float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in arrays), default=0.0)
    return (-most, most) if most else (-1.0, 1.0)


def map_limits(*arrays: NDArray[Any]) -> Limits:
    """From 0 (black) to the highest value (white) where nothing is below 0; else limits of equal distance from 0."""
    low, high = signed_limits(*arrays)
    lowest = min(float(array[np.isfinite(array)].min(initial=0.0)) for array in arrays)
    return (low, high) if lowest < 0 else (0.0, high)


def as_seen(image: NDArray[Any], lowest: float | None = None, highest: float | None = None) -> NDArray[np.float64]:
    """An image `(height, width, channels)` as people see it, from 0 to 1: grey `(height, width)`, or RGB of 3 channels.

    uint8 goes from 0 to 255; other numbers from the lowest to the highest, of the image where they are not given. Of 2,
    or more than 3 channels the mean is shown.
    """
    values = image.astype(np.float64)
    if image.dtype == np.uint8:
        lowest, highest = 0.0, 255.0
    finite = values[np.isfinite(values)]
    if lowest is None:
        lowest = float(finite.min(initial=math.inf)) if finite.size else 0.0
    if highest is None:
        highest = float(finite.max(initial=-math.inf)) if finite.size else 1.0
    shown: NDArray[np.float64] = np.clip((values - lowest) / ((highest - lowest) or 1.0), 0, 1)
    if shown.shape[2] == 3:
        return shown
    mean: NDArray[np.float64] = shown.mean(axis=2)
    return mean


def balanced(count: int, most: int) -> int:
    """How many columns give `count` tiles as few rows as `most` columns would, and the last row few holes."""
    return math.ceil(count / math.ceil(count / most))


@dataclass(frozen=True)
class Grid:
    """Where the tiles stand: `count` of them, `columns` in a row, each a stack of `stack` pictures of `shape`.

    The unit is the width of a tile.
    """

    count: int
    columns: int
    shape: tuple[int, int]
    stack: int = 1
    label: float = 0.0
    """Height of the line for a label above each tile."""

    @property
    def rows(self) -> int:
        """How many rows of tiles."""
        return math.ceil(self.count / self.columns)

    @property
    def tile(self) -> float:
        """The height of one picture."""
        return self.shape[0] / self.shape[1]

    @property
    def pitch(self) -> float:
        """From one row of tiles to the next."""
        return self.label + self.stack * self.tile + (self.stack - 1) * GAP / 3 + GAP

    @property
    def width(self) -> float:
        """Of the whole."""
        return min(self.columns, self.count) * (1 + GAP) - GAP

    @property
    def height(self) -> float:
        """Of the whole."""
        return self.rows * self.pitch - GAP

    def corner(self, number: int, level: int = 0) -> tuple[float, float]:
        """Left and top of a picture."""
        row, column = divmod(number, self.columns)
        return column * (1 + GAP), row * self.pitch + self.label + level * (self.tile + GAP / 3)


def draw_tiles(
    axes: Axes,
    grid: Grid,
    tiles: Sequence[Sequence[NDArray[Any]]],
    limits: Limits,
    labels: Sequence[str] | None = None,
    label_size: float = 7.0,
) -> AxesImage:
    """Draw `tiles[number][level]`, each `(height, width)` in greys or `(height, width, 3)`; return one for a colour bar."""
    drawn = None
    for number, stack in enumerate(tiles):
        for level, tile in enumerate(stack):
            left, top = grid.corner(number, level)
            drawn = place(axes, tile, left, top, 1.0, grid.tile, limits)
        if labels:
            left, top = grid.corner(number)
            axes.text(left + 0.5, top - 0.04, labels[number], ha="center", va="bottom", size=label_size, color=SOFT)
    bare(axes, (-0.03, grid.width + 0.03), (-0.03, grid.height + 0.03))
    if drawn is None:
        raise AssertionError("there is no tile to draw")
    return drawn


def place(
    axes: Axes, tile: NDArray[Any], left: float, top: float, width: float, height: float, limits: Limits
) -> AxesImage:
    """One picture at a place of the axes, with a thin frame: white stands on white."""
    extent = (left, left + width, top + height, top)
    drawn = axes.imshow(tile, cmap=SIGNED, vmin=limits[0], vmax=limits[1], extent=extent, aspect="equal")
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=SOFT, linewidth=0.6))
    return drawn


def bare(axes: Axes, across: Limits, down: Limits) -> None:
    """Nothing but what is drawn, row 0 on top."""
    axes.set_xlim(*across)
    axes.set_ylim(down[1], down[0])
    axes.set_aspect("equal")
    axes.set_axis_off()


# --------------------------------------------------------------------------------------------------------------- cells


def number_size(values: NDArray[Any], cell: float) -> float | None:
    """The size in points in which the values fit into cells `cell` inches wide; None where nobody could read it."""
    longest = max(len(text) for text in as_text(np.asarray(values, np.float64)).ravel())
    size = min(8.0, 72 * cell / (0.66 * longest))  # a digit is about 0.64 of its size wide
    return size if size >= SMALLEST else None


def draw_cells(
    axes: Axes,
    values: NDArray[Any],
    limits: Limits,
    *,
    inside: NDArray[np.bool_] | None = None,
    size: float | None = None,
) -> AxesImage:
    """A map `(height, width)` of which each cell is a unit square at (column, row); outside `inside` it is hatched.

    With `size`, in points, the value stands in each cell.
    """
    height, width = values.shape
    inside = np.ones(values.shape, bool) if inside is None else inside
    shown = np.where(inside, values, np.nan)
    drawn = axes.imshow(
        shown, cmap=SIGNED, vmin=limits[0], vmax=limits[1], extent=(-0.5, width - 0.5, height - 0.5, -0.5)
    )
    for row, column in zip(*np.nonzero(~inside), strict=True):
        axes.add_patch(hatched(column - 0.5, row - 0.5, 1, 1))
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=SOFT, linewidth=0.6, clip_on=False))
    if size is not None:
        _write_numbers(axes, values, limits, inside, size)
    bare(axes, (-0.55, width - 0.45), (-0.55, height - 0.45))
    return drawn


def _write_numbers(axes: Axes, values: NDArray[Any], limits: Limits, inside: NDArray[np.bool_], size: float) -> None:
    """The values in their cells, dark on light and light on dark; 0 on a white plate over padding."""
    texts = as_text(np.asarray(values, np.float64))
    middle = (limits[0] + limits[1]) / 2
    for (row, column), text in np.ndenumerate(texts):
        padding = not inside[row, column]
        axes.text(
            column,
            row,
            "0" if padding else text,
            ha="center",
            va="center",
            size=size,
            color="white" if not padding and values[row, column] < middle else INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0} if padding else None,
        )


def hatched(left: float, top: float, width: float, height: float) -> Rectangle:
    """A rectangle of padding, behind the pictures: they are drawn over it, and let it through where they are not."""
    return Rectangle(
        (left, top), width, height, facecolor="white", edgecolor=SOFT, hatch=HATCH, linewidth=0.0, zorder=-1
    )


def outline(axes: Axes, left: float, top: float, width: float, height: float) -> None:
    """A frame that is seen on dark and on light."""
    for colour, thick in (("white", 3.2), (INK, 1.4)):
        axes.add_patch(
            Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=thick, clip_on=False)
        )
