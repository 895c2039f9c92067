"""Answers worked out by hand, written down as numbers: what neither the oracle nor a backend can talk its way out of.

The comments show the working. The oracle is held to the same numbers by a test. Where a number is not whole, its input
is a logarithm that makes it a simple fraction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log
from typing import Any

import numpy as np

from cnnkit.arrays import dtype_of
from cnnkit.conformance.case import Case, question_case
from cnnkit.conformance.measure import Numbers
from cnnkit.conformance.question import Question
from cnnkit.conformance.subject import Subject
from cnnkit.model import (
    AvgPool2D,
    Conv2D,
    Dense,
    Flatten,
    Grayscale,
    Layer,
    MaxPool2D,
    Model,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)
from cnnkit.optimizers import SGD, Adam, AdamW, Optimizer


@dataclass(frozen=True)
class Literal:
    """A question in plain numbers, and its answer by the names that `expected_answer` gives.

    `parameters` are by name; `slots` are those of the single parameter that a literal about an optimizer has.
    """

    id: str
    claim: str
    layers: list[Layer]
    images: Any
    answer: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    labels: list[int] | None = None
    optimizer: Optimizer | None = None
    slots: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0

    def question(self, precision: str) -> Question:
        """The question in `precision`."""
        dtype = dtype_of(precision)
        images = np.asarray(self.images)
        ask = "predict" if self.labels is None else "gradients" if self.optimizer is None else "steps"
        return Question(
            Model(input_shape=images.shape[1:], layers=self.layers),
            {name: np.asarray(values, dtype) for name, values in self.parameters.items()},
            images if images.dtype == np.uint8 else images.astype(dtype),
            ask,  # type: ignore[arg-type] # mypy sees a str
            precision,
            None if self.labels is None else np.array(self.labels),
            self.optimizer,
            {slot: {"0.kernel": np.asarray(values, dtype)} for slot, values in self.slots.items()},
            self.step,
        )

    def expected(self) -> dict[str, Numbers]:
        """The answer; an array may be wrong by what rounding makes of its largest number, or of 1."""
        arrays = {what: np.asarray(values, np.float64) for what, values in self.answer.items()}
        return {
            what: Numbers(array, np.full_like(array, max(1.0, np.abs(array).max()))) for what, array in arrays.items()
        }

    def case(self) -> Case:
        """The case that asks it."""
        asked = question_case(self.id, self.claim, self.question)
        return Case(self.id, self.claim, asked.level, asked.features, self._ask)

    def _ask(self, subject: Subject) -> None:
        subject.ask(self.question(subject.precision), self.expected())


def _map(*rows: str) -> Any:
    """One image of one channel `(1, height, width, 1)`, written as rows of numbers."""
    return np.array([[float(number) for number in row.split()] for row in rows])[None, :, :, None]


# ------------------------------------------------------------------------------------------------------- convolutions
# One 4 x 4 image of two channels, and two filters of 2 x 3 over both of them:
#
#     channel 0      channel 1      filter 0: channel 0   channel 1     filter 1: channel 0   channel 1
#     1 2 3 4        1 0 2 0                  1  2  3     0  1  0                 0  0  1     1  0  0
#     5 6 7 8        0 1 0 2                  0 -1  0     2  0 -1                 1  0  0     0  0  2
#     9 0 1 2        3 0 1 0
#     3 4 5 6        0 3 0 1              bias: 10 and -1
IMAGE = np.concatenate(
    [_map("1 2 3 4", "5 6 7 8", "9 0 1 2", "3 4 5 6"), _map("1 0 2 0", "0 1 0 2", "3 0 1 0", "0 3 0 1")], axis=-1
)
KERNEL = np.stack(
    [
        np.concatenate([_map("1 2 3", "0 -1 0")[0], _map("0 1 0", "2 0 -1")[0]], axis=-1),
        np.concatenate([_map("0 0 1", "1 0 0")[0], _map("1 0 0", "0 0 2")[0]], axis=-1),
    ],
    axis=-1,
)  # (2, 3, 2, 2)
BIAS = [10, -1]


def _conv(id: str, claim: str, filters: tuple[Any, Any], **fields: Any) -> Literal:  # noqa: A002 - as in Case
    return Literal(
        id,
        claim,
        [Conv2D(filters=2, kernel_size=(2, 3), **fields)],
        IMAGE,
        {"output": np.concatenate(filters, axis=-1)},
        {"0.kernel": KERNEL, "0.bias": BIAS},
    )


CONVOLUTIONS = [
    # Filter 0, top left: 1*1 + 2*2 + 3*3 - 6 + (1*0) + 2*0 - 0 = 14 - 6 + 0 + 0 = 8, and 10 is 18.
    # Written out for rows 0..2, columns 0..1, channel 0 and then channel 1:
    #   (0,0): 1+4+9-6 + 0+0-0 =  8    (0,1): 2+6+12-7 + 2+2-2 = 15
    #   (1,0): 5+12+21-0 + 1+6-1 = 44  (1,1): 6+14+24-1 + 0+0-0 = 43
    #   (2,0): 9+0+3-4 + 0+0-0 =  8    (2,1): 0+2+6-5 + 1+6-1 = 9
    # Filter 1, the pixel right of the top, the one below on the left; of channel 1 the top left, twice the bottom right:
    #   (0,0): 3+5 + 1+0 =  9          (0,1): 4+6 + 0+4 = 14
    #   (1,0): 7+9 + 0+2 = 18          (1,1): 8+0 + 1+0 = 9
    #   (2,0): 1+3 + 3+0 =  7          (2,1): 2+4 + 0+2 = 8
    _conv(
        "literal.conv2d.plain",
        "An asymmetric 2 x 3 kernel over two channels gives the numbers worked out by hand",
        (_map("18 25", "54 53", "18 19"), _map("8 13", "17 8", "6 7")),
    ),
    # Strides 2 and 1: rows 0 and 2 of the above.
    _conv(
        "literal.conv2d.strides",
        "With strides 2 and 1 every second row of windows is left out",
        (_map("18 25", "18 19"), _map("8 13", "6 7")),
        strides=(2, 1),
    ),
    # Dilation 2 along the height: the lower row of the kernel meets the row after the next.
    #   filter 0  (0,0): 1+4+9-0 + 0+6-1 = 19    (0,1): 2+6+12-1 + 2+0-0 = 21
    #             (1,0): 5+12+21-4 + 1+0-0 = 35  (1,1): 6+14+24-5 + 0+6-1 = 44
    #   filter 1  (0,0): 3+9 + 1+2 = 15          (0,1): 4+0 + 0+0 = 4
    #             (1,0): 7+3 + 0+0 = 10          (1,1): 8+4 + 1+2 = 15
    _conv(
        "literal.conv2d.dilation",
        "With dilation 2 along the height the lower row of the kernel meets the row after the next",
        (_map("29 31", "45 54"), _map("14 3", "9 14")),
        dilation=(2, 1),
    ),
    # One row of zeros above and one column on the right. Above row 0 only the lower row of the kernel counts:
    #   filter 0  -2 + 2-2 = -2,  -3 + 0-0 = -3,  -4 + 4-0 = 0        filter 1  1+4 = 5,  2+0 = 2,  3+0 = 3
    # At the right the last column of the kernel meets zeros, so that of columns 2 and 3 there remain:
    #   filter 0  row 0: 3+8-8 + 0+0 = 3    row 1: 7+16-2 + 2+2 = 25   row 2: 1+4-6 + 0+0 = -1
    #   filter 1  row 0: 7 + 2 = 9          row 1: 1 + 0 = 1           row 2: 5 + 1 = 6
    _conv(
        "literal.conv2d.padding",
        "Padding above and on the right is zeros, on those sides",
        (
            _map("8 7 10", "18 25 13", "54 53 35", "18 19 9"),
            _map("4 1 2", "8 13 8", "17 8 0", "6 7 5"),
        ),
        padding=((1, 0), (0, 1)),
    ),
    # Same padding with stride 2: a row of 4 with kernel 3 needs (2 - 1) * 2 + 3 - 4 = 1 column, which goes after; the
    # rows fit. So columns 0 and 2 of the table above, rows 0 and 2.
    _conv(
        "literal.conv2d.same",
        "Same padding puts an odd column after",
        (_map("18 13", "18 9"), _map("8 8", "6 5")),
        padding="same",
        strides=2,
    ),
]

# ----------------------------------------------------------------------------------------------------------- poolings
# 2 x 2 windows with strides 1 and 2 and a column of padding on the left, over
#
#     . -1 -2 -3         maxima: -1 -2      means: (-1 - 4) / 2 = -2.5    (-2 - 3 + -6 - 8) / 4 = -4.75
#     . -4 -6 -8                 -4 -5             (-4 - 7) / 2 = -5.5    (-6 - 8 - 5 - 9) / 4 = -7
#     . -7 -5 -9
POOLED = _map("-1 -2 -3", "-4 -6 -8", "-7 -5 -9")
POOL: dict[str, Any] = {"pool_size": 2, "strides": (1, 2), "padding": ((0, 0), (1, 0))}

# The gradient of a pixel, seen through a convolution of one pixel whose input has a single 1 in the channel of each
# place. The dense layer has the weights 8, 16, 24 and 32, in 64ths, for class 0 and none for class 1, and a bias that
# makes both scores 0, so that class 0 gets a half and, with the label 1, each window gets half its weight: 4, 8, 12, 16.
WEIGHTS = np.array([[8.0, 0.0], [16.0, 0.0], [24.0, 0.0], [32.0, 0.0]]) / 64


def _through(id: str, claim: str, layer: Layer, image: Any, pooled: Any, gradient: Any) -> Literal:  # noqa: A002 - as in Case
    height, width = image.shape[1:3]
    places = height * width
    bias = -float(np.ravel(pooled) @ WEIGHTS[:, 0])  # the sum of the four outputs by their weights
    return Literal(
        id,
        claim,
        [Conv2D(filters=1, kernel_size=1, use_bias=False), layer, Flatten(), Dense(units=2), Softmax()],
        np.eye(places).reshape(1, height, width, places),
        {
            "loss": log(2),
            "gradient of 0.kernel": np.reshape(gradient, (1, 1, places, 1)) / 64,
            "gradient of 3.kernel": np.outer(np.ravel(pooled), [0.5, -0.5]),
            "gradient of 3.bias": [0.5, -0.5],
        },
        {"0.kernel": image.reshape(1, 1, places, 1), "3.kernel": WEIGHTS, "3.bias": [bias, 0.0]},
        [1],
    )


POOLINGS = [
    Literal(
        "literal.max-pool",
        "Maxima of overlapping windows, with padding that never wins",
        [MaxPool2D(**POOL)],
        POOLED,
        {"output": _map("-1 -2", "-4 -5")},
    ),
    Literal(
        "literal.avg-pool",
        "Means of overlapping windows, divided by 2 where half of the window is padding",
        [AvgPool2D(**POOL)],
        POOLED,
        {"output": _map("-2.5 -4.75", "-5.5 -7")},
    ),
    # Windows get 4, 8, 12, 16. The winners are -1, -2, -4 and -5, one each.
    _through(
        "literal.max-pool.gradient",
        "The winner of each window takes its gradient",
        MaxPool2D(**POOL),
        POOLED,
        _map("-1 -2", "-4 -5"),
        [4, 8, 0, 12, 0, 0, 0, 16, 0],
    ),
    # Windows get 4, 8, 12, 16: on the left 2 and 6 for each of two pixels, on the right 2 and 4 for each of four.
    #     2   2  2
    #     8   6  6
    #     6   4  4
    _through(
        "literal.avg-pool.gradient",
        "Each pixel gets its share of the gradient of each window that holds it",
        AvgPool2D(**POOL),
        POOLED,
        _map("-2.5 -4.75", "-5.5 -7"),
        [2, 2, 2, 8, 6, 6, 6, 4, 4],
    ),
    # 2 x 2 windows with stride 1 over an image of one color: the first pixel of each window wins.
    _through(
        "literal.max-pool.ties",
        "Of equal pixels the first, row by row, takes the whole gradient",
        MaxPool2D(pool_size=2, strides=1),
        np.full((1, 3, 3, 1), 3.0),
        _map("3 3", "3 3"),
        [4, 8, 0, 12, 16, 0, 0, 0, 0],
    ),
    # 2 x 2 windows with stride 1: the 7 in the middle wins all four, 4 + 8 + 12 + 16.
    _through(
        "literal.max-pool.overlap",
        "A pixel that wins four windows gets the sum of their gradients",
        MaxPool2D(pool_size=2, strides=1),
        _map("1 2 3", "4 7 5", "6 2 1"),
        _map("7 7", "7 7"),
        [0, 0, 0, 0, 40, 0, 0, 0, 0],
    ),
]

# ------------------------------------------------------------------------------------ dense, flatten, numbers, softmax
OTHERS = [
    # (1, 2, 3) @ ((1, 0), (-1, 2), (0.5, 4)) = (1 - 2 + 1.5, 4 + 12), and the bias.
    Literal(
        "literal.dense",
        "A dense layer is x @ kernel + bias",
        [Dense(units=2)],
        [[1.0, 2.0, 3.0], [0.0, -1.0, 0.0]],
        {"output": [[10.5, 13.0], [11.0, -5.0]]},
        {"0.kernel": [[1.0, 0.0], [-1.0, 2.0], [0.5, 4.0]], "0.bias": [10.0, -3.0]},
    ),
    Literal(
        "literal.flatten",
        "Flattening goes over rows, then columns, then channels",
        [Flatten()],
        [[[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[7.0, 8.0], [9.0, 10.0], [11.0, 12.0]]]],
        {"output": [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]},
    ),
    Literal(
        "literal.rescale",
        "Rescale is x * scale + offset: 0, 10 and 255 by 0.5 and -100 are -100, -95 and 27.5",
        [Rescale(scale=0.5, offset=-100.0)],
        np.array([0, 10, 255], np.uint8).reshape(1, 1, 3, 1),
        {"output": _map("-100 -95 27.5")},
    ),
    # 10 * 0.299 + 20 * 0.587 + 30 * 0.114 = 2.99 + 11.74 + 3.42 = 18.15, and 255 times each weight.
    Literal(
        "literal.luma",
        "Luma is 0.299 R + 0.587 G + 0.114 B",
        [Grayscale(weights="luma")],
        np.array([[10, 20, 30], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8).reshape(1, 1, 5, 3),
        {"output": _map("18.15 76.245 149.685 29.07 255")},
    ),
    Literal(
        "literal.mean",
        "Grayscale by mean is the mean of the channels",
        [Grayscale()],
        np.array([[10, 20, 60], [255, 0, 0], [255, 255, 255]], np.uint8).reshape(1, 3, 1, 3),
        {"output": [[[[30]], [[85]], [[255]]]]},
    ),
    Literal(
        "literal.relu",
        "ReLU keeps what is positive, 7 and 1000 as well, and makes the rest 0",
        [ReLU()],
        [[-2.0, -0.5, 0.0, 0.25, 7.0, 1000.0]],
        {"output": [[0, 0, 0, 0.25, 7, 1000]]},
    ),
    # tanh(log a) = (a - 1/a) / (a + 1/a) = (a**2 - 1) / (a**2 + 1)
    Literal(
        "literal.tanh",
        "tanh of log 2 and log 3 are 3/5 and 4/5",
        [Tanh()],
        [[0.0, log(2), log(3), -log(2), 40.0, -40.0]],
        {"output": [[0, 0.6, 0.8, -0.6, 1, -1]]},
    ),
    # sigmoid(log a) = a / (a + 1)
    Literal(
        "literal.sigmoid",
        "The sigmoid of log 3 is 3/4",
        [Sigmoid()],
        [[0.0, log(3), -log(3), log(4), 100.0, -100.0]],
        {"output": [[0.5, 0.75, 0.25, 0.8, 1, 0]]},
    ),
    # exp of 0, log 2 and log 5 are 1, 2 and 5, in all 8; a constant on top changes nothing.
    Literal(
        "literal.softmax",
        "Softmax of 0, log 2 and log 5 is 1/8, 2/8 and 5/8",
        [Softmax()],
        [[0.0, log(2), log(5)], [0.0, 0.0, log(2)], [0.0, -200.0, -300.0]],
        {"output": [[0.125, 0.25, 0.625], [0.25, 0.25, 0.5], [1, 0, 0]]},
    ),
    # The first image has the scores 1 - log 3 + log 3 = 1 and 1 - 2 log 3 + log 3 + log 3 = 1, the second its bias,
    # 0 and log 3: probabilities 1/2, 1/2 and 1/4, 3/4. With labels 1 and 0 the losses are log 2 and log 4, in the mean
    # log 8 / 2. The gradients of the scores are (1/2, -1/2) / 2 and (-3/4, 3/4) / 2; the kernel sees the first alone.
    Literal(
        "literal.gradient.dense",
        "Loss and gradient of a dense layer by hand: mean over the batch, (probability - truth) / 2",
        [Dense(units=2), Softmax()],
        [[1.0, 2.0], [0.0, 0.0]],
        {
            "loss": log(8) / 2,
            "gradient of 0.kernel": [[0.25, -0.25], [0.5, -0.5]],
            "gradient of 0.bias": [0.25 - 0.375, -0.25 + 0.375],
        },
        {"0.kernel": [[1.0 - log(3), 1.0 - 2 * log(3)], [log(3) / 2, log(3) / 2]], "0.bias": [0.0, log(3)]},
        [1, 0],
    ),
    # In 64ths, windows get 4, 8, 12, 16 as above; the kernel (1, 0; 0, -1) and the bias 2 make -2 of each. A number of the kernel
    # gets the sum of each window's gradient times the pixel that it meets there:
    #   4*1 + 8*2 + 12*4 + 16*5 = 148     4*2 + 8*3 + 12*5 + 16*6 = 188
    #   4*4 + 8*5 + 12*7 + 16*8 = 268     4*5 + 8*6 + 12*8 + 16*9 = 308
    Literal(
        "literal.gradient.conv2d",
        "Kernel and bias of a convolution get the gradients worked out by hand",
        [Conv2D(filters=1, kernel_size=2), Flatten(), Dense(units=2), Softmax()],
        _map("1 2 3", "4 5 6", "7 8 9"),
        {
            "loss": log(2),
            "gradient of 0.kernel": _map("148 188", "268 308").reshape(2, 2, 1, 1) / 64,
            "gradient of 0.bias": [40 / 64],
            "gradient of 2.kernel": [[-1, 1]] * 4,
            "gradient of 2.bias": [0.5, -0.5],
        },
        {
            "0.kernel": _map("1 0", "0 -1").reshape(2, 2, 1, 1),
            "0.bias": [2.0],
            "2.kernel": WEIGHTS,
            "2.bias": [160 / 64, 0.0],
        },
        [1],
    ),
    # In 64ths, each pixel gets, of each window that holds it, the gradient times the number of the kernel (1, 2; 3, 4) it meets:
    #   4*1            4*2 + 8*1                    8*2             4  16  16
    #   4*3 + 12*1     4*4 + 8*3 + 12*2 + 16*1      8*4 + 16*2     24  80  64
    #   12*3           12*4 + 16*3                  16*4           36  96  64
    # The image has a 1 at the first corner and at the last, which give the outputs 1, 0, 0, 4.
    Literal(
        "literal.gradient.conv2d.input",
        "The pixels that a convolution sees get the gradients worked out by hand",
        [
            Conv2D(filters=1, kernel_size=1, use_bias=False),
            Conv2D(filters=1, kernel_size=2),
            Flatten(),
            Dense(units=2),
            Softmax(),
        ],
        np.eye(9).reshape(1, 3, 3, 9),
        {
            "loss": log(2),
            "gradient of 0.kernel": np.reshape([4, 16, 16, 24, 80, 64, 36, 96, 64], (1, 1, 9, 1)) / 64,
            "gradient of 1.kernel": _map("4 0", "0 16").reshape(2, 2, 1, 1) / 64,
            "gradient of 1.bias": [40 / 64],
            "gradient of 3.kernel": [[0.5, -0.5], [0, 0], [0, 0], [2, -2]],
            "gradient of 3.bias": [0.5, -0.5],
        },
        {
            "0.kernel": np.reshape([1.0, 0, 0, 0, 0, 0, 0, 0, 1.0], (1, 1, 9, 1)),
            "1.kernel": _map("1 2", "3 4").reshape(2, 2, 1, 1),
            "1.bias": [0.0],
            "3.kernel": WEIGHTS,
            "3.bias": [-(8 + 4 * 32) / 64, 0.0],
        },
        [1],
    ),
    # The label's score is below the highest by 200, 600 and 0: 800 / 3 in the mean.
    Literal(
        "literal.loss.extreme",
        "Scores of 300, -100 and 500 cost 200, 600 and 0",
        [Dense(units=3), Softmax()],
        np.eye(3),
        {
            "loss": 800 / 3,
            "gradient of 0.kernel": np.array([[-1, 0, 1], [0, -1, 1], [0, 0, 0]]) / 3,
            "gradient of 0.bias": np.array([-1, -1, 2]) / 3,
        },
        {"0.kernel": [[300.0, -100.0, 500.0]] * 3, "0.bias": [0.0, 0.0, 0.0]},
        [0, 1, 2],
    ),
]

# --------------------------------------------------------------------------------------------------------- optimizers
# One parameter, the kernel (1, 1) of a dense layer that sees the number 2: both scores are 2, so that the loss is log 2
# and with the label 0 the gradient is 2 * (1/2 - 1, 1/2) = (-1, 1).


def _step(
    id: str,  # noqa: A002 - as in Case
    claim: str,
    optimizer: Optimizer,
    parameter: list[float],
    slots_after: dict[str, list[float]],
    slots: dict[str, list[float]] | None = None,
    step: int = 0,
) -> Literal:
    answer = {"losses": [log(2)], "parameter 0.kernel": [parameter]}
    answer |= {f"slot {slot} of 0.kernel": [values] for slot, values in slots_after.items()}
    return Literal(
        id,
        claim,
        [Dense(units=2, use_bias=False), Softmax()],
        [[2.0]],
        answer,
        {"0.kernel": [[1.0, 1.0]]},
        [0],
        optimizer,
        {slot: [values] for slot, values in (slots or {}).items()},
        step,
    )


_ADAM: dict[str, float] = {"learning_rate": 0.25, "beta_1": 0.5, "beta_2": 0.75, "epsilon": 1.0}
OPTIMIZERS = [
    # 1 - 0.25 * (-1, 1)
    _step("literal.sgd", "SGD goes against the gradient", SGD(learning_rate=0.25), [1.25, 0.75], {}),
    # g = (-1, 1) + 0.5 * 1 = (-0.5, 1.5)
    _step(
        "literal.sgd.weight-decay",
        "Weight decay of SGD is added to the gradient",
        SGD(learning_rate=0.25, weight_decay=0.5),
        [1.125, 0.625],
        {},
    ),
    # The norm is sqrt(2), so half of it is left: (-0.5, 0.5).
    _step(
        "literal.sgd.clip",
        "A gradient of twice the allowed norm is halved",
        SGD(learning_rate=0.25, clip_global_norm=0.5**0.5),
        [1.125, 0.875],
        {},
    ),
    # v = 0.5 * (4, 2) + (-1, 1) = (1, 2)
    _step(
        "literal.sgd.momentum",
        "Momentum is v = momentum * v + g, and the step is the learning rate times v",
        SGD(learning_rate=0.25, momentum=0.5),
        [0.75, 0.5],
        {"velocity": [1.0, 2.0]},
        {"velocity": [4.0, 2.0]},
        step=3,
    ),
    # g + 0.5 * v = (-1, 1) + (0.5, 1) = (-0.5, 2)
    _step(
        "literal.sgd.nesterov",
        "Nesterov's step is the learning rate times g + momentum * v",
        SGD(learning_rate=0.25, momentum=0.5, nesterov=True),
        [1.125, 0.5],
        {"velocity": [1.0, 2.0]},
        {"velocity": [4.0, 2.0]},
        step=3,
    ),
    # m = (-0.5, 0.5), v = 0.25; corrected by 1 - 0.5 and 1 - 0.75 they are (-1, 1) and 1: 1 -+ 0.25 / (1 + 1).
    _step(
        "literal.adam.first-step",
        "Adam's first step: both averages corrected, epsilon outside the root",
        Adam(**_ADAM),
        [1.125, 0.875],
        {"m": [-0.5, 0.5], "v": [0.25, 0.25]},
    ),
    # t = 2: m = 0.5 * (4, 2) + 0.5 * (-1, 1) = (1.5, 1.5), by 1 - 0.5**2 it is (2, 2);
    # v = 0.75 * (2, 0.25) + 0.25 = (1.75, 0.4375), by 1 - 0.75**2 = 0.4375 it is (4, 1), its root (2, 1):
    # 1 - 0.25 * 2 / (2 + 1) = 5 / 6 and 1 - 0.25 * 2 / (1 + 1) = 0.75.
    _step(
        "literal.adam.second-step",
        "Adam's second step is corrected by the squares of its decay rates",
        Adam(**_ADAM),
        [5 / 6, 0.75],
        {"m": [1.5, 1.5], "v": [1.75, 0.4375]},
        {"m": [4.0, 2.0], "v": [2.0, 0.25]},
        step=1,
    ),
    # 1 - 0.25 * 0.4 = 0.9 first, then as Adam.
    _step(
        "literal.adamw",
        "AdamW makes the parameter smaller by learning rate * weight decay, apart from the gradient",
        AdamW(**_ADAM, weight_decay=0.4),
        [1.025, 0.775],
        {"m": [-0.5, 0.5], "v": [0.25, 0.25]},
    ),
]

LITERALS = [*CONVOLUTIONS, *POOLINGS, *OTHERS, *OPTIMIZERS]
CASES: list[Case] = [literal.case() for literal in LITERALS]
