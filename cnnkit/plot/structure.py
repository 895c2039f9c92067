"""The architecture of a model: boxes for images, or neurons and edges where nothing but dense layers is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle

from cnnkit.arrays import Shape, times
from cnnkit.evaluation import require_model
from cnnkit.model import Dense, Model
from cnnkit.plot.neurons import draw_neurons
from cnnkit.plot.picture import INK, SOFT, Picture, picture
from cnnkit.plot.words import AS_WRITTEN, counted, short

WITHOUT_NEURONS: Final = ("conv2d", "max_pool2d", "avg_pool2d")
MOST_COLUMNS: Final = 7
"""Layers that one row has room for."""
CELL: Final = 1.5
"""Inches from layer to layer."""
LINE: Final = 0.135
"""Inches from line to line of words."""
TALLEST: Final = 1.0
"""Inches of the tallest box."""
FILLS: Final = {
    "input": "#ffffff",
    "conv2d": "#9db8dd",
    "dense": "#f0c08a",
    "max_pool2d": "#d5e3d8",
    "avg_pool2d": "#d5e3d8",
}
OTHER: Final = "#eceef0"


@picture
def architecture(model: Model) -> Picture:
    """What `model` is made of: its layers with their settings, the shape of what each returns, its parameters.

    Images are boxes: as high and wide as their sides suggest, as deep as their channels do, on a scale of roots, so
    that 28 x 28 and 7 x 7 fit beside each other; rows of numbers are bars. A model of dense layers, without
    convolutions and pools, is drawn with its neurons and edges, at most 12 neurons a layer. Raises `ModelError` for a
    model that cannot be.
    """
    require_model(model)
    summary = model.summary()
    kinds = [layer.kind for layer in model.layers]
    dense = [layer for layer in model.layers if isinstance(layer, Dense)]
    said = f"{short(model.name or 'model', 60)}: {counted(summary.parameters, 'parameter')}"
    if dense and len(dense) < MOST_COLUMNS and not set(kinds) & set(WITHOUT_NEURONS):
        return draw_neurons(model, said)
    cells = [_Cell("input", summary.input_shape, ())]
    for row in summary.layers:
        weights = (counted(row.parameters, "parameter"),) if row.parameters else ()
        cells.append(_Cell(row.kind, row.output_shape, (*row.settings.split(), *weights)))
    made = _draw(cells, said)
    steps = [
        f"{cell.kind}{' (' + ', '.join(cell.settings) + ')' if cell.settings else ''} to {times(cell.shape)}"
        for cell in cells[1:]
    ]
    made.alt = (
        f"Architecture of {said} in {counted(len(steps), 'layer')}. Input {times(cells[0].shape)}; {'; '.join(steps)}."
    )
    return made


@dataclass(frozen=True)
class _Cell:
    """One layer in the picture."""

    kind: str
    shape: Shape
    settings: tuple[str, ...]


def _draw(cells: list[_Cell], title: str) -> Picture:
    """The boxes, in rows of equal length."""
    count = -(-len(cells) // MOST_COLUMNS)
    wide = -(-len(cells) // count)
    rows = [cells[start : start + wide] for start in range(0, len(cells), wide)]
    heights = [TALLEST + 0.35 + LINE * (2 + max(len(cell.settings) for cell in row)) + 0.25 for row in rows]
    made = Picture(max(wide * CELL, len(title) * 0.085) + 0.2, sum(heights) + 0.4)
    made.set_layout_engine("none")
    width, height = made.get_size_inches()
    axes = made.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)  # inches, from the top left
    axes.set_ylim(height, 0)
    axes.text(0.15, 0.15, title, va="top", fontsize=9.5, **AS_WRITTEN)
    tallest = max(max(cell.shape[:2]) for cell in cells if len(cell.shape) == 3) if len(cells[0].shape) == 3 else 1
    top = 0.4
    for row, room in zip(rows, heights, strict=True):
        middle = top + 0.3 + TALLEST / 2
        for place, cell in enumerate(row):
            x = 0.1 + (place + 0.5) * CELL
            _draw_cell(axes, x, middle, cell, tallest)
            if row is not rows[0] or place:
                start = (x - CELL / 2 - 0.09, middle) if place else (0.05, middle)
                end = (x - CELL / 2 + 0.09, middle) if place else (0.2, middle)
                axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": SOFT, "linewidth": 1})
        top += room
    return made


def _draw_cell(axes: Axes, x: float, middle: float, cell: _Cell, tallest: int) -> None:
    fill = FILLS.get(cell.kind, OTHER)
    style: Any = {"facecolor": fill, "edgecolor": INK, "linewidth": 0.7}
    if len(cell.shape) == 3:
        height, width = (max(0.08, TALLEST * 0.72 * math.sqrt(side / tallest)) for side in cell.shape[:2])
        depth = min(0.03 * math.sqrt(cell.shape[2]), 0.3)
        left, upper = x - (width + depth) / 2, middle - (height - depth) / 2
        right, lower = left + width, upper + height
        axes.add_patch(
            Polygon(
                [(left, upper), (left + depth, upper - depth), (right + depth, upper - depth), (right, upper)], **style
            )
        )
        axes.add_patch(
            Polygon(
                [(right, upper), (right + depth, upper - depth), (right + depth, lower - depth), (right, lower)],
                **style,
            )
        )
        axes.add_patch(Rectangle((left, upper), width, height, **style))
    else:
        height = min(TALLEST, 0.12 * math.log2(2 * cell.shape[0]))
        axes.add_patch(Rectangle((x - 0.06, middle - height / 2), 0.12, height, **style))
    axes.text(x, middle - TALLEST / 2 - 0.1, cell.kind, ha="center", va="bottom", fontsize=8.5, weight="bold")
    y = middle + TALLEST / 2 + 0.08
    axes.text(x, y, times(cell.shape), ha="center", va="top", fontsize=8)
    for number, line in enumerate(cell.settings, start=1):
        axes.text(x, y + 0.02 + number * LINE, line, ha="center", va="top", fontsize=7, color=SOFT)
