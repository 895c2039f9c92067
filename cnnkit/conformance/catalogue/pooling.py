"""Cases of both poolings: overlap, gaps, padding, ties, forward and backward.

Pooling computes on what a convolution hands over, or on the image itself. Backward cases ask with whole numbers, all of
them different or tied on purpose, so that every engine sees the same ties: see `probes.probe_question`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnkit.arrays import dtype_of
from cnnkit.conformance.case import Case, drawn_case, question_case
from cnnkit.conformance.catalogue.probes import distinct, drawn_gradient_case, predict_case, probe_case, uniform
from cnnkit.conformance.question import Question, draw_labels, draw_parameters
from cnnkit.model import AvgPool2D, Conv2D, Dense, Flatten, MaxPool2D, Model, ReLU, Softmax


@dataclass(frozen=True)
class Setup:
    """Windows, for either pooling, and the images that they are tried on."""

    what: str
    fields: dict[str, Any]
    shape: tuple[int, int, int] = (6, 7, 2)


SETUPS = {
    "plain": Setup("2 x 2 windows", {"pool_size": 2}),
    "square": Setup("2 x 2 windows on square images", {"pool_size": 2}, (6, 6, 3)),
    "wide": Setup("2 x 3 windows", {"pool_size": (2, 3)}),
    "tall": Setup("3 x 1 windows", {"pool_size": (3, 1)}),
    "one-pixel": Setup("1 x 1 windows", {"pool_size": 1}, (4, 5, 3)),
    "one-pixel-strides": Setup("1 x 1 windows with strides", {"pool_size": 1, "strides": (2, 3)}),
    "image": Setup("windows as large as the image", {"pool_size": (4, 5)}, (4, 5, 3)),
    "overlap": Setup("overlapping windows", {"pool_size": (3, 2), "strides": (1, 1)}),
    "overlap-uneven": Setup("windows that overlap along the width", {"pool_size": (2, 3), "strides": (2, 1)}),
    "overlap-3-2": Setup("3 x 3 windows with stride 2", {"pool_size": 3, "strides": 2}, (7, 9, 2)),
    "gaps": Setup("gaps between windows", {"pool_size": (1, 2), "strides": (3, 4)}, (7, 9, 2)),
    "gaps-one-side": Setup("gaps along the height", {"pool_size": (2, 2), "strides": (3, 1)}, (8, 5, 2)),
    "padding": Setup("padding all round", {"pool_size": 3, "strides": 2, "padding": ((1, 1), (1, 1))}),
    "padding-top": Setup("padding above", {"pool_size": 2, "padding": ((1, 0), (0, 0))}, (5, 6, 2)),
    "padding-right": Setup("padding on the right", {"pool_size": 2, "padding": ((0, 0), (0, 1))}, (6, 5, 2)),
    "padding-uneven": Setup(
        "padding unlike on every side", {"pool_size": (3, 4), "strides": (1, 2), "padding": ((2, 1), (0, 3))}
    ),
    "padding-overlap": Setup(
        "padding under overlapping windows", {"pool_size": 3, "strides": 1, "padding": ((1, 1), (2, 2))}, (4, 5, 2)
    ),
    "same": Setup("same padding", {"pool_size": (3, 2), "strides": 1, "padding": "same"}),
    "same-strides": Setup("same padding and strides", {"pool_size": 3, "strides": 2, "padding": "same"}, (6, 7, 2)),
    "same-defaults": Setup(
        "same padding and strides as the windows", {"pool_size": (2, 3), "padding": "same"}, (5, 7, 2)
    ),
    "channels.1": Setup("1 channel", {"pool_size": 2}, (5, 6, 1)),
    "channels.17": Setup("17 channels, none mixed with another,", {"pool_size": (2, 3), "strides": 2}, (4, 5, 17)),
    "channels.9-padded": Setup(
        "9 channels under padding", {"pool_size": (2, 3), "strides": 1, "padding": ((1, 0), (1, 2))}, (4, 5, 9)
    ),
    "channels.18-same": Setup("18 channels under same padding", {"pool_size": 3, "padding": "same"}, (4, 5, 18)),
    "channels.64": Setup("64 channels", {"pool_size": 2}, (4, 5, 64)),
}

TRAPS = {
    "v02.{}.same.4x4-k3-s2": Setup(
        "same padding, a 4 x 4 image, window 3 and stride 2",
        {"pool_size": 3, "strides": 2, "padding": "same"},
        (4, 4, 2),
    ),
    "v02.{}.same.4x4-k2-s1": Setup(
        "same padding, a 4 x 4 image, window 2 and stride 1",
        {"pool_size": 2, "strides": 1, "padding": "same"},
        (4, 4, 2),
    ),
    "v02.{}.same.5x5-k4-s3": Setup(
        "same padding, a 5 x 5 image, window 4 and stride 3",
        {"pool_size": 4, "strides": 3, "padding": "same"},
        (5, 5, 2),
    ),
    "v08.{}.floor": Setup(
        "a last window that does not fit, and is left out,", {"pool_size": (3, 2), "strides": 2}, (6, 7, 2)
    ),
    "v08.{}.floor.padded": Setup(
        "a last window that would begin in the padding, and is left out,",
        {"pool_size": 2, "strides": 3, "padding": ((0, 1), (0, 1))},
        (6, 6, 2),
    ),
}

KINDS: dict[str, type[MaxPool2D | AvgPool2D]] = {"max-pool": MaxPool2D, "avg-pool": AvgPool2D}
RULES = {"max-pool": "the maximum", "avg-pool": "the mean"}


def _setups() -> list[tuple[str, str, str, Setup]]:
    """The id of a case up to its direction, with a place for it; the kind; the claim's middle; the setup."""
    plain = [(f"{kind}.{{}}.{name}", kind, RULES[kind], setup) for kind in KINDS for name, setup in SETUPS.items()]
    traps = [(f"{name.format(kind)}.{{}}", kind, RULES[kind], setup) for kind in KINDS for name, setup in TRAPS.items()]
    return plain + traps


