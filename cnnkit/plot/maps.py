"""What every layer makes of one image: its feature maps as pictures, its vectors as bars."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cnnkit.arrays import Array, Parameters, times, whole_number
from cnnkit.errors import OptionError
from cnnkit.evaluation import BackendChoice, predict, require_model
from cnnkit.model import Dropout, Flatten, Model
from cnnkit.patches import one_image
from cnnkit.plot.mosaic import Grid, as_seen, balanced, draw_tiles, map_limits
from cnnkit.plot.picture import INK, SOFT, Picture, picture
from cnnkit.plot.words import AS_WRITTEN, counted, short

ALL_MAPS: Final = 256
"""The most maps of one layer that are drawn."""
IN_A_ROW: Final = 16
NAMED_BARS: Final = 24
"""So many bars have names under them."""
WIDTH: Final = 8.6


@picture
def feature_maps(
    model: Model,
    parameters: Parameters,
    image: Any,
    backend: BackendChoice = None,
    *,
    layer: int | None = None,
    count: int = 16,
) -> Picture:
    """What the layers of a model make of one image.

    Without `layer` there is a row for the image and one for each layer, up to `count` maps in it, on a scale of its
    own; what has no pixels is drawn as bars. Flatten and Dropout are left out: in prediction they change no number. With
    `layer` all maps of that layer are drawn, with a colour bar (the first 256, if there are more).

    Black is 0 and white the highest value where no value is negative; else grey is 0.

    Args:
        model: Any model.
        parameters: Arrays by name, such as `run.state.parameters`.
        image: `(height, width, channels)` or `(features,)`.
        backend: A name, a chain of names, a backend; None means CNNKIT_BACKEND, or the default.
        layer: The index of a layer.
        count: How many maps of each layer, where `layer` is None.

    Raises:
        OptionError: No such layer.
        DataError: The image or the parameters do not fit the model.
        BackendError: The backend is not there, not ready, or refuses the model.
    """
    require_model(model)
    count = whole_number("count", count)
    images = one_image(model, image)
    if layer is not None:
        output = predict(_prefix(model, layer), parameters, images, backend)[0]
        return _one_layer(model, layer, output)
    outputs = {
        index: predict(model.prefix(index), parameters, images, backend)[0]
        for index, spec in enumerate(model.layers)
        if not isinstance(spec, (Flatten, Dropout))
    }
    return _all_layers(model, images[0], outputs, count)


def _prefix(model: Model, layer: Any) -> Model:
    last = len(model.layers) - 1
    if isinstance(layer, bool) or not isinstance(layer, (int, np.integer)) or not 0 <= layer <= last:
        raise OptionError(f"layer is {layer!r}; {model.title} has layers 0 to {last}.")
    return model.prefix(int(layer))


# ----------------------------------------------------------------------------------------------------------- one layer


def _one_layer(model: Model, layer: int, output: Array) -> Picture:
    name = _name(model, layer)
    if output.ndim == 1:
        made = Picture(WIDTH, 2.6)
        _bars(made.subplots(), output, _class_names(model, layer))
        made.suptitle(f"{name}: {counted(len(output), 'value')}", size=10, **AS_WRITTEN)
        made.alt = f"The output of {name} for one image, as bars: {_figures(output)}."
        return made
    channels = output.shape[2]
    shown = min(channels, ALL_MAPS)
    grid = Grid(shown, balanced(shown, 8 if shown <= 64 else IN_A_ROW), output.shape[:2], label=0.22)
    unit = min(1.6, WIDTH / grid.width)
    made = Picture(max(3.4, unit * grid.width + 0.3), unit * grid.height + 1.2)
    limits = map_limits(output)
    tiles = [[output[:, :, channel]] for channel in range(shown)]
    axes = made.subplots()
    drawn = draw_tiles(axes, grid, tiles, limits, [str(channel) for channel in range(shown)], min(8.0, 4 + 5 * unit))
    said = counted(channels, "map") if shown == channels else f"maps 0 to {shown - 1} of {channels}"
    made.suptitle(f"{name}: {said} of {times(output.shape[:2])}", size=10, **AS_WRITTEN)
    made.colorbar(drawn, ax=axes, location="bottom", shrink=0.6, aspect=40, label="value")
    made.alt = (
        f"The output of {name} for one image: {said} of {times(output.shape[:2])}, on one scale of greys from "
        f"{limits[0]:.3g} (black) to {limits[1]:.3g} (white). {_figures(output)}.{_dead(output)}"
    )
    return made


def _dead(output: Array) -> str:
    """Which maps are 0 everywhere: a filter that this image does not excite."""
    zero = np.flatnonzero((output == 0).all(axis=(0, 1)))
    if not len(zero):
        return ""
    return f" {counted(len(zero), 'map')} of {output.shape[2]} {'is' if len(zero) == 1 else 'are'} 0 everywhere."


# ---------------------------------------------------------------------------------------------------------- all layers


def _all_layers(model: Model, image: NDArray[Any], outputs: dict[int, Array], count: int) -> Picture:
    rows: list[tuple[str, Array, list[list[NDArray[Any]]], tuple[float, float]]] = []
    rows.append(_row("image", image, count, is_image=True))
    rows += [_row(_name(model, index), output, count) for index, output in outputs.items()]
    heights: list[float] = []
    grids: list[Grid | None] = []
    room = WIDTH - 1.9
    # As many columns in every row, so that maps of one size are drawn in one size.
    columns = min(IN_A_ROW, max(4, *(len(tiles) for _, _, tiles, _ in rows)))
    for _, values, tiles, _ in rows:
        if values.ndim == 1:
            heights.append(0.85)
            grids.append(None)
            continue
        shape = tiles[0][0].shape
        row = Grid(len(tiles), columns, (shape[0], shape[1]))
        grids.append(row)
        heights.append(_unit(row, room) * row.height)
    made = Picture(WIDTH, sum(heights) + 0.3 * len(rows) + 0.2)
    panels = made.subplots(len(rows), 2, squeeze=False, width_ratios=[1.75, room], height_ratios=heights)
    words = []
    for number, ((name, values, tiles, limits), grid, (left, right)) in enumerate(
        zip(rows, grids, panels, strict=True)
    ):
        shown = None if grid is None else len(tiles)
        left.set_axis_off()
        left.text(
            0.0, 0.5, _label(name, values, shown, limits), va="center", size=7.5, transform=left.transAxes, **AS_WRITTEN
        )
        if grid is None:
            index = list(outputs)[number - 1] if number else None
            _bars(right, values, None if index is None else _class_names(model, index))
        else:
            draw_tiles(right, grid, tiles, limits)
            right.set_xlim(-0.03, room / _unit(grid, room))
            right.set_anchor("W")
        words.append(f"{name}: {times(values.shape)}, {_figures(values)}")
    made.alt = "What each layer makes of one image, from the image down. " + "; ".join(words) + "."
    return made


def _unit(grid: Grid, room: float) -> float:
    """Inches of the width of a tile."""
    return min(0.9, room / (grid.columns * 1.14))


def _row(
    name: str, values: Array, count: int, *, is_image: bool = False
) -> tuple[str, Array, list[list[NDArray[Any]]], tuple[float, float]]:
    if values.ndim == 1:
        return name, values, [], (0.0, 1.0)
    if is_image and values.shape[2] in (1, 3):
        return name, values, [[as_seen(values)]], (0.0, 1.0)
    shown = min(values.shape[2], count)
    return name, values, [[values[:, :, channel]] for channel in range(shown)], map_limits(values)


def _label(name: str, values: Array, shown: int | None, limits: tuple[float, float]) -> str:
    lines = [short(name, 28), times(values.shape)]
    if name != "image" and shown is not None:
        lines.append(f"black {limits[0]:.3g}, white {limits[1]:.3g}")
        if shown < values.shape[2]:
            lines.append(f"the first {shown} of {values.shape[2]} maps")
    broken = int((~np.isfinite(values)).sum())
    if broken:
        lines.append(f"{broken:,} of {values.size:,} NaN or infinite")
    return "\n".join(lines)


def _name(model: Model, index: int) -> str:
    spec = model.layers[index]
    activation = getattr(spec, "activation", None)
    return f"layers[{index}] {type(spec).__name__}" + (f" {activation}" if activation else "")


def _class_names(model: Model, index: int) -> list[str] | None:
    """The names of the bars of the last layers, where there is a class for each."""
    plan = model.plan()
    if not plan.is_classifier or index < len(model.layers) - 2 or plan.layer_shapes[index] != plan.output_shape:
        return None
    return list(model.class_names or (str(number) for number in range(plan.classes)))


def _bars(axes: Axes, values: NDArray[Any], names: list[str] | None) -> None:
    places = np.arange(len(values))
    axes.bar(places, values, width=0.8 if len(values) <= 64 else 1.0, color=INK)
    axes.axhline(0, color=SOFT, linewidth=0.6)
    axes.set_xlim(-0.7, len(values) - 0.3)
    axes.tick_params(labelsize=7)
    if names is not None and len(names) <= NAMED_BARS:
        names = [short(name, 16) for name in names]
        long = max(map(len, names)) > 100 // len(names)
        axes.set_xticks(
            places,
            names,
            rotation=30 if long else 0,
            ha="right" if long else "center",
            **AS_WRITTEN,
        )
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))


def _figures(values: NDArray[Any]) -> str:
    finite = values[np.isfinite(values)]
    broken = values.size - finite.size
    said = f"from {finite.min():.3g} to {finite.max():.3g}" if finite.size else "no finite value"
    if values.ndim == 1 and finite.size and not broken and math.isfinite(float(finite.max())):
        said += f", the highest at {int(values.argmax())}"
    return said + (f", {counted(broken, 'value')} NaN or infinite" if broken else "")
