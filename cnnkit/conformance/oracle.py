"""The oracle: what every operation of a plan, and its way back, should give, in float64 and with scales.

It shares no code with any backend. Each operation is one function that returns its output and a `Pullback`, which
takes the gradient of the output to the gradients of the input and of the parameters. Beside every value stands the
scale of its rounding errors (see `cnnkit.conformance.measure`), carried along to first order. A test holds every
pullback to finite differences of its function.

ReLU and max pooling decide, and a decision may fall the other way within the rounding error. `Trace.margin` is the
smallest distance of any decision from doing so, in units: a case that compares gradients needs it large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from cnnkit.conformance.measure import F64, Numbers
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
    Plan,
    RescaleOp,
    SoftmaxOp,
)
from cnnkit.randomness import dropout_mask

Values: TypeAlias = Mapping[str, Numbers]
Pullback: TypeAlias = Callable[[Numbers], tuple[Numbers, dict[str, Numbers]]]


@dataclass
class Trace:
    """One pass through a plan: the output of every operation, the ways back, and the smallest margin, in u's."""

    outputs: list[Numbers] = field(default_factory=list)
    pullbacks: list[Pullback] = field(default_factory=list)
    margin: float = np.inf
    gradients: list[Numbers] = field(default_factory=list)
    """After `gradients`: for each operation but the softmax, the gradient of the loss with respect to its output."""

    def decide(self, distance: F64, scale: F64) -> None:
        """Take note of decisions that lie `distance` from the other side, with rounding errors of `scale`."""
        with np.errstate(all="ignore"):
            margins = np.where(scale > 0, np.abs(distance) / scale, np.inf)
        if margins.size:
            self.margin = min(self.margin, float(np.nanmin(margins)) if not np.isnan(margins).all() else np.inf)


@dataclass(frozen=True)
class Drawing:
    """What fixes the dropout masks of a step."""

    seed: int
    step: int


def forward(plan: Plan, parameters: Values, images: Numbers, drawing: Drawing | None = None) -> Trace:
    """Run `plan` on `images` `(batch, *plan.input_shape)`. Dropout drops only where a `drawing` is given."""
    trace = Trace()
    x = images
    with np.errstate(all="ignore"):
        for op in plan.operations:
            x, pullback = _run(op, x, parameters, trace, drawing)
            trace.outputs.append(x)
            trace.pullbacks.append(pullback)
    return trace


def gradients(
    plan: Plan, parameters: Values, images: Numbers, labels: Any, drawing: Drawing | None
) -> tuple[Numbers, dict[str, Numbers], Trace]:
    """The mean cross-entropy, its gradient with respect to every parameter, and the trace of both passes."""
    trace = forward(plan, parameters, images, drawing)
    scores = trace.outputs[-2] if len(trace.outputs) > 1 else images
    with np.errstate(all="ignore"):
        loss, dy = _cross_entropy(scores, trace.outputs[-1], np.asarray(labels))
        found: dict[str, Numbers] = {}
        for pullback in reversed(trace.pullbacks[:-1]):
            trace.gradients.insert(0, dy)
            dy, of_parameters = pullback(dy)
            found |= of_parameters
    return loss, {spec.name: found[spec.name] for spec in plan.parameters}, trace


def _run(
    op: Operation, x: Numbers, parameters: Values, trace: Trace, drawing: Drawing | None
) -> tuple[Numbers, Pullback]:
    match op:
        case RescaleOp():
            return _rescale(op, x)
        case GrayscaleOp():
            return _grayscale(op, x)
        case Conv2DOp():
            return _convolution(op, x, parameters)
        case MaxPool2DOp():
            return _max_pool(op, x, trace)
        case AvgPool2DOp():
            return _average_pool(op, x)
        case FlattenOp():
            return _flatten(x)
        case DenseOp():
            return _dense(op, x, parameters)
        case ActivationOp():
            return _ACTIVATIONS[op.function](x, trace)
        case DropoutOp():
            return _dropout(op, x, drawing)
        case SoftmaxOp():
            return _softmax(x)
    raise AssertionError(f"the oracle does not know {type(op).__name__}")


# ------------------------------------------------------------------------------------------------------ preprocessing


