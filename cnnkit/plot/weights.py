"""The kernels of a convolution as pictures, before and after training on one scale of greys."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Parameters, times
from cnnkit.errors import DataError
from cnnkit.evaluation import require_model
from cnnkit.model import Model
from cnnkit.patches import layer_operation
from cnnkit.plan import Conv2DOp
from cnnkit.plot.mosaic import GAP, TITLE, Grid, balanced, draw_tiles, signed_limits
from cnnkit.plot.picture import Picture, picture
from cnnkit.plot.words import counted

FILTERS: Final = 32
CHANNELS: Final = 8
TILES: Final = 96
"""The most that are drawn; a picture of 4,096 kernels shows nothing."""


@picture
def kernels(
    model: Model, parameters: Parameters, *, before: Parameters | None = None, layer: int | None = None
) -> Picture:
    """The kernels of a Conv2D layer, one tile a filter; of several input channels, one under the other.

    Grey is 0, black the lowest and white the highest weight that the scale goes to, the same for all tiles. At most 32
    filters and 8 input channels are drawn; the title says which.

    Args:
        model: A model with a convolution.
        parameters: Arrays by name, such as `run.state.parameters`.
        before: Parameters to show beside them on the same scale, such as `cnnkit.initial_parameters(model, seed)`.
        layer: The index of a Conv2D layer; the first one where it is None.

    Raises:
        OptionError: The model has no convolution, or `layer` is none.
        DataError: A kernel is missing, or of another shape.
    """
    require_model(model)
    op = layer_operation(model.plan(), Conv2DOp, layer, "Conv2D")
    after = _kernel(op, parameters, model)
    shown = [after] if before is None else [_kernel(op, before, model), after]
    _, _, channels, filters = after.shape
    some_channels = min(channels, CHANNELS)
    some_filters = min(filters, FILTERS, TILES // some_channels)
    limits = signed_limits(*shown)
    names = ["kernels"] if before is None else ["before training", "after training"]

    part = _part(filters, some_filters, channels, some_channels)
    columns = balanced(some_filters, 8 if before is not None or some_channels == 1 else 12)
    grid = Grid(some_filters, columns, op.kernel_size, some_channels, label=0.32)
    unit = min(0.8, 8.0 / (len(shown) * (grid.width + GAP)))
    title = f"layers[{op.layer}] Conv2D: {part}"
    width = max(3.4, TITLE * len(title), len(shown) * (unit * grid.width + 0.4))
    made = Picture(width, unit * grid.height + (1.1 if before is None else 1.4))
    made.set_layout_engine("compressed", wspace=0.08, h_pad=0.12)
    panels = made.subplots(1, len(shown), squeeze=False)[0]
    for axes, kernel, name in zip(panels, shown, names, strict=True):
        tiles = [[kernel[:, :, channel, number] for channel in range(some_channels)] for number in range(some_filters)]
        labels = [str(number) for number in range(some_filters)]
        drawn = draw_tiles(axes, grid, tiles, limits, labels, label_size=max(5.0, min(8.0, 22 * unit)))
        if before is not None:
            axes.set_title(name)
    made.suptitle(title, size=10)
    made.colorbar(drawn, ax=list(panels), location="bottom", shrink=0.6, aspect=40, label="weight")
    made.alt = _words(op, shown, part, limits)
    return made


def _kernel(op: Conv2DOp, parameters: Parameters, model: Model) -> NDArray[np.floating]:
    wanted = (*op.kernel_size, op.input_shape[2], op.filters)
    found = parameters.get(op.kernel)
    if not isinstance(found, np.ndarray) or found.shape != wanted:
        said = "missing" if found is None else f"of shape {np.shape(found)}"
        raise DataError(
            f"parameter {op.kernel!r} is {said}; {model.title} needs shape {wanted}. "
            "Use the parameters that were made for this model."
        )
    return found


def _part(filters: int, some_filters: int, channels: int, some_channels: int) -> str:
    said = counted(filters, "kernel") if some_filters == filters else f"kernels 0 to {some_filters - 1} of {filters}"
    if channels == 1:
        return said
    if some_channels < channels:
        return f"{said}, input channels 0 to {some_channels - 1} of {channels}, from top to bottom"
    return f"{said}, the {channels} input channels from top to bottom"


def _words(op: Conv2DOp, shown: list[NDArray[np.floating]], part: str, limits: tuple[float, float]) -> str:
    words = [
        (
            f"The {times(op.kernel_size)} kernels of layers[{op.layer}], a Conv2D, as small pictures: {part}. Grey is 0, black "
            f"{limits[0]:.3g}, white {limits[1]:.3g}."
        )
    ]
    names = ["All weights"] if len(shown) == 1 else ["Before training they", "After training they"]
    for name, kernel in zip(names, shown, strict=True):
        finite = kernel[np.isfinite(kernel)].astype(np.float64)
        broken = kernel.size - finite.size
        if finite.size:
            words.append(
                f"{name} go from {finite.min():.3g} to {finite.max():.3g}, standard deviation {finite.std():.3g}."
            )
        if broken:
            words.append(f"{counted(broken, 'weight')} {'is' if broken == 1 else 'are'} NaN or infinite.")
    if len(shown) == 2:
        change = np.sqrt(np.square(shown[1] - shown[0], dtype=np.float64).mean(axis=(0, 1, 2)))  # (filters,)
        if np.isfinite(change).all():
            most = int(change.argmax())
            words.append(f"Kernel {most} changed most, by {change[most]:.3g} (root mean square).")
    return " ".join(words)
