"""Products in the words of cuBLAS, carried out by a cuBLAS on NumPy that knows addresses alone; no GPU code runs here."""

from types import SimpleNamespace

import numpy as np
import pytest
from cupy_by_numpy import Array, Gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit import BackendError
from cnnkit_cupy import cublas
from cnnkit_cupy.cublas import Blas, product_of

NOT_INITIALIZED = 1
SIZES = st.integers(1, 6)
LAYOUTS = st.sampled_from(["rows", "columns", "some rows", "some columns"])


def laid_out(values, layout):
    """A matrix with these numbers, in memory as `layout` says."""
    if layout == "rows":
        return values.copy()
    if layout == "columns":
        return values.T.copy().T
    if layout == "some rows":
        return np.pad(values, ((1, 2), (0, 0)))[1:-2]
    return np.pad(values, ((0, 0), (1, 2)))[:, 1:-2]


@pytest.fixture(scope="module")
def blas():
    gpu = Gpu({})
    stream = gpu.cp.cuda.Stream(non_blocking=True)
    made = Blas(gpu.blas, np.dtype(np.float64), "float64")
    made.use(stream.ptr, gpu.cp.empty((100,), dtype="uint8"))
    return made


@settings(derandomize=True, deadline=None, max_examples=300)
@given(SIZES, SIZES, SIZES, LAYOUTS, LAYOUTS, st.sampled_from(["rows", "some rows", "some columns"]))
def test_matrices_in_every_layout_are_multiplied(blas, rows, inner, columns, left, right, out):
    random = np.random.default_rng([rows, inner, columns])
    a = laid_out(random.normal(size=(rows, inner)), left)
    b = laid_out(random.normal(size=(inner, columns)), right)
    c = laid_out(np.full((rows, columns), np.nan), out)
    before = c.base.copy() if c.base is not None else None
    gpu = blas.functions.gpu
    blas.product(*(Array(gpu, None, each) for each in (a, b, c)))()
    gpu.run()
    np.testing.assert_allclose(c, a @ b, rtol=1e-13, atol=1e-13)
    if before is not None:
        assert np.array_equal(np.isnan(before).sum(), c.size)  # all that was written is in the result
        assert not c.base[~np.isnan(before)].any()


def test_shapes_that_do_not_fit_are_an_error():
    a, b = np.zeros((2, 3)), np.zeros((4, 2))
    with pytest.raises(ValueError, match=r"\(2, 3\) @ \(4, 2\) is not \(2, 2\)"):
        product_of(a, b, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"\(2, 3\) @ \(3, 2\) is not \(3, 2\)"):
        product_of(a, a.T, np.zeros((3, 2)))


def test_a_result_by_columns_and_a_matrix_without_contiguous_lines_are_errors():
    a = np.zeros((4, 4))
    with pytest.raises(ValueError, match="the result of a product has to be in C order"):
        product_of(a, a, a.T)
    with pytest.raises(ValueError, match=r"neither the rows nor the columns of a matrix with strides \(64, 16\)"):
        product_of(a[::2, ::2], a[:2], np.zeros((2, 4)))


def test_a_size_that_cublas_does_not_count_is_an_error():
    huge = np.lib.stride_tricks.as_strided(np.zeros(1), (2**31, 1), (8, 8))
    with pytest.raises(OverflowError):
        product_of(huge, np.zeros((1, 1)), huge)


def test_what_cublas_answers_is_an_error_with_its_name(blas, monkeypatch):
    monkeypatch.setattr(blas._gemm, "body", lambda *_: 13)
    matrix = Array(blas.functions.gpu, None, np.zeros((2, 2)))
    with pytest.raises(BackendError, match=r"cublasDgemm_v2 failed with CUBLAS_STATUS_EXECUTION_FAILED\."):
        blas.product(matrix, matrix, matrix)()


def test_without_cublas_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(cublas, "_path", lambda cuda: f"libcublas-of-nobody.so.{cuda}")
    with pytest.raises(
        BackendError, match=r"needs cuBLAS, which CuPy alone does not bring along: .*libcublas-of-nobody"
    ):
        cublas.load(13)


def test_cublas_is_that_of_cupy_s_cuda_even_where_another_is_found_first(monkeypatch, tmp_path):
    found = SimpleNamespace(abs_path="/usr/lib/libcublas.so.13")
    pathfinder = SimpleNamespace(load_nvidia_dynamic_lib=lambda _: found, DynamicLibNotFoundError=OSError)
    monkeypatch.setattr(cublas.importlib, "import_module", lambda _: pathfinder)
    monkeypatch.setattr(cublas.sys, "path", [str(tmp_path)])
    assert cublas._path(13) == "/usr/lib/libcublas.so.13"
    assert cublas._path(12) == "libcublas.so.12"
    for place, version in (("cu13", 13), ("cublas", 12)):
        folder = tmp_path / "nvidia" / place / "lib"
        folder.mkdir(parents=True)
        (folder / f"libcublas.so.{version}").touch()
        assert cublas._path(version) == str(folder / f"libcublas.so.{version}")


def test_the_library_itself_has_every_function():
    """It is in the extra, and 500 MB large: its absence is no failure here."""
    try:
        functions = cublas.load(13)
    except BackendError as error:
        pytest.skip(f"cuBLAS is not installed: {error}")
    assert functions.cublasSgemm_v2.argtypes == cublas.SIGNATURES["cublasSgemm_v2"]
    assert functions.cublasSetWorkspace_v2(None, None, 0) == NOT_INITIALIZED


def test_the_handle_is_freed_with_its_owner():
    gpu = Gpu({})
    made = Blas(gpu.blas, np.dtype(np.float32), "tf32")
    assert gpu.blas.live
    del made
    assert not gpu.blas.live
