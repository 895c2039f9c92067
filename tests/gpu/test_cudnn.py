"""cuDNN's three passes on a real card, against the same sums in float64 by NumPy."""

import numpy as np
import pytest

from cnnkit import Conv2D, Model
from cnnkit_cupy.cudnn import Context, Convolution
from cnnkit_cupy.cudnn_library import load

pytestmark = pytest.mark.gpu

UNITS = 5
"""Correct dot products differ from the true ones by less than 5 u sum|w||x|, u being the unit roundoff."""

ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}
TF32_FACTORS = 2.0**-10
"""Two factors, each rounded to 11 significant bits."""

EVERYDAY = {
    "first layer": ((28, 28, 1), {"filters": 32, "kernel_size": 3}),
    "colours": ((32, 32, 3), {"filters": 32, "kernel_size": 3, "padding": "same"}),
    "deep": ((15, 15, 32), {"filters": 64, "kernel_size": 3, "padding": "same"}),
    "strides": ((31, 17, 16), {"filters": 24, "kernel_size": 3, "strides": 2, "padding": ((1, 1), (1, 1))}),
    "one pixel": ((9, 7, 20), {"filters": 12, "kernel_size": 1}),
}
SELDOM = {
    "odd channels": ((11, 13, 5), {"filters": 7, "kernel_size": (5, 2)}),
    "dilation": ((19, 16, 8), {"filters": 8, "kernel_size": 3, "dilation": (2, 3)}),
    "lopsided": ((12, 21, 6), {"filters": 10, "kernel_size": (2, 5), "strides": (1, 3), "padding": ((3, 3), (0, 0))}),
}
LAYERS = EVERYDAY | SELDOM
BATCH = 8


