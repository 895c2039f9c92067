"""Every operation of a plan as a step: a function from its input to its output and the way back.

    y, back = step(x)           dx = back(dy)

The way back writes the gradients of the parameters where they belong and returns the gradient of the input. Gradients
are PyTorch's own kernels, called without autograd: there is no graph to build, and no gradient is worked out that
nobody needs.

Images have PyTorch's shape, `(batch, channels, height, width)`, in cnnkit's order of memory: PyTorch calls that channels
last. Where padding is uneven the image gets its border beforehand, because PyTorch's own is the same on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import torch
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
    Pair,
    RescaleOp,
    SoftmaxOp,
)
from cnnkit.randomness import dropout_mask
from torch import Tensor
from torch.nn import functional

from cnnkit_torch.vector import DTYPES

Back: TypeAlias = Callable[[Tensor], Tensor]
Step: TypeAlias = Callable[[Tensor], tuple[Tensor, Back]]

Border: TypeAlias = list[int]
NO_BORDER: Final[Border] = [0, 0, 0, 0]

aten = torch.ops.aten


@dataclass
class Clock:
    """The run's seed, and the number of steps done: what a dropout mask is drawn from."""

    seed: int
    step: int


@dataclass(frozen=True)
class Context:
    """What a step is made for.

    Args:
        dtype: That of all numbers.
        weights: Views of the parameters, in cnnkit's names and shapes.
        gradients: Views of their gradients, to be written; empty where nothing learns.
        clock: None where nothing learns, and so nothing is dropped.
    """

    dtype: np.dtype[Any]
    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    clock: Clock | None


def make_step(op: Operation, context: Context, *, goes_on: bool, owned: bool) -> Step:
    """The step of `op`.

    Args:
        op: The operation.
        context: What it works with.
        goes_on: Whether something before it learns, so that the gradient of its input is needed.
        owned: Whether its input is needed by nobody else and may be overwritten.
    """
    match op:
        case RescaleOp():
            return _rescale(op)
        case GrayscaleOp():
            return _grayscale(op, context)
        case Conv2DOp():
            return _convolution(op, context, goes_on)
        case MaxPool2DOp():
            return _max_pool(op)
        case AvgPool2DOp():
            return _average_pool(op, context)
        case FlattenOp():
            return _flatten if len(op.input_shape) == 3 else _as_it_is
        case DenseOp():
            return _dense(op, context, goes_on)
        case ActivationOp(function="relu"):
            return _relu_in_place if owned else _relu
        case ActivationOp():
            return _tanh if op.function == "tanh" else _sigmoid
        case DropoutOp():
            return _dropout(op, context)
        case SoftmaxOp():
            return _softmax
    raise AssertionError(f"a plan holds a {type(op).__name__}, which is no operation of cnnkit")


def overwritable(op: Operation) -> bool:
    """Whether the output of `op` is a fresh array that its own way back does not need."""
    return isinstance(op, (Conv2DOp, DenseOp, MaxPool2DOp))


# ------------------------------------------------------------------------------------------------------ preprocessing


def _as_it_is(x: Tensor) -> tuple[Tensor, Back]:
    return x, lambda dy: dy


def _rescale(op: RescaleOp) -> Step:
    def step(x: Tensor) -> tuple[Tensor, Back]:
        y = torch.mul(x, op.scale)
        return y.add_(op.offset) if op.offset else y, lambda dy: dy * op.scale

    return step


def _grayscale(op: GrayscaleOp, context: Context) -> Step:
    if op.weights == (1.0,):
        return _as_it_is
    weights = torch.tensor(op.weights, dtype=DTYPES[context.dtype.name], device="cpu")
    column = weights.view(1, -1, 1, 1)  # (1, channels, 1, 1)

    def step(x: Tensor) -> tuple[Tensor, Back]:
        y = torch.matmul(x.permute(0, 2, 3, 1), weights).unsqueeze(1)  # (batch, 1, height, width)
        return y, lambda dy: dy * column

    return step


