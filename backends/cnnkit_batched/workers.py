"""Slices of a batch on several threads, with a network for each, and one gradient that does not depend on how many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Images, Labels
from cnnkit.blas import single_threaded_blas
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit_batched.engine import Calls
from cnnkit_batched.memory import Block, Loose, aligned_bytes
from cnnkit_batched.network import Network
from cnnkit_batched.numpy_engine import NumpyEngine
from cnnkit_batched.team import Team
from cnnkit_batched.vector import Layout

SLICE: Final = 32
"""Images that a thread takes at once. It fixes in what order gradients are summed, so it never depends on the threads."""

MOST_NETWORKS: Final = 8
"""Networks for so many sizes of slices are kept by each thread."""

CHUNK: Final = 1 << 14
"""Parameters that a thread updates at once: with gradient and slots they stay in the first levels of the cache."""


@final
class Member:
    """What one thread works with: a block of memory, a gradient, and networks for some sizes of slices, which share both."""

    def __init__(self, plan: Plan, layout: Layout, vector: Array, count: int, *, learns: bool) -> None:
        self.plan, self.layout, self.vector = plan, layout, vector
        self.engine = NumpyEngine(vector.dtype)
        self.gradient = np.zeros_like(vector) if learns else None
        self.memory = aligned_bytes(self._measured(count).bytes)
        self.networks: dict[int, Network] = {}
        self.current: Network | None = None

    def _measured(self, count: int) -> Loose:
        loose = Loose(self.engine)
        Network(self.engine, loose, self.plan, self.layout, self.vector, self.gradient, count)
        return loose

    def network(self, count: int) -> Network:
        """The network for `count` images, ready to be used."""
        found = self.networks.get(count)
        if found is None:
            if len(self.networks) >= MOST_NETWORKS:
                self.networks.clear()
            arena = Block(self.memory, self._measured(count), self.vector.dtype)
            found = Network(self.engine, arena, self.plan, self.layout, self.vector, self.gradient, count)
            self.networks[count] = found
        if found is not self.current:
            run(found.reset)
            self.current = found
        return found


def run(calls: Calls) -> None:
    """Make all calls."""
    for call in calls:
        call()


def slices(count: int, most: int) -> list[slice]:
    """`count` images in as few slices as can be, none above `most`, all of nearly one size."""
    parts = -(-count // most)
    edges = [count * part // parts for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]


def take_in(network: Network, images: Images, rows: NDArray[np.integer[Any]] | slice) -> None:
    """Fill the network's images with `images[rows]`, rescaled."""
    if not isinstance(rows, slice) and images.flags.c_contiguous and images.dtype == network.images.dtype:
        np.take(images, rows, axis=0, out=network.images, mode="clip")  # `rows` has been checked
        chosen = network.images
    else:
        chosen = images[rows]
    if (network.scale, network.offset) != (1.0, 0.0):
        np.multiply(chosen, network.images.dtype.type(network.scale), out=network.images, casting="unsafe")
        if network.offset:
            np.add(network.images, network.offset, out=network.images)
    elif chosen is not network.images:
        np.copyto(network.images, chosen)


@final
class Workers:
    """The threads of one program. Without `learns` they predict."""

    def __init__(
        self, plan: Plan, layout: Layout, vector: Array, threads: int, most: int = SLICE, *, learns: bool
    ) -> None:
        self.plan, self.most = plan, most
        self.team = Team(threads)
        self.members = [Member(plan, layout, vector, most, learns=learns) for _ in range(threads)]
        self.vector = vector
        self.total = np.zeros_like(vector) if learns else vector[:0]

    def predict(self, images: Images, output: Array) -> None:
        """Write the last layer's output for each of `images` into the rows of `output`."""
        parts = slices(len(images), self.most) if len(images) else []

        def work(member: int, number: int) -> None:
            part = parts[number]
            network = self.members[member].network(part.stop - part.start)
            take_in(network, images, part)
            run(network.forward)
            run(network.finish)
            np.copyto(output[part], network.probabilities)

        with single_threaded_blas:
            self.team.share(work, len(parts))

    def learn(
        self,
        images: Images,
        labels: Labels,
        rows: NDArray[np.integer[Any]] | slice,
        count: int,
        kept: Mapping[int, NDArray[np.bool_]],
    ) -> float:
        """The mean loss of the `count` images at `rows`; its gradient is in `total` afterwards."""
        parts, weight = slices(count, self.most), 1 / count
        losses = [0.0] * len(parts)

        def work(first: int, member: int, number: int) -> None:
            part = parts[first + number]
            worker = self.members[number]
            network = worker.network(part.stop - part.start)
            take_in(network, images, part if isinstance(rows, slice) else rows[part])
            network.head.labels[:] = labels[part if isinstance(rows, slice) else rows[part]]
            network.head.weight = weight
            for dropping in network.droppings:
                np.copyto(dropping.kept, kept[dropping.op.layer][part])
            run(network.forward)
            run(network.backward)
            losses[first + number] = float(network.head.losses.sum())

        for first in range(0, len(parts), len(self.members)):
            together = min(len(self.members), len(parts) - first)
            self.team.share(lambda member, number, first=first: work(first, member, number), together)
            for number in range(together):
                self._add(self.members[number].gradient, begin=first + number == 0)
        return sum(losses) * weight

    def _add(self, gradient: Array | None, *, begin: bool) -> None:
        assert gradient is not None  # noqa: S101 - members of a team that learns have one
        with np.errstate(all="ignore"):
            if begin:
                np.copyto(self.total, gradient)
            else:
                np.add(self.total, gradient, out=self.total)

    def update(self, optimizer: Optimizer, slots: tuple[Array, ...], step: int) -> None:
        """One step of `optimizer` along `total`, in place, piece by piece: every operation is element by element."""
        coefficients = optimizer.coefficients(step)

        def work(member: int, number: int) -> None:  # noqa: ARG001 - any member can
            piece = slice(number * CHUNK, (number + 1) * CHUNK)
            mine = tuple(slot[piece] for slot in slots)
            vector, changed = optimizer.apply(self.vector[piece], self.total[piece], mine, coefficients)
            # An optimizer that does not work in place returns arrays of its own.
            for target, source in zip((self.vector[piece], *mine), (vector, *changed), strict=True):
                if source is not target and not np.shares_memory(source, target):
                    np.copyto(target, source)

        self.team.share(work, -(-len(self.vector) // CHUNK))
