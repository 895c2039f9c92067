"""Cases of layers whose options are crossed: any three of a convolution and any two of a pooling, in every combination.

Engines have kernels of their own for some combinations of options. To try all combinations of three takes 81 cases, if
every three columns of `ROWS` have each of 27 triples three times: an orthogonal array of strength 3, made from ten
points of which no three lie on a line. Its first 27 rows have each pair three times in any two of the later columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.probes import drawn_gradient_case
from cnnkit.model import AvgPool2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, Softmax

POINTS = [(1, 0, 0, 0)] + [((-x * x - y * y) % 3, x, y, 1) for x, y in product(range(3), repeat=2)]
"""The ten points of an elliptic quadric over the numbers modulo 3."""
ROWS = np.array(list(product(range(3), repeat=4))) @ np.array(POINTS).T % 3
"""81 rows of ten columns, each number being one of three choices."""

ENDING: list[Layer] = [Flatten(), Dense(units=3), Softmax()]

CONVOLUTIONS: dict[str, tuple[Any, Any, Any]] = {
    "kernel_size": ((2, 3), 1, (5, 4)),
    "padding": ("valid", ((1, 0), (0, 2)), "same"),
    "strides": (1, (2, 1), (3, 2)),
    "dilation": (1, (1, 2), (2, 1)),
    "use_bias": (True, False, True),
    "filters": (3, 1, 9),
    "channels": (2, 1, 9),
    "batch": (2, 1, 5),
    "image": ((9, 7), (10, 8), (21, 7)),
}
POOLINGS: dict[str, tuple[Any, Any, Any]] = {
    "pool_size": ((2, 3), (3, 2), (5, 4)),
    "padding": ("valid", ((0, 1), (1, 0)), "same"),
    "strides": (1, (2, 3), (6, 2)),
    "channels": (2, 1, 9),
    "batch": (2, 1, 5),
    "image": ((6, 7), (5, 5), (21, 6)),
}


def _chosen(options: dict[str, tuple[Any, Any, Any]], rows: NDArray[np.int64]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in enumerate(rows.tolist()):
        yield number, {name: choices[row[column]] for column, (name, choices) in enumerate(options.items())}


def _told(options: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _convolution(number: int, options: dict[str, Any]) -> Case:
    fields = {name: value for name, value in options.items() if name not in ("channels", "batch", "image")}
    front = Conv2D(filters=options["channels"], kernel_size=1, use_bias=False)
    return drawn_gradient_case(
        f"crossed.conv2d.{number:02}",
        f"Loss and gradients of a convolution are right with {_told(options)}",
        [front, Conv2D(**fields), *ENDING],
        (*options["image"], 2),
        batch=options["batch"],
    )


def _pooling(name: str, kind: type[MaxPool2D | AvgPool2D], number: int, options: dict[str, Any]) -> Case:
    fields = {field: options[field] for field in ("pool_size", "padding", "strides")}
    front = Conv2D(filters=options["channels"], kernel_size=1, use_bias=False)
    return drawn_gradient_case(
        f"crossed.{name}.{number:02}",
        f"Loss and gradients of {name} are right with {_told(options)}",
        [front, kind(**fields), *ENDING],
        (*options["image"], 2),
        batch=options["batch"],
    )


CASES: list[Case] = [
    *(_convolution(number, options) for number, options in _chosen(CONVOLUTIONS, ROWS)),
    *(_pooling("max-pool", MaxPool2D, number, options) for number, options in _chosen(POOLINGS, ROWS[:27, 1:])),
    *(_pooling("avg-pool", AvgPool2D, number, options) for number, options in _chosen(POOLINGS, ROWS[:27, 1:])),
]