def _rescale(op: RescaleOp, x: Numbers) -> tuple[Numbers, Pullback]:
    product = x.value * op.scale
    y = Numbers(product + op.offset, np.abs(product) + abs(op.offset) + abs(op.scale) * x.scale)

    def pullback(dy: Numbers) -> tuple[Numbers, dict[str, Numbers]]:
        dx = dy.value * op.scale
        return Numbers(dx, np.abs(dx) + abs(op.scale) * dy.scale), {}

    return y, pullback


def _grayscale(op: GrayscaleOp, x: Numbers) -> tuple[Numbers, Pullback]:
    weights = np.array(op.weights)
    value = (x.value * weights).sum(-1, keepdims=True)
    y = Numbers(value, ((np.abs(x.value) + x.scale) * np.abs(weights)).sum(-1, keepdims=True))

    def pullback(dy: Numbers) -> tuple[Numbers, dict[str, Numbers]]:
        dx = dy.value * weights
        return Numbers(dx, np.abs(dx) + np.abs(weights) * dy.scale), {}

    return y, pullback


def _flatten(x: Numbers) -> tuple[Numbers, Pullback]:
    def reshaped(numbers: Numbers, shape: tuple[int, ...]) -> Numbers:
        return Numbers(numbers.value.reshape(shape), numbers.scale.reshape(shape))

    features = int(np.prod(x.shape[1:]))
    return reshaped(x, (x.shape[0], features)), lambda dy: (reshaped(dy, x.shape), {})


# ---------------------------------------------------------------------------------------- layers that have parameters


def _product(one: Numbers, other: Numbers, subscripts: str) -> Numbers:
    """A sum of products, as `numpy.einsum` writes it: its scale is the sum of |one| |other| and what both carry along."""
    one_size, other_size = np.abs(one.value), np.abs(other.value)
    scale = np.einsum(subscripts, one_size + one.scale, other_size) + np.einsum(subscripts, one_size, other.scale)
    return Numbers(np.einsum(subscripts, one.value, other.value), scale)


def _plus(one: Numbers, other: Numbers) -> Numbers:
    return Numbers(one.value + other.value, one.scale + other.scale)


def _sum(numbers: Numbers, axes: tuple[int, ...]) -> Numbers:
    return Numbers(numbers.value.sum(axes), (np.abs(numbers.value) + numbers.scale).sum(axes))


def _with_bias(y: Numbers, bias: Numbers) -> Numbers:
    return Numbers(y.value + bias.value, y.scale + np.abs(bias.value) + bias.scale)


def _dense(op: DenseOp, x: Numbers, parameters: Values) -> tuple[Numbers, Pullback]:
    kernel = parameters[op.kernel]
    y = _product(x, kernel, "nf,fu->nu")
    if op.bias is not None:
        y = _with_bias(y, parameters[op.bias])

    def pullback(dy: Numbers) -> tuple[Numbers, dict[str, Numbers]]:
        found = {op.kernel: _product(x, dy, "nf,nu->fu")}
        if op.bias is not None:
            found[op.bias] = _sum(dy, (0,))
        return _product(dy, kernel, "nu,fu->nf"), found

    return y, pullback


def _convolution(op: Conv2DOp, x: Numbers, parameters: Values) -> tuple[Numbers, Pullback]:
    kernel = parameters[op.kernel]
    padded = _padded(x, op.padding, 0.0)
    taps = [(tap, _reach(tap, op.output_shape, op.strides, op.dilation)) for tap in np.ndindex(*op.kernel_size)]
    y = Numbers.exact(np.zeros((x.shape[0], *op.output_shape)))
    for tap, reach in taps:
        y = _plus(y, _product(padded[reach], kernel[tap], "nhwc,cf->nhwf"))
    if op.bias is not None:
        y = _with_bias(y, parameters[op.bias])

    def pullback(dy: Numbers) -> tuple[Numbers, dict[str, Numbers]]:
        d_kernel, d_padded = Numbers.exact(np.zeros(kernel.shape)), Numbers.exact(np.zeros(padded.shape))
        for tap, reach in taps:
            of_tap = _product(padded[reach], dy, "nhwc,nhwf->cf")
            d_kernel.value[tap], d_kernel.scale[tap] = of_tap.value, of_tap.scale
            back = _product(dy, kernel[tap], "nhwf,cf->nhwc")
            d_padded.value[reach] += back.value
            d_padded.scale[reach] += back.scale
        found = {op.kernel: d_kernel}
        if op.bias is not None:
            found[op.bias] = _sum(dy, (0, 1, 2))
        return _cropped(d_padded, op.padding), found

    return y, pullback


