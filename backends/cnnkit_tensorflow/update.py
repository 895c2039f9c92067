"""One step of an optimizer on all parameters at once."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from cnnkit.optimizers import Optimizer
from cnnkit_tensorflow.layers import Tensor

Slots = tuple[Tensor, ...]


def update(
    optimizer: Optimizer, vector: Tensor, slots: Slots, gradient: Tensor, coefficients: Tensor
) -> tuple[Any, Slots]:
    """The vector of parameters and the slots after a step: clipping by the global norm, then the optimizer's rule."""
    limit = optimizer.clip_global_norm
    if limit is not None:
        norm = tf.sqrt(tf.reduce_sum(tf.square(tf.cast(gradient, tf.float64))))
        gradient *= tf.cast(tf.where(norm > limit, limit / norm, tf.ones_like(norm)), gradient.dtype)
    vector, new_slots = optimizer.apply(vector, gradient, slots, tf.unstack(coefficients))
    return vector, tuple(new_slots)
