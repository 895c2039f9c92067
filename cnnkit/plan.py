"""From a model to its plan: every shape, explicit padding, activation and parameter, worked out once and nowhere else.

A backend reads `plan.operations` in order. An operation says what to compute in numbers alone: padding is
`((top, bottom), (left, right))` in pixels, sizes are pairs (height, width), an `activation` has become an operation of
its own, and parameters are names into the arrays that come with the plan.

The size formula is the one of Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016),
relationship 6, with the dilated window of relationship 15:

    window = dilation * (kernel - 1) + 1
    output = floor((input + padding_before + padding_after - window) / stride) + 1

`"same"` is ONNX's SAME_UPPER: `output = ceil(input / stride)`, and an odd pixel of padding goes after.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from cnnkit import model as spec
from cnnkit.arrays import Shape, times
from cnnkit.errors import ModelError, Problem

Pair: TypeAlias = tuple[int, int]
PaddingPair: TypeAlias = tuple[Pair, Pair]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luma: Recommendation ITU-R BT.601."""


# ------------------------------------------------------------------------------------------------- the operations


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What every operation has: the layer it comes from, and its shapes without the batch axis."""

    layer: int
    input_shape: Shape
    output_shape: Shape


@dataclass(frozen=True, kw_only=True)
class RescaleOp(Operation):
    """`x * scale + offset`."""

    scale: float
    offset: float


@dataclass(frozen=True, kw_only=True)
class GrayscaleOp(Operation):
    """The weighted sum of the channels, one weight a channel."""

    weights: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Conv2DOp(Operation):
    """Cross-correlation of the zero-padded input with `kernel` `(kernel_height, kernel_width, in_channels, filters)`."""

    kernel: str
    bias: str | None
    filters: int
    kernel_size: Pair
    strides: Pair
    padding: PaddingPair
    dilation: Pair


@dataclass(frozen=True, kw_only=True)
class MaxPool2DOp(Operation):
    """The maximum of each window; padding counts as minus infinity, and the first of equal maxima gets the gradient."""

    pool_size: Pair
    strides: Pair
    padding: PaddingPair


@dataclass(frozen=True, kw_only=True)
class AvgPool2DOp(Operation):
    """The mean of each window over the pixels that are not padding."""

    pool_size: Pair
    strides: Pair
    padding: PaddingPair


@dataclass(frozen=True, kw_only=True)
class FlattenOp(Operation):
    """Row-major over (height, width, channels)."""


@dataclass(frozen=True, kw_only=True)
class DenseOp(Operation):
    """`x @ kernel + bias` with `kernel` `(features, units)`."""

    kernel: str
    bias: str | None
    units: int


@dataclass(frozen=True, kw_only=True)
class ActivationOp(Operation):
    """An element-wise function, standing alone or split out of a layer's `activation`."""

    function: Literal["relu", "tanh", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class DropoutOp(Operation):
    """Inverted dropout: in training, times the mask that `cnnkit.dropout_mask` draws; in `predict`, nothing."""

    rate: float


@dataclass(frozen=True, kw_only=True)
class SoftmaxOp(Operation):
    """Scores to probabilities. Always the last operation."""


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter: its name, its shape, and what its initialiser needs to know."""

    name: str
    shape: Shape
    initializer: Literal["zeros", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal"]
    fan_in: int
    fan_out: int
    layer: int

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Plan:
    """A model worked out. `operations` are in the order of computation, `parameters` in the order of their names' layers."""

    model: spec.Model
    operations: tuple[Operation, ...]
    parameters: tuple[ParameterSpec, ...]
    layer_shapes: tuple[Shape, ...] = field(repr=False)
    """The output shape of each layer of the model, without the batch axis."""

    @property
    def input_shape(self) -> Shape:
        """`(height, width, channels)` or `(features,)`."""
        return self.model.input_shape

    @property
    def output_shape(self) -> Shape:
        """The shape of one row of what `predict` returns."""
        return self.operations[-1].output_shape if self.operations else self.input_shape

    @property
    def is_classifier(self) -> bool:
        """Whether the model ends in Softmax."""
        return bool(self.operations) and isinstance(self.operations[-1], SoftmaxOp)

    @property
    def classes(self) -> int:
        """The number of classes of a classifier; a `ModelError` for any other model, which cannot be trained."""
        if not self.is_classifier:
            last = len(self.model.layers) - 1
            problem = Problem(
                f"layers[{last}]",
                f"is {type(self.model.layers[last]).__name__}; a model that is trained or judged ends in Softmax",
                "Add Softmax() as the last layer",
            )
            raise ModelError([problem], self.model.title)
        return self.output_shape[0]

    def require_trainable(self) -> None:
        """Raise `ModelError` unless the model is a classifier with something to learn."""
        _ = self.classes
        if not self.parameters:
            problem = Problem(
                "layers", "have no parameters, so there is nothing to train", "Add a Conv2D or Dense layer"
            )
            raise ModelError([problem], self.model.title)


# -------------------------------------------------------------------------------------------------------- working out


def pair(size: int | Pair) -> Pair:
    """A size as (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def make_plan(model: spec.Model) -> Plan:
    """Work the model out, or raise one `ModelError` with all that does not fit.

    After a problem the work goes on as if its fix had been made, so that the next problem is seen too. Where the fix
    does not tell the shape, nothing is said about shapes until the next Dense layer, whose output is certain again.
    Behind a window that does not fit nothing is said about windows: they may fit once it does.
    """
    return _Planner(model).run()


class _Planner:
    """Walks the layers once, carrying the shape; `emit` adds operations, `complain` adds problems."""

    def __init__(self, model: spec.Model) -> None:
        self.model = model
        self.shape: Shape = model.input_shape
        self.certain = True
        """Whether the shape is known."""
        self.sized = True
        """Whether height and width are known."""
        self.index = 0
        self.operations: list[Operation] = []
        self.parameters: list[ParameterSpec] = []
        self.layer_shapes: list[Shape] = []
        self.problems: list[Problem] = []

    def run(self) -> Plan:
        if not self.model.layers:
            self.problems.append(
                Problem("layers", "is empty; a model has at least one layer", "Add for example Flatten()")
            )
        for index, layer in enumerate(self.model.layers):
            self.index = index
            for step in self.steps_of(layer):
                self.operations.append(step)
                self.shape = step.output_shape
            self.layer_shapes.append(self.shape)
        self.check_class_names()
        if self.problems:
            raise ModelError(self.problems, self.model.title)
        return Plan(self.model, tuple(self.operations), tuple(self.parameters), tuple(self.layer_shapes))

    def complain(self, field_name: str, message: str, fix: str) -> None:
        path = f"layers[{self.index}]" + (f".{field_name}" if field_name else "")
        self.problems.append(Problem(path, message, fix))

    def complain_of_shape(self, field_name: str, message: str, fix: str) -> None:
        if self.certain:
            self.complain(field_name, message, fix)

    def steps_of(self, layer: spec.Layer) -> Iterator[Operation]:
        """The operations of one layer; `self.shape` has moved on when the second one is asked for."""
        index, shape = self.index, self.shape
        match layer:
            case spec.Rescale(scale=scale, offset=offset):
                yield RescaleOp(layer=index, input_shape=shape, output_shape=shape, scale=scale, offset=offset)
            case spec.Grayscale():
                yield self.grayscale(layer)
            case spec.Conv2D():
                yield self.conv2d(layer)
                yield from self.activation(layer.activation)
            case spec.MaxPool2D() | spec.AvgPool2D():
                yield self.pool(layer)
            case spec.Flatten():
                yield FlattenOp(layer=index, input_shape=shape, output_shape=(math.prod(shape),))
            case spec.Dense():
                yield self.dense(layer)
                yield from self.activation(layer.activation)
            case spec.ReLU() | spec.Tanh() | spec.Sigmoid():
                yield from self.activation(layer.kind)
            case spec.Dropout(rate=rate):
                yield DropoutOp(layer=index, input_shape=shape, output_shape=shape, rate=rate)
            case spec.Softmax():
                yield self.softmax()

    def activation(self, function: Literal["relu", "tanh", "sigmoid"] | None) -> Iterator[Operation]:
        if function is not None:
            yield ActivationOp(layer=self.index, input_shape=self.shape, output_shape=self.shape, function=function)

    def image_shape(self, layer: spec.Layer) -> tuple[int, int, int]:
        """The shape that the layer gets, which must be that of an image."""
        if len(self.shape) == 3:
            return self.shape[0], self.shape[1], self.shape[2]
        name = type(layer).__name__
        self.complain_of_shape(
            "",
            f"is {name}, which takes (height, width, channels), but gets {self.shape[0]} features",
            f"Move {name} before Flatten, or give the model an input_shape of three numbers",
        )
        self.certain = False
        self.shape = (1, 1, self.shape[0])
        return 1, 1, self.shape[2]

    def grayscale(self, layer: spec.Grayscale) -> Operation:
        height, width, channels = self.image_shape(layer)
        if layer.weights == "luma" and channels != 3:
            self.complain_of_shape(
                "weights",
                f"is 'luma', which weighs red, green and blue, but the image has {channels} channels",
                'Use weights="mean"',
            )
        weights = LUMA if layer.weights == "luma" else (1 / channels,) * channels
        return GrayscaleOp(layer=self.index, input_shape=self.shape, output_shape=(height, width, 1), weights=weights)

    def conv2d(self, layer: spec.Conv2D) -> Operation:
        height, width, channels = self.image_shape(layer)
        kernel, strides, dilation = pair(layer.kernel_size), pair(layer.strides), pair(layer.dilation)
        padding, output = self.windows(layer, "kernel_size", (height, width), kernel, strides, dilation)
        area = kernel[0] * kernel[1]
        kernel_name, bias_name = self.add_parameters(
            layer, (*kernel, channels, layer.filters), area * channels, area * layer.filters
        )
        return Conv2DOp(
            layer=self.index,
            input_shape=self.shape,
            output_shape=(*output, layer.filters),
            kernel=kernel_name,
            bias=bias_name,
            filters=layer.filters,
            kernel_size=kernel,
            strides=strides,
            padding=padding,
            dilation=dilation,
        )

    def pool(self, layer: spec.MaxPool2D | spec.AvgPool2D) -> Operation:
        height, width, channels = self.image_shape(layer)
        pool_size = pair(layer.pool_size)
        strides = pool_size if layer.strides is None else pair(layer.strides)
        padding, output = self.windows(layer, "pool_size", (height, width), pool_size, strides, (1, 1))
        for axis, (size, (before, _)) in enumerate(zip((height, width), padding, strict=True)):
            first_is_empty = before >= pool_size[axis]
            last_is_empty = (output[axis] - 1) * strides[axis] >= before + size
            if (first_is_empty or last_is_empty) and self.sized:
                self.complain_of_shape(
                    "padding",
                    f"is {layer.padding!r}, so that some windows of {times(pool_size)} hold nothing but padding",
                    f"Use at most {pool_size[axis] - 1} pixels before and after",
                )
                break
        operation = MaxPool2DOp if isinstance(layer, spec.MaxPool2D) else AvgPool2DOp
        return operation(
            layer=self.index,
            input_shape=self.shape,
            output_shape=(*output, channels),
            pool_size=pool_size,
            strides=strides,
            padding=padding,
        )

    def dense(self, layer: spec.Dense) -> Operation:
        if len(self.shape) != 1:
            features = math.prod(self.shape)
            self.complain_of_shape(
                "",
                f"is Dense, which takes one row of features, but gets an image of {times(self.shape)}",
                f"Put Flatten() before it, which makes {features} features",
            )
            self.shape = (features,)
        features, self.certain = self.shape[0], True
        kernel, bias = self.add_parameters(layer, (features, layer.units), features, layer.units)
        return DenseOp(
            layer=self.index,
            input_shape=self.shape,
            output_shape=(layer.units,),
            kernel=kernel,
            bias=bias,
            units=layer.units,
        )

    def softmax(self) -> Operation:
        last = len(self.model.layers) - 1
        if self.index != last:
            self.complain(
                "",
                "is Softmax, which stands only at the end of a model",
                f"Move it behind layers[{last}], or remove it",
            )
        if len(self.shape) != 1:
            self.complain_of_shape(
                "",
                f"is Softmax, which takes one score for each class, but gets an image of {times(self.shape)}",
                "Put Flatten() and Dense(units=<number of classes>) before it",
            )
            self.shape = (math.prod(self.shape),)
        return SoftmaxOp(layer=self.index, input_shape=self.shape, output_shape=self.shape)

    def add_parameters(
        self, layer: spec.Conv2D | spec.Dense, shape: Shape, fan_in: int, fan_out: int
    ) -> tuple[str, str | None]:
        kernel = f"{self.index}.kernel"
        self.parameters.append(ParameterSpec(kernel, shape, layer.kernel_initializer, fan_in, fan_out, self.index))
        if not layer.use_bias:
            return kernel, None
        bias = f"{self.index}.bias"
        self.parameters.append(ParameterSpec(bias, shape[-1:], "zeros", fan_in, fan_out, self.index))
        return kernel, bias

    def windows(
        self,
        layer: spec.Conv2D | spec.MaxPool2D | spec.AvgPool2D,
        field_name: str,
        image: Pair,
        kernel: Pair,
        strides: Pair,
        dilation: Pair,
    ) -> tuple[PaddingPair, Pair]:
        """Explicit padding and the number of windows along height and width."""
        padding, output, fits = [], [], True
        for axis in (0, 1):
            window = dilation[axis] * (kernel[axis] - 1) + 1
            before, after = _padding(layer.padding, axis, image[axis], window, strides[axis])
            room = image[axis] + before + after - window
            fits &= room >= 0
            if room < 0 and self.sized:
                self.complain_of_size(layer, field_name, axis, image, window, (before, after), strides[axis])
            padding.append((before, after))
            output.append(max(room, 0) // strides[axis] + 1)
        self.sized &= fits
        return (padding[0], padding[1]), (output[0], output[1])

    def complain_of_size(
        self,
        layer: spec.Conv2D | spec.MaxPool2D | spec.AvgPool2D,
        field_name: str,
        axis: int,
        image: Pair,
        window: int,
        padding: Pair,
        stride: int,
    ) -> None:
        side = ("height", "width")[axis]
        kernel = pair(getattr(layer, field_name))[axis]
        room = image[axis] + sum(padding)
        dilation = (window - 1) // (kernel - 1)  # a window of one pixel always fits, so kernel is at least 2
        largest = (room - 1) // dilation + 1
        reach = f"({dilation} * ({kernel} - 1) + 1)" if dilation > 1 else f"{kernel}"
        self.complain_of_shape(
            field_name,
            f"is {getattr(layer, field_name)}, which does not fit the {times(image)} input: output {side} = "
            f"floor(({image[axis]} + {padding[0]} + {padding[1]} - {reach}) / {stride}) + 1 is less than 1",
            f'Use {field_name} of at most {largest} along the {side}, or padding="same"',
        )

    def check_class_names(self) -> None:
        names = self.model.class_names
        if names is None or not self.operations:
            return
        outputs = self.shape[-1]
        if self.certain and len(names) != outputs:
            fix = f"Give {outputs} names, or make the last Dense layer {len(names)} units wide"
            message = f"has {len(names)} names, but the model has {outputs} outputs"
            self.problems.append(Problem("class_names", message, fix))


def _padding(padding: object, axis: int, size: int, window: int, stride: int) -> Pair:
    if padding == "valid":
        return 0, 0
    if padding == "same":
        total = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
        return total // 2, total - total // 2
    before, after = padding[axis]  # type: ignore[index] # a model holds nothing else
    return before, after
