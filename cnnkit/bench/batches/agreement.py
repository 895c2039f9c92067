"""The check that contestants do the same work: whoever leaves some of it out is found out.

Two contestants that train on the same numbers end near each other, not on each other: they round differently, and Adam
turns the rounding of a gradient near zero into whole steps. How far each kernel has moved is steadier than where it
stands: honest contestants differ in it by up to 6 %, and by up to 23 % where their dropout masks are different ones; who
leaves out every second batch is 25 to 45 % short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cnnkit.arrays import Array, Parameters
from cnnkit.bench.batches.workload import Workload
from cnnkit.evaluation import predict
from cnnkit.model import Dropout
from cnnkit.plugins import DEFAULT_BACKEND

LOSS: Final = 0.05
LOSS_BY_MASKS: Final = 0.1
"""By how much of it the mean losses of the first epoch may differ, with the same dropout masks and with others."""
MOVED: Final = 0.15
MOVED_BY_MASKS: Final = 0.3
MOVED_AT_LAST: Final = 0.3
"""By how much of it the ways that a kernel has moved may differ, after the first epoch and after the last; the second is for
other dropout masks."""
APART: Final = 1.0
STEPS: Final = 64
"""How far apart all parameters may be after a first epoch of so many steps, as a part of how far they have moved. Honest
contestants are up to 0.7 apart, those that have learned from other numbers 1.1 and more. In longer epochs rounding comes
as far as that, and where dropout masks differ it says nothing."""
LATER: Final = 0.2
"""By how much of the first epoch's loss those of later epochs may differ, whose order may be another."""
PROBABILITY: Final = 1e-3
"""By how much predicted probabilities may differ from those of the default backend with the same parameters."""
SAMPLE: Final = 64
"""So many images are predicted again by the default backend."""


@dataclass(frozen=True)
class Shown:
    """What a contestant has shown: the mean losses of its epochs, and its parameters after the first and the last."""

    losses: Sequence[float]
    first: Parameters
    last: Parameters
    draws_masks: bool


def differences(workload: Workload, one: Shown, other: Shown) -> list[str]:
    """What in the work of `one` differs by too much from that of `other`; nothing where both did the same."""
    start = workload.parameters
    masks = any(isinstance(layer, Dropout) for layer in workload.model.layers) and (
        one.draws_masks or other.draws_masks
    )
    loss, expected = one.losses[0], other.losses[0]
    if not _near(loss, expected, LOSS_BY_MASKS if masks else LOSS):
        return [f"the mean loss of its first epoch is {loss:.4f}, not {expected:.4f}"]
    if one.first.keys() != start.keys() or any(one.first[name].shape != start[name].shape for name in start):
        return ["it has other parameters"]
    found = _moved_otherwise(one.first, other.first, start, MOVED_BY_MASKS if masks else MOVED, "the first epoch")
    apart = _distance(one.first, other.first) / _distance(other.first, start)
    steps = -(-workload.count // workload.batch_size)
    if not masks and steps <= STEPS and not apart <= APART:
        found.append(f"after the first epoch its parameters are {apart:.0%} of the way off")
    for number, (loss, expected) in enumerate(zip(one.losses, other.losses, strict=True), start=1):
        if not abs(loss - expected) <= LATER * other.losses[0]:
            found.append(f"the mean loss of epoch {number} is {loss:.4f}, not {expected:.4f}")
    return found or _moved_otherwise(one.last, other.last, start, MOVED_AT_LAST, "all epochs")


def wrong_predictions(workload: Workload, parameters: Parameters, predictions: Array) -> list[str]:
    """What is wrong with `predictions` for all images, judged by the default backend on a sample of them."""
    expected_shape = (workload.count, *workload.model.plan().output_shape)
    if predictions.shape != expected_shape:
        return [f"its predictions have shape {predictions.shape}, not {expected_shape}"]
    sample = np.unique(np.linspace(0, workload.count - 1, SAMPLE).astype(int))
    expected = predict(workload.model, parameters, workload.images[sample], DEFAULT_BACKEND)
    worst = float(np.abs(predictions[sample] - expected).max())
    if not worst <= PROBABILITY:
        return [f"a probability that it predicts is {worst:.3g} off what its parameters give"]
    return []


def _moved_otherwise(one: Parameters, other: Parameters, start: Parameters, part: float, when: str) -> list[str]:
    """Which kernels have moved by another way. Biases are few numbers, which move less steadily."""
    found = []
    for name in start:
        if start[name].ndim > 1:
            moved, expected = (_distance({name: it[name]}, start) for it in (one, other))
            if not _near(moved, expected, part):
                found.append(f"in {when} its {name} moved by {moved:.3f}, not by {expected:.3f}")
    return found


def _distance(one: Parameters, other: Parameters) -> float:
    squares = [np.square(one[name].astype(np.float64) - other[name]).sum() for name in one]
    return float(np.sqrt(sum(squares)))


def _near(one: float, other: float, part: float) -> bool:
    return abs(one - other) <= part * abs(other)  # never true of NaN
