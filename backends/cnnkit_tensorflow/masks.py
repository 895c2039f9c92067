"""What dropout keeps: drawn on the host, for a part of an epoch while the device still trains on the part before."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from cnnkit.plan import DropoutOp
from cnnkit.randomness import dropout_kept

PART_BYTES: Final = 1 << 22
"""The size of a part's masks, unless one batch needs more: memory does not grow with the epoch, and the wait for the first
part, in which nothing trains, is short."""

Kept: TypeAlias = list[NDArray[np.bool_]]
"""For each dropout layer, and for each image, what stays: a fourth of the mask to move."""


@final
class Masks:
    """Those of one run: of `dropouts`, with the run's `seed`."""

    def __init__(self, dropouts: Sequence[DropoutOp], seed: int) -> None:
        self.dropouts, self.seed = dropouts, seed

    def draw(self, step: int, count: int, batch_size: int) -> Kept:
        """Those of `count` images, beginning with step `step`."""
        found = []
        for op in self.dropouts:
            kept = np.empty((count, *op.output_shape), bool)
            for later, start in enumerate(range(0, count, batch_size)):
                rows = kept[start : start + batch_size]
                rows[...] = dropout_kept(self.seed, step + later, op.layer, rows.shape, op.rate)
            found.append(kept)
        return found

    def parts(self, step: int, count: int, batch_size: int) -> Iterator[tuple[slice, Kept]]:
        """An epoch of `count` images, beginning with step `step`, in parts of whole batches with their masks."""
        if count == 0:
            return
        batch_bytes = batch_size * sum(math.prod(op.output_shape) for op in self.dropouts)
        if batch_bytes == 0:
            yield slice(0, count), []
            return
        steps = max(1, PART_BYTES // batch_bytes)
        starts = range(0, count, steps * batch_size)

        def draw(number: int) -> Kept:
            rest = count - starts[number]
            return self.draw(step + number * steps, min(rest, steps * batch_size), batch_size)

        kept = draw(0)
        for number, start in enumerate(starts):
            coming = _Ahead(draw, number + 1) if number + 1 < len(starts) else None
            try:
                yield slice(start, start + steps * batch_size), kept
            finally:  # also where the epoch ends early: nobody draws behind the caller's back
                if coming:
                    coming.join()
            if coming:
                kept = coming.drawn.result()


@final
class _Ahead(threading.Thread):
    """Draws part `number`, and has it when it is joined.

    It is no pool: a pool takes nothing more once the main thread has ended, and another thread may still train then.
    """

    def __init__(self, draw: Callable[[int], Kept], number: int) -> None:
        super().__init__(name="dropout")
        self.draw, self.number = draw, number
        self.drawn: Future[Kept] = Future()
        self.start()

    def run(self) -> None:
        try:
            self.drawn.set_result(self.draw(self.number))
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self.drawn.set_exception(error)
