"""From the configuration of a Keras Sequential to a model. It is read as data: no name in it is looked up or imported.

A class that is not in the table below is an error, and so is an option that could change what a layer computes and that
nothing here knows. What only training would use (initialisers of biases, regularisers, constraints, `trainable`, seeds)
is left aside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cnnkit.errors import ModelError, Problem
from cnnkit.exchange.to_keras import INITIALIZERS
from cnnkit.exchange.weights import group_names
from cnnkit.model import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    Model,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)

_UNUSED: Final = frozenset(
    f"{array}_{what}" for array in ("kernel", "bias") for what in ("initializer", "regularizer", "constraint")
) | {"name", "trainable", "dtype", "seed", "activity_regularizer", "batch_shape", "batch_input_shape"}
"""Options that change nothing in a prediction, or that are looked at elsewhere."""

_ACTIVATIONS: Final[dict[str, type[ReLU | Tanh | Sigmoid | Softmax]]] = {
    "relu": ReLU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "softmax": Softmax,
}
_INITIALIZERS: Final = {name: ours for ours, name in INITIALIZERS.items()} | {ours: ours for ours in INITIALIZERS}
_ABSENT: Final = object()


@dataclass(frozen=True)
class Reading:
    """What a configuration says.

    Args:
        model: With every convolution as a Conv2D, whatever it may be for.
        groups: By layer of the model that has arrays, the name of the HDF5 group that holds them.
        frozen: Layers of the model that Keras does not train.
    """

    model: Model
    groups: dict[int, str]
    frozen: frozenset[int]


def from_keras(data: Any, subject: str) -> Reading:
    """Read `config.json`, parsed. Raises a `ModelError` about `subject` with everything that cnnkit has no word for."""
    return _Reader(subject).read(data)


@dataclass
class _Reader:
    subject: str
    layers: list[Layer] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """For each layer of ours the Keras layer that it comes from."""
    groups: dict[int, str] = field(default_factory=dict)
    frozen: set[int] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    input_shape: Any = None
    padding: tuple[Any, str] | None = None
    """The padding of a ZeroPadding2D that waits for its convolution, and its place."""

    def read(self, data: Any) -> Reading:
        config = self.config_of_sequential(data)
        entries = config["layers"]
        self.names_differ(entries)
        if not entries or self.class_of(entries[0]) != "InputLayer":
            self.input_shape = self.shape("build_input_shape", config.get("build_input_shape"))
        names = group_names(self.class_of(entry) for entry in entries if self.class_of(entry) != "InputLayer")
        for index, entry in enumerate(entries):
            self.layer(index, entry, next(names) if self.class_of(entry) != "InputLayer" else "")
        self.padding_is_used("the end of the model")
        if self.problems:
            raise ModelError(self.problems, self.subject)
        name = config.get("name")
        try:
            model = Model(
                name=(_name(name) if isinstance(name, str) else "") or None,
                input_shape=self.input_shape,
                layers=self.layers,
            )
            model.plan()
        except ModelError as error:
            raise ModelError([self.placed(problem) for problem in error.problems], self.subject) from None
        return Reading(model, self.groups, frozenset(self.frozen))

    # ------------------------------------------------------------------------------------------------- the whole model

    def config_of_sequential(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict) or data.get("class_name") != "Sequential" or data.get("module") != "keras":
            kind = _short(data.get("class_name")) if isinstance(data, dict) else "no table"
            fix = "Save a keras.Sequential of layers that cnnkit has"
            self.give_up("config.json", f"says {kind}, and cnnkit reads a Sequential of Keras alone", fix)
        config = data.get("config")
        if data.get("registered_name") not in (None, "Sequential"):
            what = f"says that the model is {_short(data['registered_name'])}, a class of somebody's own"
            self.give_up("config.json", what, "Build the same layers with keras.Sequential, and save that")
        if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
            self.give_up("config.json", "has no list of layers", "Save the model again with Keras 3")
        return config  # type: ignore[no-any-return] # looked at right above

    def give_up(self, path: str, message: str, fix: str) -> None:
        raise ModelError([Problem(path, message, fix)], self.subject)

    def names_differ(self, entries: list[Any]) -> None:
        seen: set[str] = set()
        for index, entry in enumerate(entries):
            config = entry.get("config") if isinstance(entry, dict) else None
            name = config.get("name") if isinstance(config, dict) else None
            if isinstance(name, str):
                if name in seen:
                    self.complain(f"layers[{index}]", f"is a second layer called {_short(name)}", "Rename one of them")
                seen.add(name)

    def placed(self, problem: Problem) -> Problem:
        """A problem of our model, at the place in Keras's."""
        found = re.match(r"layers\[(\d+)\](.*)", problem.path)
        if not found:
            return problem
        return replace(problem, path=self.places[int(found[1])] + found[2])

    def complain(self, path: str, message: str, fix: str) -> None:
        self.problems.append(Problem(path, message, fix))

    def shape(self, place: str, shape: Any) -> Any:
        """An input shape without its batch axis; (28, 28) is an image of one channel."""
        if isinstance(shape, list) and 2 <= len(shape) <= 4 and all(_is_size(size) for size in shape[1:]):
            return (*shape[1:], 1) if len(shape) == 3 else tuple(shape[1:])
        self.complain(
            place,
            f"is {_short(shape)}; cnnkit needs every size of an image but the batch's",
            "Begin the model with keras.Input((height, width, channels)), with numbers",
        )
        return None

    # ----------------------------------------------------------------------------------------------------- each layer

    def class_of(self, entry: Any) -> str:
        return str(entry.get("class_name")) if isinstance(entry, dict) else ""

    def layer(self, index: int, entry: Any, group: str) -> None:
        if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
            self.complain(f"layers[{index}]", "is no layer with a class_name and a config", "Save the model again")
            return
        class_name, module, config = entry.get("class_name"), entry.get("module"), entry["config"]
        place = f"layers[{index}] ({_name(class_name)} {_short(config.get('name'))})"
        registered = entry.get("registered_name")
        if module != "keras.layers" or registered not in (None, class_name) or _LAYERS.get(str(class_name)) is None:
            known = ", ".join(_LAYERS)
            whose = f"of the class {_short(class_name)} of {_short(module)}"
            whose += "" if registered in (None, class_name) else f", registered as {_short(registered)}"
            self.complain(
                place,
                f"is {whose}, which cnnkit does not know and does not look up; it reads {known}",
                "Build the model of these layers, or move the layer out of the model",
            )
            return
        options = _Options(self, place, config)
        options.check_dtype(inputs=class_name == "InputLayer")
        if class_name not in ("InputLayer", "Conv2D", "ZeroPadding2D"):
            self.padding_is_used(place)
        try:
            made = list(_LAYERS[str(class_name)](options))
        except ModelError as error:  # one of our classes does not take a value, or the layers so far do not fit
            self.problems += [replace(self.placed(one), path=f"{place} {one.path}") for one in error.problems]
            made = []
        options.check_rest()
        for layer in made:
            if isinstance(layer, (Conv2D, Dense)):
                self.groups[len(self.layers)] = group
                if config.get("trainable") is False:
                    self.frozen.add(len(self.layers))
            self.layers.append(layer)
            self.places.append(place)

    def padding_is_used(self, by: str) -> None:
        """A ZeroPadding2D becomes the padding of the convolution behind it; before anything else it has no meaning here."""
        if self.padding is not None:
            self.complain(
                self.padding[1],
                f"stands before {by}; cnnkit reads a ZeroPadding2D only where a Conv2D with padding 'valid' is next",
                "Put it right before such a Conv2D, or use padding='same' there",
            )
            self.padding = None


