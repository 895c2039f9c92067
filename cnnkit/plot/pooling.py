"""One map before and after max pooling, with the cell that each window takes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from cnnkit.arrays import Parameters, times
from cnnkit.evaluation import BackendChoice
from cnnkit.model import Model
from cnnkit.plot.mosaic import bare, draw_cells, map_limits, number_size, outline
from cnnkit.plot.picture import INK, Picture, picture
from cnnkit.plot.words import counted
from cnnkit.worked import WorkedPooling, explain_max_pooling

WIDTH: Final = 8.6
CELLS: Final = 3.5
"""Inches of the longer side of a map."""


@picture
def max_pooling(
    model: Model,
    parameters: Parameters,
    image: Any,
    backend: BackendChoice = None,
    *,
    layer: int | None = None,
    channel: int = 0,
) -> Picture:
    """One map before a MaxPool2D layer, with the highest cell of each window marked, and the map after it.

    At a tie the first cell in row-major order is marked, which is the one that gets the gradient. Windows are outlined
    where they do not overlap; padding is hatched. Arguments and errors are those of
    `cnnkit.worked.explain_max_pooling`, which gives the same as arrays; `layer` None means the first MaxPool2D layer.
    """
    worked = explain_max_pooling(model, parameters, image, backend, layer=layer, channel=channel)
    (top, bottom), (left, right) = worked.padding
    limits = map_limits(worked.source)
    height = worked.source.shape[0] + top + bottom
    width = worked.source.shape[1] + left + right
    tall = 4.1 * max(height / width, worked.result.shape[0] / worked.result.shape[1])
    made = Picture(WIDTH, min(max(tall, 1.2), 6.5) + 0.6)
    before, after = made.subplots(1, 2)
    padded = np.pad(worked.source, worked.padding, constant_values=0.0)
    inside = np.pad(np.ones(worked.source.shape, bool), worked.padding, constant_values=False)
    size = number_size(padded, CELLS / max(padded.shape))
    drawn = draw_cells(before, padded, limits, inside=inside, size=size)
    _draw_windows(before, worked)
    _mark(before, worked, framed=size is not None)
    before.set_title(f"before: {times(worked.source.shape)}")
    draw_cells(after, worked.result, limits, size=number_size(worked.result, CELLS / max(worked.result.shape)))
    after.set_title(f"after: {times(worked.result.shape)}")
    made.colorbar(drawn, ax=[before, after], shrink=0.7, aspect=25)
    made.suptitle(f"layers[{worked.layer}] MaxPool2D {times(worked.pool_size)}, channel {worked.channel}", size=10)
    made.alt = _words(worked)
    return made


def _draw_windows(axes: Axes, worked: WorkedPooling) -> None:
    """The frames of the windows, in the coordinates of the padded map."""
    (down, across), (rows, columns) = worked.strides, worked.pool_size
    if rows > down or columns > across:
        return
    for row in range(worked.result.shape[0]):
        for column in range(worked.result.shape[1]):
            corner = (column * across - 0.5, row * down - 0.5)
            axes.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor="white", linewidth=1.8))
            axes.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor=INK, linewidth=0.8))


def _mark(axes: Axes, worked: WorkedPooling, *, framed: bool) -> None:
    (top, _), (left, _) = worked.padding
    cells = np.unique(worked.chosen.reshape(-1, 2), axis=0) + np.array((top, left))
    if framed:
        for row, column in cells.tolist():
            outline(axes, column - 0.42, row - 0.42, 0.84, 0.84)
        return
    size = max(4.0, 0.25 * (240 / max(axes.get_xlim()[1], axes.get_ylim()[0])) ** 2)
    axes.scatter(cells[:, 1], cells[:, 0], s=size, color=INK, edgecolor="white", linewidth=0.8)
    bare(axes, axes.get_xlim(), axes.get_ylim()[::-1])


def _words(worked: WorkedPooling) -> str:
    cells = len(np.unique(worked.chosen.reshape(-1, 2), axis=0))
    windows = worked.result.size
    said = (
        f"Channel {worked.channel} before and after layers[{worked.layer}], a MaxPool2D of {times(worked.pool_size)}: "
        f"{times(worked.source.shape)} become {times(worked.result.shape)}. The highest cell of each of "
        f"{counted(windows, 'window')} is marked"
    )
    said += f"; {counted(cells, 'cell')}, since windows overlap." if cells < windows else "."
    place = np.unravel_index(int(np.nan_to_num(worked.result, nan=-np.inf).argmax()), worked.result.shape)
    row, column = worked.chosen[place].tolist()
    said += f" The highest of all is {worked.result[place]:.3g}, at row {row}, column {column} of the map before."
    if any(map(sum, worked.padding)):
        said += " Padding is hatched, and never chosen."
    return said
