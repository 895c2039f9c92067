"""Activations, dense layers, flatten, preprocessing and dropout that are broken."""

from dataclasses import replace

import numpy as np

from cnnkit.plan import (
    LUMA,
    ActivationOp,
    DenseOp,
    FlattenOp,
    GrayscaleOp,
    RescaleOp,
)
from mutants.breaking import Wrapped, backend, broken_kernel, broken_plan, broken_program, broken_sight, fed
from mutants.right import FUNCTIONS, activation, dense, flatten, grayscale, rescale

# ---------------------------------------------------------------------------------------------------------- activations


def broken_function(name, broken, *meant):
    """The decorated function `x -> (y, pullback)` takes the place of the activation `name`."""

    def note(function):
        def kernel(op, x):
            return function(x) if op.function == name else activation(op, x)

        kernel.__name__, kernel.__module__ = function.__name__, function.__module__
        return broken_kernel(ActivationOp, broken, *meant)(kernel)

    return note


def right_back(name, x):
    return FUNCTIONS[name](x)[1]


@broken_function(
    "relu", "ReLU swallows NaN: max(x, 0) as GPUs compute it", "v36.loss.relu.nan", "v36.loss.relu-pool.nan"
)
def relu_swallows_nan(x):
    return np.fmax(x, 0), right_back("relu", x)


@broken_function(
    "relu", "ReLU multiplies by a mask, which makes NaN of minus infinity", "v36.overflow.relu", "v36.relu.minus-inf"
)
def relu_multiplies_by_a_mask(x):
    return x * (x > 0), right_back("relu", x)


@broken_function(
    "relu", "The slope of ReLU at 0 is 1", "v37.relu.slope-at-zero.on-conv2d", "v37.relu.slope-at-zero.features"
)
def relu_slope_at_zero_is_one(x):
    return np.where(x < 0, 0, x), lambda dy: (np.where(x >= 0, dy, 0),)


@broken_function(
    "relu", "The slope of ReLU at 0 is 0.5", "v37.relu.slope-at-zero.on-conv2d", "v37.relu.slope-at-zero.features"
)
def relu_slope_at_zero_is_a_half(x):
    return np.where(x < 0, 0, x), lambda dy: (((np.sign(x) + 1) / 2 * dy).astype(dy.dtype),)


@broken_function("relu", "ReLU leaks 1 % of what is negative", "relu.forward.on-dense", "relu.forward.features")
def relu_leaks(x):
    return np.where(x < 0, 0.01 * x, x), lambda dy: (np.where(x > 0, dy, 0.01 * dy),)


@broken_function("relu", "ReLU leaks on the way back only", "relu.gradient.last", "relu.gradient.features")
def relu_gradient_leaks(x):
    return np.where(x < 0, 0, x), lambda dy: (np.where(x > 0, dy, 0.01 * dy),)


@broken_function("relu", "ReLU stops at 6", "relu.forward.uint8", "relu.forward.saturated")
def relu_stops_at_six(x):
    return np.clip(x, 0, 6), right_back("relu", x)


@broken_function(
    "relu", "ReLU passes back only gradients that are positive", "relu.gradient.last", "relu.gradient.features"
)
def relu_passes_positive_gradients(x):
    return np.where(x < 0, 0, x), lambda dy: (np.where((x > 0) & (dy > 0), dy, 0),)


@broken_function("relu", "ReLU is the smooth softplus", "relu.forward.on-dense", "relu.forward.uint8")
def relu_is_softplus(x):
    return np.logaddexp(x, 0), lambda dy: (dy / (1 + np.exp(-x)),)


@broken_function("tanh", "Tanh is a rational approximation", "tanh.forward.on-dense", "tanh.forward.features")
def tanh_is_rational(x):
    near = np.clip(x, -3, 3)
    return near * (27 + near * near) / (27 + 9 * near * near), right_back("tanh", x)


@broken_function(
    "tanh",
    "Tanh is (e^2x - 1) / (e^2x + 1), which is NaN for large x",
    "tanh.forward.saturated",
    "tanh.gradient.saturated",
)
def tanh_overflows(x):
    e = np.exp(2 * x)
    return (e - 1) / (e + 1), right_back("tanh", x)