@dataclass
class _Options:
    """The options of one Keras layer. What nobody has asked for is complained of at the end."""

    reader: _Reader
    place: str
    config: dict[str, Any]
    asked: set[str] = field(default_factory=set)

    def get(self, name: str, default: Any = _ABSENT) -> Any:
        self.asked.add(name)
        if name in self.config:
            return self.config[name]
        if default is _ABSENT:
            self.reader.complain(f"{self.place} {name}", "is missing", "Save the model again with Keras 3")
            return 1
        return default

    def must_be(self, name: str, *allowed: Any) -> Any:
        """The option, which is one of `allowed`, or else the first of them, which is Keras's default."""
        value = self.get(name, allowed[0])
        if any(type(value) is type(one) and value == one for one in allowed):
            return value
        self.reader.complain(
            f"{self.place} {name}",
            f"is {_short(value)}; cnnkit has only {' and '.join(map(repr, allowed))}",
            f"Build the layer with {name}={allowed[0]!r}",
        )
        return allowed[0]

    def check_dtype(self, *, inputs: bool) -> None:
        policy = self.config.get("dtype", "float32")
        if isinstance(policy, dict):
            inner = policy.get("config") if policy.get("class_name") in ("DTypePolicy", "Policy") else None
            policy = inner.get("name") if isinstance(inner, dict) else policy
        if policy != "float32" and not (inputs and policy == "uint8"):
            self.reader.complain(
                f"{self.place} dtype",
                f"is {_short(policy)}; cnnkit reads layers that compute in float32",
                "Build the model with keras.config.set_dtype_policy('float32') and copy the weights",
            )

    def check_rest(self) -> None:
        for name in self.config.keys() - self.asked - _UNUSED:
            value = self.config[name]
            if value is not None and value is not False:
                self.reader.complain(
                    f"{self.place} {_name(name)}",
                    f"is {_short(value)}; cnnkit does not know this option, and cannot tell what it does",
                    "Build the layer without it, or upgrade cnnkit",
                )

    def activation(self) -> str | None:
        """An activation that we have, or None. A function of somebody's own has no name here."""
        value = self.get("activation", "linear")
        if value in ("linear", None):
            return None
        if isinstance(value, str) and value in _ACTIVATIONS:
            return value
        named = value.get("config") if isinstance(value, dict) and isinstance(value.get("config"), str) else value
        self.reader.complain(
            f"{self.place} activation",
            f"is {_short(named)}; cnnkit has {', '.join(_ACTIVATIONS)} and linear, by their names",
            "Use one of these",
        )
        return None

    def initializer(self) -> dict[str, Any]:
        value = self.config.get("kernel_initializer")
        name = value.get("class_name") if isinstance(value, dict) else value
        ours = _INITIALIZERS.get(name) if isinstance(name, str) else None
        return {} if ours is None else {"kernel_initializer": ours}


