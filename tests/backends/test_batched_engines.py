"""Primitive by primitive: what is quick in NumPy against the same in the words of the array API.

Most numbers are small whole ones, whose sums and products are exact: then the results are equal to the bit, in whatever
order they are added up, and a number in the wrong place shows.
"""

import numpy as np
import pytest
from batched import Loose, Tight, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cnnkit.plan import Conv2DOp
from cnnkit_batched.engine import Head, Windows
from cnnkit_batched.numpy_engine import NumpyEngine
from cnnkit_batched.plain_engine import PlainEngine

FIXED = settings(derandomize=True, deadline=None, max_examples=100)
FEW = settings(FIXED, max_examples=40)

F4 = np.dtype(np.float32)
QUICK, PLAIN = NumpyEngine(F4), PlainEngine(np, F4)
ENGINES = pytest.mark.parametrize("engine", [QUICK, PLAIN], ids=["quick", "plain"])


def whole(shape, seed=0, most=4):
    """Whole numbers from -most to most."""
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(F4)


def unset(shape):
    return np.full(shape, np.nan, F4)


def same(one, other):
    np.testing.assert_array_equal(one, other, strict=True)


def laid_out(matrix, by_columns):
    """The same matrix, with its columns one after the other in memory where `by_columns`."""
    return np.asfortranarray(matrix) if by_columns else matrix


# ----------------------------------------------------------------------------------------------------------- products

# A product of fewer than about a million multiplications is left whole, one of more is cut into pieces of as many rows
# as make so many, unless that is fewer than 16 rows (64 where the pieces are summed): these sizes are on all sides.
SIZES = st.tuples(st.sampled_from([1, 9, 72, 144, 300, 1100]), st.sampled_from([1, 8, 13, 32, 64, 70]))
ROWS = st.one_of(st.integers(1, 70), st.integers(71, 4000))


@FIXED
@given(SIZES, ROWS, st.booleans(), st.booleans(), st.integers(0, 9))
def test_a_product_is_right_on_all_sides_of_every_threshold(sizes, rows, by_columns, turned, seed):
    size, filters = sizes
    left = laid_out(whole((rows, size), seed), by_columns)
    right = laid_out(whole((size, filters), seed + 1), turned)
    out = unset((rows, filters))
    run(QUICK.product(left, right, out))
    same(out, left @ right)


@FIXED
@given(SIZES, ROWS, st.booleans(), st.integers(0, 9))
def test_a_product_over_rows_is_right_on_all_sides_of_every_threshold(sizes, count, by_columns, seed):
    size, filters = sizes
    columns = laid_out(whole((count, size), seed), by_columns)
    rows, out = whole((count, filters), seed + 1), unset((size, filters))
    run(QUICK.product_over_rows(columns, rows, out, Tight(QUICK)))
    same(out, columns.T @ rows)


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize(("size", "filters", "rows"), [(72, 32, 2000), (144, 64, 433), (27, 32, 1157), (577, 64, 288)])
def test_pieces_of_a_product_are_within_rounding_of_the_whole(size, filters, rows, by_columns):
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(rows, size)).astype(F4), rng.normal(size=(size, filters)).astype(F4)
    out, exact = unset((rows, filters)), left.astype(float) @ right.astype(float)
    run(QUICK.product(laid_out(left, by_columns), right, out))
    assert (abs(out - exact) <= 5 * 2.0**-24 * (abs(left) @ abs(right))).all()
    grad = unset((size, filters))
    dy = rng.normal(size=(rows, filters)).astype(F4)
    run(QUICK.product_over_rows(laid_out(left, by_columns), dy, grad, Tight(QUICK)))
    exact = left.T.astype(float) @ dy.astype(float)
    assert (abs(grad - exact) <= 8 * 2.0**-24 * (abs(left.T) @ abs(dy))).all()


def test_a_product_leaves_alone_what_lies_around_its_rows():
    left, right, all_rows = whole((500, 72)), whole((72, 64), 1), np.full((700, 64), 7, F4)
    run(QUICK.product(left, right, all_rows[100:600]))
    same(all_rows[100:600], left @ right)
    assert (all_rows[:100] == 7).all()
    assert (all_rows[600:] == 7).all()


# ------------------------------------------------------------------------------------------------------------- windows


