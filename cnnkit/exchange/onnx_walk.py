"""Along the nodes of a graph of ONNX, one row of them from the input to the output, while layers are put in a row.

ONNX's images are `(batch, channels, height, width)` where an operator tells these apart, and anything elsewhere. So the
axes of what goes through the graph have names, which begin at the input and which a Transpose moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np

from cnnkit.arrays import Shape
from cnnkit.errors import ModelError, Problem
from cnnkit.exchange.onnx_constants import BATCH, FOLDED, constant, fold, part_of_shape, whole_numbers
from cnnkit.exchange.onnx_graph import FLOAT, Graph, Node, Numbers, Unreadable, numbers, short
from cnnkit.model import Layer, Model

CHANNELS_FIRST: Final = ("channels", "height", "width")
CHANNELS_LAST: Final = ("height", "width", "channels")
GREY: Final = ("height", "width")
"""An image without an axis for its one channel."""
FEATURES: Final = ("features",)

Axes: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Stream:
    """What goes through the graph at one place, behind its batch axis.

    Args:
        axes: Their names, in the order of the graph.
        shape: The sizes in cnnkit's order: (height, width, channels), or (features,).
        order: Of features that were an image: its axes and their sizes in the order of the graph, unless it is cnnkit's.
        type: ONNX's number for the type.
        step: How many nodes it went through.
    """

    axes: Axes
    shape: Shape
    type: int
    order: tuple[tuple[str, int], ...] | None = None
    step: int = 0

    def size(self, axis: str) -> int:
        """The size of the axis of that name."""
        return self.shape[CHANNELS_LAST.index(axis)] if len(self.shape) == 3 else self.shape[0]

    @property
    def sizes(self) -> Shape:
        """The sizes in the order of the graph."""
        return tuple(self.size(axis) for axis in self.axes)


class _Lost:
    """What comes out of a node that was complained of, and the shape of that. Nothing more is said about it."""


_IMAGES, _SHAPE = _Lost(), _Lost()


class _Skipped(Exception):
    """A node whose input is lost: nothing can be said of it."""


@dataclass
class Walk:
    """Goes along the nodes. `source` is what goes in, None where that is not known."""

    graph: Graph
    operators: Mapping[str, Operator]
    source: Stream | None
    batch: int | None
    """The number of images, where the file fixes it."""
    layers: list[Layer] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """For each layer the node that it comes from."""
    arrays: dict[int, dict[str, Numbers]] = field(default_factory=dict)
    """By layer its `kernel` and, where it has one, its `bias`."""
    problems: list[Problem] = field(default_factory=list)
    mislaid: bool = False
    """Whether an operator found other axes than it knows, so that the input's may have other names."""
    values: dict[str, Any] = field(default_factory=dict)
    """What each name stands for: an array, a Stream, or what is lost."""

    def run(self) -> None:
        """Read all nodes that the output needs; what is wrong is in `problems` afterwards."""
        self.step = 0
        self.made = 0
        self.padding: tuple[dict[str, tuple[int, int]], Node] | None = None
        self.rescaled: tuple[int, str] = (-1, "")
        for value in self.graph.inputs:
            if value.name in self.values:
                raise self.graph.damage(f"it has two inputs called '{short(value.name)}'")
            self.values[value.name] = _IMAGES if self.source is None else self.source
        nodes, self.needed = needed(self.graph)
        for node in nodes:
            self.visit(node)
        found = self.value(self.graph.outputs[0].name, "the end of the graph") if self.graph.outputs else _IMAGES
        if isinstance(found, Stream):
            self.end(found)
        elif not isinstance(found, _Lost):
            self.complain("outputs", "are numbers that do not depend on the input", "Export the model again")

    def complain(self, place: str, message: str, fix: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(place, message, fix))

    def end(self, found: Stream) -> None:
        """Complain of what cannot be the output."""
        if found.step != self.step:
            message = f"are '{short(self.graph.outputs[0].name)}', from which further layers go on without an end"
            self.complain("outputs", message, "Export the model with the last layer as its output")
        if self.padding is not None:
            self.complain(self.padding[1].place, "stands before the end of the graph", PAD_FIX)
        try:
            require_our_order(found)
        except Unreadable as why:
            self.complain("outputs", why.message, why.fix)

    # ----------------------------------------------------------------------------------------------------- each node

    def visit(self, node: Node) -> None:
        """Read one node, and give its output its value."""
        for name in node.outputs:
            if name in self.values or name in self.graph.tensors:
                raise self.graph.damage(f"{node.place} gives '{short(name)}', which is there already")
        inputs = [self.value(name, node.place) if name else None for name in node.inputs]
        try:
            self.check(node)
            result = self.result(node, inputs)
        except Unreadable as why:
            self.complain(node.place, why.message, why.fix)
            result = _IMAGES
        except ModelError as error:  # one of our classes does not take a value, or the layer does not fit
            for one in error.problems:
                path = one.path.removeprefix("layers[0]").removeprefix(".")
                self.problems.append(replace(one, path=f"{node.place} {path}".rstrip()))
            result = _IMAGES
        except _Skipped:
            result = _IMAGES
        for name in node.outputs[:1]:
            self.values[name] = result
        for name in node.outputs[1:]:
            self.values[name] = _IMAGES
            if name in self.needed and name:
                self.complain(node.place, f"has its output '{short(name)}' used", "Export the model without that")

    def value(self, name: str, place: str) -> Any:
        """What a name stands for. An array of the file is made when it is first needed."""
        if name not in self.values:
            if name not in self.graph.tensors:
                raise self.graph.damage(f"{place} needs '{short(name)}', which no node before it gives")
            try:
                self.values[name] = numbers(self.graph.tensors[name])
            except Unreadable as why:
                self.complain(place, why.message, why.fix)
                self.values[name] = _SHAPE
        return self.values[name]

    def check(self, node: Node) -> None:
        """Refuse an operator, or an attribute of it, that is not in the table below."""
        if node.domain:
            message = f"is an operator of '{short(node.domain)}', which cnnkit does not know"
            raise Unreadable(message, "Export the model with ONNX's own operators, and do not optimise the file")
        if ("", node.operator) in self.graph.functions:
            message = "is a function that the file defines itself, and cnnkit reads ONNX's own operators"
            raise Unreadable(message, "Inline it: onnx.inliner.inline_local_functions(model)")
        if node.operator not in self.operators:
            raise Unreadable("has no layer in cnnkit", hint(node.operator))
        if not node.outputs:
            raise self.graph.damage(f"{node.place} has no output")
        if node.operator != "Constant":
            unknown = [
                short(name) for name in sorted(node.attributes) if name not in self.operators[node.operator].attributes
            ]
            if unknown:
                message = f"has the attribute {unknown[0]}, and cnnkit cannot tell what it does"
                raise Unreadable(message, "Export the model without it, or upgrade cnnkit")

    def result(self, node: Node, inputs: list[Any]) -> Any:
        """What comes out of a node that is in the table: an array, a Stream, or what is lost."""
        if node.operator == "Constant":
            return constant(node)
        if not any(isinstance(value, (Stream, _Lost)) for value in inputs) and node.operator in FOLDED:
            return fold(node, self.graph.opset, inputs)
        if node.operator == "Shape":
            return self.shape_of(node, inputs)
        if any(value is _SHAPE for value in inputs):
            if node.operator in FOLDED and not any(isinstance(value, Stream) or value is _IMAGES for value in inputs):
                return _SHAPE
            raise _Skipped
        return self.layer(node, inputs)

    def shape_of(self, node: Node, inputs: list[Any]) -> Any:
        """What comes out of a Shape of images."""
        if not isinstance(inputs[0], Stream):
            return _SHAPE
        sizes = np.array([BATCH, *inputs[0].sizes], object)
        return part_of_shape(node, sizes)

    def layer(self, node: Node, inputs: list[Any]) -> Any:
        """What comes out of an operator on images or features."""
        streams = [value for value in inputs if isinstance(value, Stream) or value is _IMAGES]
        if len(streams) > 1:
            raise Unreadable(
                "joins two paths, and cnnkit's layers stand in one row", "Build the model without branches"
            )
        read = self.operators[node.operator].read
        if not streams and inputs and node.operator not in FOLDED:
            raise Unreadable("does not depend on the input of the graph", "Export the model again")
        if read is None or not streams:
            raise Unreadable("is read where it works on shapes, and not on images", "Build the model without it")
        stream = streams[0]
        if isinstance(stream, _Lost):
            raise _Skipped
        if stream.step != self.step:
            message = "is a second path: another node has gone on from the same place"
            raise Unreadable(message, "Build the model without branches")
        if self.padding is not None and node.operator not in ("Conv", "Identity", "Transpose"):
            pad = self.padding[1]
            self.padding = None
            self.complain(pad.place, f"stands before {node.place}", PAD_FIX)
        if stream.type != FLOAT and node.operator not in ("Cast", "Identity", "Transpose"):
            raise Unreadable("computes in UINT8; cnnkit's layers compute in FLOAT", "Put a Cast to FLOAT before it")
        self.step += 1
        made = read(Call(self, node, inputs, stream))
        return replace(made, step=self.step)


