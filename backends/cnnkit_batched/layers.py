"""Layers for a slice of a batch: each puts calls of an engine into the rows that a network makes again and again.

    x  ->  layer  ->  y          `forward`   reads x, writes y
    dx <-  layer  <-  dy         `backward`  reads dy, writes dx and the gradients of the parameters

d stands for the derivative of the loss. `dx` is None where nothing further back learns, and everywhere in a network that
only predicts. How a convolution and its gradients work is told in cnnkit_numpy/layers.py; here each position in each of
the images has a row in the matrix of patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Shape
from cnnkit.plan import (
    ActivationOp,
    AvgPool2DOp,
    Conv2DOp,
    DenseOp,
    DropoutOp,
    FlattenOp,
    GrayscaleOp,
    MaxPool2DOp,
    PaddingPair,
    Pair,
    RescaleOp,
)
from cnnkit_batched.engine import A, Arena, Calls, Columns, Engine, Windows

MOST_EXTRA: Final = 1.6
"""The gradient of a convolution's input is worked out as a convolution where that has at most so many times the positions."""


@dataclass(frozen=True)
class Weights:
    """One layer's part of the vector of parameters: kernels `(size, filters)`, and the biases as one more row."""

    matrix: A
    gradient: A | None
    size: int
    has_bias: bool

    @property
    def kernel(self) -> A:
        """The matrix without the biases."""
        return self.matrix[: self.size, :]


@dataclass
class Layer:
    """The arrays and calls of one operation. `reset` renews what other networks may have overwritten in shared memory."""

    y: A
    dy: A | None = None
    forward: Calls = field(default_factory=list)
    backward: Calls = field(default_factory=list)
    reset: Calls = field(default_factory=list)


@dataclass(frozen=True)
class Site:
    """Where a layer is built: engine, memory, the layer's input `x`, and `dx` if the gradient of `x` is wanted.

    `output` makes an array for y; `gradient` one for dy, and is None where nothing learns up to here.
    """

    engine: Engine
    arena: Arena
    x: A
    dx: A | None
    output: Callable[[Shape], A]
    gradient: Callable[[Shape], A] | None

    def begin(self, output_shape: Shape) -> Layer:
        """A layer without calls, with new arrays."""
        shape = (self.x.shape[0], *output_shape)
        return Layer(self.output(shape), self.gradient(shape) if self.gradient else None)


# ------------------------------------------------------------------------------------- layers without parameters


def rescale(site: Site, op: RescaleOp) -> Layer:
    """`y = scale x + offset`, so `dx = scale dy`."""
    layer, engine = site.begin(op.output_shape), site.engine
    layer.forward = engine.multiply(site.x, op.scale, layer.y)
    layer.forward += engine.shift(layer.y, op.offset) if op.offset else []
    if site.dx is not None:
        layer.backward = engine.multiply(layer.dy, op.scale, site.dx)
    return layer


def grayscale(site: Site, op: GrayscaleOp) -> Layer:
    """`y = sum over channels of weight * x`, so `dx = weight * dy` for each channel."""
    layer, engine = site.begin(op.output_shape), site.engine
    channels = len(op.weights)
    weights = engine.constant(np.array(op.weights)[:, np.newaxis])  # (channels, 1)
    layer.forward = engine.product(_matrix(engine, site.x, channels), weights, _matrix(engine, layer.y, 1))
    if site.dx is not None:
        layer.backward = engine.product(_matrix(engine, layer.dy, 1), weights.T, _matrix(engine, site.dx, channels))
    return layer


def flatten(site: Site, op: FlattenOp) -> Layer:
    """The same numbers in a row, row-major: both arrays are views, so there is nothing to do."""
    shape = (site.x.shape[0], *op.output_shape)
    dy = None if site.dx is None else site.engine.reshaped(site.dx, shape)
    return Layer(site.engine.reshaped(site.x, shape), dy)


