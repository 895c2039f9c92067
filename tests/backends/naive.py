"""Every layer once more in float64 and plain loops over pixels: what the tests compare backends with.

It follows the formulas in words of `cnnkit.plan`, one number at a time, and shares nothing with a backend but the plan.
Nothing here knows a gradient: gradients are compared with differences of `loss`.
"""

import math

import numpy as np

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


def predict(plan, parameters, images):
    """The last layer's output for each of `images`, float64."""
    return np.array([_forward(plan.operations, parameters, image, {}) for image in images])


def loss(plan, parameters, images, labels, masks=None):
    """The mean cross-entropy; `masks[layer][index]` is the dropout mask of a layer for one image."""
    total = 0.0
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        own = {layer: mask[index] for layer, mask in (masks or {}).items()}
        scores = _forward(plan.operations[:-1], parameters, image, own).tolist()
        highest = max(scores)
        total += math.log(sum(math.exp(score - highest) for score in scores)) + highest - scores[label]
    return total / len(images)


def _forward(operations, parameters, image, masks):
    x = image.astype(np.float64)
    for op in operations:
        x = _FORWARD[type(op)](op, x, parameters, masks)
    return x


def _window(op, row, col, size, dilation=(1, 1)):
    """The pixels of one window that are inside the image: their place in the window, and their place in the image."""
    (top, _), (left, _) = op.padding
    height, width, _ = op.input_shape
    for y in range(size[0]):
        for x in range(size[1]):
            image_y = row * op.strides[0] + y * dilation[0] - top
            image_x = col * op.strides[1] + x * dilation[1] - left
            if 0 <= image_y < height and 0 <= image_x < width:
                yield (y, x), (image_y, image_x)


def _conv2d(op, x, parameters, _masks):
    kernel = parameters[op.kernel]
    y = np.zeros(op.output_shape)
    for row, col, kernel_number in np.ndindex(op.output_shape):
        total = 0.0 if op.bias is None else float(parameters[op.bias][kernel_number])
        for in_window, in_image in _window(op, row, col, op.kernel_size, op.dilation):
            for channel in range(op.input_shape[2]):
                total += float(kernel[(*in_window, channel, kernel_number)]) * float(x[(*in_image, channel)])
        y[row, col, kernel_number] = total
    return y


def _pool(statistic):
    def pool(op, x, _parameters, _masks):
        y = np.zeros(op.output_shape)
        for row, col, channel in np.ndindex(op.output_shape):
            pixels = [x[(*in_image, channel)] for _, in_image in _window(op, row, col, op.pool_size)]
            y[row, col, channel] = statistic(pixels)
        return y

    return pool


def _dense(op, x, parameters, _masks):
    kernel = parameters[op.kernel]
    y = np.zeros(op.units)
    for unit in range(op.units):
        total = 0.0 if op.bias is None else float(parameters[op.bias][unit])
        for feature in range(len(x)):
            total += float(x[feature]) * float(kernel[feature, unit])
        y[unit] = total
    return y


def _grayscale(op, x, _parameters, _masks):
    y = np.zeros(op.output_shape)
    for row, col, _ in np.ndindex(op.output_shape):
        y[row, col, 0] = sum(weight * x[row, col, channel] for channel, weight in enumerate(op.weights))
    return y


def _flatten(_op, x, _parameters, _masks):
    return np.array([x[place] for place in np.ndindex(x.shape)])  # the last index runs fastest


def _softmax(_op, x, _parameters, _masks):
    exponentials = [math.exp(score - max(x)) for score in x]
    return np.array([exponential / sum(exponentials) for exponential in exponentials])


def _element_wise(x, function):
    return np.array([function(value) for value in x.ravel().tolist()]).reshape(x.shape)


_FUNCTIONS = {
    "relu": lambda value: max(value, 0.0),
    "tanh": math.tanh,
    "sigmoid": lambda value: 1 / (1 + math.exp(-value)),
}

_FORWARD = {
    RescaleOp: lambda op, x, _parameters, _masks: _element_wise(x, lambda value: value * op.scale + op.offset),
    GrayscaleOp: _grayscale,
    Conv2DOp: _conv2d,
    MaxPool2DOp: _pool(max),
    AvgPool2DOp: _pool(lambda pixels: sum(pixels) / len(pixels)),
    FlattenOp: _flatten,
    DenseOp: _dense,
    ActivationOp: lambda op, x, _parameters, _masks: _element_wise(x, _FUNCTIONS[op.function]),
    DropoutOp: lambda op, x, _parameters, masks: x * masks[op.layer] if op.layer in masks else x,
    SoftmaxOp: _softmax,
}