@st.composite
def windows(draw, *, most_dilation=3, most_stride=4):
    """Images, and windows on them that leave out a few pixels at the end, or none."""
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = draw(st.tuples(st.integers(1, most_stride), st.integers(1, most_stride)))
    dilation = draw(st.tuples(st.integers(1, most_dilation), st.integers(1, most_dilation)))
    output = draw(st.tuples(st.integers(1, 6), st.integers(1, 9)))
    rest = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    height, width = (
        (output[axis] - 1) * strides[axis] + dilation[axis] * (size[axis] - 1) + 1 + rest[axis] for axis in (0, 1)
    )
    shape = (draw(st.integers(1, 3)), height, width, draw(st.sampled_from([1, 2, 3, 7])))
    return shape, Windows(size, strides, dilation, output)


def gathered(engine, images, seen, *, ones):
    columns = engine.columns(Tight(engine), (len(images), *seen.output), seen, images.shape[3], ones=ones)
    run(engine.gather(images, seen, columns))
    return columns


@FIXED
@given(windows(), st.booleans(), st.integers(0, 9))
def test_patches_are_the_same_in_either_order_of_memory(given_, ones, seed):
    """Few narrow windows are laid out by rows, many by columns; the matrix is the same."""
    shape, seen = given_
    images = whole(shape, seed, 100)
    matrix = gathered(QUICK, images, seen, ones=ones).matrix
    patches = gathered(PLAIN, images, seen, ones=False).matrix
    if ones:
        assert (matrix[:, -1] == 1).all()
        matrix = matrix[:, :-1]
    same(matrix, patches)


def test_both_orders_of_memory_are_taken():
    by_rows = gathered(QUICK, whole((2, 5, 5, 2)), Windows((3, 3), (1, 1), (1, 1), (3, 3)), ones=True).matrix
    by_columns = gathered(QUICK, whole((2, 28, 28, 1)), Windows((3, 3), (1, 1), (1, 1), (26, 26)), ones=True).matrix
    assert by_rows.flags.c_contiguous
    assert by_columns.flags.f_contiguous


@ENGINES
def test_a_patch_is_what_its_window_shows(engine):
    """By hand: windows of 2 x 2 with a gap of one pixel, every second one down."""
    images = np.arange(1 * 5 * 4 * 1, dtype=F4).reshape(1, 5, 4, 1)
    matrix = gathered(engine, images, Windows((2, 2), (2, 1), (1, 2), (2, 2)), ones=False).matrix
    assert matrix.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7], [8, 10, 12, 14], [9, 11, 13, 15]]


@FEW
@given(windows(), st.data())
def test_a_band_of_windows_sees_its_rows_of_pixels(given_, data):
    shape, seen = given_
    images = whole(shape, most=100)
    first = data.draw(st.integers(0, seen.output[0] - 1))
    count = data.draw(st.integers(1, seen.output[0] - first))
    rows, band = seen.rows(first, count)
    whole_image = gathered(PLAIN, images, seen, ones=False).values
    for engine in (QUICK, PLAIN):
        same(
            np.array(gathered(engine, images[:, rows], band, ones=False).values),
            whole_image[:, first : first + count],
        )


@FIXED
@given(windows(), st.integers(0, 9))
def test_scattered_parts_are_summed_as_in_the_plain_engine(given_, seed):
    shape, seen = given_
    parts = whole((shape[0], *seen.output, *seen.size, shape[3]), seed)
    one, other = unset(shape), unset(shape)
    run(QUICK.scatter(parts, seen, one))
    run(PLAIN.scatter(parts, seen, other))
    same(one, other)


@ENGINES
@FEW
@given(windows())
def test_scattering_is_the_adjoint_of_gathering(engine, given_):
    shape, seen = given_
    images = whole(shape)
    values = np.array(gathered(engine, images, seen, ones=False).values)
    parts, back = whole(values.shape, 1), unset(shape)
    run(engine.scatter(parts, seen, back))
    assert (values * parts).sum() == (images * back).sum()


@FEW
@given(windows(most_dilation=1), st.integers(0, 9))
def test_sums_of_windows_and_what_they_spread_are_those_of_the_plain_engine(given_, seed):
    shape, seen = given_
    images, part = whole(shape, seed), whole((shape[0], *seen.output, shape[3]), seed + 1)
    for method, source, size in (("sum_windows", images, part.shape), ("spread", part, shape)):
        one, other = unset(size), unset(size)
        run(getattr(QUICK, method)(source, seen, one))
        run(getattr(PLAIN, method)(source, seen, other))
        same(one, other)