def activation(site: Site, op: ActivationOp, *, in_place: bool) -> Layer:
    """`y = function(x)`; in place where nobody needs x any more."""
    engine = site.engine
    if in_place:
        layer = Layer(site.x, site.dx)
    else:
        layer = site.begin(op.output_shape)
        layer.forward = engine.copy(site.x, layer.y)
    layer.forward += engine.activate(layer.y, op.function)
    if site.dx is not None:
        layer.backward = engine.activate_back(layer.y, layer.dy, op.function, site.arena)
        layer.backward += [] if in_place else engine.copy(layer.dy, site.dx)
    return layer


def max_pool(site: Site, op: MaxPool2DOp) -> Layer:
    """The maximum of each window; the first of equal maxima, in row-major order, gets the whole gradient."""
    layer, engine = site.begin(op.output_shape), site.engine
    windows = Windows(op.pool_size, op.strides, (1, 1), _image(op.output_shape))
    padded = engine.pad(site.x, op.padding, -np.inf, site.arena)
    dpadded = None if site.dx is None else engine.pad(site.dx, op.padding, 0.0, site.arena)
    dx = None if dpadded is None else dpadded.array
    forward, backward = engine.max_pool(padded.array, layer.y, layer.dy, dx, windows, site.arena)
    layer.forward, layer.reset = [*padded.take_in, *forward], padded.reset
    layer.backward = backward if dpadded is None else [*backward, *dpadded.hand_back]
    return layer


def avg_pool(site: Site, op: AvgPool2DOp) -> Layer:
    """The mean of each window over the pixels that are not padding, which share its gradient equally."""
    layer, engine = site.begin(op.output_shape), site.engine
    windows = Windows(op.pool_size, op.strides, (1, 1), _image(op.output_shape))
    padded = engine.pad(site.x, op.padding, 0.0, site.arena)
    dpadded = None if site.dx is None else engine.pad(site.dx, op.padding, 0.0, site.arena)
    dx = None if dpadded is None else dpadded.array
    share = _shares(op, windows)
    forward, backward = engine.avg_pool(padded.array, layer.y, layer.dy, dx, windows, share, site.arena)
    layer.forward, layer.reset = [*padded.take_in, *forward], padded.reset
    layer.backward = backward if dpadded is None else [*backward, *dpadded.hand_back]
    return layer


def _shares(op: AvgPool2DOp, windows: Windows) -> NDArray[np.float64]:
    """One over the number of pixels of each window that are not padding."""
    counts = []
    for axis in (0, 1):
        inside = np.pad(np.ones(op.input_shape[axis]), op.padding[axis])
        starts = np.arange(windows.output[axis]) * windows.strides[axis]
        counts.append(inside[starts[:, np.newaxis] + np.arange(windows.size[axis])].sum(axis=1))
    share: NDArray[np.float64] = 1 / np.outer(*counts)[:, :, np.newaxis]
    return share


@dataclass
class Dropping:
    """What one dropout layer keeps of a slice: `kept` is `(batch, ...)`, boolean, and filled in before each forward pass."""

    op: DropoutOp
    kept: A


def dropout(site: Site, op: DropoutOp) -> tuple[Layer, Dropping]:
    """Inverted dropout: what is kept is multiplied by `1 / (1 - rate)`, forward and backward."""
    layer, engine = site.begin(op.output_shape), site.engine
    kept = site.arena.keep(layer.y.shape, engine.boolean)
    scale = 1 / (1 - op.rate)
    layer.forward = [*engine.multiply(site.x, kept, layer.y), *engine.multiply(layer.y, scale, layer.y)]
    if site.dx is not None:
        layer.backward = [*engine.multiply(layer.dy, kept, site.dx), *engine.multiply(site.dx, scale, site.dx)]
    return layer, Dropping(op, kept)


# ---------------------------------------------------------------------------------------- layers with parameters


def dense(site: Site, op: DenseOp, weights: Weights, function: str | None) -> Layer:
    """Every input joined to every unit: `Y = X W`, `dW = X^T dY`, `dX = dY W^T`, with one row an image."""
    layer, engine = site.begin(op.output_shape), site.engine
    ones = weights.has_bias and engine.bias_in_columns
    columns = engine.inputs(site.arena, site.x, ones=ones)
    layer.forward = [*columns.fill, *_affine(engine, columns.matrix, weights, layer.y, function)]
    layer.reset = columns.reset
    if weights.gradient is None or layer.dy is None:
        return layer
    layer.backward = _before_affine(site, weights, layer.y, layer.dy, function)
    layer.backward += engine.product_over_rows(
        columns.matrix, layer.dy, _learned_by_product(engine, weights), site.arena
    )
    if site.dx is not None:
        layer.backward += engine.product(layer.dy, weights.kernel.T, site.dx)
    return layer


