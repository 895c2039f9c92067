"""Every random number of a run, drawn on the host from a stream keyed by what it is for.

A stream depends on (seed, purpose, epoch, step, layer) and on nothing else, so that every backend trains on the same
numbers, and a resumed run draws what the unbroken one would have drawn. Streams are NumPy's PCG64, seeded through
SeedSequence.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Shape
from cnnkit.errors import OptionError

Purpose: TypeAlias = Literal["initial", "shuffle", "dropout", "split", "explore"]

_PURPOSES: dict[str, int] = {"initial": 1, "shuffle": 2, "dropout": 3, "split": 4, "explore": 5}


def stream(seed: int, purpose: Purpose, *, epoch: int = 0, step: int = 0, layer: int = 0) -> np.random.Generator:
    """A generator of its own for one purpose at one place of a run. `seed` is a whole number of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise OptionError(f"seed is {seed!r}; expected a whole number of at least 0. Use for example seed=0.")
    key = np.random.SeedSequence([int(seed), _PURPOSES[purpose], epoch, step, layer])
    return np.random.Generator(np.random.PCG64(key))


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which `epoch` (from 0) visits `count` images: a permutation `(count,)`."""
    return stream(seed, "shuffle", epoch=epoch).permutation(count)


def dropout_kept(seed: int, step: int, layer: int, shape: Shape, rate: float, *, first: int = 0) -> NDArray[np.bool_]:
    """Where the mask of dropout is not 0: all that an engine needs which multiplies by `1 / (1 - rate)` itself.

    With `first`, the rows of the batch's mask from that image on: threads can draw their parts of a batch at once.
    """
    generator = stream(seed, "dropout", step=step, layer=layer)
    skipped = first * math.prod(shape[1:])
    if skipped:
        generator.bit_generator.advance(skipped // 2)  # type: ignore[attr-defined] # PCG64 has it; 64 bits make two float32
        if skipped % 2:
            generator.random(dtype=np.float32)
    return generator.random(shape, dtype=np.float32) >= rate


def dropout_mask(
    seed: int, step: int, layer: int, shape: Shape, rate: float, dtype: np.dtype[Any] | type = np.float32
) -> Array:
    """The mask of inverted dropout for one step and layer: 0 with probability `rate`, else `1 / (1 - rate)`.

    `shape` includes the batch axis. A backend multiplies the layer's output by it in training, and the gradient on the
    way back (Srivastava et al., "Dropout", 2014, with the scaling moved to training).
    """
    return np.multiply(dropout_kept(seed, step, layer, shape, rate), 1 / (1 - rate), dtype=dtype)
