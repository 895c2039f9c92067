"""The way through all layers, there and back, as functions of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf

from cnnkit.plan import Conv2DOp, DenseOp, Operation, Plan
from cnnkit.rewriting import simplified
from cnnkit_tensorflow.layers import Back, Run, Tensor, run_layer


class RunLayer(Protocol):
    """What `run_layer` is, or a function that rounds around it."""

    def __call__(self, op: Operation, x: Tensor, run: Run, *, goes_on: bool = False) -> tuple[Tensor, Back]:
        """The output of `op` and its way back."""


def predict(plan: Plan, run: Run, x: Tensor, layer: RunLayer = run_layer) -> Tensor:
    """The last layer's output, one row an image. `layer` is who runs an operation."""
    for op in simplified(plan.operations):
        x, _ = layer(op, x, run)
    return x


def learn(
    plan: Plan, run: Run, x: Tensor, labels: Tensor, layer: RunLayer = run_layer, loss_scale: float = 1.0
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The mean cross-entropy of a batch, from the scores under the softmax, and its gradient by parameter.

    The loss is of the dtype of `x`. Gradients come `loss_scale` times as large, a power of two.
    """
    dtype = x.dtype
    ways_back: list[Back] = []
    for op in simplified(plan.operations[:-1]):
        learned = bool(ways_back)
        x, back = layer(op, x, run, goes_on=learned)
        if learned or isinstance(op, (Conv2DOp, DenseOp)):
            ways_back.append(back)
    scores = tf.cast(x, dtype)  # (batch, classes)
    losses, d_scores = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=scores, labels=labels)
    dy = d_scores / (tf.cast(tf.shape(labels)[0], dtype) / loss_scale)
    for back in reversed(ways_back):
        dy = back(dy)
    return tf.reduce_mean(losses), run.gradients
