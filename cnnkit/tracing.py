"""`trace`: every array and every gradient of one training step on one image, by name, from any backend.

A backend's contract gives outputs of whole models and gradients of parameters, and that is enough. The output of layer n
is what the model cut off after it predicts. The gradient of the loss at the output of layer n is found by making that
output a parameter: a model whose layer n is a convolution, or a dense layer, of a constant 1, with the output as its
kernel. Its loss is the same, and the gradient of its kernel is the gradient looked for. Layers before n are replaced by
some that do nothing, so that those after it keep their numbers, and with them the names of their parameters and their
dropout masks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Labels, Parameters, check_labels, dtype_of, times
from cnnkit.backend import Backend
from cnnkit.errors import OptionError, TrainingNotSupported
from cnnkit.evaluation import BackendChoice, as_precision, choose_backend, precision_of, predict, require_model
from cnnkit.metrics import cross_entropy
from cnnkit.model import Conv2D, Dense, Dropout, Layer, Model, Rescale
from cnnkit.optimizers import SGD
from cnnkit.parameters import check_parameters, own_parameters
from cnnkit.patches import one_image
from cnnkit.plan import Plan
from cnnkit.plugins import naming_alternatives, require_support
from cnnkit.randomness import dropout_mask
from cnnkit.state import fresh_state

MOST_PIXELS: Final = 96 * 96
"""Of a map whose gradient is asked for: with P pixels a backend may need a matrix of P x P numbers."""

NOTHING: Final = Rescale(scale=1.0)


@dataclass(frozen=True)
class WayBack:
    """The gradients of the loss: of the outputs of layers, of what comes before their activation, of the parameters."""

    outputs: Mapping[int, Array]
    before_activation: Mapping[int, Array]
    parameters: Mapping[str, Array]


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """One training step on one image, before the update. `print(trace)` gives a table of all that is in it.

    Arrays have no batch axis. A layer with an `activation` has two arrays, before and after it.
    """

    model: Model
    backend: str
    label: int
    seed: int
    step: int
    loss: float
    """The cross-entropy of the image, which is the loss of a batch of this image alone."""
    image: Array
    """As it was given."""
    outputs: Mapping[int, Array]
    """The output of each layer, in training: after a dropout layer, what the mask of (seed, step) has left."""
    before_activation: Mapping[int, Array]
    """For each layer that has an `activation`, what goes into it."""
    parameters: Parameters
    way_back: WayBack | None
    refused: str
    """Why there are no gradients, where there are none."""

    @property
    def gradients(self) -> Mapping[int, Array]:
        """The gradient of the loss at the output of each layer but Softmax, in the shape of that output.

        The loss is computed from the scores, the input of Softmax, and not from its output. Raises
        `TrainingNotSupported` where the backend only predicts.
        """
        return self._way_back().outputs

    @property
    def gradients_before_activation(self) -> Mapping[int, Array]:
        """The gradient of the loss at what goes into the `activation` of each layer that has one."""
        return self._way_back().before_activation

    @property
    def parameter_gradients(self) -> Mapping[str, Array]:
        """The gradient of the loss by the name of the parameter, such as "1.kernel", as the backend trains with it."""
        return self._way_back().parameters

    def _way_back(self) -> WayBack:
        if self.way_back is None:
            raise TrainingNotSupported(self.refused)
        return self.way_back

    @property
    def arrays(self) -> dict[str, Array]:
        """All arrays by name: `image`, `1.kernel`, `1.before_activation`, `1.output`; and `gradient/1.output` and so on."""
        found: dict[str, Array] = {}
        for row in self._rows():
            found[row.name] = row.values
            if row.gradient is not None:
                found[f"gradient/{row.name}"] = row.gradient
        return found

    @property
    def not_finite(self) -> str | None:
        """Where the first NaN or infinity is, in the order of computation, such as "3.output"; None if there is none.

        First the arrays from the image to the loss, then the gradients from the loss back to the image.
        """
        rows = list(self._rows())
        for row in rows:
            if not np.isfinite(row.values).all():
                return row.name
        if not math.isfinite(self.loss):
            return "loss"
        for row in reversed(rows):
            if row.gradient is not None and not np.isfinite(row.gradient).all():
                return f"gradient/{row.name}"
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON but for NaN: of every array its shape, minimum, mean and maximum."""
        return {
            "model": self.model.name,
            "backend": self.backend,
            "label": self.label,
            "seed": self.seed,
            "step": self.step,
            "loss": self.loss,
            "not_finite": self.not_finite,
            "arrays": {name: _figures(array) for name, array in self.arrays.items()},
        }

    def __str__(self) -> str:
        head = ("", "", "shape", "min", "mean", "max", "gradient: min", "mean", "max")
        table = [head]
        for row in self._rows():
            gradient = _cells(row.gradient) if row.gradient is not None else ("", "", "")
            table.append((row.name, row.what, times(row.values.shape), *_cells(row.values), *gradient))
        widths = [max(len(row[column]) for row in table) for column in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 3 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        title = (
            f"{self.model.name or 'model'}, one image of class {self.label}, backend {self.backend}, "
            f"step {self.step} of seed {self.seed}"
        )
        foot = [f"loss {self.loss:.6g}"]
        if self.way_back is None:
            foot.append(f"no gradients: {self.refused}")
        if self.not_finite is not None:
            foot.append(f"NaN or infinity begins in {self.not_finite}")
        return "\n".join([title, *lines, *foot])

    __repr__ = __str__

    def _rows(self) -> Iterator[_Row]:
        yield _Row("image", "", self.image, None)
        back = self.way_back or WayBack({}, {}, {})
        for index, layer in enumerate(self.model.layers):
            kind = type(layer).__name__
            for name, values in self.parameters.items():
                if name.startswith(f"{index}."):
                    yield _Row(name, kind, values, back.parameters.get(name))
            if index in self.before_activation:
                inner = back.before_activation.get(index)
                yield _Row(f"{index}.before_activation", kind, self.before_activation[index], inner)
            what = f"{kind} {_activation(layer)}" if _activation(layer) else kind
            yield _Row(f"{index}.output", what, self.outputs[index], back.outputs.get(index))


@dataclass(frozen=True)
class _Row:
    name: str
    what: str
    values: Array
    gradient: Array | None


def _figures(array: NDArray[Any]) -> dict[str, Any]:
    lowest, mean, highest = _spread(array)
    return {"shape": list(array.shape), "min": lowest, "mean": mean, "max": highest}


def _spread(array: NDArray[Any]) -> tuple[float, float, float]:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(array.min()), float(array.mean(dtype=np.float64)), float(array.max())


def _cells(array: NDArray[Any]) -> tuple[str, str, str]:
    lowest, mean, highest = (f"{value:.4g}" for value in _spread(array))
    return lowest, mean, highest


def _activation(layer: Layer) -> str | None:
    return layer.activation if isinstance(layer, Conv2D | Dense) else None


# ------------------------------------------------------------------------------------------------------------- tracing


def trace(
    model: Model,
    parameters: Parameters,
    image: Any,
    label: int,
    backend: BackendChoice = None,
    *,
    seed: int = 0,
    step: int = 0,
    gradients: bool = True,
    device: str | None = None,
    precision: str = "float32",
    options: Mapping[str, Any] | None = None,
) -> Trace:
    """Every intermediate array and every gradient of one training step on one image, by name.

    The step is not taken: nothing changes. A program is compiled for every array, so a deep model takes a while on a
    backend whose compilation is dear.

    Args:
        model: A classifier.
        parameters: Arrays by name, such as `run.state.parameters`.
        image: `(height, width, channels)` or `(features,)`.
        label: The number of its class.
        backend: A name, a chain of names, a backend; None means CNNKIT_BACKEND, or the default.
        seed: Together with `step` decides the masks of dropout layers, as in a run with that seed.
        step: How many steps of the run have been done.
        gradients: Whether gradients are wanted. They cost the most: the gradient of a map of P pixels takes up to
            P x P numbers in the backend.
        device: Handed to the backend.
        precision: `"float32"`, `"float64"`, or one that the backend offers beside them.
        options: Options of the backend.

    Raises:
        ModelError: The model is no classifier, or has nothing to learn.
        DataError: Image, label or parameters do not fit the model.
        OptionError: The gradients of a map of more than 96 x 96 pixels are wanted.
        BackendError: The backend is not there, not ready, or refuses the model. One that only predicts gives outputs;
            asking the trace for gradients then raises `TrainingNotSupported`.
    """
    require_model(model)
    plan = model.plan()
    plan.require_trainable()
    chosen = choose_backend(backend, device, precision, options)
    dtype = dtype_of(precision_of(chosen, precision))
    parameters = {name: np.asarray(array, dtype) for name, array in own_parameters(plan, parameters).items()}
    check_parameters(plan, parameters)
    images = as_precision(one_image(model, image), dtype.name)
    labels = check_labels([label], 1, plan.classes)
    if gradients:
        _require_small(plan)
    one_step = _Step(model, parameters, images, labels, chosen, seed, step, dtype)
    outputs, before = one_step.forward()
    scores = outputs[len(model.layers) - 2] if len(model.layers) > 1 else images[0]
    loss = float(cross_entropy(scores[np.newaxis], labels)[0])
    way_back, refused = None, "the trace was made with gradients=False. Make it with gradients=True."
    if gradients:
        try:
            loss, way_back = one_step.backward(outputs, before)
        except TrainingNotSupported as error:
            refused = str(error)
    name = chosen.selection.name if chosen.selection else type(chosen).__name__
    return Trace(model, name, int(label), seed, step, loss, images[0], outputs, before, parameters, way_back, refused)


def _require_small(plan: Plan) -> None:
    for index, shape in enumerate(plan.layer_shapes):
        if len(shape) == 3 and shape[0] * shape[1] > MOST_PIXELS:
            raise OptionError(
                f"the output of layers[{index}] is {times(shape)}, and a trace follows gradients through maps of at most "
                f"{MOST_PIXELS:,} pixels. Make it with gradients=False, or give the model a smaller image."
            )


@dataclass(frozen=True, eq=False)
class _Step:
    """What the step is made of: a batch of one image, and all that its outputs and gradients depend on."""

    model: Model
    parameters: Parameters
    images: NDArray[Any]
    labels: Labels
    backend: Backend
    seed: int
    step: int
    dtype: np.dtype[Any]

    def forward(self) -> tuple[dict[int, Array], dict[int, Array]]:
        """The outputs of the layers in training, and what goes into their activations."""
        layers = self.model.layers
        outputs: dict[int, Array] = {}
        before: dict[int, Array] = {}
        start, given = 0, self.images  # the last dropout cuts the model: `predict` would leave it out
        for index, layer in enumerate(layers):
            if isinstance(layer, Dropout):
                values = outputs[index - 1] if index else self.images[0].astype(self.dtype)
                mask = dropout_mask(self.seed, self.step, index, (1, *values.shape), layer.rate, self.dtype)
                with np.errstate(invalid="ignore"):  # infinity times 0 is NaN, as it is in training
                    given = values * mask
                start = index + 1
                outputs[index] = given[0]
                continue
            earlier = (*(NOTHING,) * start, *layers[start:index])
            if _activation(layer):
                bare = layer.model_copy(update={"activation": None})
                before[index] = self._predict((*earlier, bare), given)
            outputs[index] = self._predict((*earlier, layer), given)
        return outputs, before

    def _predict(self, layers: tuple[Layer, ...], images: NDArray[Any]) -> Array:
        part = Model(name=self.model.name, input_shape=images.shape[1:], layers=layers)
        output: Array = predict(part, self.parameters, images, self.backend)[0]
        return output

    def backward(self, outputs: Mapping[int, Array], before: Mapping[int, Array]) -> tuple[float, WayBack]:
        """The loss, and all gradients of it."""
        loss, of_parameters = self._gradients(self.model.plan(), self.parameters, self.images)
        count = len(self.model.layers) - 1
        of_outputs = {index: self._gradient_at(index, outputs[index], None) for index in range(count)}
        of_inputs = {
            index: self._gradient_at(index, values, _activation(self.model.layers[index]))
            for index, values in before.items()
        }
        return loss, WayBack(of_outputs, of_inputs, of_parameters)

    def _gradient_at(self, index: int, values: Array, activation: Any) -> Array:
        """The gradient of the loss at `values`, which stand at the end of layer `index`, or before its activation."""
        shape = values.shape
        source: Layer
        if len(shape) == 1:
            source = Dense(units=shape[0], activation=activation, use_bias=False)
            kernel = values[np.newaxis]  # (1, features)
            image = np.ones((1, 1), self.dtype)
        else:
            # Each place of the output sees the one pixel in the middle of the padding through a weight of its own.
            height, width, channels = shape
            around = ((height - 1, height - 1), (width - 1, width - 1))
            source = Conv2D(
                filters=channels, kernel_size=(height, width), padding=around, activation=activation, use_bias=False
            )
            kernel = values[::-1, ::-1, np.newaxis]  # (height, width, 1, channels)
            image = np.ones((1, 1, 1, 1), self.dtype)
        layers = (*(NOTHING,) * index, source, *self.model.layers[index + 1 :])
        plan = Model(name=self.model.name, input_shape=image.shape[1:], layers=layers).plan()
        name = f"{index}.kernel"
        own = {**own_parameters(plan, self.parameters), name: np.ascontiguousarray(kernel)}
        _, found = self._gradients(plan, own, image)
        gradient = found[name][0] if len(shape) == 1 else found[name][::-1, ::-1, 0]
        return np.ascontiguousarray(gradient)

    def _gradients(self, plan: Plan, parameters: Parameters, images: NDArray[Any]) -> tuple[float, dict[str, Array]]:
        optimizer = SGD(learning_rate=0.01)  # never used: no step is taken
        state = replace(fresh_state(parameters, optimizer, self.seed), step=self.step)
        require_support(self.backend, plan)
        with naming_alternatives(self.backend, plan):
            program = self.backend.compile_training(plan, state, optimizer)
        loss, gradients = program.gradients(images, self.labels)
        return float(loss), gradients
