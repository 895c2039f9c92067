"""cuDNN's functions on NumPy: they know descriptors and addresses alone, and take them from the host's own memory.

What is computed follows from what the code under test has described, and from nothing else: layouts, sizes, padding,
strides, dilation, which array goes where. Arguments pass the same checks of ctypes as the library's.
"""

import ctypes
from functools import partial
from types import SimpleNamespace

import numpy as np

from cnnkit_cupy.cudnn_library import SIGNATURES

INTERNAL_ERROR, NOT_SUPPORTED, BAD_PARAM = 4000, 3000, 2000


class Function:
    """One function, to which ctypes' declarations can be written."""

    def __init__(self, body):
        self.body = body

    def __call__(self, *arguments):
        if self.argtypes is not None:
            assert len(arguments) == len(self.argtypes)
            for argument, kind in zip(arguments, self.argtypes, strict=True):
                kind.from_param(argument)  # refuses what the library could not be given
        return self.body(*arguments)


class CudnnByNumpy:
    """`offers[direction]` is what the heuristics answer: dicts of fields of a performance.

    `failing` is the number of the call that fails, counted from 0 among those that give a status. `live` are the
    descriptors and handles that nobody has freed, `calls` what was called.
    """

    def __init__(self, offers=None, failing=None):
        self.offers, self.failing = offers or {}, failing
        self.live, self.calls, self.unsupported = {}, [], set()
        self.stream = None
        bodies = {
            "cudnnCreate": self._create,
            "cudnnDestroy": self._destroy,
            "cudnnSetStream": self._set_stream,
            "cudnnSetTensor4dDescriptor": self._describe_tensor,
            "cudnnSetFilter4dDescriptor": self._describe_filter,
            "cudnnSetConvolution2dDescriptor": self._describe_convolution,
            "cudnnSetConvolutionMathType": self._set_math,
            "cudnnGetConvolution2dForwardOutputDim": self._output_sizes,
        }
        for kind in ("Tensor", "Filter", "Convolution"):
            bodies |= {f"cudnnCreate{kind}Descriptor": self._create, f"cudnnDestroy{kind}Descriptor": self._destroy}
        for way, run in (("Forward", _forward), ("BackwardData", _backward_data), ("BackwardFilter", _backward_filter)):
            bodies |= {
                f"cudnnGetConvolution{way}AlgorithmMaxCount": partial(self._most, way),
                f"cudnnGetConvolution{way}Algorithm_v7": partial(self._offer, way),
                f"cudnnGetConvolution{way}WorkspaceSize": partial(self._workspace_size, way),
                f"cudnnConvolution{way}": partial(self._run, way, run),
            }
        assert bodies.keys() == SIGNATURES.keys()
        for name, body in bodies.items():
            setattr(self, name, Function(partial(self._status, name, body)))
        self.cudnnGetVersion = Function(lambda: 92801)
        self.cudnnGetCudartVersion = Function(lambda: 13050)
        self.cudnnGetErrorString = Function(lambda status: f"STATUS_{status}".encode())
        self.cudnnGetLastErrorString = Function(lambda buffer, _: setattr(buffer, "value", b"because of a test"))

    def _status(self, name, body, *arguments):
        self.calls.append(name)
        return INTERNAL_ERROR if self.failing == len(self.calls) - 1 else body(*arguments) or 0

    def _create(self, out):
        out._obj.value = 1000 + len(self.calls)
        self.live[out._obj.value] = None

    def _destroy(self, handle):
        del self.live[handle.value]

    # ---------------------------------------------------------------------------------------------------- descriptors

    def _set_stream(self, handle, stream):
        assert handle.value in self.live
        self.stream = stream

    def _describe_tensor(self, tensor, layout, kind, *sizes):
        self._describe_array(tensor, layout, kind, sizes)

    def _describe_filter(self, kernel, kind, layout, *sizes):
        self._describe_array(kernel, layout, kind, sizes)

    def _describe_array(self, array, layout, kind, sizes):
        first, channels, height, width = sizes  # (n, c, h, w) or (k, c, r, s), whatever the layout
        assert layout == 1  # NHWC
        number = (np.float32, np.float64)[kind]
        self.live[array.value] = SimpleNamespace(shape=(first, height, width, channels), dtype=np.dtype(number))

    def _describe_convolution(self, convolution, top, left, *others):
        *window, mode, kind = others
        assert mode == 1  # cross-correlation
        described = SimpleNamespace(padding=(top, left), strides=window[:2], dilation=window[2:], kind=kind, math=0)
        self.live[convolution.value] = described

    def _set_math(self, convolution, math_type):
        self.live[convolution.value].math = math_type

    def _output_sizes(self, convolution, x, w, *out):
        x, w, convolution = (self.live[one.value] for one in (x, w, convolution))
        sizes = [x.shape[0], w.shape[0]]
        for axis in (0, 1):
            window = convolution.dilation[axis] * (w.shape[1 + axis] - 1) + 1
            room = x.shape[1 + axis] + 2 * convolution.padding[axis] - window
            sizes.append(room // convolution.strides[axis] + 1)
        for one, size in zip(out, sizes, strict=True):
            one._obj.value = size

    # ----------------------------------------------------------------------------------------------------- algorithms

    def _most(self, direction, handle, out):
        assert handle.value in self.live
        out._obj.value = len(self.offers[direction]) + 2

    def _offer(self, direction, handle, first, second, convolution, output, most, count, table):
        assert {one.value for one in (handle, first, second, convolution, output)} <= self.live.keys()
        self.asked_math = self.live[convolution.value].math
        assert most >= len(self.offers[direction])
        for place, offer in zip(table, self.offers[direction], strict=False):
            for field, value in offer.items():
                setattr(place, field, value)
        count._obj.value = len(self.offers[direction])

    def _workspace_size(self, direction, handle, first, second, convolution, output, number, out):
        assert {one.value for one in (handle, first, second, convolution, output)} <= self.live.keys()
        if (direction, number, self.live[convolution.value].math) in self.unsupported:
            return NOT_SUPPORTED + 2
        out._obj.value = 100 * (number + 1)
        return 0

    # --------------------------------------------------------------------------------------------------------- passes

    def _run(
        self, direction, compute, handle, one, first, p, second, q, convolution, number, space, size, zero, output, r
    ):
        assert handle.value in self.live
        if size != 100 * (number + 1) or not space:
            return BAD_PARAM
        self.ran = (direction, number, self.live[convolution.value].math, self.stream)
        a, b, made = (self._array(*pair) for pair in ((first, p), (second, q), (output, r)))
        described = self.live[convolution.value]
        assert described.kind == {"float32": 0, "float64": 1}[made.dtype.name]
        scalar = ctypes.c_float if described.kind == 0 else ctypes.c_double
        assert [scalar.from_buffer(factor._obj).value for factor in (one, zero)] == [1, 0]
        compute(described, a, b, made)
        return 0

    def _array(self, descriptor, address):
        described = self.live[descriptor.value]
        memory = (ctypes.c_char * (int(np.prod(described.shape)) * described.dtype.itemsize)).from_address(address)
        return np.frombuffer(memory, described.dtype).reshape(described.shape)


def _taps(described, padded, w, y_shape):
    """For each pixel of a kernel (filters, channels): it, its index, and the pixels of the padded images under it."""
    for row, column in np.ndindex(w.shape[1:3]):
        top, left = row * described.dilation[0], column * described.dilation[1]
        rows = slice(top, top + described.strides[0] * (y_shape[1] - 1) + 1, described.strides[0])
        columns = slice(left, left + described.strides[1] * (y_shape[2] - 1) + 1, described.strides[1])
        yield (row, column), padded[:, rows, columns]


def _padded(described, x):
    (top, left) = described.padding
    return np.pad(x.astype(np.float64), ((0, 0), (top, top), (left, left), (0, 0)))


def _forward(described, x, w, y):
    total = np.zeros(y.shape)
    for (row, column), pixels in _taps(described, _padded(described, x), w, y.shape):
        total += pixels @ w[:, row, column].T.astype(np.float64)
    y[...] = total


def _backward_data(described, w, dy, dx):
    padded = np.zeros(_padded(described, dx).shape)
    for (row, column), pixels in _taps(described, padded, w, dy.shape):
        np.add(pixels, dy @ w[:, row, column].astype(np.float64), out=pixels)
    (top, left) = described.padding
    dx[...] = padded[:, top : top + dx.shape[1], left : left + dx.shape[2]]


def _backward_filter(described, x, dy, dw):
    for (row, column), pixels in _taps(described, _padded(described, x), dw, dy.shape):
        dw[:, row, column] = np.einsum("bijk,bijc->kc", dy.astype(np.float64), pixels)
