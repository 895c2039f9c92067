"""The model in a file of ONNX, and its parameters. What the graph says counts, and nothing in the file is run.

The metadata of a file that cnnkit wrote hold the model as it was, with what a graph has no place for: names of classes,
initialisers, Dropout, Grayscale. They are taken where the graph computes the same, operation by operation. Where it does
not, since somebody has changed it, the model is that of the graph alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from cnnkit.arrays import Array, Parameters
from cnnkit.errors import ModelError, Problem
from cnnkit.exchange.onnx_graph import FLOAT, UINT8, Graph, Value, read_graph, short
from cnnkit.exchange.onnx_layers import OPERATORS
from cnnkit.exchange.onnx_walk import CHANNELS_FIRST, CHANNELS_LAST, FEATURES, GREY, Stream, Walk, needed
from cnnkit.exchange.to_keras import grayscale_kernel
from cnnkit.exchange.to_onnx import CLASSES_KEY, MODEL_KEY
from cnnkit.model import Model
from cnnkit.plan import (
    AvgPool2DOp,
    Conv2DOp,
    DenseOp,
    DropoutOp,
    FlattenOp,
    GrayscaleOp,
    MaxPool2DOp,
    Operation,
    Plan,
    RescaleOp,
)

_GENERIC: Final = frozenset({"", "cnnkit", "graph", "main", "main_graph", "torch-jit-export", "torch_jit"})
"""Names of graphs that say nothing of the model."""
_LONGEST: Final = 16 << 20
"""Letters of metadata that are read at most."""


def read_onnx(path: Path) -> tuple[Model, dict[str, Array]]:
    """The model in the file at `path`, and its parameters in float32.

    Images are always `(batch, height, width, channels)` for the model that comes back, also where those of the graph have
    their channels first.

    Raises:
        ModelError: The graph has what cnnkit has no layer for; `.problems` names every such node.
        CheckpointError: The file is missing, damaged or no file of ONNX.
        MissingDependency: The package onnx is not installed.
    """
    graph = read_graph(path)
    walk = _walked(graph)
    if walk.problems:
        raise ModelError(walk.problems, str(path))
    source = walk.source
    assert source is not None  # noqa: S101 - a walk without one has problems
    try:
        model = Model(input_shape=source.shape, layers=walk.layers, name=None if graph.name in _GENERIC else graph.name)
        plan = model.plan()
    except ModelError as error:
        raise ModelError([_placed(problem, walk) for problem in error.problems], str(path)) from None
    parameters = _parameters(plan, walk)
    if MODEL_KEY in graph.metadata:
        return _as_written(graph.metadata[MODEL_KEY], plan, parameters)
    names = _json(graph.metadata.get(CLASSES_KEY, "null"))
    return _with_class_names(model, names), parameters


def _walked(graph: Graph) -> Walk:
    """The walk along the nodes for the axes that the input has: the first that no operator contradicts."""
    _, names = needed(graph)
    sources = [value for value in graph.inputs if value.name in names]
    problems = list(graph.problems)
    if len(sources) != 1:
        listed = ", ".join(f"'{short(value.name)}'" for value in sources[:6]) or "none"
        problems.append(
            Problem("inputs", f"are {listed}; a model of cnnkit has one", "Export the model with one input")
        )
    ways: list[Stream | None] = []
    for value in sources:
        found = _ways(value)
        problems += [found] if isinstance(found, Problem) else []
        ways += [] if isinstance(found, Problem) else found
    if MODEL_KEY in graph.metadata:  # we write channels last, also where no operator tells
        ways.sort(key=lambda way: way is not None and way.axes == CHANNELS_FIRST)
    batch = sources[0].sizes[0] if sources and sources[0].sizes else None
    walks = []
    for source in [None] if problems else ways:
        walk = Walk(graph, OPERATORS, source, batch, problems=list(problems))
        walk.run()
        walks.append(walk)
        if not walk.mislaid:
            return walk
    return walks[0]


def _ways(value: Value) -> list[Stream | None] | Problem:
    """How the input may lie, the likeliest first: a picture has 1, 3 or 4 channels and is larger than that."""
    place = f"input '{short(value.name)}'"
    if value.type not in (FLOAT, UINT8):
        return Problem(place, "is neither FLOAT nor UINT8, which cnnkit's images are", "Export the model in float32")
    sizes = None if value.sizes is None else value.sizes[1:]
    if sizes is None or not 1 <= len(sizes) <= 3 or None in sizes:
        shown = "not known" if value.sizes is None else short(str([size or "?" for size in value.sizes]))
        message = f"has the shape {shown}; cnnkit needs all sizes but the batch's, for images or features"
        return Problem(place, message, "Export the model with a fixed height, width and channels")
    known = tuple(size for size in sizes if size is not None)
    if len(known) == 1:
        return [Stream(FEATURES, known, value.type)]
    if len(known) == 2:
        return [Stream(GREY, (*known, 1), value.type)]
    first = Stream(CHANNELS_FIRST, (known[1], known[2], known[0]), value.type)
    last = Stream(CHANNELS_LAST, known, value.type)
    return [last, first] if known[2] <= 4 < known[0] else [first, last]


def _placed(problem: Problem, walk: Walk) -> Problem:
    """A problem of our model, at the node that the layer comes from."""
    found = re.match(r"layers\[(\d+)\]\.?(.*)", problem.path)
    if not found:
        return problem
    return replace(problem, path=f"{walk.places[int(found[1])]} {found[2]}".rstrip())


def _parameters(plan: Plan, walk: Walk) -> dict[str, Array]:
    """Arrays of their own, float32 in C order, in the order of the plan."""
    found = {}
    for spec in plan.parameters:
        array = walk.arrays[spec.layer][spec.name.rpartition(".")[2]]
        with np.errstate(over="ignore"):  # what folding has made too large is infinite, as it would be when computed
            found[spec.name] = np.array(array, np.float32, order="C")
    return found


# ------------------------------------------------------------------------------------------------- names and settings


def _as_written(text: str, plan: Plan, parameters: dict[str, Array]) -> tuple[Model, dict[str, Array]]:
    """The model that the metadata hold, if it computes what the graph does; and else the graph's."""
    try:
        written = Model.from_dict(_json(text)).plan()
    except (ModelError, RecursionError):
        return plan.model, parameters
    ours, theirs = list(_computing(written)), list(_computing(plan))
    if written.input_shape != plan.input_shape or len(ours) != len(theirs):
        return plan.model, parameters
    arrays = []
    for mine, graphs in zip(ours, theirs, strict=True):
        if isinstance(mine, GrayscaleOp) and isinstance(graphs, Conv2DOp):
            if not _weighs_channels(graphs, mine, parameters):
                return plan.model, parameters
        elif _facts(mine) != _facts(graphs):
            return plan.model, parameters
        else:
            arrays += [parameters[name] for name in _names(graphs)]
    return written.model, dict(zip((spec.name for spec in written.parameters), arrays, strict=True))