# ------------------------------------------------------------------------------------------- what each class becomes

_Layers = Iterator[Layer]


def _input(options: _Options) -> _Layers:
    reader = options.reader
    options.must_be("sparse", False, None)
    options.must_be("ragged", False, None)
    options.get("optional", None)
    shape = options.config.get("batch_shape", options.config.get("batch_input_shape"))
    if reader.layers or reader.input_shape is not None:
        reader.complain(options.place, "stands within the model", "Leave one keras.Input, at the beginning")
    else:
        reader.input_shape = reader.shape(f"{options.place} batch_shape", shape)
    yield from ()


def _rescaling(options: _Options) -> _Layers:
    yield Rescale(scale=options.get("scale"), offset=options.get("offset", 0.0))


def _convolution(options: _Options) -> _Layers:
    reader = options.reader
    options.must_be("data_format", "channels_last")
    options.must_be("groups", 1)
    padding = options.must_be("padding", "valid", "same")
    if reader.padding is not None:
        if padding != "valid":
            fix = "Use padding='valid' behind a ZeroPadding2D"
            reader.complain(f"{options.place} padding", "adds to that of the ZeroPadding2D before it", fix)
        padding, reader.padding = reader.padding[0], None
    activation = options.activation()
    yield Conv2D(
        filters=options.get("filters"),
        kernel_size=options.get("kernel_size"),
        strides=options.get("strides", 1),
        padding=padding,
        dilation=options.get("dilation_rate", 1),
        activation=None if activation == "softmax" else activation,
        use_bias=options.get("use_bias", True),
        **options.initializer(),
    )
    if activation == "softmax":
        yield Softmax()


