"""Programs made of layers: parameters in one vector, images one at a time, threads that never change a result."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Images, Labels, Parameters, Shape, check_images, check_labels, check_order
from cnnkit.backend import EpochTotals, Program, TrainingProgram
from cnnkit.blas import single_threaded_blas
from cnnkit.errors import DataError
from cnnkit.optimizers import Optimizer
from cnnkit.plan import ActivationOp, Conv2DOp, DenseOp, DropoutOp, Plan
from cnnkit.randomness import dropout_mask
from cnnkit.rewriting import simplified
from cnnkit.state import TrainingState
from cnnkit_numpy.layers import ACTIVATIONS, LAYERS, Dropout, Layer, Softmax

P = TypeVar("P")
R = TypeVar("R")

CHUNK: Final = 8
"""Images whose gradients one worker adds up before they join the total. It fixes the order of summation, so that the
number of threads does not matter; it is no setting."""


# ------------------------------------------------------------------------------------------- parameters in one vector


@dataclass(frozen=True)
class _Region:
    """The place of one layer's weights in the vector: a matrix `shape` at `start`, biases in its last row or column."""

    start: int
    shape: Shape
    op: Conv2DOp | DenseOp

    def matrix(self, vector: Array) -> Array:
        return vector[self.start : self.start + self.shape[0] * self.shape[1]].reshape(self.shape)

    def named(self, vector: Array) -> Iterator[tuple[str, Array]]:
        """The parameters in cnnkit's names and shapes, as views of the vector."""
        matrix = self.matrix(vector)
        if isinstance(self.op, Conv2DOp):
            size = self.op.kernel_size[0] * self.op.kernel_size[1] * self.op.input_shape[2]
            kernel_shape = (*self.op.kernel_size, self.op.input_shape[2], self.op.filters)
            yield self.op.kernel, matrix[:size].reshape(kernel_shape)
            if self.op.bias is not None:
                yield self.op.bias, matrix[size]
        else:
            features = self.op.input_shape[0]
            yield self.op.kernel, matrix[:, :features].T
            if self.op.bias is not None:
                yield self.op.bias, matrix[:, features]


@final
class _Layout:
    """Where each layer's weights stand in one vector, so that an optimizer's step is one step for all of them."""

    def __init__(self, plan: Plan) -> None:
        self.regions: dict[int, _Region] = {}
        self.size = 0
        for op in plan.operations:
            if isinstance(op, Conv2DOp):
                patch = op.kernel_size[0] * op.kernel_size[1] * op.input_shape[2]
                shape: Shape = (patch + (op.bias is not None), op.filters)
            elif isinstance(op, DenseOp):
                shape = (op.units, op.input_shape[0] + (op.bias is not None))
            else:
                continue
            self.regions[op.layer] = _Region(self.size, shape, op)
            self.size += shape[0] * shape[1]

    def pack(self, parameters: Parameters, dtype: np.dtype[Any]) -> Array:
        """A new vector that holds a copy of `parameters`."""
        vector = np.empty(self.size, dtype)
        for region in self.regions.values():
            for name, view in region.named(vector):
                np.copyto(view, parameters[name], casting="same_kind")
        return vector

    def unpack(self, vector: Array) -> dict[str, Array]:
        """Copies of the parameters in `vector`, in cnnkit's names and shapes, C order."""
        return {
            name: np.array(view, order="C") for region in self.regions.values() for name, view in region.named(vector)
        }


# -------------------------------------------------------------------------------------------------- one row of layers


