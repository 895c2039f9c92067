"""A layer alone between two slices of bread, through which its way back can be seen.

The contract knows parameters and outputs only, and the rounding errors of a deep model bury a small fault in one of its
layers. So a layer is put into a small model of its own. In front stands a layer whose kernel holds the numbers that go
in: the gradient of that kernel is the gradient of the layer's input. Behind it a small dense layer makes calm scores.
What the bread alone gets wrong says nothing of what lies on it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cnnkit.arrays import Images, Labels, Parameters, dtype_of
from cnnkit.conformance.question import Question, calmed, draw_parameters, unbalanced_labels
from cnnkit.model import Conv2D, Dense, Flatten, Layer, Model, ReLU, Sigmoid, Softmax, Tanh

PLACES = 1024
"""About how many pixels of the images are used."""

LARGEST = 2**18
"""How many numbers the images of a sandwich have at most."""

_ACTIVATIONS: dict[str, type[ReLU | Tanh | Sigmoid]] = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid}


def split(layer: Layer) -> tuple[Layer, Layer | None]:
    """A layer without its activation, and the activation as a layer.

    Each gets its input as it is, so that no decision of a ReLU hangs on how the layer in front of it rounds.
    """
    if isinstance(layer, (Conv2D, Dense)) and layer.activation is not None:
        return layer.model_copy(update={"activation": None}), _ACTIVATIONS[layer.activation]()
    return layer, None


def sandwich(
    layers: list[Layer], numbers: Images, precision: str, parameters: Parameters | None = None, *, end: bool = True
) -> Question:
    """The gradients of `layers`, as a question; "gradient of 0.kernel" is that of their input.

    Args:
        layers: What lies between the bread; nothing to ask about the bread alone. Its first layer is number 1.
        numbers: What goes in, `(batch, ...)`. Of many pixels the first few are used, again and again.
        precision: In which they are held.
        parameters: Those of `layers`, by their names in the sandwich; random where they are not given.
        end: Whether a dense layer follows; without it, softmax is right behind `layers`.
    """
    dtype = dtype_of(precision)
    size = int(np.prod(numbers.shape[1:-1]))
    numbers = numbers[: max(1, PLACES // size)]
    pixels = numbers.reshape(-1, numbers.shape[-1]).astype(dtype)
    rows = max(1, min(len(pixels), LARGEST // len(pixels)))
    images = np.eye(rows, dtype=dtype)[np.arange(len(pixels)) % rows].reshape(*numbers.shape[:-1], rows)
    channels, flat = pixels.shape[1], numbers.ndim == 2
    front: Layer = Dense(units=channels) if flat else Conv2D(filters=channels, kernel_size=1)
    between = Model(input_shape=images.shape[1:], layers=[front, *layers])
    flatten = [Flatten()] if len(between.plan().output_shape) == 3 else []
    last = [Dense(units=3)] if end else []
    model = Model(input_shape=between.input_shape, layers=[*between.layers, *flatten, *last, Softmax()])
    held = draw_parameters(model, np.random.default_rng(0), precision) | dict(parameters or {})
    held["0.kernel"] = pixels[:rows].reshape(held["0.kernel"].shape)
    held["0.bias"] = np.zeros(channels, dtype)
    labels = unbalanced_labels(model, len(images))
    question = Question(model, held, images, "gradients", precision, labels)
    return calmed(question) if end or layers else question


def front_alone(numbers: Images, precision: str) -> Question:
    """What the front of a sandwich is asked without anything behind it, on small numbers of its own.

    All labels are alike: no gradient cancels, however few classes there are.
    """
    own = np.random.default_rng(1).uniform(-0.01, 0.01, numbers.shape)
    question = sandwich([], own.astype(dtype_of(precision)), precision, end=False)
    labels: Labels = np.full(len(question.images), question.plan.classes - 1)
    return replace(question, labels=labels)


def back_alone(numbers: Images, precision: str) -> Question:
    """What front and end of a sandwich are asked where nothing lies between them."""
    return sandwich([], numbers, precision)
