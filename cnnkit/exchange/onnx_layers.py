"""From the nodes of a graph of ONNX to cnnkit's layers, one row of them from the input to the output.

======================================  ==============================================================================
operators                               what becomes of them
======================================  ==============================================================================
`Conv`                                  `Conv2D`, with a `Pad` of zeros before it
`MaxPool AveragePool`                   `MaxPool2D`, `AvgPool2D`
`GlobalMaxPool GlobalAveragePool`       the same, one window as large as the image
`ReduceMean ReduceMax`                  of height and width: the same; `ReduceMean` of the channels: `Grayscale`
`Gemm`, `MatMul`                        `Dense`
`Add Sub Mul Div` with one number       `Rescale`
`Add Sub Mul Div` with one a channel,   changed kernel and bias of the `Conv2D` or `Dense` right before it, the only
`BatchNormalization`                    place where they are read
`Relu Tanh Sigmoid`                     the `activation` of the layer before, or a layer
`Flatten`, `Reshape`, `Squeeze`         `Flatten`; the kernel of the next `Dense` is put in the order of its features
`Softmax`                               `Softmax`
`Transpose Unsqueeze Identity Cast`,    nothing
`Dropout`
======================================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from cnnkit.arrays import times
from cnnkit.exchange.onnx_axes import cast, dropout, flatten, identity, reshape, squeeze, transpose, unsqueeze
from cnnkit.exchange.onnx_graph import FLOAT, Numbers, Unreadable
from cnnkit.exchange.onnx_walk import CHANNELS_LAST, FEATURES, GREY, Call, Operator, Stream, count, require_our_order
from cnnkit.exchange.onnx_windows import dilated, global_pool, pad, padding_of, pool, reduce
from cnnkit.model import AvgPool2D, Conv2D, Dense, MaxPool2D, ReLU, Rescale, Sigmoid, Softmax, Tanh

# ------------------------------------------------------------------------------------------------ with learned numbers


def _convolution(call: Call) -> Stream:
    *sizes, channels = call.image()
    kernel = call.required(1, "kernel")
    call.must_be("group", 1, 1)
    if kernel.ndim != 4 or kernel.shape[1] != channels or 0 in kernel.shape:
        message = f"has a kernel of shape {kernel.shape}, and gets images of {channels} channels"
        raise Unreadable(message, f"Export a kernel of shape (filters, {channels}, height, width)")
    window = call.pair("kernel_shape", kernel.shape[2:])
    if window != kernel.shape[2:]:
        raise Unreadable(f"has kernel_shape {window}, and a kernel of shape {kernel.shape}", "Export the model again")
    strides, dilation = call.pair("strides"), call.pair("dilations")
    padding = padding_of(call, sizes, dilated(window, dilation), strides)
    pad, call.walk.padding = call.walk.padding, None
    if pad is not None:
        if padding == "same":
            raise Unreadable(
                "pads by auto_pad what a Pad before it has padded", "Export the model with pads in numbers"
            )
        (top, bottom), (left, right) = (pad[0].get(axis, (0, 0)) for axis in GREY)
        padding = (
            (padding[0][0] + top, padding[0][1] + bottom),
            (padding[1][0] + left, padding[1][1] + right),
        )
    learned = _with_bias(kernel.transpose(2, 3, 1, 0), call.array(2, "bias"))
    layer = Conv2D(
        filters=kernel.shape[0],
        kernel_size=window,
        strides=strides,
        padding="valid" if padding == ((0, 0), (0, 0)) else padding,
        dilation=dilation,
        use_bias="bias" in learned,
    )
    return replace(call.stream, shape=call.add(layer, **learned))


def _with_bias(kernel: Numbers, bias: Numbers | None) -> dict[str, Numbers]:
    if bias is None:
        return {"kernel": kernel}
    filters = kernel.shape[-1]
    if bias.ndim > 2 or bias.shape[:-1] not in ((), (1,)) or bias.size not in (1, filters):
        raise Unreadable(f"has a bias of shape {bias.shape}; expected ({filters},)", "Export the model again")
    return {"kernel": kernel, "bias": np.broadcast_to(bias.reshape(-1), (filters,))}


def _gemm(call: Call) -> Stream:
    call.must_be("transA", 0, 0)
    kernel = call.required(1, "kernel")
    if not call.comes_first or kernel.ndim != 2:
        raise Unreadable(f"multiplies with a kernel of shape {kernel.shape} from the wrong side", _MATRIX_FIX)
    if call.attribute("transB", 0):
        kernel = kernel.T
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    bias = call.array(2, "bias")
    with np.errstate(all="ignore"):
        kernel = kernel if alpha == 1 else kernel * np.float32(alpha)
        bias = bias if beta == 1 or bias is None else bias * np.float32(beta)
    return _dense(call, kernel, bias)


def _matmul(call: Call) -> Stream:
    if not call.comes_first:
        raise Unreadable("multiplies the images from the left", _MATRIX_FIX)
    kernel = call.required(1, "kernel")
    if kernel.ndim != 2:
        raise Unreadable(f"multiplies with a kernel of shape {kernel.shape}", _MATRIX_FIX)
    return _dense(call, kernel, None)


def _dense(call: Call, kernel: Numbers, bias: Numbers | None) -> Stream:
    stream = call.stream
    if stream.axes != FEATURES:
        lie = ", ".join(("batch", *stream.axes))
        raise Unreadable(f"takes (batch, features), and gets ({lie})", "Put a Flatten before it")
    features, units = kernel.shape
    if features != stream.shape[0] or not units:
        message = f"has a kernel for {features} features and {units} units, and gets {stream.shape[0]} features"
        raise Unreadable(message, "Export the model again")
    if stream.order is not None:
        count(call.walk, kernel)
        names = [name for name, _ in stream.order]
        image = kernel.reshape(*(size for _, size in stream.order), units)
        ours = [names.index(name) for name in CHANNELS_LAST if name in names]
        kernel = image.transpose(*ours, len(names)).reshape(features, units)
    learned = _with_bias(kernel, bias)
    shape = call.add(Dense(units=units, use_bias="bias" in learned), **learned)
    return Stream(FEATURES, shape, FLOAT)


def _batch_normalization(call: Call) -> Stream:
    call.must_be("training_mode", 0, 0)
    if any(call.node.outputs[1:]):  # before opset 14 they say that it uses the statistics of the batch
        raise Unreadable("gives the statistics of the batch too, as it does in training", "Export it with model.eval()")
    call.must_be("spatial", 1, 1)
    call.attribute("momentum", 0.9)
    epsilon = call.attribute("epsilon", 1e-5)
    if len(call.stream.shape) == 3:
        call.image()
    channels = call.stream.shape[-1]
    gamma, beta, mean, variance = (
        call.required(number, what).astype(np.float64)
        for number, what in enumerate(("scale", "bias", "mean", "variance"), start=1)
    )
    if any(array.shape != (channels,) for array in (gamma, beta, mean, variance)):
        raise Unreadable(f"has arrays that are not of {channels} numbers, one a channel", "Export the model again")
    with np.errstate(all="ignore"):  # a negative variance gives NaN here, as it does in the graph
        scale = gamma / np.sqrt(variance + epsilon)
        shift = beta - mean * scale
    if not _fold_into_last(call, scale, shift):
        raise Unreadable(f"stands behind {_last(call)}; cnnkit has no layer of its own for it", _FOLD_FIX)
    return call.stream


def _fold_into_last(call: Call, scale: Numbers | None, shift: Numbers | None) -> bool:
    """Change the layer right before so that each channel is `x * scale + shift` of what it was, if it can be."""
    walk = call.walk
    last = len(walk.layers) - 1
    layer = walk.layers[last] if walk.layers else None
    if not isinstance(layer, (Conv2D, Dense)) or layer.activation is not None:
        return False
    held = walk.arrays[last]
    count(walk, held["kernel"])
    with np.errstate(all="ignore"):
        kernel = held["kernel"] if scale is None else held["kernel"] * scale
        bias = held.get("bias")
        if bias is not None and scale is not None:
            bias = bias * scale
        if shift is not None:
            bias = shift if bias is None else bias + shift
    walk.arrays[last] = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
    walk.layers[last] = layer.model_copy(update={"use_bias": bias is not None})
    return True


def _last(call: Call) -> str:
    return call.walk.places[-1] if call.walk.places else "the input"


# ------------------------------------------------------------------------------------------------------ one with numbers


def _arithmetic(call: Call) -> Stream:
    """`Add Sub Mul Div` with a constant: `x * scale + shift`."""
    operator = call.node.operator
    first = call.comes_first
    if len(call.inputs) != 2:
        raise Unreadable(f"has {len(call.inputs)} inputs; expected 2", "Export the model again")
    array = call.required(1 if first else 0, "second input")
    vector = _by_channel(call, array).astype(np.float64)
    scale = shift = None
    with np.errstate(all="ignore"):
        match operator:
            case "Add":
                shift = vector
            case "Sub":
                scale, shift = (None, -vector) if first else (np.array([-1.0]), vector)
            case "Mul":
                scale = vector
            case _:
                if not first:
                    raise Unreadable("divides by the images", "Build the model without it")
                scale = 1 / vector
    layer = call.walk.layers[-1] if call.walk.layers else None
    is_bias = scale is None and array.ndim > 0 and isinstance(layer, (Conv2D, Dense)) and not layer.use_bias
    if (vector.size > 1 or is_bias) and _fold_into_last(call, scale, shift):
        return call.stream
    if vector.size > 1 and not (vector == vector[0]).all():
        message = f"has numbers that differ by channel, and stands behind {_last(call)}; a Rescale has one number"
        raise Unreadable(message, _FOLD_FIX)
    _rescale(call, None if scale is None else float(scale[0]), None if shift is None else float(shift[0]))
    return call.stream


def _by_channel(call: Call, array: Numbers) -> Numbers:
    """The numbers of `array` as one, or one a channel of what goes in."""
    axes = ("batch", *call.stream.axes)
    if array.ndim > len(axes):
        raise Unreadable(f"has a constant of shape {array.shape}, which adds axes", "Export the model again")
    if array.size == 1:
        return array.reshape(1)
    sizes = dict(zip(reversed(axes), reversed(array.shape), strict=False))
    name = "features" if call.stream.axes == FEATURES else "channels"
    channels = call.stream.shape[-1]
    if sizes.get(name) != channels or array.size != channels:
        what = times((*array.shape,)) if array.ndim else "one number"
        message = f"has a constant of {what}; cnnkit reads one number, or one for each of {channels} {name}"
        raise Unreadable(message, "Build the model without it")
    if call.stream.order is not None and not (array == array.flat[0]).all():
        raise Unreadable("has one number a feature, right behind a Flatten", "Put it behind a Gemm")
    return array.reshape(-1)


def _rescale(call: Call, scale: float | None, shift: float | None) -> None:
    """A Rescale, or a change of the one that the node before has begun: first times and then plus, or the other way."""
    walk = call.walk
    last = len(walk.layers) - 1
    begun, held = walk.rescaled[1] if walk.rescaled[0] == last else "", walk.layers[-1] if walk.layers else None
    if isinstance(held, Rescale) and begun == "scale" and scale is None and shift is not None:
        walk.layers[last] = Rescale(scale=held.scale, offset=shift)
        walk.rescaled = (last, "")
    elif isinstance(held, Rescale) and begun == "offset" and scale is not None and shift is None:
        walk.layers[last] = Rescale(scale=scale, offset=held.offset * scale)
        walk.rescaled = (last, "")
    else:
        call.add(Rescale(scale=1.0 if scale is None else scale, offset=shift or 0.0))
        walk.rescaled = (last + 1, "offset" if scale is None else "scale" if shift is None else "")


def _activation(kind: type[ReLU | Tanh | Sigmoid]) -> Callable[[Call], Stream]:
    def read(call: Call) -> Stream:
        walk = call.walk
        layer = walk.layers[-1] if walk.layers else None
        if isinstance(layer, (Conv2D, Dense)) and layer.activation is None:
            walk.layers[-1] = layer.model_copy(update={"activation": kind.model_fields["kind"].default})
        else:
            call.add(kind())
        return call.stream

    return read


def _softmax(call: Call) -> Stream:
    if call.stream.axes != FEATURES:
        lie = ", ".join(("batch", *call.stream.axes))
        raise Unreadable(f"takes (batch, classes), and gets ({lie})", "Put a Flatten before it")
    if call.axis(call.attribute("axis", -1 if call.walk.graph.opset >= 13 else 1)) == "batch":
        raise Unreadable("is a softmax over the batch, and cnnkit's is over the classes", "Build it with axis = -1")
    require_our_order(call.stream)
    call.add(Softmax())
    return call.stream


_WINDOWS: Final = ("auto_pad", "pads", "strides", "dilations", "kernel_shape")
OPERATORS: Final[dict[str, Operator]] = {
    "Add": Operator(_arithmetic),
    "AveragePool": Operator(pool(AvgPool2D), (*_WINDOWS, "ceil_mode", "count_include_pad")),
    "BatchNormalization": Operator(_batch_normalization, ("epsilon", "momentum", "training_mode", "spatial")),
    "Cast": Operator(cast, ("to", "saturate", "round_mode")),
    "Concat": Operator(None, ("axis",)),
    "Constant": Operator(None),
    "ConstantOfShape": Operator(None, ("value",)),
    "Conv": Operator(_convolution, (*_WINDOWS, "group")),
    "Div": Operator(_arithmetic),
    "Dropout": Operator(dropout, ("ratio", "seed")),
    "Flatten": Operator(flatten, ("axis",)),
    "Gather": Operator(None, ("axis",)),
    "Gemm": Operator(_gemm, ("alpha", "beta", "transA", "transB")),
    "GlobalAveragePool": Operator(global_pool(AvgPool2D)),
    "GlobalMaxPool": Operator(global_pool(MaxPool2D)),
    "Identity": Operator(identity),
    "MatMul": Operator(_matmul),
    "MaxPool": Operator(pool(MaxPool2D), (*_WINDOWS, "ceil_mode", "storage_order")),
    "Mul": Operator(_arithmetic),
    "Pad": Operator(pad, ("mode", "pads", "value")),
    "ReduceMax": Operator(reduce(MaxPool2D), ("axes", "keepdims", "noop_with_empty_axes")),
    "ReduceMean": Operator(reduce(AvgPool2D), ("axes", "keepdims", "noop_with_empty_axes")),
    "Relu": Operator(_activation(ReLU)),
    "Reshape": Operator(reshape, ("allowzero",)),
    "Shape": Operator(None, ("start", "end")),
    "Sigmoid": Operator(_activation(Sigmoid)),
    "Slice": Operator(None, ("axes", "starts", "ends")),
    "Softmax": Operator(_softmax, ("axis",)),
    "Squeeze": Operator(squeeze, ("axes",)),
    "Sub": Operator(_arithmetic),
    "Tanh": Operator(_activation(Tanh)),
    "Transpose": Operator(transpose, ("perm",)),
    "Unsqueeze": Operator(unsqueeze, ("axes",)),
}
"""All operators that are read."""


_MATRIX_FIX: Final = "Build the layer as images @ kernel"
_FOLD_FIX: Final = "Put it right behind a Conv or Gemm, before the activation, or leave it out"
