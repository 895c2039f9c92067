"""The contract on NumPy, in batches: what comes in is checked, what goes out is a copy."""

from __future__ import annotations

import threading
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Images, Labels, Parameters, check_images, check_labels, check_order
from cnnkit.backend import EpochTotals, Program, TrainingProgram
from cnnkit.blas import single_threaded_blas
from cnnkit.errors import DataError
from cnnkit.optimizers import Optimizer
from cnnkit.state import TrainingState
from cnnkit_batched.sizing import PIECE, Sizing
from cnnkit_batched.workers import Workers


@final
class BatchedProgram(Program):
    """Predicts, a slice of the images at a time."""

    def __init__(self, sizing: Sizing, parameters: Parameters, dtype: np.dtype[Any]) -> None:
        self.plan, self.dtype = sizing.plan, dtype
        self.workers = Workers(sizing, sizing.layout.pack(parameters, dtype))
        self.lock = threading.Lock()  # callers in several threads take turns: all write into the same arrays

    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.dtype)
        output = np.empty((len(images), *self.plan.output_shape), self.dtype)
        with self.lock:
            self.workers.predict(images, output)
        return output


@final
class BatchedTrainingProgram(TrainingProgram):
    """Trains. Results are the same to the last bit for every number of threads."""

    def __init__(self, sizing: Sizing, state: TrainingState, optimizer: Optimizer, dtype: np.dtype[Any]) -> None:
        self.plan, self.layout, self.optimizer, self.dtype = sizing.plan, sizing.layout, optimizer, dtype
        self.vector = self.layout.pack(state.parameters, dtype)
        self.slots = tuple(self.layout.pack(state.slots[slot], dtype) for slot in optimizer.slot_names)
        self.steps, self.seed = int(state.step), int(state.seed)
        self.workers = Workers(sizing, self.vector)
        self.lock = threading.Lock()  # callers in several threads take turns, and see no step half done

    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.dtype)
        output = np.empty((len(images), *self.plan.output_shape), self.dtype)
        with self.lock:
            self.workers.predict(images, output)
        return output

    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        images, labels = self._checked(images, labels)
        with self.lock, single_threaded_blas:
            loss = self.workers.learn(images, labels, None, self.seed, self.steps)
            self.workers.collect()
            return loss, self.layout.unpack(self.workers.total)

    def step(self, images: Images, labels: Labels) -> float:
        images, labels = self._checked(images, labels)
        with single_threaded_blas:
            return self._step(images, labels, None)

    def state(self) -> TrainingState:
        with self.lock:
            slots = {
                name: self.layout.unpack(slot) for name, slot in zip(self.optimizer.slot_names, self.slots, strict=True)
            }
            return TrainingState(self.layout.unpack(self.vector), slots, self.steps, self.seed)

    def epoch(self, images: Images, labels: Labels, order: NDArray[np.int64], batch_size: int) -> EpochTotals:
        images, labels = self._checked(images, labels)
        places = check_order(order, len(images), batch_size)
        loss_sum = 0.0
        with single_threaded_blas:
            for start in range(0, len(places), batch_size):
                rows = places[start : start + batch_size]
                loss_sum += self._step(images, labels, rows) * len(rows)
        return EpochTotals(loss_sum, len(order))

    def _checked(self, images: Images, labels: Labels) -> tuple[Images, Labels]:
        images = check_images(images, self.plan.input_shape, self.dtype)
        if len(images) == 0:
            raise DataError("the batch has 0 images, which have no mean loss. Give at least one image.")
        return images, check_labels(labels, len(images), self.plan.classes)

    def _step(self, images: Images, labels: Labels, rows: NDArray[np.integer[Any]] | None) -> float:
        with self.lock:
            loss = self.workers.learn(images, labels, rows, self.seed, self.steps)
            if self.optimizer.clip_global_norm is not None:
                self.workers.collect()
                total = self.workers.total
                with np.errstate(all="ignore"):
                    total *= self.optimizer.clip_factor(_sum_of_squares(total))
            self.workers.update(self.optimizer, self.slots, self.steps)
            self.steps += 1
            return loss


def _sum_of_squares(vector: Array) -> float:
    """In float64, and in pieces: the squares of a whole vector would take twice its memory."""
    pieces = (vector[start : start + PIECE] for start in range(0, len(vector), PIECE))
    return sum(float(np.square(piece, dtype=np.float64).sum()) for piece in pieces)
