"""From a model to the graph of ONNX that computes what its plan says, in operators of opset 13 and no others.

======================  =======================================================================================
our layer               operators
======================  =======================================================================================
`Rescale`               `Mul`, and `Add` where the offset is not zero
`Grayscale`             `Conv` with one 1 x 1 kernel that holds the weights
`Conv2D`                `Conv`, padding in numbers
`MaxPool2D`             `MaxPool`
`AvgPool2D`             `AveragePool` that does not count padding
`Flatten`               `Flatten`
`Dense`                 `Gemm`
`ReLU Tanh Sigmoid`     `Relu`, `Tanh`, `Sigmoid`, also those split out of a layer
`Dropout`               nothing
`Softmax`               `Softmax` of the last axis
======================  =======================================================================================

ONNX has the channels of images first, cnnkit last. So a `Transpose` stands before the first operator that tells them
apart, and one before `Flatten`, whose order is ours, or at the end.

Version 1.8 of ONNX (2020) brought opset 13, the first whose Softmax is that of one axis.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cnnkit.arrays import Parameters, Shape, dtype_of
from cnnkit.errors import MissingDependency, ModelError, Problem
from cnnkit.model import Model
from cnnkit.plan import (
    ActivationOp,
    AvgPool2DOp,
    Conv2DOp,
    DenseOp,
    FlattenOp,
    GrayscaleOp,
    MaxPool2DOp,
    Operation,
    PaddingPair,
    Plan,
    RescaleOp,
    SoftmaxOp,
)

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET: Final = 13
IR_VERSION: Final = 7
"""The version of the file's own layout that came with opset 13."""

INPUT: Final = "images"
BATCH: Final = "batch"
"""The name of the axis whose size is left open."""

MODEL_KEY: Final = "cnnkit.model"
"""Under this key the file's metadata hold the model as cnnkit's JSON."""
CLASSES_KEY: Final = "class_names"
"""And under this one the names of its classes as a JSON list, where it has any."""

LARGEST: Final = 2**31 - 1
"""Bytes: Protocol Buffers, the encoding of ONNX, take no larger file."""
_ROOM: Final = 2**20
"""Of these, bytes that are left for all that is not numbers. A layer takes about a hundred."""

_ACTIVATIONS: Final = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
_TO_CHANNELS_FIRST: Final = (0, 3, 1, 2)
_TO_CHANNELS_LAST: Final = (0, 2, 3, 1)


def to_onnx(model: Model, parameters: Parameters, precision: str = "float32") -> ModelProto:
    """`model` with `parameters` as an ONNX model, which computes in `precision`.

    Its input `images` is `(batch, *input_shape)` with the channels last, as cnnkit's, and any number of images; its
    output, `probabilities` of a classifier and else `output`, is what `predict` returns.

    Raises:
        ModelError: The parameters do not fit a file of ONNX.
        MissingDependency: onnx is not installed.
    """
    onnx = require_onnx()
    plan = model.plan()
    problem = too_large(plan, precision)
    if problem is not None:
        raise ModelError([problem], plan.model.title)
    graph = _Graph(plan, parameters, precision, onnx)
    for op in plan.operations:
        graph.add(op)
    proto: ModelProto = onnx.helper.make_model(
        graph.finish(model.name or "cnnkit"),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cnnkit",
        producer_version=metadata.version("cnnkit"),
    )
    about = {MODEL_KEY: json.dumps(model.to_dict())}
    if model.class_names is not None:
        about[CLASSES_KEY] = json.dumps(list(model.class_names), ensure_ascii=False)
    onnx.helper.set_model_props(proto, about)
    return proto


def too_large(plan: Plan, precision: str = "float32") -> Problem | None:
    """What says that the parameters do not fit a file of ONNX, if they do not: the layer with most of them."""
    size = dtype_of(precision).itemsize * sum(spec.size for spec in plan.parameters)
    if size <= LARGEST - _ROOM:
        return None
    largest = max(plan.parameters, key=lambda spec: spec.size)
    return Problem(
        f"layers[{largest.layer}]",
        f"has most of {size:,} bytes of parameters, and a file of ONNX holds at most {LARGEST:,}",
        "Export to another format, or make the layer smaller",
    )


def require_onnx() -> Any:
    """The module onnx; a `MissingDependency` where it is not installed."""
    try:
        return import_module("onnx")
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise MissingDependency("The format 'onnx'", "onnx", "onnx") from error