# ------------------------------------------------------------------------------------------------------------ windows


def _padded(x: Numbers, padding: PaddingPair, fill: float) -> Numbers:
    widths = ((0, 0), *padding, (0, 0))
    return Numbers(np.pad(x.value, widths, constant_values=fill), np.pad(x.scale, widths))


def _cropped(padded: Numbers, padding: PaddingPair) -> Numbers:
    (top, bottom), (left, right) = padding
    height, width = padded.shape[1:3]
    return padded[:, top : height - bottom, left : width - right]


def _reach(tap: Pair, output_shape: tuple[int, ...], strides: Pair, dilation: Pair) -> tuple[slice, ...]:
    """The pixels that one tap of the window meets, over all windows."""
    starts = [tap[axis] * dilation[axis] for axis in (0, 1)]
    rows, columns = (
        slice(starts[axis], starts[axis] + (output_shape[axis] - 1) * strides[axis] + 1, strides[axis])
        for axis in (0, 1)
    )
    return slice(None), rows, columns


def _taps(op: MaxPool2DOp | AvgPool2DOp) -> Iterator[tuple[slice, ...]]:
    """For each place in the window, row by row, the pixels that it meets."""
    for tap in np.ndindex(*op.pool_size):
        yield _reach(tap, op.output_shape, op.strides, (1, 1))


def _max_pool(op: MaxPool2DOp, x: Numbers, trace: Trace) -> tuple[Numbers, Pullback]:
    padded = _padded(x, op.padding, -np.inf)
    reaches = list(_taps(op))
    values = np.stack([padded.value[reach] for reach in reaches])  # (taps, batch, height, width, channels)
    scales = np.stack([padded.scale[reach] for reach in reaches])
    scales = np.where(np.isfinite(scales), scales, 0.0)  # an infinite loser does not blur a finite winner
    winner = np.argmax(values, axis=0)  # the first of equals; NumPy takes NaN for the largest, as IEEE's maximum does
    y = Numbers(np.take_along_axis(values, winner[None], 0)[0], scales.max(axis=0))
    losers = np.arange(len(reaches)).reshape(-1, 1, 1, 1, 1) != winner
    trace.decide((y.value - values)[losers], (y.scale + scales)[losers])

    def pullback(dy: Numbers) -> tuple[Numbers, dict[str, Numbers]]:
        d_padded = Numbers.exact(np.zeros(padded.shape))
        for number, reach in enumerate(reaches):
            won = winner == number
            d_padded.value[reach] += np.where(won, dy.value, 0)
            d_padded.scale[reach] += np.where(won, np.abs(dy.value) + dy.scale, 0)
        return _cropped(d_padded, op.padding), {}

    return y, pullback


def _average_pool(op: AvgPool2DOp, x: Numbers) -> tuple[Numbers, Pullback]:
    padded = _padded(x, op.padding, 0.0)
    inside = np.pad(np.ones(x.shape[1:3]), op.padding)
    reaches = list(_taps(op))
    counts = np.sum([inside[reach[1:]] for reach in reaches], axis=0)[..., None]  # (height, width, 1)
    value = np.sum([padded.value[reach] for reach in reaches], axis=0) / counts
    scale = np.sum([np.abs(padded.value[reach]) + padded.scale[reach] for reach in reaches], axis=0) / counts

    def pullback(dy: Numbers) -> tuple[Numbers, dict[str, Numbers]]:
        d_padded = Numbers.exact(np.zeros(padded.shape))
        for reach in reaches:
            d_padded.value[reach] += dy.value / counts
            d_padded.scale[reach] += (np.abs(dy.value) + dy.scale) / counts
        return _cropped(d_padded, op.padding), {}

    return Numbers(value, scale), pullback


# --------------------------------------------------------------------------------- functions of one number, and a row


