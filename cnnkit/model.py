"""The model: frozen data that says what a network is, in Python or in a file, and nothing about how to run it."""

from __future__ import annotations

import difflib
import json
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, cast

import pydantic
import tomli_w
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError, PydanticKnownError

from cnnkit.errors import ModelError, Problem
from cnnkit.tables import html_text

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass

    from cnnkit.plan import Plan
    from cnnkit.summary import Summary

if not TYPE_CHECKING:
    ModelMetaclass = type(pydantic.BaseModel)  # its name is private to pydantic; what it is, is not

MODEL_FORMAT: Final = 1
"""The version of the model file. It changes only when an older cnnkit could not read the file rightly."""


# ------------------------------------------------------------------------------------------------ values of fields
# Each checker raises at most one error for a field, in our words; pydantic's own message for a union would be one
# error for each member. The annotations beside them feed the JSON Schema.


def _wrong(expected: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("cnnkit", "{expected}|{fix}", {"expected": expected, "fix": fix})


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_pair(value: Any, least: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(_is_whole(size, least) for size in value)


def _check_count(value: Any) -> Any:
    if not _is_whole(value, 1):
        raise _wrong("a whole number of at least 1", "Use 1 or more")
    return value


def _check_size(value: Any) -> Any:
    if not (_is_whole(value, 1) or _is_pair(value, 1)):
        raise _wrong("a whole number of at least 1, or a pair (height, width) of them", "Use for example 3 or (3, 3)")
    return value


def _check_padding(value: Any) -> Any:
    explicit = isinstance(value, (list, tuple)) and len(value) == 2 and all(_is_pair(side, 0) for side in value)
    if not (explicit or value in ("valid", "same")):
        raise _wrong(
            '"valid", "same" or ((top, bottom), (left, right)) in whole pixels',
            'Use for example "same" or ((1, 1), (1, 1))',
        )
    return value


def _check_real(value: Any) -> Any:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not abs(value) <= sys.float_info.max:  # false for NaN too, and an int may be larger than any float
        raise _wrong("a finite number", "Use for example 1.0")
    return value


def _check_rate(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise _wrong("a number from 0 up to, but not including, 1", "Use for example 0.5")
    return value


def _check_input_shape(value: Any) -> Any:
    if (
        not isinstance(value, (list, tuple))
        or len(value) not in (1, 3)
        or not all(_is_whole(size, 1) for size in value)
    ):
        raise _wrong(
            "(height, width, channels), or (features,) for a dense model, each at least 1",
            "Use for example (28, 28, 1)",
        )
    return value


def _check_layers(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):  # pydantic would take a set too, and lose the order
        raise _wrong("a list of layers", "Use for example [Flatten(), Dense(units=10), Softmax()]")
    return value


def _check_version(value: Any) -> Any:
    if isinstance(value, bool):  # True equals 1
        raise PydanticKnownError("literal_error", {"expected": str(MODEL_FORMAT)})
    return value


def _check_class_names(value: Any) -> Any:
    if value is None:
        return value
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(name, str) and name for name in value):
        raise _wrong("a list of names, one for each class", "Use for example ['cat', 'dog']")
    if len(set(value)) != len(value):
        twice = next(name for name, count in Counter(value).items() if count > 1)
        raise _wrong("names that differ from one another", f"Rename one of the classes called {twice!r}")
    return value


def _one_of(*choices: str | None) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value not in choices:
            named = [choice for choice in choices if choice is not None]
            near = difflib.get_close_matches(str(value), named, n=1)
            listed = ", ".join(f'"{choice}"' for choice in named)
            expected = f"one of {listed}" + (" or None" if None in choices else "")
            fix = f'Use "{near[0]}"' if near else "Use one of them"
            if value == "softmax":
                fix = "Softmax is a layer of its own: add it as the last one"
            elif None in choices and value in ("none", "linear"):
                fix = "Leave it out"
            raise _wrong(expected, fix)
        return value

    return BeforeValidator(check)


_PAIR_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2}
_SIDES_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2}
_PADDING_SCHEMA = {
    "anyOf": [{"enum": ["valid", "same"]}, {"type": "array", "items": _SIDES_SCHEMA, "minItems": 2, "maxItems": 2}]
}
_NAME_SCHEMA = {"type": "string", "minLength": 1}
_CLASS_NAMES_SCHEMA = {
    "anyOf": [{"type": "array", "items": _NAME_SCHEMA, "minItems": 1, "uniqueItems": True}, {"type": "null"}]
}

