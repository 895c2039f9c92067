"""cuDNN without a GPU: its descriptors by the library itself, what we do with them by a cuDNN on NumPy."""

import gc
import re
from ctypes import byref, c_int

import naive
import numpy as np
import pytest
from cudnn_by_numpy import CudnnByNumpy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks import convolutions, numbers

from cnnkit import BackendError, Conv2D, Model, OptionError
from cnnkit_cupy.cudnn import Algorithm, Context, Convolution
from cnnkit_cupy.cudnn_descriptors import PASSES, Descriptors, why_unsupported
from cnnkit_cupy.cudnn_library import Library, load

FIXED = settings(derandomize=True, deadline=None, max_examples=150)
FEWER = settings(derandomize=True, deadline=None, max_examples=60)

DEFAULT, TENSOR_OP, ALLOW_CONVERSION, FMA = range(4)
GOOD = {"algo": 1, "status": 0, "determinism": 1, "mathType": FMA}
EVERYWHERE = {"Forward": [GOOD], "BackwardData": [GOOD], "BackwardFilter": [GOOD]}


@pytest.fixture(scope="module")
def cudnn(lacking):
    """The real library, which needs no GPU for descriptors."""
    search = load()
    if search.library is None:
        lacking(str(search))
    return search.library


def conv(input_shape=(9, 8, 3), **layer):
    """The operation of one convolution, which is uneven in every respect."""
    layer = {"filters": 4, "kernel_size": (3, 2)} | layer
    return Model(input_shape=input_shape, layers=[Conv2D(**layer)]).plan().operations[0]


def by_numpy(**how):
    functions = CudnnByNumpy(**{"offers": EVERYWHERE} | how)
    return functions, Library(functions, "NumPy")


# ------------------------------------------------------------------------------------------------ what cuDNN cannot do


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"kernel_size": 2, "padding": "same"}, "along the height is 0 before and 1 after.* makes 8 windows, not 9"),
        (
            {"kernel_size": (3, 2), "padding": "same"},
            "along the width is 0 before and 1 after.* makes 7 windows, not 8",
        ),
        ({"padding": ((2, 0), (0, 0))}, "along the height is 2 before and 0 after.* makes 11 windows, not 9"),
        ({"kernel_size": 9, "padding": ((0, 5), (1, 1))}, "makes 1 windows, not 6"),
        ({"kernel_size": 11, "padding": ((0, 5), (2, 2))}, "makes 0 windows, not 4"),
    ],
)
def test_uneven_padding_that_moves_or_removes_windows_is_refused(layer, words):
    assert re.search(words, why_unsupported(conv(**layer), 2))
    with pytest.raises(BackendError, match=rf"cannot run layers\[0\]: its padding .*{words}.*It runs without cuDNN"):
        Convolution(by_numpy()[1], conv(**layer), 2, "float32")


@pytest.mark.parametrize(
    "layer",
    [
        {"padding": "valid"},
        {"kernel_size": 3, "padding": "same"},
        {"padding": ((2, 2), (1, 1)), "strides": (2, 3), "dilation": (1, 2)},
        {"kernel_size": 3, "strides": 2, "padding": ((0, 1), (0, 0))},  # the last row is under no window
    ],
)
def test_padding_that_leaves_the_windows_where_they_are_is_not_refused(layer):
    assert why_unsupported(conv(**layer), 2) == ""


def test_a_batch_is_refused_from_the_number_of_values_on_that_cudnn_refuses(cudnn):
    op = conv((64, 64, 32), filters=1, kernel_size=1)  # 2 ** 17 numbers an image
    Descriptors(cudnn, op, 2**14 - 1, "float32").close()
    assert why_unsupported(op, 2**14 - 1) == ""
    assert "array of 2147483648 numbers, and cuDNN counts up to 2147483647" in why_unsupported(op, 2**14)
    out = conv((64, 64, 1), filters=32, kernel_size=1)
    assert "array of 2147483648 numbers" in why_unsupported(out, 2**14)
    descriptors = Descriptors(cudnn, op, 1, "float32")
    tensor = descriptors.of("forward")[0]
    with pytest.raises(
        BackendError, match=r"cudnnSetTensor4dDescriptor .* failed with CUDNN_STATUS_NOT_SUPPORTED \(3000"
    ):
        cudnn.call("cudnnSetTensor4dDescriptor", tensor, 1, 0, 2**14, 32, 64, 64)


