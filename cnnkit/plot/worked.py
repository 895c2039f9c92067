"""One value of a feature map, drawn as what it is: a patch times a kernel, summed up, plus the bias."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec

from cnnkit.arrays import Parameters, times
from cnnkit.evaluation import BackendChoice
from cnnkit.model import Model
from cnnkit.plan import Pair
from cnnkit.plot.mosaic import draw_cells, hatched, map_limits, number_size, outline, signed_limits
from cnnkit.plot.picture import Picture, picture
from cnnkit.plot.words import counted
from cnnkit.worked import WorkedConvolution, as_text, explain_convolution

WIDTH: Final = 8.6
PATCH: Final = 2.0
"""Inches of the width of a patch."""


def convolution(
    model: Model,
    parameters: Parameters,
    image: Any,
    backend: BackendChoice = None,
    *,
    layer: int | None = None,
    filter: int = 0,  # noqa: A002 - the field's word
    at: Pair | None = None,
) -> Picture:
    """One value of a convolution worked out: patch, kernel, products, their sum and the bias, and where it stands.

    Above are the layer's input with the patch marked, and the feature map (before the activation) with the value
    marked. Below is one row for each input channel; of more than four, the four whose sums are the largest in size.
    What lies over padding is hatched and counts as 0. Arguments and errors are those of
    `cnnkit.worked.explain_convolution`, whose record prints the same as text.
    """
    return draw_convolution(explain_convolution(model, parameters, image, backend, layer=layer, filter=filter, at=at))


@picture
def draw_convolution(worked: WorkedConvolution) -> Picture:
    """As `convolution`, of what `cnnkit.worked.explain_convolution` has worked out."""
    shown = worked.shown
    maps = min(3.0, max(3.9 * array.shape[0] / array.shape[1] for array in (worked.source, worked.result)) + 0.5)
    rows, columns = worked.inside.shape
    heights = [maps, *[min(1.9, max(0.6, PATCH * rows / columns)) + 0.3] * len(shown), 0.75]
    made = Picture(WIDTH, sum(heights) + 0.4)
    grid = GridSpec(len(heights), 1, figure=made, height_ratios=heights)
    _draw_maps(made, grid[0], worked)
    for row, channel in enumerate(shown):
        _draw_row(made, grid[1 + row], worked, channel)
    foot = made.add_subplot(grid[-1])
    foot.set_axis_off()
    foot.text(0.5, 0.5, _equation(worked), ha="center", va="center", size=9, transform=foot.transAxes)
    made.suptitle(
        f"layers[{worked.layer}] Conv2D, filter {worked.filter}: the value at row {worked.at[0]}, column {worked.at[1]}",
        size=10,
    )
    made.alt = _words(worked)
    return made


def _draw_maps(made: Picture, place: Any, worked: WorkedConvolution) -> None:
    left, right = (made.add_subplot(part) for part in place.subgridspec(1, 2))
    channel = worked.shown[0] if worked.source.shape[2] > 1 else 0
    source = worked.source[:, :, channel]
    draw_cells(left, source, map_limits(source))
    left.set_title("input" if worked.source.shape[2] == 1 else f"input, channel {channel} of {worked.source.shape[2]}")
    _mark_patch(left, worked)
    drawn = draw_cells(right, worked.result, signed_limits(worked.result))
    right.set_title("feature map" + (f" before {worked.activation}" if worked.activation else ""))
    outline(right, worked.at[1] - 0.5, worked.at[0] - 0.5, 1, 1)
    made.colorbar(drawn, ax=right, shrink=0.8, aspect=20)


def _mark_patch(axes: Axes, worked: WorkedConvolution) -> None:
    """A frame around the patch, and with dilation around each of its pixels; the axes grow where it is over padding."""
    (top, left), (down, across) = worked.top_left, worked.dilation
    rows, columns = worked.inside.shape
    height, width = down * (rows - 1) + 1, across * (columns - 1) + 1
    for row, column in zip(*np.nonzero(~worked.inside), strict=True):
        axes.add_patch(hatched(left + across * column - 0.5, top + down * row - 0.5, 1, 1))
    if (down, across) == (1, 1):
        outline(axes, left - 0.5, top - 0.5, width, height)
    else:
        for row in range(rows):
            for column in range(columns):
                outline(axes, left + across * column - 0.5, top + down * row - 0.5, 1, 1)
    (first, last), (bottom, ceiling) = axes.get_xlim(), axes.get_ylim()
    axes.set_xlim(min(first, left - 0.7), max(last, left + width - 0.3))
    axes.set_ylim(max(bottom, top + height - 0.3), min(ceiling, top - 0.7))


def _draw_row(made: Picture, place: Any, worked: WorkedConvolution, channel: int) -> None:
    """Patch x kernel = products, and their sum, of one channel."""
    parts = place.subgridspec(1, 6, width_ratios=[3, 0.4, 3, 0.4, 3, 2.2])
    patch, sign, kernel, equals, products, total = (made.add_subplot(part) for part in parts)
    rows, columns = worked.inside.shape
    cell = min(PATCH / columns, 1.9 / rows)
    for axes, values, limits, inside in (
        (patch, worked.patch, map_limits(worked.patch[..., channel]), worked.inside),
        (kernel, worked.kernel, signed_limits(worked.kernel), None),
        (products, worked.products, signed_limits(worked.products), worked.inside),
    ):
        shown = values[..., channel]
        draw_cells(axes, shown, limits, inside=inside, size=number_size(shown, cell))
    name = "" if worked.source.shape[2] == 1 else f" of channel {channel}"
    for axes, title in ((patch, f"patch{name}"), (kernel, f"kernel{name}"), (products, "products")):
        axes.set_title(title, size=8.5)
    for axes, text in (
        (sign, "×"),  # noqa: RUF001 - the sign of multiplication is meant
        (equals, "="),
        (total, f"sum {as_text(worked.sums, extra=1)[channel]}"),
    ):
        axes.set_axis_off()
        axes.text(0.5, 0.5, text, ha="center", va="center", size=10, transform=axes.transAxes)


def _equation(worked: WorkedConvolution) -> str:
    """The sums of the channels, the bias and the value, on a line or two."""
    sums = worked.sums
    rest = len(sums) - len(worked.shown)
    figures = [*sums[worked.shown], sums.sum() - sums[worked.shown].sum(), worked.bias or 0.0, worked.value]
    texts = as_text(np.array([*figures, worked.activated]), extra=1).tolist()
    terms = texts[: len(worked.shown)]
    if rest:
        terms.append(f"{texts[-4]} ({counted(rest, 'more channel')})")
    if worked.bias is not None:
        terms.append(f"{texts[-3]} (bias)")
    line = " + ".join(f"({term})" if term.startswith("-") else term for term in terms)
    line += f" = {texts[-2]}" if len(terms) > 1 else ""
    if worked.activation:
        line += f"      {worked.activation}({texts[-2]}) = {texts[-1]}"
    backend = as_text(np.array([worked.backend_value]), extra=2)[0]
    return (
        f"{line}\nThe backend computed {backend} before the activation."
        if worked.activation
        else (f"{line}\nThe backend computed {backend}.")
    )


def _words(worked: WorkedConvolution) -> str:
    rows, columns, channels = worked.patch.shape
    bias = "" if worked.bias is None else f", plus the bias {worked.bias:.4g}"
    said = (
        f"The value at row {worked.at[0]}, column {worked.at[1]} of the feature map of filter {worked.filter} in "
        f"layers[{worked.layer}], a Conv2D, worked out. The {times((rows, columns))} patch of the input that begins at row "
        f"{worked.top_left[0]}, column {worked.top_left[1]} is multiplied by the kernel, value by value"
    )
    if channels > 1:
        said += f", in each of {channels} channels"
    said += f". The products sum up to {worked.sums.sum():.4g}{bias}: {worked.value:.4g}."
    if len(worked.shown) < channels:
        said += f" {counted(len(worked.shown), 'channel')} of {channels} are drawn, those with the largest sums."
    if worked.activation:
        said += f" After {worked.activation} it is {worked.activated:.4g}."
    if not worked.inside.all():
        said += f" {counted(int((~worked.inside).sum()), 'value')} of the patch lie over padding and count as 0."
    return said