Pair: TypeAlias = tuple[int, int]
Count = Annotated[int, BeforeValidator(_check_count), WithJsonSchema({"type": "integer", "minimum": 1})]
Size = Annotated[
    int | Pair,
    BeforeValidator(_check_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, _PAIR_SCHEMA]}),
]
Padding = Annotated[
    Literal["valid", "same"] | tuple[Pair, Pair], BeforeValidator(_check_padding), WithJsonSchema(_PADDING_SCHEMA)
]
Real = Annotated[float, BeforeValidator(_check_real), WithJsonSchema({"type": "number"})]
Rate = Annotated[
    float, BeforeValidator(_check_rate), WithJsonSchema({"type": "number", "minimum": 0, "exclusiveMaximum": 1})
]
Activation = Annotated[Literal["relu", "tanh", "sigmoid"] | None, _one_of(None, "relu", "tanh", "sigmoid")]
Initializer = Annotated[
    Literal["glorot_uniform", "glorot_normal", "he_uniform", "he_normal"],
    _one_of("glorot_uniform", "glorot_normal", "he_uniform", "he_normal"),
]
Switch = Annotated[bool, Field(strict=True)]


# ------------------------------------------------------------------------------------------------------- the data


class _Fields(ModelMetaclass):
    """Turns pydantic's `ValidationError` into our `ModelError` where, and only where, a person calls the class.

    Pydantic builds nested objects without calling their class, so that a file with three bad layers still ends in one
    error that lists all three.
    """

    def __call__(cls, *positional: Any, **fields: Any) -> Any:  # noqa: N805 - the instance of a metaclass is a class
        if positional:
            names = ", ".join(f"{name}=..." for name in own_fields(cast("type[_Data]", cls)))
            raise TypeError(f"{cls.__name__} takes its fields by name: {cls.__name__}({names})")
        try:
            return super().__call__(**fields)
        except pydantic.ValidationError as error:
            raise _model_error(error, cls.__name__) from None


class _Data(pydantic.BaseModel, metaclass=_Fields):
    # defer_build: schemas are built at the first use, so that `import cnnkit` stays quick
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def own_fields(layer: type[_Data]) -> tuple[str, ...]:
    """The fields of a class that its user sets."""
    return tuple(name for name in layer.model_fields if name not in ("kind", "version"))


class Rescale(_Data):
    """`x * scale + offset`, pixel by pixel."""

    kind: Literal["rescale"] = "rescale"
    scale: Real
    offset: Real = 0.0


class Grayscale(_Data):
    """`(h, w, channels)` to `(h, w, 1)`: the mean of the channels, or luma 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)."""

    kind: Literal["grayscale"] = "grayscale"
    weights: Annotated[Literal["mean", "luma"], _one_of("mean", "luma")] = "mean"


class Conv2D(_Data):
    """Cross-correlation with `filters` kernels: `(h, w, channels)` to `(h', w', filters)`."""

    kind: Literal["conv2d"] = "conv2d"
    filters: Count
    kernel_size: Size
    strides: Size = 1
    padding: Padding = "valid"
    dilation: Size = 1
    activation: Activation = None
    use_bias: Switch = True
    kernel_initializer: Initializer = "glorot_uniform"


class MaxPool2D(_Data):
    """The maximum of each window. `strides` default to `pool_size`; padding counts as minus infinity."""

    kind: Literal["max_pool2d"] = "max_pool2d"
    pool_size: Size = 2
    strides: Size | None = None
    padding: Padding = "valid"


class AvgPool2D(_Data):
    """The mean of each window. `strides` default to `pool_size`; padding is not counted."""

    kind: Literal["avg_pool2d"] = "avg_pool2d"
    pool_size: Size = 2
    strides: Size | None = None
    padding: Padding = "valid"


class Flatten(_Data):
    """`(h, w, channels)` to `(h * w * channels,)`, row-major."""

    kind: Literal["flatten"] = "flatten"


class Dense(_Data):
    """Every input joined to each of `units` outputs: `(features,)` to `(units,)`."""

    kind: Literal["dense"] = "dense"
    units: Count
    activation: Activation = None
    use_bias: Switch = True
    kernel_initializer: Initializer = "glorot_uniform"


class ReLU(_Data):
    """`max(x, 0)`; its derivative at 0 is 0, and NaN stays NaN."""

    kind: Literal["relu"] = "relu"


class Tanh(_Data):
    """The hyperbolic tangent."""

    kind: Literal["tanh"] = "tanh"


class Sigmoid(_Data):
    """`1 / (1 + exp(-x))`."""

    kind: Literal["sigmoid"] = "sigmoid"


class Dropout(_Data):
    """In training each value is zeroed with probability `rate` and else divided by `1 - rate`; `predict` changes nothing."""

    kind: Literal["dropout"] = "dropout"
    rate: Rate


