"""The CUDA kernels as text, what each takes, and how many threads it is given.

Nothing here imports CuPy: all of it can be read, compiled and tested where there is no GPU. A kernel's parameters are
read from its source, so that they are written down once. `prepare` does all that stands between a call with plain
numbers and a launch:

    kernel = module.get_function("dropout")
    launch = prepare("dropout", x, kept, x.size, 1.25)
    kernel(launch.grid, launch.block, launch.arguments)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final, TypeAlias

import numpy as np

FILES: Final = ("convolution.cu", "pooling.cu", "elementwise.cu", "loss.cu", "update.cu")
THREADS: Final = 256
"""The most threads in a block; `common.cuh` has the same number."""

BLOCKS: Final = 4096
"""About as many blocks as are started where each works through several pieces: some thirty for each multiprocessor."""

MOST_ACROSS: Final = 65_535
"""The most blocks along the second axis of a grid: CUDA's own limit."""

SHARES: Final = 1024
"""The most parts into which a sum over many rows is divided; each is a number in memory."""

ADDED: Final = ("-ftz=true", "--device-as-default-execution-space")
"""The options that CuPy adds to ours, whatever these are: what is compiled without it has to have them as well."""

Size: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """A kernel's parameter: its name, and its type without const and the like, such as "REAL*" or "long long"."""

    name: str
    type: str

    @property
    def is_array(self) -> bool:
        """Whether it is a pointer into the device's memory."""
        return self.type.endswith("*")


@dataclass(frozen=True)
class Launch:
    """How a kernel is started: blocks, threads in a block, and its arguments with the types that it takes."""

    grid: Size
    block: Size
    arguments: tuple[Any, ...]


# ------------------------------------------------------------------------------------------------------------ the text


def text_of(file: str) -> str:
    """One file of the folder `cuda`, as it stands there."""
    return (resources.files("cnnkit_cupy") / "cuda" / file).read_text(encoding="utf-8")


@cache
def source() -> str:
    """All kernels as one text that includes nothing, whose errors are reported by file and line."""
    parts = [f'#line 1 "common.cuh"\n{text_of("common.cuh")}']
    for file in FILES:
        text = text_of(file).replace('#include "common.cuh"', "")
        parts.append(f'#line 1 "{file}"\n{text}')
    return "\n".join(parts)


def compile_options(dtype: np.dtype[Any] | type) -> tuple[str, ...]:
    """The options of the compiler for programs that compute in `dtype`, float32 or float64; CuPy adds `ADDED` and the device's.

    Products and sums are not contracted into one rounding: what NumPy computes with the same formula has the same bits,
    but for numbers of float32 below 1.2e-38, which are 0 by CuPy's own options. These kernels wait for memory, not for
    arithmetic.
    """
    real = {"float32": "float", "float64": "double"}[np.dtype(dtype).name]
    return ("--std=c++17", "--fmad=false", f"-DREAL={real}")


@cache
def parameters() -> Mapping[str, tuple[Parameter, ...]]:
    """The parameters of every kernel, by its name, in their order."""
    kernels = re.findall(r"^KERNEL (\w+)\(([^)]*)\)", source(), re.MULTILINE)
    return MappingProxyType({name: tuple(map(_parameter, listed.split(","))) for name, listed in kernels})


def _parameter(declaration: str) -> Parameter:
    words = declaration.replace("*", " * ").split()
    kept = [word for word in words[:-1] if word not in {"const", "__restrict__"}]
    return Parameter(words[-1], " ".join(kept).replace(" *", "*"))


# ---------------------------------------------------------------------------------------------------------- the launch

_NUMBERS: Final = {"int": np.int32, "long long": np.int64, "double": np.float64}


def prepare(name: str, *arguments: Any) -> Launch:
    """How to start the kernel `name` with `arguments`: arrays, plain numbers, and None for an array that may be missing.

    As many arguments as the kernel takes, or it is a `ValueError`; an `OverflowError` tells of a size that its type does
    not hold.
    """
    expected = parameters()[name]
    numbers = {
        parameter.name: argument
        for parameter, argument in zip(expected, arguments, strict=True)
        if not parameter.is_array
    }
    grid, block = _GEOMETRY[name](SimpleNamespace(**numbers))
    return Launch(grid, block, tuple(map(_typed, expected, arguments)))


def _typed(parameter: Parameter, argument: Any) -> Any:
    if not parameter.is_array:
        return _NUMBERS[parameter.type](argument)
    return np.int64(0) if argument is None else argument  # a null pointer


