"""A whole backend in NumPy, every layer there and back. docs/explanation/minimal-backend.md reads it line by line."""

import numpy as np
from cnnkit import plan
from cnnkit.layerwise import Kernels, LayerwiseBackend
from cnnkit.plugins import Availability, hookimpl, reject_unknown_options


def windows(op, x, size, dilation=(1, 1), fill=0.0):
    padded = np.pad(x, ((0, 0), *op.padding, (0, 0)), constant_values=fill)
    (height, width, _), (down, right) = op.output_shape, op.strides
    rows = [slice(top, top + down * height, down) for top in np.arange(size[0]) * dilation[0]]
    columns = [slice(left, left + right * width, right) for left in np.arange(size[1]) * dilation[1]]
    taps = [np.s_[:, row, column] for row in rows for column in columns]

    def pullback(d_seen):
        d_padded = np.zeros_like(padded)
        for index, tap in enumerate(taps):
            d_padded[tap] += d_seen[:, :, :, index]
        (top, _), (left, _) = op.padding
        return d_padded[:, top : top + x.shape[1], left : left + x.shape[2]]

    return np.stack([padded[tap] for tap in taps], axis=3), pullback


def conv2d(op, x, kernel, *bias):
    seen, back_to_x = windows(op, x, op.kernel_size, op.dilation)
    flat = kernel.reshape(-1, *kernel.shape[2:])
    return np.tensordot(seen, flat, 2) + sum(bias), lambda dy: (
        back_to_x(np.tensordot(dy, flat, (3, 2))),
        np.tensordot(seen, dy, ((0, 1, 2), (0, 1, 2))).reshape(kernel.shape),
        *(dy.sum((0, 1, 2)) for _ in bias),
    )


def max_pool(op, x):
    seen, back_to_x = windows(op, x, op.pool_size, fill=-np.inf)
    wins = np.arange(seen.shape[3])[:, None] == seen.argmax(3)[:, :, :, None]
    return seen.max(3), lambda dy: (back_to_x(np.where(wins, dy[:, :, :, None], 0)),)


def avg_pool(op, x):
    seen, back_to_x = windows(op, x, op.pool_size)
    inside, _ = windows(op, np.ones_like(x), op.pool_size)
    return seen.sum(3) / inside.sum(3), lambda dy: (back_to_x(inside * (dy / inside.sum(3))[:, :, :, None]),)


def dense(op, x, kernel, *bias):
    return x @ kernel + sum(bias), lambda dy: (dy @ kernel.T, x.T @ dy, *(dy.sum(0) for _ in bias))


def activation(op, x):
    if op.function == "relu":
        return np.maximum(x, 0), lambda dy: (np.where(x > 0, dy, 0),)
    y = np.tanh(x) if op.function == "tanh" else 1 / (1 + np.exp(-x))
    return y, lambda dy: (dy * (1 - y * y if op.function == "tanh" else y * (1 - y)),)


def softmax(op, x):
    weights = np.exp(x - x.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True), None


def cross_entropy(scores, labels):
    below = scores - scores.max(1, keepdims=True)
    loss = np.mean(np.log(np.exp(below).sum(1)) - below[np.arange(len(labels)), labels])
    return loss, (softmax(None, scores)[0] - np.eye(scores.shape[1], dtype=scores.dtype)[labels]) / len(labels)


KERNELS = {
    plan.RescaleOp: lambda op, x: (x * op.scale + op.offset, lambda dy: (dy * op.scale,)),
    plan.GrayscaleOp: lambda op, x: (x @ (w := np.array(op.weights, x.dtype))[:, None], lambda dy: (dy * w,)),
    plan.Conv2DOp: conv2d,
    plan.MaxPool2DOp: max_pool,
    plan.AvgPool2DOp: avg_pool,
    plan.FlattenOp: lambda _, x: (x.reshape(len(x), -1), lambda dy: (dy.reshape(x.shape),)),
    plan.DenseOp: dense,
    plan.ActivationOp: activation,
    plan.SoftmaxOp: softmax,
}


@hookimpl
def cnnkit_probe(device):
    ready = Availability.ready(["cpu"], {"numpy": np.__version__})
    return ready if device in (None, "cpu") else Availability.no_device("has only a CPU", "Leave the device out")


@hookimpl
def cnnkit_create_backend(precision, options):
    reject_unknown_options("minimal", options, known=[])
    return LayerwiseBackend("minimal", Kernels(KERNELS, cross_entropy), precision)
