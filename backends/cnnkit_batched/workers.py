"""Slices of a batch on several threads, with networks for each, and one gradient that does not depend on how many."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Images, Labels
from cnnkit.blas import single_threaded_blas
from cnnkit.optimizers import Optimizer
from cnnkit.randomness import dropout_kept
from cnnkit_batched.engine import Calls
from cnnkit_batched.memory import Block, aligned_bytes
from cnnkit_batched.network import Network
from cnnkit_batched.numpy_engine import NumpyEngine
from cnnkit_batched.sizing import FEW_CALLS, NETWORKS, PIECE, Sizing, length, measured
from cnnkit_batched.team import Team

MOST_NETWORKS: Final = 8
"""Networks for at most so many sizes of slices are kept by each thread."""


@final
class Member:
    """What one thread works with: a block of memory, a gradient, and networks for some sizes of slices, which share both."""

    def __init__(self, sizing: Sizing, vector: Array) -> None:
        self.plan, self.layout, self.vector = sizing.plan, sizing.layout, vector
        self.engine = NumpyEngine(vector.dtype)
        self.gradient = np.zeros_like(vector) if sizing.learns else None
        self.memory = aligned_bytes(sizing.arena)
        self.most_calls = NETWORKS * max(sizing.calls, 2 * FEW_CALLS)
        self.networks: dict[tuple[int, bool], Network] = {}
        self.current: Network | None = None

    def network(self, count: int, *, learns: bool) -> Network:
        """The network for `count` images, ready to be used."""
        found = self.networks.get((count, learns))
        if found is None:
            gradient = self.gradient if learns else None
            room = measured(self.engine, self.plan, self.layout, count, learns=learns)
            arena = Block(self.memory, room, self.vector.dtype)
            found = Network(self.engine, arena, self.plan, self.layout, self.vector, gradient, count)
            kept = sum(map(length, self.networks.values()))
            if len(self.networks) >= MOST_NETWORKS or kept + length(found) > self.most_calls:
                self.networks.clear()
            self.networks[count, learns] = found
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
    return [slice(*edges) for edges in pairwise([count * part // max(parts, 1) for part in range(parts + 1)])]


def take_in(network: Network, images: Images, rows: NDArray[np.integer[Any]] | slice) -> None:
    """Fill the network's images with `images[rows]`, rescaled."""
    inside = network.images
    if not isinstance(rows, slice) and images.flags.c_contiguous and images.dtype == inside.dtype:
        np.take(images, rows, axis=0, out=inside, mode="clip")  # `rows` has been checked
        chosen = inside
    else:
        chosen = images[rows]
    if network.scale != 1.0:
        np.multiply(chosen, inside.dtype.type(network.scale), out=inside, casting="unsafe")
    elif chosen is not inside:
        np.copyto(inside, chosen)
    if network.offset:
        np.add(inside, network.offset, out=inside)


@final
class Workers:
    """The threads of one program. What they learn is in `total`, once `collect` or `update` was called."""

    def __init__(self, sizing: Sizing, vector: Array) -> None:
        self.most, self.vector = sizing.images, vector
        self.team = Team(sizing.threads)
        self.members = [Member(sizing, vector) for _ in range(sizing.threads)]
        self.total = np.zeros_like(vector) if sizing.learns else vector[:0]
        self.pending: list[Array] = []
        """Gradients that have yet to be summed, in the order of their slices; with `begun`, on top of `total`."""
        self.begun = False

    def predict(self, images: Images, output: Array) -> None:
        """Write the last layer's output for each of `images` into the rows of `output`."""
        parts = slices(len(images), self.most)

        def work(member: int, number: int) -> None:
            part = parts[number]
            network = self.members[member].network(part.stop - part.start, learns=False)
            take_in(network, images, part)
            run(network.forward)
            run(network.finish)
            np.copyto(output[part], network.probabilities)

        with single_threaded_blas:
            self.team.share(work, len(parts))

    def learn(
        self, images: Images, labels: Labels, rows: NDArray[np.integer[Any]] | None, seed: int, step: int
    ) -> float:
        """The mean loss of the images at `rows` (None for all), with the dropout masks of `step`."""
        count = len(images) if rows is None else len(rows)
        parts, weight = slices(count, self.most), 1 / count
        losses = [0.0] * len(parts)

        def work(first: int, number: int) -> None:
            part = parts[first + number]
            places = part if rows is None else rows[part]
            network = self.members[number].network(part.stop - part.start, learns=True)
            take_in(network, images, places)
            network.head.labels[:] = labels[places]
            network.head.weight = weight
            for dropping in network.droppings:
                op, kept = dropping.op, dropping.kept
                kept[...] = dropout_kept(seed, step, op.layer, kept.shape, op.rate, first=part.start)
            run(network.forward)
            run(network.backward)
            losses[first + number] = float(network.head.losses.sum())

        self.pending, self.begun = [], False
        for first in range(0, len(parts), len(self.members)):
            self.collect(keep_on=True)
            together = min(len(self.members), len(parts) - first)
            self.team.share(lambda _, number, first=first: work(first, number), together)  # type: ignore[misc] # the default binds
            self.pending = [member.gradient for member in self.members[:together] if member.gradient is not None]
        return sum(losses) * weight

    def collect(self, *, keep_on: bool = False) -> None:
        """Sum what is pending into `total`; with `keep_on`, what comes is added to it."""
        if self.pending:
            self.team.share(lambda _, number: self._sum(_piece(number)), self._pieces)
        self.pending, self.begun = [], keep_on and (self.begun or bool(self.pending))

    def update(self, optimizer: Optimizer, slots: tuple[Array, ...], step: int) -> None:
        """One step of `optimizer`, in place, piece by piece: every operation of one is element by element."""
        coefficients = optimizer.coefficients(step)

        def work(_: int, number: int) -> None:
            piece = _piece(number)
            self._sum(piece)
            arrays = (self.vector[piece], *(slot[piece] for slot in slots))
            vector, changed = optimizer.apply(arrays[0], self.total[piece], arrays[1:], coefficients)
            for target, source in zip(arrays, (vector, *changed), strict=True):
                if source is not target:  # an optimizer that does not work in place
                    np.copyto(target, source)

        self.team.share(work, self._pieces)
        self.pending, self.begun = [], False

    @property
    def _pieces(self) -> int:
        return -(-len(self.vector) // PIECE)

    def _sum(self, piece: slice) -> None:
        total, parts = self.total[piece], [gradient[piece] for gradient in self.pending]
        if parts and not self.begun:
            first, *parts = parts
            if not parts:
                np.copyto(total, first)
            else:
                second, *parts = parts
                np.add(first, second, out=total)
        for part in parts:
            np.add(total, part, out=total)


def _piece(number: int) -> slice:
    return slice(number * PIECE, (number + 1) * PIECE)