def _layer(kind: str, setup: Setup) -> MaxPool2D | AvgPool2D:
    return KINDS[kind](**setup.fields)


def _numbers(kind: str, setup: Setup) -> Any:
    shape = (2, *setup.shape)
    return distinct(shape) if kind == "max-pool" else uniform(shape)


# ------------------------------------------------------------------------------------------------ padding and ties

PADDED = {"pool_size": (3, 2), "strides": (2, 1), "padding": ((2, 1), (1, 0))}
NEGATIVE = -1 - np.abs(distinct((2, 5, 6, 2)))
TIES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "constant-image": ("on an image of one color", np.full((2, 4, 6, 2), 3.0), {"pool_size": 2}),
    "zeros": ("on an image of zeros", np.zeros((2, 4, 6, 2)), {"pool_size": (2, 3)}),
    "overlap": ("between overlapping windows", np.full((2, 4, 5, 2), -2.0), {"pool_size": (3, 2), "strides": 1}),
    "padded": ("under padding", np.full((2, 4, 5, 2), -2.0), PADDED),
    "same": ("under same padding", np.full((2, 4, 5, 2), 2.0), {"pool_size": 3, "strides": 2, "padding": "same"}),
    "in-a-row": (
        "of two pixels in a row",
        np.array([[0, 5, 5], [4, 4, 1]]).reshape(1, 2, 3, 1) * [1.0, 2.0],
        {"pool_size": (2, 3)},
    ),
    "in-a-column": (
        "of two pixels in a column",
        np.array([[0, 5], [1, 5], [3, 2]]).reshape(1, 3, 2, 1) * [1.0, 2.0],
        {"pool_size": (3, 2)},
    ),
    "on-a-diagonal": (
        "of which the upper one stands further to the right",
        np.array([[0, 5], [5, 1]]).reshape(1, 2, 2, 1) * [1.0, 2.0],
        {"pool_size": 2},
    ),
    "three": (
        "of three pixels, the first of them not at the corner",
        np.array([[0, 1, 7], [7, 2, 0], [1, 7, 3]]).reshape(1, 3, 3, 1) * [1.0, 2.0],
        {"pool_size": 3},
    ),
    "few-values": (
        "everywhere, as in scanned digits",
        np.random.default_rng(0).integers(0, 3, (2, 6, 7, 3)).astype(float),
        {"pool_size": 2},
    ),
    "few-values-overlap": (
        "everywhere, under overlapping windows",
        np.random.default_rng(1).integers(-1, 2, (2, 6, 7, 2)).astype(float),
        {"pool_size": 3, "strides": (2, 1), "padding": ((1, 0), (1, 1))},
    ),
    "large-windows": (
        "in windows of 5 x 6",
        np.random.default_rng(2).integers(0, 2, (2, 5, 12, 2)).astype(float),
        {"pool_size": (5, 6)},
    ),
}
LATE = np.where(np.arange(340).reshape(1, 17, 20, 1) == [299, 339], 9.0, distinct((1, 17, 20, 2)) / 1024)
"""The largest numbers stand behind the place 255 of the window, which a byte does not hold."""
PEAK = np.where(np.arange(30).reshape(1, 5, 6, 1) == 14, 9.0, distinct((2, 5, 6, 2)) / 64)


