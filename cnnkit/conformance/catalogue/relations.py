"""Cases that need no oracle: two answers of the backend that must be related, whatever each of them is.

Both answers are off by a few units, and each relation allows for that by itself: the scale is a sum of absolute values
worked out here, or that of the oracle, whose values play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cnnkit.arrays import Array, Images, Parameters
from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.material import (
    CONVNET,
    CONVNET_SHAPE,
    TANHNET,
    TANHNET_SHAPE,
    Body,
    right_output,
    start,
    trial,
)
from cnnkit.conformance.measure import F64, Numbers, roundoff
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.conformance.subject import Subject
from cnnkit.model import (
    AvgPool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    Model,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from cnnkit.optimizers import SGD
from cnnkit.plan import pair

PLAIN = SGD(learning_rate=0.1)


def _run(subject: Subject, layers: Sequence[Layer], parameters: Parameters, images: Images) -> Array:
    model = Model(input_shape=images.shape[1:], layers=list(layers))
    return subject.compile(model, parameters).predict(images)


def _alike(subject: Subject, what: str, one: Array, other: Array, scale: Any) -> None:
    """Demand that two answers of the backend are equal but for rounding errors of `scale`."""
    value = np.asarray(other, np.float64)
    subject.compare(what, one, Numbers(value, np.broadcast_to(np.asarray(scale, np.float64), value.shape)))


def _quantized(images: Images) -> Images:
    """Multiples of 1/64, whose sums both precisions hold exactly."""
    return (np.round(np.asarray(images, np.float64) * 64) / 64).astype(images.dtype)


def _scale(question: Question) -> F64:
    return right_output(question).scale


# -------------------------------------------------------------------------------------------------- adjoints, derivatives

_CHAINS: dict[str, tuple[str, tuple[Layer, ...]]] = {
    "conv2d": ("a convolution", (Conv2D(filters=4, kernel_size=(2, 3), use_bias=False),)),
    "conv2d.padding": (
        "a convolution with padding",
        (Conv2D(filters=4, kernel_size=3, padding=((2, 0), (1, 2)), use_bias=False),),
    ),
    "conv2d.strides": (
        "a convolution with strides",
        (Conv2D(filters=4, kernel_size=(3, 2), strides=(2, 3), use_bias=False),),
    ),
    "conv2d.dilation": ("a dilated convolution", (Conv2D(filters=4, kernel_size=2, dilation=(2, 3), use_bias=False),)),
    "avg-pool": ("average pooling", (AvgPool2D(pool_size=3, strides=2, padding=((1, 1), (0, 2))),)),
    "max-pool": ("max pooling", (MaxPool2D(pool_size=3, strides=2, padding=((1, 1), (0, 2))),)),
    "relu": ("ReLU", (ReLU(),)),
}


def _adjoint(subject: Subject, question: Question) -> None:
    """In a chain of linear layers without bias, <dK, K> is the same number for each of its kernels.

    For y = conv(x) with the kernel K, <dK, K> = <dy, conv(x)>, and for the layer before, x = layer(w) with the kernel
    L, <dL, L> = <conv_T(dy), x>: the relation of a convolution to its transpose. ReLU and pooling are linear where
    they stand.
    """
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    _, found = start(subject, question).gradients(question.images, question.labels)
    parts = {name: question.parameters[name].astype(np.float64) * gradient for name, gradient in found.items()}
    first, *others = parts
    for name in others:
        # What the passes to both kernels share cancels, so that carried errors play no part.
        scale = 2 * (np.abs(parts[first]).sum() + np.abs(parts[name]).sum())
        both = Numbers(np.asarray(parts[first].sum()), np.asarray(scale))
        subject.compare(f"<d{name}, {name}>, beside <d{first}, {first}>,", parts[name].sum(), both)


def _finite_differences(subject: Subject, question: Question) -> None:
    """The loss, a little further along each of some directions, has grown as the gradient says."""
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    images, labels = question.images, question.labels
    _, found = start(subject, question).gradients(images, labels)
    rng, step = np.random.default_rng(5), 1e-4
    for name, array in question.parameters.items():
        way = rng.uniform(-1, 1, array.shape)
        sides = []
        for move in (step, -step):
            moved = replace(question, parameters={**question.parameters, name: array + move * way})
            sides.append(start(subject, moved).gradients(images, labels)[0])
        slope = (sides[0] - sides[1]) / (2 * step)
        # The error of the difference is a third derivative times step**2, and rounding over step: far below 1e-6.
        expected = Numbers(np.asarray((found[name] * way).sum()), np.asarray(1e-6 / 128 / roundoff("float64")))
        subject.compare(f"the slope of the loss along {name}", slope, expected)


GRADIENT_CASES = [
    trial(
        f"relation.adjoint.{name}",
        f"The way back through {said} is its transpose",
        _adjoint,
        (
            Conv2D(filters=3, kernel_size=(2, 1), use_bias=False),
            *layers,
            Flatten(),
            Dense(units=3, use_bias=False),
            Softmax(),
        ),
        (7, 8, 2),
        ask="gradients",
        optimizer=PLAIN,
        batch=3,
    )
    for name, (said, layers) in _CHAINS.items()
] + [
    trial(
        f"relation.finite-differences.{name}",
        f"The gradient is the slope of the loss, with {said}",
        _finite_differences,
        (*layers, Flatten(), Dense(units=3), Softmax()),
        (6, 5, 2),
        ask="gradients",
        optimizer=PLAIN,
        precisions=("float64",),
    )
    for name, said, layers in (
        (
            "conv2d",
            "a convolution between convolutions",
            (
                Conv2D(filters=3, kernel_size=2, activation="tanh"),
                Conv2D(filters=2, kernel_size=(2, 3), strides=2, padding="same"),
                Conv2D(filters=2, kernel_size=2, dilation=(1, 2), padding=((1, 0), (1, 1))),
            ),
        ),
        (
            "avg-pool",
            "average pooling and sigmoid",
            (Conv2D(filters=3, kernel_size=2, activation="sigmoid"), AvgPool2D(pool_size=3, strides=2, padding="same")),
        ),
        ("dense", "a dense layer and tanh", (Flatten(), Dense(units=6, activation="tanh"))),
    )
]


def _sum_of_batches(subject: Subject, question: Question) -> None:
    """Means over 2 and 3 images, weighted by their counts, make the mean over all 5."""
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    right = expected_answer(replace(question, ask="gradients")).numbers
    whole, found = program.gradients(question.images, question.labels)
    loss, sums = 0.0, {name: np.zeros(array.shape) for name, array in found.items()}
    for rows in (slice(0, 2), slice(2, 5)):
        part, gradients = program.gradients(question.images[rows], question.labels[rows])
        share = (rows.stop - rows.start) / 5
        loss += share * part
        for name, array in gradients.items():
            sums[name] += share * array
    _alike(subject, "the loss of a batch, beside its parts,", np.asarray(whole), np.asarray(loss), right["loss"].scale)
    for name, array in found.items():
        _alike(
            subject,
            f"the gradient of {name}, beside those of its parts,",
            array,
            sums[name],
            right[f"gradient of {name}"].scale,
        )


def _permuted_batch(subject: Subject, question: Question) -> None:
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    right = expected_answer(replace(question, ask="gradients")).numbers
    order = np.array([3, 0, 4, 1, 2])
    one, found = program.gradients(question.images, question.labels)
    other, permuted = program.gradients(question.images[order], question.labels[order])
    _alike(subject, "the loss of a batch in another order", np.asarray(other), np.asarray(one), right["loss"].scale)
    for name, array in found.items():
        _alike(
            subject,
            f"the gradient of {name} in another order",
            permuted[name],
            array,
            right[f"gradient of {name}"].scale,
        )


BATCH_GRADIENT_CASES = [
    trial(f"relation.{name}", claim, body, CONVNET, CONVNET_SHAPE, ask="gradients", optimizer=PLAIN, batch=5)
    for name, claim, body in (
        ("sum-of-batches", "The gradient of a batch is the weighted mean of those of its parts", _sum_of_batches),
        ("permuted-batch", "The order within a batch does not matter to its gradient", _permuted_batch),
    )
]


# ----------------------------------------------------------------------------------------------------- batches, predicted


def _one_by_one(subject: Subject, question: Question) -> None:
    program = subject.compile(question.model, question.parameters)
    rows = [program.predict(question.images[row : row + 1])[0] for row in range(len(question.images))]
    _alike(
        subject,
        "the output of a batch, beside those of its images,",
        program.predict(question.images),
        np.array(rows),
        _scale(question),
    )


def _permuted(subject: Subject, question: Question) -> None:
    program = subject.compile(question.model, question.parameters)
    order = np.random.default_rng(0).permutation(len(question.images))
    one, other = program.predict(question.images), program.predict(question.images[order])
    _alike(subject, "the output of a batch in another order", other, one[order], _scale(question)[order])


def _prefix(subject: Subject, question: Question) -> None:
    """A network is its first layers, and then the others."""
    whole = subject.compile(question.model, question.parameters).predict(question.images)
    for cut in range(len(question.model.layers) - 1):
        images = _run(
            subject, question.model.layers[: cut + 1], _numbered(question.parameters, 0, cut + 1), question.images
        )
        rest = _numbered(question.parameters, cut + 1, len(question.model.layers))
        split = _run(subject, question.model.layers[cut + 1 :], rest, images)
        _alike(subject, f"the output of the network cut behind layers[{cut}]", split, whole, _scale(question) + 1)


def _numbered(parameters: Parameters, start: int, stop: int) -> dict[str, Array]:
    """The parameters of layers `start` to `stop`, numbered from 0."""
    found = {}
    for name, array in parameters.items():
        layer, kind = name.split(".")
        if start <= int(layer) < stop:
            found[f"{int(layer) - start}.{kind}"] = array
    return found


BATCH_CASES = [
    trial("relation.batch.one-by-one", "A batch gives what its images give one by one", _one_by_one, batch=7),
    trial("relation.batch.permuted", "The order within a batch does not matter to an image", _permuted, batch=67),
    trial("relation.prefix", "A network gives what its first layers and then the others give", _prefix, batch=3),
    trial(
        "relation.prefix.tanh",
        "A network with activations in its layers gives what its parts give",
        _prefix,
        TANHNET,
        TANHNET_SHAPE,
        batch=3,
    ),
]


# ---------------------------------------------------------------------------------------------------------- convolutions


def _window_sums(images: Images, size: tuple[int, int]) -> F64:
    """The sum of |x| over each window of stride 1 and over the channels: `(batch, height', width', 1)`."""
    windows = sliding_window_view(np.abs(images.astype(np.float64)).sum(-1), size, axis=(1, 2))
    sums: F64 = windows.sum((-1, -2))[..., np.newaxis]
    return sums


def _delta(subject: Subject, question: Question) -> None:
    """A kernel that is 1 in one tap, from each channel to the filter of its number, shifts the image."""
    images = question.images
    channels = images.shape[-1]
    height, width = images.shape[1:3]
    for row, column in np.ndindex(2, 3):
        kernel = np.zeros((2, 3, channels, channels), subject.dtype)
        kernel[row, column] = np.eye(channels)
        output = _run(
            subject, [Conv2D(filters=channels, kernel_size=(2, 3), use_bias=False)], {"0.kernel": kernel}, images
        )
        part = images[:, row : row + height - 1, column : column + width - 2]
        _alike(
            subject,
            f"the output of a kernel that is 1 at [{row}, {column}]",
            output,
            part,
            _window_sums(images, (2, 3)),
        )


def _identity(subject: Subject, question: Question) -> None:
    images = question.images
    channels = images.shape[-1]
    kernel = np.zeros((3, 3, channels, channels), subject.dtype)
    kernel[1, 1] = np.eye(channels)
    output = _run(
        subject, [Conv2D(filters=channels, kernel_size=3, padding="same", use_bias=False)], {"0.kernel": kernel}, images
    )
    sums = _window_sums(np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3))
    _alike(subject, "the output of a kernel that is 1 in its middle", output, images, sums)


def _pixels(subject: Subject, question: Question) -> None:
    """1 x 1 convolution, and a dense layer over the channels of each pixel."""
    kernel, bias = question.parameters["0.kernel"], question.parameters["0.bias"]
    rows = question.images.reshape(-1, question.images.shape[-1])
    dense = _run(subject, [Dense(units=kernel.shape[-1])], {"0.kernel": kernel[0, 0], "0.bias": bias}, rows)
    output = subject.compile(question.model, question.parameters).predict(question.images)
    _alike(
        subject,
        "a 1 x 1 convolution, beside a dense layer for each pixel,",
        output,
        dense.reshape(output.shape),
        _scale(question),
    )


def _full_size(subject: Subject, question: Question) -> None:
    """A kernel as large as the image, and a dense layer over the flattened image."""
    kernel, bias = question.parameters["0.kernel"], question.parameters["0.bias"]
    weights = {"1.kernel": kernel.reshape(-1, kernel.shape[-1]), "1.bias": bias}
    dense = _run(subject, [Flatten(), Dense(units=kernel.shape[-1])], weights, question.images)
    output = subject.compile(question.model, question.parameters).predict(question.images)
    _alike(
        subject,
        "a convolution as large as the image, beside a dense layer,",
        output,
        dense.reshape(output.shape),
        _scale(question),
    )


def _subsampled(subject: Subject, question: Question) -> None:
    layer = question.model.layers[0]
    every = layer.model_copy(update={"strides": 1})
    dense = _run(subject, [every], question.parameters, question.images)[:, ::2, ::3]
    output = subject.compile(question.model, question.parameters).predict(question.images)
    _alike(
        subject,
        "strides of (2, 3), beside every second row and third column,",
        output,
        dense[:, : output.shape[1], : output.shape[2]],
        _scale(question),
    )


def _with_holes(subject: Subject, question: Question) -> None:
    kernel = question.parameters["0.kernel"]
    holed = np.zeros((3, 7, *kernel.shape[2:]), kernel.dtype)
    holed[::2, ::3] = kernel
    layer = Conv2D(filters=kernel.shape[-1], kernel_size=(3, 7))
    output = subject.compile(question.model, question.parameters).predict(question.images)
    other = _run(subject, [layer], {**question.parameters, "0.kernel": holed}, question.images)
    _alike(subject, "dilation (2, 3), beside a kernel with holes,", output, other, _scale(question))


def _padded(fill: float) -> Body:
    """Padding, and the same numbers put around the image by hand."""

    def body(subject: Subject, question: Question) -> None:
        layer = question.model.layers[0]
        by_hand = np.pad(question.images, ((0, 0), (2, 0), (1, 2), (0, 0)), constant_values=fill)
        valid = layer.model_copy(update={"padding": "valid"})
        output = subject.compile(question.model, question.parameters).predict(question.images)
        other = _run(subject, [valid], question.parameters, by_hand)
        _alike(subject, f"padding, beside {fill:g} around the image,", output, other, _scale(question))

    return body


def _linear(subject: Subject, question: Question) -> None:
    """f(x + y) = f(x) + f(y), f(4 x) = 4 f(x), f(-x) = -f(x); the images are such that sums of them are exact."""
    one, other = _quantized(question.images), _quantized(question.images[::-1] * 0.5)
    program = subject.compile(question.model, question.parameters)
    of_one, of_other = program.predict(one).astype(np.float64), program.predict(other).astype(np.float64)
    scale = _scale(replace(question, images=np.abs(one) + np.abs(other)))
    _alike(
        subject,
        "the output of a sum of images, beside the sum of outputs,",
        program.predict(one + other),
        of_one + of_other,
        3 * scale,
    )
    _alike(subject, "the output of images times 4", program.predict(4 * one), 4 * of_one, 8 * scale)
    _alike(subject, "the output of negated images", program.predict(-one), -of_one, 2 * scale)


def _translated(subject: Subject, question: Question) -> None:
    """An image whose content moves by the strides makes an output that moves by one."""
    layer = question.model.layers[0]
    assert isinstance(layer, Conv2D)  # noqa: S101 - the cases' own
    rows, columns = pair(layer.strides)
    output = subject.compile(question.model, question.parameters).predict(question.images)
    moved = _run(subject, [layer], question.parameters, question.images[:, rows:, columns:])
    kept = output[:, 1:, 1:][:, : moved.shape[1], : moved.shape[2]]
    scale = _scale(question)[:, 1:, 1:][:, : moved.shape[1], : moved.shape[2]]
    _alike(subject, "the output of a moved image, beside the moved output,", moved, kept, scale)


def _permuted_filters(subject: Subject, question: Question) -> None:
    order = np.array([2, 0, 3, 1])
    others = {name: array[..., order] for name, array in question.parameters.items()}
    output = subject.compile(question.model, question.parameters).predict(question.images)
    permuted = subject.compile(question.model, others).predict(question.images)
    _alike(
        subject, "the output of filters in another order", permuted, output[..., order], _scale(question)[..., order]
    )


def _permuted_channels(subject: Subject, question: Question) -> None:
    order = np.array([2, 0, 1])
    others = {**question.parameters, "0.kernel": question.parameters["0.kernel"][:, :, order]}
    output = subject.compile(question.model, question.parameters).predict(question.images)
    permuted = subject.compile(question.model, others).predict(question.images[..., order])
    _alike(subject, "the output of channels in another order, and kernels too,", permuted, output, _scale(question))


def _transposed(subject: Subject, question: Question) -> None:
    """Height and width are treated alike: everything exchanged, the output is exchanged."""
    layer = question.model.layers[0]
    pairs = {name: tuple(reversed(value)) for name, value in layer if isinstance(value, tuple)}
    turned = layer.model_copy(update=pairs)
    others = {
        name: array.swapaxes(0, 1) if name.endswith("kernel") else array for name, array in question.parameters.items()
    }
    output = subject.compile(question.model, question.parameters).predict(question.images)
    other = _run(subject, [turned], others, question.images.swapaxes(1, 2))
    _alike(subject, "the output of an image on its side", other.swapaxes(1, 2), output, _scale(question))


_CONV = Conv2D(filters=4, kernel_size=(2, 3))
_HARD = Conv2D(filters=4, kernel_size=(3, 2), strides=(2, 1), dilation=(1, 2), padding=((2, 0), (1, 3)))

CONVOLUTION_CASES = [
    trial(f"relation.conv2d.{name}", claim, body, (layer,), (8, 9, 3))
    for name, claim, body, layer in (
        ("delta", "A kernel that is 1 in one tap shifts the image", _delta, _CONV),
        ("identity", "A kernel that is 1 in its middle gives back the image", _identity, _CONV),
        ("pixels", "A 1 x 1 convolution is a dense layer for each pixel", _pixels, Conv2D(filters=4, kernel_size=1)),
        (
            "full-size",
            "A convolution as large as the image is a dense layer",
            _full_size,
            Conv2D(filters=4, kernel_size=(8, 9)),
        ),
        (
            "strides",
            "Strides leave out rows and columns of the output",
            _subsampled,
            Conv2D(filters=4, kernel_size=(2, 3), strides=(2, 3)),
        ),
        (
            "dilation",
            "Dilation is a kernel with holes",
            _with_holes,
            Conv2D(filters=4, kernel_size=(2, 3), dilation=(2, 3)),
        ),
        (
            "padding",
            "Padding is zeros around the image",
            _padded(0.0),
            Conv2D(filters=4, kernel_size=3, padding=((2, 0), (1, 2))),
        ),
        (
            "linear",
            "A convolution without bias is linear",
            _linear,
            Conv2D(filters=4, kernel_size=3, use_bias=False, padding="same"),
        ),
        ("translation", "A convolution moves with the image", _translated, _CONV),
        (
            "translation-strides",
            "A convolution moves with the image, by its strides",
            _translated,
            Conv2D(filters=4, kernel_size=3, strides=(2, 3)),
        ),
        ("filters", "Filters in another order make an output in another order", _permuted_filters, _HARD),
        ("channels", "Channels and kernels in another order make the same output", _permuted_channels, _HARD),
        ("transposed", "Height and width exchanged everywhere are exchanged in the output", _transposed, _HARD),
    )
]


# ------------------------------------------------------------------------------------------------------ pools, functions


def _uniform(subject: Subject, question: Question) -> None:
    """Average pooling without padding, and a convolution with equal weights, each channel for itself."""
    channels = question.images.shape[-1]
    kernel = np.zeros((2, 4, channels, channels), subject.dtype)
    kernel[:, :] = np.eye(channels) / 8
    layer = Conv2D(filters=channels, kernel_size=(2, 4), strides=(1, 2), use_bias=False)
    output = subject.compile(question.model, question.parameters).predict(question.images)
    other = _run(subject, [layer], {"0.kernel": kernel}, question.images)
    sums = _window_sums(question.images, (2, 4))[:, :, ::2]
    _alike(subject, "average pooling, beside a convolution with equal weights,", output, other, sums)


def _constant(subject: Subject, question: Question) -> None:
    images = np.full_like(question.images, 0.7)
    output = subject.compile(question.model, question.parameters).predict(images)
    _alike(
        subject, "the average of equal pixels, at the border too,", output, np.full_like(output, images.flat[0]), 1.0
    )


def _monotone(subject: Subject, question: Question) -> None:
    """Max pooling of 2 x + 1 is 2 y + 1, and its strides leave windows out."""
    program = subject.compile(question.model, question.parameters)
    images = _quantized(question.images)
    output = program.predict(images)
    subject.same("max pooling of 2 x + 1, and 2 y + 1,", program.predict(2 * images + 1), 2 * output + 1)


def _relu_parts(subject: Subject, question: Question) -> None:
    program = subject.compile(question.model, question.parameters)
    images = question.images
    subject.same("relu(x) - relu(-x), and x,", program.predict(images) - program.predict(-images), images)


def _odd(subject: Subject, question: Question) -> None:
    """The hyperbolic tangent is odd, and 2 sigmoid(2 x) - 1."""
    program = subject.compile(question.model, question.parameters)
    images = question.images * 4
    output = program.predict(images)
    _alike(subject, "tanh(-x), beside -tanh(x),", program.predict(-images), -output, 1.0)
    sigmoid = _run(subject, [Sigmoid()], {}, images * 2).astype(np.float64)
    _alike(subject, "tanh(x), beside 2 sigmoid(2 x) - 1,", output, 2 * sigmoid - 1, 3.0)


def _complement(subject: Subject, question: Question) -> None:
    program = subject.compile(question.model, question.parameters)
    images = question.images * 8
    total = program.predict(images).astype(np.float64) + program.predict(-images)
    _alike(subject, "sigmoid(x) + sigmoid(-x), beside 1,", total, np.ones_like(total), 1.0)


def _shifted(subject: Subject, question: Question) -> None:
    """Scores in eighths, so that what is added to them is added exactly."""
    images = np.round(question.images * 32) / 8
    program = subject.compile(question.model, question.parameters)
    output = program.predict(images)
    scale = _scale(replace(question, images=images))
    for shift in (16.0, -16.0):
        moved = program.predict((images + shift).astype(images.dtype))
        _alike(subject, f"the softmax of scores plus {shift:g}", moved, output, scale)


def _sums_to_one(subject: Subject, question: Question) -> None:
    output = subject.compile(question.model, question.parameters).predict(question.images * 10)
    subject.expect(bool((output >= 0).all()), f"a probability is {output.min()}; expected none below 0")
    _alike(
        subject,
        "the sum of the probabilities of an image",
        output.astype(np.float64).sum(-1),
        np.ones(len(output)),
        16.0,
    )


FUNCTION_CASES = [
    trial(
        "relation.avg-pool.uniform",
        "Average pooling is a convolution with equal weights",
        _uniform,
        (AvgPool2D(pool_size=(2, 4), strides=(1, 2)),),
        (6, 8, 3),
    ),
    trial(
        "relation.avg-pool.constant",
        "The average of equal pixels is that pixel, with padding in the window too",
        _constant,
        (AvgPool2D(pool_size=3, strides=2, padding="same"),),
        (6, 8, 3),
    ),
    trial(
        "relation.avg-pool.linear",
        "Average pooling is linear",
        _linear,
        (AvgPool2D(pool_size=3, strides=2, padding="same"),),
        (6, 8, 3),
    ),
    trial(
        "relation.avg-pool.transposed",
        "Average pooling treats height and width alike",
        _transposed,
        (AvgPool2D(pool_size=(3, 2), strides=(1, 2), padding=((2, 0), (0, 1))),),
        (6, 7, 3),
    ),
    trial(
        "relation.max-pool.monotone",
        "Max pooling goes with growing functions",
        _monotone,
        (MaxPool2D(pool_size=(2, 3), strides=(2, 1), padding=((1, 0), (0, 2))),),
        (6, 8, 3),
    ),
    trial(
        "relation.max-pool.padding",
        "Padding of max pooling is less than every pixel",
        _padded(-3.0),
        (MaxPool2D(pool_size=3, strides=(1, 2), padding=((2, 0), (1, 2))),),
        (6, 8, 3),
    ),
    trial(
        "relation.max-pool.strides",
        "Strides of max pooling leave windows out",
        _subsampled,
        (MaxPool2D(pool_size=3, strides=(2, 3)),),
        (7, 9, 3),
    ),
    trial(
        "relation.max-pool.transposed",
        "Max pooling treats height and width alike",
        _transposed,
        (MaxPool2D(pool_size=(3, 2), strides=(1, 2), padding=((2, 0), (0, 1))),),
        (6, 7, 3),
    ),
    trial("relation.relu.parts", "x is relu(x) - relu(-x)", _relu_parts, (ReLU(),), (4, 5, 3)),
    trial("relation.tanh", "tanh is odd, and the sigmoid stretched", _odd, (Tanh(),), (4, 5, 3)),
    trial("relation.sigmoid", "sigmoid(x) and sigmoid(-x) make 1", _complement, (Sigmoid(),), (4, 5, 3)),
    trial(
        "relation.softmax.shift",
        "A number added to all scores of an image does not change its probabilities",
        _shifted,
        (Softmax(),),
        (5,),
        batch=4,
    ),
    trial("relation.softmax.sum", "The probabilities of an image sum to 1", _sums_to_one, (Softmax(),), (5,), batch=4),
    trial(
        "relation.dense.linear",
        "A dense layer without bias is linear",
        _linear,
        (Dense(units=4, use_bias=False),),
        (9,),
        batch=3,
    ),
]

CASES: list[Case] = [*GRADIENT_CASES, *BATCH_GRADIENT_CASES, *BATCH_CASES, *CONVOLUTION_CASES, *FUNCTION_CASES]
