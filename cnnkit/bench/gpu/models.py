"""What is measured on a card: the network of four convolutions with padding same, as a whole and layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Shape
from cnnkit.model import Conv2D, Dense, Flatten, Layer, MaxPool2D, Model, Rescale, Softmax
from cnnkit.plan import Plan

_conv = partial(Conv2D, kernel_size=3, padding="same", activation="relu")
_DRAWN: Final = 2**20
"""So many numbers are drawn for an array at most, and repeated: drawing them all would take longer than all the layers do."""


def whole() -> Model:
    """32 x 32 x 3: two convolutions of 32 filters, pool, two of 64, pool, 512 units, 10 classes. 157.7 MFLOP an image in training."""
    layers: list[Layer] = [Rescale(scale=1 / 255)]
    for filters in (32, 64):
        layers += [_conv(filters=filters), _conv(filters=filters), MaxPool2D()]
    layers += [Flatten(), Dense(units=512, activation="relu"), Dense(units=10), Softmax()]
    return Model(name="four-convolutions-same", input_shape=(32, 32, 3), layers=layers)


_SINGLE: Final[Mapping[str, tuple[Shape, Layer]]] = {
    "conv 32, from 3": ((32, 32, 3), _conv(filters=32)),
    "conv 32, from 32": ((32, 32, 32), _conv(filters=32)),
    "pool 2, of 32": ((32, 32, 32), MaxPool2D()),
    "conv 64, from 32": ((16, 16, 32), _conv(filters=64)),
    "conv 64, from 64": ((16, 16, 64), _conv(filters=64)),
    "pool 2, of 64": ((16, 16, 64), MaxPool2D()),
    "dense 512": ((4096,), Dense(units=512, activation="relu")),
    "dense 10": ((512,), Dense(units=10)),
}
LAYERS: Final = tuple(_SINGLE)
"""The layers of `whole` that compute, from the images to the classes."""
_FIRST: Final = LAYERS[0]


@dataclass(frozen=True)
class LayerTask:
    """One layer of `whole` for a batch: the work forward and back that every contestant gets, with the same numbers.

    Back it gives the gradients of kernel and bias, and of its input unless it is the first layer, where nobody asks.
    """

    name: str
    batch: int
    seed: int = 0

    @property
    def layer(self) -> Layer:
        """The layer, with its activation."""
        return _SINGLE[self.name][1]

    @property
    def plan(self) -> Plan:
        """The plan of a model of this layer alone."""
        return Model(input_shape=_SINGLE[self.name][0], layers=[self.layer]).plan()

    @property
    def input_gradient(self) -> bool:
        """Whether the gradient of the input is part of the work."""
        return self.name != _FIRST

    @cached_property
    def x(self) -> NDArray[np.float32]:
        """The input, `(batch, *input_shape)`, between -1 and 1."""
        return self._drawn(0, (self.batch, *self.plan.input_shape), 1.0)

    @cached_property
    def dy(self) -> NDArray[np.float32]:
        """The gradient of the output, `(batch, *output_shape)`, between -1 and 1."""
        return self._drawn(1, (self.batch, *self.plan.output_shape), 1.0)

    @cached_property
    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Kernel and bias, if it has them, by cnnkit's names, so small that outputs stay near 1."""
        specs = self.plan.parameters
        fan_in = specs[0].size // specs[0].shape[-1] if specs else 1
        return {spec.name: self._drawn(2 + at, spec.shape, (3 / fan_in) ** 0.5) for at, spec in enumerate(specs)}

    def _drawn(self, what: int, shape: Shape, limit: float) -> NDArray[np.float32]:
        size = int(np.prod(shape))
        generator = np.random.default_rng([self.seed, what])
        numbers = (2 * generator.random(min(size, _DRAWN), np.float32) - 1) * np.float32(limit)
        return np.resize(numbers, shape)

    def to_dict(self) -> dict[str, Any]:
        """What another process makes the same task of."""
        return {"name": self.name, "batch": self.batch, "seed": self.seed}


SAMPLE: Final = 256
FAR: Final = 0.02
"""Of a layer's results so many numbers are compared, which may differ by so much of the largest: TF32 rounds to 11 bits."""


def sample(array: Array) -> list[float]:
    """`SAMPLE` numbers from all over `array`, or all where it has fewer."""
    flat = np.ascontiguousarray(array).reshape(-1)
    places = np.unique(np.linspace(0, flat.size - 1, SAMPLE).astype(np.int64))
    return [float(number) for number in flat[places]]


def disagreements(one: Mapping[str, list[float]], other: Mapping[str, list[float]]) -> list[str]:
    """Which results of a layer, by their names, are not those of another contestant."""
    if one.keys() != other.keys():
        return [f"it gives {', '.join(sorted(one))}, not {', '.join(sorted(other))}"]
    found = []
    for name, numbers in one.items():
        mine, theirs = np.array(numbers), np.array(other[name])
        if mine.shape != theirs.shape:
            found.append(f"its {name} has another size")
            continue
        apart, largest = float(np.abs(mine - theirs).max()), float(np.abs(theirs).max())
        if not apart <= FAR * largest:  # not so for NaN either
            found.append(f"its {name} is {apart:.3g} off, where numbers go up to {largest:.3g}")
    return found
