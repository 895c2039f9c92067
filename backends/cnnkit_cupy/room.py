"""The memory of one program on the GPU, in a pool of its own, which is given back when the program dies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Shape
from cnnkit.errors import OutOfMemory
from cnnkit.plan import Conv2DOp
from cnnkit_batched.engine import A, Call
from cnnkit_cupy.card import Card
from cnnkit_cupy.cudnn import Convolution
from cnnkit_cupy.cudnn_descriptors import Pass
from cnnkit_cupy.target import Target
from cnnkit_cupy.words import amount

T = TypeVar("T")


@final
class Room(Target):
    """Arrays on `card`. All of it works inside of `card.use()`."""

    def __init__(self, card: Card) -> None:
        self.card, self.dtype, self.stream = card, card.dtype, card.stream.ptr
        self.cp = card.cp
        self.pool = self.cp.cuda.MemoryPool()
        card.rooms.add(self)

    def give_back(self) -> None:
        """Give memory back to the GPU that the pool holds and does not use."""
        with self.cp.cuda.Device(self.card.number):
            self.pool.free_all_blocks()

    # --------------------------------------------------------------------------------------------------------- arrays

    def empty(self, shape: Shape, dtype: Any = None) -> A:
        dtype = np.dtype(self.dtype if dtype is None else dtype)
        return self._taken(math.prod(shape) * dtype.itemsize, lambda: self.cp.empty(shape, dtype=dtype))

    def zeros(self, shape: Shape, dtype: Any = None) -> A:
        """A new array of zeros."""
        array = self.empty(shape, dtype)
        array.data.memset_async(0, array.nbytes, self.card.stream)
        return array

    def upload(self, values: NDArray[Any]) -> A:
        # From memory of the driver's, into which `values` are copied: nobody waits until they have arrived.
        return self._taken(values.nbytes, lambda: self.cp.asarray(values))

    def upload_once(self, values: NDArray[Any]) -> A:
        """As `upload`, for a whole data set: the host waits, and holds no second copy of it."""
        array = self.empty(values.shape, values.dtype)
        array.set(values)
        self.card.stream.synchronize()  # a copy from pinned memory is still going on
        return array

    def _taken(self, asked: int, take: Callable[[], T]) -> T:
        """What `take` makes of memory of the pool."""
        errors = self.cp.cuda.memory.OutOfMemoryError
        with self.allocating():
            self._keep_to_limit()
            try:
                return take()
            except errors:  # what pools hold and do not use is in pieces of other sizes, or in another program's
                for room in self.card.rooms:
                    room.give_back()
            self._keep_to_limit()
            try:
                return take()
            except errors as error:
                free = self.card.free
                raise OutOfMemory(
                    f"backend 'cupy' asked for {amount(asked)} of memory on GPU {self.card.number}, where "
                    f"{amount(free)} are free{self.limit_in_words}.",
                    asked=asked,
                    free=free,
                ) from error

    def _keep_to_limit(self) -> None:
        """Let the pool take no more than is left of the card's limit."""
        if self.card.limit is not None:
            others = sum(room.pool.total_bytes() for room in self.card.rooms if room is not self)
            self.pool.set_limit(size=max(1, self.card.limit - self.card.workspace.nbytes - others))

    def allocating(self) -> AbstractContextManager[None]:
        """Inside, what CuPy makes is in memory of the pool."""
        allocator: AbstractContextManager[None] = self.cp.cuda.using_allocator(self.pool.malloc)
        return allocator

    @property
    def limit_in_words(self) -> str:
        """What a message adds about the limit of memory."""
        return "" if self.card.limit is None else f" under the memory_limit of {amount(self.card.limit)}"

    # ---------------------------------------------------------------------------------------------------------- calls

    def address(self, array: A) -> int:
        return int(array.data.ptr)

    def kernel(self, name: str, *arguments: Any) -> Call:
        return self.card.kernel(name, *arguments)

    def product(self, left: A, right: A, out: A) -> Call:
        return self.card.blas.product(left, right, out)

    def add(self, source: A, target: A) -> Call:
        return self.card.blas.add(source, target)

    def copy(self, source: A, target: A) -> Call:
        return partial(target.data.copy_from_device_async, source.data, source.nbytes, self.card.stream)

    def assign(self, source: A, target: A) -> Call:
        return partial(target.__setitem__, Ellipsis, source)

    def fill(self, array: A, value: float) -> Call:
        return partial(array.fill, value)

    def convolution(self, op: Conv2DOp, batch: int, passes: Iterable[Pass]) -> Convolution | None:
        return self.card.convolution(op, batch, tuple(passes))
