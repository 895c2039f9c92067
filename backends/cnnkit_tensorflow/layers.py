"""Every operation of a plan in TensorFlow's operations, forward and the way back on one screen.

    y, back = run_layer(op, x, run)           dx = back(dy)

The way back writes the gradients of parameters into `run.gradients` and returns the gradient of its input. It is written
out rather than recorded on a tape: TensorFlow's own gradient of a dilated convolution does not run on a CPU, nothing is
worked out that nobody needs, and each layer can be read in one place. Arrays are `(batch, height, width, channels)` or
`(batch, features)`; only the size of the batch is open when a graph is traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

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
    Operation,
    PaddingPair,
    Pair,
    RescaleOp,
    SoftmaxOp,
)

Tensor: TypeAlias = Any
"""TensorFlow ships no types worth using."""

Back: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Run:
    """One way through the layers: what they work with, and where gradients are left.

    Args:
        parameters: Tensors by name.
        masks: By layer what dropout keeps, booleans of the batch's shape; empty where nothing is dropped.
        gradients: Filled by the ways back.
    """

    parameters: Mapping[str, Tensor]
    masks: Mapping[int, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)


def run_layer(op: Operation, x: Tensor, run: Run, *, goes_on: bool = False) -> tuple[Tensor, Back]:
    """The output of `op` and its way back. `goes_on`: something before it learns, so its input's gradient is needed."""
    match op:
        case RescaleOp():
            return _rescale(op, x)
        case GrayscaleOp():
            return _grayscale(op, x)
        case Conv2DOp():
            return _convolution(op, x, run, goes_on)
        case MaxPool2DOp():
            return _max_pool(op, x)
        case AvgPool2DOp():
            return _average_pool(op, x)
        case FlattenOp():
            return tf.reshape(x, [-1, *op.output_shape]), lambda dy: tf.reshape(dy, [-1, *op.input_shape])
        case DenseOp():
            return _dense(op, x, run, goes_on)
        case ActivationOp():
            return _ACTIVATIONS[op.function](x)
        case DropoutOp():
            return _dropout(op, x, run)
        case SoftmaxOp():
            return _softmax(x), _no_way_back
    raise AssertionError(f"a plan holds a {type(op).__name__}, which is no operation of cnnkit")


def _softmax(x: Tensor) -> Tensor:
    """Step by step: oneDNN's kernel makes 0 of a row with a NaN."""
    powers = tf.exp(x - tf.reduce_max(x, 1, keepdims=True))  # (batch, classes)
    return powers / tf.reduce_sum(powers, 1, keepdims=True)


def _no_way_back(_: Tensor) -> Tensor:
    raise AssertionError("the gradient of softmax is taken together with the cross-entropy")


# ------------------------------------------------------------------------------------------------------ preprocessing


def _rescale(op: RescaleOp, x: Tensor) -> tuple[Tensor, Back]:
    y = x * op.scale
    return y + op.offset if op.offset else y, lambda dy: dy * op.scale


def _grayscale(op: GrayscaleOp, x: Tensor) -> tuple[Tensor, Back]:
    if op.weights == (1.0,):  # the mean of one channel is that channel
        return x, lambda dy: dy
    weights = tf.constant(op.weights, x.dtype)
    channels = len(op.weights)
    y = tf.matmul(tf.reshape(x, [-1, channels]), weights[:, tf.newaxis])  # (batch * height * width, 1)
    return tf.reshape(y, [-1, *op.output_shape]), lambda dy: dy * weights


# ----------------------------------------------------------------------------------------- layers that have parameters


def _convolution(op: Conv2DOp, x: Tensor, run: Run, goes_on: bool) -> tuple[Tensor, Back]:
    """Gradients of a dilated convolution are those of a larger kernel with holes: TensorFlow's know no dilation on a CPU."""
    kernel = run.parameters[op.kernel]
    reach = [step * (size - 1) + 1 for step, size in zip(op.dilation, op.kernel_size, strict=True)]
    if op.output_shape[1] == 1 < op.strides[1]:
        met, only = _one_column(op, x, reach[1]), {"strides": [1, op.strides[0], 1, 1], "padding": "VALID"}
    else:
        met, only = x, _windows(op)
    y = tf.raw_ops.Conv2D(input=met, filter=kernel, dilations=[1, *op.dilation, 1], **only)
    if op.bias is not None:
        y = tf.nn.bias_add(y, run.parameters[op.bias])  # (batch, height', width', filters)

    def back(dy: Tensor) -> Tensor:
        seen, windows = (_alone(op, x), _NEXT_TO_EACH_OTHER) if op.kernel_size == (1, 1) else (x, _windows(op))
        with_holes = tf.raw_ops.Conv2DBackpropFilter(
            input=seen, filter_sizes=[*reach, op.input_shape[2], op.filters], out_backprop=dy, **windows
        )
        run.gradients[op.kernel] = with_holes[:: op.dilation[0], :: op.dilation[1]]
        if op.bias is not None:
            run.gradients[op.bias] = _sum_of_pixels(dy, op.output_shape)
        if not goes_on:
            return dy
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(x), filter=_with_holes(kernel, op.dilation), out_backprop=dy, **_windows(op)
        )

    return y, back


