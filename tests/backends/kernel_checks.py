"""What each CUDA kernel must compute, worked out plainly in float64, for kernels that `Runner` launches.

Outputs hold NaN, or a mark, before a kernel runs: what it leaves unwritten is seen. CHECKS has all checks by their names.
"""

import math
from dataclasses import dataclass

import numpy as np

from cnnkit.optimizers import SGD, Adam, AdamW
from cnnkit_cupy import sources

MARK = 77
FUNCTIONS = {"none": 0, "relu": 1, "tanh": 2, "sigmoid": 3}
MODES = ("as-launched", "backward", "cramped")
"""As the backend launches; from the last thread to the first; with so few threads that each has to come round again."""

CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


class Runner:
    """Launches kernels for `dtype` in one of the MODES, and makes the arrays for them."""

    def __init__(self, kernels, dtype, mode):
        self.kernels, self.dtype, self.mode = kernels, np.dtype(dtype), mode
        self.eps = float(np.finfo(dtype).eps)
        self.random = np.random.default_rng(5)

    def __call__(self, name, *arguments):
        launch = sources.prepare(name, *arguments)
        grid, block = launch.grid, launch.block
        if self.mode == "cramped":
            shares = name in {"bias_gradient_partial", "square_sum"}  # the grid says how many sums there are
            grid = (grid[0] if shares else 1, *[1] * (len(grid) - 1))
            warps = name.startswith("softmax")
            block = (block[0] if warps else min(block[0], 2), *(min(size, 3) for size in block[1:]))
        self.kernels.launch(name, grid, block, arguments, backward=self.mode == "backward")

    def real(self, values):
        return np.array(values, self.dtype, order="C")

    def normal(self, *shape):
        return self.random.normal(size=shape).astype(self.dtype)

    def whole(self, *shape, below=4):
        """Small whole numbers, whose sums are exact in any order, and many of which are equal."""
        return self.random.integers(-below, below, shape).astype(self.dtype)

    def poisoned(self, *shape, dtype=None):
        dtype = np.dtype(dtype or self.dtype)
        return np.full(shape, np.nan if dtype.kind == "f" else MARK, dtype)

    def close(self, found, expected, units=4.0, blur=0.0):
        """Within `units` of rounding of each number, or of 1 for those that are smaller; and `blur` more."""
        expected = np.asarray(expected, np.float64)
        bound = units * self.eps * np.maximum(np.abs(np.where(np.isfinite(expected), expected, 1)), 1) + blur
        with np.errstate(invalid="ignore"):
            right = (np.abs(found - expected) <= bound) | (found == expected) | (np.isnan(found) & np.isnan(expected))
        assert found.shape == expected.shape
        assert right.all(), f"{found[~right][:5]} instead of {expected[~right][:5]} at {np.argwhere(~right)[:5]}"


def same(found, expected):
    np.testing.assert_array_equal(found, np.asarray(expected))


# ------------------------------------------------------------------------------------------------------------- windows


@dataclass(frozen=True)
class Windows:
    """Windows over a batch of images; `padding` is ((top, bottom), (left, right))."""

    images: int
    height: int
    width: int
    channels: int
    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)

    @property
    def shape(self):
        return self.images, self.height, self.width, self.channels

    @property
    def out(self):
        """How many windows there are, down and across."""
        return tuple(
            (length + sum(padding) - step * (size - 1) - 1) // stride + 1
            for length, padding, step, size, stride in zip(
                self.shape[1:3], self.padding, self.dilation, self.size, self.strides, strict=True
            )
        )

    @property
    def arguments(self):
        """As the kernels of pooling take them."""
        return (*self.shape, *self.out, *self.size, *self.strides, self.padding[0][0], self.padding[1][0])

    @property
    def dilated_arguments(self):
        """As the kernels of convolution take them."""
        return (*self.arguments[:-2], *self.dilation, *self.arguments[-2:])

    def meetings(self):
        """(out_row, out_column, tap_y, tap_x, row, column) for each pixel in each window."""
        for out_row, out_column, tap_y, tap_x in np.ndindex(*self.out, *self.size):
            row = out_row * self.strides[0] + tap_y * self.dilation[0] - self.padding[0][0]
            column = out_column * self.strides[1] + tap_x * self.dilation[1] - self.padding[1][0]
            if 0 <= row < self.height and 0 <= column < self.width:
                yield out_row, out_column, tap_y, tap_x, row, column


