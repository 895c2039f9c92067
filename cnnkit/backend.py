"""The contract between cnnkit and a backend: `Backend`, `Program`, `TrainingProgram`, and nothing else.

A backend turns a plan and parameters into a program; training, evaluation, the command line and the conformance suite
speak only to the program. Arrays cross as NumPy, are never modified, and come back fresh. Users seldom call these
methods: `cnnkit.fit`, `cnnkit.evaluate` and `cnnkit.predict` stand above them. How to write a backend, and how to prove
it right, is in the documentation under "your own backend".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Images, Labels, Parameters, check_order
from cnnkit.errors import DataError, TrainingNotSupported
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.state import TrainingState


@dataclass(frozen=True)
class EpochTotals:
    """The sum of the losses of `count` images, each taken before the step that its batch caused."""

    loss_sum: float
    count: int


@dataclass(frozen=True)
class Selection:
    """How `cnnkit.get_backend` came to a backend. `rejected` pairs each name tried before it with the reason.

    `rounded` is empty in float32 and float64. In a precision that only this backend has it says what is rounded there.
    """

    name: str
    device: str | None
    precision: str
    options: Mapping[str, Any]
    rejected: tuple[tuple[str, str], ...] = ()
    rounded: str = ""

    @property
    def outside(self) -> str:
        """The precision of the arrays that cross the contract: "float32" or "float64"."""
        return "float32" if self.rounded else self.precision


@dataclass(frozen=True)
class MemoryEstimate:
    """How many bytes a program takes at most, beside the images that it is given, and how it comes to that."""

    bytes: int
    note: str = ""

    def __str__(self) -> str:
        """Such as `62 MB (2 threads, 32 images at a time each)`."""
        return f"{-(-self.bytes // 1_000_000):,} MB" + (f" ({self.note})" if self.note else "")


class Program(ABC):
    """A model with parameters, ready to predict."""

    @abstractmethod
    def predict(self, images: Images) -> Array:
        """The last layer's output, one row an image: `(batch, *plan.output_shape)`, fresh, in the program's precision.

        `images` is `(batch, *plan.input_shape)`, uint8 or of the program's precision, with any strides, perhaps
        read-only; `batch` may be 0. Raises `DataError` for anything else (`cnnkit.arrays.check_images` does).
        """


class TrainingProgram(Program):
    """A classifier with parameters, ready to learn. The loss is the mean cross-entropy over the batch."""

    @abstractmethod
    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        """The mean loss of a batch and its gradient by parameter name. Changes nothing.

        `labels` is `(batch,)`, whole numbers below the number of classes, or it is a `DataError`. A dropout layer uses
        the mask of the step that would come next.
        """

    @abstractmethod
    def step(self, images: Images, labels: Labels) -> SupportsFloat:
        """One update on one batch; returns the mean loss before it, which may stay on the device until `float()`."""

    @abstractmethod
    def state(self) -> TrainingState:
        """Where training stands, as a copy that later steps do not change."""

    def epoch(self, images: Images, labels: Labels, order: NDArray[np.int64], batch_size: int) -> EpochTotals:
        """Step through the images at `order`, `batch_size` at a time; the last batch may be smaller.

        Called on consecutive pieces of an epoch's order, each of whole batches but for the last. Override it to keep
        the data on the device; the states that it ends in are the same. `fit` hands over the same arrays, unchanged, for
        every piece of a run, so that one upload is enough. Raises `DataError` for a place in `order` that no image has,
        which an engine might wrap silently, and `OptionError` for a `batch_size` below 1.
        """
        check_order(order, len(images), batch_size)
        if np.shape(labels) != (len(images),):
            raise DataError(
                f"labels have shape {np.shape(labels)}, but there are {len(images)} images. Give one whole number for each image."
            )
        losses: list[tuple[SupportsFloat, int]] = []
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            losses.append((self.step(images[batch], labels[batch]), len(batch)))
        return EpochTotals(sum(float(loss) * count for loss, count in losses), len(order))


class Backend(ABC):
    """An engine on a device in a precision. Made by its plugin's `cnnkit_create_backend`, a new one for each call.

    `fit` compiles anew to judge each epoch. A plan is hashable and equal to another by value: an engine whose
    compilation is dear may keep it by plan, with the parameters as inputs.
    """

    selection: Selection | None = None
    """Set by `cnnkit.get_backend`; None on a backend that was made by hand."""

    leads: bool = True
    """Whether this process writes what a run leaves in its folder: False on all but one of those that train as one."""

    @abstractmethod
    def compile(self, plan: Plan, parameters: Parameters) -> Program:
        """A program that predicts with `parameters`, which are copied. Raises `UnsupportedModel` before any arithmetic."""

    def compile_training(self, plan: Plan, state: TrainingState, optimizer: Optimizer) -> TrainingProgram:
        """A program that trains on from `state`, which is copied."""
        raise TrainingNotSupported(
            f"{type(self).__name__} only predicts, it cannot train (asked to train {plan.model.title} with "
            f"{type(optimizer).__name__} from step {state.step}). Train on another one: `cnnkit why MODEL --all` says which do."
        )

    def estimate_memory(self, plan: Plan, optimizer: Optimizer | None, batch_size: int) -> MemoryEstimate | None:  # noqa: ARG002 - what an estimate may depend on
        """What a program would take that trains with `optimizer`, or where it is None predicts; None if that is unknown.

        Takes no memory itself. Raises `OutOfMemory` where the backend has a limit that it would not fit into.
        """
        return None
