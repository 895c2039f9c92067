"""A file of ONNX as plain data: nodes, numbers and metadata, each checked before anything is made of it.

ONNX is an encoding of Protocol Buffers, so the package onnx parses it; nothing here runs a node, follows a name to another
file, or makes an array that is larger than what the file holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.errors import CheckpointError, Problem
from cnnkit.exchange.to_onnx import LARGEST, require_onnx

OLDEST: Final = 7
"""The first opset whose arithmetic broadcasts as NumPy's does."""
NEWEST: Final = 28
"""The last opset whose operators have been looked at. A later one may give a name another meaning."""

MOST_NODES: Final = 20_000
"""Nodes that are read at most: far more than any model of ours needs."""

MOST_AXES: Final = 8
"""Axes of an array that are read at most. NumPy gives up at 64."""

FLOAT: Final = 1
UINT8: Final = 2

_TYPES: Final = {
    1: ("FLOAT", "<f4", "float_data"),
    2: ("UINT8", "<u1", "int32_data"),
    6: ("INT32", "<i4", "int32_data"),
    7: ("INT64", "<i8", "int64_data"),
    9: ("BOOL", "<u1", "int32_data"),
    11: ("DOUBLE", "<f8", "double_data"),
}
"""The types of numbers that are read: ONNX's name, NumPy's, and the field that holds them where they are not raw."""

_NAMES: Final = {
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    8: "STRING",
    10: "FLOAT16",
    12: "UINT32",
    13: "UINT64",
    14: "COMPLEX64",
    15: "COMPLEX128",
    16: "BFLOAT16",
}
_EXTERNAL: Final = 1

Numbers = NDArray[Any]


