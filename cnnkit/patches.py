"""Which part of an image a value of a feature map looks at, and the patches of a data set that excite a filter most."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Images, Parameters, check_images, dtype_of, times, whole_number
from cnnkit.datasets import Dataset
from cnnkit.errors import DataError, OptionError
from cnnkit.evaluation import (
    BATCH_SIZE,
    BackendChoice,
    as_precision,
    choose_backend,
    compile_program,
    precision_of,
    require_dataset,
    require_model,
)
from cnnkit.model import Model
from cnnkit.plan import AvgPool2DOp, Conv2DOp, MaxPool2DOp, Operation, Pair, Plan

MAPS_AT_ONCE: Final = 32 * 2**20
"""How many bytes of feature maps are held at once, in float32, unless those of one image are more."""

O = TypeVar("O", bound=Operation)  # noqa: E741 - O for operation, in one signature


@dataclass(frozen=True)
class Sight:
    """Which pixels of the image the values of a layer's maps look at.

    The value at (row, column) looks at `size` pixels, the first of which is `first` + `step` * (row, column); a place
    below 0, or beyond the image, is in padding. Pairs are (height, width). The formulas are those of Araujo, Norris and
    Sim, "Computing Receptive Fields of Convolutional Neural Networks" (2019).
    """

    first: Pair
    step: Pair
    size: Pair

    def top_left(self, row: int, column: int) -> Pair:
        """The first pixel that the value at (row, column) of a map looks at."""
        return self.first[0] + row * self.step[0], self.first[1] + column * self.step[1]


def sight_of(plan: Plan, layer: int) -> Sight:
    """Where the values of the maps of `layer` look in the image. No layer up to it may be dense."""
    first, step, size = [0, 0], [1, 1], [1, 1]
    for op in plan.operations:
        if op.layer > layer:
            break
        match op:
            case Conv2DOp(kernel_size=window, strides=strides, padding=padding, dilation=dilation):
                pass
            case (
                MaxPool2DOp(pool_size=window, strides=strides, padding=padding)
                | AvgPool2DOp(pool_size=window, strides=strides, padding=padding)
            ):
                dilation = (1, 1)
            case _:
                continue
        for axis in (0, 1):
            first[axis] -= padding[axis][0] * step[axis]
            size[axis] += (window[axis] - 1) * dilation[axis] * step[axis]
            step[axis] *= strides[axis]
    return Sight((first[0], first[1]), (step[0], step[1]), (size[0], size[1]))


def cut(image: NDArray[Any], top_left: Pair, size: Pair, step: Pair = (1, 1)) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The window of an image `(height, width, channels)`, and where it is not padding: `(*size, channels)`, `size`.

    `top_left` may lie outside the image; what is outside is 0. With `step` the window takes every step-th pixel, as a
    dilated kernel does.
    """
    rows, columns = (top_left[axis] + step[axis] * np.arange(size[axis]) for axis in (0, 1))
    height, width, _ = image.shape
    inside = ((rows >= 0) & (rows < height))[:, np.newaxis] & ((columns >= 0) & (columns < width))
    taken = image[np.clip(rows, 0, height - 1)[:, np.newaxis], np.clip(columns, 0, width - 1)]
    return np.where(inside[..., np.newaxis], taken, np.zeros((), image.dtype)), inside


def layer_operation(plan: Plan, kind: type[O], layer: int | None, what: str) -> O:
    """The operation of `kind` in `layer`, or the first one in the plan where `layer` is None.

    `what` is the class of layer, as messages call it. Raises `OptionError` where there is no such operation.
    """
    found = {op.layer: op for op in plan.operations if isinstance(op, kind)}
    if not found:
        raise OptionError(f"{plan.model.title} has no {what} layer. Give a model that has one.")
    if layer is None:
        return next(iter(found.values()))
    if isinstance(layer, bool) or layer not in found:
        layers = plan.model.layers
        known = isinstance(layer, (int, np.integer)) and 0 <= layer < len(layers)
        said = f"{layer}, which is {type(layers[layer]).__name__}" if known else repr(layer)
        raise OptionError(
            f"layer is {said}; expected a {what} layer. {plan.model.title.capitalize()} has "
            f"{', '.join(map(str, found))}."
        )
    return found[int(layer)]


def one_image(model: Model, image: Any) -> Images:
    """`image` as a batch of one, or a `DataError` that says what was given and what the model takes."""
    array: Images = np.asanyarray(image)
    if array.shape != model.input_shape:
        raise DataError(
            f"the image has shape {array.shape}, but {model.title} takes {times(model.input_shape)}. "
            "Give one image, such as data.images[0]."
        )
    return array[np.newaxis]