@broken_function(
    "tanh", "The slope of tanh is 1 - y instead of 1 - y ** 2", "tanh.gradient.last", "tanh.gradient.features"
)
def tanh_slope_without_the_square(x):
    y = np.tanh(x)
    return y, lambda dy: (dy * (1 - y),)


@broken_function("tanh", "Tanh is the identity between -1 and 1", "tanh.forward.on-dense", "tanh.forward.features")
def tanh_is_hard(x):
    return np.clip(x, -1, 1), lambda dy: (np.where(np.abs(x) < 1, dy, 0),)


@broken_function(
    "sigmoid",
    "Sigmoid is e^x / (1 + e^x), which is NaN for large x",
    "sigmoid.forward.saturated",
    "sigmoid.gradient.saturated",
)
def sigmoid_overflows(x):
    e = np.exp(x)
    return e / (1 + e), right_back("sigmoid", x)


@broken_function(
    "sigmoid", "Sigmoid is the straight line of hard sigmoid", "sigmoid.forward.on-dense", "sigmoid.forward.features"
)
def sigmoid_is_hard(x):
    return np.clip(x / 5 + 0.5, 0, 1), lambda dy: (np.where(np.abs(x) < 2.5, dy / 5, 0),)


@broken_function(
    "sigmoid", "The slope of sigmoid is y, without 1 - y", "sigmoid.gradient.last", "sigmoid.gradient.features"
)
def sigmoid_slope_is_y(x):
    y = 1 / (1 + np.exp(-x))
    return y, lambda dy: (dy * y,)


@broken_function(
    "sigmoid", "The slope of sigmoid is taken at y instead of x", "sigmoid.gradient.last", "sigmoid.gradient.features"
)
def sigmoid_slope_at_y(x):
    y = 1 / (1 + np.exp(-x))
    again = 1 / (1 + np.exp(-y))
    return y, lambda dy: (dy * again * (1 - again),)


@broken_function(
    "sigmoid", "Sigmoid is kept between 0.0001 and 0.9999", "sigmoid.forward.saturated", "sigmoid.gradient.saturated"
)
def sigmoid_is_clipped(x):
    return np.clip(1 / (1 + np.exp(-x)), 1e-4, 1 - 1e-4), right_back("sigmoid", x)


@broken_plan("The activation of a Dense layer is forgotten", "relu.forward.on-dense", "sigmoid.forward.on-dense")
def activation_of_dense_forgotten(op, plan):
    is_forgotten = isinstance(op, ActivationOp) and plan.model.layers[op.layer].kind == "dense"
    return None if is_forgotten else op


@broken_plan("The activation of a Conv2D layer is forgotten", "relu.forward.no-bias", "relu.forward.on-conv2d")
def activation_of_conv_forgotten(op, plan):
    is_forgotten = isinstance(op, ActivationOp) and plan.model.layers[op.layer].kind == "conv2d"
    return None if is_forgotten else op


@broken_plan(
    "An activation that is a layer of its own is forgotten", "sigmoid.forward.tiny", "sigmoid.forward.features"
)
def activation_as_a_layer_forgotten(op, plan):
    is_forgotten = isinstance(op, ActivationOp) and plan.model.layers[op.layer].kind == op.function
    return None if is_forgotten else op


@broken_plan("Every activation is ReLU", "sigmoid.forward.on-dense", "tanh.forward.tiny")
def every_activation_is_relu(op, _plan):
    return replace(op, function="relu") if isinstance(op, ActivationOp) else op


# --------------------------------------------------------------------------------------------------- dense and flatten


@broken_kernel(
    FlattenOp, "Flatten goes through (channels, height, width)", "v13.flatten.order", "v13.flatten.order.square"
)
def flatten_by_channels(op, x):  # noqa: ARG001 - every kernel is called alike
    batch, height, width, channels = x.shape

    def back(dy):
        return (dy.reshape(batch, channels, height, width).transpose(0, 2, 3, 1),)

    return x.transpose(0, 3, 1, 2).reshape(batch, -1), back


@broken_kernel(
    FlattenOp, "Flatten goes through (width, height, channels)", "v13.flatten.order", "v13.flatten.order.square"
)
def flatten_by_columns(op, x):  # noqa: ARG001 - every kernel is called alike
    batch, height, width, channels = x.shape

    def back(dy):
        return (dy.reshape(batch, width, height, channels).transpose(0, 2, 1, 3),)

    return x.transpose(0, 2, 1, 3).reshape(batch, -1), back