def _relu(x: Numbers, trace: Trace) -> tuple[Numbers, Pullback]:
    positive = x.value > 0  # at 0 the derivative is 0
    trace.decide(x.value, x.scale)
    y = Numbers(np.where(x.value < 0, 0.0, x.value), np.where(np.isfinite(x.value), x.scale, 0.0))

    def pullback(dy: Numbers) -> tuple[Numbers, dict[str, Numbers]]:
        return Numbers(np.where(positive, dy.value, 0), np.where(positive, dy.scale, 0)), {}

    return y, pullback


def _smooth(x: Numbers, y: F64, slope: F64, curvature: F64) -> tuple[Numbers, Pullback]:
    """A function into -1..1 that engines compute to an absolute error of about u."""
    settled = np.where(np.isfinite(x.value), x.scale, 0.0)

    def pullback(dy: Numbers) -> tuple[Numbers, dict[str, Numbers]]:
        blur = np.abs(curvature) * settled + 1.0  # the slope is worked out of y, whose error is about u
        return Numbers(dy.value * slope, slope * dy.scale + np.abs(dy.value) * blur), {}

    return Numbers(y, slope * settled + 1.0), pullback


def _tanh(x: Numbers, trace: Trace) -> tuple[Numbers, Pullback]:  # noqa: ARG001 - every activation is called alike
    y = np.tanh(x.value)
    return _smooth(x, y, 1 - y * y, -2 * y * (1 - y * y))


def _sigmoid(x: Numbers, trace: Trace) -> tuple[Numbers, Pullback]:  # noqa: ARG001 - as above
    small = np.exp(-np.abs(x.value))
    y = np.where(x.value >= 0, 1 / (1 + small), small / (1 + small))
    y = np.where(np.isnan(x.value), x.value, y)
    return _smooth(x, y, y * (1 - y), y * (1 - y) * (1 - 2 * y))


_ACTIVATIONS = {"relu": _relu, "tanh": _tanh, "sigmoid": _sigmoid}


def _dropout(op: DropoutOp, x: Numbers, drawing: Drawing | None) -> tuple[Numbers, Pullback]:
    if drawing is None:
        return x, lambda dy: (dy, {})
    mask = dropout_mask(drawing.seed, drawing.step, op.layer, x.shape, op.rate, np.float64)

    def masked(numbers: Numbers) -> Numbers:
        return Numbers(numbers.value * mask, (np.abs(numbers.value) + numbers.scale) * mask)

    return masked(x), lambda dy: (masked(dy), {})


def _softmax(x: Numbers) -> tuple[Numbers, Pullback]:
    """Probabilities. exp(z - max) carries the rounding error of z - max, besides what the scores carry."""
    value, scale = _log_probabilities(x)
    y = np.exp(value)

    def pullback(_: Numbers) -> tuple[Numbers, dict[str, Numbers]]:
        raise AssertionError("the gradient of softmax is taken together with the cross-entropy")

    return Numbers(y, np.where(np.isfinite(y), y * scale, np.nan)), pullback


def _log_probabilities(scores: Numbers) -> tuple[F64, F64]:
    """z_i - log(sum exp z), and the scale of its error: that of the row's mean and of the score itself."""
    z = scores.value
    below = z - z.max(axis=-1, keepdims=True)
    weights = np.exp(below)
    total = weights.sum(axis=-1, keepdims=True)
    blur = np.where(weights > 0, np.abs(below), 0.0) + scores.scale
    mean_blur = np.where(weights > 0, weights / total * blur, 0.0).sum(axis=-1, keepdims=True)
    value = below - np.log(total)
    own = np.where(np.isfinite(below), np.abs(below), 0.0) + np.where(np.isfinite(z), scores.scale, 0.0)
    return value, own + mean_blur + 1.0 + np.log(total)


def _cross_entropy(scores: Numbers, probabilities: Numbers, labels: Any) -> tuple[Numbers, Numbers]:
    """The mean loss over the batch, and its gradient with respect to the scores."""
    count = len(labels)
    rows = np.arange(count)
    value, scale = _log_probabilities(scores)
    chosen = -value[rows, labels]
    loss = Numbers(np.asarray(chosen.mean()), np.asarray((np.abs(chosen) + scale[rows, labels]).mean()))
    d_scores = probabilities.value.copy()
    d_scores[rows, labels] -= 1
    return loss, Numbers(d_scores / count, (probabilities.scale + np.abs(d_scores)) / count)
