"""A dense model as neurons in columns, each joined to all of the next column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle

from cnnkit.arrays import times
from cnnkit.model import Dense, Flatten, Model
from cnnkit.plot.picture import INK, SOFT, Picture
from cnnkit.plot.words import AS_WRITTEN, counted, short

MOST: Final = 12
"""Neurons that a column shows; of more, the first and last with an ellipsis between them."""
PITCH: Final = 0.27
"""Inches from neuron to neuron."""
APART: Final = 1.9
"""Inches from column to column."""


@dataclass(frozen=True)
class _Column:
    """One layer: how many neurons it has, and what is said below it."""

    size: int
    lines: list[str]

    def places(self) -> list[tuple[int, float]]:
        """Number and height, in steps from the middle, of each neuron that is drawn."""
        if self.size <= MOST:
            return [(number, number - (self.size - 1) / 2) for number in range(self.size)]
        half = MOST // 2
        first = [(number, number - half) for number in range(half)]
        return [*first, *((self.size - 1 - number, half - number) for number in reversed(range(half)))]


def draw_neurons(model: Model, title: str) -> Picture:
    """The picture of a model whose layers with parameters are dense; `title` names it."""
    columns = _columns(model)
    names = model.class_names if model.class_names and columns[-1].size == len(model.class_names) else ()
    after = 0.1 + max((len(short(name, 24)) for name in names), default=0) * 0.075
    rows = max(min(column.size, MOST + 1) for column in columns)
    lines = max(len(column.lines) for column in columns)
    width = max((len(columns) - 1) * APART + 1.7 + after, len(title) * 0.085 + 0.3)
    height = 0.55 + rows * PITCH + 0.2 + lines * 0.15 + 0.1
    made = Picture(width, height)
    made.set_layout_engine("none")
    axes = made.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)  # inches, from the top left
    axes.set_ylim(height, 0)
    axes.text(0.15, 0.15, title, va="top", fontsize=9.5, **AS_WRITTEN)
    middle = 0.45 + rows * PITCH / 2
    at = [0.85 + number * APART for number in range(len(columns))]
    for x, column, following in zip(at, columns, columns[1:], strict=False):
        ends = [(x + APART, middle + y * PITCH) for _, y in following.places()]
        edges = [((x, middle + y * PITCH), end) for _, y in column.places() for end in ends]
        axes.add_collection(LineCollection(edges, colors=SOFT, linewidths=0.4, alpha=0.7, zorder=0))
    for x, column in zip(at, columns, strict=True):
        _draw_column(axes, x, middle, column)
        for number, line in enumerate(column.lines):
            soft = {"fontsize": 7, "color": SOFT} if number > 1 else {"fontsize": 8}
            weight = "normal" if number else "bold"
            axes.text(x, 0.65 + rows * PITCH + number * 0.15, line, ha="center", va="top", weight=weight, **soft)
    for number, y in columns[-1].places() if names else ():
        axes.text(at[-1] + 0.16, middle + y * PITCH, short(names[number], 24), va="center", fontsize=7.5, **AS_WRITTEN)
    made.alt = (
        f"Neurons and edges of {title}. From left to right: "
        + "; then ".join(", ".join(column.lines) for column in columns)
        + "."
    )
    return made


def _columns(model: Model) -> list[_Column]:
    """The input as a row of numbers, and each dense layer with the layers that follow it."""
    plan = model.plan()
    first = next(index for index, layer in enumerate(model.layers) if isinstance(layer, Dense))
    before = [layer.kind for layer in model.layers[:first]]
    size = plan.layer_shapes[first - 1][0] if first else plan.input_shape[0]
    shape = [times(plan.input_shape)] if len(plan.input_shape) > 1 else []
    columns = [_Column(size, ["input", counted(size, "number"), *shape, *before])]
    for index, layer in enumerate(model.layers):
        if isinstance(layer, Dense):
            weights = sum(parameter.size for parameter in plan.parameters if parameter.layer == index)
            said = [layer.kind, counted(layer.units, "unit"), *([layer.activation] if layer.activation else [])]
            columns.append(_Column(layer.units, [*said, counted(weights, "parameter")]))
        elif len(columns) > 1 and not isinstance(layer, Flatten):
            columns[-1].lines.append(layer.kind)
    return columns


def _draw_column(axes: Axes, x: float, middle: float, column: _Column) -> None:
    for _, y in column.places():
        axes.add_patch(Circle((x, middle + y * PITCH), 0.09, facecolor="white", edgecolor=INK, linewidth=1))
    if column.size > MOST:
        for step in (-0.22, 0, 0.22):
            axes.add_patch(Circle((x, middle + step * PITCH), 0.018, facecolor=INK, edgecolor="none", zorder=3))
