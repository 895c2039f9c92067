"""Random models, for faults that nobody thought of: kinds of layers, sizes and options drawn together from a seed.

A case is fixed by its seed and its number, whatever else is drawn, so that `explore.7.03` is the same question
everywhere. Every model is valid by construction: a layer that does not fit is drawn again.

Where gradients are compared, no decision of a layer may stand on an edge by construction, as the zeros behind a ReLU do
in a window of max pooling: which of them wins is known to no one who rounds.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from cnnkit.arrays import Array, dtype_of, times
from cnnkit.conformance.case import Case
from cnnkit.conformance.question import Ask, Question, calmed, draw, unbalanced_labels
from cnnkit.errors import ModelError
from cnnkit.features import features_of
from cnnkit.model import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    Layer,
    MaxPool2D,
    Model,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)
from cnnkit.optimizers import SGD, Adam, AdamW, CosineDecay, Optimizer, StepDecay
from cnnkit.plan import ActivationOp, MaxPool2DOp, Operation, pair
from cnnkit.randomness import stream

HOW_MANY_LAYERS = (0, 1, 2, 2, 3, 3, 4, 5)
"""Between the image and the flatten or the end of the model; all are as likely."""


def explored_cases(count: int, seed: int = 0) -> tuple[Case, ...]:
    """The first `count` random cases of `seed`; those of a smaller count are the same."""
    return tuple(explored_case(seed, number) for number in range(count))


def case_by_id(id: str) -> Case | None:  # noqa: A002 - the field's name
    """The case called `explore.<seed>.<number>`; None where `id` is no such name."""
    found = re.fullmatch(r"explore\.(\d+)\.(\d{2,})", id)
    return explored_case(int(found[1]), int(found[2])) if found else None


def explored_case(seed: int, number: int) -> Case:
    """Random case `number`, counted from 0, of `seed`."""
    rng = stream(seed, "explore", step=number)
    ask: Ask = ("predict", "gradients", "steps")[rng.integers(3)]
    model, uint8 = draw_model(rng, learns=ask != "predict")
    optimizer = _draw_optimizer(rng) if ask == "steps" else None
    options = _draw_options(rng, model, optimizer) | {"images": "uint8" if uint8 else "uniform"}
    if ask == "gradients":
        options["labels"] = unbalanced_labels(model, options["batch"])

    def make(precision: str) -> Question:
        slots = {} if optimizer is None else _draw_slots(model, optimizer, options, precision)
        question = draw(list(model.layers), model.input_shape, precision=precision, ask=ask, slots=slots, **options)
        return calmed(question) if ask == "gradients" else question

    features = features_of(model.plan(), optimizer)
    return Case(
        f"explore.{seed}.{number:02d}",
        _claim(model, ask, options),
        "inference" if ask == "predict" else "training",
        features if ask == "predict" else features | {"training"},
        lambda subject: subject.ask(make(subject.precision)),
    )


# ------------------------------------------------------------------------------------------------------------- models


def _chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _number(rng: np.random.Generator, least: int, most: int) -> int:
    return int(rng.integers(least, most + 1))


def _size(rng: np.random.Generator, least: int, most: int) -> tuple[int, int]:
    return _number(rng, least, most), _number(rng, least, most)


def draw_model(rng: np.random.Generator, *, learns: bool) -> tuple[Model, bool]:
    """A model, a classifier where it learns, and whether its images are uint8."""
    dense = _chance(rng, 0.15)
    uint8 = not dense and _chance(rng, 0.25)
    channels = (1, 2, 3, 3, 5)[rng.integers(5)]
    input_shape = (_number(rng, 1, 12),) if dense else (*_size(rng, 3, 9), channels)
    model = _Growing(rng, input_shape, learns=learns)
    if uint8:
        model.add(Rescale(scale=1 / 255, offset=float(rng.choice([0.0, -0.5]))))
        model.on_edge = True  # pixels of 256 levels are often equal
    if not dense and channels > 1 and _chance(rng, 0.15):
        model.add(Grayscale(weights="luma" if channels == 3 and _chance(rng, 0.5) else "mean"))
    for _ in range(0 if dense else HOW_MANY_LAYERS[rng.integers(len(HOW_MANY_LAYERS))]):
        model.add_one_of(_IMAGE_LAYERS)
    if learns or dense or _chance(rng, 0.5):
        if not dense:
            model.add(Flatten())
        for _ in range(_number(rng, 0, 2)):
            model.add_one_of(_ROW_LAYERS)
        model.add(Dense(units=_number(rng, 2 if learns else 1, 6), use_bias=_chance(rng, 0.8)))
        if learns or _chance(rng, 0.5):
            model.add(Softmax())
    if not model.layers:
        model.add(Conv2D(filters=2, kernel_size=1))
    return Model(input_shape=input_shape, layers=model.layers), uint8


class _Growing:
    """A model that grows layer by layer, and whether two of its numbers may be equal by construction (`on_edge`)."""

    def __init__(self, rng: np.random.Generator, input_shape: tuple[int, ...], *, learns: bool) -> None:
        self.rng, self.input_shape, self.learns = rng, input_shape, learns
        self.layers: list[Layer] = []
        self.on_edge = False
        self.shape = input_shape

    def add(self, layer: Layer) -> None:
        """Put `layer` at the end. Raises `ModelError` where it does not fit."""
        self.shape = Model(input_shape=self.input_shape, layers=[*self.layers, layer]).plan().output_shape
        self.layers.append(layer)

    def add_one_of(self, kinds: tuple[Any, ...]) -> None:
        """Put a random layer at the end that fits, and whose decisions are clear."""
        while True:
            layer = kinds[self.rng.integers(len(kinds))](self.rng)
            if self.learns and not self._is_clear(layer):
                continue
            try:
                self.add(layer)
            except ModelError:
                continue  # the image is too small for it: draw another one
            self.on_edge = self.on_edge or self._leaves_equals(layer)
            return

    def _is_clear(self, layer: Layer) -> bool:
        if isinstance(layer, MaxPool2D):
            return not self.on_edge
        if isinstance(layer, ReLU):
            return not self.on_edge and bool(self.layers) and isinstance(self.layers[-1], (Conv2D, Dense))
        if isinstance(layer, (Conv2D, Dense)) and layer.activation == "relu":
            return layer.use_bias or not self.on_edge  # without a bias a sum of zeros is zero, which is an edge
        return True

    @staticmethod
    def _leaves_equals(layer: Layer) -> bool:
        """Whether numbers of the output may be equal by construction."""
        if isinstance(layer, MaxPool2D):  # one maximum may win in two windows that overlap
            return layer.strides is not None
        if isinstance(layer, Conv2D) and layer.padding != "valid" and layer.dilation != 1:
            return True  # a window with holes may see padding alone
        return isinstance(layer, (ReLU, Dropout)) or getattr(layer, "activation", None) == "relu"


def _padding(rng: np.random.Generator, window: tuple[int, int]) -> Any:
    kind = rng.integers(4)
    if kind < 2:
        return ("valid", "same")[kind]
    (above, below), (left, right) = [_size(rng, 0, min(size - 1, 2)) for size in window]
    return (above, below), (left, right)


def _conv(rng: np.random.Generator) -> Layer:
    kernel = _size(rng, 1, 4)
    return Conv2D(
        filters=(1, 2, 3, 4, 6)[rng.integers(5)],
        kernel_size=kernel,
        strides=_size(rng, 1, 3) if _chance(rng, 0.4) else 1,
        padding=_padding(rng, kernel),
        dilation=_size(rng, 1, 3) if _chance(rng, 0.3) else 1,
        activation=_activation(rng),
        use_bias=_chance(rng, 0.75),
    )


def _activation(rng: np.random.Generator) -> Any:
    return (None, "relu", "tanh", "sigmoid")[rng.integers(4)]


def _pool(rng: np.random.Generator, kind: type[MaxPool2D | AvgPool2D]) -> Layer:
    window = _size(rng, 1, 3)
    strides = _size(rng, 1, 3) if _chance(rng, 0.6) else None
    return kind(pool_size=window, strides=strides, padding=_padding(rng, window))


def _dense(rng: np.random.Generator) -> Layer:
    return Dense(units=_number(rng, 1, 7), activation=_activation(rng), use_bias=_chance(rng, 0.75))


def _plain(rng: np.random.Generator) -> Layer:
    layers = (
        ReLU(),
        Tanh(),
        Sigmoid(),
        Dropout(rate=(0.1, 0.3, 0.5)[rng.integers(3)]),
        Rescale(scale=-1.5, offset=0.25),
    )
    return layers[rng.integers(len(layers))]


def _max_pool(rng: np.random.Generator) -> Layer:
    return _pool(rng, MaxPool2D)


def _average_pool(rng: np.random.Generator) -> Layer:
    return _pool(rng, AvgPool2D)


_IMAGE_LAYERS = (_conv, _conv, _conv, _max_pool, _average_pool, _plain)
_ROW_LAYERS = (_dense, _dense, _plain)


# ------------------------------------------------------------------------------------------------------------- courses


def _draw_options(rng: np.random.Generator, model: Model, optimizer: Optimizer | None) -> dict[str, Any]:
    """How many images, and in which steps: the options of `draw`."""
    batch = (1, 2, 2, 3, 3, 4)[rng.integers(6)]
    options: dict[str, Any] = {"batch": batch, "seed": int(rng.integers(2**31))}
    if optimizer is None:
        return options
    if not any(_decides(op) for op in model.plan().operations):
        # A step blurs the parameters, most of all where Adam makes a whole step of a tiny gradient, and the decisions
        # of the next step with them.
        options |= {"batch_size": _number(rng, 1, batch), "epochs": 2 if batch < 3 else 1}
    return options | {"optimizer": optimizer, "step": (0, 0, 1, 9)[rng.integers(4)]}


def _decides(op: Operation) -> bool:
    return isinstance(op, MaxPool2DOp) or (isinstance(op, ActivationOp) and op.function == "relu")


def _draw_optimizer(rng: np.random.Generator) -> Optimizer:
    rate: Any = (
        0.1,
        0.02,
        StepDecay(rate=0.1, every=2, factor=0.5),
        CosineDecay(rate=0.1, steps=7, final=0.01),
    )[rng.integers(4)]
    common = {"learning_rate": rate, "clip_global_norm": (None, None, 0.2)[rng.integers(3)]}
    betas = {"beta_1": (0.9, 0.8)[rng.integers(2)], "beta_2": (0.999, 0.95)[rng.integers(2)]}
    epsilon = (1e-8, 1e-4)[rng.integers(2)]
    kind = rng.integers(5)
    if kind == 0:
        return SGD(**common, weight_decay=(0.0, 0.1)[rng.integers(2)])
    if kind in (1, 2):
        return SGD(**common, momentum=0.9, nesterov=bool(kind == 2), weight_decay=(0.0, 0.1)[rng.integers(2)])
    if kind == 3:
        return Adam(**common, **betas, epsilon=epsilon)
    return AdamW(**common, **betas, epsilon=epsilon, weight_decay=(0.0, 0.1)[rng.integers(2)])


def _draw_slots(
    model: Model, optimizer: Optimizer, options: dict[str, Any], precision: str
) -> dict[str, dict[str, Array]]:
    """What training has left in the slots where it goes on from a later step; nothing where it begins."""
    if not options["step"]:
        return {}
    rng = np.random.default_rng(options["seed"])
    least = {"v": 0.01}  # of squares
    return {
        slot: {
            spec.name: rng.uniform(least.get(slot, -0.1), 0.1, spec.shape).astype(dtype_of(precision))
            for spec in model.plan().parameters
        }
        for slot in optimizer.slot_names
    }


# --------------------------------------------------------------------------------------------------------------- words


def _claim(model: Model, ask: Ask, options: dict[str, Any]) -> str:
    what = {
        "predict": "A random model predicts what it should",
        "gradients": "A random model has the gradients that it should",
        "steps": f"{type(options.get('optimizer')).__name__} trains a random model as it should",
    }[ask]
    return f"{what}: {in_words(model)}; batch {options['batch']}"


def in_words(model: Model) -> str:
    """A model on one line: `5 x 7 x 2, conv2d 3 x 2 to 4 filters, relu, flatten, dense 3, softmax`."""
    return ", ".join([times(model.input_shape), *(_layer_in_words(layer) for layer in model.layers)])


def _layer_in_words(layer: Layer) -> str:
    words: list[str] = [layer.kind]
    match layer:
        case Conv2D():
            words.append(f"{times(pair(layer.kernel_size))} to {layer.filters}")
        case MaxPool2D() | AvgPool2D():
            words.append(times(pair(layer.pool_size)))
        case Dense():
            words.append(str(layer.units))
        case Dropout():
            words.append(f"{layer.rate:g}")
        case Rescale():
            words.append(f"by {layer.scale:.4g} plus {layer.offset:g}")
        case Grayscale():
            words.append(layer.weights)
    strides, padding, dilation = (getattr(layer, name, None) for name in ("strides", "padding", "dilation"))
    words += [f"strides {times(pair(strides))}"] if strides not in (None, 1) else []
    words += [f"padding {_padding_in_words(padding)}"] if padding not in (None, "valid") else []
    words += [f"dilation {times(pair(dilation))}"] if dilation not in (None, 1) else []
    words += ["without bias"] if not getattr(layer, "use_bias", True) else []
    activation = getattr(layer, "activation", None)
    return " ".join(words) + (f", {activation}" if activation else "")


def _padding_in_words(padding: Any) -> str:
    return padding if isinstance(padding, str) else " ".join("+".join(map(str, side)) for side in padding)
