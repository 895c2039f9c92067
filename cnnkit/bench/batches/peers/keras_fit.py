"""Keras on TensorFlow: `Sequential`, `fit` and `predict` on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, final

import tensorflow as tf

from cnnkit import model as spec
from cnnkit.arrays import Array, Parameters
from cnnkit.bench.batches.learner import Learner, quickest, refuse
from cnnkit.bench.batches.peers.tensorflow_threads import use_threads
from cnnkit.bench.batches.workload import LEARNING_RATE, Workload

keras: Final[Any] = import_module("keras")  # it has no types that a checker could read


def make(workload: Workload, jit_compile: str | bool = "auto", steps_per_execution: int = 1) -> Learner:
    """The learner; the options are those of Keras's `compile`, with its defaults."""
    use_threads(workload.threads)
    return _Keras(workload, {"jit_compile": jit_compile, "steps_per_execution": steps_per_execution})


@final
class _Keras(Learner):
    """The first epoch goes in the workload's order; later ones shuffle, as `fit` does by itself."""

    def __init__(self, workload: Workload, settings: Mapping[str, Any]) -> None:
        super().__init__(workload)
        keras.utils.set_random_seed(workload.seed)
        self.network = _sequential(workload.model)
        for name, array in workload.parameters.items():
            self._variable(name).assign(array)
        self.network.compile(
            optimizer=keras.optimizers.Adam(LEARNING_RATE, epsilon=workload.optimizer.epsilon),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            **settings,
        )
        # Probabilities are asked for only in `predict`, so the softmax stands outside of what is trained.
        self.classifier = keras.Sequential([keras.Input(workload.model.input_shape, dtype="uint8")])
        for layer in [*self.network.layers, keras.layers.Softmax()]:
            self.classifier.add(layer)
        self.classifier.compile(**settings)
        self.fitted = False
        self.size = 0

    @property
    def versions(self) -> Mapping[str, str]:
        return {"keras": keras.__version__, "tensorflow": tf.__version__}

    @property
    def remarks(self) -> Sequence[str]:
        compiled = "compiled" if self.network.jit_compile else "not compiled"
        return [f"keras is {compiled} by XLA and predicts {self.size} images at once"]

    def train(self) -> float:
        images, labels = self.workload.images, self.workload.labels
        if not self.fitted:
            images, labels = images[self.workload.order], labels[self.workload.order]
        history = self.network.fit(
            images, labels, batch_size=self.workload.batch_size, shuffle=self.fitted, verbose=0
        ).history
        self.fitted = True
        return float(history["loss"][-1])

    def predict(self) -> Array:
        self.size = self.size or quickest(self._predict)
        return self._predict(self.size)

    def _predict(self, size: int) -> Array:
        probabilities: Array = self.classifier.predict(self.workload.images, batch_size=size, verbose=0)
        return probabilities

    def parameters(self) -> Parameters:
        return {name: self._variable(name).numpy() for name in self.workload.parameters}

    def _variable(self, name: str) -> Any:
        index, kind = name.split(".")
        layer = self.network.get_layer(f"layer_{index}")
        return getattr(layer, kind)


def _sequential(model: spec.Model) -> Any:
    """`model` up to the scores under its softmax; a layer is called by its index."""
    network = keras.Sequential([keras.Input(model.input_shape, dtype="uint8")])
    for index, layer in enumerate(model.layers[:-1]):
        made = _layer(index, layer)
        if made is None:
            raise refuse("keras", index, layer)
        network.add(made)
    return network


def _layer(index: int, layer: spec.Layer) -> Any:
    name = f"layer_{index}"
    match layer:
        case spec.Rescale():
            return keras.layers.Rescaling(layer.scale, layer.offset, name=name)
        case spec.Conv2D(padding="valid" | "same"):
            return keras.layers.Conv2D(
                layer.filters,
                layer.kernel_size,
                strides=layer.strides,
                padding=layer.padding,
                dilation_rate=layer.dilation,
                activation=layer.activation,
                use_bias=layer.use_bias,
                name=name,
            )
        case spec.MaxPool2D(padding="valid" | "same"):
            return keras.layers.MaxPooling2D(layer.pool_size, layer.strides, padding=layer.padding, name=name)
        case spec.Flatten():
            return keras.layers.Flatten(name=name)
        case spec.Dense():
            return keras.layers.Dense(layer.units, activation=layer.activation, use_bias=layer.use_bias, name=name)
        case spec.Dropout():
            return keras.layers.Dropout(layer.rate, name=name)
        case spec.ReLU() | spec.Tanh() | spec.Sigmoid():
            return keras.layers.Activation(layer.kind, name=name)
    return None