POOLS = [
    Windows(1, 1, 1, 1, (1, 1)),
    Windows(2, 4, 6, 3, (2, 2), (2, 2)),
    Windows(3, 5, 7, 2, (2, 3)),
    Windows(5, 5, 5, 1, (2, 2), (3, 3)),  # gaps between windows
    Windows(2, 7, 8, 3, (1, 2), (3, 4)),
    Windows(1, 9, 4, 2, (3, 2), (2, 1), ((1, 2), (0, 1))),  # uneven padding, overlap
    Windows(4, 6, 5, 2, (3, 3), (1, 2), ((2, 2), (2, 1))),
    Windows(2, 3, 4, 17, (3, 4)),  # one window
    Windows(2, 8, 7, 2, (3, 3), (2, 2), ((1, 1), (0, 0))),  # a row is left over
    Windows(1, 2, 3, 300, (2, 2)),  # more channels than threads in a block
    Windows(1, 2, 70, 17, (2, 2), (1, 1)),  # more pixels in a row than a block has threads for
]
CONVOLUTIONS = [
    *POOLS,
    Windows(2, 7, 6, 3, (2, 3), dilation=(2, 2)),
    Windows(1, 9, 8, 2, (3, 2), (2, 3), ((3, 1), (0, 4)), (3, 2)),
    Windows(2, 5, 4, 3, (2, 2), (1, 1), ((3, 0), (0, 3))),  # windows that hold nothing but padding
    Windows(3, 6, 6, 1, (1, 1), (2, 2)),
    Windows(1, 4, 5, 40, (3, 3), (1, 1), ((1, 1), (1, 1))),  # more numbers in a patch than threads in a block
]


@check
def im2col_lays_out_patches(run):
    for case in CONVOLUTIONS:
        x = run.normal(*case.shape)
        expected = np.zeros((case.images, *case.out, *case.size, case.channels))
        for out_row, out_column, tap_y, tap_x, row, column in case.meetings():
            expected[:, out_row, out_column, tap_y, tap_x] = x[:, row, column]
        patches = run.poisoned(*expected.shape)
        run("im2col", x, patches, *case.dilated_arguments)
        same(patches, expected)


@check
def col2im_adds_up_patches(run):
    for case in CONVOLUTIONS:
        dpatches = run.whole(case.images, *case.out, *case.size, case.channels)
        expected = np.zeros(case.shape)
        for out_row, out_column, tap_y, tap_x, row, column in case.meetings():
            expected[:, row, column] += dpatches[:, out_row, out_column, tap_y, tap_x]
        dx = run.poisoned(*case.shape)
        run("col2im", dpatches, dx, *case.dilated_arguments)
        same(dx, expected)


@check
def col2im_keeps_nan_out_of_other_pixels(run):
    case = Windows(1, 4, 5, 2, (2, 2), (1, 2), ((1, 0), (0, 1)))
    dpatches = run.whole(1, *case.out, 2, 2, 2)
    dpatches[0, 2, 1, 1, 0, 1] = np.nan  # row 2 + 1 - 1, column 2
    dx = run.poisoned(*case.shape)
    run("col2im", dpatches, dx, *case.dilated_arguments)
    assert np.argwhere(np.isnan(dx)).tolist() == [[0, 2, 2, 1]]


