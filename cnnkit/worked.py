"""One value of a convolution, and one map of a max pooling, worked out step by step from the real numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Parameters
from cnnkit.errors import OptionError
from cnnkit.evaluation import BackendChoice, predict, require_model
from cnnkit.model import Conv2D, Model
from cnnkit.patches import checked_filters, cut, layer_operation, one_image
from cnnkit.plan import Conv2DOp, MaxPool2DOp, Pair

CHANNELS_SHOWN: Final = 4
"""So many channels are written out; of the others only the sum is told."""


@dataclass(frozen=True, eq=False, repr=False)
class WorkedConvolution:
    """A value of a feature map as what it is: a patch times a kernel, summed up, plus the bias. Prints as a table.

    `patch`, `kernel` and what follows from them are float64; `patch` is the layer's input as the backend computed it.
    """

    layer: int
    filter: int
    at: Pair
    """Row and column of the value in the feature map."""
    top_left: Pair
    """Row and column of the patch's first value in the layer's input; below 0 where it begins in padding."""
    source: Array
    """The layer's input, `(height, width, channels)`."""
    result: Array
    """The filter's feature map `(height', width')` as the backend computed it, before the activation."""
    patch: NDArray[np.float64]
    """`(kernel_height, kernel_width, channels)`, 0 over padding; with dilation, the values that the kernel meets."""
    inside: NDArray[np.bool_]
    """`(kernel_height, kernel_width)`: False over padding."""
    kernel: NDArray[np.float64]
    """`(kernel_height, kernel_width, channels)`."""
    bias: float | None
    activation: str | None
    dilation: Pair

    @property
    def products(self) -> NDArray[np.float64]:
        """Patch times kernel, value by value: `(kernel_height, kernel_width, channels)`."""
        return self.patch * self.kernel

    @property
    def sums(self) -> NDArray[np.float64]:
        """What each channel adds to the value: `(channels,)`."""
        total: NDArray[np.float64] = self.products.sum(axis=(0, 1))
        return total

    @property
    def value(self) -> float:
        """The sums of all channels and the bias, worked out in float64."""
        return float(self.sums.sum()) + (self.bias or 0.0)

    @property
    def backend_value(self) -> float:
        """The same value as the backend computed it."""
        return float(self.result[self.at])

    @property
    def activated(self) -> float:
        """The value after the layer's activation; the value itself where there is none."""
        return _activated(self.value, self.activation)

    @property
    def shown(self) -> list[int]:
        """The channels that are written out: all, or the four whose sums are the largest in size, in their order."""
        order = np.argsort(-np.abs(self.sums), kind="stable")
        return sorted(order[:CHANNELS_SHOWN].tolist())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON but for NaN; without the whole input and the whole map."""
        return {
            "layer": self.layer,
            "filter": self.filter,
            "at": list(self.at),
            "top_left": list(self.top_left),
            "patch": self.patch.tolist(),
            "inside": self.inside.tolist(),
            "kernel": self.kernel.tolist(),
            "products": self.products.tolist(),
            "sums": self.sums.tolist(),
            "bias": self.bias,
            "value": self.value,
            "backend_value": self.backend_value,
            "activation": self.activation,
            "activated": self.activated,
        }

    def __str__(self) -> str:
        channels = self.patch.shape[2]
        lines = [
            (
                f"layers[{self.layer}] (Conv2D), filter {self.filter}: the value at row {self.at[0]}, column {self.at[1]} "
                "of the feature map"
            )
        ]
        for channel in self.shown:
            lines += ["", *self._table(channel, f"channel {channel}" if channels > 1 else "")]
        sums = self.sums
        rest = channels - len(self.shown)
        figures = [(f"channel {channel}", sums[channel]) for channel in self.shown] if channels > 1 else []
        if rest:
            figures.append((f"{rest} more channels", sums.sum() - sums[self.shown].sum()))
        figures.append(("sum of the products", sums.sum()))
        if self.bias is not None:
            figures.append(("bias", self.bias))
        figures.append(("value", self.value))
        figures.append(("as the backend has it", self.backend_value))
        if self.activation:
            figures.append((f"after {self.activation}", self.activated))
        texts = as_text(np.array([figure for _, figure in figures]), extra=2)
        lines += ["", *(f"{name:<24}{text:>12}" for (name, _), text in zip(figures, texts, strict=True))]
        if not self.inside.all():
            lines.append("(0) is padding.")
        return "\n".join(lines)

    __repr__ = __str__

    def _table(self, channel: int, name: str) -> list[str]:
        """Patch, kernel and products of a channel side by side."""
        blocks = []
        for title, values in (("patch", self.patch), ("kernel", self.kernel), ("products", self.products)):
            texts = as_text(values[..., channel])
            if title != "kernel":
                texts = np.where(self.inside, texts, "(0)")
            width = max(len(text) for text in texts.ravel())
            rows = ["  ".join(text.rjust(width) for text in row) for row in texts]
            wide = max(len(title), len(rows[0]))
            blocks.append([title.ljust(wide), *(row.ljust(wide) for row in rows)])
        return ([name] if name else []) + ["     ".join(row).rstrip() for row in zip(*blocks, strict=True)]


def _activated(value: float, activation: str | None) -> float:
    match activation:
        case "relu":
            return value if math.isnan(value) else max(value, 0.0)
        case "tanh":
            return math.tanh(value)
        case "sigmoid":
            return 0.5 * (1.0 + math.tanh(value / 2))
        case _:
            return value


def explain_convolution(
    model: Model,
    parameters: Parameters,
    image: Any,
    backend: BackendChoice = None,
    *,
    layer: int | None = None,
    filter: int = 0,  # noqa: A002 - the field's word
    at: Pair | None = None,
) -> WorkedConvolution:
    """Work out one value of the feature map of `filter` in a Conv2D layer for one image, from its patch and kernel.

    Args:
        model: A model with a convolution.
        parameters: Arrays by name, such as `run.state.parameters`.
        image: `(height, width, channels)`.
        backend: What computes the layer's input, and the feature map to compare with.
        layer: The index of a Conv2D layer; the first one where it is None.
        filter: The number of the filter.
        at: Row and column in the feature map; the place of its highest value where it is None.

    Raises:
        OptionError: No such layer, filter or place.
        DataError: The image or the parameters do not fit the model.
    """
    require_model(model)
    op = layer_operation(model.plan(), Conv2DOp, layer, "Conv2D")
    (filter,) = checked_filters(op, [filter])  # noqa: A001 - see above
    if at is not None:
        at = _checked_place(op, at)
    source = layer_input(model, parameters, image, backend, op.layer)
    spec = model.layers[op.layer]
    bare = model.prefix(op.layer).model_copy(
        update={"layers": (*model.layers[: op.layer], spec.model_copy(update={"activation": None}))}
    )
    result = predict(bare, parameters, one_image(model, image), backend)[0, :, :, filter]
    if at is None:
        known = np.where(np.isnan(result), -np.inf, result)
        row, column = np.unravel_index(int(known.argmax()), known.shape)
        at = int(row), int(column)
    top_left = tuple(at[axis] * op.strides[axis] - op.padding[axis][0] for axis in (0, 1))
    patch, inside = cut(source, (top_left[0], top_left[1]), op.kernel_size, op.dilation)
    return WorkedConvolution(
        layer=op.layer,
        filter=filter,
        at=at,
        top_left=(top_left[0], top_left[1]),
        source=source,
        result=result,
        patch=patch.astype(np.float64),
        inside=inside,
        kernel=np.asarray(parameters[op.kernel][..., filter], np.float64),
        bias=None if op.bias is None else float(parameters[op.bias][filter]),
        activation=spec.activation if isinstance(spec, Conv2D) else None,
        dilation=op.dilation,
    )


def layer_input(model: Model, parameters: Parameters, image: Any, backend: BackendChoice, layer: int) -> Array:
    """What `layer` gets for one image: the output of the layer before it, or the image itself."""
    images = one_image(model, image)
    if layer == 0:
        given: Array = images[0] if images.dtype.kind == "f" else images[0].astype(np.float32)
        return given
    output: Array = predict(model.prefix(layer - 1), parameters, images, backend)[0]
    return output


def _checked_place(op: Conv2DOp, at: Any) -> Pair:
    height, width, _ = op.output_shape
    try:
        row, column = (int(value) for value in at)
    except (TypeError, ValueError):
        row = column = -1
    if not (0 <= row < height and 0 <= column < width):
        raise OptionError(
            f"at is {at!r}; the feature maps of layers[{op.layer}] have rows 0 to {height - 1} and columns 0 to "
            f"{width - 1}. Give a row and a column."
        )
    return row, column


# ------------------------------------------------------------------------------------------------------------ pooling


@dataclass(frozen=True, eq=False)
class WorkedPooling:
    """One map before and after max pooling, and the cell that each window took its maximum from."""

    layer: int
    channel: int
    source: Array
    """The map before: `(height, width)`."""
    result: Array
    """The map after, as the backend computed it: `(height', width')`."""
    chosen: NDArray[np.int64]
    """`(height', width', 2)`: row and column in `source` of the first maximum of each window, in row-major order.

    Where a window holds NaN, the first NaN: the maximum of such a window is NaN.
    """
    pool_size: Pair
    strides: Pair
    padding: tuple[Pair, Pair]


def explain_max_pooling(
    model: Model,
    parameters: Parameters,
    image: Any,
    backend: BackendChoice = None,
    *,
    layer: int | None = None,
    channel: int = 0,
) -> WorkedPooling:
    """Find, for one image, the cell that each window of a MaxPool2D layer takes. Arguments as `explain_convolution`.

    Raises `OptionError` for a layer or channel that is not there, `DataError` for an image that does not fit.
    """
    require_model(model)
    op = layer_operation(model.plan(), MaxPool2DOp, layer, "MaxPool2D")
    channels = op.input_shape[2]
    if isinstance(channel, bool) or not isinstance(channel, (int, np.integer)) or not 0 <= channel < channels:
        raise OptionError(f"channel is {channel!r}; layers[{op.layer}] has channels 0 to {channels - 1}.")
    source = layer_input(model, parameters, image, backend, op.layer)[:, :, channel]
    result = predict(model.prefix(op.layer), parameters, one_image(model, image), backend)[0, :, :, channel]
    chosen = np.empty((*result.shape, 2), np.int64)
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            chosen[row, column] = _first_maximum(source, op, row, column)
    return WorkedPooling(op.layer, int(channel), source, result, chosen, op.pool_size, op.strides, op.padding)


def _first_maximum(source: Array, op: MaxPool2DOp, row: int, column: int) -> Pair:
    place = (row, column)
    starts = [place[axis] * op.strides[axis] - op.padding[axis][0] for axis in (0, 1)]
    ends = [start + size for start, size in zip(starts, op.pool_size, strict=True)]
    top, left = (max(start, 0) for start in starts)
    window = source[top : ends[0], left : ends[1]]
    first = np.unravel_index(int(window.argmax()), window.shape)  # NaN, where there is one: as the maximum is
    return top + int(first[0]), left + int(first[1])


# --------------------------------------------------------------------------------------------------------------- text


def as_text(values: NDArray[Any], extra: int = 0) -> NDArray[np.str_]:
    """Numbers as text with the same decimals, three digits for the largest and `extra` more."""
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max(initial=0.0))
    if largest and not 1e-4 <= largest < 1e6:
        texts = [f"{value:.{2 + extra}e}" for value in values.ravel().tolist()]
    else:
        decimals = max(0, 2 - math.floor(math.log10(largest))) + extra if largest else extra
        texts = [f"{value:.{decimals}f}" for value in values.ravel().tolist()]
        texts = [text.removeprefix("-") if not text.strip("-0.") else text for text in texts]  # no -0.00
    return np.array(texts, dtype=np.str_).reshape(values.shape)