def needed(graph: Graph) -> tuple[list[Node], set[str]]:
    """The nodes that the output needs, in their order, and all names that these nodes and the output need."""
    names = {value.name for value in graph.outputs}
    nodes = []
    for node in reversed(graph.nodes):
        if any(name in names for name in node.outputs if name):
            names.update(node.inputs)
            nodes.append(node)
    return nodes[::-1], names


@dataclass(frozen=True)
class Operator:
    """How an operator on images is read, None where it is one on shapes alone; and the attributes that it may have."""

    read: Callable[[Call], Stream] | None
    attributes: tuple[str, ...] = ()


# -------------------------------------------------------------------------------------------- an operator and what goes in


@dataclass(frozen=True)
class Call:
    """An operator on a stream."""

    walk: Walk
    node: Node
    inputs: list[Any]
    stream: Stream

    @property
    def comes_first(self) -> bool:
        """Whether the stream is the first input."""
        return self.inputs[0] is self.stream

    def attribute(self, name: str, default: Any) -> Any:
        """The attribute, which has the type of its default."""
        value = self.node.attributes.get(name, default)
        if type(value) is not type(default) or (
            isinstance(value, tuple) and not all(isinstance(one, int) for one in value)
        ):
            raise Unreadable(f"has a {name} of another type than ONNX says", "Export the model again")
        return value

    def pair(self, name: str, default: tuple[int, ...] = (1, 1)) -> tuple[int, int]:
        """An attribute of two numbers, for height and width."""
        found = self.attribute(name, default)
        if len(found) != 2:
            message = f"has {short(str(list(found)))} for {name}; cnnkit's images have a height and a width"
            raise Unreadable(message, "Build the model with layers of two axes, such as Conv2d")
        return found[0], found[1]

    def must_be(self, name: str, default: int, *allowed: int) -> None:
        """Refuse an attribute that is not one of `allowed`."""
        value = self.attribute(name, default)
        if value not in allowed:
            message = f"has {name} = {value}; cnnkit has only {' and '.join(map(str, allowed))}"
            raise Unreadable(message, f"Build the layer with {name} = {allowed[0]}")

    def array(self, number: int, what: str) -> Numbers | None:
        """The constant that goes in at that place, in float32; None where it is left out."""
        value = self.inputs[number] if number < len(self.inputs) else None
        if value is None:
            return None
        if not isinstance(value, np.ndarray):
            raise Unreadable(
                f"takes its {what} from the images, and cnnkit's are learned numbers", "Use a layer that learns"
            )
        if value.dtype != np.float32:
            raise Unreadable(f"has a {what} of {value.dtype}; cnnkit reads models in float32", "Export it in float32")
        return value

    def required(self, number: int, what: str) -> Numbers:
        """The constant that goes in at that place, in float32."""
        array = self.array(number, what)
        if array is None:
            raise Unreadable(f"has no {what}", "Export the model again")
        return array

    def listed(self, name: str, since: int) -> tuple[int, ...] | None:
        """Whole numbers, an attribute before opset `since` and the second input from it on; None where left out."""
        found: Any = whole_numbers(self.node, self.walk.graph.opset, self.inputs, name, since)
        return found if isinstance(found, tuple) else None

    def axis(self, number: int) -> str:
        """The name of the axis of that number, which may count from the end."""
        names = ("batch", *self.stream.axes)
        if not -len(names) <= number < len(names):
            raise Unreadable(f"has axis {number}, and {len(names)} axes go in", "Export the model again")
        return names[number]

    def image(self) -> tuple[int, int, int]:
        """The shape of the image that goes in, whose axes lie as Conv and the pools have them."""
        stream = self.stream
        if len(stream.shape) != 3 or len(stream.axes) != 3:
            lie = ", ".join(("batch", *stream.axes))
            raise Unreadable(
                f"takes images with channels, and gets ({lie})", "Build the model of Conv2d before Flatten"
            )
        if stream.axes != CHANNELS_FIRST:
            self.walk.mislaid = True
            message = f"takes (batch, channels, height, width), and gets (batch, {', '.join(stream.axes)})"
            raise Unreadable(message, "Export the model with a Transpose before it")
        return stream.shape[0], stream.shape[1], stream.shape[2]

    def add(self, layer: Layer, **arrays: Numbers) -> Shape:
        """Put the layer behind the others, and return the shape of what comes out."""
        walk = self.walk
        shape = Model(input_shape=self.stream.shape, layers=[layer]).plan().output_shape
        for array in arrays.values():
            count(walk, array)
        if arrays:
            walk.arrays[len(walk.layers)] = arrays
        walk.layers.append(layer)
        walk.places.append(self.node.place)
        return shape