@check
def no_images_are_no_work(run):
    none, case = run.poisoned(0), Windows(0, 4, 5, 2, (2, 2))
    for name in ("im2col", "col2im"):
        run(name, none, none, *case.dilated_arguments)
    run("max_pool", none, none, None, *case.arguments)
    run("avg_pool", none, none, *case.arguments)
    run("gather_images_reals", none, np.zeros(0, np.int64), none, 0, 5, 1.0, 0.0)
    run("bias_activation", none, run.normal(3), 0, 3, FUNCTIONS["relu"])
    run("softmax", none, none, 0, 3)
    same(_bias_gradient(run, run.poisoned(0, 3)), [0, 0, 0])


def _maxima(case, x):
    """The maximum of each window and its winner: numbers of windows with minus infinity wherever there is padding."""
    values = np.full((*case.size, case.images, *case.out, case.channels), -np.inf)
    for out_row, out_column, tap_y, tap_x, row, column in case.meetings():
        values[tap_y, tap_x, :, out_row, out_column] = x[:, row, column]
    values = values.reshape(-1, *values.shape[2:])
    y = values.max(axis=0)
    return y, np.where(np.isnan(y), 0, np.argmax(values == y, axis=0))


def _given_back(case, winners, dy):
    dx = np.zeros(case.shape)
    for out_row, out_column, tap_y, tap_x, row, column in case.meetings():
        won = winners[:, out_row, out_column] == tap_y * case.size[1] + tap_x
        dx[:, row, column] += np.where(won, dy[:, out_row, out_column], 0)
    return dx


def _check_max_pool(run, case, x, dy):
    y, winners = _maxima(case, x)
    found, places = run.poisoned(*y.shape), run.poisoned(*y.shape, dtype=np.int32)
    run("max_pool", x, found, places, *case.arguments)
    same(found, y)
    same(places, winners)
    alone = run.poisoned(*y.shape)
    run("max_pool", x, alone, None, *case.arguments)
    same(alone, y)
    dx = run.poisoned(*case.shape)
    run("max_pool_backward", dy, places, dx, *case.arguments)
    same(dx, _given_back(case, winners, dy))


@check
def max_pool_of_numbers_with_ties(run):
    for case in POOLS:
        _check_max_pool(run, case, run.whole(*case.shape, below=2), run.whole(case.images, *case.out, case.channels))


@check
def max_pool_of_nan_at_each_place(run):
    for case in (Windows(1, 3, 4, 2, (2, 3)), Windows(1, 4, 3, 1, (3, 2), (2, 2), ((1, 1), (1, 0)))):
        for place in np.ndindex(*case.shape):
            x = run.whole(*case.shape)
            x[place] = np.nan
            _check_max_pool(run, case, x, run.whole(1, *case.out, case.channels))


@check
def max_pool_of_infinities(run):
    case = Windows(2, 4, 5, 2, (3, 3), (2, 2), ((1, 1), (1, 1)))
    lowest = float(np.finfo(run.dtype).min)
    for fill, other in ((-np.inf, lowest), (lowest, -np.inf), (-np.inf, -np.inf), (1.0, np.inf), (np.inf, np.nan)):
        x = np.full(case.shape, fill, run.dtype)
        x[:, ::2, 1::2] = other
        _check_max_pool(run, case, x, run.whole(2, *case.out, 2))


@check
def max_pool_gives_losers_zero_beside_infinity(run):
    x, dx = run.real([1, 5, 2, 3]).reshape(1, 1, 4, 1), run.poisoned(1, 1, 4, 1)
    case = Windows(1, 1, 4, 1, (1, 2), (1, 2))
    y, winners = run.poisoned(1, 1, 2, 1), run.poisoned(1, 1, 2, 1, dtype=np.int32)
    run("max_pool", x, y, winners, *case.arguments)
    run("max_pool_backward", run.real([np.inf, np.nan]).reshape(1, 1, 2, 1), winners, dx, *case.arguments)
    same(dx.ravel(), [0, np.inf, 0, np.nan])