def convolution(site: Site, op: Conv2DOp, weights: Weights, function: str | None) -> Layer:
    """Patches times kernels, block by block, each with its biases and `function` while it is in the cache."""
    layer, engine = site.begin(op.output_shape), site.engine
    padded = engine.pad(site.x, op.padding, 0.0, site.arena)
    windows = Windows(op.kernel_size, op.strides, op.dilation, _image(op.output_shape))
    blocks = list(_blocks(site, padded.array, windows, op.filters, ones=weights.has_bias and engine.bias_in_columns))
    rows = _matrix(engine, layer.y, op.filters)
    layer.forward, layer.reset = [*padded.take_in], [*padded.reset]
    for block in blocks:
        layer.forward += block.gather
        layer.forward += _affine(engine, block.columns.matrix, weights, rows[block.rows, :], function)
    if weights.gradient is None or layer.dy is None:
        return layer
    drows = _matrix(engine, layer.dy, op.filters)
    layer.backward = _before_affine(site, weights, rows, drows, function)
    layer.backward += _weights_gradient(site, weights, [(block, drows[block.rows, :]) for block in blocks])
    if site.dx is not None:
        layer.backward += _input_gradient(site, op, weights, layer)
    return layer


def can_pool(site: Site, op: Conv2DOp, pool: MaxPool2DOp) -> bool:
    """Whether `pooled_convolution` does both at once: pools without a border that do not overlap, on an engine that likes it."""
    apart = all(stride >= size for stride, size in zip(pool.strides, pool.pool_size, strict=True))
    bare = pool.padding == ((0, 0), (0, 0))
    return site.engine.pools_by_place and apart and bare and (site.dx is None or _border_for_gradient(op) is not None)


def pooled_convolution(site: Site, op: Conv2DOp, pool: MaxPool2DOp, weights: Weights) -> Layer:
    """A convolution and the maxima of its pools, worked out by the places in a pool: all first pixels, all second ones...

    So the maxima are those of whole arrays, and positions that no pool sees are not worked out at all. For one place it
    is a convolution with the strides of both, on the images from that place on.
    """
    layer, engine, arena = site.begin(pool.output_shape), site.engine, site.arena
    padded = engine.pad(site.x, op.padding, 0.0, arena)
    down, across = op.strides[0] * pool.strides[0], op.strides[1] * pool.strides[1]
    windows = Windows(op.kernel_size, (down, across), op.dilation, _image(pool.output_shape))
    places = [(row, col) for row in range(pool.pool_size[0]) for col in range(pool.pool_size[1])]
    y = _matrix(engine, layer.y, op.filters)
    learns = weights.gradient is not None and layer.dy is not None
    shape = (len(places), *y.shape)
    parts = arena.keep(shape) if learns else arena.scratch("parts of pools", shape)
    layer.forward, layer.reset = [*padded.take_in], [*padded.reset]
    blocks: list[tuple[int, _Block]] = []
    for place, (row, col) in enumerate(places):
        seen = padded.array[:, row * op.strides[0] :, col * op.strides[1] :, :]
        for block in _blocks(site, seen, windows, op.filters, ones=weights.has_bias and engine.bias_in_columns):
            layer.forward += block.gather
            layer.forward += _affine(engine, block.columns.matrix, weights, parts[place, block.rows, :], None)
            blocks.append((place, block))
    if not learns:
        layer.forward += engine.largest(parts, y, None, None, arena)[0]
        return layer
    dparts = arena.scratch("gradients of pools", shape)
    forward, layer.backward = engine.largest(parts, y, _matrix(engine, layer.dy, op.filters), dparts, arena)
    layer.forward += forward
    rows, drows = (_matrix(engine, array, op.filters) for array in (parts, dparts))
    layer.backward += _before_affine(site, weights, rows, drows, None)
    layer.backward += _weights_gradient(
        site, weights, [(block, dparts[place, block.rows, :]) for place, block in blocks]
    )
    if site.dx is not None:
        layer.backward += _input_gradient_of_pools(site, op, pool, weights, layer, dparts)
    return layer