class Softmax(_Data):
    """Scores to probabilities that sum to 1. Ends a classifier, and stands nowhere else."""

    kind: Literal["softmax"] = "softmax"


Layer: TypeAlias = (
    Rescale | Grayscale | Conv2D | MaxPool2D | AvgPool2D | Flatten | Dense | ReLU | Tanh | Sigmoid | Dropout | Softmax
)

LAYER_KINDS: dict[str, type[_Data]] = {layer.model_fields["kind"].default: layer for layer in Layer.__args__}


class Model(_Data):
    """A network as data: what goes in, and the layers in order.

    `input_shape` is `(height, width, channels)`, or `(features,)` for a dense model. The model keeps what was written;
    `plan()` works out every shape, padding and parameter. Raises `ModelError`, whose `.problems` name each wrong field
    by its path, such as `layers[0].filters`.
    """

    version: Annotated[Literal[1], BeforeValidator(_check_version)] = MODEL_FORMAT
    name: str | None = None
    input_shape: Annotated[
        tuple[int, int, int] | tuple[int],
        BeforeValidator(_check_input_shape),
        WithJsonSchema(
            {
                "type": "array",
                "items": {"type": "integer", "minimum": 1},
                "description": "(height, width, channels), or (features,) for a dense model",
                "anyOf": [{"minItems": 3, "maxItems": 3}, {"minItems": 1, "maxItems": 1}],
            }
        ),
    ]
    layers: Annotated[tuple[Annotated[Layer, Field(discriminator="kind")], ...], BeforeValidator(_check_layers)]
    class_names: Annotated[
        tuple[str, ...] | None, BeforeValidator(_check_class_names), WithJsonSchema(_CLASS_NAMES_SCHEMA)
    ] = None

    def plan(self) -> Plan:
        """Work out shapes, explicit padding and parameters, or raise one `ModelError` with everything that does not fit."""
        from cnnkit.plan import make_plan  # plan.py reads models; this method is only the door to it

        return make_plan(self)

    def summary(self) -> Summary:
        """A table of shapes, parameters, multiply-adds, memory and receptive fields; prints as text, shows as HTML."""
        from cnnkit.summary import summarize  # see `plan`

        return summarize(self.plan())

    def _repr_html_(self) -> str:
        """The summary in a notebook; of a model that cannot be, what is wrong with it."""
        try:
            return self.summary()._repr_html_()
        except ModelError as error:
            return html_text(f"{self.name or 'model'}\n{error}")

    def prefix(self, n: int) -> Model:
        """The model made of layers 0 to `n`, `n` included: its output is the feature map of layer `n`.

        `cnnkit.predict(model.prefix(1), run.state.parameters, images)` gives the feature maps of layer 1.
        """
        last = len(self.layers) - 1
        if not _is_whole(n, 0) or n > last:
            problem = Problem("layers", f"has no layer {n!r}", f"Use a number from 0 to {last}")
            raise ModelError([problem], self.title)
        whole = n == last
        return self.model_copy(
            update={"layers": self.layers[: n + 1], "class_names": self.class_names if whole else None}
        )

    @property
    def title(self) -> str:
        """How messages call this model."""
        return f"model {self.name!r}" if self.name else "model"

    # ------------------------------------------------------------------------------------------------------ files

    def to_dict(self) -> dict[str, Any]:
        """The file as plain data. Every field is written out, so that a later default cannot change an old file."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_json(self) -> str:
        """The model file as JSON text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_toml(self) -> str:
        """The model file as TOML text."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: Any, subject: str = "model") -> Model:
        """The model that `data`, a parsed file, describes; or one `ModelError` with every problem in it."""
        if not isinstance(data, dict):
            problem = Problem(
                "",
                f"is a {type(data).__name__}; expected a table with version, input_shape and layers",
                "See `cnnkit models`",
            )
            raise ModelError([problem], subject)
        missing = []
        if "version" not in data:
            fix = f"Add version = {MODEL_FORMAT} at the top"
            missing = [Problem("version", "is missing; a model file says which format it has", fix)]
        try:
            model = cls.model_validate(data)
        except pydantic.ValidationError as error:
            raise ModelError([*missing, *_problems(error, "Model")], subject) from None
        if missing:
            raise ModelError(missing, subject)
        return model

    @classmethod
    def from_json(cls, text: str | bytes) -> Model:
        """Read a model file written as JSON."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _not_readable("JSON", error) from None
        return cls.from_dict(data)

    @classmethod
    def from_toml(cls, text: str) -> Model:
        """Read a model file written as TOML."""
        try:
            data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise _not_readable("TOML", error) from None
        return cls.from_dict(data)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema (draft 2020-12) of the model file."""
        schema = cls.model_json_schema()
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["required"] = ["version", *schema["required"]]
        for definition in schema["$defs"].values():
            definition["required"] = ["kind", *definition.get("required", [])]
        return schema


# ------------------------------------------------------------------------------------------------ errors in our words


def _not_readable(language: str, error: Exception) -> ModelError:
    return ModelError([Problem("", f"is not {language}: {error}", f"Correct the {language} at that place")])


def _model_error(error: pydantic.ValidationError, class_name: str) -> ModelError:
    return ModelError(_problems(error, class_name), "model" if class_name == "Model" else class_name)


def _problems(error: pydantic.ValidationError, class_name: str) -> list[Problem]:
    return [_problem(details, class_name) for details in error.errors(include_url=False)]


def _problem(details: Any, class_name: str) -> Problem:
    path, owner = _path_and_owner(details["loc"], class_name)
    value, context = details["input"], details.get("ctx", {})
    field = path.rpartition(".")[2]
    match details["type"]:
        case "cnnkit":
            return Problem(path, f"is {_short(value)}; expected {context['expected']}", context["fix"])
        case "missing":
            return Problem(path, f"is missing; {owner} needs it", f"Add {field}")
        case "extra_forbidden":
            known = _fields_of(owner)
            near = difflib.get_close_matches(field, known, n=1)
            fields = f"its fields are {', '.join(known)}" if known else "it has no fields"
            fix = f"Write {near[0]}" if near else f"Remove {field}"
            return Problem(path, f"is not a field of {owner}; {fields}", fix)
        case "union_tag_invalid":
            kind = str(context["tag"])
            kinds = {name: known for known, layer in LAYER_KINDS.items() for name in (known, layer.__name__)}
            near = [kinds[name] for name in difflib.get_close_matches(kind, kinds, n=1)]  # Conv1D is as near as conv1d
            fix = f'Write kind = "{near[0]}"' if near else "Use one of these kinds"
            if near and near[0].endswith("2d") and kind.lower().endswith(("1d", "3d")):
                fix = _fix_of_dimensions(kind, near[0])
            return Problem(f"{path}.kind", f"is {kind!r}, not a kind of layer; kinds are {', '.join(LAYER_KINDS)}", fix)
        case "union_tag_not_found" if isinstance(value, type):
            fix = f"Write {value.__name__}(), with its fields between the parentheses"
            return Problem(path, f"is the class {value.__name__}; expected a layer", fix)
        case "model_attributes_type":
            return Problem(path, f"is {_short(value)}; expected a layer", "Use for example Flatten()")
        case "union_tag_not_found":
            return Problem(
                f"{path}.kind", f"is missing; kinds are {', '.join(LAYER_KINDS)}", 'Add for example kind = "dense"'
            )
        case "literal_error" if field == "version":
            fix = f"Write version = {MODEL_FORMAT}, or upgrade cnnkit if a newer one wrote the file"
            return Problem(path, f"is {_short(value)}; this cnnkit reads version {MODEL_FORMAT}", fix)
        case _:
            return Problem(
                path, f"is {_short(value)}; {details['msg'][:1].lower()}{details['msg'][1:]}", f"Correct {field}"
            )


def _fix_of_dimensions(kind: str, flat: str) -> str:
    """What to write in place of a layer over sequences (`conv1d`) or videos (`conv3d`): the layer over images, `flat`."""
    size = "kernel_size" if flat == "conv2d" else "pool_size"
    if kind.lower().endswith("1d"):
        return f'Write kind = "{flat}" with {size} (1, n), on input_shape (1, length, channels): a sequence is one row'
    return f'Write kind = "{flat}", and give the frames of a video as images: predict each, and take the mean'


def _fields_of(owner: str) -> tuple[str, ...]:
    """The fields of `owner`, called by its kind as in a file, or by its class as in Python."""
    classes: dict[str, type[_Data]] = {"Model": Model, **{layer.__name__: layer for layer in LAYER_KINDS.values()}}
    return own_fields(classes[owner] if owner in classes else LAYER_KINDS[owner])


def _path_and_owner(location: Sequence[int | str], class_name: str) -> tuple[str, str]:
    """`("layers", 0, "conv2d", "filters")` is the path `layers[0].filters`, and a field of a `conv2d` layer."""
    path, owner = "", class_name
    after_index = False
    for part in location:
        if isinstance(part, int):
            path, after_index = f"{path}[{part}]", True
        elif after_index and part in LAYER_KINDS:
            owner, after_index = part, False
        else:
            path, after_index = f"{path}.{part}" if path else part, False
    return path, owner


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