@pytest.fixture(scope="module")
def cudnn(cp, lacking):
    """The library that fits CuPy."""
    search = load(cp.cuda.runtime.runtimeGetVersion() // 1000)
    if search.library is None:
        lacking(str(search))
    return search.library


@pytest.fixture(scope="module")
def context(cp, cudnn):
    """One for all tests of this module: to make it takes longer than to use it."""
    cp.cuda.Device().use()
    with Context(cudnn) as made:
        yield made


def operation(name):
    input_shape, layer = LAYERS[name]
    return Model(input_shape=input_shape, layers=[Conv2D(**layer)]).plan().operations[0]


def arrays(op, dtype, seed=0):
    """Images, kernel and gradient of the output."""
    random = np.random.default_rng(seed)
    shapes = [(BATCH, *op.input_shape), (*op.kernel_size, op.input_shape[-1], op.filters), (BATCH, *op.output_shape)]
    return [random.normal(size=shape).astype(dtype) for shape in shapes]


def by_numpy(op, x, kernel, dy):
    """Output, gradient of the images and gradient of the kernel, in float64."""
    x, kernel, dy = (array.astype(np.float64) for array in (x, kernel, dy))
    padding = ((0, 0), *op.padding, (0, 0))
    padded, y, dkernel = np.pad(x, padding), np.zeros_like(dy), np.zeros_like(kernel)
    dpadded = np.zeros_like(padded)
    for row, column in np.ndindex(op.kernel_size):
        starts = (row * op.dilation[0], column * op.dilation[1])
        rows, columns = (
            slice(start, start + stride * (size - 1) + 1, stride)
            for start, stride, size in zip(starts, op.strides, op.output_shape, strict=False)
        )
        y += padded[:, rows, columns] @ kernel[row, column]
        dpadded[:, rows, columns] += dy @ kernel[row, column].T
        dkernel[row, column] = np.tensordot(padded[:, rows, columns], dy, ((0, 1, 2), (0, 1, 2)))
    (top, _), (left, _) = op.padding
    return y, dpadded[:, top : top + x.shape[1], left : left + x.shape[2]], dkernel


class OnTheCard:
    """A convolution with its arrays on the card, the outputs NaN until they are written."""

    def __init__(self, cp, convolution, x, kernel, dy):
        self.convolution = convolution
        self.x, self.dy = cp.asarray(x), cp.asarray(dy)
        self.w = cp.ascontiguousarray(cp.asarray(kernel).reshape(-1, kernel.shape[-1]).T)
        self.outputs = [cp.full_like(like, cp.nan) for like in (self.dy, self.x, self.w)]
        self.space = cp.empty(max(convolution.workspace, 1), cp.uint8)
        self.kernel_shape = kernel.shape

    def run(self, stream):
        x, w, dy, y, dx, dw, space = (array.data.ptr for array in (self.x, self.w, self.dy, *self.outputs, self.space))
        self.convolution.forward(x, w, y, space, stream)
        self.convolution.backward_data(w, dy, dx, space, stream)
        self.convolution.backward_filter(x, dy, dw, space, stream)

    def results(self, cp):
        cp.cuda.Device().synchronize()
        y, dx, dw = (cp.asnumpy(array) for array in self.outputs)
        return y, dx, dw.T.reshape(self.kernel_shape)


def chosen(cudnn, context, name, precision, **how):
    convolution = Convolution(cudnn, operation(name), BATCH, precision)
    reason = convolution.choose(context, **how)
    if reason and (name in SELDOM or precision == "float64"):
        pytest.skip(f"cuDNN does not do this, and says so: {reason}")
    assert reason == ""
    return convolution


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_three_passes_are_as_exact_as_their_precision(cp, cudnn, context, name, precision):
    op = operation(name)
    given = arrays(op, precision)
    card = OnTheCard(cp, chosen(cudnn, context, name, precision), *given)
    card.run(0)
    sizes = by_numpy(op, *map(abs, given))
    for made, expected, size in zip(card.results(cp), by_numpy(op, *given), sizes, strict=True):
        assert made.dtype == precision
        assert (abs(made - expected) <= UNITS * ROUNDOFF[precision] * size).all()


@pytest.mark.parametrize("name", EVERYDAY)
def test_tf32_rounds_factors_and_nothing_more(cp, cudnn, context, name):
    op = operation(name)
    given = arrays(op, np.float32)
    card = OnTheCard(cp, chosen(cudnn, context, name, "tf32"), *given)
    card.run(0)
    sizes = by_numpy(op, *map(abs, given))
    for made, expected, size in zip(card.results(cp), by_numpy(op, *given), sizes, strict=True):
        assert (abs(made - expected) <= (TF32_FACTORS + UNITS * ROUNDOFF["float32"]) * size).all()


@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("name", EVERYDAY)
def test_the_same_bits_come_out_each_time(cp, cudnn, context, name, precision):
    given = arrays(operation(name), np.float32)
    made = []
    for _ in range(5):
        card = OnTheCard(cp, chosen(cudnn, context, name, precision), *given)
        card.run(0)
        made.append([array.tobytes() for array in card.results(cp)])
    assert all(one == made[0] for one in made)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_a_nan_goes_where_a_window_joins_it_and_nowhere_else(cp, cudnn, context, precision):
    op = operation("deep")
    x, kernel, dy = arrays(op, np.float32)
    x[3, 7, 5, 2] = np.nan
    card = OnTheCard(cp, chosen(cudnn, context, "deep", precision), x, kernel, dy)
    card.run(0)
    y, _, _ = card.results(cp)
    expected = np.zeros(y.shape, bool)
    expected[3, 6:9, 4:7] = True  # the nine windows over it, in every filter
    assert np.array_equal(np.isnan(y), expected)


def test_passes_wait_for_what_is_before_them_on_their_stream_and_for_nothing_else(cp, cudnn, context):
    op, stream = operation("deep"), cp.cuda.Stream(non_blocking=True)
    given = arrays(op, np.float32)
    card = OnTheCard(cp, chosen(cudnn, context, "deep", "float32"), *given)
    spin = cp.RawKernel(
        'extern "C" __global__ void spin(long long n) { long long from = clock64(); while (clock64() - from < n); }',
        "spin",
    )
    cycles = cp.int64(10**9)  # half a second or so
    cp.cuda.Device().synchronize()
    with stream:
        spin((1,), (1,), (cp.int64(1),))
    card.run(stream.ptr)  # kernels are loaded on first use, which may wait for the whole card
    stream.synchronize()
    for output in card.outputs:
        output.fill(cp.nan)

    def untouched():  # on the default stream, which waits for neither
        return all(bool(cp.isnan(output).all()) for output in card.outputs)

    assert untouched()  # CuPy compiles these kernels on their first use, which takes longer than the spinning
    cp.cuda.Device().synchronize()
    with stream:
        spin((1,), (1,), (cycles,))
    card.run(stream.ptr)
    assert untouched()
    for made, expected in zip(card.results(cp), by_numpy(op, *given), strict=True):
        np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-2)


def test_a_cuda_graph_takes_the_passes_in_and_repeats_them(cp, cudnn, context):
    op, stream = operation("deep"), cp.cuda.Stream(non_blocking=True)
    card = OnTheCard(cp, chosen(cudnn, context, "deep", "float32"), *arrays(op, np.float32))
    cp.cuda.Device().synchronize()
    card.run(stream.ptr)  # what cuDNN loads on first use is not part of a graph
    stream.synchronize()
    with stream:
        stream.begin_capture()
        card.run(stream.ptr)
        graph = stream.end_capture()
    others = arrays(op, np.float32, seed=1)
    card.x[...], card.dy[...] = cp.asarray(others[0]), cp.asarray(others[2])
    card.w[...] = cp.asarray(others[1]).reshape(-1, op.filters).T
    for output in card.outputs:
        output.fill(cp.nan)
    cp.cuda.Device().synchronize()
    graph.launch(stream)
    stream.synchronize()
    for made, expected in zip(card.results(cp), by_numpy(op, *others), strict=True):
        np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-2)


def test_a_limit_of_workspace_is_kept(cudnn, context):
    convolution = Convolution(cudnn, operation("deep"), BATCH, "float32")
    assert convolution.choose(context) == ""
    free = convolution.workspace
    reason = convolution.choose(context, workspace_limit=0)
    assert convolution.workspace == 0 <= free
    assert reason == "" or "needs at most 0 bytes of workspace" in reason