@final
class _Network:
    """All layers for one image, with arrays and gradients of their own; the weights are shared with other networks."""

    def __init__(self, plan: Plan, layout: _Layout, weights: Array, *, training: bool) -> None:
        self.image = np.empty(plan.input_shape, weights.dtype)
        self.gradient = np.empty(layout.size if training else 0, weights.dtype)
        self.total = np.empty_like(self.gradient)
        self.layers: list[Layer] = []
        self.backward_layers: list[Layer] = []
        x, dx = self.image, None
        for op in simplified(plan.operations):
            if isinstance(op, ActivationOp):
                layer = ACTIVATIONS[op.function](op, x, dx)
            elif op.layer in layout.regions:
                region = layout.regions[op.layer]
                gradient = region.matrix(self.gradient) if training else weights[:0]
                layer = LAYERS[type(op)](op, x, dx, region.matrix(weights), gradient)
            else:
                layer = LAYERS[type(op)](op, x, dx)
            self.layers.append(layer)
            learned = bool(self.backward_layers) or op.layer in layout.regions
            if training and learned:
                self.backward_layers.insert(0, layer)
            x, dx = layer.y, layer.dy if training and learned else None
        self.output = x
        self.dropouts = [layer for layer in self.layers if isinstance(layer, Dropout)]

    def predict(self, images: Images, output: Array) -> None:
        """Write the last layer's output for each of `images` into the rows of `output`."""
        with np.errstate(all="ignore"):  # NaN and infinity are results, not warnings; errstate is a thread's own
            for row, image in enumerate(images):
                np.copyto(self.image, image)
                for layer in self.layers:
                    layer.forward()
                np.copyto(output[row], self.output)

    def learn(
        self, images: Images, labels: Labels, rows: NDArray[np.int64], masks: Mapping[int, Array], weight: float
    ) -> tuple[float, Array]:
        """The summed loss of the images at `rows`, and `weight` times its gradient, valid until the next call."""
        softmax = self.layers[-1]
        assert isinstance(softmax, Softmax)  # noqa: S101 - compile_training has asked the plan for a classifier
        softmax.weight = weight
        loss = 0.0
        with np.errstate(all="ignore"):
            for index, row in enumerate(rows):
                np.copyto(self.image, images[row])
                softmax.label = labels[row]
                for dropout in self.dropouts:
                    dropout.mask = masks[dropout.layer][index]
                for layer in self.layers:
                    layer.forward()
                for layer in self.backward_layers:
                    layer.backward()
                loss += softmax.loss
                if index > 0:
                    self.total += self.gradient
                elif len(rows) > 1:
                    np.copyto(self.total, self.gradient)
        return loss, self.total if len(rows) > 1 else self.gradient


def _new_executor(threads: int) -> ThreadPoolExecutor | None:
    return ThreadPoolExecutor(threads, "cnnkit-numpy") if threads > 1 else None


@final
class _Team:
    """One network a thread. Shares images out so that the number of threads never changes a number."""

    def __init__(self, plan: Plan, layout: _Layout, weights: Array, threads: int, *, training: bool) -> None:
        self.networks = [_Network(plan, layout, weights, training=training) for _ in range(threads)]
        self.executor = _new_executor(threads)
        self.process = os.getpid()
        self.sum = np.empty(layout.size if training else 0, weights.dtype)

    def predict(self, images: Images, output: Array) -> None:
        """Write the last layer's output for each of `images` into the rows of `output`."""
        with single_threaded_blas:
            if len(self.networks) == 1 or len(images) < 2 * len(self.networks):
                self.networks[0].predict(images, output)
                return
            edges = np.linspace(0, len(images), len(self.networks) + 1).astype(int).tolist()
            parts = [slice(start, end) for start, end in pairwise(edges)]
            self._share_out(lambda network, part: network.predict(images[part], output[part]), parts)

    def learn(
        self, images: Images, labels: Labels, rows: NDArray[np.int64], masks: Mapping[int, Array]
    ) -> tuple[float, Array]:
        """The mean loss of the images at `rows` and its gradient, a vector valid until the next call."""
        weight = 1 / len(rows)

        def learn_chunk(network: _Network, start: int) -> tuple[float, Array]:
            own_masks = {layer: mask[start : start + CHUNK] for layer, mask in masks.items()}
            return network.learn(images, labels, rows[start : start + CHUNK], own_masks, weight)

        loss = 0.0
        with single_threaded_blas:
            if len(rows) <= CHUNK:
                loss, gradient = learn_chunk(self.networks[0], 0)
                return loss * weight, gradient
            for first in range(0, len(rows), CHUNK * len(self.networks)):
                starts = range(first, min(first + CHUNK * len(self.networks), len(rows)), CHUNK)
                for start, (part_loss, part) in zip(starts, self._share_out(learn_chunk, starts), strict=True):
                    loss += part_loss
                    if start == 0:
                        np.copyto(self.sum, part)
                        continue
                    with np.errstate(all="ignore"):
                        self.sum += part
        return loss * weight, self.sum

    def _share_out(self, work: Callable[[_Network, P], R], parts: Iterable[P]) -> list[R]:
        """`work` for each of `parts`, each with a network of its own; when this ends, however it ends, all have ended."""
        if self.process != os.getpid():  # a fork copies the program, but not its threads
            self.executor, self.process = _new_executor(len(self.networks)), os.getpid()
        if self.executor is None:
            return list(map(work, self.networks, parts))
        futures = [self.executor.submit(work, network, part) for network, part in zip(self.networks, parts)]  # noqa: B905 - the last round may have fewer parts
        try:
            return [future.result() for future in futures]
        finally:
            wait(futures)