def _zero_padding(options: _Options) -> _Layers:
    options.must_be("data_format", "channels_last")
    options.reader.padding_is_used(options.place)
    padding = options.get("padding")
    Conv2D(filters=1, kernel_size=1, padding=padding)  # complains of what is no padding
    if isinstance(padding, str):
        options.reader.complain(f"{options.place} padding", f"is {_short(padding)}", "Use ((1, 1), (1, 1))")
    else:
        options.reader.padding = (padding, options.place)
    yield from ()


def _pooling(kind: type[MaxPool2D | AvgPool2D]) -> Callable[[_Options], _Layers]:
    def read(options: _Options) -> _Layers:
        options.must_be("data_format", "channels_last")
        padding = options.must_be("padding", "valid", "same")
        yield kind(pool_size=options.get("pool_size", 2), strides=options.get("strides", None), padding=padding)

    return read


def _global_pooling(kind: type[MaxPool2D | AvgPool2D]) -> Callable[[_Options], _Layers]:
    """One window as large as the image."""

    def read(options: _Options) -> _Layers:
        options.must_be("data_format", "channels_last")
        options.must_be("keepdims", False, None)
        reader = options.reader
        if not reader.problems:  # whose layers would not tell the size
            before = Model(input_shape=reader.input_shape, layers=[*reader.layers, ReLU()])  # at least one layer
            height, width = (*before.plan().output_shape, 1)[:2]
            yield kind(pool_size=(height, width))
            yield Flatten()

    return read


def _flatten(options: _Options) -> _Layers:
    options.must_be("data_format", "channels_last")
    yield Flatten()


def _dense(options: _Options) -> _Layers:
    activation = options.activation()
    yield Dense(
        units=options.get("units"),
        activation=None if activation == "softmax" else activation,
        use_bias=options.get("use_bias", True),
        **options.initializer(),
    )
    if activation == "softmax":
        yield Softmax()


def _activation(options: _Options) -> _Layers:
    activation = options.activation()
    if activation is not None:
        yield _ACTIVATIONS[activation]()


def _relu(options: _Options) -> _Layers:
    options.must_be("max_value", None)
    options.must_be("negative_slope", 0.0, 0)
    options.must_be("threshold", 0.0, 0)
    yield ReLU()


def _dropout(options: _Options) -> _Layers:
    options.must_be("noise_shape", None)
    yield Dropout(rate=options.get("rate"))


def _softmax(options: _Options) -> _Layers:
    options.must_be("axis", -1, 1)
    yield Softmax()


_LAYERS: Final[dict[str, Callable[[_Options], _Layers]]] = {
    "InputLayer": _input,
    "Rescaling": _rescaling,
    "ZeroPadding2D": _zero_padding,
    "Conv2D": _convolution,
    "MaxPooling2D": _pooling(MaxPool2D),
    "AveragePooling2D": _pooling(AvgPool2D),
    "GlobalMaxPooling2D": _global_pooling(MaxPool2D),
    "GlobalAveragePooling2D": _global_pooling(AvgPool2D),
    "Flatten": _flatten,
    "Dense": _dense,
    "Activation": _activation,
    "ReLU": _relu,
    "Dropout": _dropout,
    "Softmax": _softmax,
}


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _name(value: Any) -> str:
    """A name in a file, as far as a message should show it."""
    text = value if isinstance(value, str) else repr(value)
    return "".join(letter for letter in text if letter.isprintable())[:60]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