def _weights_gradient(site: Site, weights: Weights, blocks: Sequence[tuple[_Block, A]]) -> Calls:
    """The gradient of kernels, and of biases that are weights, summed over blocks with the gradients of their rows."""
    engine = site.engine
    total = _learned_by_product(engine, weights)
    part = total if len(blocks) == 1 else site.arena.scratch("gradient", total.shape)
    calls: Calls = []
    for number, (block, drows) in enumerate(blocks):
        into = part if number else total
        calls += block.gather
        calls += engine.product_over_rows(block.columns.matrix, drows, into, site.arena)
        calls += engine.add(part, total) if number else []
    return calls


def _input_gradient_of_pools(
    site: Site, op: Conv2DOp, pool: MaxPool2DOp, weights: Weights, layer: Layer, dparts: A
) -> Calls:
    """`dx` as `_input_gradient` has it, from the gradients by place; where no pool sees a position, its gradient is 0."""
    border = _border_for_gradient(op)
    assert border is not None  # noqa: S101 - `can_pool` has asked
    (top, bottom), (left, right) = border
    engine, count = site.engine, site.x.shape[0]
    height, width, filters = op.output_shape
    array = site.arena.keep((count, top + height + bottom, left + width + right, filters))
    layer.reset += engine.fill(array, 0.0)
    windows = Windows(pool.pool_size, pool.strides, (1, 1), _image(pool.output_shape))
    calls: Calls = []
    for place, (_, down, across) in enumerate(windows.taps()):
        pixels = array[:, top:, left:, :][:, down, across, :]
        calls += engine.copy(engine.reshaped(dparts[place, ...], (count, *pool.output_shape)), pixels)
    return [*calls, *_turned(site, op, weights, array)]


def _affine(engine: Engine, columns: A, weights: Weights, rows: A, function: str | None) -> Calls:
    """`rows = function(columns @ kernel + bias)`."""
    if weights.has_bias and not engine.bias_in_columns:
        calls = engine.product(columns, weights.kernel, rows)
        return [*calls, *engine.bias_and_activate(rows, weights.matrix[weights.size, :], function)]
    calls = engine.product(columns, weights.matrix, rows)
    return [*calls, *engine.activate(rows, function)] if function else calls


def _before_affine(site: Site, weights: Weights, y: A, dy: A, function: str | None) -> Calls:
    """`dy` becomes the gradient of what `function` took; and biases that are added after a product get theirs."""
    if weights.gradient is not None and weights.has_bias and not site.engine.bias_in_columns:
        return site.engine.bias_back(y, dy, function, weights.gradient[weights.size, :], site.arena)
    return site.engine.activate_back(y, dy, function, site.arena) if function else []


def _learned_by_product(engine: Engine, weights: Weights) -> A:
    """The gradient of the kernel, and of biases that are weights of a column of ones."""
    gradient: A = weights.gradient
    return gradient if engine.bias_in_columns else gradient[: weights.size, :]


def _input_gradient(site: Site, op: Conv2DOp, weights: Weights, layer: Layer) -> Calls:
    """`dx` from `dy`.

    With strides of 1 it is a convolution itself: of dy, with a border, and the kernels turned by half a turn, filters and
    channels in each other's place. Otherwise every patch gets a gradient, and a pixel the sum of those it is part of.
    """
    engine, arena = site.engine, site.arena
    channels = op.input_shape[2]
    border = _border_for_gradient(op)
    if border is None:
        calls: Calls = []
        dpadded = engine.pad(site.dx, op.padding, 0.0, arena)
        windows = Windows(op.kernel_size, op.strides, op.dilation, _image(op.output_shape))
        dy_of_all: A = layer.dy
        for images in _images_a_block(site, windows, weights.size, op.filters):
            dy = _matrix(engine, dy_of_all[images, ...], op.filters)
            parts = arena.scratch("columns", (dy.shape[0], weights.size))
            calls += engine.product(dy, weights.kernel.T, parts)
            by_window = engine.reshaped(parts, (-1, *windows.output, *windows.size, channels))
            calls += engine.scatter(by_window, windows, dpadded.array[images, ...])
        return [*calls, *dpadded.hand_back]
    padded = engine.pad(layer.dy, border, 0.0, arena)
    layer.reset += padded.reset
    return [*padded.take_in, *_turned(site, op, weights, padded.array)]