@check
def avg_pool_counts_no_padding(run):
    for case in POOLS:
        x, dy = run.normal(*case.shape), run.normal(case.images, *case.out, case.channels)
        sums, counts, dx = np.zeros(dy.shape), np.zeros(case.out), np.zeros(case.shape)
        for out_row, out_column, _, _, row, column in case.meetings():
            sums[:, out_row, out_column] += x[:, row, column]
            counts[out_row, out_column] += 1
        for out_row, out_column, _, _, row, column in case.meetings():
            dx[:, row, column] += dy[:, out_row, out_column] / counts[out_row, out_column]
        y, found = run.poisoned(*dy.shape), run.poisoned(*case.shape)
        run("avg_pool", x, y, *case.arguments)
        run.close(y, sums / counts[..., None], units=16)
        run("avg_pool_backward", dy, found, *case.arguments)
        run.close(found, dx, units=16)


@check
def avg_pool_keeps_nan_in_its_windows(run):
    case = Windows(1, 4, 4, 2, (2, 2), (2, 2))
    x, y = run.whole(*case.shape), run.poisoned(1, 2, 2, 2)
    x[0, 1, 2, 1], x[0, 3, 0, 0] = np.nan, np.inf
    run("avg_pool", x, y, *case.arguments)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 1, 1]]
    assert np.argwhere(np.isinf(y)).tolist() == [[0, 1, 0, 0]]
    dx = run.poisoned(*case.shape)
    run("avg_pool_backward", y, dx, *case.arguments)
    assert np.argwhere(np.isnan(dx)).tolist() == [[0, row, column, 1] for row in (0, 1) for column in (2, 3)]


# ---------------------------------------------------------------------------------------------------- number by number


@check
def gather_images_takes_those_asked_for(run):
    for images, pixels in ((1, 1), (5, 12), (3, 784), (2, 3000)):
        order = np.array([images + 1, 0, 3, 0, images + 1][:images], np.int64)
        data = run.random.integers(0, 256, (images + 2, pixels)).astype(np.uint8)
        data[0], data[-1] = 255, 0
        x = run.poisoned(images, pixels)
        run("gather_images_bytes", data, order, x, images, pixels, 1 / 255, -0.5)
        run.close(x, data[order] / 255 - 0.5, units=2)
        reals = run.normal(images + 4, pixels)
        reals[3, 0] = np.nan
        x = run.poisoned(images, pixels)
        run("gather_images_reals", reals, order, x, images, pixels, 2.0, 0.25)
        run.close(x, reals[order].astype(np.float64) * 2 + 0.25)


@check
def gather_labels_takes_those_asked_for(run):
    labels, order = np.array([5, 0, 33_000, 7], np.int32), np.array([3, 3, 2, 0, 1] * 60, np.int64)
    batch = run.poisoned(300, dtype=np.int32)
    run("gather_labels", labels, order, batch, 300)
    assert batch.tolist() == [7, 7, 33_000, 5, 0] * 60


@check
def rescale_of_numbers(run):
    x = run.normal(1000)
    x[:3] = np.nan, np.inf, -np.inf
    y = run.poisoned(1000)
    run("rescale", x, y, 1000, -2.0, 0.5)
    run.close(y, x.astype(np.float64) * -2 + 0.5)
    run("rescale", x, x, 1000, 0.0, 1.0)  # in place
    same(x, [np.nan] * 3 + [1] * 997)


@check
def grayscale_weighs_channels(run):
    for pixels, channels in ((1, 1), (7, 2), (600, 3), (5, 17)):
        x, weights, dy = run.normal(pixels, channels), run.normal(channels), run.normal(pixels)
        y, dx = run.poisoned(pixels), run.poisoned(pixels, channels)
        run("grayscale", x, weights, y, pixels, channels)
        run.close(y, x.astype(np.float64) @ weights.astype(np.float64), units=4 * channels)
        run("grayscale_backward", dy, weights, dx, pixels, channels)
        run.close(dx, np.outer(dy.astype(np.float64), weights))


