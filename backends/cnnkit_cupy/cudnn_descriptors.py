"""A convolution described to cuDNN: its arrays, its padding and arithmetic, its three passes, and what cuDNN cannot do.

All of this works without a GPU.

Images are laid out as everywhere in cnnkit, `(batch, height, width, channels)`, which cuDNN calls NHWC. For these it
wants a kernel with its filters first, KRSC: `(filters, kernel_height, kernel_width, in_channels)`. A parameter is
`(kernel_height, kernel_width, in_channels, filters)`, so that as matrices one is the other transposed:

    w = kernel.reshape(-1, filters).T             a copy in C order on the device, which the caller makes after each update
    dkernel = dw.reshape(filters, -1).T           the way back

cuDNN pads both ends of an axis alike. Uneven padding is run where as much at the far end makes no window more, and is
refused elsewhere: `why_unsupported` says so beforehand, and the caller takes another way, such as im2col.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from ctypes import byref, c_double, c_float, c_int, c_void_p
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

from cnnkit.arrays import Shape
from cnnkit.errors import BackendError, OptionError
from cnnkit.plan import Conv2DOp
from cnnkit_cupy.cudnn_library import (
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,
    CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
    CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,
    CUDNN_CONVOLUTION_FWD_ALGO_DIRECT,
    CUDNN_CONVOLUTION_FWD_ALGO_GEMM,
    CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
    CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
    CUDNN_CROSS_CORRELATION,
    CUDNN_DATA_DOUBLE,
    CUDNN_DATA_FLOAT,
    CUDNN_DEFAULT_MATH,
    CUDNN_FMA_MATH,
    CUDNN_TENSOR_NHWC,
    CUDNN_TENSOR_OP_MATH,
    Library,
)

Pass: TypeAlias = Literal["forward", "backward_data", "backward_filter"]

_LARGEST: Final = 2**31 - 1
"""cuDNN counts the numbers of a tensor in 32 bits."""


@dataclass(frozen=True)
class Route:
    """One pass: cuDNN's name for it, its two inputs in cuDNN's order, and its output. x, w and y are also their gradients.

    `algorithms` are those that sum products of the two. The others, by FFT or by Winograd's transform, lose digits, and
    spread a NaN or an infinity to outputs that no window joins to it.
    """

    direction: str
    inputs: tuple[str, str]
    output: str
    algorithms: frozenset[int]


ROUTES: Final[Mapping[Pass, Route]] = {
    "forward": Route(
        "Forward",
        ("x", "w"),
        "y",
        frozenset(
            {
                CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
                CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
                CUDNN_CONVOLUTION_FWD_ALGO_GEMM,
                CUDNN_CONVOLUTION_FWD_ALGO_DIRECT,
            }
        ),
    ),
    "backward_data": Route(
        "BackwardData",
        ("w", "y"),
        "x",
        frozenset({CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1}),
    ),
    "backward_filter": Route(
        "BackwardFilter",
        ("x", "y"),
        "w",
        frozenset(
            {
                CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
                CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
                CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,
            }
        ),
    ),
}
PASSES: Final[tuple[Pass, ...]] = tuple(ROUTES)


@dataclass(frozen=True)
class Arithmetic:
    """How cuDNN computes in a precision: the type of numbers, that of factors, and the math types that it may use."""

    data: int
    scalar: type[c_float | c_double]
    asked: int
    allowed: frozenset[int]


# Only FMA is float32: the default rounds factors to TF32 where the card can. CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION is
# in none of them, for it lets cuDNN round to float16.
_ROUNDING: Final = frozenset({CUDNN_DEFAULT_MATH, CUDNN_TENSOR_OP_MATH, CUDNN_FMA_MATH})
ARITHMETIC: Final = {
    "float32": Arithmetic(CUDNN_DATA_FLOAT, c_float, CUDNN_FMA_MATH, frozenset({CUDNN_FMA_MATH})),
    "tf32": Arithmetic(CUDNN_DATA_FLOAT, c_float, CUDNN_DEFAULT_MATH, _ROUNDING),
    "float64": Arithmetic(CUDNN_DATA_DOUBLE, c_double, CUDNN_DEFAULT_MATH, _ROUNDING),
}


def why_unsupported(op: Conv2DOp, batch: int) -> str:
    """Why cuDNN cannot run `op` for `batch` images, whatever the card; nothing where it can. No cuDNN is needed to know."""
    for axis, side in enumerate(("height", "width")):
        before, after = op.padding[axis]
        window = op.dilation[axis] * (op.kernel_size[axis] - 1) + 1
        windows = max(op.input_shape[axis] + 2 * before - window, -op.strides[axis]) // op.strides[axis] + 1
        if windows != op.output_shape[axis]:
            return (
                f"its padding along the {side} is {before} before and {after} after, and cuDNN pads both ends alike: "
                f"with {before} it makes {windows} windows, not {op.output_shape[axis]}"
            )
    largest = max(math.prod(op.input_shape), math.prod(op.output_shape)) * batch
    if largest > _LARGEST:
        return f"a batch of {batch} images makes an array of {largest} numbers, and cuDNN counts up to {_LARGEST}"
    return ""


@final
class Descriptors:
    """The descriptors of `op` for batches of `batch` images, freed together, also where the making of one fails.

    `x_shape`, `w_shape` and `y_shape` are the shapes of images, kernel (filters first) and output, all in C order.

    Raises:
        BackendError: `why_unsupported` has a reason, or cuDNN refuses or contradicts the plan.
        OptionError: the precision is none of "float32", "tf32" and "float64".
    """

    def __init__(self, library: Library, op: Conv2DOp, batch: int, precision: str) -> None:
        if precision not in ARITHMETIC:
            raise OptionError(f"precision is {precision!r}; cuDNN is used in {', '.join(map(repr, ARITHMETIC))}.")
        if reason := why_unsupported(op, batch):
            raise BackendError(f"backend 'cupy': cuDNN cannot run layers[{op.layer}]: {reason}. It runs without cuDNN.")
        self.library, self.op, self.arithmetic = library, op, ARITHMETIC[precision]
        self.x_shape: Shape = (batch, *op.input_shape)
        self.w_shape: Shape = (op.filters, *op.kernel_size, op.input_shape[-1])
        self.y_shape: Shape = (batch, *op.output_shape)
        with ExitStack() as stack:
            self._tensors = {
                "x": self._tensor(stack, self.x_shape),
                "w": self._filter(stack, self.w_shape),
                "y": self._tensor(stack, self.y_shape),
            }
            self._convolutions = {name: self._convolution(stack) for name in PASSES}
            self._require_output_shape()
            self._free = weakref.finalize(self, stack.pop_all().close)
        self._free.atexit = False  # the library may be gone by then, and the process takes everything with it

    def close(self) -> None:
        """Free them. Using them after that is a `BackendError`."""
        self._free()

    def of(self, name: Pass) -> tuple[c_void_p, c_void_p, c_void_p, c_void_p]:
        """First input, second input, convolution and output: the order in which all of cuDNN's functions take them.

        They live as long as this object, and are addresses: cuDNN does not notice that one has been freed.
        """
        if not self._free.alive:  # cuDNN would crash
            raise BackendError("backend 'cupy': this convolution of cuDNN is closed. Make another one.")
        first, second = ROUTES[name].inputs
        return self._tensors[first], self._tensors[second], self._convolutions[name], self._tensors[ROUTES[name].output]

    def use_math(self, name: Pass, math_type: int) -> None:
        """Let a pass compute so, which is one of cuDNN's math types."""
        _, _, convolution, _ = self.of(name)
        self.library.call("cudnnSetConvolutionMathType", convolution, math_type)

    def _tensor(self, stack: ExitStack, shape: Shape) -> c_void_p:
        batch, height, width, channels = shape
        tensor = self._create(stack, "Tensor")
        layout = (CUDNN_TENSOR_NHWC, self.arithmetic.data)
        self.library.call("cudnnSetTensor4dDescriptor", tensor, *layout, batch, channels, height, width)
        return tensor

    def _filter(self, stack: ExitStack, shape: Shape) -> c_void_p:
        filters, height, width, channels = shape
        kernel = self._create(stack, "Filter")
        layout = (self.arithmetic.data, CUDNN_TENSOR_NHWC)  # the other way round than for a tensor
        self.library.call("cudnnSetFilter4dDescriptor", kernel, *layout, filters, channels, height, width)
        return kernel

    def _convolution(self, stack: ExitStack) -> c_void_p:
        """One for each pass, since each has a math type of its own."""
        op, convolution = self.op, self._create(stack, "Convolution")
        (top, _), (left, _) = op.padding
        numbers = (top, left, *op.strides, *op.dilation, CUDNN_CROSS_CORRELATION, self.arithmetic.data)
        self.library.call("cudnnSetConvolution2dDescriptor", convolution, *numbers)
        self.library.call("cudnnSetConvolutionMathType", convolution, self.arithmetic.asked)
        return convolution

    def _create(self, stack: ExitStack, kind: str) -> c_void_p:
        descriptor = c_void_p()
        self.library.call(f"cudnnCreate{kind}Descriptor", byref(descriptor))
        stack.callback(self.library.call, f"cudnnDestroy{kind}Descriptor", descriptor)
        return descriptor

    def _require_output_shape(self) -> None:
        batch, filters, height, width = (c_int() for _ in range(4))
        described = (self._convolutions["forward"], self._tensors["x"], self._tensors["w"])
        sizes = (byref(size) for size in (batch, filters, height, width))
        self.library.call("cudnnGetConvolution2dForwardOutputDim", *described, *sizes)
        shape = (batch.value, height.value, width.value, filters.value)
        if shape != self.y_shape:
            raise BackendError(
                f"backend 'cupy': cuDNN makes {shape} of layers[{self.op.layer}], and the plan says {self.y_shape}. "
                "Run it without cuDNN, and please report it."
            )