# --------------------------------------------------------------------------------------------- the library's own answers


def output_shape(cudnn, descriptors):
    """What cuDNN says: (batch, height, width, filters)."""
    x, w, convolution, _ = descriptors.of("forward")
    sizes = [c_int() for _ in range(4)]
    cudnn.call("cudnnGetConvolution2dForwardOutputDim", convolution, x, w, *map(byref, sizes))
    batch, filters, height, width = (size.value for size in sizes)
    return batch, height, width, filters


@FIXED
@given(model=convolutions(), batch=st.integers(1, 5), precision=st.sampled_from(["float32", "tf32", "float64"]))
def test_cudnn_makes_the_output_of_the_plan_of_everything_that_is_not_refused(cudnn, model, batch, precision):
    op = model.plan().operations[0]
    assume(not why_unsupported(op, batch))
    descriptors = Descriptors(cudnn, op, batch, precision)
    assert output_shape(cudnn, descriptors) == (batch, *op.output_shape)
    descriptors.close()


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_output_sizes_over_a_grid_are_those_of_the_formula(cudnn, kernel, stride, dilation, padding):
    height, width = 15, 12
    op = conv(
        (height, width, 2),
        kernel_size=kernel,
        strides=(stride, 1),
        dilation=(dilation, 1),
        padding=((padding, padding), (0, 0)),
    )
    rows = (height + 2 * padding - (dilation * (kernel - 1) + 1)) // stride + 1
    descriptors = Descriptors(cudnn, op, 3, "float32")
    assert output_shape(cudnn, descriptors) == (3, rows, width - kernel + 1, 4) == descriptors.y_shape


def test_descriptors_say_to_cudnn_what_the_operation_says(cudnn):
    op = conv((9, 8, 3), strides=(2, 3), dilation=(1, 2), padding=((4, 4), (5, 5)))
    descriptors = Descriptors(cudnn, op, 7, "float64")
    x, w, convolution, y = descriptors.of("forward")

    def answer(name, descriptor, count):
        values = [c_int() for _ in range(count)]
        assert getattr(cudnn.functions, name)(descriptor, *map(byref, values)) == 0
        return [value.value for value in values]

    # type (1 is double), batch, channels, height, width, and how far apart two neighbours of each axis are
    assert answer("cudnnGetTensor4dDescriptor", x, 9) == [1, 7, 3, 9, 8, 216, 1, 24, 3]
    # (9 + 8 - 3) // 2 + 1 rows, (8 + 10 - 3) // 3 + 1 columns
    assert answer("cudnnGetTensor4dDescriptor", y, 9) == [1, 7, 4, 8, 6, 192, 1, 24, 4]
    # type, layout (1 is NHWC), filters, channels, height, width
    assert answer("cudnnGetFilter4dDescriptor", w, 6) == [1, 1, 4, 3, 3, 2]
    # padding, strides, dilation, mode (1 is cross-correlation), type
    assert answer("cudnnGetConvolution2dDescriptor", convolution, 8) == [4, 5, 2, 3, 1, 2, 1, 1]


@pytest.mark.parametrize(("precision", "math_type"), [("float32", FMA), ("tf32", DEFAULT), ("float64", DEFAULT)])
def test_only_float32_forbids_rounding(cudnn, precision, math_type):
    descriptors = Descriptors(cudnn, conv(), 2, precision)
    for name in PASSES:
        value = c_int()
        cudnn.functions.cudnnGetConvolutionMathType(descriptors.of(name)[2], byref(value))
        assert value.value == math_type


def test_a_filter_of_the_parameter_s_bytes_is_the_filter_of_the_transposed_kernel():
    kernel = numbers((3, 2, 5, 4))  # (kernel_height, kernel_width, in_channels, filters)
    w = np.ascontiguousarray(kernel.reshape(-1, 4).T).reshape(4, 3, 2, 5)
    assert np.array_equal(w, kernel.transpose(3, 0, 1, 2))