def _activated(x, name):
    with np.errstate(over="ignore"):
        return {
            "none": lambda: x,
            "relu": lambda: np.where(x < 0, 0, x),
            "tanh": lambda: np.tanh(x),
            "sigmoid": lambda: 1 / (1 + np.exp(-x)),
        }[name]()


def _slope(y, name):
    return {"none": np.ones_like(y), "relu": np.where(y > 0, 1.0, 0.0), "tanh": 1 - y**2, "sigmoid": y * (1 - y)}[name]


MATRICES = [(1, 1), (5, 3), (300, 1), (40, 17), (1000, 2), (3, 256), (7, 257), (2, 1024)]


@check
def bias_activation_of_rows(run):
    for rows, filters in MATRICES:
        for name, number in FUNCTIONS.items():
            x, bias = run.normal(rows, filters), run.normal(filters)
            x[0, 0] = 0
            y = x.copy()
            run("bias_activation", y, bias, rows, filters, number)
            run.close(y, _activated(x + bias.astype(np.float64), name))
            y = x.copy()
            run("bias_activation", y, None, rows, filters, number)
            run.close(y, _activated(x.astype(np.float64), name))


@check
def bias_activation_of_special_numbers(run):
    special = [np.nan, np.inf, -np.inf, 0.0, 1e30, -1e30]
    for name, expected in {
        "none": special,
        "relu": [np.nan, np.inf, 0, 0, run.dtype.type(1e30), 0],
        "tanh": [np.nan, 1, -1, 0, 1, -1],
        "sigmoid": [np.nan, 1, 0, 0.5, 1, 0],
    }.items():
        y = run.real(special)
        run("bias_activation", y, None, 2, 3, FUNCTIONS[name])
        same(y, run.real(expected))


@check
def activation_backward_multiplies_by_the_slope(run):
    for name, number in FUNCTIONS.items():
        y, dy = _activated(run.normal(700), name).astype(run.dtype), run.normal(700)
        found = dy.copy()
        run("activation_backward", found, y, 700, number)
        run.close(found, dy * _slope(y.astype(np.float64), name))


@check
def activation_backward_of_special_numbers(run):
    dy = run.real([np.inf, np.nan, 2, 2, np.inf, 3])
    run("activation_backward", dy, run.real([0, 0, 0, -1, 1, np.nan]), 6, FUNCTIONS["relu"])
    same(dy, [np.nan, np.nan, 0, 0, np.inf, 0])  # 0 times infinity is NaN; a slope at NaN is 0, as nothing is above it
    dy = run.real([2, 2, 2])
    run("activation_backward", dy, run.real([1, -1, np.nan]), 3, FUNCTIONS["tanh"])
    same(dy, [0, 0, np.nan])
    dy = run.real([2, 2, 2])
    run("activation_backward", dy, run.real([0, 1, np.nan]), 3, FUNCTIONS["sigmoid"])
    same(dy, [0, 0, np.nan])


def _bias_gradient(run, dy, y=None, function=0, dbias=None):
    rows, filters = dy.shape
    blocks = sources.shares_of_rows(rows, filters)
    partial, add = run.poisoned(blocks, filters, dtype=np.float64), dbias is not None
    dbias = run.poisoned(filters) if dbias is None else dbias
    run("bias_gradient_partial", dy, y, partial, rows, filters, function)
    run("bias_gradient", partial, dbias, blocks, filters, int(add))
    return dbias


@check
def bias_gradient_sums_rows(run):
    for rows, filters in [*MATRICES, (9000, 5), (20_000, 1)]:
        dy = run.normal(rows, filters)
        before = dy.copy()
        expected = np.array([math.fsum(column) for column in dy.T.astype(np.float64)])
        blur = 1e-15 * np.abs(dy).sum(axis=0, dtype=np.float64)  # the sum is made in float64
        run.close(_bias_gradient(run, dy), expected, 1, blur)
        same(dy, before)
        run.close(_bias_gradient(run, dy, dbias=run.real([1000] * filters)), expected + 1000, 1, blur)


