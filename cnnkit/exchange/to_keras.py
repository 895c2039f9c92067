"""From a model to the layers of a Keras Sequential, as its file describes them; what Keras cannot say is refused.

======================  =======================================================================================
our layer               Keras layers
======================  =======================================================================================
`Rescale`               `Rescaling`
`Grayscale`             `Conv2D` with one frozen 1 x 1 kernel that holds the weights, without a bias
`Conv2D`                `Conv2D`; behind a `ZeroPadding2D` where the padding is neither "valid" nor "same"
`MaxPool2D`             `MaxPooling2D`
`AvgPool2D`             `AveragePooling2D`
`ReLU Tanh Sigmoid`     `Activation`
the others              those of the same name
======================  =======================================================================================

Keras's "same" is ours: as many windows as strides begin, and an odd pixel after.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from cnnkit.arrays import Array, Parameters
from cnnkit.errors import ModelError, Problem
from cnnkit.model import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
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
from cnnkit.plan import AvgPool2DOp, Conv2DOp, GrayscaleOp, MaxPool2DOp, PaddingPair, Pair, Plan

INITIALIZERS: Final = {
    "glorot_uniform": "GlorotUniform",
    "glorot_normal": "GlorotNormal",
    "he_uniform": "HeUniform",
    "he_normal": "HeNormal",
}
"""Our initialisers, and Keras's classes of the same purpose. Only training anew would use them."""

_IMAGES: Final = {"data_format": "channels_last"}
_TRAINED: Final = {
    "bias_initializer": "zeros",
    "kernel_regularizer": None,
    "bias_regularizer": None,
    "activity_regularizer": None,
    "kernel_constraint": None,
    "bias_constraint": None,
}


@dataclass(frozen=True)
class KerasLayer:
    """A layer of a Sequential: its class, its configuration, and its arrays in Keras's order (kernel, bias)."""

    class_name: str
    config: dict[str, Any]
    arrays: tuple[Array, ...] = ()


def to_keras(plan: Plan, parameters: Parameters) -> list[KerasLayer]:
    """The layers of the Sequential that computes what `plan` does, without the InputLayer.

    Raises a `ModelError` with everything that Keras cannot say.
    """
    operations: dict[int, Any] = {}
    for operation in plan.operations:  # the first one of a layer; an activation comes second
        operations.setdefault(operation.layer, operation)
    layers: list[KerasLayer] = []
    problems: list[Problem] = []
    for index, layer in enumerate(plan.model.layers):
        for made in _layers(layer, operations[index], parameters):
            if isinstance(made, Problem):
                problems.append(replace(made, path=f"layers[{index}].{made.path}"))
            else:
                name = f"{layer.kind}_{index}" + ("_padding" if made.class_name == "ZeroPadding2D" else "")
                config = {"name": name, "trainable": True, "dtype": "float32", **made.config}
                layers.append(replace(made, config=config))
    if problems:
        raise ModelError(problems, plan.model.title)
    return layers


def sequential(model: Model, layers: list[KerasLayer]) -> dict[str, Any]:
    """The contents of `config.json`."""
    batch_shape = [None, *model.input_shape]
    first = {"batch_shape": batch_shape, "dtype": "float32", "sparse": False, "ragged": False, "name": "images"}
    config = {
        "name": re.sub(r"[^A-Za-z0-9_.-]", "_", model.name or "") or "cnnkit",
        "trainable": True,
        "dtype": "float32",
        "layers": [_object("InputLayer", first), *(_object(layer.class_name, layer.config) for layer in layers)],
        "build_input_shape": batch_shape,
    }
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}