def shares_of_rows(rows: int, filters: int) -> int:
    """The rows of `partial` that bias_gradient_partial writes and bias_gradient adds up, given as its `blocks`."""
    _, lanes = _columns_and_lanes(filters, rows)
    return max(1, min(math.ceil(rows / (8 * lanes)), SHARES))


def shares_of_vector(count: int) -> int:
    """The numbers in `partial` that square_sum writes and clip_factor adds up, given as its `blocks`."""
    return max(1, min(math.ceil(count / (8 * THREADS)), SHARES))


# ------------------------------------------------------------------------------------------------------- its geometry


def _columns_and_lanes(columns: int, rows: int) -> Size:
    """A block's threads along x, neighbours in memory, and along y: all columns where they fit, else equal parts."""
    parts = math.ceil(columns / THREADS)
    width = math.ceil(columns / parts)
    return width, max(1, min(rows, THREADS // width))


def _across(columns: int, width: int) -> int:
    return min(math.ceil(columns / width), MOST_ACROSS)


def _each(count: int) -> tuple[Size, Size]:
    return (max(1, min(math.ceil(count / THREADS), BLOCKS)),), (THREADS,)


def _each_of_images(images: int, pixels: int) -> tuple[Size, Size]:
    across = math.ceil(pixels / THREADS)
    return (across, max(1, min(images, math.ceil(BLOCKS / across)))), (min(THREADS, pixels),)


def _image_rows(images: int, rows: int, columns: int, channels: int) -> tuple[Size, Size]:
    return (rows, max(1, min(images, math.ceil(2 * BLOCKS / rows)))), _columns_and_lanes(channels, columns)


def _matrix(rows: int, columns: int) -> tuple[Size, Size]:
    width, lanes = _columns_and_lanes(columns, rows)
    return (max(1, min(math.ceil(rows / (4 * lanes)), BLOCKS)), _across(columns, width)), (width, lanes)


def _warps(rows: int) -> tuple[Size, Size]:
    lanes = max(1, min(rows, THREADS // 32))
    return (max(1, min(math.ceil(rows / lanes), BLOCKS)),), (32, lanes)


def _column_sums(rows: int, columns: int, shares: int) -> tuple[Size, Size]:
    width, lanes = _columns_and_lanes(columns, rows)
    return (shares, _across(columns, width)), (width, lanes)


def _one_sum(count: int, shares: int = 1) -> tuple[Size, Size]:
    return (shares,), (1, max(1, min(count, THREADS)))


def _bias_gradient(a: Any) -> tuple[Size, Size]:
    width, lanes = _columns_and_lanes(a.filters, a.blocks)
    return (math.ceil(a.filters / width),), (width, lanes)


def _of_pixels_in(a: Any) -> tuple[Size, Size]:
    return _image_rows(a.images, a.height, a.width, a.channels)


def _of_pixels_out(a: Any) -> tuple[Size, Size]:
    return _image_rows(a.images, a.out_height, a.out_width, a.channels)


_GEOMETRY: Final[Mapping[str, Callable[[Any], tuple[Size, Size]]]] = {
    "im2col": lambda a: _image_rows(a.images, a.out_height, a.out_width, a.kernel_height * a.kernel_width * a.channels),
    "col2im": _of_pixels_in,
    "max_pool": _of_pixels_out,
    "max_pool_backward": _of_pixels_in,
    "avg_pool": _of_pixels_out,
    "avg_pool_backward": _of_pixels_in,
    "gather_images_bytes": lambda a: _each_of_images(a.images, a.pixels),
    "gather_images_reals": lambda a: _each_of_images(a.images, a.pixels),
    "gather_labels": lambda a: _each(a.images),
    "rescale": lambda a: _each(a.count),
    "grayscale": lambda a: _each(a.pixels),
    "grayscale_backward": lambda a: _each(a.pixels),
    "bias_activation": lambda a: _matrix(a.rows, a.filters),
    "activation_backward": lambda a: _each(a.count),
    "bias_gradient_partial": lambda a: _column_sums(a.rows, a.filters, shares_of_rows(a.rows, a.filters)),
    "bias_gradient": _bias_gradient,
    "dropout": lambda a: _each(a.count),
    "softmax": lambda a: _warps(a.rows),
    "softmax_cross_entropy": lambda a: _warps(a.rows),
    "sum_losses": lambda a: _one_sum(a.rows),
    "step_coefficients": lambda _: ((1,), (1,)),
    "square_sum": lambda a: _one_sum(a.count, shares_of_vector(a.count)),
    "clip_factor": lambda a: _one_sum(a.blocks),
    "update_sgd": lambda a: _each(a.count),
    "update_adam": lambda a: _each(a.count),
    "update_adamw": lambda a: _each(a.count),
}
