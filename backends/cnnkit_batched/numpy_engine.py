"""The primitives on NumPy: large arrays are allocated once, and each pass over memory is made where it is cheapest.

What pays, and by how much, is in docs/explanation/speed.md. In short: results go into arrays that are there (`out=`);
patches are one strided copy, in the memory order with the longer run of neighbours; biases are weights of a column of
ones, so that no pass over the output adds them and none sums their gradient; a maximum with a row of zeros is three
times as fast as one with the number 0; and a pool of 2 x 2 is two maxima, of two views each.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, final

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cnnkit.arrays import Array, Shape
from cnnkit.plan import Conv2DOp, PaddingPair
from cnnkit_batched.engine import Arena, Calls, Columns, Engine, Head, Inputs, Padded, Windows
from cnnkit_batched.plain_engine import PlainEngine

BLOCK: Final = 1 << 18
"""Numbers in a block of patches: a megabyte in float32, which a core finds in its caches when the product begins."""

SMALL: Final = 1_000_000
"""Multiplications in a product that OpenBLAS still hands to its kernels for small products, which copy nothing first. On
processors with AVX-512 they are a fifth to a half faster than the others; elsewhere it makes little difference."""

LINE: Final = 4096
"""Numbers in a line at most, where a whole array is worked on line by line: NumPy begins anew at every line, and the row of
zeros that each is compared with should stay in the cache next to it."""

LEAST_ROWS: Final = 16
LEAST_ROWS_SUMMED: Final = 64
"""Rows of such a small product, at least, and where the products have to be summed."""


@final
class NumpyEngine(Engine):
    """NumPy on one thread."""

    bias_in_columns = True
    pools_by_place = True
    block = BLOCK

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype, self.boolean = dtype, np.bool_
        self.plain = PlainEngine(np, dtype)

    def empty(self, shape: Shape, dtype: Any = None) -> Array:
        return np.empty(shape, self.dtype if dtype is None else dtype)

    def constant(self, values: Array) -> Array:
        return values.astype(self.dtype)

    def reshaped(self, array: Array, shape: Shape) -> Array:
        return array.reshape(shape)

    def columns(self, arena: Arena, images: Shape, windows: Windows, channels: int, *, ones: bool) -> Columns:
        batch, height, width = images
        rows, size = batch * height * width, windows.area * channels
        memory = arena.scratch("columns", (rows * (size + ones),))
        planes = None
        if windows.size[1] * channels >= width:
            matrix = memory.reshape(rows, size + ones)
            inner = memory.reshape(batch, height, width, size + ones)[..., :size]
            values = inner.reshape(batch, height, width, *windows.size, channels)
        else:
            matrix = memory.reshape(size + ones, rows).T
            by_pixel = memory[: size * rows].reshape(*windows.size, channels, batch, height, width)
            values = by_pixel.transpose(3, 4, 5, 0, 1, 2)
            if channels > 1:  # so that neighbours along a row of pixels are neighbours in memory
                planes = arena.scratch("planes", (channels, batch, *windows.reach)).transpose(1, 2, 3, 0)
        return Columns(matrix, values, matrix[:, size] if ones else None, planes)

    def inputs(self, arena: Arena, x: Array, *, ones: bool) -> Inputs:
        features = x.shape[1]
        if not ones:
            return Inputs(x, [], [])
        matrix = arena.keep((len(x), features + 1))
        return Inputs(matrix, self.copy(x, matrix[:, :features]), self.fill(matrix[:, features], 1.0))

    def fill(self, array: Array, value: float) -> Calls:
        return [partial(array.fill, value)]

    def copy(self, source: Array, target: Array) -> Calls:
        return [partial(np.copyto, target, source)]

    def add(self, source: Array, target: Array) -> Calls:
        return [partial(np.add, target, source, target)]

    def shift(self, array: Array, offset: float) -> Calls:
        return [partial(np.add, array, offset, array)]

    def multiply(self, array: Array, factor: Array | float, target: Array) -> Calls:
        return [partial(np.multiply, array, factor, target)]

    def product(self, left: Array, right: Array, out: Array) -> Calls:
        rows, size = left.shape
        step = SMALL // (size * right.shape[1])
        if rows <= step or step < LEAST_ROWS or right.strides[1] != right.itemsize:
            return [partial(np.matmul, left, right, out)]
        step = -(-rows // -(-rows // step))
        whole = rows // step
        calls: Calls = [partial(np.matmul, _stacked(left, whole, step), right, _stacked(out, whole, step))]
        done = whole * step
        return [*calls, partial(np.matmul, left[done:], right, out[done:])] if done < rows else calls

    def product_over_rows(self, columns: Array, rows: Array, out: Array, arena: Arena) -> Calls:
        count, size = columns.shape
        step = SMALL // (size * rows.shape[1])
        if count <= step or step < LEAST_ROWS_SUMMED:
            return [partial(np.matmul, columns.T, rows, out)]
        step = -(-count // -(-count // step))
        whole = count // step
        parts = arena.scratch("parts", (whole + (count > whole * step), *out.shape))
        left = _stacked(columns, whole, step).transpose(0, 2, 1)
        calls: Calls = [partial(np.matmul, left, _stacked(rows, whole, step), parts[:whole])]
        if count > whole * step:
            calls.append(partial(np.matmul, columns[whole * step :].T, rows[whole * step :], parts[whole]))
        return [*calls, partial(np.add.reduce, parts, 0, None, out)]

    def pad(self, image: Array, padding: PaddingPair, fill: float, arena: Arena) -> Padded:
        return self.plain.pad(image, padding, fill, arena)

    def gather(self, images: Array, windows: Windows, columns: Columns) -> Calls:
        calls: Calls = []
        if columns.planes is not None:
            down, across = windows.reach
            calls = self.copy(images[:, :down, :across], columns.planes)
            images = columns.planes
        calls.append(partial(np.copyto, columns.values, _windows_of(images, windows)))
        return calls if columns.ones is None else [*calls, partial(columns.ones.fill, 1.0)]

    def scatter(self, parts: Array, windows: Windows, images: Array) -> Calls:
        calls: Calls = [partial(images.fill, 0.0)]
        places = np.ndindex(*windows.size)
        for (row, col), tap in zip(places, windows.taps(), strict=True):
            pixels = images[tap]
            calls.append(partial(np.add, pixels, parts[:, :, :, row, col, :], pixels))
        return calls

    def avg_pool(
        self,
        x: Array,
        y: Array,
        dy: Array | None,
        dx: Array | None,
        windows: Windows,
        share: Array,
        arena: Arena,
    ) -> tuple[Calls, Calls]:
        shares = self.constant(share)
        forward = [*self.sum_windows(x, windows, y), *self.multiply(y, shares, y)]
        if dy is None or dx is None:
            return forward, []
        part = arena.scratch("part", y.shape)
        return forward, [*self.multiply(dy, shares, part), *self.spread(part, windows, dx)]

    def sum_windows(self, images: Array, windows: Windows, out: Array) -> Calls:
        first, *others = windows.taps()
        return [partial(np.copyto, out, images[first]), *(partial(np.add, out, images[tap], out) for tap in others)]

    def spread(self, part: Array, windows: Windows, images: Array) -> Calls:
        pixels = [images[tap] for tap in windows.taps()]
        return [partial(images.fill, 0.0), *(partial(np.add, each, part, each) for each in pixels)]

    def turn(self, kernel: Array, op: Conv2DOp, out: Array) -> Calls:
        turned = kernel.reshape(*op.kernel_size, op.input_shape[2], op.filters)[::-1, ::-1].transpose(0, 1, 3, 2)
        return [partial(np.copyto, out.reshape(turned.shape), turned)]

    def bias_and_activate(self, rows: Array, bias: Array, function: str | None) -> Calls:
        added = [partial(np.add, rows, bias, rows)]
        return [*added, *self.activate(rows, function)] if function else [*added]

    def bias_back(self, y: Array, dy: Array, function: str | None, out: Array, arena: Arena) -> Calls:
        slope = self.activate_back(y, dy, function, arena) if function else []
        return [*slope, partial(np.sum, dy, 0, out=out)]

    def activate(self, y: Array, function: str) -> Calls:
        if function == "relu":
            flat = _lines(y)
            return [partial(np.maximum, flat, np.zeros(flat.shape[1], self.dtype), out=flat)]
        if function == "tanh":
            return [partial(np.tanh, y, y)]
        return [
            partial(np.negative, y, y),
            partial(np.exp, y, y),
            partial(np.add, y, 1.0, y),
            partial(np.reciprocal, y, y),
        ]

    def activate_back(self, y: Array, dy: Array, function: str, arena: Arena) -> Calls:
        if function == "relu":
            positive = arena.scratch("mask", y.shape, np.bool_)
            return [partial(np.greater, y, 0.0, positive), partial(np.multiply, dy, positive, dy)]
        slope = arena.scratch("slope", y.shape)
        if function == "tanh":
            calls: Calls = [partial(np.multiply, y, y, slope), partial(np.subtract, 1.0, slope, slope)]
        else:
            calls = [partial(np.subtract, 1.0, y, slope), partial(np.multiply, y, slope, slope)]
        return [*calls, partial(np.multiply, dy, slope, dy)]

    def max_pool(
        self, x: Array, y: Array, dy: Array | None, dx: Array | None, windows: Windows, arena: Arena
    ) -> tuple[Calls, Calls]:
        if windows.size == (2, 2) and not windows.overlap:
            return _pool_of_four(x, y, dy, dx, windows, arena)
        taps = [x[tap] for tap in windows.taps()]
        forward: Calls = [partial(np.copyto, y, taps[0])]
        forward += [partial(np.maximum, y, tap, out=y) for tap in taps[1:]]
        if dx is None or dy is None:
            return forward, []
        lower = arena.scratch("mask", y.shape, np.bool_)
        wins = arena.scratch("wins", y.shape, np.bool_)
        still_open = arena.scratch("open", y.shape, np.bool_)
        part = arena.scratch("part", y.shape)
        backward: Calls = [partial(dx.fill, 0.0), partial(still_open.fill, True)]
        for tap, place in zip(taps, windows.taps(), strict=True):
            backward += [
                partial(np.less, tap, y, lower),  # False for the maximum, and wherever there is a NaN
                partial(np.greater, still_open, lower, wins),  # open, and not lower than the maximum
                partial(np.logical_and, still_open, lower, still_open),
            ]
            if windows.overlap:
                backward += [partial(np.multiply, dy, wins, part), partial(np.add, dx[place], part, dx[place])]
            else:
                backward += [partial(np.multiply, dy, wins, dx[place])]
        return forward, backward

    def largest(
        self, parts: Array, y: Array, dy: Array | None, dparts: Array | None, arena: Arena
    ) -> tuple[Calls, Calls]:
        forward: Calls = [partial(np.maximum, parts[0], parts[1 % len(parts)], out=y)]
        forward += [partial(np.maximum, y, part, out=y) for part in parts[2:]]
        if dy is None or dparts is None:
            return forward, []
        lower, wins, still_open = (arena.scratch(name, y.shape, np.bool_) for name in ("mask", "wins", "open"))
        backward: Calls = [
            partial(np.less, parts[0], y, still_open),  # False for a maximum, and wherever there is a NaN
            partial(np.logical_not, still_open, wins),
            partial(np.multiply, dy, wins, dparts[0]),
        ]
        for part, dpart in zip(parts[1:], dparts[1:], strict=True):
            backward += [
                partial(np.less, part, y, lower),
                partial(np.greater, still_open, lower, wins),  # open, and not lower than the maximum
                partial(np.logical_and, still_open, lower, still_open),
                partial(np.multiply, dy, wins, dpart),
            ]
        return forward, backward

    def softmax(self, scores: Array, out: Array) -> Calls:
        return self.plain.softmax(scores, out)

    def cross_entropy(self, scores: Array, head: Head, dscores: Array) -> Calls:
        return self.plain.cross_entropy(scores, head, dscores)


def _windows_of(images: Array, windows: Windows) -> Array:
    """Every window as a view `(batch, height', width', window_height, window_width, channels)`."""
    batch, down, across, channel = images.strides
    strides = (
        batch,
        down * windows.strides[0],
        across * windows.strides[1],
        down * windows.dilation[0],
        across * windows.dilation[1],
        channel,
    )
    return as_strided(images, (len(images), *windows.output, *windows.size, images.shape[3]), strides)


def _stacked(matrix: Array, count: int, rows: int) -> Array:
    """The first `count * rows` rows of `matrix` as so many matrices: a view, for any strides."""
    down, across = matrix.strides
    return as_strided(matrix, (count, rows, matrix.shape[1]), (rows * down, down, across))


def _lines(array: Array) -> Array:
    """`array`, which is contiguous, as lines of up to some thousand numbers: a view."""
    length = array.shape[-1]
    rest = array.size // max(length, 1)
    for factor in (2, 3, 5, 7):
        while rest % factor == 0 and rest and length * factor <= LINE:
            rest, length = rest // factor, length * factor
    return array.reshape(rest, length)


def _pool_of_four(
    x: Array, y: Array, dy: Array | None, dx: Array | None, windows: Windows, arena: Arena
) -> tuple[Calls, Calls]:
    """Pools of 2 x 2 that do not overlap: the larger of each two neighbours, and then of each two rows.

    In this order the first of equal maxima, row by row, wins both times, and one comparison finds it.
    """
    height, width = windows.output
    down, across = windows.strides
    seen = slice(0, (height - 1) * down + 2)
    pair = [x[:, seen, place::across][:, :, :width] for place in (0, 1)]
    larger = arena.keep(pair[0].shape, x.dtype) if dx is not None else arena.scratch("larger", pair[0].shape, x.dtype)
    halves = [larger[:, place::down][:, :height] for place in (0, 1)]
    forward: Calls = [partial(np.maximum, *pair, out=larger), partial(np.maximum, *halves, out=y)]
    if dx is None or dy is None:
        return forward, []
    dlarger = arena.scratch("larger", larger.shape, x.dtype)
    dhalves = [dlarger[:, place::down][:, :height] for place in (0, 1)]
    dpair = [dx[:, seen, place::across][:, :, :width] for place in (0, 1)]
    backward: Calls = []
    if (seen.stop, (width - 1) * across + 2) != dx.shape[1:3] or across > 2:
        backward.append(partial(dx.fill, 0.0))
    if down > 2:
        backward.append(partial(dlarger.fill, 0.0))
    for parts, whole, gradients, gradient in ((halves, y, dhalves, dy), (pair, larger, dpair, dlarger)):
        loses = arena.scratch("mask", whole.shape, np.bool_)
        wins = arena.scratch("wins", whole.shape, np.bool_)
        backward += [
            partial(np.less, parts[0], whole, loses),  # False for a maximum, and wherever there is a NaN
            partial(np.logical_not, loses, wins),
            partial(np.multiply, gradient, wins, gradients[0]),
            partial(np.multiply, gradient, loses, gradients[1]),
        ]
    return forward, backward