def _object(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": config, "registered_name": None}


def _layers(layer: Layer, op: Any, parameters: Parameters) -> Iterator[KerasLayer | Problem]:
    match layer:
        case Rescale(scale=scale, offset=offset):
            yield KerasLayer("Rescaling", {"scale": scale, "offset": offset})
        case Grayscale():
            yield _grayscale(op)
        case Conv2D():
            yield from _convolution(layer, op, parameters)
        case MaxPool2D():
            yield _pool("MaxPooling2D", op, "padding is zeros in Keras's layers, and minus infinity in a MaxPool2D")
        case AvgPool2D():
            yield _pool("AveragePooling2D", op, "the zeros of a padding layer would count as pixels")
        case Flatten():
            yield KerasLayer("Flatten", dict(_IMAGES))
        case Dense(units=units):
            yield KerasLayer("Dense", {"units": units, **_learned(layer)}, _arrays(op, parameters))
        case ReLU() | Tanh() | Sigmoid():
            yield KerasLayer("Activation", {"activation": layer.kind})
        case Dropout(rate=rate):
            yield KerasLayer("Dropout", {"rate": rate, "seed": None, "noise_shape": None})
        case Softmax():
            yield KerasLayer("Softmax", {"axis": -1})


def _learned(layer: Conv2D | Dense) -> dict[str, Any]:
    initializer = {
        "module": "keras.initializers",
        "class_name": INITIALIZERS[layer.kernel_initializer],
        "config": {"seed": None},
        "registered_name": None,
    }
    activation = layer.activation or "linear"
    return {"activation": activation, "use_bias": layer.use_bias, "kernel_initializer": initializer, **_TRAINED}


def _arrays(op: Any, parameters: Parameters) -> tuple[Array, ...]:
    return tuple(parameters[name] for name in (op.kernel, op.bias) if name is not None)


def _grayscale(op: GrayscaleOp) -> KerasLayer:
    layer = Conv2D(filters=1, kernel_size=1, use_bias=False)
    config = _convolution_config(layer, (1, 1), (1, 1), (1, 1), "valid") | {"trainable": False}
    return KerasLayer("Conv2D", config, (grayscale_kernel(op.weights),))


def grayscale_kernel(weights: tuple[float, ...]) -> Array:
    """The kernel `(1, 1, channels, 1)` of the convolution that weighs the channels so."""
    return np.array(weights, np.float32).reshape(1, 1, -1, 1)


def _convolution(layer: Conv2D, op: Conv2DOp, parameters: Parameters) -> Iterator[KerasLayer | Problem]:
    if max(op.strides) > 1 and max(op.dilation) > 1:
        yield Problem(
            "dilation",
            f"is {layer.dilation} with strides of {layer.strides}, and a Conv2D of Keras takes only one of them above 1",
            "Export to another format, or leave one of them at 1",
        )
        return
    padding = _named_padding(op, op.kernel_size, op.dilation)
    if padding is None:
        yield KerasLayer("ZeroPadding2D", {"padding": [list(side) for side in op.padding], **_IMAGES})
    config = _convolution_config(layer, op.kernel_size, op.strides, op.dilation, padding or "valid")
    yield KerasLayer("Conv2D", config, _arrays(op, parameters))


def _convolution_config(
    layer: Conv2D, kernel_size: Pair, strides: Pair, dilation: Pair, padding: str
) -> dict[str, Any]:
    return {
        "filters": layer.filters,
        "kernel_size": list(kernel_size),
        "strides": list(strides),
        "padding": padding,
        "dilation_rate": list(dilation),
        "groups": 1,
        **_IMAGES,
        **_learned(layer),
    }


def _pool(class_name: str, op: MaxPool2DOp | AvgPool2DOp, reason: str) -> KerasLayer | Problem:
    padding = _named_padding(op, op.pool_size, (1, 1))
    if padding is None:
        return Problem(
            "padding",
            f'is {op.padding}, and {class_name} of Keras knows only "valid" and "same"; {reason}',
            'Export to another format, or use "valid" or "same"',
        )
    config = {"pool_size": list(op.pool_size), "strides": list(op.strides), "padding": padding, **_IMAGES}
    return KerasLayer(class_name, config)


def _named_padding(op: Conv2DOp | MaxPool2DOp | AvgPool2DOp, kernel: Pair, dilation: Pair) -> str | None:
    """Keras's name for the padding, where it has one."""
    if not any(map(any, op.padding)):
        return "valid"
    same: PaddingPair = tuple(  # type: ignore[assignment] # two sides
        _same(op.input_shape[axis], dilation[axis] * (kernel[axis] - 1) + 1, op.strides[axis]) for axis in (0, 1)
    )
    return "same" if op.padding == same else None


def _same(size: int, window: int, stride: int) -> Pair:
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2