# ---------------------------------------------------------------------------------------------------------- programs


@final
class NumpyProgram(Program):
    """Predicts, one image at a time."""

    def __init__(self, plan: Plan, parameters: Parameters, dtype: np.dtype[Any], threads: int) -> None:
        layout = _Layout(plan)
        self.plan, self.dtype = plan, dtype
        self.team = _Team(plan, layout, layout.pack(parameters, dtype), threads, training=False)
        self.lock = threading.Lock()  # callers in several threads take turns: all write into the same arrays

    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.dtype)
        output = np.empty((len(images), *self.plan.output_shape), self.dtype)
        with self.lock:
            self.team.predict(images, output)
        return output


@final
class NumpyTrainingProgram(TrainingProgram):
    """Trains, one image at a time; the gradients of a batch are added up in an order that no setting changes."""

    def __init__(
        self, plan: Plan, state: TrainingState, optimizer: Optimizer, dtype: np.dtype[Any], threads: int
    ) -> None:
        self.plan, self.optimizer, self.dtype = plan, optimizer, dtype
        self.layout = _Layout(plan)
        self.weights = self.layout.pack(state.parameters, dtype)
        self.slots = tuple(self.layout.pack(state.slots[slot], dtype) for slot in optimizer.slot_names)
        self.steps, self.seed = state.step, state.seed
        self.team = _Team(plan, self.layout, self.weights, threads, training=True)
        self.dropout_ops = [op for op in plan.operations if isinstance(op, DropoutOp)]
        self.lock = threading.Lock()  # callers in several threads take turns, and see no step half done

    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.dtype)
        output = np.empty((len(images), *self.plan.output_shape), self.dtype)
        with self.lock:
            for network in self.team.networks:
                for dropout in network.dropouts:
                    dropout.mask = None
            self.team.predict(images, output)
        return output

    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        images, labels = self._checked(images, labels)
        with self.lock:
            loss, gradient = self._learn(images, labels, np.arange(len(images)))
            return loss, self.layout.unpack(gradient)

    def step(self, images: Images, labels: Labels) -> float:
        images, labels = self._checked(images, labels)
        return self._step(images, labels, np.arange(len(images)))

    def state(self) -> TrainingState:
        with self.lock:
            slots = {
                name: self.layout.unpack(slot) for name, slot in zip(self.optimizer.slot_names, self.slots, strict=True)
            }
            return TrainingState(self.layout.unpack(self.weights), slots, self.steps, self.seed)

    def epoch(self, images: Images, labels: Labels, order: NDArray[np.int64], batch_size: int) -> EpochTotals:
        images, labels = self._checked(images, labels)
        check_order(order, len(images), batch_size)
        loss_sum = 0.0
        with single_threaded_blas:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                loss_sum += self._step(images, labels, rows) * len(rows)
        return EpochTotals(loss_sum, len(order))

    def _checked(self, images: Images, labels: Labels) -> tuple[Images, Labels]:
        images = check_images(images, self.plan.input_shape, self.dtype)
        if len(images) == 0:
            raise DataError("the batch has 0 images, which have no mean loss. Give at least one image.")
        return images, check_labels(labels, len(images), self.plan.classes)

    def _learn(self, images: Images, labels: Labels, rows: NDArray[np.int64]) -> tuple[float, Array]:
        masks = {
            op.layer: dropout_mask(self.seed, self.steps, op.layer, (len(rows), *op.output_shape), op.rate, self.dtype)
            for op in self.dropout_ops
        }
        return self.team.learn(images, labels, rows, masks)

    def _step(self, images: Images, labels: Labels, rows: NDArray[np.int64]) -> float:
        with self.lock, np.errstate(all="ignore"):
            loss, gradient = self._learn(images, labels, rows)
            if self.optimizer.clip_global_norm is not None:
                gradient *= self.optimizer.clip_factor(float(np.square(gradient, dtype=np.float64).sum()))
            arrays = (self.weights, *self.slots)
            weights, changed = self.optimizer.update(self.weights, gradient, self.slots, self.steps)
            for target, source in zip(arrays, (weights, *changed), strict=True):
                if source is not target:  # an optimizer that does not work in place
                    np.copyto(target, source)
            self.steps += 1
            return loss