@ENGINES
def test_a_window_is_summed_and_its_sum_is_spread(engine):
    """By hand: windows of 2 that share a pixel, and a last pixel that is in none."""
    seen, images = Windows((1, 2), (1, 1), (1, 1), (1, 2)), np.array([1, 2, 4, 8], F4).reshape(1, 1, 4, 1)
    sums, spread = unset((1, 1, 2, 1)), unset((1, 1, 4, 1))
    run(engine.sum_windows(images, seen, sums))
    run(engine.spread(sums, seen, spread))
    assert sums.ravel().tolist() == [3, 6]
    assert spread.ravel().tolist() == [3, 9, 6, 0]


@FEW
@given(st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(1, 3), st.integers(1, 5))
def test_a_turned_kernel_has_its_pixels_in_reverse_order_and_filters_in_the_place_of_channels(size, channels, filters):
    op = Conv2DOp(
        layer=0,
        input_shape=(9, 9, channels),
        output_shape=(1, 1, filters),
        kernel="0.kernel",
        bias=None,
        filters=filters,
        kernel_size=size,
        strides=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation=(1, 1),
    )
    kernel = whole((*size, channels, filters), most=100)
    expected = np.empty((*size, filters, channels), F4)
    for row, col, channel, number in np.ndindex(kernel.shape):
        expected[size[0] - 1 - row, size[1] - 1 - col, number, channel] = kernel[row, col, channel, number]
    for engine in (QUICK, PLAIN):
        out = unset((size[0] * size[1] * filters, channels))
        run(engine.turn(kernel.reshape(-1, filters), op, out))
        same(out, expected.reshape(out.shape))


# ---------------------------------------------------------------------------------------------------------- max pooling


def pooled(engine, x, dy, seen, arena=Tight):
    """`y` and `dx`, forward and backward."""
    y, dx = unset(dy.shape), unset(x.shape)
    forward, backward = engine.max_pool(x, y, dy, dx, seen, arena(engine))
    run(forward)
    run(backward)
    return y, dx


@st.composite
def pools(draw, sizes, strides, *, nan):
    """Images with many equal numbers, and NaN among them where wanted; gradients; windows."""
    size = draw(sizes)
    steps = (draw(strides(size[0])), draw(strides(size[1])))
    output = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    rest = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    height, width = ((output[axis] - 1) * steps[axis] + size[axis] + rest[axis] for axis in (0, 1))
    shape = (draw(st.integers(1, 2)), height, width, draw(st.integers(1, 3)))
    values = st.sampled_from([-1.0, 0.0, 1.0, 2.0, -np.inf, *([np.nan] * 2 if nan else [])])
    x = draw(arrays.arrays(F4, shape, elements=values))
    dy = np.arange(1, 1 + shape[0] * output[0] * output[1] * shape[3], dtype=F4)
    return x, dy.reshape(shape[0], *output, shape[3]), Windows(size, steps, (1, 1), output)


FOUR = st.just((2, 2))


@FIXED
@given(pools(FOUR, lambda size: st.integers(size, 5), nan=False))
def test_the_quick_pool_of_four_is_the_general_one_with_ties_odd_sizes_and_gaps(given_):
    for mine, plain in zip(pooled(QUICK, *given_), pooled(PLAIN, *given_), strict=True):
        same(mine, plain)


@pytest.mark.parametrize("strides", [(2, 2), (2, 3), (3, 2), (4, 5)])
@pytest.mark.parametrize("rest", [(0, 0), (0, 1), (1, 0), (3, 2)])
def test_pixels_between_and_behind_pools_of_four_get_no_gradient(strides, rest):
    seen = Windows((2, 2), strides, (1, 1), (3, 4))
    x = whole((2, 2 * strides[0] + 2 + rest[0], 3 * strides[1] + 2 + rest[1], 3), most=1)
    dy = whole((2, 3, 4, 3), most=100)
    for mine, expected in zip(pooled(QUICK, x, dy, seen), first_maximum(x, dy, seen), strict=True):
        same(mine, expected)


