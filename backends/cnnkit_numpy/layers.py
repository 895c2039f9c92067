"""Every layer for one image, forward and backward on one screen: the definition that other backends are compared with.

A network is a row of layers joined by arrays that are made once and written again for every image:

    x  ->  layer  ->  y          forward()   reads x, writes y
    dx <-  layer  <-  dy         backward()  reads dy, writes dx and the gradients of the parameters

One layer's `y` is the next one's `x`, and `dy` its `dx`; d stands for the derivative of the loss with respect to what
follows. `dx` is None where nothing further back learns. Arrays are `(height, width, channels)` or `(features,)`.

Two ideas carry the code.

**A patch is a row of a matrix.** A convolution lays its patches out as the rows of a matrix `(positions, patch size)`,
and the kernels as the columns of another, `(patch size, filters)`. Forward is one product, and so are the gradients.

**A bias is a weight.** It is the weight of an input that is always 1. So each row ends in a 1, the bias is the last row
of the weights, and nothing more needs to be said about it, forward or backward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, final

import numpy as np

from cnnkit.arrays import Array, Shape
from cnnkit.plan import (
    ActivationOp,
    AvgPool2DOp,
    Conv2DOp,
    DenseOp,
    DropoutOp,
    FlattenOp,
    GrayscaleOp,
    MaxPool2DOp,
    RescaleOp,
    SoftmaxOp,
)
from cnnkit_numpy.windows import Padded, add_windows, by_window, windows_of


class Layer(ABC):
    """One operation of the plan, with the arrays that join it to its neighbours."""

    x: Array
    y: Array
    dx: Array | None
    dy: Array

    @abstractmethod
    def forward(self) -> None:
        """Write `y` from `x`."""

    @abstractmethod
    def backward(self) -> None:
        """Write `dx`, if it is there, and the gradients of the parameters, from `dy`."""


def _join(layer: Layer, x: Array, dx: Array | None, output_shape: Shape) -> None:
    layer.x, layer.dx = x, dx
    layer.y = np.empty(output_shape, x.dtype)
    layer.dy = np.empty(output_shape, x.dtype)


@final
class Rescale(Layer):
    """`y = scale x + offset`, so `dx = scale dy`."""

    def __init__(self, op: RescaleOp, x: Array, dx: Array | None) -> None:
        _join(self, x, dx, op.output_shape)
        self.scale, self.offset = op.scale, op.offset

    def forward(self) -> None:
        np.multiply(self.x, self.scale, out=self.y)
        if self.offset:
            self.y += self.offset

    def backward(self) -> None:
        if self.dx is not None:
            np.multiply(self.dy, self.scale, out=self.dx)


@final
class Grayscale(Layer):
    """`y = sum over channels of weight * x`, so `dx = weight * dy` for each channel."""

    def __init__(self, op: GrayscaleOp, x: Array, dx: Array | None) -> None:
        _join(self, x, dx, op.output_shape)
        self.weights = np.array(op.weights, x.dtype)[:, np.newaxis]  # (channels, 1)

    def forward(self) -> None:
        np.matmul(self.x, self.weights, out=self.y)  # (height, width, 1)

    def backward(self) -> None:
        if self.dx is not None:
            np.matmul(self.dy, self.weights.T, out=self.dx)  # (height, width, channels)


@final
class Convolution(Layer):
    """Cross-correlation: each output value is the sum of a patch times a kernel, plus the bias of that kernel.

    With the patches as rows P, each ending in a 1, and weights W whose last row is the bias, and with dY the rows of
    `dy`, one for each position:

        Y  = P W          the output
        dW = P^T dY       gradient of the kernels, and in its last row that of the biases
        dP = dY W^T       gradient of every patch; a pixel's gradient is the sum over the patches that it is part of
    """

    def __init__(self, op: Conv2DOp, x: Array, dx: Array | None, weights: Array, gradient: Array) -> None:
        _join(self, x, dx, op.output_shape)
        self.weights, self.gradient = weights, gradient  # (patch size + 1, filters)
        self.rows = self.y.reshape(-1, op.filters)  # (positions, filters)
        self.drows = self.dy.reshape(-1, op.filters)

        self.padded = Padded(x, op.padding, fill=0.0)
        windows = windows_of(self.padded.array, op.kernel_size, op.strides, op.dilation)
        self.windows = windows  # (height', width', kernel_height, kernel_width, channels), a view

        # The same matrix in one of two memory orders, whichever makes the longer run of neighbours in the copy.
        height, width, kernel_height, kernel_width, channels = windows.shape
        positions, size = height * width, kernel_height * kernel_width * channels
        ones = 1 if op.bias else 0
        if kernel_width * channels >= width:
            memory = np.ones((height, width, size + ones), x.dtype)
            self.patches = memory.reshape(positions, size + ones)
            self.patch_values = memory[..., :size].reshape(windows.shape)
        else:
            memory = np.ones((size + ones, positions), x.dtype)
            self.patches = memory.T
            by_pixel = memory[:size].reshape(kernel_height, kernel_width, channels, height, width)
            self.patch_values = by_pixel.transpose(3, 4, 0, 1, 2)

        if dx is not None:
            self.kernels = weights[:size]  # the weights without the bias
            self.dpatches = np.empty((positions, size), x.dtype)
            self.dpadded = Padded(dx, op.padding, fill=0.0)
            self.dwindows = windows_of(self.dpadded.array, op.kernel_size, op.strides, op.dilation)

    def forward(self) -> None:
        self.padded.take_in()
        np.copyto(self.patch_values, self.windows)
        np.matmul(self.patches, self.weights, out=self.rows)  # (positions, filters)

    def backward(self) -> None:
        np.matmul(self.patches.T, self.drows, out=self.gradient)  # (patch size + 1, filters)
        if self.dx is not None:
            np.matmul(self.drows, self.kernels.T, out=self.dpatches)  # (positions, patch size)
            add_windows(self.dpadded, self.dwindows, self.dpatches.reshape(self.dwindows.shape))


@final
class MaxPooling(Layer):
    """The maximum of each window; the first of equal maxima, in row-major order, gets the whole gradient.

    `taps[t]` is the t-th pixel of every window at once, so that a maximum over windows is one over the first axis.
    """

    def __init__(self, op: MaxPool2DOp, x: Array, dx: Array | None) -> None:
        _join(self, x, dx, op.output_shape)
        self.padded = Padded(x, op.padding, fill=-np.inf)
        self.windows = windows_of(self.padded.array, op.pool_size, op.strides)
        height, width, *pool_size, channels = self.windows.shape
        self.taps = np.empty((pool_size[0] * pool_size[1], height, width, channels), x.dtype)
        self.by_window = by_window(self.taps, op.pool_size)
        if dx is not None:
            self.dpadded = Padded(dx, op.padding, fill=0.0)
            self.dwindows = windows_of(self.dpadded.array, op.pool_size, op.strides)
            self.overlapping = op.strides[0] < pool_size[0] or op.strides[1] < pool_size[1]
            self.lower = np.empty(self.taps.shape, bool)
            self.wins = np.empty(self.taps.shape, bool)
            self.dtaps = np.empty_like(self.taps)
            self.dby_window = by_window(self.dtaps, op.pool_size)

    def forward(self) -> None:
        self.padded.take_in()
        np.copyto(self.by_window, self.windows)
        np.maximum.reduce(self.taps, axis=0, out=self.y)

    def backward(self) -> None:
        if self.dx is None:
            return
        np.less(self.taps, self.y, out=self.lower)  # False for the maximum, and wherever there is a NaN
        still_open = self.lower[0]  # windows whose maximum is yet to come
        np.logical_not(self.lower[0], out=self.wins[0])
        for lower, wins in zip(self.lower[1:], self.wins[1:], strict=True):
            np.greater(still_open, lower, out=wins)  # open, and not lower than the maximum
            still_open &= lower
        np.multiply(self.wins, self.dy, out=self.dtaps)
        if self.overlapping:
            add_windows(self.dpadded, self.dwindows, self.dby_window)
        else:
            self.dpadded.array.fill(0.0)
            np.copyto(self.dwindows, self.dby_window)
            self.dpadded.hand_back()


@final
class AveragePooling(Layer):
    """The mean of each window over the pixels that are not padding, which share its gradient equally."""

    def __init__(self, op: AvgPool2DOp, x: Array, dx: Array | None) -> None:
        _join(self, x, dx, op.output_shape)
        self.padded = Padded(x, op.padding, fill=0.0)
        self.windows = windows_of(self.padded.array, op.pool_size, op.strides)
        inside = Padded(np.ones_like(x), op.padding, fill=0.0)
        inside.take_in()
        counts = windows_of(inside.array, op.pool_size, op.strides).sum(axis=(2, 3))  # (height', width', channels)
        self.share = 1 / counts
        if dx is not None:
            self.dpadded = Padded(dx, op.padding, fill=0.0)
            self.dwindows = windows_of(self.dpadded.array, op.pool_size, op.strides)

    def forward(self) -> None:
        self.padded.take_in()
        np.sum(self.windows, axis=(2, 3), out=self.y)
        self.y *= self.share

    def backward(self) -> None:
        if self.dx is not None:
            each = (self.dy * self.share)[:, :, np.newaxis, np.newaxis, :]
            add_windows(self.dpadded, self.dwindows, np.broadcast_to(each, self.dwindows.shape))


@final
class Flatten(Layer):
    """The same numbers in a row, row-major: both arrays are views, so there is nothing to do."""

    def __init__(self, op: FlattenOp, x: Array, dx: Array | None) -> None:
        self.x, self.dx = x, dx
        self.y = x.reshape(op.output_shape)
        self.dy = np.empty(op.output_shape, x.dtype) if dx is None else dx.reshape(op.output_shape)

    def forward(self) -> None:
        pass

    def backward(self) -> None:
        pass


@final
class Dense(Layer):
    """Every input joined to every unit: `y = W x`, `dW = dy x^T`, `dx = W^T dy`, with W one row a unit, its bias last."""

    def __init__(self, op: DenseOp, x: Array, dx: Array | None, weights: Array, gradient: Array) -> None:
        _join(self, x, dx, op.output_shape)
        self.weights, self.gradient = weights, gradient  # (units, features + 1)
        features = x.shape[0]
        self.kernel = weights[:, :features]
        self.inputs = np.ones(weights.shape[1], x.dtype)  # x, and the 1 whose weight is the bias
        self.values = self.inputs[:features]
        self.dcolumn = self.dy[:, np.newaxis]

    def forward(self) -> None:
        np.copyto(self.values, self.x)
        np.matmul(self.weights, self.inputs, out=self.y)  # (units,)

    def backward(self) -> None:
        np.multiply(self.dcolumn, self.inputs, out=self.gradient)  # (units, features + 1)
        if self.dx is not None:
            np.matmul(self.dy, self.kernel, out=self.dx)  # (features,)


@final
class ReLU(Layer):
    """`y = max(x, 0)`; the derivative is 1 above 0, and 0 at 0 and below."""

    def __init__(self, op: ActivationOp, x: Array, dx: Array | None) -> None:
        _join(self, x, dx, op.output_shape)
        self.positive = np.empty(op.output_shape, bool)

    def forward(self) -> None:
        np.maximum(self.x, 0.0, out=self.y)

    def backward(self) -> None:
        if self.dx is not None:
            np.greater(self.y, 0.0, out=self.positive)
            np.multiply(self.dy, self.positive, out=self.dx)


@final
class Tanh(Layer):
    """`y = tanh(x)`, `dx = (1 - y^2) dy`."""

    def __init__(self, op: ActivationOp, x: Array, dx: Array | None) -> None:
        _join(self, x, dx, op.output_shape)

    def forward(self) -> None:
        np.tanh(self.x, out=self.y)

    def backward(self) -> None:
        if self.dx is not None:
            np.multiply(self.dy, 1.0 - self.y * self.y, out=self.dx)


@final
class Sigmoid(Layer):
    """`y = 1 / (1 + exp(-x))`, `dx = y (1 - y) dy`. Where exp overflows, to infinity, y is 0, as it should be."""

    def __init__(self, op: ActivationOp, x: Array, dx: Array | None) -> None:
        _join(self, x, dx, op.output_shape)

    def forward(self) -> None:
        np.negative(self.x, out=self.y)
        np.exp(self.y, out=self.y)
        self.y += 1.0
        np.reciprocal(self.y, out=self.y)

    def backward(self) -> None:
        if self.dx is not None:
            np.multiply(self.dy, self.y * (1.0 - self.y), out=self.dx)


@final
class Dropout(Layer):
    """`y = mask x` in training, whose mask the host has drawn; `y = x` in prediction, where there is none."""

    def __init__(self, op: DropoutOp, x: Array, dx: Array | None) -> None:
        _join(self, x, dx, op.output_shape)
        self.layer = op.layer
        self.mask: Array | None = None

    def forward(self) -> None:
        if self.mask is None:
            np.copyto(self.y, self.x)
        else:
            np.multiply(self.x, self.mask, out=self.y)

    def backward(self) -> None:
        if self.dx is not None and self.mask is not None:
            np.multiply(self.dy, self.mask, out=self.dx)


@final
class Softmax(Layer):
    """Scores to probabilities; and, for the label of the image, the cross-entropy and its gradient.

        y    = exp(x) / sum(exp(x))
        loss = log(sum(exp(x))) - x[label]
        dx   = y - (1 at the label, 0 elsewhere)

    The largest score is first taken from all, which changes neither and keeps exp from overflowing.
    """

    def __init__(self, op: SoftmaxOp, x: Array, dx: Array | None) -> None:
        _join(self, x, dx, op.output_shape)
        self.largest = np.empty((), x.dtype)
        self.total = np.empty((), x.dtype)
        self.label = 0
        self.weight: float = 1.0
        self.loss: float = 0.0

    def forward(self) -> None:
        np.maximum.reduce(self.x, out=self.largest)
        np.subtract(self.x, self.largest, out=self.y)
        np.exp(self.y, out=self.y)
        np.add.reduce(self.y, out=self.total)
        self.y /= self.total

    def backward(self) -> None:
        """The gradient of `weight * loss` for the image's `label`; `loss` is kept."""
        # The difference of the scores first: next to a score of 1e30 the logarithm would be lost.
        self.loss = float(np.log(self.total, dtype=np.float64)) - (float(self.x[self.label]) - float(self.largest))
        if self.dx is not None:
            np.copyto(self.dx, self.y)
            self.dx[self.label] -= 1.0
            self.dx *= self.weight


LAYERS: Final[dict[type[Any], type[Any]]] = {
    RescaleOp: Rescale,
    GrayscaleOp: Grayscale,
    Conv2DOp: Convolution,
    MaxPool2DOp: MaxPooling,
    AvgPool2DOp: AveragePooling,
    FlattenOp: Flatten,
    DenseOp: Dense,
    DropoutOp: Dropout,
    SoftmaxOp: Softmax,
}
ACTIVATIONS: Final[dict[str, type[Any]]] = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid}
