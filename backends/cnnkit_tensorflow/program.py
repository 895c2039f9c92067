"""The contract on TensorFlow: what comes in is checked and made NumPy's plainest, what goes out is a copy."""

from __future__ import annotations

import threading
import weakref
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cnnkit.arrays import Array, Images, Labels, Parameters, check_images, check_labels, check_order
from cnnkit.backend import EpochTotals, Program, TrainingProgram
from cnnkit.errors import DataError
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.state import TrainingState
from cnnkit_tensorflow.graphs import Graphs, graphs_of
from cnnkit_tensorflow.masks import Kept, Masks
from cnnkit_tensorflow.precisions import TF32, dtype_outside
from cnnkit_tensorflow.settings import as_written, undisturbed

CHUNK: Final = 256
"""Images that go through the layers at once in `predict`, so that memory does not grow with the batch."""


@dataclass(frozen=True)
class Place:
    """Where and how a program runs: TensorFlow's name of a device, a precision, and whether XLA compiles."""

    device: str
    precision: str
    xla: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of all numbers that come in and go out."""
        return dtype_outside(self.precision)

    def undisturbed(self) -> AbstractContextManager[None]:
        """What a program runs in."""
        return undisturbed(self.device, tf32=self.precision == TF32)


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """`array`, or a copy where TensorFlow could not take it: C order, aligned, in the byte order of the machine."""
    return np.require(array, array.dtype.newbyteorder("="), ["C_CONTIGUOUS", "ALIGNED", "ENSUREARRAY"])


def _predict(graphs: Graphs, vector: Any, images: Images, dtype: np.dtype[Any]) -> Array:
    output = np.empty((len(images), *graphs.plan.output_shape), dtype)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        output[part] = graphs.predict(vector, tf.constant(_plain(images[part]))).numpy()
    return output


@final
class TensorFlowProgram(Program):
    """Predicts. It holds nothing that a call changes, so threads need not wait for each other."""

    def __init__(self, plan: Plan, parameters: Parameters, place: Place) -> None:
        self.plan, self.place = plan, place
        self.graphs = graphs_of(plan, None, place.precision, place.device, xla=place.xla)
        with place.undisturbed():
            self.vector = tf.constant(self.graphs.layout.pack(parameters, place.dtype))

    @as_written
    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.place.dtype)
        with self.place.undisturbed():
            return _predict(self.graphs, self.vector, images, self.place.dtype)


@dataclass(frozen=True)
class _Standing:
    """Where training stands, on the device. A step makes a new one, so whoever reads one sees no step half done."""

    vector: Any
    slots: tuple[Any, ...]
    step: int


@final
class _Data:
    """The images and labels of the last epoch on the device, kept for the next one if the same arrays come again."""

    def __init__(self) -> None:
        self.arrays: tuple[weakref.ref[Any], ...] = ()
        self.tensors: tuple[Any, Any] | None = None

    def on_device(self, images: Images, labels: Labels) -> tuple[Any, Any]:
        """The tensors of `images` and `labels`, which have been checked."""
        arrays = (images, labels)
        same = bool(self.arrays) and all(ref() is array for ref, array in zip(self.arrays, arrays, strict=True))
        if self.tensors is None or not same:
            self.tensors = None  # so that old and new need not both be there
            self.arrays = tuple(weakref.ref(array) for array in arrays)
            self.tensors = tf.constant(_plain(images)), tf.constant(labels.astype(np.int32))
        return self.tensors


@final
class TensorFlowTrainingProgram(TrainingProgram):
    """Trains. Parameters and slots are one vector each, which a step replaces."""

    def __init__(self, plan: Plan, state: TrainingState, optimizer: Optimizer, place: Place) -> None:
        self.plan, self.optimizer, self.place = plan, optimizer, place
        self.seed = int(state.seed)
        self.graphs = graphs_of(plan, optimizer, place.precision, place.device, xla=place.xla)
        self.predicting = graphs_of(plan, None, place.precision, place.device, xla=place.xla)
        self.data = _Data()
        self.masks = Masks(self.graphs.dropouts, self.seed)
        self.lock = threading.Lock()  # steps of several threads come one after the other
        layout = self.graphs.layout
        with place.undisturbed():
            vector = tf.constant(layout.pack(state.parameters, place.dtype))
            slots = tuple(tf.constant(layout.pack(state.slots[name], place.dtype)) for name in optimizer.slot_names)
            self.standing = _Standing(vector, slots, int(state.step))

    @as_written
    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.place.dtype)
        with self.place.undisturbed():
            return _predict(self.predicting, self.standing.vector, images, self.place.dtype)

    @as_written
    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        images, labels = self._checked(images, labels)
        at = self.standing
        with self.place.undisturbed():
            masks = list(map(tf.constant, self.masks.draw(at.step, len(images), len(images))))
            batch = tf.constant(_plain(images)), tf.constant(labels.astype(np.int32))
            loss, gradient = self.graphs.gradients(at.vector, *batch, masks)
            return float(loss), self._copied(gradient)

    @as_written
    def step(self, images: Images, labels: Labels) -> float:
        images, labels = self._checked(images, labels)
        with self.lock, self.place.undisturbed():
            at = self.standing
            masks = list(map(tf.constant, self.masks.draw(at.step, len(images), len(images))))
            batch = tf.constant(_plain(images)), tf.constant(labels.astype(np.int32))
            coefficients = self._coefficients(at.step, 1)[0]
            loss, vector, slots = self.graphs.step(at.vector, at.slots, coefficients, *batch, masks)
            self.standing = _Standing(vector, slots, at.step + 1)
            return float(loss)

    @as_written
    def epoch(self, images: Images, labels: Labels, order: NDArray[np.int64], batch_size: int) -> EpochTotals:
        """As the contract says. Arrays that come again are taken to be unchanged."""
        images = check_images(images, self.plan.input_shape, self.place.dtype)
        labels = check_labels(labels, len(images), self.plan.classes)
        places = check_order(order, len(images), batch_size).astype(np.int32)
        loss_sum = 0.0
        with self.lock, self.place.undisturbed():
            data = self.data.on_device(images, labels) if len(places) else None
            for part, kept in self.masks.parts(self.standing.step, len(places), batch_size):
                loss_sum += self._steps(data, places[part], batch_size, kept)
        return EpochTotals(loss_sum, len(places))

    def state(self) -> TrainingState:
        at = self.standing
        slots = {name: self._copied(slot) for name, slot in zip(self.optimizer.slot_names, at.slots, strict=True)}
        return TrainingState(self._copied(at.vector), slots, at.step, self.seed)

    # ------------------------------------------------------------------------------------------------------ the pieces

    def _steps(self, data: Any, places: NDArray[np.int32], batch_size: int, kept: Kept) -> float:
        at = self.standing
        count = -(-len(places) // batch_size)
        loss_sum, vector, slots = self.graphs.epoch(
            at.vector,
            at.slots,
            self._coefficients(at.step, count),
            data,
            tf.constant(places),
            tf.constant(min(batch_size, len(places)), tf.int32),
            list(map(tf.constant, kept)),
        )
        self.standing = _Standing(vector, slots, at.step + count)
        return float(loss_sum)

    def _coefficients(self, step: int, count: int) -> Any:
        """What the optimizer's formula takes in each of `count` steps: `(count, coefficients)`."""
        rows = [self.optimizer.coefficients(later) for later in range(step, step + count)]
        return tf.constant(np.array(rows, self.place.dtype))

    def _copied(self, vector: Any) -> dict[str, Array]:
        return {name: view.copy() for name, view in self.graphs.layout.unpack(vector.numpy()).items()}

    def _checked(self, images: Images, labels: Labels) -> tuple[Images, Labels]:
        images = check_images(images, self.plan.input_shape, self.place.dtype)
        if len(images) == 0:
            raise DataError("the batch has 0 images, which have no mean loss. Give at least one image.")
        return images, check_labels(labels, len(images), self.plan.classes)