def test_what_cudnn_refuses_is_said_in_its_own_words(cudnn):
    with pytest.raises(
        BackendError,
        match=r"'cupy': cudnnSetTensor4dDescriptor of cuDNN 9\.[0-9.]+ failed with CUDNN_STATUS_BAD_PARAM \(2000\): .*n <= 0.*"
        r"\. Convolutions run without cuDNN too: use cudnn=False\.$",
    ):
        Descriptors(cudnn, conv(), 0, "float32")


def test_a_context_without_a_gpu_is_a_typed_error(cudnn):
    try:
        Context(cudnn).close()
    except BackendError as error:
        assert "cudnnCreate of cuDNN" in str(error)  # noqa: PT017 - on a computer with a GPU there is no error
    else:
        pytest.skip("there is a GPU, so that cuDNN gives a context")


def test_an_unknown_precision_is_an_error_that_lists_the_known():
    with pytest.raises(OptionError, match=r"is 'float16'; cuDNN is used in 'float32', 'tf32', 'float64'"):
        Convolution(by_numpy()[1], conv(), 2, "float16")


# --------------------------------------------------------------------------------------------------------- memory


def test_nothing_is_left_when_a_convolution_is_closed_or_forgotten():
    functions, library = by_numpy()
    convolution = Convolution(library, conv(), 2, "float32")
    assert len(functions.live) == 6
    convolution.close()
    assert not functions.live
    convolution.close()  # once more does nothing
    convolution, context = Convolution(library, conv(), 2, "float32"), Context(library)
    assert len(functions.live) == 7
    del convolution, context
    gc.collect()
    assert not functions.live


def test_nothing_is_left_wherever_the_making_of_a_convolution_fails():
    functions, library = by_numpy()
    Convolution(library, conv(), 2, "float32").close()
    making = [name for name in functions.calls if "Destroy" not in name]
    assert len(making) == 16
    for failing, name in enumerate(making):
        functions, library = by_numpy(failing=failing)
        with pytest.raises(BackendError, match=f"{name} of cuDNN 9.28.1 failed with STATUS_4000"):
            Convolution(library, conv(), 2, "float32")
        assert not functions.live


def test_a_context_is_freed_at_the_end_of_a_with_and_cannot_be_used_then():
    functions, library = by_numpy()
    with Context(library) as context:
        assert len(functions.live) == 1
    assert not functions.live
    with pytest.raises(BackendError, match=r"context of cuDNN is closed\. Make another one"):
        context.use_stream(1)
    with Context(library) as other:
        convolution = chosen(library, other)
        convolution.close()
        with pytest.raises(BackendError, match=r"convolution of cuDNN is closed\. Make another one"):
            convolution.forward(1, 1, 1, 1, 0)
        with pytest.raises(BackendError, match="convolution of cuDNN is closed"):
            convolution.choose(other)


def test_a_cudnn_that_contradicts_the_plan_is_not_used():
    functions, library = by_numpy()
    right = functions.cudnnGetConvolution2dForwardOutputDim

    def one_row_more(*arguments):
        status = right(*arguments)
        arguments[-2]._obj.value += 1
        return status

    functions.cudnnGetConvolution2dForwardOutputDim = one_row_more
    with pytest.raises(BackendError, match=r"makes \(2, 8, 7, 4\) of layers\[0\], and the plan says \(2, 7, 7, 4\)"):
        Convolution(library, conv(), 2, "float32")
    assert not functions.live


# ----------------------------------------------------------------------------------------------------- algorithms


def chosen(library, context, precision="float32", op=None, **how):
    convolution = Convolution(library, op or conv(), 2, precision)
    assert convolution.choose(context, **how) == ""
    return convolution


def offer(number, **fields):
    return GOOD | {"algo": number} | fields