@broken_kernel(DenseOp, "A square dense kernel is transposed", "dense.forward.no-bias.square", "dense.forward.stack")
def dense_kernel_transposed(op, x, kernel, *bias):
    if kernel.shape[0] != kernel.shape[1]:
        return dense(op, x, kernel, *bias)
    y, pullback = dense(op, x, kernel.T, *bias)

    def back(dy):
        dx, d_kernel, *rest = pullback(dy)
        return dx, d_kernel.T, *rest

    return y, back


@broken_kernel(
    DenseOp,
    "A dense kernel is read as (units, in), whatever its shape says",
    "dense.forward.no-bias.wide",
    "dense.forward.no-bias.square",
)
def dense_kernel_read_by_columns(op, x, kernel, *bias):
    return dense(op, x, kernel.ravel().reshape(kernel.shape[::-1]).T, *bias)


@broken_kernel(
    DenseOp, "The bias of a dense layer is forgotten", "dense.forward.one-feature", "dense.forward.one-number"
)
def dense_bias_forgotten(op, x, kernel, bias=None):
    return dense(op, x, kernel, None if bias is None else bias * 0)


@broken_kernel(DenseOp, "Features beyond the 256th are ignored", "dense.forward.deep", "dense.gradient.deep")
def features_beyond_256_ignored(*given):
    def cut(op, x, kernel, *bias):
        kernel = kernel.copy()
        kernel[256:] = 0
        return op, x, kernel, *bias

    return fed(dense, cut)(*given)


@broken_kernel(
    DenseOp, "A dense layer scales its bias by the number of features", "dense.forward.wide", "dense.forward.tiles"
)
def dense_bias_scaled(op, x, kernel, bias=None):
    return dense(op, x, kernel, None if bias is None else bias * len(kernel))


@broken_kernel(
    FlattenOp,
    "Flatten goes through (channels, height, width) where images are square",
    "v13.flatten.order.square",
    "v13.flatten.order.network",
)
def flatten_of_square_images_by_channels(op, x):
    return flatten_by_channels(op, x) if x.shape[1] == x.shape[2] else flatten(op, x)


@broken_kernel(
    DenseOp,
    "The bias of a dense layer goes along the batch, where it fits",
    "dense.forward.tall",
    "dense.gradient.one-feature",
)
def dense_bias_along_the_batch(op, x, kernel, bias=None):
    y, pullback = dense(op, x, kernel, bias)
    return (y - bias + bias[:, None] if bias is not None and len(x) == len(bias) else y), pullback


@broken_kernel(
    DenseOp,
    "A dense layer with one unit loses its axis, which broadcasting brings back wrong",
    "dense.forward.one-unit",
    "dense.forward.one-number",
)
def dense_of_one_unit_broadcast(op, x, kernel, *bias):
    y, pullback = dense(op, x, kernel, *bias)
    return (np.repeat(y[:1], len(x), 0) if op.units == 1 else y), pullback


# ------------------------------------------------------------------------------------------------------- preprocessing


@broken_kernel(RescaleOp, "Rescale ignores the offset", "rescale.forward.offset", "rescale.forward.zero-scale")
def rescale_ignores_the_offset(op, x):
    return rescale(replace(op, offset=0.0), x)


@broken_kernel(
    RescaleOp,
    "Rescale adds the offset before it scales",
    "rescale.forward.zero-scale",
    "rescale.forward.negative-scale",
)
def rescale_adds_first(op, x):
    return (x + op.offset) * op.scale, rescale(op, x)[1]


@broken_kernel(RescaleOp, "Rescale divides by the scale", "rescale.forward.bytes", "rescale.forward.zero-scale")
def rescale_divides(op, x):
    return x / op.scale + op.offset, lambda dy: (dy / op.scale,)


@broken_kernel(
    RescaleOp, "Rescale keeps its results between 0 and 1", "rescale.forward.negative-scale", "rescale.forward.twice"
)
def rescale_clips(op, x):
    return np.clip(rescale(op, x)[0], 0, 1), rescale(op, x)[1]


@broken_plan(
    "Rescale is taken for part of the input: one further down is left out",
    "rescale.forward.twice",
    "rescale.gradient.zero-scale",
)
def rescale_only_at_the_beginning(op, _plan):
    return None if isinstance(op, RescaleOp) and op.layer > 0 else op