def _flatten(x: Tensor) -> tuple[Tensor, Back]:
    """Row-major over (height, width, channels): in memory they mostly lie so, and nothing moves."""
    batch, channels, height, width = x.shape

    def back(dy: Tensor) -> Tensor:
        return dy.reshape(batch, height, width, channels).permute(0, 3, 1, 2)

    return x.permute(0, 2, 3, 1).reshape(batch, -1), back


# ----------------------------------------------------------------------------------------- layers that have parameters


def _convolution(op: Conv2DOp, context: Context, goes_on: bool) -> Step:
    kernel = context.weights[op.kernel].permute(3, 2, 0, 1)  # (filters, in_channels, kernel_height, kernel_width)
    bias = None if op.bias is None else context.weights[op.bias]
    strides, dilation, padding, border = list(op.strides), list(op.dilation), [0, 0], NO_BORDER
    if op.strides == (1, 1) and all(before == after for before, after in op.padding):
        padding = [before for before, _ in op.padding]  # the usual case, which PyTorch pads itself
    else:
        # Some kernels of oneDNN 3.12 read beyond a row whose only window is taken with a stride above 1. The stride of
        # one window means nothing, so it gets 1, and the image is cut to what windows reach. The cut also keeps kernels
        # of one pixel away from one that writes past its workspace: https://github.com/uxlfoundation/oneDNN/issues/6035
        border = border_of(op, op.kernel_size, op.dilation)
        strides = [1 if count == 1 else stride for stride, count in zip(op.strides, op.output_shape, strict=False)]

    def step(x: Tensor) -> tuple[Tensor, Back]:
        x = _bordered(x, border, 0.0)
        y = torch.conv2d(x, kernel, bias, strides, padding, dilation)  # (batch, filters, height, width)

        def back(dy: Tensor) -> Tensor:
            dx, d_kernel, d_bias = aten.convolution_backward(
                dy,
                x,
                kernel,
                None if bias is None else [op.filters],
                strides,
                padding,
                dilation,
                False,  # not transposed
                [0, 0],
                1,
                [goes_on, True, bias is not None],
            )
            context.gradients[op.kernel].copy_(d_kernel.permute(2, 3, 1, 0))
            if op.bias is not None:
                context.gradients[op.bias].copy_(d_bias)
            return _without(dx, border) if goes_on else dy

        return y, back

    return step


def _dense(op: DenseOp, context: Context, goes_on: bool) -> Step:
    kernel = context.weights[op.kernel]  # (features, units)
    bias = None if op.bias is None else context.weights[op.bias]

    def step(x: Tensor) -> tuple[Tensor, Back]:
        y = torch.mm(x, kernel) if bias is None else torch.addmm(bias, x, kernel)  # (batch, units)

        def back(dy: Tensor) -> Tensor:
            torch.mm(x.t(), dy, out=context.gradients[op.kernel])
            if op.bias is not None:
                torch.sum(dy, 0, out=context.gradients[op.bias])
            return torch.mm(dy, kernel.t()) if goes_on else dy

        return y, back

    return step


# ------------------------------------------------------------------------------------------------------------ windows


def border_of(op: Conv2DOp | MaxPool2DOp | AvgPool2DOp, size: Pair, dilation: Pair = (1, 1)) -> Border:
    """What to add around an image, so that its windows lie side by side from edge to edge.

    In PyTorch's order: left, right, top, bottom. Pixels that no window reaches count as a border below 0.
    """
    border: list[int] = []
    for axis in (1, 0):
        before, _ = op.padding[axis]
        reach = (op.output_shape[axis] - 1) * op.strides[axis] + dilation[axis] * (size[axis] - 1) + 1
        border += [before, reach - before - op.input_shape[axis]]
    return border


def _bordered(x: Tensor, border: Border, fill: float) -> Tensor:
    return functional.pad(x, border, value=fill) if any(border) else x


