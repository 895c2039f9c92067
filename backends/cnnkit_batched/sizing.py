"""How many images and threads fit into a limit of memory, worked out before any of it is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

import numpy as np

from cnnkit.backend import MemoryEstimate
from cnnkit.errors import OutOfMemory
from cnnkit.plan import DropoutOp, Plan
from cnnkit_batched.engine import Engine
from cnnkit_batched.memory import Loose, stand_in
from cnnkit_batched.network import Network
from cnnkit_batched.numpy_engine import NumpyEngine
from cnnkit_batched.vector import Layout

SLICE: Final = 32
"""Images that a thread takes at once at most. A slice fixes in what order gradients are summed, so it depends on the model
and on the limit of memory, and never on the threads."""

CACHE: Final = 3 << 24
"""Bytes that a slice should not exceed, where it has more than LEAST images: larger slices only take more memory, since on
images of 224 x 224 slices of a third to twenty times as many bytes are equally quick."""

LEAST: Final = 4
"""Images that are worth the calls for them, however large they are."""

PIECE: Final = 1 << 15
"""Parameters that a thread updates at once: with gradient and slots they stay in a core's cache."""

UPDATE: Final = 5
"""Arrays of a piece that an optimizer's formula has at once, beside those that it is given."""

SOFTMAX: Final = 8
"""Arrays of scores that softmax and cross-entropy have at once, beside those that they are given."""

NETWORKS: Final = 4
"""Networks of the longest kind whose calls a thread keeps: two sizes of slices that differ by one, of two sizes of batches."""

CALL: Final = 1000
"""Bytes of Python's objects for one call: the call and the views that it is bound to. Measured: 500 to 900."""

FEW_CALLS: Final = 256
"""So many calls of a network are not counted. With most models these are all, and they take less than the interpreter."""


@dataclass(frozen=True)
class Sizing:
    """What a program takes: `threads` members with a block of `arena` bytes each, for slices of at most `images`.

    No network has more than `calls` calls.
    """

    plan: Plan
    layout: Layout
    learns: bool
    images: int
    threads: int
    arena: int
    calls: int
    bytes: int

    @property
    def estimate(self) -> MemoryEstimate:
        """In the words of the contract."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return MemoryEstimate(self.bytes, f"{threads}, {self.images} images at a time each")


def measured(engine: Engine, plan: Plan, layout: Layout, count: int, *, learns: bool) -> Loose:
    """The arrays of a network for `count` images, counted."""
    return _on_paper(engine, plan, layout, count, learns=learns)[1]


def length(network: Network) -> int:
    """How many calls a network consists of."""
    return len(network.forward) + len(network.finish) + len(network.backward)


def _on_paper(engine: Engine, plan: Plan, layout: Layout, count: int, *, learns: bool) -> tuple[Network, Loose]:
    """A network that never runs, and its arrays, counted."""
    loose = Loose(engine, stand_in if isinstance(engine, NumpyEngine) else None)
    vector = loose.empty((layout.size,), engine.dtype)
    return Network(engine, loose, plan, layout, vector, vector if learns else None, count), loose


def size(plan: Plan, dtype: np.dtype[Any], threads: int, slots: int, limit: int | None, *, learns: bool) -> Sizing:
    """The largest slices up to SLICE that fit into `limit` bytes on one thread, and on how many of `threads` they fit.

    Raises `OutOfMemory` where not even one image does.
    """
    layout = Layout(plan)
    vector = layout.size * dtype.itemsize
    fixed = vector * (1 + (slots + 1 if learns else 0))
    each = vector + UPDATE * min(PIECE, layout.size) * dtype.itemsize if learns else 0

    @cache
    def member(images: int) -> _Member:
        return _member(NumpyEngine(dtype), plan, layout, images, learns=learns)

    def fits(images: int) -> bool:
        return limit is None or fixed + each + member(images).bytes <= limit

    images = LEAST + _largest(lambda more: member(LEAST + more).arena <= CACHE, SLICE - LEAST)
    if limit is not None:
        images = _largest(fits, images)
        if not images:
            least = fixed + each + member(1).bytes
            raise OutOfMemory(
                f"{plan.model.title} takes {_rounded(least, up=True)} to {'train' if learns else 'predict'} one image at a "
                f"time, but memory_limit is {_rounded(limit, up=False)}. Give a limit of at least "
                f"{_rounded(least, up=True)}, or a smaller model.",
                asked=least,
                free=limit,
            )
        threads = min(threads, (limit - fixed) // (each + member(images).bytes))
    room = member(images)
    total = fixed + threads * (each + room.bytes)
    return Sizing(plan, layout, learns, images, threads, room.arena, room.calls, total)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, 0 for none; few are tried, from below, so that none is far too large."""
    low, high = 0, 1
    while fits(high):
        if high == most:
            return most
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class _Member:
    """What a thread takes for itself: the block, calls, and what NumPy makes while they run."""

    arena: int
    calls: int
    bytes: int


def _member(engine: NumpyEngine, plan: Plan, layout: Layout, count: int, *, learns: bool) -> _Member:
    """Networks that learn and networks that predict take turns in the block, of all sizes up to `count`."""
    arena = calls = own = 0
    for kind in {learns, False}:
        network, loose = _on_paper(engine, plan, layout, count, learns=kind)
        arena, calls, own = max(arena, loose.bytes), max(calls, length(network)), max(own, _own_bytes(network))
    objects = (NETWORKS + 2) * (max(0, calls - FEW_CALLS) * CALL + own)  # two more while one is measured and built
    return _Member(arena, calls, arena + objects + _passing(plan, engine.dtype.itemsize, count, learns=learns))


def _own_bytes(network: Network) -> int:
    """The bytes of arrays that calls are bound to and that lie outside the block, such as rows of zeros."""
    found: dict[int, int] = {}
    for call in [*network.forward, *network.finish, *network.backward]:
        if isinstance(call, partial):
            arguments = (*call.args, *call.keywords.values())
            found |= {id(each): each.nbytes for each in arguments if isinstance(each, np.ndarray) and each.base is None}
    return sum(found.values())


def _passing(plan: Plan, itemsize: int, count: int, *, learns: bool) -> int:
    """The most bytes of arrays that last no longer than a call: chosen images, random numbers, those of the softmax."""
    images = math.prod(plan.input_shape) * itemsize
    drops = [math.prod(op.input_shape) for op in plan.operations if learns and isinstance(op, DropoutOp)]
    scores = plan.classes * (SOFTMAX * itemsize + 1) if plan.is_classifier else 0
    return count * max(images, scores, *(drawn * (np.dtype(np.float32).itemsize + 1) for drawn in drops))


def _rounded(count: int, *, up: bool) -> str:
    """Bytes as people read and write them."""
    unit, name = (1000, "kB") if count < 10_000_000 else (1_000_000, "MB")
    return f"{-(-count // unit) if up else count // unit:,} {name}"
