"""Cases of ReLU, tanh and sigmoid: alone, as a layer's `activation`, at 0, in the far ends, and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnkit.conformance.case import Case, drawn_case
from cnnkit.conformance.catalogue.probes import drawn_gradient_case, predict_case, probe_case, uniform
from cnnkit.model import Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU, Rescale, Sigmoid, Softmax, Tanh

LAYERS: dict[str, Layer] = {"relu": ReLU(), "tanh": Tanh(), "sigmoid": Sigmoid()}
FORMULAS = {"relu": "max(x, 0)", "tanh": "the hyperbolic tangent", "sigmoid": "1 / (1 + exp(-x))"}


def _both(*sizes: float) -> Any:
    """Each size with either sign, as two images `(2, 1, len(sizes), 2)`."""
    one = np.array([[size, -size] for size in sizes]).reshape(1, 1, -1, 2)
    return np.concatenate([one, -one[:, :, ::-1]])


ORDINARY = _both(0.001, 0.02, 0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0, 5.75)
SATURATED = _both(6.25, 8.0, 12.0, 20.0, 50.0, 89.0, 100.0, 710.0, 1e4, 1e30)
TINY = _both(0.0, 1e-30, 1e-20, 1e-8, 1e-6, 1e-4)
# The sign and the size of zeros, and what stands beside them: slopes at 0 show here.
ZEROS = np.array([0.0, -0.0, 1.0, -1.0, 0.0, 2.0, -2.0, -0.0]).reshape(2, 1, 2, 2)

CASES: list[Case] = [
    *(
        predict_case(f"{name}.forward.ordinary", f"{name} is {FORMULAS[name]}", [layer], ORDINARY)
        for name, layer in LAYERS.items()
    ),
    *(
        predict_case(
            f"{name}.forward.saturated",
            f"{name} of numbers as far as 1e30 from 0 is {FORMULAS[name]}, with no overflow",
            [layer],
            SATURATED,
        )
        for name, layer in LAYERS.items()
    ),
    *(
        predict_case(
            f"{name}.forward.tiny", f"{name} of 0, -0 and numbers next to them is {FORMULAS[name]}", [layer], TINY
        )
        for name, layer in LAYERS.items()
    ),
    *(
        predict_case(f"{name}.forward.features", f"{name} works on rows of features", [layer], uniform((3, 7)) * 4)
        for name, layer in LAYERS.items()
    ),
    *(
        drawn_case(
            f"{name}.forward.on-conv2d",
            f"The activation of a convolution is {name}, after the bias",
            [Conv2D(filters=3, kernel_size=(3, 2), activation=name)],
            (5, 6, 2),
        )
        for name in LAYERS
    ),
    *(
        drawn_case(
            f"{name}.forward.on-dense",
            f"The activation of a dense layer is {name}, after the bias",
            [Dense(units=7, activation=name)],
            (5,),
            batch=3,
        )
        for name in LAYERS
    ),
    *(
        drawn_case(
            f"{name}.forward.no-bias",
            f"The activation of layers without bias is {name}",
            [
                Conv2D(filters=3, kernel_size=2, activation=name, use_bias=False),
                Flatten(),
                Dense(units=5, activation=name, use_bias=False),
            ],
            (3, 4, 2),
        )
        for name in LAYERS
    ),
    drawn_case(
        "activations.forward.one-behind-another",
        "Activations of every kind one behind the other, each in its place",
        [Dense(units=9, activation="tanh"), Sigmoid(), Rescale(scale=3.0, offset=-2.0), ReLU(), Tanh(), Sigmoid()],
        (5,),
        batch=3,
    ),
    drawn_case(
        "activations.forward.in-a-network",
        "Each layer of a network has its own activation",
        [
            Conv2D(filters=4, kernel_size=(2, 3), activation="sigmoid"),
            Conv2D(filters=3, kernel_size=2, activation="relu"),
            MaxPool2D(pool_size=2),
            Tanh(),
            Flatten(),
            Dense(units=5, activation="tanh"),
            Dense(units=4),
        ],
        (7, 8, 2),
    ),
    predict_case(
        "relu.forward.uint8",
        "ReLU leaves uint8 images as the numbers that they are",
        [ReLU()],
        np.array([0, 1, 6, 7, 127, 128, 254, 255], np.uint8).reshape(2, 2, 1, 2),
    ),
    # ------------------------------------------------------------------------------------------------------ backward
    probe_case("v37.relu.slope-at-zero", "ReLU's slope at 0 is 0, so that no gradient passes there", [ReLU()], ZEROS),
    probe_case(
        "v37.relu.slope-at-zero.features", "ReLU's slope at 0 is 0 for features as well", [ReLU()], ZEROS.reshape(2, 4)
    ),
    probe_case(
        "v37.relu.slope-at-zero.on-conv2d",
        "The slope of a convolution's ReLU at 0 is 0",
        [Conv2D(filters=2, kernel_size=1, use_bias=False, activation="relu")],
        np.zeros((2, 2, 3, 2)),
    ),
    *(
        probe_case(f"{name}.gradient.ordinary", f"The gradient passes through {name} by its slope", [layer], ORDINARY)
        for name, layer in LAYERS.items()
    ),
    *(
        probe_case(
            f"{name}.gradient.saturated",
            f"The slope of {name} far from 0 is neither NaN nor wrong",
            [layer],
            SATURATED[:, :, :-1],
        )
        for name, layer in LAYERS.items()
    ),
    probe_case("relu.gradient.tiny", "The slope of ReLU is 1 for every positive number, however small", [ReLU()], TINY),
    *(
        probe_case(
            f"{name}.gradient.features",
            f"The gradient passes through {name} on features",
            [layer],
            ORDINARY.reshape(4, -1),
        )
        for name, layer in LAYERS.items()
    ),
    *(
        drawn_gradient_case(
            f"{name}.gradient.on-conv2d",
            f"The gradient passes through the {name} of convolutions",
            [
                Conv2D(filters=3, kernel_size=(3, 2), activation=name),
                Conv2D(filters=2, kernel_size=2, activation=name),
                Flatten(),
                Dense(units=3),
                Softmax(),
            ],
            (6, 5, 2),
        )
        for name in LAYERS
    ),
    *(
        drawn_gradient_case(
            f"{name}.gradient.on-dense",
            f"The gradient passes through the {name} of dense layers",
            [Dense(units=6, activation=name), Dense(units=5, activation=name), Dense(units=3), Softmax()],
            (4,),
            batch=4,
        )
        for name in LAYERS
    ),
    *(
        drawn_case(
            f"{name}.gradient.last",
            f"The gradient passes through a {name} that stands right before the softmax",
            [Dense(units=4, activation=name), Softmax()],
            (5,),
            "gradients",
            batch=4,
        )
        for name in LAYERS
    ),
]