@pytest.mark.parametrize(
    ("offers", "how", "number"),
    [
        ([offer(3), offer(1)], {}, 3),
        ([offer(3, status=3000), offer(1)], {}, 1),
        ([offer(3, determinism=0), offer(1)], {}, 1),
        ([offer(3, determinism=0), offer(1)], {"deterministic": False}, 3),
        ([offer(3), offer(1)], {"workspace_limit": 399}, 1),
        ([offer(3), offer(1)], {"workspace_limit": 400}, 3),
        ([offer(0), offer(1)], {}, 1),  # 0 is unsupported when its workspace is asked for
    ],
)
def test_the_first_algorithm_is_taken_that_is_there_deterministic_and_small_enough(offers, how, number):
    functions, library = by_numpy(offers=EVERYWHERE | {"BackwardFilter": offers})
    functions.unsupported = {("BackwardFilter", 0, FMA)}
    with Context(library) as context:
        convolution = chosen(library, context, **how)
        assert convolution.algorithms["backward_filter"] == Algorithm(number, FMA, 100 * (number + 1))
        assert convolution.algorithms["forward"] == Algorithm(1, FMA, 200)
        assert convolution.workspace == max(200, 100 * (number + 1))


@pytest.mark.parametrize(
    ("precision", "offered", "used"),
    [
        ("float32", DEFAULT, FMA),
        ("float32", TENSOR_OP, FMA),
        ("float32", ALLOW_CONVERSION, FMA),
        ("float32", FMA, FMA),
        ("tf32", DEFAULT, DEFAULT),
        ("tf32", TENSOR_OP, TENSOR_OP),
        ("tf32", ALLOW_CONVERSION, DEFAULT),
        ("tf32", FMA, FMA),
        ("float64", DEFAULT, DEFAULT),
    ],
)
def test_no_algorithm_runs_in_a_math_type_that_rounds_more_than_its_precision(precision, offered, used):
    functions, library = by_numpy(offers=EVERYWHERE | {"Forward": [offer(1, mathType=offered)]})
    with Context(library) as context:
        convolution = chosen(library, context, precision)
        arrays = [np.zeros(1000) for _ in range(3)]
        convolution.forward(*(array.ctypes.data for array in arrays), 1, 0)
        assert functions.ran[2] == used
        assert convolution.algorithms["forward"].math_type == used


def test_an_algorithm_that_is_there_only_with_rounding_is_passed_over_in_float32():
    offers = EVERYWHERE | {"Forward": [offer(2, mathType=TENSOR_OP), offer(0)]}
    functions, library = by_numpy(offers=offers)
    functions.unsupported = {("Forward", 2, FMA)}
    with Context(library) as context:
        assert chosen(library, context).algorithms["forward"].number == 0
        assert chosen(library, context, "tf32").algorithms["forward"].number == 2


def test_the_same_question_gets_the_same_answer_after_another_one():
    functions, library = by_numpy(offers=EVERYWHERE | {"BackwardFilter": [offer(3, mathType=TENSOR_OP)]})
    with Context(library) as context:
        convolution = chosen(library, context, "tf32")
        assert functions.asked_math == DEFAULT
        assert convolution.choose(context, ["backward_filter"]) == ""
        assert functions.asked_math == DEFAULT
        assert list(convolution.algorithms) == ["backward_filter"]


@pytest.mark.parametrize(
    ("direction", "name", "sums"),
    [
        ("Forward", "forward", {0, 1, 2, 3}),  # 4 and 5 are FFT, 6 and 7 Winograd
        ("BackwardData", "backward_data", {0, 1}),  # 2 and 3, 4 and 5
        ("BackwardFilter", "backward_filter", {0, 1, 3}),  # 2 and 6, 4 and 5
    ],
)
def test_transforms_which_spread_a_nan_are_passed_over(direction, name, sums):
    for number in range(8):
        _, library = by_numpy(offers=EVERYWHERE | {direction: [offer(number)]})
        with Context(library) as context:
            reason = Convolution(library, conv(), 2, "float32").choose(context, [name])
            assert (reason == "") == (number in sums)


def test_no_algorithm_is_a_reason_and_not_a_fault():
    _, library = by_numpy(offers=EVERYWHERE | {"BackwardData": [offer(0, determinism=0), offer(1, status=3000)]})
    with Context(library) as context:
        convolution = Convolution(library, conv(), 2, "float32")
        reason = convolution.choose(context, workspace_limit=999)
        assert reason == (
            "of 1 algorithms without transform that cuDNN offers for backward_data, none computes in float32 and gives the same bits each "
            "time and needs at most 999 bytes of workspace"
        )
        with pytest.raises(BackendError, match=r"no algorithm for forward yet. Call choose\(\) for it first"):
            convolution.forward(1, 1, 1, 1, 0)
        assert convolution.choose(context, ["forward", "backward_filter"]) == ""


