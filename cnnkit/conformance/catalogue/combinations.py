"""Cases of combinations: each of these things is right alone in other cases, and could still be wrong together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnnkit.conformance.case import Case, drawn_case, question_case
from cnnkit.conformance.catalogue.probes import distinct, drawn_gradient_case, predict_case, probe_case
from cnnkit.conformance.catalogue.scores import scores_question
from cnnkit.conformance.question import Question, draw
from cnnkit.model import (
    AvgPool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)

# -------------------------------------------------------------------------------------------------------- convolutions


@dataclass(frozen=True)
class Setup:
    """A convolution, and the images that it is tried on."""

    what: str
    fields: dict[str, Any]
    shape: tuple[int, int, int]


CONVOLUTIONS = {
    # wide enough that the dilations could be exchanged without leaving the image
    "dilation-strides": Setup(
        "unlike dilations under unlike strides", {"kernel_size": 2, "strides": (2, 4), "dilation": (3, 1)}, (8, 9, 2)
    ),
    "dilation-of-5": Setup("dilations of 4 and 5", {"kernel_size": (2, 3), "dilation": (5, 4)}, (8, 11, 2)),
    "dilation-unused": Setup(
        "pixels on the right that no dilated window reaches",
        {"kernel_size": 2, "strides": (1, 3), "dilation": (1, 2)},
        (4, 7, 2),
    ),
    "dilation-unused-below": Setup(
        "pixels below that no dilated window reaches, and padding on the other side",
        {"kernel_size": (2, 1), "strides": (4, 1), "dilation": (2, 1), "padding": ((1, 0), (0, 0))},
        (7, 3, 2),
    ),
}

ENDING: list[Layer] = [Flatten(), Dense(units=3), Softmax()]
FILTERS = (5, 6, 7, 9, 10, 11, 13, 15)
"""Numbers next to the lengths of vector registers."""

CONVOLUTION_CASES = [
    *(
        drawn_case(
            f"conv2d.forward.combined.{name}",
            f"A convolution with {setup.what} is right",
            [Conv2D(filters=3, **setup.fields)],
            setup.shape,
        )
        for name, setup in CONVOLUTIONS.items()
    ),
    *(
        drawn_gradient_case(
            f"conv2d.gradient.combined.{name}",
            f"The gradient passes backward through a convolution with {setup.what}",
            [Conv2D(filters=2, kernel_size=1), Conv2D(filters=3, **setup.fields), *ENDING],
            setup.shape,
        )
        for name, setup in CONVOLUTIONS.items()
    ),
    *(
        drawn_case(
            f"conv2d.forward.filters.{number}",
            f"{number} filters of as many channels",
            [Conv2D(filters=number, kernel_size=(2, 1))],
            (3, 4, number),
        )
        for number in FILTERS
    ),
    *(
        drawn_gradient_case(
            f"conv2d.gradient.filters.{number}",
            f"The gradient passes backward through {number} filters of as many channels",
            [Conv2D(filters=number, kernel_size=1), Conv2D(filters=number, kernel_size=(2, 1)), *ENDING],
            (3, 4, 2),
        )
        for number in FILTERS
    ),
    drawn_case(
        "v49.large.530-channels",
        "The output is right for 530 channels and 1,030 filters",
        [Conv2D(filters=1030, kernel_size=1)],
        (1, 2, 530),
    ),
    drawn_case("v49.large.20000-features", "The output is right for 20,000 features", [Dense(units=2)], (20_000,)),
    drawn_gradient_case(
        "v49.batch.1100.gradient",
        "A batch of 1,100 has its mean gradient",
        [Dense(units=3), Softmax()],
        (5,),
        batch=1100,
    ),
]

# ------------------------------------------------------------------------------------------------------------ max pooling

NEGATIVE = -1 - np.abs(distinct((2, 5, 6, 2)))
ONE_SIDE = {"top": ((1, 0), (0, 0)), "bottom": ((0, 1), (0, 0)), "left": ((0, 0), (1, 0)), "right": ((0, 0), (0, 1))}
TIED = np.random.default_rng(3).integers(0, 2, (2, 7, 9, 2)).astype(float)
TIES: dict[str, tuple[str, dict[str, Any]]] = {
    "row": ("in windows of one row", {"pool_size": (1, 3)}),
    "column": ("in windows of one column", {"pool_size": (3, 1), "strides": (2, 2)}),
    "gaps": ("in windows with gaps between them", {"pool_size": 2, "strides": 3}),
    "gaps-padding": (
        "in windows with gaps between them and padding",
        {"pool_size": 2, "strides": (3, 4), "padding": ((1, 0), (0, 1))},
    ),
}
EXCEEDING = {"pool_size": (5, 4), "strides": (1, 2), "padding": ((2, 1), (1, 2))}

MAX_POOL_CASES = [
    *(
        case(
            f"v05.max-pool.negative-under-one-side.{side}.{direction}",
            f"Padding at the {side} alone is minus infinity too",
            [MaxPool2D(pool_size=(2, 3), strides=1, padding=padding)],
            NEGATIVE,
        )
        for side, padding in ONE_SIDE.items()
        for direction, case in (("forward", predict_case), ("gradient", probe_case))
    ),
    *(
        probe_case(
            f"v06.max-pool.ties.{name}",
            f"At ties {what} the first pixel, row by row, takes the whole gradient",
            [MaxPool2D(**fields)],
            TIED,
        )
        for name, (what, fields) in TIES.items()
    ),
    probe_case(
        "max-pool.gradient.window-over-image",
        "The gradient of windows larger than the image, which padding makes room for, goes to their maxima",
        [MaxPool2D(**EXCEEDING)],
        distinct((2, 4, 3, 2)),
    ),
]

# ----------------------------------------------------------------------------------------- layers one behind the other

# An engine that lets two layers change places, or makes one of them, must know where that is the same.
NEIGHBORS: dict[str, tuple[str, list[Layer]]] = {
    "relu-avg-pool": ("average pooling behind ReLU", [ReLU(), AvgPool2D(pool_size=(2, 3), strides=2)]),
    "avg-pool-relu": ("ReLU behind average pooling", [AvgPool2D(pool_size=(2, 3), strides=2), ReLU()]),
    "tanh-avg-pool": ("average pooling behind tanh", [Tanh(), AvgPool2D(pool_size=2, padding="same")]),
    "avg-pool-sigmoid": ("the sigmoid behind average pooling", [AvgPool2D(pool_size=2, padding="same"), Sigmoid()]),
    "negative-max-pool": ("max pooling behind a negative scale", [Rescale(scale=-2.0), MaxPool2D(pool_size=(2, 3))]),
    "max-pool-negative": ("a negative scale behind max pooling", [MaxPool2D(pool_size=(2, 3)), Rescale(scale=-2.0)]),
    "max-avg-pool": ("average pooling behind max pooling", [MaxPool2D(pool_size=2, strides=1), AvgPool2D()]),
    "avg-max-pool": ("max pooling behind average pooling", [AvgPool2D(pool_size=2, strides=1), MaxPool2D()]),
    "relu-negative": ("a negative scale behind ReLU", [ReLU(), Rescale(scale=-0.5, offset=0.25)]),
    "negative-relu": ("ReLU behind a negative scale", [Rescale(scale=-0.5, offset=0.25), ReLU()]),
    "equal-convolutions": (
        "two convolutions whose kernels have one shape",
        [Conv2D(filters=3, kernel_size=(2, 1)), Conv2D(filters=3, kernel_size=(2, 1))],
    ),
    "offset-conv2d": (
        "a padded convolution behind an offset, which the padding does not have",
        [Rescale(scale=1.0, offset=2.0), Conv2D(filters=2, kernel_size=3, padding="same")],
    ),
}

TWELVE: list[Layer] = [*[Dense(units=4, activation="tanh")] * 11, Dense(units=4), Softmax()]

NEIGHBOR_CASES = [
    *(
        drawn_case(
            f"company.{name}.forward",
            f"The output of {said} is right",
            [Conv2D(filters=3, kernel_size=(1, 2)), *layers],
            (6, 8, 2),
        )
        for name, (said, layers) in NEIGHBORS.items()
    ),
    *(
        drawn_gradient_case(
            f"company.{name}.gradient",
            f"The gradient passes backward through {said}",
            [Conv2D(filters=3, kernel_size=(1, 2)), *layers, *ENDING],
            (6, 8, 2),
        )
        for name, (said, layers) in NEIGHBORS.items()
    ),
    drawn_case(
        "company.twelve-layers.forward",
        "The output of twelve layers is right, those beyond the tenth too, whose names do not sort as they stand",
        [*[Rescale(scale=0.75)] * 8, *[Dense(units=4)] * 4],
        (4,),
    ),
    drawn_gradient_case(
        "company.twelve-layers.gradient",
        "The gradient passes backward through twelve dense layers of one shape",
        TWELVE,
        (4,),
    ),
    drawn_case(
        "rescale.forward.offset-alone",
        "A scale of 1 does not make the offset 0",
        [Rescale(scale=1.0, offset=-0.75), Dense(units=4)],
        (5,),
    ),
    predict_case(
        "v36.rescale.zero-scale",
        "A scale of 0 times NaN or infinity is NaN",
        [Rescale(scale=0.0, offset=1.0)],
        [[1.0, np.nan, 3.0], [np.inf, -np.inf, 0.0]],
    ),
]

# ---------------------------------------------------------------------------------------------------- scores and values

FAR = np.array([1e30, 2e34, 3e38, -3e38, 1e20, 65504.0, 65520.0, 7e4]).reshape(2, 2, 1, 2)


def _many_classes(precision: str) -> Question:
    """Labels that 16 bits with a sign do not hold."""
    layers: list[Layer] = [Dense(units=33_000), Softmax()]
    labels = np.array([32_999, 32_768, 0])
    return draw(layers, (1,), precision=precision, ask="gradients", batch=3, labels=labels)


VALUE_CASES = [
    predict_case("relu.forward.far", "ReLU keeps numbers up to the largest of float32", [ReLU()], FAR),
    predict_case(
        "v15.softmax.extreme.two-classes",
        "Softmax of two scores far apart or far from 0 neither overflows nor gives NaN",
        [Softmax()],
        [[300.0, -100.0], [-500.0, -498.0], [1000.0, 1001.0], [-1e30, 1e30]],
    ),
    predict_case(
        "v36.softmax.all-minus-inf",
        "Scores that are all minus infinity have no probabilities: all are NaN, and the other rows are not",
        [Softmax()],
        [[0.0, 1.0, 5.0], [-np.inf, -np.inf, -np.inf], [-3.0, 2.0, 2.5]],
    ),
    question_case("v19.labels.33000-classes", "Labels beyond 32,767 count as any other", _many_classes),
    question_case(
        "v16.loss.near-zero",
        "A loss of a few millionths is not 0",
        lambda precision: scores_question([[0.0, 12.0], [13.0, 0.0], [-7.0, 7.0]], [1, 0, 1], precision),
    ),
]

# -------------------------------------------------------------------------------------- large and small side by side


def _tiny(layer: Conv2D | Dense, shape: tuple[int, ...]) -> Any:
    """Weights of about 1e-25 on ordinary numbers: an engine that leaves out what is nearly 0 leaves out everything."""

    def make(precision: str) -> Question:
        question = draw([layer], shape, precision=precision)
        tiny = {name: (array * 1e-25).astype(array.dtype) for name, array in question.parameters.items()}
        return replace(question, parameters=tiny)

    return make


BRIGHT = np.ones((1, 5, 6, 2))
BRIGHT[0, 1, 2] = [1e30, 1e15]

SIZE_CASES = [
    predict_case(
        "avg-pool.forward.bright-neighbor",
        "The mean of a window has nothing of a huge pixel beside it, as a running sum would",
        [AvgPool2D(pool_size=2, strides=1)],
        BRIGHT,
    ),
    question_case(
        "conv2d.forward.tiny-weights",
        "Weights of about 1e-25 count as any other",
        _tiny(Conv2D(filters=3, kernel_size=(2, 3)), (4, 5, 2)),
    ),
    question_case(
        "dense.forward.tiny-weights", "Weights of about 1e-25 count as any other", _tiny(Dense(units=4), (7,))
    ),
]

CASES: list[Case] = [*CONVOLUTION_CASES, *MAX_POOL_CASES, *NEIGHBOR_CASES, *VALUE_CASES, *SIZE_CASES]
