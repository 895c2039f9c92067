"""Operators of ONNX that move, join or take away axes, and change no number."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cnnkit.arrays import Shape, times
from cnnkit.exchange.onnx_constants import BATCH
from cnnkit.exchange.onnx_graph import FLOAT, Numbers, Unreadable, short
from cnnkit.exchange.onnx_walk import CHANNELS_FIRST, CHANNELS_LAST, FEATURES, GREY, Axes, Call, Stream
from cnnkit.model import Flatten

# ----------------------------------------------------------------------------------------------- where the axes lie


def flattened(call: Call) -> Stream:
    """The stream as features. Their order stays known where it is not cnnkit's."""
    stream = call.stream
    if stream.axes == FEATURES:
        return stream
    order = tuple((axis, stream.size(axis)) for axis in stream.axes)
    names = [axis for axis, size in order if size > 1]
    same = names == sorted(names, key=CHANNELS_LAST.index)
    return Stream(FEATURES, call.add(Flatten()), stream.type, None if same else order)


def flatten(call: Call) -> Stream:
    """`Flatten` of all axes but the batch's."""
    if call.attribute("axis", 1) not in (1, -len(call.stream.axes)):
        raise Unreadable("flattens other axes than all but the batch's", "Build the layer with axis = 1")
    return flattened(call)


def reshape(call: Call) -> Stream:
    """`Reshape` that flattens, or that moves nothing but axes of size 1."""
    stream = call.stream
    sizes = stream.sizes
    target = call.inputs[1] if len(call.inputs) > 1 else None
    if not call.comes_first or not isinstance(target, np.ndarray) or target.ndim != 1:
        raise Unreadable("has a target that is not known before it runs", "Export the model with fixed sizes")
    wanted = _resolved(call, target)
    if len(wanted) == 1 and wanted[0] == math.prod(sizes):
        return flattened(call)
    axes = _same_in_other_place(stream, wanted)
    if axes is None:
        message = f"makes {times(wanted)} of {times(sizes)}; cnnkit reads one that flattens images"
        raise Unreadable(message, "Build the model with Flatten")
    return replace(stream, axes=axes)


def _resolved(call: Call, target: Numbers) -> Shape:
    """The sizes behind the batch axis that a Reshape asks for. Its first one must be the batch's."""
    sizes, wanted = call.stream.sizes, list(target)
    keeps = not call.attribute("allowzero", 0)
    for axis, size in enumerate(wanted):
        if size is not BATCH and size == 0 and keeps and axis <= len(sizes):
            wanted[axis] = BATCH if axis == 0 else sizes[axis - 1]
    first = wanted[0] if wanted else None
    rest = [-2 if size is BATCH else int(size) for size in wanted[1:]]
    free, known = rest.count(-1), math.prod(size for size in rest if size != -1)
    kept = first is BATCH or (first == call.walk.batch and first is not None) or first == -1
    if (
        not kept
        or min(rest, default=-2) < -1
        or free > 1
        or known == 0
        or (free and first is not BATCH and first == -1)
    ):
        shown = short(", ".join(map(str, target[:8])))
        raise Unreadable(f"has the target ({shown}), which mixes the images of a batch", "Build the model with Flatten")
    return tuple(math.prod(sizes) // known if size == -1 else size for size in rest)


def _same_in_other_place(stream: Stream, wanted: Shape) -> Axes | None:
    """The axes of `stream` where only axes of size 1 have moved, come or gone; None where more has changed."""
    long = [axis for axis in stream.axes if stream.size(axis) > 1]
    for axes in (stream.axes, CHANNELS_FIRST, CHANNELS_LAST, GREY):
        if (axes == FEATURES) != (stream.axes == FEATURES) or tuple(map(stream.size, axes)) != wanted:
            continue
        if [axis for axis in axes if stream.size(axis) > 1] == long:
            return axes
    return None


def transpose(call: Call) -> Stream:
    """`Transpose` of all axes but the batch's."""
    stream = call.stream
    count = 1 + len(stream.axes)
    order = call.attribute("perm", tuple(reversed(range(count))))
    if sorted(order) != list(range(count)) or order[0] != 0:
        message = f"puts the axes in the order {short(str(list(order)))}, which moves the batch's"
        raise Unreadable(message, "Build the model without it")
    return replace(stream, axes=tuple(stream.axes[axis - 1] for axis in order[1:]))


def squeeze(call: Call) -> Stream:
    """`Squeeze` of axes of size 1. Channels that are left alone are features."""
    stream = call.stream
    axes = call.listed("axes", 13)
    names = (
        [call.axis(axis) for axis in axes]
        if axes is not None
        else [axis for axis in stream.axes if stream.size(axis) == 1]
    )
    left = tuple(axis for axis in stream.axes if axis not in names)
    if "batch" not in names and all(stream.size(axis) == 1 for axis in names) and stream.axes != FEATURES:
        if left == ("channels",):
            return flattened(call)
        return replace(stream, axes=left)
    raise Unreadable(f"takes {', '.join(names) or 'axes'} away", "Build the model with Flatten")


def unsqueeze(call: Call) -> Stream:
    """`Unsqueeze` that gives grey images their axis of channels."""
    stream = call.stream
    axes = call.listed("axes", 13)
    if stream.axes != GREY or axes is None or len(axes) != 1 or not -4 <= axes[0] < 4 or axes[0] % 4 == 0:
        raise Unreadable("adds an axis that cnnkit's images do not have", "Build the model without it")
    place = axes[0] % 4 - 1
    return replace(stream, axes=(*GREY[:place], "channels", *GREY[place:]))


def cast(call: Call) -> Stream:
    """`Cast` of bytes to float32, or of what is float32 already."""
    if call.attribute("to", 0) not in (FLOAT, call.stream.type):
        raise Unreadable("makes numbers of another type than FLOAT, in which cnnkit computes", "Export it in float32")
    return replace(call.stream, type=call.attribute("to", 0))


def dropout(call: Call) -> Stream:
    """`Dropout`, which does nothing in inference."""
    training = call.inputs[2] if len(call.inputs) > 2 else None
    if training is not None and not (isinstance(training, np.ndarray) and not training.any()):
        raise Unreadable("may be in training mode", "Export the model for inference: model.eval()")
    return call.stream


def identity(call: Call) -> Stream:
    """`Identity`."""
    return call.stream
