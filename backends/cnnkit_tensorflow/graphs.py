"""What is traced: four functions of a plan, each once for a type of images, whatever the size of a batch.

All numbers go in and come out as tensors, and a graph holds none of its own. So programs of one plan share its graphs:
compiling anew costs nothing, and no program can meet the numbers of another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, final

import tensorflow as tf

from cnnkit.optimizers import Optimizer
from cnnkit.plan import DropoutOp, Plan
from cnnkit_tensorflow import mixed, network
from cnnkit_tensorflow.layers import Run, Tensor
from cnnkit_tensorflow.precisions import MIXED_FLOAT16, dtype_outside
from cnnkit_tensorflow.update import Slots, update
from cnnkit_tensorflow.vector import Layout

KEPT: Final = 64
"""Plans whose graphs are kept, the latest ones."""

Masks = Sequence[Tensor]


@final
class Graphs:
    """The graphs of one plan, each traced at its first use. `optimizer` is None where nothing learns."""

    def __init__(self, plan: Plan, optimizer: Optimizer | None, precision: str, *, xla: bool) -> None:
        self.plan, self.optimizer, self.xla = plan, optimizer, xla
        self.dtype = tf.as_dtype(dtype_outside(precision))
        self.way = mixed if precision == MIXED_FLOAT16 else network
        self.layout = Layout(plan)
        self.dropouts = [op for op in plan.operations if isinstance(op, DropoutOp)]
        self.traced: dict[tuple[str, str], Callable[..., Any]] = {}
        self.lock = threading.RLock()

    # --------------------------------------------------------------------------------------------- what can be called

    def predict(self, vector: Tensor, images: Tensor) -> Tensor:
        """The last layer's output `(batch, *output_shape)`."""
        return self._get(self._predict, images, lambda: (self._vector(), self._images(images)))(vector, images)

    def gradients(self, vector: Tensor, images: Tensor, labels: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch and its gradient, a vector."""
        graph = self._get(
            self._gradients,
            images,
            lambda: (self._vector(), self._images(images), self._whole_numbers(), self._masks()),
        )
        return graph(vector, images, labels, tuple(masks))  # type: ignore[no-any-return] # TensorFlow has no types

    def step(
        self, vector: Tensor, slots: Slots, coefficients: Tensor, images: Tensor, labels: Tensor, masks: Masks
    ) -> tuple[Tensor, Tensor, Slots]:
        """The mean loss of a batch, the vector after one update, and the slots."""
        graph = self._get(
            self._step,
            images,
            lambda: (
                self._vector(),
                self._slots(),
                tf.TensorSpec(coefficients.shape, self.dtype),
                self._images(images),
                self._whole_numbers(),
                self._masks(),
            ),
        )
        return graph(vector, slots, coefficients, images, labels, tuple(masks))  # type: ignore[no-any-return] # as above

    def epoch(
        self,
        vector: Tensor,
        slots: Slots,
        coefficients: Tensor,
        data: tuple[Tensor, Tensor],
        order: Tensor,
        batch_size: Tensor,
        masks: Masks,
    ) -> tuple[Tensor, Tensor, Slots]:
        """One step for each row of `coefficients`, with the images and labels of `data` at the places in `order`.

        A mask has a row for each place in `order`. Returns the sum of the losses of all images, in float64, and the
        vector and the slots after the last step.
        """
        images, labels = data
        graph = self._get(
            self._epoch,
            images,
            lambda: (
                self._vector(),
                self._slots(),
                tf.TensorSpec([None, coefficients.shape[1]], self.dtype),
                self._images(images),
                self._whole_numbers(),
                self._whole_numbers(),
                tf.TensorSpec([], tf.int32),
                self._masks(),
            ),
        )
        return graph(vector, slots, coefficients, images, labels, order, batch_size, tuple(masks))  # type: ignore[no-any-return] # as above

    # ------------------------------------------------------------------------------------------------------- tracing

    def _get(
        self, function: Callable[..., Any], images: Tensor, signature: Callable[[], tuple[Any, ...]]
    ) -> Callable[..., Any]:
        key = (function.__name__, images.dtype.name)
        graph = self.traced.get(key)
        if graph is None:
            with self.lock:  # two threads may come here at once, and a graph is traced once
                graph = self.traced.get(key) or self._function(function).get_concrete_function(*signature())
                self.traced[key] = graph
        return graph

    def _function(self, function: Callable[..., Any]) -> Any:
        """`function` as a graph. The loop of an epoch is TensorFlow's, so that XLA compiles a step for each batch size."""
        compiled = self.xla and function != self._epoch
        return tf.function(function, autograph=False, jit_compile=True if compiled else None)

    def _vector(self) -> Any:
        return tf.TensorSpec([self.layout.size], self.dtype)

    def _slots(self) -> tuple[Any, ...]:
        return tuple(self._vector() for _ in self._optimizer.slot_names)

    def _images(self, images: Tensor) -> Any:
        return tf.TensorSpec([None, *self.plan.input_shape], images.dtype)

    def _whole_numbers(self) -> Any:
        return tf.TensorSpec([None], tf.int32)

    def _masks(self) -> tuple[Any, ...]:
        return tuple(tf.TensorSpec([None, *op.output_shape], tf.bool) for op in self.dropouts)

    # ------------------------------------------------------------------------------------------------- what is traced

    @property
    def _optimizer(self) -> Optimizer:
        assert self.optimizer is not None  # noqa: S101 - whoever trains has one
        return self.optimizer

    def _predict(self, vector: Tensor, images: Tensor) -> Tensor:
        run = Run(self.layout.unpack(vector))
        return self.way.predict(self.plan, run, tf.cast(images, self.dtype))

    def _gradients(self, vector: Tensor, images: Tensor, labels: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        by_layer = {op.layer: mask for op, mask in zip(self.dropouts, masks, strict=True)}
        run = Run(self.layout.unpack(vector), by_layer)
        loss, gradients = self.way.learn(self.plan, run, tf.cast(images, self.dtype), labels)
        return loss, self.layout.join(gradients, self.dtype)

    def _step(
        self, vector: Tensor, slots: Slots, coefficients: Tensor, images: Tensor, labels: Tensor, masks: Masks
    ) -> tuple[Tensor, Tensor, Slots]:
        loss, gradient = self._gradients(vector, images, labels, masks)
        vector, slots = update(self._optimizer, vector, slots, gradient, coefficients)
        return loss, vector, slots

    def _epoch(
        self,
        vector: Tensor,
        slots: Slots,
        coefficients: Tensor,
        images: Tensor,
        labels: Tensor,
        order: Tensor,
        batch_size: Tensor,
        masks: Masks,
    ) -> tuple[Tensor, Tensor, Slots]:
        one_step = self._function(self._step) if self.xla else self._step
        steps = tf.shape(coefficients)[0]

        def take_step(step: Tensor, loss_sum: Tensor, vector: Tensor, slots: Slots) -> tuple[Any, ...]:
            begin, end = step * batch_size, (step + 1) * batch_size  # a slice ends where its array does
            places = order[begin:end]
            loss, vector, slots = one_step(
                vector,
                slots,
                coefficients[step],
                tf.gather(images, places),
                tf.gather(labels, places),
                tuple(mask[begin:end] for mask in masks),
            )
            count = tf.cast(tf.shape(places)[0], tf.float64)
            return step + 1, loss_sum + tf.cast(loss, tf.float64) * count, vector, slots

        begin = (tf.constant(0), tf.constant(0.0, tf.float64), vector, slots)
        # One step at a time: two of them in memory are no quicker.
        _, loss_sum, vector, slots = tf.while_loop(
            lambda step, *_: step < steps, take_step, begin, parallel_iterations=1
        )
        return loss_sum, vector, slots


@lru_cache(maxsize=KEPT)
def graphs_of(plan: Plan, optimizer: Optimizer | None, precision: str, device: str, *, xla: bool) -> Graphs:  # noqa: ARG001 - a graph is placed where it is traced
    """The graphs of `plan` on a device, the same for all who ask with equal arguments."""
    return Graphs(plan, optimizer, precision, xla=xla)