def _large_image(precision: str) -> Question:
    """Whole numbers over 2 ** 16, which a convolution multiplies by 1: no decision between them is near."""
    layers = [
        Conv2D(filters=1, kernel_size=1, use_bias=False),
        MaxPool2D(pool_size=(2, 1100)),
        Flatten(),
        Dense(units=3),
        Softmax(),
    ]
    model = Model(input_shape=(2, 33_000, 1), layers=layers)
    parameters = draw_parameters(model, np.random.default_rng(0), precision)
    parameters["0.kernel"][:] = 1
    images = (distinct((1, 2, 33_000, 1)) / 2**16).astype(dtype_of(precision))
    images[0, 1, -1] = 2  # the last window has its maximum at the end
    return Question(model, parameters, images, "gradients", precision, draw_labels(model, 1))


CASES: list[Case] = [
    *(
        drawn_case(
            id_.format("forward"),
            f"Pooling with {setup.what} gives {rule} of each window",
            [_layer(kind, setup)],
            setup.shape,
        )
        for id_, kind, rule, setup in _setups()
    ),
    *(
        drawn_case(
            f"{kind}.forward.between",
            f"Pooling between two convolutions gives {RULES[kind]} of each window",
            [
                Conv2D(filters=3, kernel_size=(2, 1)),
                KINDS[kind](pool_size=(2, 3), strides=2),
                Conv2D(filters=2, kernel_size=2),
            ],
            (7, 8, 2),
        )
        for kind in KINDS
    ),
    *(
        drawn_case(
            f"{kind}.forward.uint8",
            f"Pooling of uint8 images gives {RULES[kind]} of each window, and does not overflow",
            [KINDS[kind](pool_size=(2, 3), strides=1, padding="same")],
            (5, 6, 3),
            images="uint8",
        )
        for kind in KINDS
    ),
    *(
        predict_case(
            f"{kind}.forward.large-numbers",
            f"Pooling gives {RULES[kind]} of numbers near 1e30, with padding",
            [KINDS[kind](pool_size=2, padding=((1, 1), (0, 0)))],
            -1e30 - 1e28 * np.abs(distinct((2, 4, 4, 2))),
        )
        for kind in KINDS
    ),
    drawn_case(
        "max-pool.forward.twice",
        "Max pooling behind max pooling, each with padding, gives the maximum of maxima",
        [MaxPool2D(pool_size=2, padding=((1, 1), (0, 1)), strides=(2, 1)), MaxPool2D(pool_size=3, padding="same")],
        (6, 7, 2),
    ),
    predict_case(
        "v04.avg-pool.padding-not-counted.forward",
        "The mean of a window leaves out the padding: over an image of one color it is that color everywhere",
        [AvgPool2D(pool_size=3, strides=1, padding=((2, 1), (1, 2)))],
        np.full((2, 4, 5, 2), 6.0) * [1.0, -2.0],
    ),
    predict_case(
        "v04.avg-pool.window-wise-divisor.forward",
        "Each window is divided by the number of its own pixels that are not padding",
        [AvgPool2D(pool_size=(3, 4), strides=(2, 3), padding=((2, 0), (3, 2)))],
        distinct((2, 5, 6, 2)),
    ),
    probe_case(
        "v04.avg-pool.window-wise-divisor.gradient",
        "Each pixel gets its share of the gradient by the number of pixels in the window that are not padding",
        [AvgPool2D(pool_size=(3, 4), strides=(2, 3), padding=((2, 0), (3, 2)))],
        uniform((2, 5, 6, 2)),
    ),
    predict_case(
        "v05.max-pool.negative-under-padding.forward",
        "Padding is minus infinity: the maximum of negative numbers is negative at the border too",
        [MaxPool2D(**PADDED)],
        NEGATIVE,
    ),
    predict_case(
        "v05.max-pool.negative-under-same.forward",
        "Same padding is minus infinity: the maximum of negative numbers is negative at the border too",
        [MaxPool2D(pool_size=3, strides=2, padding="same")],
        NEGATIVE,
    ),
    predict_case(
        "v05.max-pool.minus-infinity",
        "The maximum of pixels that are all minus infinity is minus infinity, not the lowest finite number",
        [MaxPool2D(**PADDED)],
        np.full((2, 4, 5, 2), -np.inf),
    ),
    probe_case(
        "v05.max-pool.negative-under-padding.gradient",
        "The gradient of a window at the border goes to its largest pixel though all are negative, not into the padding",
        [MaxPool2D(**PADDED)],
        NEGATIVE,
    ),
    *(
        probe_case(
            f"v06.max-pool.ties.{name}",
            f"At ties {what} the first pixel, row by row, takes the whole gradient",
            [MaxPool2D(**fields)],
            image,
        )
        for name, (what, image, fields) in TIES.items()
    ),
    probe_case(
        "v06.max-pool.ties.nearly",
        "Numbers that differ by a millionth are no ties: the larger one takes the gradient",
        [MaxPool2D(pool_size=(2, 3))],
        1 + distinct((2, 4, 9, 2)) % 5 / 2**20,
    ),
    probe_case(
        "v06.max-pool.ties.after-relu",
        "At ties of the zeros that ReLU makes the gradient stops at ReLU, whoever takes it",
        [ReLU(), MaxPool2D(pool_size=2)],
        distinct((2, 6, 8, 2)) - 60,
    ),
    probe_case(
        "max-pool.gradient.window-of-340",
        "The gradient finds the maximum at the end of a window of 17 x 20",
        [MaxPool2D(pool_size=(17, 20))],
        LATE,
    ),
    question_case(
        "max-pool.gradient.image-of-66000",
        "The gradient finds maxima behind the 65,536th number of an image",
        _large_image,
    ),
    probe_case(
        "v07.max-pool.overlap.accumulates",
        "A pixel that wins several overlapping windows gets the sum of their gradients",
        [MaxPool2D(pool_size=3, strides=1)],
        PEAK,
    ),
    *(
        probe_case(
            id_.format("gradient"),
            f"Pooling with {setup.what} passes the gradient of {rule} to each pixel",
            [_layer(kind, setup)],
            _numbers(kind, setup),
        )
        for id_, kind, rule, setup in _setups()
    ),
    *(
        drawn_gradient_case(
            f"{kind}.gradient.between",
            f"Between convolutions the gradient passes backward through {RULES[kind]} of each window",
            [
                Conv2D(filters=3, kernel_size=(2, 1)),
                KINDS[kind](pool_size=(2, 3), strides=2),
                Conv2D(filters=2, kernel_size=2),
                Flatten(),
                Dense(units=3),
                Softmax(),
            ],
            (7, 8, 2),
            batch=4,
        )
        for kind in KINDS
    ),
    *(
        drawn_gradient_case(
            f"{kind}.gradient.twice",
            f"The gradient passes backward through {RULES[kind]} of each window twice",
            [
                Conv2D(filters=2, kernel_size=(2, 1)),
                KINDS[kind](pool_size=(2, 1)),
                KINDS[kind](pool_size=(1, 2), strides=1),
                Flatten(),
                Dense(units=3),
                Softmax(),
            ],
            (7, 8, 2),
        )
        for kind in KINDS
    ),
]
