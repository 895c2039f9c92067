"""A place where nothing runs: arrays without memory and calls that do nothing, to work out sizes before any of it is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from cnnkit.arrays import Shape
from cnnkit.plan import Conv2DOp
from cnnkit_batched.engine import A, Call
from cnnkit_cupy import sources
from cnnkit_cupy.cublas import product_of
from cnnkit_cupy.cudnn import Convolution
from cnnkit_cupy.cudnn_descriptors import Pass
from cnnkit_cupy.target import Target

Convolver: TypeAlias = Callable[[Conv2DOp, int, tuple[Pass, ...]], Convolution | None]
"""What answers whether cuDNN does a convolution for so many images."""


def _nothing() -> None:
    raise AssertionError("what is on paper does not run")


@final
class Paper(Target):
    """Arguments are checked as for a launch. `kernels` are the names of those that would be launched."""

    stream = 0

    def __init__(self, dtype: np.dtype[Any], convolver: Convolver | None = None) -> None:
        self.dtype, self._convolver = dtype, convolver
        self.kernels: set[str] = set()

    def empty(self, shape: Shape, dtype: Any = None) -> NDArray[Any]:
        """An array of any size over a single number: nobody may read or write it, and it can't be written."""
        one = np.zeros(1, self.dtype if dtype is None else dtype)
        strides = [one.itemsize]
        for size in shape[:0:-1]:
            strides.insert(0, strides[0] * size)
        return as_strided(one, shape, strides[: len(shape)], writeable=False)

    def upload(self, values: NDArray[Any]) -> NDArray[Any]:
        return self.empty(values.shape, values.dtype)

    def address(self, array: A) -> int:  # noqa: ARG002 - there is no memory
        return 0

    def kernel(self, name: str, *arguments: Any) -> Call:
        sources.prepare(name, *arguments)
        self.kernels.add(name)
        return _nothing

    def product(self, left: A, right: A, out: A) -> Call:
        product_of(left, right, out)
        return _nothing

    def add(self, source: A, target: A) -> Call:
        return self._same(source, target)

    def copy(self, source: A, target: A) -> Call:
        return self._same(source, target)

    def assign(self, source: A, target: A) -> Call:
        return self._same(source, target)

    def fill(self, array: A, value: float) -> Call:  # noqa: ARG002 - any value does
        return _nothing

    def convolution(self, op: Conv2DOp, batch: int, passes: Iterable[Pass]) -> Convolution | None:
        return self._convolver(op, batch, tuple(passes)) if self._convolver else None

    @staticmethod
    def _same(source: A, target: A) -> Call:
        if source.shape != target.shape:
            raise ValueError(f"{source.shape} is not {target.shape}")
        return _nothing
