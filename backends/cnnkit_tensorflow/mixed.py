"""The way through all layers in `mixed_float16`: layers compute in float16, all that lasts or adds up is float32.

In float16 are convolution, pooling, dense layers, activations and dropout, with their gradients; each has its parameters
rounded to float16 on the way in. In float32 are the parameters themselves and the optimizer's slots, preprocessing
(a pixel may be larger than float16's 65504), scores, softmax, loss, and gradients from where they leave their layer: so
that clipping and the update are those of float32. As in P. Micikevicius et al., "Mixed Precision Training" (ICLR 2018).

What is larger than float16's 65504 becomes infinite, and no step is left out for it: infinity and NaN go on into loss,
gradients and parameters as they do in float32, where `fit` finds them and stops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import tensorflow as tf

from cnnkit.plan import GrayscaleOp, Operation, Plan, RescaleOp, SoftmaxOp
from cnnkit_tensorflow import network
from cnnkit_tensorflow.layers import Back, Run, Tensor, run_layer

LOSS_SCALE: Final = 1024.0
"""The loss times this constant is what goes back through the layers, so that small gradients are not lost in float16.

A power of two, so that it rounds nothing. Section 3.2 of "Mixed Precision Training" trains with constants from 8 to
32768, and asks for one whose product with the largest gradient stays below 65504: with 1024 gradients of up to 63 do, and
down to 6e-8 they keep all their digits.
"""


def predict(plan: Plan, run: Run, x: Tensor) -> Tensor:
    """The last layer's output, one row an image, in float32. `x` and the parameters are float32."""
    return tf.cast(network.predict(plan, _rounded(run), x, _run_layer), tf.float32)


def learn(plan: Plan, run: Run, x: Tensor, labels: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The mean cross-entropy of a batch and its gradient by parameter, both in float32, as are `x` and the parameters."""
    loss, gradients = network.learn(plan, _rounded(run), x, labels, _run_layer, LOSS_SCALE)
    return loss, {name: tf.cast(gradient, tf.float32) / LOSS_SCALE for name, gradient in gradients.items()}


def _rounded(run: Run) -> Run:
    return replace(run, parameters={name: tf.cast(array, tf.float16) for name, array in run.parameters.items()})


def _run_layer(op: Operation, x: Tensor, run: Run, *, goes_on: bool = False) -> tuple[Tensor, Back]:
    """As `run_layer`, in the dtype that is meant for `op`, whatever that of `x`."""
    inside = tf.float32 if isinstance(op, (RescaleOp, GrayscaleOp, SoftmaxOp)) else tf.float16
    y, back = run_layer(op, tf.cast(x, inside), run, goes_on=goes_on)
    return y, lambda dy: back(tf.cast(dy, y.dtype))
