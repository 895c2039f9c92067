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
from cnnkit.plan import DropoutOp, Plan
from cnnkit.randomness import dropout_kept
from cnnkit.state import TrainingState
from cnnkit_batched.vector import Layout
from cnnkit_batched.workers import Workers


@final
class BatchedProgram(Program):
    """Predicts, a slice of the images at a time."""

    def __init__(self, plan: Plan, parameters: Parameters, dtype: np.dtype[Any], threads: int) -> None:
        self.plan, self.dtype = plan, dtype
        layout = Layout(plan)
        self.workers = Workers(plan, layout, layout.pack(parameters, dtype), threads, learns=False)
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

    def __init__(
        self, plan: Plan, state: TrainingState, optimizer: Optimizer, dtype: np.dtype[Any], threads: int
    ) -> None:
        self.plan, self.optimizer, self.dtype, self.threads = plan, optimizer, dtype, threads
        self.layout = Layout(plan)
        self.vector = self.layout.pack(state.parameters, dtype)
        self.slots = tuple(self.layout.pack(state.slots[slot], dtype) for slot in optimizer.slot_names)
        self.steps, self.seed = int(state.step), state.seed
        self.workers = Workers(plan, self.layout, self.vector, threads, learns=True)
        self.predicting: Workers | None = None
        self.dropouts = [op for op in plan.operations if isinstance(op, DropoutOp)]
        self.lock = threading.Lock()  # callers in several threads take turns, and see no step half done

    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.dtype)
        output = np.empty((len(images), *self.plan.output_shape), self.dtype)
        with self.lock:
            if self.predicting is None:
                self.predicting = Workers(self.plan, self.layout, self.vector, self.threads, learns=False)
            self.predicting.predict(images, output)
        return output

    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        images, labels = self._checked(images, labels)
        with self.lock, single_threaded_blas:
            loss = self._learn(images, labels, slice(None), len(images))
            return loss, self.layout.unpack(self.workers.total)

    def step(self, images: Images, labels: Labels) -> float:
        images, labels = self._checked(images, labels)
        with single_threaded_blas:
            return self._step(images, labels, slice(None), len(images))

    def state(self) -> TrainingState:
        with self.lock:
            slots = {
                name: self.layout.unpack(slot) for name, slot in zip(self.optimizer.slot_names, self.slots, strict=True)
            }
            return TrainingState(self.layout.unpack(self.vector), slots, self.steps, self.seed)

    def epoch(self, images: Images, labels: Labels, order: NDArray[np.int64], batch_size: int) -> EpochTotals:
        images, labels = self._checked(images, labels)
        order = check_order(order, len(images), batch_size)
        loss_sum = 0.0
        with single_threaded_blas:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                loss_sum += self._step(images, labels, rows, len(rows)) * len(rows)
        return EpochTotals(loss_sum, len(order))

    def _checked(self, images: Images, labels: Labels) -> tuple[Images, Labels]:
        images = check_images(images, self.plan.input_shape, self.dtype)
        if len(images) == 0:
            raise DataError("the batch has 0 images, which have no mean loss. Give at least one image.")
        return images, check_labels(labels, len(images), self.plan.classes)

    def _learn(self, images: Images, labels: Labels, rows: NDArray[np.integer[Any]] | slice, count: int) -> float:
        kept = {
            op.layer: dropout_kept(self.seed, self.steps, op.layer, (count, *op.output_shape), op.rate)
            for op in self.dropouts
        }
        return self.workers.learn(images, labels, rows, count, kept)

    def _step(self, images: Images, labels: Labels, rows: NDArray[np.integer[Any]] | slice, count: int) -> float:
        with self.lock, np.errstate(all="ignore"):
            loss = self._learn(images, labels, rows, count)
            total = self.workers.total
            if self.optimizer.clip_global_norm is not None:
                total *= self.optimizer.clip_factor(float(np.square(total, dtype=np.float64).sum()))
            self.workers.update(self.optimizer, self.slots, self.steps)
            self.steps += 1
            return loss