# ----------------------------------------------------------------------------------------------------------- exciting


@dataclass(frozen=True, eq=False)
class ExcitingPatch:
    """A patch of an image, and the value of the feature map that looks at it."""

    image: int
    """Its number in the data set."""
    label: int
    at: Pair
    """Row and column of the value in the feature map."""
    top_left: Pair
    """Row and column of the patch's first pixel in the image; below 0 where the patch begins in padding."""
    value: float
    pixels: NDArray[Any]
    """`(height, width, channels)`, in the data set's dtype; 0 where `inside` is False."""
    inside: NDArray[np.bool_]
    """`(height, width)`: False where the patch lies over padding."""


def find_patches(
    model: Model,
    parameters: Parameters,
    data: Dataset,
    backend: BackendChoice = None,
    *,
    layer: int | None = None,
    filters: Sequence[int] | None = None,
    count: int = 8,
) -> dict[int, list[ExcitingPatch]]:
    """For each filter of a convolution the `count` patches of the data set at which its feature map is highest.

    At most one patch an image; the highest first, and of equal values the first image, and in it the first place in
    row-major order. A value that is NaN counts as minus infinity. The data goes through in batches, and nothing of an
    image is kept but its patch.

    Args:
        model: A model with a convolution.
        parameters: Arrays by name, such as `run.state.parameters`.
        data: The data set; `data.limit(1000)` looks at the first 1,000 images only.
        backend: A name, a chain of names, a backend; None means CNNKIT_BACKEND, or the default.
        layer: The index of a Conv2D layer; the first one where it is None.
        filters: Which filters; all of them where it is None.
        count: How many patches for each filter; there are fewer where the data set has fewer images.

    Raises:
        OptionError: No such layer or filter, or a count below 1.
        DataError: The images or the parameters do not fit the model.
    """
    require_model(model)
    require_dataset("data", data)
    count = whole_number("count", count)
    op = layer_operation(model.plan(), Conv2DOp, layer, "Conv2D")
    chosen = checked_filters(op, filters)
    sight = sight_of(model.plan(), op.layer)
    engine = choose_backend(backend, None, "float32", None)
    precision = precision_of(engine, "float32")
    plan, program = compile_program(engine, model.prefix(op.layer), parameters)
    check_images(as_precision(data.images[:1], precision), plan.input_shape, dtype_of(precision))

    best: dict[int, list[tuple[float, int, int]]] = {one: [] for one in chosen}  # heaps of (value, -image, -place)
    batch = min(BATCH_SIZE, max(1, MAPS_AT_ONCE // (4 * math.prod(op.output_shape))))
    for start in range(0, len(data), batch):
        maps = program.predict(as_precision(data.images[start : start + batch], precision))[..., chosen]
        maps = maps.reshape(len(maps), -1, len(chosen))  # (batch, places, filters)
        known = np.where(np.isnan(maps), -np.inf, maps)
        places = known.argmax(axis=1)  # (batch, filters), the first of equal values
        values = np.take_along_axis(known, places[:, np.newaxis], axis=1)[:, 0]
        for row in range(len(maps)):
            for column, one in enumerate(chosen):
                entry = (float(values[row, column]), -(start + row), -int(places[row, column]))
                if len(best[one]) < count:
                    heapq.heappush(best[one], entry)
                else:
                    heapq.heappushpop(best[one], entry)
    return {one: [_patch(data, sight, op, entry) for entry in sorted(heap, reverse=True)] for one, heap in best.items()}


def _patch(data: Dataset, sight: Sight, op: Conv2DOp, entry: tuple[float, int, int]) -> ExcitingPatch:
    value, image, place = entry[0], -entry[1], -entry[2]
    row, column = divmod(place, op.output_shape[1])
    top_left = sight.top_left(row, column)
    pixels, inside = cut(data.images[image], top_left, sight.size)
    return ExcitingPatch(image, int(data.labels[image]), (row, column), top_left, value, pixels, inside)


def checked_filters(op: Conv2DOp, filters: Sequence[int] | None) -> list[int]:
    """`filters` as a list of numbers of filters of `op`, each once; all of them where it is None."""
    if filters is None:
        return list(range(op.filters))
    chosen = list(dict.fromkeys(filters))
    for one in chosen:
        if isinstance(one, bool) or not isinstance(one, (int, np.integer)) or not 0 <= one < op.filters:
            raise OptionError(f"filter is {one!r}; layers[{op.layer}] has filters 0 to {op.filters - 1}.")
    if not chosen:
        raise OptionError(f"no filter is chosen; layers[{op.layer}] has filters 0 to {op.filters - 1}.")
    return [int(one) for one in chosen]
