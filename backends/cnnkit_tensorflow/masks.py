"""What dropout keeps: drawn on the host, for a part of an epoch while the device still trains on the part before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
        with ThreadPoolExecutor(1, "dropout") as drawer:

            def draw(number: int) -> Kept:
                rest = count - starts[number]
                return self.draw(step + number * steps, min(rest, steps * batch_size), batch_size)

            coming = drawer.submit(draw, 0)
            for number, start in enumerate(starts):
                kept = coming.result()
                if number + 1 < len(starts):
                    coming = drawer.submit(draw, number + 1)
                yield slice(start, start + steps * batch_size), kept
