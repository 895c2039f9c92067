"""The windows of ONNX: pools, padding, and the mean or maximum of a whole image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from cnnkit.exchange.onnx_axes import flattened
from cnnkit.exchange.onnx_graph import Unreadable, short
from cnnkit.exchange.onnx_walk import GREY, Call, Stream
from cnnkit.model import AvgPool2D, Grayscale, MaxPool2D

Padding: TypeAlias = Literal["same"] | tuple[tuple[int, int], tuple[int, int]]

# ---------------------------------------------------------------------------------------------------------- windows


def dilated(window: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """The pixels from the first of a dilated window to its last."""
    return dilation[0] * (window[0] - 1) + 1, dilation[1] * (window[1] - 1) + 1


def padding_of(call: Call, sizes: Sequence[int], window: Sequence[int], strides: Sequence[int]) -> Padding:
    """The padding of `auto_pad` or `pads`, and with `ceil_mode` what the last window needs beyond it."""
    automatic = call.attribute("auto_pad", "NOTSET")
    pads = call.attribute("pads", (0, 0, 0, 0))
    if len(pads) != 4 or min(pads) < 0:
        raise Unreadable(f"has pads {short(str(list(pads)))}; expected four of at least 0", "Export the model again")
    if min(strides) < 1:
        raise Unreadable(f"has strides {tuple(strides)}; expected at least 1", "Export the model again")
    match automatic:
        case "SAME_UPPER":
            return "same"
        case "SAME_LOWER":
            total = [
                max((-(-sizes[axis] // strides[axis]) - 1) * strides[axis] + window[axis] - sizes[axis], 0)
                for axis in (0, 1)
            ]
            return (total[0] - total[0] // 2, total[0] // 2), (total[1] - total[1] // 2, total[1] // 2)
        case "VALID":
            pads = (0, 0, 0, 0)
        case "NOTSET":
            pass
        case _:
            raise Unreadable(f"has auto_pad '{short(automatic)}', which ONNX does not have", "Export the model again")
    sides = [(pads[0], pads[2]), (pads[1], pads[3])]
    if call.node.operator != "Conv" and call.attribute("ceil_mode", 0):
        for axis, (before, after) in enumerate(sides):
            room = sizes[axis] + before + after - window[axis]
            count = -(-room // strides[axis]) + 1
            if (count - 1) * strides[axis] >= sizes[axis] + before:  # a window that would begin behind the image
                count -= 1
            sides[axis] = before, max(after, after + (count - 1) * strides[axis] - room)
    return sides[0], sides[1]


def pool(kind: type[MaxPool2D | AvgPool2D]) -> Callable[[Call], Stream]:
    """`MaxPool` or `AveragePool`."""

    def read(call: Call) -> Stream:
        *sizes, _ = call.image()
        call.attribute("storage_order", 0)
        window, strides = call.pair("kernel_shape", ()), call.pair("strides")
        if call.pair("dilations") != (1, 1):
            raise Unreadable("has dilations above 1, and cnnkit's pools have none", "Build the layer without dilation")
        padding = padding_of(call, sizes, window, strides)
        if call.attribute("count_include_pad", 0) and padding != ((0, 0), (0, 0)):
            message = "counts its padding in the mean, and cnnkit's AvgPool2D does not"
            raise Unreadable(message, "Build the layer with count_include_pad = 0 (False), or without padding")
        named = "valid" if padding == ((0, 0), (0, 0)) else padding
        shape = call.add(kind(pool_size=window, strides=None if strides == window else strides, padding=named))
        return replace(call.stream, shape=shape)

    return read


def global_pool(kind: type[MaxPool2D | AvgPool2D]) -> Callable[[Call], Stream]:
    """`GlobalMaxPool` or `GlobalAveragePool`."""

    def read(call: Call) -> Stream:
        *sizes, _ = call.image()
        return replace(call.stream, shape=call.add(kind(pool_size=(sizes[0], sizes[1]))))

    return read


def reduce(kind: type[MaxPool2D | AvgPool2D]) -> Callable[[Call], Stream]:
    """The mean or maximum of whole images, or the mean of their channels."""

    def read(call: Call) -> Stream:
        stream = call.stream
        call.must_be("noop_with_empty_axes", 0, 0, 1)
        axes = call.listed("axes", 18)
        keep = bool(call.attribute("keepdims", 1))
        names = sorted(call.axis(axis) for axis in axes) if axes else ["all"]
        if names == sorted(GREY) and set(stream.axes) > set(GREY):
            call.add(kind(pool_size=stream.shape[:2]))
            pooled = replace(stream, shape=(1, 1, stream.shape[2]))
            return pooled if keep else flattened(replace(call, stream=pooled))
        if names == ["channels"] and kind is AvgPool2D:
            shape = call.add(Grayscale(weights="mean"))
            axes_left = stream.axes if keep else tuple(axis for axis in stream.axes if axis != "channels")
            return replace(stream, axes=axes_left, shape=shape)
        call.walk.mislaid |= len(stream.shape) == 3
        message = f"goes over {', '.join(names)}; cnnkit reads it over height and width, or a mean over the channels"
        raise Unreadable(message, "Build the model without it")

    return read


def pad(call: Call) -> Stream:
    """`Pad` with zeros, which waits for the convolution behind it."""
    walk, stream = call.walk, call.stream
    mode, amount = call.attribute("mode", "constant"), call.listed("pads", 11)
    value = call.array(2, "value") if walk.graph.opset >= 11 else np.array(call.attribute("value", 0.0))
    axes: Sequence[int] = range(1 + len(stream.axes))
    if len(call.inputs) > 3 and call.inputs[3] is not None:
        axes = [int(axis) for axis in call.inputs[3].reshape(-1)] if isinstance(call.inputs[3], np.ndarray) else []
    if amount is None or len(amount) != 2 * len(axes):
        raise Unreadable("has pads that are not two for each axis", "Export the model again")
    sides = {call.axis(axis): (amount[n], amount[n + len(axes)]) for n, axis in enumerate(axes)}
    sides = {axis: side for axis, side in sides.items() if side != (0, 0)}
    if not sides:
        return stream
    zeros = mode == "constant" and (value is None or (value.size == 1 and not value.any()))
    if not zeros or not set(sides) <= set(GREY) or min(map(min, sides.values())) < 0:
        walk.mislaid |= len(stream.shape) == 3 and not set(sides) <= set(GREY)
        message = "pads in another way than with zeros along height and width"
        raise Unreadable(message, "Pad with zeros, right before a Conv")
    walk.padding = (sides, call.node)
    return stream