def _sum_of_pixels(dy: Tensor, shape: Shape) -> Tensor:
    """The sum for each filter: over the images, then rows, then columns.

    TensorFlow adds numbers up one after the other. In one go over all pixels of a batch that would cost float32 the last
    two of its seven digits.
    """
    over_images = tf.raw_ops.BiasAddGrad(out_backprop=tf.reshape(dy, [-1, math.prod(shape)]))
    return tf.reduce_sum(tf.reduce_sum(tf.reshape(over_images, shape), 0), 0)


_NEXT_TO_EACH_OTHER: Mapping[str, Any] = {"strides": [1, 1, 1, 1], "padding": "VALID"}


def _alone(op: Conv2DOp, x: Tensor) -> Tensor:
    """The pixels that a kernel of one pixel meets: `(batch, height', width', channels)`.

    oneDNN skips the others in a workspace that is too small for fewer than 16 channels, and writes past its end:
    https://github.com/uxlfoundation/oneDNN/issues/6035
    """
    return _bordered(x, op.padding, 0.0)[:, :: op.strides[0], :: op.strides[1]]


def _one_column(op: Conv2DOp, x: Tensor, width: int) -> Tensor:
    """The columns that a kernel meets which stands at one place of each row, so that it need not stride along rows.

    With such strides and one channel oneDNN takes a wrong place for the begin of every row but the first.
    """
    return _bordered(x, op.padding, 0.0)[:, :, :width]


def _windows(op: Conv2DOp) -> dict[str, Any]:
    """Strides and padding. oneDNN's quick gradients know padding only by its name, so where the numbers have one, it is used."""
    how: dict[str, Any] = {"strides": [1, *op.strides, 1]}
    if not any(map(any, op.padding)):
        return how | {"padding": "VALID"}
    if op.padding == _same_padding(op):
        return how | {"padding": "SAME"}
    return how | {"padding": "EXPLICIT", "explicit_paddings": [0, 0, *op.padding[0], *op.padding[1], 0, 0]}


def _same_padding(op: Conv2DOp) -> PaddingPair:
    """What TensorFlow calls SAME: as many windows as strides begin, and an odd pixel after."""

    def along(axis: int) -> Pair:
        window = op.dilation[axis] * (op.kernel_size[axis] - 1) + 1
        size, stride = op.input_shape[axis], op.strides[axis]
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        return total // 2, total - total // 2

    return along(0), along(1)


def _with_holes(kernel: Tensor, dilation: Pair) -> Tensor:
    """The kernel with `dilation - 1` rows and columns of zeros between its own."""
    if dilation == (1, 1):
        return kernel
    height, width, *rest = kernel.shape
    apart = tf.reshape(kernel, [height, 1, width, 1, *rest])
    holes = [[0, 0], [0, dilation[0] - 1], [0, 0], [0, dilation[1] - 1], [0, 0], [0, 0]]
    spread = tf.reshape(tf.pad(apart, holes), [height * dilation[0], width * dilation[1], *rest])
    return spread[: dilation[0] * (height - 1) + 1, : dilation[1] * (width - 1) + 1]


def _dense(op: DenseOp, x: Tensor, run: Run, goes_on: bool) -> tuple[Tensor, Back]:
    kernel = run.parameters[op.kernel]
    y = tf.matmul(x, kernel)  # (batch, units)
    if op.bias is not None:
        y = tf.nn.bias_add(y, run.parameters[op.bias])

    def back(dy: Tensor) -> Tensor:
        run.gradients[op.kernel] = tf.matmul(x, dy, transpose_a=True)
        if op.bias is not None:
            run.gradients[op.bias] = tf.raw_ops.BiasAddGrad(out_backprop=dy)
        return tf.matmul(dy, kernel, transpose_b=True) if goes_on else dy

    return y, back


# ------------------------------------------------------------------------------------------------------------ windows