@broken_sight("uint8 images are rescaled in whole numbers", "v39.rescale.uint8.offset", "v39.float-as-uint8")
def rescaled_in_whole_numbers(images, plan):
    first = plan.operations[0]
    if images.dtype != np.uint8 or not isinstance(first, RescaleOp):
        return images
    return (np.trunc(images * first.scale) / first.scale).astype(np.float32)


@broken_sight("uint8 images are divided by 255, whatever the model says", "v39.rescale.uint8", "v39.avg-pool.uint8")
def uint8_always_divided_by_255(images, _plan):
    return (images / 255).astype(np.float32) if images.dtype == np.uint8 else images


@broken_sight("uint8 images are read as signed bytes", "v39.rescale.uint8", "v39.avg-pool.uint8")
def uint8_read_as_signed(images, _plan):
    return images.astype(np.int8).astype(np.float32) if images.dtype == np.uint8 else images


@broken_sight(
    "The channels of uint8 images are added up in uint8", "v39.grayscale.mean.uint8", "v39.grayscale.luma.uint8"
)
def grayscale_of_uint8_overflows(images, plan):
    first = plan.operations[0]
    if images.dtype != np.uint8 or not isinstance(first, GrayscaleOp):
        return images
    total = images.sum(-1, keepdims=True, dtype=np.uint8)
    return np.repeat(total / np.float32(images.shape[-1]), images.shape[-1], -1).astype(np.float32)


@broken_kernel(
    GrayscaleOp, "Luma weighs blue as red: the order is BGR", "v41.grayscale.luma.float", "v41.grayscale.luma.primaries"
)
def luma_of_bgr(op, x):
    return grayscale(replace(op, weights=op.weights[::-1]), x)


@broken_kernel(
    GrayscaleOp, "Luma has the weights of BT.709", "v41.grayscale.luma.float", "v41.grayscale.luma.primaries"
)
def luma_of_another_standard(op, x):
    return grayscale(replace(op, weights=(0.2126, 0.7152, 0.0722)) if op.weights == LUMA else op, x)


@broken_kernel(
    GrayscaleOp, "Luma is the mean of the channels", "v41.grayscale.luma.float", "v41.grayscale.luma.primaries"
)
def luma_is_the_mean(op, x):
    return grayscale(replace(op, weights=(1 / len(op.weights),) * len(op.weights)), x)


@broken_kernel(
    GrayscaleOp,
    "The mean of the channels is luma where there are three",
    "v41.grayscale.mean.3",
    "v41.grayscale.mean.primaries",
)
def mean_is_luma(op, x):
    return grayscale(replace(op, weights=LUMA) if len(op.weights) == 3 else op, x)


@broken_kernel(GrayscaleOp, "Grayscale gives whole numbers", "grayscale.gradient.mean.1", "grayscale.gradient.luma")
def grayscale_rounds(op, x):
    return np.round(grayscale(op, x)[0]), grayscale(op, x)[1]


@broken_kernel(
    GrayscaleOp, "Grayscale always divides by three channels", "grayscale.gradient.mean.1", "grayscale.gradient.mean.2"
)
def grayscale_of_three_channels(op, x):
    return grayscale(replace(op, weights=(1 / 3,) * len(op.weights)) if op.weights != LUMA else op, x)


@broken_program("Preprocessing is left out of training", "rescale.gradient.zero-scale", "rescale.gradient.features")
class PreprocessingOnlyInPredict(Wrapped):
    """Trains with a plan in which rescaling changes nothing."""

    def __init__(self, inner, plan):
        super().__init__(inner, plan)
        if hasattr(inner, "optimizer"):
            bare = tuple(
                replace(op, scale=1.0, offset=0.0) if isinstance(op, RescaleOp) else op for op in plan.operations
            )
            self.training = backend(inner.network.dtype.name).compile_training(
                replace(plan, operations=bare), inner.state(), inner.optimizer
            )

    def predict(self, images):
        if hasattr(self, "training"):
            state = self.training.state()
            for name, array in state.parameters.items():
                self.inner.parameters[name][...] = array
        return self.inner.predict(images)

    def gradients(self, images, labels):
        return self.training.gradients(images, labels)

    def step(self, images, labels):
        return self.training.step(images, labels)

    def state(self):
        return self.training.state()