class _Graph:
    """Nodes one behind the other; `value` is the name of the last one's output, `channels_first` how it lies."""

    def __init__(self, plan: Plan, parameters: Parameters, precision: str, onnx: Any) -> None:
        self.plan, self.parameters, self.onnx = plan, parameters, onnx
        self.dtype = dtype_of(precision)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.value = INPUT
        self.channels_first = False

    def add(self, op: Operation) -> None:
        """What computes `op`."""
        at = op.layer
        match op:
            case RescaleOp(scale=scale, offset=offset):
                self.node("Mul", f"{at}.rescale", [self.constant(f"{at}.scale", scale)])
                if offset != 0:
                    self.node("Add", f"{at}.offset_added", [self.constant(f"{at}.offset", offset)])
            case GrayscaleOp(weights=weights):
                self.lay(channels_first=True)
                kernel = self.constant(f"{at}.weights", np.reshape(weights, (1, -1, 1, 1)))
                self.node("Conv", f"{at}.grayscale", [kernel], kernel_shape=(1, 1))
            case Conv2DOp():
                self.convolution(op)
            case MaxPool2DOp():
                self.pool("MaxPool", f"{at}.max_pool2d", op)
            case AvgPool2DOp():
                self.pool("AveragePool", f"{at}.avg_pool2d", op, count_include_pad=0)
            case FlattenOp():
                self.lay(channels_first=False)
                self.node("Flatten", f"{at}.flatten", axis=1)
            case DenseOp():
                self.node("Gemm", f"{at}.dense", self.learned(op, self.parameters[op.kernel]))
            case ActivationOp(function=function):
                self.node(_ACTIVATIONS[function], f"{at}.{function}")
            case SoftmaxOp():
                self.node("Softmax", f"{at}.softmax", axis=-1)

    def convolution(self, op: Conv2DOp) -> None:
        self.lay(channels_first=True)
        kernel = self.parameters[op.kernel].transpose(3, 2, 0, 1)  # (filters, in_channels, height, width)
        self.node(
            "Conv",
            f"{op.layer}.conv2d",
            self.learned(op, kernel),
            kernel_shape=op.kernel_size,
            strides=op.strides,
            dilations=op.dilation,
            pads=_pads(op.padding),
        )

    def pool(self, operator: str, name: str, op: MaxPool2DOp | AvgPool2DOp, **attributes: Any) -> None:
        self.lay(channels_first=True)
        pads = _pads(_needed(op))
        self.node(operator, name, kernel_shape=op.pool_size, strides=op.strides, pads=pads, **attributes)

    def learned(self, op: Conv2DOp | DenseOp, kernel: Any) -> list[str]:
        """The names of kernel and bias, which are those of the parameters."""
        names = [self.constant(op.kernel, kernel)]
        return names if op.bias is None else [*names, self.constant(op.bias, self.parameters[op.bias])]

    def lay(self, *, channels_first: bool) -> None:
        """Transpose images that do not lie so."""
        if channels_first == self.channels_first:
            return
        order, name = (_TO_CHANNELS_FIRST, "channels_first") if channels_first else (_TO_CHANNELS_LAST, "channels_last")
        self.node("Transpose", name, perm=order)
        self.channels_first = channels_first

    def node(self, operator: str, name: str, further: Sequence[str] = (), **attributes: Any) -> None:
        self.nodes.append(self.onnx.helper.make_node(operator, [self.value, *further], [name], name, **attributes))
        self.value = name

    def constant(self, name: str, value: Any) -> str:
        with np.errstate(over="ignore"):  # a number above those of the dtype is infinity there, as it is when computing
            array = np.asarray(value, self.dtype, order="C")
        self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def finish(self, name: str) -> Any:
        """The whole graph. Its output lies as cnnkit's does."""
        self.lay(channels_first=False)
        output = "probabilities" if self.plan.is_classifier else "output"
        if self.nodes:
            self.nodes[-1].output[0] = output
        else:
            self.nodes.append(self.onnx.helper.make_node("Identity", [INPUT], [output], output))
        ends = [self.described(INPUT, self.plan.input_shape)], [self.described(output, self.plan.output_shape)]
        return self.onnx.helper.make_graph(self.nodes, name, *ends, self.initializers)

    def described(self, name: str, shape: Shape) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(self.dtype)
        return self.onnx.helper.make_tensor_value_info(name, kind, [BATCH, *shape])


def _pads(padding: PaddingPair) -> tuple[int, ...]:
    """Padding as ONNX has it: all that comes before, then all that comes after."""
    (top, bottom), (left, right) = padding
    return top, left, bottom, right


def _needed(op: MaxPool2DOp | AvgPool2DOp) -> PaddingPair:
    """The padding without pixels after the last window. Engines refuse more of them than a window is wide."""
    sides = []
    for axis, (before, after) in enumerate(op.padding):
        end = (op.output_shape[axis] - 1) * op.strides[axis] + op.pool_size[axis]
        most = max(end - op.input_shape[axis] - before, 0)
        sides.append((before, after if after < op.pool_size[axis] else most))
    return sides[0], sides[1]