class Unreadable(Exception):
    """What is wrong, and what to do: the parts of a `Problem` whose place the catcher knows."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message, self.fix = message, fix


@dataclass(frozen=True)
class Node:
    """An operator at its place in the graph. An input that is left out is the name ""."""

    index: int
    operator: str
    name: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def place(self) -> str:
        """How messages call the node."""
        return f"node[{self.index}] ({short(self.operator)}" + (f" '{short(self.name)}')" if self.name else ")")


@dataclass(frozen=True)
class Value:
    """An input or output of the graph: its type, and its sizes, None where the file leaves one open."""

    name: str
    type: int
    sizes: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Graph:
    """What a file holds. `tensors` are still as parsed: `numbers` makes an array of one."""

    path: Path
    name: str
    opset: int
    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    tensors: dict[str, Any]
    functions: frozenset[tuple[str, str]]
    """Domain and name of the functions that the file defines itself."""
    metadata: dict[str, str]
    size: int
    """Bytes of the file."""
    problems: tuple[Problem, ...]

    def damage(self, what: str) -> CheckpointError:
        """The error that says what is wrong with the file."""
        return damage(self.path, what)


def damage(path: Path, what: str) -> CheckpointError:
    """The error that says what is wrong with the file at `path`."""
    return CheckpointError(f"{path} cannot be imported: {what}. Export the model again.")


def read_graph(path: Path) -> Graph:
    """The graph in the file `path`, which must be the whole of it: weights in other files are not followed.

    Raises `CheckpointError` for a file that is missing, damaged or no file of ONNX; what else is wrong with the graph as a
    whole is in its `problems`.
    """
    onnx = require_onnx()
    data = _bytes(path)
    decode_error = import_module("google.protobuf.message").DecodeError  # onnx brings it

    try:
        proto = onnx.ModelProto.FromString(data)
        return _graph(path, proto, len(data))
    except decode_error as error:
        raise damage(path, f"it is no file of ONNX, or damaged ({short(str(error))})") from error
    except UnicodeDecodeError as error:
        raise damage(path, "it is damaged: a name in it is no text") from error


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            what = "it is a folder" if path.is_dir() else "there is no such file"
            raise CheckpointError(f"cannot read {path}: {what}. Give a file of ONNX.")
        if path.stat().st_size > LARGEST:
            raise damage(path, f"it is larger than {LARGEST:,} bytes, which no file of ONNX is")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror or error}. Check the file and its permissions."
        ) from error


def _graph(path: Path, proto: Any, size: int) -> Graph:
    if not proto.HasField("graph") or not proto.opset_import:
        raise damage(path, "it is no file of ONNX: it has no graph, or does not say of which opset")
    graph = proto.graph
    if len(graph.node) > MOST_NODES:
        raise damage(path, f"it has {len(graph.node):,} nodes, more than any model of cnnkit's layers needs")
    tensors = _by_name(path, graph.initializer)
    nodes = tuple(_node(path, index, node) for index, node in enumerate(graph.node))
    inputs = tuple(_value(value) for value in graph.input if _text(value.name) not in tensors)
    problems = []
    opset = max((entry.version for entry in proto.opset_import if _standard(entry.domain) == ""), default=0)
    if not OLDEST <= opset <= NEWEST:
        message = f"is version {opset}; cnnkit knows the operators of versions {OLDEST} to {NEWEST}"
        problems.append(Problem("opset", message, "Export the model with opset_version=20"))
    if len(graph.output) != 1:
        message = f"are {_listed(_text(value.name) for value in graph.output)}; a model of cnnkit has one"
        problems.append(Problem("outputs", message, "Export the model with one output"))
    if graph.sparse_initializer:
        message = "keeps numbers as sparse tensors, which cnnkit does not read"
        problems.append(Problem("graph", message, "Export the model with dense ones"))
    return Graph(
        path=path,
        name=short(_text(graph.name)),
        opset=opset,
        nodes=nodes,
        inputs=inputs,
        outputs=tuple(_value(value) for value in graph.output),
        tensors=tensors,
        functions=frozenset((_standard(function.domain), _text(function.name)) for function in proto.functions),
        metadata={_text(entry.key): _text(entry.value) for entry in proto.metadata_props},
        size=size,
        problems=tuple(problems),
    )


def _by_name(path: Path, tensors: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tensor in tensors:
        name = _text(tensor.name)
        if name in found or not name:
            raise damage(path, f"it has two arrays called '{short(name)}', or one without a name")
        found[name] = tensor
    return found


def _value(value: Any) -> Value:
    tensor = value.type.tensor_type
    sizes = None
    if value.type.HasField("tensor_type") and tensor.HasField("shape"):
        sizes = tuple(
            size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None for size in tensor.shape.dim
        )
    return Value(_text(value.name), tensor.elem_type, sizes)


def _node(path: Path, index: int, node: Any) -> Node:
    attributes: dict[str, Any] = {}
    made = Node(
        index=index,
        operator=_text(node.op_type),
        name=_text(node.name),
        domain=_standard(node.domain),
        inputs=tuple(map(_text, node.input)),
        outputs=tuple(map(_text, node.output)),
        attributes=attributes,
    )
    for attribute in node.attribute:
        name = _text(attribute.name)
        if name in attributes:
            raise damage(path, f"{made.place} has {short(name)} twice")
        attributes[name] = _attribute(attribute)
    return made


def _attribute(attribute: Any) -> Any:
    """A number, text, array as parsed, or tuple of numbers; None for what no operator that is read has."""
    match attribute.type:
        case 1:
            return attribute.f
        case 2:
            return attribute.i
        case 3:
            return attribute.s.decode("utf-8")
        case 4:
            return attribute.t
        case 6:
            return tuple(attribute.floats)
        case 7:
            return tuple(attribute.ints)
        case _:  # a graph, texts, types
            return None


def numbers(tensor: Any) -> Numbers:
    """The array that a tensor holds, read-only, in the type that it has. Raises `Unreadable`."""
    name = f"array '{short(tensor.name)}'"
    again = "Export the model again"
    if tensor.data_location == _EXTERNAL or tensor.external_data:
        fix = "Write one file: onnx.save(onnx.load(path), path), or torch.onnx.export(..., external_data=False)"
        raise Unreadable(f"has its {name} in another file, and cnnkit follows no name out of the file", fix)
    if tensor.data_type not in _TYPES:
        what = _NAMES.get(tensor.data_type, f"of type {tensor.data_type}")
        raise Unreadable(f"has its {name} as {what}; cnnkit reads models in FLOAT", "Export the model in float32")
    _, dtype, field = _TYPES[tensor.data_type]
    sizes = tuple(tensor.dims)
    if len(sizes) > MOST_AXES or any(size < 0 for size in sizes):
        raise Unreadable(f"has its {name} of the shape {short(str(list(sizes)))}, which no array has", again)
    count, held = math.prod(sizes), np.dtype(dtype)
    with _reporting(name):
        typed = getattr(tensor, field)
        if tensor.HasField("raw_data"):
            found, there = len(tensor.raw_data) / held.itemsize, len(typed)
            if found == count and there == 0:
                return np.frombuffer(tensor.raw_data, held).reshape(sizes)
        else:
            found = len(typed)
            if found == count:
                array = np.array(typed, np.float64 if held.kind == "f" else np.int64)
                return array.astype(held).reshape(sizes)
    message = (
        f"has its {name} of the shape {short(str(list(sizes)))}, which is {count:,} numbers, and holds {found:,.9g}"
    )
    raise Unreadable(message, again)


@contextmanager
def _reporting(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OverflowError) as error:  # sizes whose product NumPy cannot count
        raise Unreadable(f"has its {name} damaged ({short(str(error))})", "Export the model again") from error


def _text(name: str | bytes) -> str:
    """A name. Protocol Buffers give the bytes of one that is no text, and decoding raises the error for them."""
    return name if isinstance(name, str) else name.decode("utf-8")


def _standard(domain: str | bytes) -> str:
    return "" if domain == "ai.onnx" else _text(domain)


def _listed(names: Iterable[str]) -> str:
    listed = [f"'{short(name)}'" for name in names]
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "") if listed else "none"


def short(text: str | bytes) -> str:
    """A name in the file, as far as a message should show it."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    shown = "".join(letter for letter in text[:200] if letter.isprintable())
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