@FIXED
@given(pools(st.tuples(st.integers(1, 4), st.integers(1, 4)), lambda _: st.integers(1, 5), nan=False))
def test_pools_of_every_size_are_those_of_the_plain_engine(given_):
    for mine, plain in zip(pooled(QUICK, *given_), pooled(PLAIN, *given_), strict=True):
        same(mine, plain)


def first_maximum(x, dy, seen):
    """Window by window, pixel by pixel."""
    y, dx = np.empty_like(dy), np.zeros_like(x)
    for image, row, col, channel in np.ndindex(dy.shape):
        top, left = row * seen.strides[0], col * seen.strides[1]
        part = x[image, top : top + seen.size[0], left : left + seen.size[1], channel]
        place = np.unravel_index(part.argmax(), part.shape)
        y[image, row, col, channel] = part[place]
        dx[image, top + place[0], left + place[1], channel] += dy[image, row, col, channel]
    return y, dx


@ENGINES
@FEW
@given(pools(st.tuples(st.integers(1, 3), st.integers(1, 3)), lambda _: st.integers(1, 4), nan=False))
def test_the_first_of_equal_maxima_row_by_row_takes_the_whole_gradient(engine, given_):
    for made, expected in zip(pooled(engine, *given_), first_maximum(*given_), strict=True):
        same(made, expected)


@ENGINES
@FIXED
@given(pools(st.one_of(FOUR, st.just((3, 2))), lambda size: st.integers(size, 4), nan=True))
def test_a_window_with_nan_is_nan_and_hands_its_gradient_to_one_pixel(engine, given_):
    """To which one is nobody's promise; all other windows are as if there were no NaN."""
    x, dy, seen = given_
    y, dx = pooled(engine, *given_)
    expected, dexpected = first_maximum(np.nan_to_num(x, nan=9.0, neginf=-np.inf), dy, seen)
    taps = list(seen.taps())
    has_nan = np.any([np.isnan(x[tap]) for tap in taps], axis=0)
    same(np.isnan(y), has_nan)
    same(y[~has_nan], expected[~has_nan])
    parts = np.stack([dx[tap] for tap in taps])
    same(parts.sum(axis=0), dy)
    assert ((parts != 0).sum(axis=0) == 1).all()
    same(parts[:, ~has_nan], np.stack([dexpected[tap] for tap in taps])[:, ~has_nan])


@ENGINES
@pytest.mark.parametrize("size", [(2, 2), (3, 3), (1, 2)])
def test_a_pool_that_only_predicts_writes_the_maxima(engine, size):
    x, seen = whole((2, 9, 8, 3)), Windows(size, (2, 2), (1, 1), ((9 - size[0]) // 2 + 1, (8 - size[1]) // 2 + 1))
    y = unset((2, *seen.output, 3))
    forward, backward = engine.max_pool(x, y, None, None, seen, Tight(engine))
    run(forward)
    assert backward == []
    same(y, first_maximum(x, np.ones_like(y), seen)[0])


# ---------------------------------------------------------------------------------------------- numbers one by one, rows

EXTREMES = np.array([-np.inf, -3e38, -89.0, -1.5, -1e-40, -0.0, 0.0, 1e-40, 0.5, 20.0, 3e38, np.inf, np.nan], F4)


@ENGINES
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("relu", lambda x: np.where(x <= 0, 0, x)),
        ("tanh", np.tanh),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
    ],
)
def test_an_activation_is_right_for_extreme_numbers_and_leaves_nan(engine, function, expected):
    y = np.tile(EXTREMES, (3, 1))
    run(engine.activate(y, function))
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(y[1], expected(EXTREMES.astype(float)), rtol=3e-7, atol=1e-38)


