"""Cases of NaN and infinity, which go through every layer as IEEE arithmetic says, to where it says and nowhere else.

One rule is for convolutions and pools alike: what is not finite reaches the windows that hold it, and no other. Three
things are free, for right engines differ in them: zeros of padding times weights that are not finite, the softmax of a
row with plus infinity, and gradients where the loss is not finite, but for those of the last layer that learns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cnnkit.arrays import Images
from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.material import (
    CONVNET,
    TANHNET,
    Body,
    check_gradients,
    check_output,
    copied_state,
    right_output,
    start,
    trial,
)
from cnnkit.conformance.measure import Numbers
from cnnkit.conformance.question import Question
from cnnkit.conformance.subject import Subject
from cnnkit.model import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    Layer,
    MaxPool2D,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)
from cnnkit.optimizers import SGD, Adam

SPECIAL = {"nan": ("NaN", np.nan), "inf": ("infinity", np.inf), "minus-inf": ("minus infinity", -np.inf)}
SHAPE = (4, 5, 2)


def _everywhere(images: Images, value: float) -> Images:
    """The first image again and again, `value` at another pixel of each and in turn in each channel, and a clean one."""
    one = images[0]
    pixels = list(np.ndindex(*one.shape[:-1])) if one.ndim == 3 else [()]
    spread = np.repeat(one[np.newaxis], len(pixels) * 2 + 1, axis=0)
    for number, pixel in enumerate(pixels * 2):
        channel = (number + number // len(pixels)) % one.shape[-1]
        spread[(number, *pixel, channel)] = value
    return spread


def _predicts_everywhere(value: float) -> Body:
    def body(subject: Subject, question: Question) -> None:
        subject.ask(replace(question, images=_everywhere(question.images, value)))

    return body


# ------------------------------------------------------------------------------------------- every pixel, layer by layer

LAYERS: dict[str, tuple[str, tuple[Layer, ...]]] = {
    "conv2d": ("a convolution", (Conv2D(filters=3, kernel_size=(2, 3)),)),
    "conv2d.padding": ("a convolution with padding", (Conv2D(filters=3, kernel_size=3, padding="same"),)),
    "conv2d.strides": ("a convolution with strides", (Conv2D(filters=3, kernel_size=2, strides=(2, 1)),)),
    "conv2d.gaps": ("a convolution whose windows leave pixels out", (Conv2D(filters=3, kernel_size=1, strides=2),)),
    "conv2d.dilation": ("a dilated convolution, but not its holes", (Conv2D(filters=3, kernel_size=2, dilation=2),)),
    "conv2d.large": ("a convolution as large as the image", (Conv2D(filters=3, kernel_size=(4, 5)),)),
    "max-pool": ("overlapping windows of max pooling", (MaxPool2D(pool_size=(2, 3), strides=1),)),
    "max-pool.padding": (
        "max pooling with padding",
        (MaxPool2D(pool_size=3, strides=2, padding=((1, 1), (2, 1))),),
    ),
    "max-pool.gaps": ("max pooling that leaves pixels out", (MaxPool2D(pool_size=(1, 2), strides=(2, 3)),)),
    "max-pool.apart": ("max pooling side by side", (MaxPool2D(pool_size=2),)),
    "avg-pool": ("overlapping windows of average pooling", (AvgPool2D(pool_size=(2, 3), strides=1),)),
    "avg-pool.padding": (
        "average pooling with padding",
        (AvgPool2D(pool_size=3, strides=2, padding=((1, 1), (2, 1))),),
    ),
    "avg-pool.gaps": ("average pooling that leaves pixels out", (AvgPool2D(pool_size=(1, 2), strides=(2, 3)),)),
    "avg-pool.apart": ("average pooling side by side", (AvgPool2D(pool_size=2),)),
    "relu": ("ReLU", (ReLU(),)),
    "tanh": ("tanh", (Tanh(),)),
    "sigmoid": ("the sigmoid", (Sigmoid(),)),
    "rescale": ("a scale and an offset", (Rescale(scale=0.5, offset=3.0),)),
    "rescale.negative": ("a negative scale", (Rescale(scale=-2.0),)),
    "grayscale": ("the mean of channels", (Grayscale(),)),
    "flatten": ("flattening", (Flatten(),)),
    "dropout": ("dropout in predict", (Dropout(rate=0.5),)),
    "dense": ("a dense layer", (Flatten(), Dense(units=3))),
    "relu-pool": (
        "max pooling behind ReLU behind a convolution",
        (Conv2D(filters=3, kernel_size=2, padding="same", activation="relu"), MaxPool2D(pool_size=2, strides=1)),
    ),
    "pool-relu": (
        "ReLU behind max pooling behind a convolution",
        (Conv2D(filters=3, kernel_size=2, padding="same"), MaxPool2D(pool_size=(2, 3), strides=1), ReLU()),
    ),
    "conv-conv": (
        "a convolution behind a convolution",
        (Conv2D(filters=3, kernel_size=(1, 2)), Conv2D(filters=2, kernel_size=(2, 1), activation="tanh")),
    ),
    "tanh-pool-dense": (
        "average pooling, tanh and a dense layer behind a convolution",
        (Conv2D(filters=3, kernel_size=2), AvgPool2D(pool_size=(3, 2)), Tanh(), Flatten(), Dense(units=3)),
    ),
}

PLACE_CASES = [
    trial(
        f"v36.{name}.{special}",
        f"{named}, at any pixel, goes through {said} as IEEE says",
        _predicts_everywhere(value),
        layers,
        SHAPE,
    )
    for name, (said, layers) in LAYERS.items()
    for special, (named, value) in SPECIAL.items()
] + [
    trial(
        "v36.grayscale.luma.nan",
        "NaN in any channel makes the luma NaN",
        _predicts_everywhere(np.nan),
        (Grayscale(weights="luma"),),
        (3, 4, 3),
    ),
    trial(
        "v36.network.nan",
        "NaN at any pixel of an image reaches its probabilities",
        _predicts_everywhere(np.nan),
        CONVNET[1:],
        SHAPE,
    ),
]


def _all_minus_infinity(subject: Subject, question: Question) -> None:
    subject.ask(replace(question, images=np.full_like(question.images, -np.inf)))


def _lowest(subject: Subject, question: Question) -> None:
    """The lowest finite number is above the minus infinity of the padding, and above what some engines begin with."""
    images = np.full_like(question.images, np.finfo(subject.dtype).min)
    images[1] = -np.inf
    images[1, ::2, ::2] = np.finfo(subject.dtype).min
    output = subject.compile(question.model, question.parameters).predict(images)
    subject.same(
        "max pooling of the lowest numbers, and what it should be,",
        output,
        right_output(replace(question, images=images)).value,
    )


POOL_CASES = [
    trial(
        f"v36.max-pool.{name}",
        claim,
        body,
        (MaxPool2D(pool_size=3, strides=2, padding=((1, 1), (1, 1))),),
        SHAPE,
    )
    for name, claim, body in (
        ("all-minus-inf", "The maximum of minus infinities, padding or not, is minus infinity", _all_minus_infinity),
        ("lowest", "Max pooling keeps the lowest finite number and minus infinity apart", _lowest),
    )
]


# ---------------------------------------------------------------------------------------------------- rows and softmax


def _one_row(value: float, *, column: int | None = None) -> Body:
    """One image of the batch is spoilt; the others stay what they are."""

    def body(subject: Subject, question: Question) -> None:
        images = question.images.copy()
        images[1] = value if column is None else images[1]
        if column is not None:
            images[1, ..., column] = value
        subject.ask(replace(question, images=images))

    return body


def _forgotten(subject: Subject, question: Question) -> None:
    program = subject.compile(question.model, question.parameters)
    for _, value in SPECIAL.values():
        program.predict(np.full_like(question.images, value))
        check_output(subject, program, question, f"the output after images of {value}")


ROW_CASES = [
    trial("v36.batch.network", "NaN in one image leaves the others of its batch alone", _one_row(np.nan), batch=3),
    trial(
        "v36.batch.dense",
        "NaN in one row leaves the others of a dense layer alone",
        _one_row(np.nan, column=2),
        (Dense(units=4),),
        (5,),
        batch=3,
    ),
    trial(
        "v36.batch.softmax",
        "NaN among the scores of one image makes all of its probabilities NaN, and no others",
        _one_row(np.nan, column=2),
        (Softmax(),),
        (4,),
        batch=3,
    ),
    trial(
        "v36.softmax.minus-inf",
        "A score of minus infinity has the probability 0",
        _one_row(-np.inf, column=2),
        (Softmax(),),
        (4,),
        batch=3,
    ),
    trial("v36.batch.forgotten", "After images that are not finite, a program predicts as before", _forgotten, batch=3),
]


# ------------------------------------------------------------------------------------------------------------ parameters


def _spoilt(name: str, place: tuple[int, ...], value: float) -> Body:
    def body(subject: Subject, question: Question) -> None:
        array = question.parameters[name].copy()
        array[place] = value
        subject.ask(replace(question, parameters={**question.parameters, name: array}))

    return body


def _under_a_tap_of_zero(value: float) -> Body:
    def body(subject: Subject, question: Question) -> None:
        kernel, images = question.parameters["0.kernel"].copy(), question.images.copy()
        kernel[0, 1] = 0
        images[(1, *(size // 2 for size in images.shape[1:]))] = value
        subject.ask(replace(question, parameters={**question.parameters, "0.kernel": kernel}, images=images))

    return body


def _zero_times_infinity(subject: Subject, question: Question) -> None:
    kernel = question.parameters["0.kernel"].copy()
    kernel[..., 1, 0] = np.inf
    images = question.images.copy()
    images[0] = 0
    subject.ask(replace(question, parameters={**question.parameters, "0.kernel": kernel}, images=images))


PARAMETER_CASES = [
    trial(
        f"v36.parameters.{name}.{special}",
        f"{named} in {said} reaches the outputs that it is part of",
        _spoilt(array, place, value),
        layers,
        shape,
    )
    for name, said, array, place, layers, shape in (
        ("conv2d.kernel", "one tap of a kernel", "0.kernel", (1, 0, 1, 2), (Conv2D(filters=3, kernel_size=2),), SHAPE),
        (
            "conv2d.bias",
            "the bias of a filter",
            "0.bias",
            (1,),
            (Conv2D(filters=3, kernel_size=2, padding="same"),),
            SHAPE,
        ),
        ("dense.kernel", "a weight", "0.kernel", (3, 1), (Dense(units=4),), (5,)),
        ("dense.bias", "the bias of a unit", "0.bias", (1,), (Dense(units=4, activation="relu"),), (5,)),
    )
    for special, (named, value) in SPECIAL.items()
] + [
    trial(
        "v36.parameters.dense.zero-times-inf",
        "0 times an infinite weight is NaN",
        _zero_times_infinity,
        (Dense(units=4),),
        (5,),
    ),
    trial(
        "v36.parameters.conv2d.zero-times-inf",
        "A pixel of 0 times an infinite tap is NaN",
        _zero_times_infinity,
        (Conv2D(filters=3, kernel_size=2),),
        SHAPE,
    ),
    *(
        trial(
            f"v36.parameters.conv2d.zero-tap.{special}",
            f"A tap of 0 times {named} is NaN",
            _under_a_tap_of_zero(value),
            (Conv2D(filters=3, kernel_size=2),),
            SHAPE,
        )
        for special, (named, value) in SPECIAL.items()
    ),
]


# ------------------------------------------------------------------------------------------------------------- overflow


def _overflows(values: Any, expected: Any) -> Body:
    """Products of two halves of the exponents, or sums at the edge: what a precision cannot hold is infinite in it."""

    def body(subject: Subject, question: Question) -> None:
        big = {"float32": 1e25, "float64": 1e200}[subject.precision]
        parameters = {
            name: np.full_like(array, 0 if name.endswith("bias") else big)
            for name, array in question.parameters.items()
        }
        images = (np.array(values, np.float64).reshape(-1, *question.model.input_shape) * big).astype(subject.dtype)
        output = subject.compile(question.model, parameters).predict(images)
        value = np.broadcast_to(
            np.array(expected, np.float64).reshape(len(images), *[1] * (output.ndim - 1)), output.shape
        )
        subject.compare("the output", output, Numbers(value, np.ones(value.shape)))

    return body


OVERFLOW_CASES = [
    trial(
        f"v36.overflow.{name}",
        f"A product beyond the precision is infinite behind {said}",
        _overflows([1, -1], expected),
        layers,
        shape,
    )
    for name, said, layers, shape, expected in (
        ("dense", "a dense layer", (Dense(units=3),), (1,), [np.inf, -np.inf]),
        ("conv2d", "a convolution", (Conv2D(filters=3, kernel_size=1),), (1, 1, 1), [np.inf, -np.inf]),
        ("relu", "ReLU, or 0", (Dense(units=3, activation="relu"),), (1,), [np.inf, 0]),
        ("tanh", "a dense layer, and 1 behind its tanh", (Dense(units=3, activation="tanh"),), (1,), [1, -1]),
        ("sigmoid", "a dense layer, and 1 behind its sigmoid", (Dense(units=3, activation="sigmoid"),), (1,), [1, 0]),
    )
]


def _half_range(subject: Subject, question: Question) -> None:
    """0.9 of the largest number, twice: the sum is infinite in whatever order it is made."""
    images = np.full((2, 2), 0.9 * float(np.finfo(subject.dtype).max), subject.dtype)
    images[1, 1] *= -1
    parameters = {name: np.ones_like(array) for name, array in question.parameters.items()}
    output = subject.compile(question.model, parameters).predict(images)
    subject.compare("the output", output, Numbers(np.array([[np.inf] * 3, [0.0] * 3]), np.full((2, 3), 1e30)))


OVERFLOW_CASES.append(
    trial(
        "v36.overflow.sum",
        "A sum beyond the precision is infinite, and one that cancels is not",
        _half_range,
        (Dense(units=3, use_bias=False),),
        (2,),
    )
)


# ------------------------------------------------------------------------------------------------------------- training


def _last_kernel(question: Question) -> str:
    return [spec.name for spec in question.plan.parameters if spec.name.endswith("kernel")][-1]


def _spoilt_batch(question: Question, value: float) -> Question:
    images = question.images.copy()
    images[(1, *(size // 2 for size in images.shape[1:]))] = value
    return replace(question, images=images)


def _shown(value: float, *, nan: bool) -> Body:
    """The loss is not finite, and the gradient of the last layer that learns shows it."""

    def body(subject: Subject, question: Question) -> None:
        spoilt = _spoilt_batch(question, value)
        assert spoilt.labels is not None  # noqa: S101 - questions that learn have labels
        loss, found = start(subject, spoilt).gradients(spoilt.images, spoilt.labels)
        _check_loss(subject, "the loss of a batch with a broken image", loss, nan=nan)
        name = _last_kernel(question)
        subject.expect(
            not np.isfinite(found[name]).all(), f"the gradient of {name} is finite, though the loss is {loss}"
        )

    return body


def _check_loss(subject: Subject, what: str, loss: float, *, nan: bool) -> None:
    subject.expect(not np.isfinite(loss), f"{what} is {loss}; expected {'NaN' if nan else 'what is not finite'}")
    subject.expect(not nan or np.isnan(loss), f"{what} is {loss}; expected NaN")


def _learned(subject: Subject, question: Question) -> None:
    """A step on a broken batch says so, and so does the state."""
    spoilt = _spoilt_batch(question, np.nan)
    assert spoilt.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, spoilt)
    loss = float(program.step(spoilt.images, spoilt.labels))
    _check_loss(subject, "the loss of a step on a broken image", loss, nan=True)
    name = _last_kernel(question)
    after = program.state().parameters[name]
    subject.expect(not np.isfinite(after).all(), f"{name} is finite after a step whose loss is {loss}")


def _epoch(subject: Subject, question: Question) -> None:
    spoilt = _spoilt_batch(question, np.nan)
    assert spoilt.labels is not None  # noqa: S101 - questions that learn have labels
    totals = start(subject, spoilt).epoch(spoilt.images, spoilt.labels, np.array([2, 1, 0]), 1)
    _check_loss(subject, "loss_sum of an epoch with a broken image", float(totals.loss_sum), nan=True)
    subject.expect(totals.count == 3, f"count is {totals.count}; expected 3")


def _gone(subject: Subject, question: Question) -> None:
    spoilt = _spoilt_batch(question, np.nan)
    assert spoilt.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    before = copied_state(program.state())
    program.gradients(spoilt.images, spoilt.labels)
    subject.same_states("the states before and after the gradients of a broken batch", program.state(), before)
    check_output(subject, program, question, "the output after a broken batch")
    check_gradients(subject, program, question, "after a broken batch: ")


def _under_the_mask(subject: Subject, question: Question) -> None:
    """0 times NaN is NaN: dropping a value does not heal it."""
    images = np.full_like(question.images, np.nan)
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    loss, _ = start(subject, question).gradients(images, question.labels)
    _check_loss(subject, "the loss of images of NaN behind dropout", loss, nan=True)


def _minus_infinite_score(subject: Subject, question: Question) -> None:
    """A class that the model rules out, and no image has: loss and gradients are as without it."""
    name = _last_kernel(question).replace("kernel", "bias")
    bias = question.parameters[name].copy()
    bias[2] = -np.inf
    ruled_out = replace(question, parameters={**question.parameters, name: bias}, labels=np.array([0, 1, 3]))
    check_gradients(subject, start(subject, ruled_out), ruled_out)


def _infinite_loss(subject: Subject, question: Question) -> None:
    """A class that the model rules out, and an image has: its loss is infinity, and so is the mean."""
    name = _last_kernel(question).replace("kernel", "bias")
    bias = question.parameters[name].copy()
    bias[2] = -np.inf
    ruled_out = replace(question, parameters={**question.parameters, name: bias})
    labels = np.array([0, 2, 3])
    loss, _ = start(subject, ruled_out).gradients(question.images, labels)
    subject.expect(loss == np.inf, f"the loss of gradients is {loss}; expected infinity")
    loss = float(start(subject, ruled_out).step(question.images, labels))
    subject.expect(loss == np.inf, f"the loss of a step is {loss}; expected infinity")


NETS: dict[str, tuple[tuple[Layer, ...], tuple[int, ...]]] = {
    "dense": ((Dense(units=4), Softmax()), (5,)),
    "relu": ((Dense(units=6, activation="relu"), Dense(units=4), Softmax()), (5,)),
    "tanh": (TANHNET, (4, 5, 2)),
    "max-pool": ((MaxPool2D(pool_size=2, strides=1), Flatten(), Dense(units=4), Softmax()), (4, 5, 2)),
    "avg-pool": ((AvgPool2D(pool_size=2, strides=1), Flatten(), Dense(units=4), Softmax()), (4, 5, 2)),
    "relu-pool": (
        (
            Conv2D(filters=3, kernel_size=2, activation="relu"),
            MaxPool2D(pool_size=2),
            Flatten(),
            Dense(units=4),
            Softmax(),
        ),
        (5, 6, 2),
    ),
}

TRAINING_CASES = (
    [
        trial(
            f"v36.loss.{name}.{special}",
            f"{named} in one image shows in the loss and in the gradient of the last layer, through {name}",
            _shown(value, nan=special == "nan"),
            layers,
            shape,
            ask="gradients",
            optimizer=SGD(learning_rate=0.1),
            batch=3,
        )
        for name, (layers, shape) in NETS.items()
        for special, (named, value) in SPECIAL.items()
        if special == "nan" or name == "dense"
    ]
    + [
        trial(
            f"v36.step.{name}",
            f"A step of {name} on a broken image gives a loss of NaN and leaves it to be seen in the last layer",
            _learned,
            optimizer=optimizer,
            batch=3,
        )
        for name, optimizer in {
            "sgd": SGD(learning_rate=0.1),
            "adam": Adam(),
            "clipped": SGD(learning_rate=0.1, clip_global_norm=1.0),
        }.items()
    ]
    + [
        trial(
            "v36.epoch",
            "loss_sum of an epoch with a broken image is NaN, and the epoch goes on to its end",
            _epoch,
            optimizer=SGD(learning_rate=0.1),
            batch=3,
        ),
        trial(
            "v36.gradients.forgotten",
            "After the gradients of a broken batch, those of the next are right",
            _gone,
            CONVNET,
            (5, 6, 2),
            ask="gradients",
            optimizer=SGD(learning_rate=0.1),
            batch=3,
        ),
        trial(
            "v36.dropout.training",
            "Dropout multiplies by its mask: NaN times 0 is NaN",
            _under_the_mask,
            (Dropout(rate=0.9), Dense(units=4), Softmax()),
            (1,),
            optimizer=SGD(learning_rate=0.1),
        ),
        trial(
            "v36.loss.minus-infinite-score",
            "A score of minus infinity for a class that no image has takes no part in the loss",
            _minus_infinite_score,
            TANHNET,
            (4, 5, 2),
            optimizer=SGD(learning_rate=0.1),
            batch=3,
        ),
        trial(
            "v36.loss.infinite",
            "The loss of an image of a class whose score is minus infinity is infinity",
            _infinite_loss,
            TANHNET,
            (4, 5, 2),
            optimizer=SGD(learning_rate=0.1),
            batch=3,
        ),
    ]
)

CASES: list[Case] = [
    *PLACE_CASES,
    *POOL_CASES,
    *ROW_CASES,
    *PARAMETER_CASES,
    *OVERFLOW_CASES,
    *TRAINING_CASES,
]
