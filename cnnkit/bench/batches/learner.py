"""What a contestant is, in a process of its own: it trains, it predicts, and shows what it has learned."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Parameters
from cnnkit.bench.batches.workload import Workload
from cnnkit.errors import UnsupportedModel
from cnnkit.model import Layer

SIZES: Final = (64, 256)
"""In batches of which sizes a peer may predict; it takes the quicker."""


class Learner(ABC):
    """A contestant. A module of one has a function `make(workload, **options)` that returns it.

    What may be made beforehand (programs, copies of the images on the device) is made in `make`, which is not timed; what
    an engine makes at its first use falls into the first epoch, which is timed apart.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    @property
    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """Versions by package, the engine first."""

    @property
    def draws_masks(self) -> bool:
        """Whether its dropout masks are its own, so that its numbers are near to those of others but not equal."""
        return True

    @property
    def remarks(self) -> Sequence[str]:
        """What a reader of its figures should know."""
        return ()

    @abstractmethod
    def train(self) -> float:
        """One epoch over all images. Returns the mean of the losses, each before the step that its batch caused.

        The first one goes in the workload's order; so do all others, unless whoever uses the engine would shuffle.
        """

    @abstractmethod
    def predict(self) -> Array:
        """Probabilities of all images in their own order, `(count, classes)`, in NumPy."""

    @abstractmethod
    def parameters(self) -> Parameters:
        """What has been learned, with cnnkit's names and shapes."""


def refuse(who: str, index: int, layer: Layer) -> UnsupportedModel:
    """The error of a peer that has no such layer."""
    return UnsupportedModel(who, f"layers[{index}]", layer.kind, "this peer of the benchmark does not have it")


def predict_in_parts(work: Callable[[NDArray[Any]], Array], images: NDArray[Any], size: int) -> Array:
    """`work` on `size` images at a time."""
    return np.concatenate([work(images[start : start + size]) for start in range(0, len(images), size)])


def quickest(work: Callable[[int], object], sizes: Sequence[int] = SIZES, rounds: int = 3) -> int:
    """The size with which `work` is quickest, by the best of `rounds`, after one round that does not count."""
    best = dict.fromkeys(sizes, float("inf"))
    for number in range(rounds + 1):
        for size in sizes:
            begin = time.perf_counter()
            work(size)
            if number:
                best[size] = min(best[size], time.perf_counter() - begin)
    return min(best, key=lambda size: best[size])