def _without(x: Tensor, border: Border) -> Tensor:
    """The way back of `_bordered`: what no window has reached has no gradient."""
    return functional.pad(x, [-pixels for pixels in border]) if any(border) else x


def _max_pool(op: MaxPool2DOp) -> Step:
    """PyTorch's kernel takes the first of equal maxima, row by row, and lets NaN win, in either order of memory."""
    size, strides, border = list(op.pool_size), list(op.strides), border_of(op, op.pool_size)

    def step(x: Tensor) -> tuple[Tensor, Back]:
        x = _bordered(x, border, -torch.inf)
        y, winners = aten.max_pool2d_with_indices(x, size, strides)  # (batch, channels, height, width)

        def back(dy: Tensor) -> Tensor:
            dx = aten.max_pool2d_with_indices_backward(
                dy,
                x,
                size,
                strides,
                [0, 0],
                [1, 1],
                False,  # ceil_mode
                winners,
            )
            return _without(dx, border)

        return y, back

    return step


def _average_pool(op: AvgPool2DOp, context: Context) -> Step:
    """Sums of windows, over how many of their pixels are not padding."""
    size, strides, border = list(op.pool_size), list(op.strides), border_of(op, op.pool_size)
    ones = torch.ones((1, 1, *op.input_shape[:2]), dtype=DTYPES[context.dtype.name], device="cpu")
    counts = functional.avg_pool2d(_bordered(ones, border, 0.0), size, strides, divisor_override=1)

    def step(x: Tensor) -> tuple[Tensor, Back]:
        x = _bordered(x, border, 0.0)
        sums = functional.avg_pool2d(x, size, strides, divisor_override=1)  # (batch, channels, height, width)

        def back(dy: Tensor) -> Tensor:
            dx = aten.avg_pool2d_backward(dy / counts, x, size, strides, [0, 0], False, True, 1)
            return _without(dx, border)

        return sums.div_(counts), back

    return step


# -------------------------------------------------------------------------------- functions of one number, and a row


def _relu(x: Tensor) -> tuple[Tensor, Back]:
    y = torch.relu(x)
    return y, lambda dy: aten.threshold_backward(dy, y, 0)


def _relu_in_place(x: Tensor) -> tuple[Tensor, Back]:
    y = torch.relu_(x)
    return y, lambda dy: aten.threshold_backward(dy, y, 0)


def _tanh(x: Tensor) -> tuple[Tensor, Back]:
    y = torch.tanh(x)
    return y, lambda dy: aten.tanh_backward(dy, y)


def _sigmoid(x: Tensor) -> tuple[Tensor, Back]:
    y = torch.sigmoid(x)
    return y, lambda dy: aten.sigmoid_backward(dy, y)


def _dropout(op: DropoutOp, context: Context) -> Step:
    clock = context.clock
    if clock is None:
        return _as_it_is

    def step(x: Tensor) -> tuple[Tensor, Back]:
        drawn = dropout_mask(clock.seed, clock.step, op.layer, (len(x), *op.output_shape), op.rate, context.dtype)
        mask = torch.from_numpy(drawn)
        if mask.ndim == 4:
            mask = mask.permute(0, 3, 1, 2)  # (batch, channels, height, width)
        return x * mask, lambda dy: dy * mask

    return step


def _softmax(x: Tensor) -> tuple[Tensor, Back]:
    def back(_: Tensor) -> Tensor:
        raise AssertionError("the gradient of softmax is taken together with the cross-entropy")

    return torch.softmax(x, 1), back


def cross_entropy(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy of `scores` `(batch, classes)` and `labels` `(batch,)`, and its gradient by the scores."""
    places = labels.unsqueeze(1)  # (batch, 1)
    logarithms = torch.log_softmax(scores, 1)  # (batch, classes)
    loss = logarithms.gather(1, places).mean().neg()
    d_scores = logarithms.exp_()
    d_scores.scatter_add_(1, places, scores.new_full(places.shape, -1.0))
    return loss, d_scores.div_(len(scores))
