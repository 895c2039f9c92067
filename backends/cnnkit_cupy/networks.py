"""The networks of one program, for batches of several sizes: they take turns in one block of memory on the GPU."""

from __future__ import annotations

from typing import Any, Final, final

from cnnkit.errors import OutOfMemory
from cnnkit.plan import Plan
from cnnkit_batched.engine import A
from cnnkit_batched.memory import Block, Loose
from cnnkit_batched.network import Network
from cnnkit_batched.sizing import measured
from cnnkit_batched.vector import Layout
from cnnkit_cupy.engine import CudaEngine
from cnnkit_cupy.paper import Convolver, Paper
from cnnkit_cupy.recipe import Recipe, Source
from cnnkit_cupy.room import Room
from cnnkit_cupy.words import amount

MOST_NETWORKS: Final = 16
"""Networks for so many sizes of slices are kept."""


@final
class Sizes:
    """How much memory networks of `plan` take, worked out on paper."""

    def __init__(self, plan: Plan, dtype: Any, block: int, convolver: Convolver | None = None) -> None:
        self.plan, self.layout = plan, Layout(plan)
        self.engine = CudaEngine(Paper(dtype, convolver), block)
        self._found: dict[tuple[int, bool], Loose] = {}

    def measured(self, count: int, *, learns: bool) -> Loose:
        """The arrays of a network for `count` images, counted."""
        key = count, learns
        if key not in self._found:
            self._found[key] = measured(self.engine, self.plan, self.layout, count, learns=learns)
        return self._found[key]

    def most(self, count: int, room: int, *, learns: bool) -> int:
        """The most images, up to `count`, whose network fits into `room` bytes; 0 where not even one does."""

        def fits(images: int) -> bool:
            return self.measured(images, learns=learns).bytes <= room

        if fits(count):
            return count
        low, high = 0, count
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low


@final
class Networks:
    """Networks over `vector`, which learn into `gradient` where it is not None."""

    def __init__(self, room: Room, plan: Plan, vector: A, gradient: A | None) -> None:
        self.room, self.plan, self.vector, self.gradient = room, plan, vector, gradient
        self.sizes = Sizes(plan, room.dtype, room.card.block, room.card.convolution)
        self.layout = self.sizes.layout
        self.engine = CudaEngine(room, room.card.block)
        self.memory: A = None
        self.recipes: dict[tuple[int, int], tuple[Recipe, Source]] = {}
        """What was made of networks in this block, by the size of a batch and the identity of its source."""
        self.found: dict[tuple[int, bool], Network] = {}

    @property
    def capacity(self) -> int:
        """The bytes of the block that networks lie in."""
        return 0 if self.memory is None else int(self.memory.nbytes)

    def reserve(self, count: int, spare: int, *, learns: bool) -> int:
        """Make room for networks of up to `count` images, or of as many as fit; returns how many these are.

        So many bytes as `spare` are left for what else is needed to work with `count` images.
        If the block has to grow, the networks there were are gone. Raises `OutOfMemory` where not even one image fits.
        """
        most, room = count, self.room.card.free - spare + self.capacity
        if self.sizes.measured(count, learns=learns).bytes > self.capacity:
            most = self.sizes.most(count, room, learns=learns)
        if most == 0:
            least = self.sizes.measured(1, learns=learns).bytes
            raise OutOfMemory(
                f"backend 'cupy': {self.plan.model.title} takes {amount(least)} to {'train' if learns else 'predict'} "
                f"one image at a time, and {amount(max(0, room))} are free on GPU {self.room.card.number}"
                f"{self.room.limit_in_words}. Free memory there, or use a smaller model.",
                asked=least,
                free=max(0, room),
            )
        wanted = self.sizes.measured(most, learns=learns).bytes
        if wanted > self.capacity:
            self.release()
            self.room.give_back()  # else the pool cuts small arrays off the old block, and can never give it back
            self.memory = self.room.empty((wanted,), "uint8")
        return most

    def get(self, count: int, *, learns: bool) -> Network:
        """The network for `count` images, for which there is room."""
        key = count, learns
        if key not in self.found:
            if len(self.found) >= MOST_NETWORKS:
                self.found.clear()
            measured = self.sizes.measured(count, learns=learns)
            # For fewer images cuDNN may choose an algorithm with a larger workspace: then the block does not do.
            memory = self.memory if measured.bytes <= self.capacity else self.room.empty((measured.bytes,), "uint8")
            arena = Block(memory, measured, self.room.dtype)
            gradient = self.gradient if learns else None
            self.found[key] = Network(self.engine, arena, self.plan, self.layout, self.vector, gradient, count)
        return self.found[key]

    def release(self) -> None:
        """Give the block back."""
        self.recipes.clear()
        self.found.clear()
        self.memory = None
