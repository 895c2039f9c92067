"""A right backend to break: kernels in NumPy over whole batches, written plainly, sharing nothing with the suite's oracle."""

import numpy as np

from cnnkit.layerwise import Kernels, LayerwiseBackend
from cnnkit.plan import (
    ActivationOp,
    AvgPool2DOp,
    Conv2DOp,
    DenseOp,
    FlattenOp,
    GrayscaleOp,
    MaxPool2DOp,
    RescaleOp,
    SoftmaxOp,
)


def pad(x, padding, fill=0.0):
    (top, bottom), (left, right) = padding
    batch, height, width, channels = x.shape
    padded = np.full((batch, top + height + bottom, left + width + right, channels), fill, x.dtype)
    padded[:, top : top + height, left : left + width] = x
    return padded


def crop(padded, padding, shape):
    (top, _), (left, _) = padding
    return padded[:, top : top + shape[0], left : left + shape[1]]


def seen_by(tap, op, dilation=(1, 1)):
    """The index of the pixels that a tap of the window sees: one for each place of the output."""
    rows = np.arange(op.output_shape[0]) * op.strides[0] + tap[0] * dilation[0]
    columns = np.arange(op.output_shape[1]) * op.strides[1] + tap[1] * dilation[1]
    return np.s_[:, rows[:, None], columns]


def convolve(op, x, kernel, bias=None):
    padded = pad(x, op.padding)
    taps = [(tap, seen_by(tap, op, op.dilation)) for tap in np.ndindex(*op.kernel_size)]
    y = np.zeros((len(x), *op.output_shape), x.dtype)
    for tap, seen in taps:
        y += padded[seen] @ kernel[tap]
    if bias is not None:
        y += bias

    def pullback(dy):
        d_padded, d_kernel = np.zeros_like(padded), np.zeros_like(kernel)
        for tap, seen in taps:
            d_padded[seen] += dy @ kernel[tap].T
            d_kernel[tap] = np.tensordot(padded[seen], dy, ((0, 1, 2), (0, 1, 2)))
        return crop(d_padded, op.padding, x.shape[1:3]), d_kernel, *([] if bias is None else [dy.sum((0, 1, 2))])

    return y, pullback


def max_pool(op, x):
    padded = pad(x, op.padding, -np.inf)
    taps = [seen_by(tap, op) for tap in np.ndindex(*op.pool_size)]
    window = np.stack([padded[seen] for seen in taps])  # (taps, batch, height, width, channels)
    winner = window.argmax(0)  # the first of equals, and NaN before any number

    def pullback(dy):
        d_padded = np.zeros_like(padded)
        for number, seen in enumerate(taps):
            d_padded[seen] += np.where(winner == number, dy, 0)
        return (crop(d_padded, op.padding, x.shape[1:3]),)

    return np.take_along_axis(window, winner[None], 0)[0], pullback


def average_pool(op, x):
    padded, inside = pad(x, op.padding), pad(np.ones_like(x[:1]), op.padding)
    taps = [seen_by(tap, op) for tap in np.ndindex(*op.pool_size)]
    count = sum(inside[seen] for seen in taps)

    def pullback(dy):
        d_padded = np.zeros_like(padded)
        for seen in taps:
            d_padded[seen] += dy / count
        return (crop(d_padded, op.padding, x.shape[1:3]),)

    return sum(padded[seen] for seen in taps) / count, pullback


def dense(op, x, kernel, bias=None):  # noqa: ARG001 - every kernel is called alike
    y = x @ kernel if bias is None else x @ kernel + bias
    return y, lambda dy: (dy @ kernel.T, x.T @ dy, *([] if bias is None else [dy.sum(0)]))


def flatten(op, x):
    return x.reshape(len(x), *op.output_shape), lambda dy: (dy.reshape(x.shape),)


def rescale(op, x):
    return x * op.scale + op.offset, lambda dy: (dy * op.scale,)


def grayscale(op, x):
    weights = np.array(op.weights, x.dtype)
    return (x * weights).sum(-1, keepdims=True), lambda dy: (dy * weights,)


def relu(x):
    return np.where(x < 0, 0, x), lambda dy: (np.where(x > 0, dy, 0),)


def tanh(x):
    y = np.tanh(x)
    return y, lambda dy: (dy * (1 - y * y),)


def sigmoid(x):
    y = 1 / (1 + np.exp(-x))
    return y, lambda dy: (dy * y * (1 - y),)


FUNCTIONS = {"relu": relu, "tanh": tanh, "sigmoid": sigmoid}


def activation(op, x):
    return FUNCTIONS[op.function](x)


def softmax(op, x):  # noqa: ARG001 - every kernel is called alike
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True), None  # its way back is that of the loss


def cross_entropy(scores, labels):
    rows = np.arange(len(labels))
    below = scores - scores.max(-1, keepdims=True)
    total = np.exp(below).sum(-1, keepdims=True)
    d_scores = np.exp(below) / total
    d_scores[rows, labels] -= 1
    return (np.log(total[:, 0]) - below[rows, labels]).mean(), d_scores / len(labels)


BY_OPERATION = {
    Conv2DOp: convolve,
    MaxPool2DOp: max_pool,
    AvgPool2DOp: average_pool,
    DenseOp: dense,
    FlattenOp: flatten,
    RescaleOp: rescale,
    GrayscaleOp: grayscale,
    ActivationOp: activation,
    SoftmaxOp: softmax,
}


def right(precision):
    """The backend that nothing is wrong with."""
    return LayerwiseBackend("right", Kernels(BY_OPERATION, cross_entropy), precision)
