"""Products of matrices on cuBLAS, through its C library: CuPy's own calls of it refuse to be recorded in a CUDA graph.

Memory is the caller's: arrays are CuPy's, or anything with their `shape`, `strides`, `itemsize` and `data.ptr`. cuBLAS
counts a matrix by columns, so that a matrix in C order is to it the transposed one, and `left @ right` is asked for as
`right.T @ left.T`.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import weakref
from collections.abc import Callable, Mapping
from ctypes import POINTER, byref, c_double, c_float, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from cnnkit.errors import BackendError
from cnnkit_cupy.precisions import TF32

NOT_TRANSPOSED, TRANSPOSED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
DEFAULT_MATH: Final = 0
TF32_TENSOR_OP_MATH: Final = 3
"""Only this one rounds factors; the default computes float32 in float32."""

_GEMM: Final = [c_void_p, *[c_int] * 5, c_void_p, c_void_p, c_int, c_void_p, c_int, c_void_p, c_void_p, c_int]
_AXPY: Final = [c_void_p, c_int, c_void_p, c_void_p, c_int, c_void_p, c_int]

SIGNATURES: Final[Mapping[str, list[Any]]] = {
    "cublasCreate_v2": [POINTER(c_void_p)],
    "cublasDestroy_v2": [c_void_p],
    "cublasSetStream_v2": [c_void_p, c_void_p],
    "cublasSetWorkspace_v2": [c_void_p, c_void_p, c_size_t],
    "cublasSetMathMode": [c_void_p, c_int],
    "cublasSgemm_v2": _GEMM,
    "cublasDgemm_v2": _GEMM,
    "cublasSaxpy_v2": _AXPY,
    "cublasDaxpy_v2": _AXPY,
}
"""The functions that are used, each of which gives a `cublasStatus_t`; those of cublas_api.h of CUDA 12 and 13."""

STATUSES: Final = {
    1: "NOT_INITIALIZED",
    3: "ALLOC_FAILED",
    7: "INVALID_VALUE",
    8: "ARCH_MISMATCH",
    13: "EXECUTION_FAILED",
}


def load(cuda: int) -> Any:
    """Load and declare cuBLAS for the CUDA of that major version; a `BackendError` where it is not to be had."""
    try:
        functions = ctypes.CDLL(_path(cuda))
        for name, arguments in SIGNATURES.items():
            function = getattr(functions, name)
            function.restype, function.argtypes = c_int, arguments
    except (OSError, AttributeError) as error:
        raise BackendError(f"needs cuBLAS, which CuPy alone does not bring along: {error}") from error
    return functions


def _path(cuda: int) -> str:
    """That in a wheel, which fits; or what cuda.pathfinder finds in conda or the system, if it fits; or else the name alone.

    cuda.pathfinder comes with CuPy. Of several versions it takes the newest, or the one that somebody has loaded already.
    """
    name = f"libcublas.so.{cuda}"
    places = (
        Path(folder, place, name) for folder in sys.path for place in (f"nvidia/cu{cuda}/lib", "nvidia/cublas/lib")
    )
    if found := next((place for place in places if place.is_file()), None):
        return str(found)
    try:
        pathfinder = importlib.import_module("cuda.pathfinder")
    except ImportError:
        return name
    try:
        path = str(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    except pathfinder.DynamicLibNotFoundError:
        return name
    return path if Path(path).name.startswith(name) else name


@dataclass(frozen=True)
class Product:
    """`left @ right` in the words of cuBLAS: both operations, m, n and k, and the leading dimensions."""

    first: int
    second: int
    sizes: tuple[int, int, int]
    leading: tuple[int, int, int]


def product_of(left: Any, right: Any, out: Any) -> Product:
    """The product of matrices whose rows or columns are contiguous; those of `out` are rows.

    Raises `ValueError` for shapes that do not fit, and `OverflowError` for sizes that cuBLAS does not count.
    """
    (rows, inner), (other, columns) = left.shape, right.shape
    if inner != other or out.shape != (rows, columns):
        raise ValueError(f"{left.shape} @ {right.shape} is not {out.shape}")
    (first, first_leading), (second, second_leading) = _laid_out(right), _laid_out(left)
    out_operation, out_leading = _laid_out(out)
    if out_operation != NOT_TRANSPOSED:
        raise ValueError("the result of a product has to be in C order")
    made = Product(first, second, (columns, rows, inner), (first_leading, second_leading, out_leading))
    for size in (*made.sizes, *made.leading):
        np.int32(size)
    return made


def _laid_out(matrix: Any) -> tuple[int, int]:
    """Whether cuBLAS takes the matrix as it is or transposed, and how many numbers its contiguous lines are apart."""
    (rows, columns), item = matrix.shape, matrix.itemsize
    down, across = (stride // item for stride in matrix.strides)
    if columns == 1 or across == 1:  # rows are contiguous
        return NOT_TRANSPOSED, max(columns, down if rows > 1 else columns)
    if rows == 1 or down == 1:
        return TRANSPOSED, max(rows, across)
    raise ValueError(f"neither the rows nor the columns of a matrix with strides {matrix.strides} are contiguous")


@final
class Blas:
    """cuBLAS on the device and the CUDA stream that are current, with a workspace that is the caller's."""

    def __init__(self, functions: Any, dtype: np.dtype[Any], precision: str) -> None:
        self.functions = functions
        letter, scalar = ("S", c_float) if dtype.itemsize == 4 else ("D", c_double)
        self._gemm = getattr(functions, f"cublas{letter}gemm_v2")
        self._axpy = getattr(functions, f"cublas{letter}axpy_v2")
        self._one, self._zero = scalar(1.0), scalar(0.0)
        self._handle = c_void_p()
        self._call("cublasCreate_v2", byref(self._handle))
        self._free = weakref.finalize(self, functions.cublasDestroy_v2, self._handle)
        self._free.atexit = False  # the driver may be gone by then, and takes everything with it
        self._call("cublasSetMathMode", self._handle, TF32_TENSOR_OP_MATH if precision == TF32 else DEFAULT_MATH)

    def use(self, stream: int, workspace: Any) -> None:
        """Run on `stream`, with the memory of the array `workspace`: without it a recorded product would allocate some."""
        self._call("cublasSetStream_v2", self._handle, stream)  # which forgets the workspace
        self._call("cublasSetWorkspace_v2", self._handle, workspace.data.ptr, workspace.nbytes)
        self._workspace = workspace

    def product(self, left: Any, right: Any, out: Any) -> Callable[[], None]:
        """The call of `out = left @ right`."""
        it = product_of(left, right, out)
        a, b, c = right.data.ptr, left.data.ptr, out.data.ptr
        (lda, ldb, ldc), (one, zero) = it.leading, (byref(self._one), byref(self._zero))
        numbers = (self._handle, it.first, it.second, *it.sizes, one, a, lda, b, ldb, zero, c, ldc)
        return partial(self._run, self._gemm, numbers, (left, right, out))

    def add(self, source: Any, target: Any) -> Callable[[], None]:
        """The call of `target += source`, of contiguous arrays of one size."""
        numbers = (self._handle, int(np.int32(source.size)), byref(self._one), source.data.ptr, 1, target.data.ptr, 1)
        return partial(self._run, self._axpy, numbers, (source, target))

    def _call(self, name: str, *arguments: Any) -> None:
        self._run(getattr(self.functions, name), arguments, ())

    @staticmethod
    def _run(function: Any, arguments: tuple[Any, ...], _: tuple[Any, ...]) -> None:
        """Call a function of cuBLAS; the arrays behind its addresses are kept alive by being arguments here."""
        status = function(*arguments)
        if status:
            raise BackendError(
                f"backend 'cupy': {function.__name__} failed with CUBLAS_STATUS_{STATUSES.get(status, status)}. "
                "If the GPU is short of memory, set a memory_limit; else restart the process."
            )