@check
def bias_gradient_cancels_exactly(run):
    dy = np.zeros((3000, 2), run.dtype)
    dy[5], dy[2000], dy[2999] = 1e9, -1e9, 1
    same(_bias_gradient(run, dy), [1, 1])
    dy[7, 1] = np.nan
    same(_bias_gradient(run, dy), [1, np.nan])


@check
def bias_gradient_through_an_activation(run):
    for rows, filters in [*MATRICES, (5000, 3)]:
        for name, number in FUNCTIONS.items():
            y, dy = _activated(run.normal(rows, filters), name).astype(run.dtype), run.normal(rows, filters)
            expected = dy * _slope(y.astype(np.float64), name)
            found = dy.copy()
            dbias = _bias_gradient(run, found, y, number)
            run.close(found, expected)
            run.close(dbias, found.sum(axis=0, dtype=np.float64), 1, 1e-15 * np.abs(found).sum(axis=0))
    dy = run.real([[np.inf], [1]])
    same(_bias_gradient(run, dy, run.real([[0], [1]]), FUNCTIONS["relu"]), [np.nan])
    same(dy, [[np.nan], [1]])


@check
def dropout_multiplies(run):
    x, kept = run.normal(999), (run.random.random(999) < 0.5).astype(np.uint8)
    x[:4], kept[:4] = [np.nan, np.inf, np.nan, np.inf], [0, 0, 1, 1]
    with np.errstate(invalid="ignore"):
        expected = x * np.where(kept, 1.25, 0.0)
    run("dropout", x, kept, 999, 1.25)
    run.close(x, expected)


# --------------------------------------------------------------------------------------------------- scores and losses


def _probabilities(scores):
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


SCORES = [(1, 1), (3, 2), (20, 10), (5, 31), (4, 32), (9, 33), (2, 257), (1, 3001)]


@check
def softmax_of_rows(run):
    for rows, classes in SCORES:
        scores = run.normal(rows, classes) * 3
        found = run.poisoned(rows, classes)
        run("softmax", scores, found, rows, classes)
        expected = _probabilities(scores.astype(np.float64))
        assert np.abs(found / expected - 1).max() < 20 * run.eps
        run("softmax", scores, scores, rows, classes)  # in place
        same(scores, found)


EXTREME = [
    ([300, -100, 500], [0, 0, 1]),
    ([-1e30, 1e30, 0], [0, 1, 0]),
    ([1e30, 1e30, -np.inf], [0.5, 0.5, 0]),
    ([2, 2, -np.inf], [0.5, 0.5, 0]),
    ([-np.inf, -np.inf, -np.inf], [np.nan] * 3),
    ([1, np.inf, 2], [np.nan, np.nan, np.nan]),
    ([1, np.nan, 2], [np.nan] * 3),
    ([np.nan, np.inf, -np.inf], [np.nan] * 3),
    ([np.nan, np.nan, np.nan], [np.nan] * 3),
    ([4, 4, 4], [1 / 3] * 3),
]


@check
def softmax_of_extreme_scores(run):
    scores, expected = (run.real([row[side] for row in EXTREME]) for side in (0, 1))
    found = run.poisoned(*scores.shape)
    run("softmax", scores, found, *scores.shape)
    run.close(found, expected)
    losses, dscores = run.poisoned(len(scores), dtype=np.float64), run.poisoned(*scores.shape)
    labels = np.ones(len(scores), np.int32)
    run("softmax_cross_entropy", scores, labels, dscores, losses, *scores.shape, 1.0)
    run.close(dscores, expected - [0, 1, 0])
    log_2, nan = math.log(2), np.nan
    run.close(losses, [600, 0, log_2, log_2, nan, nan, nan, nan, nan, math.log(3)])


