"""Cases of every layer on every way to it: gradients are not the only ones that go through a network, nor floats.

An engine may compile predicting, gradients, steps and epochs apart from one another, and for bytes apart from floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.layouts import CALLS
from cnnkit.conformance.catalogue.material import trial
from cnnkit.conformance.catalogue.probes import drawn_gradient_case
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
from cnnkit.optimizers import SGD

SHAPE = (4, 5, 2)
BATCH = 3
BYTES = np.random.default_rng(2).permutation(np.arange(1, 1 + BATCH * 40, dtype=np.uint8)).reshape(BATCH, *SHAPE)
"""No two pixels are alike, and none is 0: no decision is near."""

LAYERS: dict[str, tuple[str, list[Layer]]] = {
    "conv2d": ("a convolution", [Conv2D(filters=3, kernel_size=(2, 3))]),
    "conv2d-strides": ("a convolution with strides", [Conv2D(filters=3, kernel_size=2, strides=(2, 1))]),
    "conv2d-dilation": ("a dilated convolution", [Conv2D(filters=3, kernel_size=2, dilation=(1, 2))]),
    "conv2d-padding": ("a padded convolution", [Conv2D(filters=3, kernel_size=(2, 3), padding="same")]),
    "conv2d-no-bias": ("a convolution without bias", [Conv2D(filters=3, kernel_size=(2, 3), use_bias=False)]),
    "max-pool": ("max pooling", [MaxPool2D(pool_size=2, strides=1)]),
    "avg-pool": ("average pooling", [AvgPool2D(pool_size=(2, 3), strides=1)]),
    "relu": ("ReLU", [ReLU()]),
    "tanh": ("tanh", [Rescale(scale=1 / 32), Tanh()]),
    "sigmoid": ("the sigmoid", [Rescale(scale=1 / 32), Sigmoid()]),
    "grayscale": ("grayscale", [Grayscale()]),
    "rescale": ("a scale and an offset", [Rescale(scale=1 / 64, offset=-0.5)]),
    "dense-no-bias": ("a dense layer without bias", [Flatten(), Dense(units=5, use_bias=False)]),
    "dropout": ("dropout", [Dropout(rate=0.4)]),
}


def _network(layers: list[Layer], *, of_bytes: bool) -> tuple[Layer, ...]:
    """Floats meet a convolution first, bytes the layers themselves."""
    front = [] if of_bytes else [Conv2D(filters=2, kernel_size=1)]
    calm = [Rescale(scale=1 / 64)] if of_bytes else []
    flatten = [] if any(isinstance(layer, Flatten) for layer in layers) else [Flatten()]
    return (*front, *layers, *calm, *flatten, Dense(units=4), Softmax())


def _options(call: str, *, of_bytes: bool) -> dict[str, Any]:
    learning = {} if call == "predict" else {"optimizer": SGD(learning_rate=0.05, momentum=0.8)}
    return learning | ({"images": BYTES} if of_bytes else {})


CASES: list[Case] = [
    trial(
        f"ways.{call}.{name}{'.bytes' if of_bytes else ''}",
        claim.format(
            f"{'uint8 images that meet' if of_bytes else 'images through'} {said}{' first' if of_bytes else ''}"
        ),
        body,
        _network(layers, of_bytes=of_bytes),
        SHAPE,
        batch=BATCH,
        **_options(call, of_bytes=of_bytes),
    )
    for name, (said, layers) in LAYERS.items()
    for of_bytes in (False, True)
    for call, (claim, body) in CALLS.items()
    if call != "predict" or name == "dropout"
] + [
    drawn_gradient_case(
        f"v49.batch.70.gradient.{name}",
        f"The gradient of 70 images passes backward through {said}",
        list(_network(layers, of_bytes=False)),
        SHAPE,
        batch=70,
    )
    for name, (said, layers) in LAYERS.items()
    if not name.startswith("conv2d-")
]
