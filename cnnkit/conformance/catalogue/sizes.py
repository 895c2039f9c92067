"""Cases of odd sizes: no image, one image, one pixel, many of everything, and models of a single layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnkit.conformance.case import Case, drawn_case
from cnnkit.conformance.catalogue.probes import drawn_gradient_case
from cnnkit.conformance.question import draw
from cnnkit.conformance.subject import Subject
from cnnkit.features import features_of
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


def _network(classes: int = 4) -> list[Layer]:
    """One layer of each kind that a small classifier has."""
    return [
        Conv2D(filters=3, kernel_size=(3, 2), padding="same", activation="relu"),
        MaxPool2D(pool_size=2, padding="same"),
        Conv2D(filters=5, kernel_size=(1, 2), padding="same"),
        AvgPool2D(pool_size=(1, 2), padding="same"),
        Tanh(),
        Flatten(),
        Dense(units=classes),
        Softmax(),
    ]


def _conv(filters: int, kernel_size: Any = 3, **fields: Any) -> Conv2D:
    return Conv2D(filters=filters, kernel_size=kernel_size, **fields)


IMAGES = {
    "1x1x1": (1, 1, 1),
    "1x1x3": (1, 1, 3),
    "2x1x2": (2, 1, 2),
    "1x9x2": (1, 9, 2),
    "9x1x2": (9, 1, 2),
    "5x4x1": (5, 4, 1),
    "5x4x17": (5, 4, 17),
    "7x7x3": (7, 7, 3),
    "8x8x4": (8, 8, 4),
    "28x28x1": (28, 28, 1),
    "40x56x3": (40, 56, 3),
}
ALONE: dict[str, tuple[Layer, tuple[int, ...]]] = {
    "flatten": (Flatten(), (3, 4, 5)),
    "relu": (ReLU(), (3, 4, 2)),
    "relu-of-features": (ReLU(), (7,)),
    "tanh": (Tanh(), (3, 4, 2)),
    "sigmoid": (Sigmoid(), (3, 4, 2)),
    "rescale": (Rescale(scale=0.5, offset=1.0), (3, 4, 2)),
    "rescale-of-features": (Rescale(scale=0.5, offset=1.0), (7,)),
    "grayscale": (Grayscale(), (3, 4, 2)),
    "max-pool": (MaxPool2D(pool_size=2), (4, 5, 2)),
    "avg-pool": (AvgPool2D(pool_size=2), (4, 5, 2)),
    "conv2d": (_conv(2, 2), (4, 5, 2)),
    "dense": (Dense(units=3), (5,)),
    "softmax": (Softmax(), (5,)),
}
# (layers, input shape, batch): each goes past a size at which kernels of engines change or end.
LARGE: dict[str, tuple[str, list[Layer], tuple[int, ...], int]] = {
    "64-channels": ("64 channels and 65 filters", [_conv(65)], (6, 7, 64), 2),
    "130-channels": ("130 channels", [_conv(4, (2, 3))], (4, 5, 130), 2),
    "1-to-130-filters": ("130 filters of one channel", [_conv(130, (3, 2))], (5, 6, 1), 2),
    "40x56": ("an image of 40 x 56", [_conv(3, (5, 3), padding="same", strides=(1, 2))], (40, 56, 3), 2),
    "130x9": ("a high image", [_conv(2, (3, 2))], (130, 9, 2), 2),
    "9x130": ("a wide image", [_conv(2, (2, 3))], (9, 130, 2), 2),
    "1x1100": ("an image of one row", [_conv(2, (1, 5), padding="same")], (1, 1100, 2), 2),
    "1100x1": ("an image of one column", [_conv(2, (5, 1), padding="same")], (1100, 1, 2), 2),
    "kernel-15x13": ("a kernel of 15 x 13", [_conv(2, (15, 13))], (18, 15, 2), 2),
    "filters-of-filters": ("32 filters of 32 channels", [_conv(32), _conv(32)], (8, 9, 3), 3),
    "max-pool-40x56": ("max pooling of 40 x 56", [MaxPool2D(pool_size=3, strides=2)], (40, 56, 3), 2),
    "avg-pool-40x56": ("average pooling of 40 x 56", [AvgPool2D(pool_size=3, strides=2)], (40, 56, 3), 2),
    "max-pool-9x10-windows": ("maxima of 90 pixels", [MaxPool2D(pool_size=(9, 10))], (19, 21, 3), 2),
    "avg-pool-global": ("means of whole images", [AvgPool2D(pool_size=(20, 21))], (20, 21, 5), 2),
    "pool-130-channels": ("pooling of 130 channels", [MaxPool2D(), AvgPool2D(padding="same")], (6, 7, 130), 2),
    "1000-units": ("1,000 units of 33 features", [Dense(units=1000)], (33,), 3),
    "1100-features": ("1,100 features", [Dense(units=3)], (1100,), 3),
    "130x130": ("130 units of 130 features", [Dense(units=130, activation="tanh")], (130,), 130),
    "flatten-to-6720": ("6,720 features of an image", [Flatten(), Dense(units=3)], (40, 56, 3), 2),
    "rescale-40x56": ("an image of 40 x 56, rescaled", [Rescale(scale=0.3), Grayscale()], (40, 56, 3), 2),
    "66000-pixels": ("more than 65,536 pixels in a batch", [_conv(2, 1), ReLU()], (17, 16, 1), 257),
}

SMALL = [*_network()[:2], Flatten(), Dense(units=4), Softmax()]
# Without decisions, of which many images have too many.
SMOOTH: list[Layer] = [
    _conv(3, (2, 1), activation="tanh"),
    AvgPool2D(pool_size=(2, 1), strides=1),
    Flatten(),
    Dense(units=3),
    Softmax(),
]


def _no_images(layers: list[Layer], shape: tuple[int, ...]) -> Any:
    def predict(subject: Subject) -> None:
        question = draw(layers, shape, precision=subject.precision)
        program = subject.compile(question.model, question.parameters)
        for dtype in (np.uint8, subject.dtype):
            program.predict(np.zeros((0, *shape), dtype))
        subject.ask(question)  # and it goes on working after that

    return predict


def _no_image_case(name: str, layers: list[Layer], shape: tuple[int, ...]) -> Case:
    return Case(
        f"v49.batch.0.{name}",
        "No images give no rows, of the shape that rows have",
        "inference",
        features_of(Model(input_shape=shape, layers=layers).plan()),
        _no_images(layers, shape),
    )


def _other_batches(subject: Subject) -> None:
    """One program answers batches of any size, in any order."""
    question = draw(_network(), (5, 6, 2), precision=subject.precision, batch=9)
    program = subject.compile(question.model, question.parameters)
    whole = program.predict(question.images)
    subject.ask(question)
    for size in (1, 4, 0, 9, 2, 7):
        rows = program.predict(question.images[:size])
        difference = np.abs(rows - whole[:size]).max(initial=0.0)
        # probabilities behind a few short sums: 64 roundings are far more than another order of summation makes
        subject.expect(
            bool(difference <= 64 * np.finfo(subject.dtype).eps),
            f"in a batch of {size} images the output differs by {difference:.3g} from that of the same images among 9",
        )


CASES: list[Case] = [
    *(_no_image_case(name, [layer], shape) for name, (layer, shape) in ALONE.items()),
    _no_image_case("network", _network(), (7, 8, 2)),
    Case(
        "v49.batch.changing",
        "One program takes batches of any size in any order, and an image has the same output in each",
        "inference",
        features_of(Model(input_shape=(5, 6, 2), layers=_network()).plan()),
        _other_batches,
    ),
    *(
        drawn_case(f"v49.batch.{size}", f"A network predicts a batch of {size}", SMALL, (5, 4, 2), batch=size)
        for size in (1, 2, 3, 8, 33, 65, 257)
    ),
    *(
        drawn_case(f"v49.image.{name}", f"A network predicts images of {name}", _network(), shape)
        for name, shape in IMAGES.items()
    ),
    *(
        drawn_case(f"v49.alone.{name}", f"A model may be a {name} layer alone", [layer], shape, batch=3)
        for name, (layer, shape) in ALONE.items()
    ),
    *(
        drawn_case(f"v49.alone.{name}.one-image", f"A {name} layer takes a single image", [layer], shape, batch=1)
        for name, (layer, shape) in ALONE.items()
    ),
    *(
        drawn_case(f"v49.large.{name}", f"The output is right for {what}", layers, shape, batch=batch)
        for name, (what, layers, shape, batch) in LARGE.items()
    ),
    drawn_case(
        "v49.kernel-is-image",
        "Kernels and windows as large as what they see leave one pixel",
        [_conv(3, (4, 3), padding="same"), MaxPool2D(pool_size=(2, 1)), _conv(4, (3, 5)), Flatten(), Dense(units=3)],
        (6, 5, 2),
    ),
    drawn_case(
        "v49.strides-over-kernel",
        "Strides over kernel and window skip pixels in each layer",
        [_conv(3, (1, 2), strides=(2, 3)), AvgPool2D(pool_size=1, strides=2), MaxPool2D(pool_size=(1, 2), strides=3)],
        (13, 26, 2),
    ),
    drawn_case(
        "v49.deep",
        "Six convolutions one behind the other",
        [
            _conv(n, k, padding="same", activation="tanh")
            for n, k in ((3, 3), (4, 2), (2, (3, 1)), (5, 1), (3, 3), (2, 2))
        ],
        (6, 7, 2),
    ),
    drawn_case(
        "v49.dense-network",
        "A dense model takes rows of features",
        [
            Rescale(scale=0.5),
            Dense(units=9, activation="relu"),
            Dense(units=7, activation="sigmoid"),
            Dense(units=3),
            Softmax(),
        ],
        (11,),
        batch=3,
    ),
    drawn_case(
        "v13.flatten.order",
        "Flattening goes row by row, column by column, and over the channels last",
        [Flatten()],
        (3, 4, 5),
    ),
    drawn_case(
        "v13.flatten.order.square",
        "Flattening goes row by row though rows, columns and channels are as many",
        [Flatten()],
        (3, 3, 3),
        batch=3,
    ),
    drawn_case(
        "v13.flatten.order.network",
        "A dense layer behind a convolution reads it row by row, channels last",
        [_conv(3, (2, 3)), Flatten(), Dense(units=4)],
        (5, 6, 2),
    ),
    drawn_gradient_case(
        "v13.flatten.order.gradient",
        "The gradient goes back from the dense layer to the pixel and channel that it came from",
        [_conv(3, (2, 1)), Flatten(), Dense(units=3), Softmax()],
        (4, 3, 2),
    ),
    # ------------------------------------------------------------------------------------------------------ backward
    *(
        drawn_gradient_case(
            f"v49.batch.{size}.gradient", f"A batch of {size} has its mean gradient", SMOOTH, (5, 3, 2), batch=size
        )
        for size in (1, 2, 3, 8, 33, 65, 257)
    ),
    *(
        drawn_gradient_case(
            f"v49.image.{name}.gradient",
            f"The gradient is right for images of {name}",
            [
                _conv(3, (3, 2), padding="same"),
                AvgPool2D(pool_size=2, padding="same"),
                Flatten(),
                Dense(units=3),
                Softmax(),
            ],
            shape,
        )
        for name, shape in IMAGES.items()
    ),
    *(
        drawn_gradient_case(
            f"v49.large.{name}.gradient",
            f"The gradients are right for {what}",
            [
                *layers,
                *([Flatten()] if len(shape) == 3 and not isinstance(layers[-1], Dense) else []),
                Dense(units=3),
                Softmax(),
            ],
            shape,
            batch=4 if batch == 3 else batch,
        )
        for name, (what, layers, shape, batch) in LARGE.items()
        if any(isinstance(layer, (Conv2D, Dense)) for layer in layers)
    ),
    *(
        drawn_gradient_case(
            f"v49.large.{name}.gradient",
            f"The gradient passes backward through {what}",
            [_conv(3, 1), *layers, Flatten(), Dense(units=3), Softmax()],
            shape,
            batch=batch,
        )
        for name, (what, layers, shape, batch) in LARGE.items()
        if all(isinstance(layer, AvgPool2D) for layer in layers)
    ),
    drawn_gradient_case(
        "v49.deep.gradient",
        "The gradient passes backward through six convolutions",
        [
            *(
                _conv(n, k, padding="same", activation="tanh")
                for n, k in ((3, 3), (4, 2), (2, (3, 1)), (5, 1), (3, 3), (2, 2))
            ),
            Flatten(),
            Dense(units=3),
            Softmax(),
        ],
        (6, 7, 2),
    ),
    drawn_gradient_case(
        "v49.dense-network.gradient",
        "The gradients of a dense model are right",
        [Dense(units=9, activation="sigmoid"), Dense(units=7, activation="tanh"), Dense(units=3), Softmax()],
        (11,),
    ),
]