@check
def cross_entropy_of_rows(run):
    for rows, classes in SCORES:
        scores = run.normal(rows, classes) * 3
        labels = run.random.integers(0, classes, rows).astype(np.int32)
        labels[0] = classes - 1
        dscores, losses = run.poisoned(rows, classes), run.poisoned(rows, dtype=np.float64)
        run("softmax_cross_entropy", scores, labels, dscores, losses, rows, classes, 0.125)
        probabilities = _probabilities(scores.astype(np.float64))
        run.close(losses, -np.log(probabilities[np.arange(rows), labels]), units=20)
        run.close(dscores * 8, probabilities - np.eye(classes)[labels], units=20)


@check
def cross_entropy_of_ruled_out_and_sure_classes(run):
    scores, labels = run.real([[0, -np.inf], [0, -np.inf], [12, 0], [1e30, 1e30]]), np.array([0, 1, 0, 1], np.int32)
    dscores, losses = run.poisoned(4, 2), run.poisoned(4, dtype=np.float64)
    run("softmax_cross_entropy", scores, labels, dscores, losses, 4, 2, 1.0)
    same(losses[:2], [0, np.inf])
    same(dscores[:2], [[0, 0], [1, -1]])
    assert math.isclose(losses[2], math.log1p(math.exp(-12)), rel_tol=max(8 * run.eps, 1e-10))
    assert math.isclose(losses[3], math.log(2), rel_tol=1e-12)


@check
def sum_losses_sets_and_adds(run):
    for rows in (1, 2, 255, 256, 257, 3000):
        losses, total = run.random.random(rows), run.poisoned(1, dtype=np.float64)
        run("sum_losses", losses, total, rows, 0.5, 0)
        expected = math.fsum(losses) / 2
        assert math.isclose(total[0], expected, rel_tol=1e-13)
        run("sum_losses", losses, total, rows, 1.0, 1)
        assert math.isclose(total[0], 3 * expected, rel_tol=1e-13)
    for bad in (np.nan, np.inf):
        losses[2000] = bad
        run("sum_losses", losses, total, rows, 0.5, 0)
        same(total, [bad])


# ----------------------------------------------------------------------------------------------------------- the update


@check
def step_coefficients_count_and_correct(run):
    for rates, beta_1, beta_2, decay in (([0.1, 0.05, 0.2], 0.9, 0.999, 0.01), ([0.1, 0.3, 0.2], 0.0, 0.0, 0.0)):
        step = np.array([4], np.int64)
        for number, rate in enumerate(rates):
            coefficients = run.poisoned(3, dtype=np.float64)
            run("step_coefficients", step, np.array([rate]), coefficients, beta_1, beta_2, decay)
            t = 5 + number
            assert step.tolist() == [t]
            expected = [1 - rate * decay, rate / (1 - math.prod([beta_1] * t)), 1 - math.prod([beta_2] * t)]
            np.testing.assert_allclose(coefficients, expected, rtol=1e-12)


@check
def clip_factor_of_the_norm(run):
    for count, limit in ((1, 1e-3), (255, 1.0), (257, 1.0), (5000, 1e6), (300_000, 3.0)):
        g = run.normal(count)
        norm = math.sqrt(math.fsum(np.square(g, dtype=np.float64)))
        np.testing.assert_allclose(_factor(run, g, limit), min(1, limit / norm), rtol=1e-12)
    same(_factor(run, run.real([3, 4]), 5.0), 1.0)
    same(_factor(run, run.real([3, np.nan]), 5.0), 1.0)
    same(_factor(run, run.real([3, -np.inf]), 5.0), 0.0)
    # Squares beyond float32 are not beyond the sum.
    np.testing.assert_allclose(_factor(run, run.real([3e30, 4e30]), 5.0), 1e-30, rtol=1e-6)


def _factor(run, g, limit):
    blocks = sources.shares_of_vector(g.size)
    partial, factor = run.poisoned(blocks, dtype=np.float64), run.poisoned(1, dtype=np.float64)
    run("square_sum", g, partial, g.size)
    run("clip_factor", partial, factor, blocks, limit)
    return factor[0]