def count(walk: Walk, array: Numbers) -> None:
    """Count what is made of the arrays in the file, so that a small file never fills the memory."""
    walk.made += 4 * array.size
    if walk.made > (64 << 20) + 8 * walk.graph.size:
        raise walk.graph.damage(f"its nodes use its numbers for more than {walk.made:,} bytes of parameters")


def require_our_order(stream: Stream) -> None:
    """Refuse features of an image that do not lie as cnnkit's."""
    if stream.order is not None:
        lie = ", ".join(name for name, _ in stream.order)
        message = f"are features in the order ({lie}), and cnnkit's are in that of (height, width, channels)"
        raise Unreadable(message, "Put a Gemm behind them, or a Transpose before they are flattened")


PAD_FIX: Final = "Put it right before a Conv"


def hint(operator: str) -> str:
    """What to do about an operator that is not in the table."""
    if operator in ("If", "Loop", "Scan"):
        return "Export the model without control flow, for example as torch.onnx.export(..., dynamo=True) traces it"
    if "Quantize" in operator or operator.startswith("QLinear") or operator.endswith("Integer"):
        return "Export the model in float32, before it is quantised"
    if operator == "LogSoftmax":
        return "Export the model with Softmax there, or without it"
    return "Build the model of operators that docs/how-to/export-and-import.md lists, or leave the node out"
