"""The contract on PyTorch: what comes in is checked and made NumPy's plainest, what goes out is a copy."""

from __future__ import annotations

import threading
from typing import Any, Final, final

import numpy as np
import torch
from cnnkit.arrays import Array, Images, Labels, Parameters, check_images, check_labels, check_order
from cnnkit.backend import EpochTotals, Program, TrainingProgram
from cnnkit.errors import DataError
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.state import TrainingState
from numpy.typing import NDArray

from cnnkit_torch.network import Network
from cnnkit_torch.steps import Clock, Context
from cnnkit_torch.surroundings import undisturbed
from cnnkit_torch.vector import Layout

CHUNK: Final = 256
"""Images that go through the layers at once in `predict`, so that memory does not grow with the batch."""


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """`array`, or a copy where PyTorch could not take it: C order, writable, in the byte order of the machine."""
    return np.require(array, array.dtype.newbyteorder("="), ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE", "ENSUREARRAY"])


def _predict(network: Network, plan: Plan, images: Images, dtype: np.dtype[Any]) -> Array:
    output = np.empty((len(images), *plan.output_shape), dtype)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        output[part] = network.predict(_plain(images[part])).numpy()
    return output


@final
class TorchProgram(Program):
    """Predicts. It holds nothing that a call changes, so threads need not wait for each other."""

    def __init__(self, plan: Plan, parameters: Parameters, dtype: np.dtype[Any], threads: int | None) -> None:
        self.plan, self.dtype, self.threads = plan, dtype, threads
        with undisturbed(threads):
            layout = Layout(plan, dtype)
            weights = layout.views(layout.pack(parameters))
            self.network = Network(plan, Context(dtype, weights, {}, None))

    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.dtype)
        with undisturbed(self.threads):
            return _predict(self.network, self.plan, images, self.dtype)


@final
class TorchTrainingProgram(TrainingProgram):
    """Trains. Parameters, gradients and slots are one vector each, so an optimizer's rule runs once for all of them."""

    def __init__(
        self, plan: Plan, state: TrainingState, optimizer: Optimizer, dtype: np.dtype[Any], threads: int | None
    ) -> None:
        self.plan, self.optimizer, self.dtype, self.threads = plan, optimizer, dtype, threads
        self.clock = Clock(int(state.seed), int(state.step))
        self.lock = threading.Lock()  # callers in several threads see no step half done
        with undisturbed(threads):
            self.layout = Layout(plan, dtype)
            self.weights = self.layout.pack(state.parameters)
            self.gradient = self.layout.zeros()
            self.slots = tuple(self.layout.pack(state.slots[slot]) for slot in optimizer.slot_names)
            weights, gradients = self.layout.views(self.weights), self.layout.views(self.gradient)
            self.predicting = Network(plan, Context(dtype, weights, {}, None))
            self.learning = Network(plan, Context(dtype, weights, gradients, self.clock))

    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.dtype)
        with self.lock, undisturbed(self.threads):
            return _predict(self.predicting, self.plan, images, self.dtype)

    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        images, labels = self._checked(images, labels)
        with self.lock, undisturbed(self.threads):
            loss = self._learn(images, labels)
            return loss, self.layout.unpack(self.gradient)

    def step(self, images: Images, labels: Labels) -> float:
        images, labels = self._checked(images, labels)
        with self.lock, undisturbed(self.threads):
            return self._step(images, labels)

    def epoch(self, images: Images, labels: Labels, order: NDArray[np.int64], batch_size: int) -> EpochTotals:
        images = check_images(images, self.plan.input_shape, self.dtype)
        labels = check_labels(labels, len(images), self.plan.classes)
        order = check_order(order, len(images), batch_size).astype(np.intp)
        loss_sum = 0.0
        with self.lock, undisturbed(self.threads):
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                loss_sum += self._step(images[rows], labels[rows]) * len(rows)
        return EpochTotals(loss_sum, len(order))

    def state(self) -> TrainingState:
        with self.lock, undisturbed(self.threads):
            parameters = self.layout.unpack(self.weights)
            slots = {
                slot: self.layout.unpack(vector)
                for slot, vector in zip(self.optimizer.slot_names, self.slots, strict=True)
            }
            return TrainingState(parameters, slots, self.clock.step, self.clock.seed)

    def _checked(self, images: Images, labels: Labels) -> tuple[Images, Labels]:
        images = check_images(images, self.plan.input_shape, self.dtype)
        if len(images) == 0:
            raise DataError("the batch has 0 images, which have no mean loss. Give at least one image.")
        return images, check_labels(labels, len(images), self.plan.classes)

    def _learn(self, images: Images, labels: Labels) -> float:
        return self.learning.learn(_plain(images), torch.from_numpy(labels.astype(np.int64)))

    def _step(self, images: Images, labels: Labels) -> float:
        loss = self._learn(images, labels)
        if self.optimizer.clip_global_norm is not None:
            gradient = self.gradient.to(torch.float64)
            factor = self.optimizer.clip_factor(float(torch.dot(gradient, gradient)))
            if factor != 1.0:
                self.gradient.mul_(factor)
        weights, self.slots = self.optimizer.update(self.weights, self.gradient, self.slots, self.clock.step)
        if weights is not self.weights:  # an optimizer that does not work in place
            self.weights.copy_(weights)
        self.clock.step += 1
        return loss