def _max_pool(op: MaxPool2DOp, x: Tensor) -> tuple[Tensor, Back]:
    """TensorFlow's kernel, where it is right: it loses a NaN at some places, and begins at the lowest finite number."""
    how = {"ksize": [1, *op.pool_size, 1], "strides": [1, *op.strides, 1], "padding": "VALID"}
    padded = _bordered(x, op.padding, -np.inf)
    pooled = tf.raw_ops.MaxPool(input=padded, **how)  # (batch, height', width', channels)

    def corrected() -> Tensor:
        def somewhere(found: Tensor) -> Tensor:
            return tf.raw_ops.MaxPool(input=tf.cast(found, x.dtype), **how) > 0

        lowest = tf.where(somewhere(padded > -np.inf), pooled, tf.constant(-np.inf, x.dtype))
        return tf.where(somewhere(tf.math.is_nan(padded)), tf.constant(np.nan, x.dtype), lowest)

    # A sum loses nothing, not even XLA's, whose minimum does; and a false alarm costs only time.
    ordinary = tf.math.is_finite(tf.reduce_sum(x))
    y = tf.ensure_shape(tf.cond(ordinary, lambda: pooled, corrected), [None, *op.output_shape])

    def back(dy: Tensor) -> Tensor:
        # oneDNN's quick gradient is taken only where it sees the pooling that it belongs to.
        d_padded = tf.raw_ops.MaxPoolGrad(orig_input=padded, orig_output=pooled, grad=dy, **how)
        return _without_border(d_padded, op)

    return y, back


def _average_pool(op: AvgPool2DOp, x: Tensor) -> tuple[Tensor, Back]:
    """The mean of whole windows, padding being zeros, made larger where a window is not whole."""
    padded = _bordered(x, op.padding, 0.0)
    how = {"ksize": [1, *op.pool_size, 1], "strides": [1, *op.strides, 1], "padding": "VALID"}
    share = _share_of_padding(op)  # (height', width', 1)
    whole = bool((share == 1).all())
    y = tf.raw_ops.AvgPool(value=padded, **how)  # (batch, height', width', channels)

    def back(dy: Tensor) -> Tensor:
        dy = dy if whole else dy * tf.constant(share, x.dtype)
        d_padded = tf.raw_ops.AvgPoolGrad(orig_input_shape=tf.shape(padded), grad=dy, **how)
        return _without_border(d_padded, op)

    return y if whole else y * tf.constant(share, x.dtype), back


def _bordered(x: Tensor, padding: PaddingPair, fill: float) -> Tensor:
    return tf.pad(x, [[0, 0], *padding, [0, 0]], constant_values=fill) if any(map(any, padding)) else x


def _without_border(d_padded: Tensor, op: MaxPool2DOp | AvgPool2DOp) -> Tensor:
    (top, _), (left, _) = op.padding
    height, width, _ = op.input_shape
    return d_padded[:, top : top + height, left : left + width] if any(map(any, op.padding)) else d_padded


def _share_of_padding(op: AvgPool2DOp) -> Array:
    """By how much a window's mean grows when its padding does not count: its size over its pixels."""

    def inside(axis: int) -> Array:
        starts = np.arange(op.output_shape[axis]) * op.strides[axis] - op.padding[axis][0]
        ends = np.minimum(starts + op.pool_size[axis], op.input_shape[axis])
        return (ends - np.maximum(starts, 0)).astype(np.float64)

    counts = np.outer(inside(0), inside(1))
    return (op.pool_size[0] * op.pool_size[1] / counts)[:, :, np.newaxis]


# ------------------------------------------------------------------------------------------------ functions of numbers


def _relu(x: Tensor) -> tuple[Tensor, Back]:
    """As a maximum: TensorFlow joins its own ReLU to the layer before it, and oneDNN's joint kernel makes 0 of NaN."""
    y = tf.maximum(x, tf.zeros([], x.dtype))
    return y, lambda dy: tf.raw_ops.ReluGrad(gradients=dy, features=y)


def _tanh(x: Tensor) -> tuple[Tensor, Back]:
    y = tf.tanh(x)
    return y, lambda dy: tf.raw_ops.TanhGrad(y=y, dy=dy)


def _sigmoid(x: Tensor) -> tuple[Tensor, Back]:
    y = tf.sigmoid(x)
    return y, lambda dy: tf.raw_ops.SigmoidGrad(y=y, dy=dy)


_ACTIVATIONS: Mapping[str, Callable[[Tensor], tuple[Tensor, Back]]] = {
    "relu": _relu,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
}


def _dropout(op: DropoutOp, x: Tensor, run: Run) -> tuple[Tensor, Back]:
    kept = run.masks.get(op.layer)
    if kept is None:
        return x, lambda dy: dy
    mask = tf.cast(kept, x.dtype) * (1 / (1 - op.rate))  # as cnnkit.dropout_mask has it
    return x * mask, lambda dy: dy * mask
