"""Questions that see every single number inside a model through the contract, which knows parameters and outputs only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnkit.arrays import Array, dtype_of
from cnnkit.conformance.case import Case, question_case
from cnnkit.conformance.question import Question, calmed, draw, draw_parameters, unbalanced_labels
from cnnkit.features import features_of
from cnnkit.model import Conv2D, Dense, Flatten, Layer, Model, Softmax


def predict_question(layers: list[Layer], images: Any, precision: str, **parameters: Any) -> Question:
    """What `layers` make of `images`; parameters are `kernel_0=...`, `bias_0=...`, the number being that of the layer."""
    dtype = dtype_of(precision)
    array = np.asarray(images) if getattr(images, "dtype", None) == np.uint8 else np.asarray(images, dtype)
    named = {_name(key): np.asarray(value, dtype) for key, value in parameters.items()}
    return Question(Model(input_shape=array.shape[1:], layers=layers), named, array, precision=precision)


def predict_case(id: str, claim: str, layers: list[Layer], images: Any, **parameters: Any) -> Case:  # noqa: A002 - as in Case
    """A case that asks what `layers` make of given numbers: see `predict_question`."""
    return question_case(id, claim, lambda precision: predict_question(layers, images, precision, **parameters))


def _name(key: str) -> str:
    kind, _, layer = key.partition("_")
    return f"{layer}.{kind}"


def probe_question(layers: list[Layer], numbers: Any, precision: str) -> Question:
    """A question about the gradient with respect to every one of `numbers`, which go into `layers`.

    The contract gives gradients of parameters, so the numbers become one: the first layer has them as its kernel, and
    its input says with a single 1 for each place which of them belongs there. All other products are 0, so that every
    engine hands `layers` exactly these numbers, ties included, and every number of the kernel's gradient is the
    gradient of one of them. Numbers are `(batch, height, width, channels)` or `(batch, features)`.
    """
    dtype = dtype_of(precision)
    array = np.asarray(numbers, dtype)
    model = _probe(layers, array.shape)
    places = model.input_shape[-1]
    images = np.eye(places, dtype=dtype).reshape(*array.shape[:-1], places)
    parameters = draw_parameters(model, np.random.default_rng(0), precision)
    parameters["0.kernel"] = array.reshape(parameters["0.kernel"].shape)
    return calmed(Question(model, parameters, images, "gradients", precision, unbalanced_labels(model, len(images))))


def _probe(layers: list[Layer], shape: tuple[int, ...]) -> Model:
    places = int(np.prod(shape[:-1]))
    one_pixel = Conv2D(filters=shape[-1], kernel_size=1, use_bias=False)
    probe: Layer = one_pixel if len(shape) == 4 else Dense(units=shape[-1], use_bias=False)
    front = Model(input_shape=(*shape[1:-1], places), layers=[probe, *layers])
    flatten = [Flatten()] if len(front.plan().output_shape) == 3 else []
    return Model(input_shape=front.input_shape, layers=[*front.layers, *flatten, Dense(units=3), Softmax()])


def probe_case(id: str, claim: str, layers: list[Layer], numbers: Any) -> Case:  # noqa: A002 - as in Case
    """A case about the gradient with respect to each number that goes into `layers`: see `probe_question`."""
    model = _probe(layers, np.shape(numbers))
    return _gradient_case(id, claim, model, lambda precision: probe_question(layers, numbers, precision))


def _gradient_case(id: str, claim: str, model: Model, make: Callable[[str], Question]) -> Case:  # noqa: A002 - as in Case
    features = features_of(model.plan()) | {"training"}
    return Case(id, claim, "training", features, lambda subject: subject.ask(make(subject.precision)))


def drawn_gradient_case(
    id: str,  # noqa: A002 - as in Case
    claim: str,
    layers: list[Layer],
    input_shape: tuple[int, ...],
    batch: int = 2,
    **options: Any,
) -> Case:
    """A case about the gradients of random parameters on random images, `calmed`."""
    model = Model(input_shape=input_shape, layers=layers)
    labels = unbalanced_labels(model, batch)
    return _gradient_case(
        id,
        claim,
        model,
        lambda precision: calmed(
            draw(layers, input_shape, precision=precision, ask="gradients", batch=batch, labels=labels, **options)
        ),
    )


def distinct(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Whole numbers in disorder, no two alike, about half of them negative: no decision between them is near."""
    size = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(size) - size // 2).reshape(shape).astype(np.float64)


def uniform(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Random numbers from -1 to 1."""
    return np.random.default_rng(seed).uniform(-1, 1, shape)
