"""What is read from the kernels' source, and the geometry of their launches; nothing here needs CuPy."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit_cupy import sources
from cnnkit_cupy.sources import Parameter, prepare

SMALL = st.integers(1, 300)
AT_LEAST_1 = st.sampled_from([1, 2, 31, 256, 257, 1000, 2**20 + 1, 2**31 - 1])
ANY = st.just(0) | AT_LEAST_1


def example(name, numbers):
    """Arguments of the kernel: null for arrays, and `numbers` for sizes by their names; every other number is 1."""
    return [None if each.is_array else numbers.get(each.name, 1) for each in sources.parameters()[name]]


def test_parameters_stand_as_in_the_source():
    assert sources.parameters()["dropout"] == (
        Parameter("x", "REAL*"),
        Parameter("kept", "unsigned char*"),
        Parameter("count", "long long"),
        Parameter("scale", "double"),
    )


def test_every_kernel_of_every_file_is_found_with_types_that_are_known():
    written = sum(sources.text_of(file).count("\nKERNEL ") for file in sources.FILES)
    assert len(sources.parameters()) == written == 26
    types = {each.type for kernel in sources.parameters().values() for each in kernel}
    arrays = {"REAL*", "double*", "int*", "long long*", "unsigned char*"}
    assert types == arrays | {"int", "long long", "double"}


def test_the_text_includes_nothing():
    assert "#include" not in sources.source()
    assert "KERNEL im2col" in sources.source()


def test_the_block_has_as_many_threads_as_the_kernels_expect():
    assert f"#define THREADS {sources.THREADS} " in sources.text_of("common.cuh")


def test_options_name_the_type_and_forbid_contraction():
    assert sources.compile_options(np.float32) == ("--std=c++17", "--fmad=false", "-DREAL=float")
    assert sources.compile_options("float64") == ("--std=c++17", "--fmad=false", "-DREAL=double")


def test_arguments_get_the_types_of_the_kernel():
    array = object()
    launch = prepare("bias_activation", array, None, 7, 5, 1)
    assert launch.arguments == (array, 0, 7, 5, 1)
    assert [type(argument) for argument in launch.arguments[1:]] == [np.int64, np.int64, np.int32, np.int32]
    assert type(prepare("dropout", array, array, 7, 2).arguments[3]) is np.float64


def test_a_size_that_its_type_does_not_hold_is_an_error():
    prepare("softmax", None, None, 2**31, 2**31 - 1)
    with pytest.raises(OverflowError):
        prepare("softmax", None, None, 1, 2**31)


def test_one_argument_too_few_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        prepare("dropout", None, None, 7)


@pytest.mark.parametrize("name", sorted(sources.parameters()))
@given(data=st.data())
@settings(max_examples=40)
def test_no_launch_is_beyond_the_limits_of_cuda(name, data):
    sizes = {each.name: data.draw(SMALL) for each in sources.parameters()[name] if each.type == "int"}
    sizes |= {each: data.draw(AT_LEAST_1) for each in ("filters", "classes", "pixels")}
    sizes |= {each: data.draw(ANY) for each in ("images", "rows", "count")}
    launch = prepare(name, *example(name, sizes))
    assert all(type(size) is int and size >= 1 for size in launch.grid + launch.block)
    assert math.prod(launch.block) <= sources.THREADS
    assert launch.grid[0] < 2**31
    assert launch.grid[1:] <= (65_535,)
    assert not name.startswith("softmax") or launch.block[0] == 32


@pytest.mark.parametrize("shape", [(1, 1), (1000, 3), (10**6, 32), (10**6, 1024), (50, 700)])
def test_there_is_room_for_all_partial_sums(shape):
    rows, filters = shape
    launch = prepare("bias_gradient_partial", *example("bias_gradient_partial", {"rows": rows, "filters": filters}))
    assert launch.grid[0] == sources.shares_of_rows(rows, filters) <= sources.SHARES
    launch = prepare("square_sum", *example("square_sum", {"count": rows * filters}))
    assert launch.grid == (sources.shares_of_vector(rows * filters),)


BATCH = {
    "images": 1024,
    "height": 32,
    "width": 32,
    "channels": 32,
    "out_height": 32,
    "out_width": 32,
    "kernel_height": 3,
    "kernel_width": 3,
    "pool_height": 2,
    "pool_width": 2,
    "rows": 2**20,
    "filters": 32,
    "count": 2**25,
    "pixels": 32 * 32 * 3,
    "function": 1,
}
OF_FEW_NUMBERS = {"gather_labels", "softmax", "softmax_cross_entropy", "sum_losses", "step_coefficients"}
OF_FEW_NUMBERS |= {"bias_gradient", "clip_factor", "grayscale", "grayscale_backward"}


@pytest.mark.parametrize("name", sorted(set(sources.parameters()) - OF_FEW_NUMBERS))
def test_a_large_batch_fills_a_large_card(name):
    launch = prepare(name, *example(name, BATCH))
    assert math.prod(launch.grid) * math.prod(launch.block) >= 132 * 1024  # half of what an H100 holds at once


def test_nothing_imports_cupy():
    code = "import sys; from cnnkit_cupy import sources; sources.source(); print('cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
