"""The primitives of batched layers as CUDA kernels and products of cuBLAS, each prepared once; and layers of our own.

Where an image has a border, it is nowhere in memory: kernels count it in. So nothing is copied into a border and back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Shape
from cnnkit.plan import Conv2DOp, GrayscaleOp, Operation, PaddingPair
from cnnkit_batched.engine import A, Arena, Call, Calls, Columns, Engine, Head, Inputs, Padded, Windows
from cnnkit_batched.layers import Layer, Site, Weights
from cnnkit_cupy import sources
from cnnkit_cupy.cudnn import Convolution
from cnnkit_cupy.target import Target

FUNCTIONS: Final = {None: 0, "relu": 1, "tanh": 2, "sigmoid": 3}
"""The numbers of `enum Function` in elementwise.cu."""

MOST_PATCHES: Final = 2**31 - 1
"""cuBLAS counts in 32 bits."""


@dataclass(frozen=True)
class Bordered:
    """Images `(batch, height, width, channels)` with `top` and `left` pixels before them; `shape` is with all of the border."""

    image: A
    top: int
    left: int
    shape: Shape

    def __getitem__(self, place: tuple[Any, ...]) -> Bordered:
        """Some of the images, `[part, ...]`; or rows of them, `[part, band, :, :]`."""
        image = self.image[place[0], ...]
        if place[1] is Ellipsis:
            return replace(self, image=image, shape=(image.shape[0], *self.shape[1:]))
        band = place[1]
        shape = (image.shape[0], band.stop - band.start, *self.shape[2:])
        return Bordered(image, self.top - band.start, self.left, shape)


@final
class CudaEngine(Engine):
    """The primitives on a target. `block` is how many numbers of patches it works with at once."""

    alignment = 256  # as what CUDA itself allocates, on which its libraries may rely
    bias_in_columns = False

    def __init__(self, target: Target, block: int = MOST_PATCHES) -> None:
        self.target, self.dtype, self.block = target, target.dtype, min(block, MOST_PATCHES)
        self.boolean = np.dtype(np.uint8)

    # ---------------------------------------------------------------------------------------------- arrays and views

    def empty(self, shape: Shape, dtype: Any = None) -> A:
        return self.target.empty(shape, dtype)

    def constant(self, values: NDArray[Any]) -> A:
        return self.target.upload(values.astype(self.dtype))

    def reshaped(self, array: A, shape: Shape) -> A:
        return array.reshape(shape)

    def columns(self, arena: Arena, images: Shape, windows: Windows, channels: int, *, ones: bool) -> Columns:
        assert not ones  # noqa: S101 - `bias_in_columns` says so
        matrix = arena.scratch("columns", (images[0] * images[1] * images[2], windows.area * channels))
        return Columns(matrix, matrix.reshape(*images, *windows.size, channels), None)

    def inputs(self, arena: Arena, x: A, *, ones: bool) -> Inputs:  # noqa: ARG002 - others need room
        assert not ones  # noqa: S101 - `bias_in_columns` says so
        return Inputs(x, [], [])

    def pad(self, image: A, padding: PaddingPair, fill: float, arena: Arena) -> Padded:  # noqa: ARG002 - kernels fill in
        (top, bottom), (left, right) = padding
        batch, height, width, channels = image.shape
        bordered = Bordered(image, top, left, (batch, top + height + bottom, left + width + right, channels))
        return Padded(bordered, image, [], [], [])

    # ------------------------------------------------------------------------------------------------- number by number

    def fill(self, array: A, value: float) -> Calls:
        return [self.target.fill(array, value)]

    def copy(self, source: A, target: A) -> Calls:
        return [self.target.copy(source, target)]

    def add(self, source: A, target: A) -> Calls:
        return [self.target.add(source, target)]

    def shift(self, array: A, offset: float) -> Calls:
        return [self.target.kernel("rescale", array, array, array.size, 1.0, offset)]

    def multiply(self, array: A, factor: A | float, target: A) -> Calls:
        if isinstance(factor, float):
            return [self.target.kernel("rescale", array, target, array.size, factor, 0.0)]
        assert factor.dtype == self.boolean  # noqa: S101 - the shares of average pooling are in its kernel
        return [self.target.copy(array, target), self.target.kernel("dropout", target, factor, target.size, 1.0)]

    def turn(self, kernel: A, op: Conv2DOp, out: A) -> Calls:
        channels, filters = op.input_shape[2], op.filters
        turned = kernel.reshape(*op.kernel_size, channels, filters)[::-1, ::-1].transpose(0, 1, 3, 2)
        return [self.target.assign(turned, out.reshape(*op.kernel_size, filters, channels))]

    # ------------------------------------------------------------------------------------------------------- products

    def product(self, left: A, right: A, out: A) -> Calls:
        return [self.target.product(left, right, out)]

    def product_over_rows(self, columns: A, rows: A, out: A, arena: Arena) -> Calls:  # noqa: ARG002 - others need room
        return [self.target.product(columns.T, rows, out)]

    def bias_and_activate(self, rows: A, bias: A, function: str | None) -> Calls:
        return [self.target.kernel("bias_activation", rows, bias, *rows.shape, FUNCTIONS[function])]

    def bias_back(self, y: A, dy: A, function: str | None, out: A, arena: Arena) -> Calls:
        rows, filters = dy.shape
        shares = sources.shares_of_rows(rows, filters)
        partial = arena.scratch("partial", (shares, filters), np.float64)
        last = None if function is None else y
        return [
            self.target.kernel("bias_gradient_partial", dy, last, partial, rows, filters, FUNCTIONS[function]),
            self.target.kernel("bias_gradient", partial, out, shares, filters, 0),
        ]

    def activate(self, y: A, function: str) -> Calls:
        filters = y.shape[-1]
        return [self.target.kernel("bias_activation", y, None, y.size // filters, filters, FUNCTIONS[function])]

    def activate_back(self, y: A, dy: A, function: str, arena: Arena) -> Calls:  # noqa: ARG002 - others need room
        return [self.target.kernel("activation_backward", dy, y, dy.size, FUNCTIONS[function])]

    # -------------------------------------------------------------------------------------------------------- windows

    def gather(self, images: Bordered, windows: Windows, columns: Columns) -> Calls:
        return [self._windows("im2col", [images.image, columns.matrix], images, windows, windows.dilation)]

    def scatter(self, parts: A, windows: Windows, images: Bordered) -> Calls:
        return [self._windows("col2im", [parts, images.image], images, windows, windows.dilation)]

    def max_pool(
        self, x: Bordered, y: A, dy: A | None, dx: Bordered | None, windows: Windows, arena: Arena
    ) -> tuple[Calls, Calls]:
        winners = None if dx is None else arena.keep(y.shape, np.int32)
        forward = self._windows("max_pool", [x.image, y, winners], x, windows)
        if dx is None:
            return [forward], []
        return [forward], [self._windows("max_pool_backward", [dy, winners, dx.image], dx, windows)]

    def avg_pool(
        self,
        x: Bordered,
        y: A,
        dy: A | None,
        dx: Bordered | None,
        windows: Windows,
        share: NDArray[np.float64],  # noqa: ARG002 - the kernels work it out
        arena: Arena,  # noqa: ARG002 - others need room
    ) -> tuple[Calls, Calls]:
        forward = self._windows("avg_pool", [x.image, y], x, windows)
        return [forward], [] if dx is None else [self._windows("avg_pool_backward", [dy, dx.image], dx, windows)]

    def _windows(
        self, name: str, arrays: list[A], images: Bordered, windows: Windows, *dilation: tuple[int, int]
    ) -> Call:
        """A launch of one of the kernels that go over windows, all of which take their sizes in one order."""
        sizes = (*images.image.shape, *windows.output, *windows.size, *windows.strides)
        return self.target.kernel(
            name, *arrays, *sizes, *(each for pair in dilation for each in pair), images.top, images.left
        )

    # ------------------------------------------------------------------------------------------------------- the head

    def softmax(self, scores: A, out: A) -> Calls:
        return [self.target.kernel("softmax", scores, out, *scores.shape)]

    def cross_entropy(self, scores: A, head: Head, dscores: A) -> Calls:
        arrays = (scores, head.labels, dscores, head.losses)
        prepared = {1.0: self.target.kernel("softmax_cross_entropy", *arrays, *scores.shape, 1.0)}

        def launch() -> None:
            weight = head.weight  # it depends on the batch, of which this may be a slice
            if weight not in prepared:
                prepared.clear()
                prepared[weight] = self.target.kernel("softmax_cross_entropy", *arrays, *scores.shape, weight)
            prepared[weight]()

        return [launch]

    # ------------------------------------------------------------------------------------------------- layers of its own

    def layer(self, site: Site, op: Operation, weights: Weights | None, function: str | None) -> Layer | None:
        match op:
            case GrayscaleOp():
                return self._grayscale(site, op)
            case Conv2DOp() if weights is not None:
                learns = weights.gradient is not None
                passes = ("forward", *["backward_filter"] * learns, *["backward_data"] * (site.dx is not None))
                convolution = self.target.convolution(op, site.x.shape[0], passes)  # type: ignore[arg-type] # they are passes
                return convolution and self._convolution(site, op, weights, function, convolution)
            case _:
                return None

    def _grayscale(self, site: Site, op: GrayscaleOp) -> Layer:
        layer = site.begin(op.output_shape)
        weights, channels = self.constant(np.array(op.weights)), len(op.weights)
        pixels = site.x.size // channels
        layer.forward = [self.target.kernel("grayscale", site.x, weights, layer.y, pixels, channels)]
        if site.dx is not None:
            layer.backward = [self.target.kernel("grayscale_backward", layer.dy, weights, site.dx, pixels, channels)]
        return layer

    def _convolution(
        self, site: Site, op: Conv2DOp, weights: Weights, function: str | None, convolution: Convolution
    ) -> Layer:
        """On cuDNN, which wants kernels with their filters first."""
        layer, target, arena = site.begin(op.output_shape), self.target, site.arena
        w = arena.keep(convolution.descriptors.w_shape)
        workspace = arena.scratch("workspace", (max(1, convolution.workspace),), np.uint8)
        x, y, at_w, space = map(target.address, (site.x, layer.y, w, workspace))
        layer.forward = [
            target.assign(weights.kernel.T, w.reshape(op.filters, -1)),
            lambda: convolution.forward(x, at_w, y, space, target.stream),
        ]
        rows = layer.y.reshape(-1, op.filters)
        bias = weights.matrix[weights.size, :] if weights.has_bias else None
        layer.forward += self.bias_and_activate(rows, bias, function) if weights.has_bias or function else []
        if weights.gradient is None or layer.dy is None:
            return layer
        drows, dkernel = layer.dy.reshape(-1, op.filters), weights.gradient[: weights.size, :]
        if weights.has_bias:
            layer.backward = self.bias_back(rows, drows, function, weights.gradient[weights.size, :], arena)
        elif function:
            layer.backward = self.activate_back(rows, drows, function, arena)
        dw = arena.scratch("dw", convolution.descriptors.w_shape)
        dy, at_dw = target.address(layer.dy), target.address(dw)
        layer.backward += [
            lambda: convolution.backward_filter(x, dy, at_dw, space, target.stream),
            target.assign(dw.reshape(op.filters, -1).T, dkernel),
        ]
        if site.dx is not None:
            dx = target.address(site.dx)
            layer.backward.append(lambda: convolution.backward_data(at_w, dy, dx, space, target.stream))
        return layer
