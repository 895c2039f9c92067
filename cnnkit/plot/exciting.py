"""The patches of a data set that excite the filters of a convolution most: what each filter looks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from cnnkit.arrays import Parameters, times
from cnnkit.datasets import Dataset
from cnnkit.evaluation import BackendChoice, require_model
from cnnkit.model import Model
from cnnkit.patches import ExcitingPatch, find_patches, layer_operation
from cnnkit.plan import Conv2DOp
from cnnkit.plot.mosaic import GAP, TITLE, as_seen, bare, hatched, place, signed_limits
from cnnkit.plot.picture import SOFT, Picture, picture
from cnnkit.plot.words import counted, listed, short

FILTERS: Final = 8
"""How many filters are shown where none are named."""
KERNEL_CHANNELS: Final = 3
LABEL: Final = 0.3
"""Height of the line above a patch, in widths of one."""


@picture
def exciting_patches(
    model: Model,
    parameters: Parameters,
    data: Dataset,
    backend: BackendChoice = None,
    *,
    layer: int | None = None,
    filters: Sequence[int] | None = None,
    count: int = 8,
) -> Picture:
    """For each filter of a convolution, the `count` patches of the data set at which its feature map is highest.

    One row a filter, the highest value first, which stands above the patch; at most one patch an image. A patch is what
    the value looks at, its receptive field; what of it lies over padding is hatched. Where the convolution is the first
    one and its kernels have at most three channels, the kernel stands at the beginning of the row.

    Arguments and errors are those of `cnnkit.patches.find_patches`, which gives the same as arrays; of the filters the
    first 8 are shown where none are named.
    """
    require_model(model)
    plan = model.plan()
    op = layer_operation(plan, Conv2DOp, layer, "Conv2D")
    if filters is None:
        filters = range(min(op.filters, FILTERS))
    found = find_patches(model, parameters, data, backend, layer=op.layer, filters=filters, count=count)
    first = op.layer == layer_operation(plan, Conv2DOp, None, "Conv2D").layer
    with_kernel = first and op.input_shape[2] <= KERNEL_CHANNELS
    kernel = parameters[op.kernel]
    limits = signed_limits(kernel)

    columns = max((len(patches) for patches in found.values()), default=0)
    size = next((patch.inside.shape for patches in found.values() for patch in patches), (1, 1))
    tall = size[0] / size[1]
    slot = (1.0 if op.input_shape[2] == 1 else 2.0) if with_kernel else 0.0  # of the kernel
    before = 1.0 + (slot + 0.4 if slot else 0.0)  # room for the filter's number, and its kernel
    width = before + max(columns, 1) * (1 + GAP)
    pitch = LABEL + max(tall, 1.0 if with_kernel else 0.0) + GAP
    unit = min(0.85, 8.6 / width)
    title = f"layers[{op.layer}] Conv2D: patches of {times(size)} that excite a filter most"
    made = Picture(max(unit * width + 0.2, TITLE * len(title)), unit * pitch * len(found) + 0.55)
    axes = made.subplots()
    scale = _range_of(data)
    for row, (one, patches) in enumerate(found.items()):
        top = row * pitch + LABEL
        axes.text(0, top + tall / 2, f"filter {one}", va="center", size=7.5)
        if with_kernel:
            _draw_kernel(axes, kernel[..., one], top, slot, tall, limits)
        for column, patch in enumerate(patches):
            left = before + column * (1 + GAP)
            _draw_patch(axes, patch, left, top, tall, scale)
            axes.text(left + 0.5, top - 0.04, f"{patch.value:.3g}", ha="center", va="bottom", size=6.5, color=SOFT)
    bare(axes, (0, width), (0, pitch * len(found)))
    made.suptitle(title, size=10)
    made.alt = _words(model, data, op, found, with_kernel=with_kernel)
    return made


def _draw_patch(
    axes: Axes, patch: ExcitingPatch, left: float, top: float, tall: float, scale: tuple[float, float]
) -> None:
    shown = as_seen(patch.pixels, *scale)
    if not patch.inside.all():
        alpha = patch.inside.astype(np.float64)
        shown = np.dstack([*(shown if shown.ndim == 3 else np.dstack([shown] * 3)).transpose(2, 0, 1), alpha])
        axes.add_patch(hatched(left, top, 1.0, tall))
    place(axes, shown, left, top, 1.0, tall, (0.0, 1.0))


def _draw_kernel(axes: Axes, kernel: Any, top: float, slot: float, tall: float, limits: tuple[float, float]) -> None:
    """The kernel's channels side by side, in the slot behind the filter's number."""
    rows, columns, channels = kernel.shape
    cell = min(slot / (channels * columns + 0.3 * (channels - 1)), max(tall, 1.0) / rows)
    begin = top + (tall - cell * rows) / 2
    for channel in range(channels):
        at = 1.0 + channel * cell * (columns + 0.3)
        place(axes, kernel[..., channel], at, begin, cell * columns, cell * rows, limits)


def _range_of(data: Dataset) -> tuple[float, float]:
    """Black and white of the patches: 0 and 255 for uint8, else the lowest and highest of the first images."""
    if data.images.dtype == np.uint8:
        return 0.0, 255.0
    some = data.images[:256]
    finite = some[np.isfinite(some)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _words(
    model: Model, data: Dataset, op: Conv2DOp, found: dict[int, list[ExcitingPatch]], *, with_kernel: bool
) -> str:
    names = data.class_names or model.class_names
    if names and len(names) < data.classes:  # patches may come from a data set of other things
        names = None
    words = [
        (
            f"For {counted(len(found), 'filter')} of layers[{op.layer}], a Conv2D, the patches of {counted(len(data), 'image')} "
            f"with the highest values in the feature map{', beside the kernel' if with_kernel else ''}."
        )
    ]
    for one, patches in found.items():
        if not patches:
            continue
        classes = [short(names[patch.label], 20) if names else str(patch.label) for patch in patches]
        often = listed(sorted(set(classes), key=lambda name: -classes.count(name)), 4)
        words.append(f"Filter {one}: {patches[0].value:.3g} to {patches[-1].value:.3g}, in images of class {often}.")
    return " ".join(words)