@ENGINES
@pytest.mark.parametrize("function", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 40, 41, 3), (2, 5000), (1, 4097), (0, 4), (2, 0)])
def test_an_activation_reaches_every_number_of_arrays_of_every_shape(engine, function, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(F4)
    y = x.copy()
    run(engine.activate(y, function))
    right = {"relu": np.maximum(x, 0), "tanh": np.tanh(x), "sigmoid": 1 / (1 + np.exp(-x))}[function]
    np.testing.assert_allclose(y, right, rtol=1e-6)


@ENGINES
@pytest.mark.parametrize(
    ("function", "slope"),
    [("relu", lambda y: y > 0), ("tanh", lambda y: 1 - y * y), ("sigmoid", lambda y: y * (1 - y))],
)
def test_the_way_back_through_an_activation_takes_the_slope_from_its_value(engine, function, slope):
    y, dy = np.linspace(0 if function == "relu" else -0.9, 0.9, 24, dtype=F4).reshape(4, 6), whole((4, 6), 1)
    expected = dy * slope(y)
    run(engine.activate_back(y, dy, function, Tight(engine)))
    np.testing.assert_allclose(dy, expected, rtol=1e-6, atol=1e-7)


@ENGINES
@pytest.mark.parametrize("function", [None, "relu", "tanh"])
def test_biases_are_added_to_every_row_before_the_activation(engine, function):
    rows, bias = whole((50, 7)), whole(7, 1)
    summed = rows + bias
    run(engine.bias_and_activate(rows, bias, function))
    np.testing.assert_allclose(
        rows, {None: summed, "relu": np.maximum(summed, 0), "tanh": np.tanh(summed)}[function], rtol=1e-6
    )


@ENGINES
@pytest.mark.parametrize("function", [None, "relu"])
def test_the_gradient_of_biases_is_the_sum_of_rows_before_the_activation(engine, function):
    y, dy, out = np.maximum(whole((50, 7)), 0), whole((50, 7), 1), unset(7)
    expected = dy * (y > 0) if function else dy.copy()
    run(engine.bias_back(y, dy, function, out, Tight(engine)))
    same(dy, expected)
    same(out, expected.sum(axis=0))


@ENGINES
def test_simple_arithmetic_is_in_place(engine):
    source, target = whole((4, 5)), whole((4, 5), 1)
    before, out = target.copy(), unset((4, 5))
    run([*engine.add(source, target), *engine.shift(target, 0.5)])
    same(target, before + source + F4.type(0.5))
    run(engine.multiply(source, 0.25, out))
    same(out, source * F4.type(0.25))
    run(engine.multiply(source, source > 0, out))
    same(out, np.maximum(source, 0))
    run([*engine.copy(source, out), *engine.fill(target, -2.0)])
    same(out, source)
    assert (target == -2).all()


@ENGINES
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 0), (0, 2)), ((0, 3), (1, 1))])
def test_a_border_surrounds_the_image_and_is_renewed(engine, padding):
    image = whole((2, 3, 4, 2))
    padded = engine.pad(image, padding, -9.0, Loose(engine))
    run([*padded.reset, *padded.take_in])
    expected = np.pad(image, ((0, 0), *padding, (0, 0)), constant_values=-9)
    same(np.array(padded.array), expected)
    padded.array[...] = 5.0
    run(padded.hand_back)
    if padding != ((0, 0), (0, 0)):
        assert (image == 5).all()
        run(padded.reset)
        padded.middle[...] = np.nan
        assert (np.nan_to_num(padded.array[np.isfinite(padded.array)]) == -9).all()


@ENGINES
def test_views_are_views(engine):
    array = whole((4, 6))
    engine.reshaped(array, (2, -1))[...] = 3
    assert (array == 3).all()


@ENGINES
@pytest.mark.parametrize("shift", [0.0, 1e30, -1e30])
def test_softmax_and_the_loss_do_not_depend_on_what_is_added_to_all_scores(engine, shift):
    scores = np.array([[0, 1, 3], [2, 2, -5]], F4)
    moved = (scores + shift).astype(F4)
    head = Head(np.array([2, 0], np.int32), np.full(2, np.nan), 0.5)
    out, dscores = unset((2, 3)), unset((2, 3))
    run([*engine.softmax(moved, out), *engine.cross_entropy(moved, head, dscores)])
    exact = (scores if shift == 0 else moved).astype(float)
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    p = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(out, p, rtol=1e-6)
    np.testing.assert_allclose(head.losses, -np.log(p[[0, 1], [2, 0]]), rtol=1e-6)
    np.testing.assert_allclose(dscores, (p - np.eye(3)[[2, 0]]) / 2, rtol=1e-5, atol=1e-7)


@ENGINES
def test_a_hopeless_score_costs_what_it_is_below_the_best(engine):
    """Its probability is 0 in float32, and the logarithm of that no number."""
    head, dscores = Head(np.array([1], np.int32), np.full(1, np.nan)), unset((1, 3))
    run(engine.cross_entropy(np.array([[300, -100, 500]], F4), head, dscores))
    assert head.losses[0] == 600
    assert dscores.tolist() == [[0, -1, 1]]