def test_heuristics_that_do_not_support_a_convolution_are_a_reason_and_not_a_fault():
    functions, library = by_numpy()
    functions.cudnnGetConvolutionForwardAlgorithm_v7 = lambda *_: 3003
    with Context(library) as context:
        reason = Convolution(library, conv(), 2, "float64").choose(context)
    assert reason.startswith(
        "of 0 algorithms without transform that cuDNN offers for forward, none computes in float64"
    )


def test_a_fault_while_choosing_is_an_error_and_not_a_reason():
    functions, library = by_numpy()
    with Context(library) as context:
        convolution = Convolution(library, conv(), 2, "float32")
        for name in ("AlgorithmMaxCount", "Algorithm_v7", "WorkspaceSize"):
            full = f"cudnnGetConvolutionForward{name}"
            right = getattr(functions, full)
            setattr(functions, full, lambda *_: 5003)
            with pytest.raises(BackendError, match=rf"{full} of .* STATUS_5003 \(5003\): because of a test"):
                convolution.choose(context)
            setattr(functions, full, right)


# --------------------------------------------------------------------------------------------------------- passes


def address(array):
    return array.ctypes.data


@FEWER
@given(model=convolutions(), seed=st.integers(0, 9), precision=st.sampled_from(["float32", "float64"]))
def test_the_three_passes_are_the_plan_s_convolution_and_its_two_gradients(model, seed, precision):
    plan, batch = model.plan(), 2
    (op,) = plan.operations
    assume(not why_unsupported(op, batch))
    _, library = by_numpy()
    kernel = numbers((*op.kernel_size, op.input_shape[2], op.filters), seed).astype(precision)
    bias = {} if op.bias is None else {op.bias: np.zeros(op.filters)}
    x, dy = (numbers((batch, *shape), seed + 1).astype(precision) for shape in (op.input_shape, op.output_shape))
    w = np.ascontiguousarray(kernel.reshape(-1, op.filters).T)
    y, dx, dw = (np.full(like.shape, np.nan, precision) for like in (dy, x, w))

    with Context(library) as context:
        convolution = Convolution(library, op, batch, precision)
        assert convolution.choose(context) == ""
        space = np.zeros(convolution.workspace, np.uint8)
        convolution.forward(address(x), address(w), address(y), address(space), 0)
        convolution.backward_data(address(w), address(dy), address(dx), address(space), 0)
        convolution.backward_filter(address(x), address(dy), address(dw), address(space), 0)

    def outputs(images, kernel):
        return naive.predict(plan, {op.kernel: kernel} | bias, images)

    close = {"rtol": 1e-4, "atol": 1e-4} if precision == "float32" else {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(y, outputs(x, kernel), **close)
    # The output is linear in each of the two, so that dy . y is the product of either with its gradient, for any of them.
    images, kernels = numbers(x.shape, seed + 2), numbers(kernel.shape, seed + 3)
    dkernel = dw.reshape(op.filters, -1).T.reshape(kernel.shape)
    np.testing.assert_allclose((dx * images).sum(), (dy * outputs(images, kernel)).sum(), **close)
    np.testing.assert_allclose((dkernel * kernels).sum(), (dy * outputs(x, kernels)).sum(), **close)


def test_a_pass_runs_on_the_stream_that_it_is_given():
    functions, library = by_numpy()
    with Context(library) as context:
        convolution = chosen(library, context)
        memory = np.zeros(1000)
        for stream in (0, 77, 77, 5):
            convolution.forward(*[address(memory)] * 4, stream)
            assert functions.ran[3] == stream
        assert functions.calls.count("cudnnSetStream") == 3  # it is not told again what it knows


def test_a_pass_that_fails_is_an_error():
    _, library = by_numpy()
    with Context(library) as context:
        convolution = chosen(library, context)
        with pytest.raises(BackendError, match=r"cudnnConvolutionForward .* STATUS_2000 \(2000\)"):
            convolution.forward(1, 1, 1, 0, 0)  # no workspace