def _computing(plan: Plan) -> Iterator[Operation]:
    """The operations that change numbers or order in a prediction."""
    for op in plan.operations:
        if not isinstance(op, DropoutOp) and not (isinstance(op, FlattenOp) and len(op.input_shape) == 1):
            yield op


def _weighs_channels(op: Conv2DOp, grayscale: GrayscaleOp, parameters: Parameters) -> bool:
    """Whether a convolution is the one that `grayscale` becomes in a graph."""
    plain = (op.kernel_size, op.strides, op.padding, op.filters) == ((1, 1), (1, 1), ((0, 0), (0, 0)), 1)
    return plain and op.bias is None and np.array_equal(parameters[op.kernel], grayscale_kernel(grayscale.weights))


def _names(op: Operation) -> list[str]:
    """The names of the parameters of an operation."""
    return [name for name in (op.kernel, op.bias) if name is not None] if isinstance(op, (Conv2DOp, DenseOp)) else []


def _facts(op: Operation) -> Any:
    """What an operation computes: not where it stands, and numbers as a graph holds them."""
    facts: dict[str, Any] = {"kind": type(op), **asdict(op)}
    del facts["layer"]
    match op:
        case RescaleOp():
            with np.errstate(over="ignore"):
                facts |= {"scale": np.float32(op.scale), "offset": np.float32(op.offset)}
        case Conv2DOp() | DenseOp():
            facts |= {"kernel": True, "bias": op.bias is not None}
        case MaxPool2DOp() | AvgPool2DOp():
            facts["padding"] = [
                (
                    before,
                    (op.output_shape[axis] - 1) * op.strides[axis] + op.pool_size[axis] - op.input_shape[axis] - before,
                )
                for axis, (before, _) in enumerate(op.padding)
            ]  # pixels behind the last window are in no window, and an exporter may leave them out
    return facts


def _with_class_names(model: Model, names: Any) -> Model:
    """The model with the names, if they are names of its classes."""
    try:
        named = Model(**{**dict(model), "class_names": names})
        named.plan()
    except ModelError:
        return model
    return named


def _json(text: str) -> Any:
    """What the metadata hold under a key; None for what is no JSON."""
    try:
        return json.loads(text[:_LONGEST])
    except (ValueError, RecursionError):
        return None