COUNT = 700
OPTIMIZERS = [
    SGD(learning_rate=0.1),
    SGD(learning_rate=0.1, weight_decay=0.02),
    SGD(learning_rate=0.1, momentum=0.9),
    SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.02),
    Adam(learning_rate=0.01, beta_1=0.8, beta_2=0.95, epsilon=1e-3),
    Adam(),
    AdamW(learning_rate=0.01, weight_decay=0.3, epsilon=1e-3),
]


def _step(run, optimizer, p, g, slots, step, factor):
    """One step of `optimizer` by the kernels; `step` (1) is advanced."""
    adam = not isinstance(optimizer, SGD)
    betas = (optimizer.beta_1, optimizer.beta_2) if adam else (0.0, 0.0)
    decay = optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0
    coefficients = run.poisoned(3, dtype=np.float64)
    run("step_coefficients", step, np.array([optimizer.learning_rate]), coefficients, *betas, decay)
    if adam:
        name = "update_adamw" if isinstance(optimizer, AdamW) else "update_adam"
        run(name, p, g, *slots, p.size, coefficients, factor, *betas, optimizer.epsilon)
    else:
        (velocity,) = slots or (None,)
        rest = (optimizer.momentum, int(optimizer.nesterov), optimizer.weight_decay)
        run("update_sgd", p, g, velocity, p.size, coefficients, factor, *rest)


def _textbook(optimizer, p, gradients, factor):
    """The parameter after steps from 0 with these gradients, by the formulas as they stand in the papers."""
    velocity = m = v = 0.0
    for t, gradient in enumerate(gradients, 1):
        g = gradient * factor
        if isinstance(optimizer, SGD):
            g += optimizer.weight_decay * p
            velocity = optimizer.momentum * velocity + g
            p -= optimizer.learning_rate * (g + optimizer.momentum * velocity if optimizer.nesterov else velocity)
        else:
            if isinstance(optimizer, AdamW):
                p -= optimizer.learning_rate * optimizer.weight_decay * p
            m = optimizer.beta_1 * m + (1 - optimizer.beta_1) * g
            v = optimizer.beta_2 * v + (1 - optimizer.beta_2) * g**2
            corrected = m / (1 - optimizer.beta_1**t), v / (1 - optimizer.beta_2**t)
            p -= optimizer.learning_rate * corrected[0] / (math.sqrt(corrected[1]) + optimizer.epsilon)
    return p


@check
def updates_follow_the_formulas(run):
    for optimizer in OPTIMIZERS:
        for factor in (None, np.array([0.25])):
            start, gradients = run.normal(COUNT), [run.normal(COUNT) for _ in range(3)]
            expected = [
                _textbook(optimizer, *numbers, 1.0 if factor is None else 0.25)
                for numbers in zip(start.tolist(), zip(*(g.tolist() for g in gradients), strict=True), strict=True)
            ]
            p, slots, step = start, [np.zeros(COUNT, run.dtype) for _ in optimizer.slot_names], np.zeros(1, np.int64)
            for g in gradients:
                before = g.copy()
                _step(run, optimizer, p, g, slots, step, factor)
                same(g, before)
            run.close(p, expected, units=16)


@check
def updates_have_the_bits_of_the_optimizers(run):
    for optimizer in OPTIMIZERS:
        p = run.normal(COUNT)
        right, slots = p.copy(), [np.zeros(COUNT, run.dtype) for _ in optimizer.slot_names]
        right_slots, step = tuple(slot.copy() for slot in slots), np.zeros(1, np.int64)
        for number in range(3):
            g, factor = run.normal(COUNT), 0.7 + number / 10
            right, right_slots = optimizer.update(right, g * run.dtype.type(factor), right_slots, number)
            _step(run, optimizer, p, g, slots, step, np.array([factor]))
            same(p, right)
            for slot, right_slot in zip(slots, right_slots, strict=True):
                same(slot, right_slot)
