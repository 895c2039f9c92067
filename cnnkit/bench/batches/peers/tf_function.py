"""TensorFlow by hand: variables, `tf.nn`, a gradient tape and its fused Adam, in a `tf.function`.

All images lie in a tensor, out of which each step takes its batch: one call a step, or one call an epoch with the loop
in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import numpy as np
import tensorflow as tf

from cnnkit import model as spec
from cnnkit.arrays import Array, Parameters
from cnnkit.bench.batches.learner import Learner, predict_in_parts, quickest, refuse
from cnnkit.bench.batches.peers.tensorflow_threads import use_threads
from cnnkit.bench.batches.workload import LEARNING_RATE, Workload

_ACTIVATIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "relu": tf.nn.relu,
    "tanh": tf.tanh,
    "sigmoid": tf.sigmoid,
}


def make(workload: Workload, *, loop: bool) -> Learner:
    """The learner; `loop` puts the loop over an epoch's batches into the graph."""
    use_threads(workload.threads)
    tf.random.set_seed(workload.seed)
    return _TensorFlow(workload, loop=loop)


@final
class _TensorFlow(Learner):
    def __init__(self, workload: Workload, *, loop: bool) -> None:
        super().__init__(workload)
        self.loop = loop
        self.variables = {name: tf.Variable(array) for name, array in workload.parameters.items()}
        self.slots = {name: [tf.Variable(tf.zeros(v.shape)) for _ in "mv"] for name, v in self.variables.items()}
        self.powers = [tf.Variable(1.0), tf.Variable(1.0)]  # of beta_1 and beta_2
        self.images = tf.constant(workload.images)
        self.labels = tf.constant(workload.labels.astype(np.int32))
        self.order = tf.constant(workload.order.astype(np.int32))
        # Sizes are left open, so that a smaller batch at the end is no graph of its own.
        images = tf.TensorSpec([None, *workload.model.input_shape], tf.uint8)
        whole_numbers = tf.TensorSpec([None], tf.int32)
        trained_on = [images, whole_numbers, whole_numbers]
        self.step = tf.function(self._step, trained_on, autograph=False)
        self.epoch = tf.function(self._epoch, trained_on, autograph=False)
        self.probabilities = tf.function(self._probabilities, [images], autograph=False)
        self.size = 0

    @property
    def versions(self) -> Mapping[str, str]:
        return {"tensorflow": tf.__version__}

    @property
    def remarks(self) -> Sequence[str]:
        return [f"tf-function predicts {self.size} images at once"]

    def train(self) -> float:
        count = self.workload.count
        if self.loop:
            return float(self.epoch(self.images, self.labels, self.order)) / count
        losses = []
        for start in range(0, count, self.workload.batch_size):
            rows = self.order[start : start + self.workload.batch_size]
            losses.append((self.step(self.images, self.labels, rows), len(rows)))
        return sum(float(loss) * size for loss, size in losses) / count

    def predict(self) -> Array:
        self.size = self.size or quickest(self._predict)
        return self._predict(self.size)

    def _predict(self, size: int) -> Array:
        return predict_in_parts(lambda part: self.probabilities(part).numpy(), self.workload.images, size)

    def parameters(self) -> Parameters:
        return {name: variable.numpy() for name, variable in self.variables.items()}

    # ------------------------------------------------------------------------------------------------- what is traced

    def _scores(self, images: Any, *, training: bool) -> Any:
        x = tf.cast(images, tf.float32)
        for index, layer in enumerate(self.workload.model.layers[:-1]):
            x = _run_layer(index, layer, x, self.variables, training=training)
        return x

    def _probabilities(self, images: Any) -> Any:
        return tf.nn.softmax(self._scores(images, training=False))

    def _step(self, images: Any, labels: Any, rows: Any) -> Any:
        with tf.GradientTape() as tape:
            scores = self._scores(tf.gather(images, rows), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(labels, rows), scores)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, self.variables)
        adam = self.workload.optimizer
        power_1 = self.powers[0].assign(self.powers[0] * adam.beta_1)
        power_2 = self.powers[1].assign(self.powers[1] * adam.beta_2)
        for name, variable in self.variables.items():
            m, v = self.slots[name]
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=power_1,
                beta2_power=power_2,
                lr=LEARNING_RATE,
                beta1=adam.beta_1,
                beta2=adam.beta_2,
                epsilon=adam.epsilon,
                grad=gradients[name],
            )
        return loss

    def _epoch(self, images: Any, labels: Any, order: Any) -> Any:
        size = self.workload.batch_size

        def one_step(start: Any, total: Any) -> tuple[Any, Any]:
            rows = order[start : start + size]
            loss = self._step(images, labels, rows)
            return start + size, total + loss * tf.cast(tf.shape(rows)[0], tf.float32)

        count = tf.shape(order)[0]
        return tf.while_loop(lambda start, _: start < count, one_step, (0, 0.0), parallel_iterations=1)[1]


def _run_layer(index: int, layer: spec.Layer, x: Any, variables: Mapping[str, Any], *, training: bool) -> Any:
    kernel, bias = variables.get(f"{index}.kernel"), variables.get(f"{index}.bias")
    match layer:
        case spec.Rescale():
            return x * layer.scale + layer.offset
        case spec.Conv2D(padding="valid" | "same"):
            x = tf.nn.conv2d(x, kernel, layer.strides, str(layer.padding).upper(), dilations=layer.dilation)
            return _finish(layer, x, bias)
        case spec.MaxPool2D(padding="valid" | "same"):
            strides = layer.pool_size if layer.strides is None else layer.strides
            return tf.nn.max_pool2d(x, layer.pool_size, strides, str(layer.padding).upper())
        case spec.Flatten():
            return tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
        case spec.Dense():
            return _finish(layer, tf.matmul(x, kernel), bias)
        case spec.Dropout():
            return tf.nn.dropout(x, layer.rate) if training else x
        case spec.ReLU() | spec.Tanh() | spec.Sigmoid():
            return _ACTIVATIONS[layer.kind](x)
    raise refuse("tf-function", index, layer)


def _finish(layer: spec.Conv2D | spec.Dense, x: Any, bias: Any) -> Any:
    x = x if bias is None else tf.nn.bias_add(x, bias)
    return x if layer.activation is None else _ACTIVATIONS[layer.activation](x)
