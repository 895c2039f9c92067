"""Memory of a network: one block that all its arrays lie in, measured before it is taken; and limits, as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from cnnkit.arrays import Array, Shape
from cnnkit.errors import BackendOptionError
from cnnkit_batched.engine import ALIGNMENT, A, Arena, Engine


def _room(shape: Shape, dtype: Any, alignment: int) -> int:
    """The bytes of an array, up to the next multiple of `alignment`."""
    size: int = math.prod(shape) * np.dtype(dtype).itemsize
    return -(-size // alignment) * alignment


@final
class Loose(Arena):
    """Every array for itself, and the count of what a block would have to hold.

    Arrays are the engine's, or `empty` makes them: `stand_in`, where a network is built to be measured and never runs.
    """

    def __init__(self, engine: Engine, empty: Callable[[Shape, Any], A] | None = None) -> None:
        self.engine = engine
        self.empty = engine.empty if empty is None else empty
        self.kept = 0
        self.scratches: dict[str, int] = {}

    @property
    def bytes(self) -> int:
        """What a `Block` needs for the same arrays."""
        return self.kept + sum(self.scratches.values())

    def keep(self, shape: Shape, dtype: Any = None) -> A:
        dtype = dtype or self.engine.dtype
        self.kept += _room(shape, dtype, self.engine.alignment)
        return self.empty(shape, dtype)

    def scratch(self, name: str, shape: Shape, dtype: Any = None) -> A:
        dtype = dtype or self.engine.dtype
        size = _room(shape, dtype, self.engine.alignment)
        self.scratches[name] = max(size, self.scratches.get(name, 0))
        return self.empty(shape, dtype)


@final
class Block(Arena):
    """One block of bytes, shared by networks that take turns: each begins anew at the front."""

    def __init__(self, memory: NDArray[np.uint8], measured: Loose, dtype: np.dtype[Any]) -> None:
        self.memory, self.dtype, self.alignment = memory, dtype, measured.engine.alignment
        self.scratches: dict[str, int] = {}
        self.end = 0
        for name, size in measured.scratches.items():
            self.scratches[name] = self.end
            self.end += size

    def keep(self, shape: Shape, dtype: Any = None) -> A:
        start = self.end
        self.end += _room(shape, dtype or self.dtype, self.alignment)
        return self._array(start, shape, dtype)

    def scratch(self, name: str, shape: Shape, dtype: Any = None) -> A:
        return self._array(self.scratches[name], shape, dtype)

    def _array(self, start: int, shape: Shape, dtype: Any) -> A:
        size = math.prod(shape) * np.dtype(dtype or self.dtype).itemsize
        return self.memory[start : start + size].view(dtype or self.dtype).reshape(shape)


@lru_cache(maxsize=256)  # most arrays of a long network have one of a few shapes
def stand_in(shape: Shape, dtype: Any) -> Array:
    """An array with one number of memory behind it, for views to be made of: nobody may read it, and it cannot be written.

    What is only measured may be larger than any memory, which `numpy.empty` refuses.
    """
    one = np.zeros(1, dtype)
    strides = [one.itemsize]
    for length in shape[:0:-1]:
        strides.append(strides[-1] * max(length, 1))
    return as_strided(one, shape, tuple(strides[::-1]) if shape else (), writeable=False)


def aligned_bytes(count: int) -> NDArray[np.uint8]:
    """`count` bytes that begin at a line of the cache."""
    memory = np.empty(count + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + count]


UNITS: Final = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def read_bytes(backend: str, value: Any) -> int | None:
    """The option `memory_limit` in bytes; None is no limit. Raises `BackendOptionError` for what is no size."""
    if value is None:
        return None
    found = re.fullmatch(r"\s*([0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)\s*([a-z]*)\s*", str(value).lower())
    known = found is not None and found[2] in UNITS and not isinstance(value, bool)
    count = int(Fraction(found[1].replace(",", "")) * UNITS[found[2]]) if found and known else 0
    if count < 1:
        raise BackendOptionError(
            f"backend {backend!r}: memory_limit is {value!r}; expected a number of bytes or a text such as '200 MB' "
            f"(kB, MB, GB, KiB, MiB, GiB), or None for no limit. Use for example memory_limit='500 MB'."
        )
    return count
