"""What the engine asks of the place where its kernels run: a `Room` on the GPU, or `Paper`, where sizes alone are worked out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Shape
from cnnkit.plan import Conv2DOp
from cnnkit_batched.engine import A, Call
from cnnkit_cupy.cudnn import Convolution
from cnnkit_cupy.cudnn_descriptors import Pass


class Target(ABC):
    """Arrays of `dtype`, and calls that start work on them and wait for nothing."""

    dtype: np.dtype[Any]
    stream: int
    """The CUDA stream, as cuDNN takes it."""

    @abstractmethod
    def empty(self, shape: Shape, dtype: Any = None) -> A:
        """A new array, with anything in it. Raises `OutOfMemory`."""

    @abstractmethod
    def upload(self, values: NDArray[Any]) -> A:
        """A new array that holds numbers of the host. Raises `OutOfMemory`."""

    @abstractmethod
    def address(self, array: A) -> int:
        """Where the array begins in the GPU's memory, as cuDNN takes it."""

    @abstractmethod
    def kernel(self, name: str, *arguments: Any) -> Call:
        """The launch of a kernel of ours, with arguments as `cnnkit_cupy.sources.prepare` takes them."""

    @abstractmethod
    def product(self, left: A, right: A, out: A) -> Call:
        """`out = left @ right`, of matrices."""

    @abstractmethod
    def add(self, source: A, target: A) -> Call:
        """`target += source`, of contiguous arrays."""

    @abstractmethod
    def copy(self, source: A, target: A) -> Call:
        """`target = source`, byte by byte, of contiguous arrays."""

    @abstractmethod
    def assign(self, source: A, target: A) -> Call:
        """`target = source`, number by number, in any strides."""

    @abstractmethod
    def fill(self, array: A, value: float) -> Call:
        """`array = value`."""

    @abstractmethod
    def convolution(self, op: Conv2DOp, batch: int, passes: Iterable[Pass]) -> Convolution | None:
        """`op` on cuDNN, ready for `passes`; None where it is to be put together from kernels and products."""
