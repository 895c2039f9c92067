"""The words for axes, and the checks that arrays pass before a backend sees them.

The axes are always in this order and always called so: `batch, height, width, channels` for images, `batch, features`
for dense inputs, `kernel_height, kernel_width, in_channels, filters` for convolution kernels, `features, units` for
dense kernels, `batch, classes` for scores and probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnnkit.errors import DataError, OptionError

Shape: TypeAlias = tuple[int, ...]
"""A shape without its batch axis: `(height, width, channels)` or `(features,)`."""

Images: TypeAlias = NDArray[Any]
"""`(batch, height, width, channels)` or `(batch, features)`; uint8, float32, or float64 in float64 precision."""

Labels: TypeAlias = NDArray[np.integer[Any]]
"""`(batch,)`, whole numbers from 0 to classes - 1."""

Array: TypeAlias = NDArray[np.floating[Any]]

Parameters: TypeAlias = Mapping[str, Array]
"""Arrays by name, `"{layer index}.kernel"` and `"{layer index}.bias"`."""

Precision: TypeAlias = Literal["float32", "float64"]

PRECISIONS: Mapping[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}


def dtype_of(precision: str) -> np.dtype[Any]:
    """The NumPy dtype in which `precision` computes; an `OptionError` for a name that is none."""
    if precision not in PRECISIONS:
        raise OptionError(f"precision is {precision!r}; expected 'float32' or 'float64'.")
    return PRECISIONS[precision]


def whole_number(name: str, value: Any) -> int:
    """`value` as a Python int of at least 1, NumPy's integers included; an `OptionError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise OptionError(f"{name} is {value!r}; expected a whole number of at least 1.")
    return int(value)


def times(shape: Shape) -> str:
    """A shape as people write it: `28 x 28 x 1`."""
    return " x ".join(str(size) for size in shape)


def check_images(images: Any, input_shape: Shape, dtype: np.dtype[Any]) -> Images:
    """Return `images` as an array `(batch, *input_shape)` that a program computing in `dtype` accepts.

    Nothing is copied or converted. Raises `DataError` for another shape, or a dtype other than uint8, float32 and, in
    float64 precision, float64.
    """
    array: Images = np.asanyarray(images)
    if array.shape[1:] != input_shape or array.ndim == 0:
        hint = f"Give an array of shape (batch, {', '.join(map(str, input_shape))})"
        if (*array.shape[1:], 1) == input_shape:
            hint = "Add the channel axis: images[..., numpy.newaxis]"
        elif array.shape == input_shape:
            hint = "Add the batch axis: images[numpy.newaxis]"
        raise DataError(
            f"images have shape {array.shape}, but the model takes {times(input_shape)} for each image. {hint}."
        )
    allowed = ("uint8", "float32") if dtype == np.float32 else ("uint8", "float32", "float64")
    if array.dtype.name not in allowed:
        raise DataError(
            f"images are {array.dtype.name}, but a program in {dtype.name} precision takes {' or '.join(allowed)}. "
            f'Convert them first: images.astype("{allowed[0] if array.dtype.kind in "iub" else dtype.name}").'
        )
    return array


def check_labels(labels: Any, count: int, classes: int) -> Labels:
    """Return `labels` as an integer array `(count,)` with every value in `0 .. classes - 1`, or raise `DataError`."""
    array: Labels = np.asanyarray(labels)
    if array.shape != (count,):
        raise DataError(
            f"labels have shape {array.shape}, but there are {count} images. Give one whole number for each image."
        )
    if array.dtype.kind not in "iu":
        raise DataError(
            f"labels are {array.dtype.name}; expected whole numbers. Convert them first: labels.astype('int64')."
        )
    if count:
        lowest, highest = int(array.min()), int(array.max())
        if lowest < 0 or highest >= classes:
            wrong = lowest if lowest < 0 else highest
            where = int(np.flatnonzero(array == wrong)[0])
            raise DataError(
                f"labels[{where}] is {wrong}, but the model has {classes} classes, numbered 0 to {classes - 1}. "
                f"Correct the label, or give the model's last Dense layer {highest + 1} units."
                if wrong > 0
                else f"labels[{where}] is {wrong}, but labels are numbered 0 to {classes - 1}. Correct the label."
            )
    return array


def check_order(order: Any, count: int, batch_size: int) -> NDArray[np.integer[Any]]:
    """Return `order` as an integer array `(n,)` of places in `0 .. count - 1`, or raise `DataError`.

    Also raises `OptionError` for a `batch_size` below 1. An engine might wrap a place that is out of range silently.
    """
    whole_number("batch_size", batch_size)
    array: NDArray[np.integer[Any]] = np.asanyarray(order)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DataError(f"order is {array.dtype} of shape {array.shape}; expected whole numbers of shape (n,).")
    if array.size and (array.min() < 0 or array.max() >= count):
        raise DataError(f"order goes from {array.min()} to {array.max()}, but the {count} images are 0 to {count - 1}.")
    return array
