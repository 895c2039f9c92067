"""How many images and threads fit into a limit of memory, worked out before any of it is taken."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from cnnkit.backend import MemoryEstimate
from cnnkit.errors import OutOfMemory
from cnnkit.plan import Plan
from cnnkit_batched.engine import Engine
from cnnkit_batched.memory import Loose
from cnnkit_batched.network import Network
from cnnkit_batched.numpy_engine import NumpyEngine
from cnnkit_batched.vector import Layout

SLICE: Final = 32
"""Images that a thread takes at once where memory has no limit. A slice fixes in what order gradients are summed, so it
depends on the limit, and never on the threads."""


@dataclass(frozen=True)
class Sizing:
    """What a program takes: `threads` members with a block of `arena` bytes each, for slices of at most `images`."""

    plan: Plan
    layout: Layout
    learns: bool
    images: int
    threads: int
    arena: int
    bytes: int

    @property
    def estimate(self) -> MemoryEstimate:
        """In the words of the contract."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return MemoryEstimate(self.bytes, f"{threads}, {self.images} images at a time each")


def measured(engine: Engine, plan: Plan, layout: Layout, count: int, *, learns: bool) -> Loose:
    """The arrays of a network for `count` images, counted."""
    loose = Loose(engine)
    vector = engine.empty((layout.size,))
    Network(engine, loose, plan, layout, vector, vector if learns else None, count)
    return loose


def size(plan: Plan, dtype: np.dtype[Any], threads: int, slots: int, limit: int | None, *, learns: bool) -> Sizing:
    """The largest slices up to SLICE that fit into `limit` bytes on one thread, and on how many of `threads` they fit.

    Raises `OutOfMemory` where not even one image does.
    """
    layout, engine = Layout(plan), NumpyEngine(dtype)
    vector = layout.size * dtype.itemsize
    fixed = vector * (1 + (slots + 1 if learns else 0))
    member = partial(_member, engine, plan, layout, learns=learns)
    each = vector if learns else 0
    images = SLICE
    if limit is not None:
        while images > 1 and fixed + each + member(images) > limit:
            images -= 1
        least = fixed + each + member(images)
        if least > limit:
            raise OutOfMemory(
                f"{plan.model.title} takes {megabytes(least)} to {'train' if learns else 'predict'} one image at a time, but "
                f"memory_limit is {megabytes(limit)}. Give a limit of at least {megabytes(least)}, or a smaller model.",
                asked=least,
                free=limit,
            )
        threads = min(threads, (limit - fixed) // (each + member(images)))
    arena = member(images)
    return Sizing(plan, layout, learns, images, threads, arena, fixed + threads * (each + arena))


def _member(engine: Engine, plan: Plan, layout: Layout, count: int, *, learns: bool) -> int:
    """The bytes of a member's block: networks that learn and networks that predict take turns in it, of all sizes up to `count`."""
    rooms = [measured(engine, plan, layout, count, learns=kind).bytes for kind in {learns, False}]
    return max(rooms)


def megabytes(count: int) -> str:
    """Bytes as people read them, rounded up."""
    return f"{-(-count // 1_000_000):,} MB"