def _turned(site: Site, op: Conv2DOp, weights: Weights, dy: A) -> Calls:
    """`dx` by a convolution of `dy`, which has its border."""
    engine = site.engine
    height, width, channels = op.input_shape
    windows = Windows(op.kernel_size, (1, 1), op.dilation, (height, width))
    turned = site.arena.keep((windows.area * op.filters, channels))
    calls = engine.turn(weights.kernel, op, turned)
    rows = _matrix(engine, site.dx, channels)
    for block in _blocks(site, dy, windows, channels, ones=False):
        calls += [*block.gather, *engine.product(block.columns.matrix, turned, rows[block.rows, :])]
    return calls


def _border_for_gradient(op: Conv2DOp) -> PaddingPair | None:
    """The border around dy with which its convolution is as large as the input; None where that does not pay or cannot be."""
    border = []
    for axis in (0, 1):
        before = op.dilation[axis] * (op.kernel_size[axis] - 1) - op.padding[axis][0]
        after = op.input_shape[axis] - op.output_shape[axis] + op.padding[axis][0]
        border.append((before, after))
    area, area_before = (shape[0] * shape[1] for shape in (op.output_shape, op.input_shape))
    if op.strides != (1, 1) or area_before > MOST_EXTRA * area or min(map(min, border)) < 0:
        return None
    return border[0], border[1]


@dataclass(frozen=True)
class _Block:
    """Some images, or some rows of one image: the calls that gather its patches, and its rows among all."""

    columns: Columns
    gather: Calls
    rows: slice


def _images_a_block(site: Site, windows: Windows, size: int, filters: int) -> Iterator[slice]:
    """Images in blocks that the engine likes, each at least one image."""
    count = site.x.shape[0]
    numbers = windows.output[0] * windows.output[1] * size
    step = max(1, _most(site.engine, size, filters) // numbers) if site.engine.block else count
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _most(engine: Engine, size: int, filters: int) -> int:
    """Numbers in a block: as the engine likes, but at least as many as the weights have, which every block reads again."""
    return max(engine.block, size * filters)


def _blocks(site: Site, images: A, windows: Windows, filters: int, *, ones: bool) -> Iterator[_Block]:
    engine, channels = site.engine, images.shape[3]
    (height, width), size = windows.output, windows.area * channels + ones
    most = _most(engine, size, filters)
    if not engine.block or height * width * size <= most:
        parts = [(part, 0, height) for part in _images_a_block(site, windows, size, filters)]
    else:
        pieces = -(-height * width * size // most)
        step = -(-height // pieces)
        firsts = range(0, height, step)
        parts = [
            (slice(image, image + 1), first, min(step, height - first))
            for image in range(images.shape[0])
            for first in firsts
        ]
    for part, first, count in parts:
        band, seen = windows.rows(first, count)
        view = images[part, band, :, :] if count < height else images[part, ...]
        columns = engine.columns(site.arena, (part.stop - part.start, count, width), seen, channels, ones=ones)
        begin = (part.start * height + first) * width
        rows = slice(begin, begin + (part.stop - part.start) * count * width)
        yield _Block(columns, engine.gather(view, seen, columns), rows)


def _image(shape: Shape) -> Pair:
    """Height and width of a shape `(height, width, channels)`."""
    return shape[0], shape[1]


def _matrix(engine: Engine, array: A, columns: int) -> A:
    """`array`, which is contiguous, as a matrix with so many columns: a view."""
    return engine.reshaped(array, (-1, columns))
