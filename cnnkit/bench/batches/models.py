"""The models that are measured, one definition each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from cnnkit.arrays import Shape
from cnnkit.model import Conv2D, Dense, Flatten, Layer, MaxPool2D, Model, Rescale, Softmax
from cnnkit.presets import load_preset

_conv = partial(Conv2D, kernel_size=3, activation="relu")
_same = partial(_conv, padding="same")


def _classifier(name: str, input_shape: Shape, images: list[Layer], hidden: tuple[int, ...]) -> Model:
    """Pixels to 0..1, the layers on images, then dense layers and ten classes."""
    dense = [Dense(units=units, activation="relu") for units in hidden]
    layers = [Rescale(scale=0.00392156862745098), *images, Flatten(), *dense, Dense(units=10), Softmax()]
    return Model(name=name, input_shape=input_shape, layers=layers)


def _one_convolution() -> Model:
    return _classifier("one-convolution", (28, 28, 1), [_conv(filters=16), MaxPool2D()], ())


def _two_convolutions() -> Model:
    images: list[Layer] = [_conv(filters=32), MaxPool2D(), _conv(filters=64), MaxPool2D()]
    return _classifier("two-convolutions", (28, 28, 1), images, (128,))


def _three_convolutions() -> Model:
    images: list[Layer] = [_conv(filters=32), MaxPool2D(), _conv(filters=64), MaxPool2D(), _conv(filters=64)]
    return _classifier("three-convolutions", (32, 32, 3), images, (64,))


def _four_convolutions() -> Model:
    """The one of examples/four-convolutions.toml, which trains on CIFAR-10."""
    first: list[Layer] = [_same(filters=32), _conv(filters=32), MaxPool2D()]
    second: list[Layer] = [_same(filters=64), _conv(filters=64), MaxPool2D()]
    return _classifier("four-convolutions", (32, 32, 3), [*first, *second], (512,))


def _seed_tf() -> Model:
    return load_preset("seed-tf").for_data((28, 28, 1), 10).model


MODELS: Final[Mapping[str, Callable[[], Model]]] = {
    "a": _one_convolution,
    "b": _two_convolutions,
    "c": _three_convolutions,
    "d": _four_convolutions,
    "seed-tf": _seed_tf,
}
"""By the names that `--model` takes; made when they are asked for, so that no other command pays for it."""
