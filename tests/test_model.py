import json
import math
import pickle
from pathlib import Path

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cnnkit.errors import ModelError
from cnnkit.model import (
    LAYER_KINDS,
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    MaxPool2D,
    Model,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)

SCHEMA_FILE = Path(__file__).parent.parent / "docs" / "reference" / "model.schema.json"

MODEL = Model(
    name="seed",
    input_shape=(28, 28, 1),
    layers=[
        Rescale(scale=0.5),
        Conv2D(filters=8, kernel_size=(3, 5), padding=((1, 1), (2, 2)), activation="relu"),
        MaxPool2D(pool_size=2),
        Flatten(),
        Dense(units=2),
        Softmax(),
    ],
    class_names=["cat", "dog"],
)


def file_with(*layers, **fields):
    """The data of a model file whose layers, or other fields, are these."""
    return {"version": 1, "input_shape": [8, 8, 3], "layers": list(layers)} | fields


def problems_of(data):
    with pytest.raises(ModelError) as caught:
        Model.from_dict(data)
    return caught.value.problems


def paths_of(data):
    return [problem.path for problem in problems_of(data)]


# ------------------------------------------------------------------------------------------------- models as strategies

counts = st.integers(1, 10**9)
sizes = counts | st.tuples(counts, counts)
pixels = st.integers(0, 99)
sides = st.tuples(pixels, pixels)
paddings = st.sampled_from(["valid", "same"]) | st.tuples(sides, sides)
reals = st.floats(allow_nan=False, allow_infinity=False)
activations = st.sampled_from([None, "relu", "tanh", "sigmoid"])
initializers = st.sampled_from(["glorot_uniform", "glorot_normal", "he_uniform", "he_normal"])
weighted = {"activation": activations, "use_bias": st.booleans(), "kernel_initializer": initializers}
pooled = {"pool_size": sizes, "strides": st.none() | sizes, "padding": paddings}

layers = st.one_of(
    st.builds(Rescale, scale=reals, offset=reals),
    st.builds(Grayscale, weights=st.sampled_from(["mean", "luma"])),
    st.builds(Conv2D, filters=counts, kernel_size=sizes, strides=sizes, padding=paddings, dilation=sizes, **weighted),
    st.builds(MaxPool2D, **pooled),
    st.builds(AvgPool2D, **pooled),
    st.builds(Dense, units=counts, **weighted),
    st.builds(Dropout, rate=st.floats(0, 1, exclude_max=True)),
    st.sampled_from([Flatten(), ReLU(), Tanh(), Sigmoid(), Softmax()]),
)
names = st.text(min_size=1, max_size=5)
models = st.builds(
    Model,
    name=st.none() | names,
    input_shape=st.tuples(counts) | st.tuples(counts, counts, counts),
    layers=st.lists(layers, max_size=4),
    class_names=st.none() | st.lists(names, min_size=1, max_size=3, unique=True),
)


# ------------------------------------------------------------------------------------------------------ files and back


@settings(deadline=None)
@given(models)
def test_every_model_comes_back_from_json_and_from_toml(model):
    assert Model.from_json(model.to_json()) == model
    assert Model.from_json(model.to_json().encode()) == model
    assert Model.from_toml(model.to_toml()) == model
    assert Model.from_dict(model.to_dict()).to_dict() == model.to_dict()


def test_the_file_looks_as_it_is_promised():
    model = Model(
        input_shape=(5,), layers=[Dense(units=2, activation="tanh"), Dropout(rate=0.5)], class_names=["a", "b"]
    )
    assert json.loads(model.to_json()) == {
        "version": 1,
        "input_shape": [5],
        "layers": [
            {
                "kind": "dense",
                "units": 2,
                "activation": "tanh",
                "use_bias": True,
                "kernel_initializer": "glorot_uniform",
            },
            {"kind": "dropout", "rate": 0.5},
        ],
        "class_names": ["a", "b"],
    }


def test_a_short_file_means_the_documented_defaults():
    model = Model.from_toml(
        """
        version = 1
        input_shape = [9, 9, 1]
        layers = [
            {kind = "rescale", scale = 2}, {kind = "grayscale"}, {kind = "conv2d", filters = 4, kernel_size = 3},
            {kind = "max_pool2d"}, {kind = "avg_pool2d", pool_size = [2, 3]}, {kind = "dense", units = 10},
        ]
        """
    )
    assert model.layers == (
        Rescale(scale=2.0, offset=0.0),
        Grayscale(weights="mean"),
        Conv2D(
            filters=4,
            kernel_size=3,
            strides=1,
            padding="valid",
            dilation=1,
            activation=None,
            use_bias=True,
            kernel_initializer="glorot_uniform",
        ),
        MaxPool2D(pool_size=2, strides=None, padding="valid"),
        AvgPool2D(pool_size=(2, 3), strides=None, padding="valid"),
        Dense(units=10, activation=None, use_bias=True, kernel_initializer="glorot_uniform"),
    )
    assert (model.name, model.class_names) == (None, None)


def test_the_model_keeps_what_was_written():
    assert MaxPool2D(pool_size=3).strides is None
    assert Conv2D(filters=1, kernel_size=3).kernel_size == 3
    assert Conv2D(filters=1, kernel_size=[3, 3]).kernel_size == (3, 3)
    assert Conv2D(filters=1, kernel_size=3, padding=[[1, 2], [3, 4]]).padding == ((1, 2), (3, 4))


def test_kinds_are_the_names_in_snake_case():
    assert {kind: layer.__name__ for kind, layer in LAYER_KINDS.items()} == {
        "rescale": "Rescale",
        "grayscale": "Grayscale",
        "conv2d": "Conv2D",
        "max_pool2d": "MaxPool2D",
        "avg_pool2d": "AvgPool2D",
        "flatten": "Flatten",
        "dense": "Dense",
        "relu": "ReLU",
        "tanh": "Tanh",
        "sigmoid": "Sigmoid",
        "dropout": "Dropout",
        "softmax": "Softmax",
    }


# --------------------------------------------------------------------------------------------------- the JSON Schema


def schema_errors(data):
    return list(Draft202012Validator(Model.json_schema()).iter_errors(data))


def test_the_schema_is_a_schema_and_the_published_file_is_it():
    Draft202012Validator.check_schema(Model.json_schema())
    assert SCHEMA_FILE.read_text() == json.dumps(Model.json_schema(), indent=2) + "\n"


@settings(deadline=None, max_examples=50)
@given(models)
def test_every_model_file_validates(model):
    validator = Draft202012Validator(Model.json_schema())
    assert list(validator.iter_errors(json.loads(model.to_json()))) == []


CONV = {"kind": "conv2d", "filters": 4, "kernel_size": 3}
POOL = {"kind": "max_pool2d"}
WRONG_LAYERS = [
    # the layer, the path below layers[0], part of the message, part of the fix
    (CONV | {"filters": 0}, ".filters", "is 0; expected a whole number of at least 1", "Use 1 or more"),
    (CONV | {"filters": 2.5}, ".filters", "is 2.5; expected a whole number", "Use 1"),
    (CONV | {"filters": True}, ".filters", "is True; expected a whole number", "Use 1"),
    (CONV | {"filters": "4"}, ".filters", "is '4'; expected a whole number", "Use 1"),
    (CONV | {"filters": None}, ".filters", "is None; expected a whole number", "Use 1"),
    (CONV | {"kernel_size": 0}, ".kernel_size", "is 0; expected a whole number of at least 1, or a pair", "(3, 3)"),
    (CONV | {"kernel_size": [3]}, ".kernel_size", "is [3]; expected", "Use for example 3"),
    (CONV | {"kernel_size": [3, 0]}, ".kernel_size", "is [3, 0]; expected", "Use for example 3"),
    (CONV | {"kernel_size": [3, 3, 3]}, ".kernel_size", "is [3, 3, 3]; expected", "Use for example 3"),
    (CONV | {"strides": [1, True]}, ".strides", "is [1, True]; expected", "Use for example 3"),
    (CONV | {"dilation": -1}, ".dilation", "is -1; expected", "Use for example 3"),
    (CONV | {"strides": None}, ".strides", "is None; expected", "Use for example 3"),
    (CONV | {"padding": "full"}, ".padding", 'is \'full\'; expected "valid", "same" or', "((1, 1), (1, 1))"),
    (CONV | {"padding": 1}, ".padding", "is 1; expected", "Use for example"),
    (CONV | {"padding": [1, 1]}, ".padding", "is [1, 1]; expected", "Use for example"),
    (CONV | {"padding": [[1, -1], [0, 0]]}, ".padding", "is [[1, -1], [0, 0]]; expected", "Use for example"),
    (CONV | {"padding": [[1, 1], [0]]}, ".padding", "is [[1, 1], [0]]; expected", "Use for example"),
    (CONV | {"activation": "relo"}, ".activation", 'is \'relo\'; expected one of "relu", "tanh"', 'Use "relu"'),
    (CONV | {"activation": 1}, ".activation", "is 1; expected one of", "Use"),
    (CONV | {"use_bias": 1}, ".use_bias", "is 1; ", "Correct use_bias"),
    (CONV | {"use_bias": "yes"}, ".use_bias", "is 'yes'; ", "Correct use_bias"),
    (CONV | {"kernel_initializer": "he"}, ".kernel_initializer", "is 'he'; expected one of", "Use"),
    (CONV | {"kernel_initializer": None}, ".kernel_initializer", "is None; expected one of", "Use"),
    (
        CONV | {"pading": "same"},
        ".pading",
        "is not a field of conv2d; its fields are filters, kernel_size,",
        "Write padding",
    ),
    (CONV | {"zzz": 1}, ".zzz", "is not a field of conv2d", "Remove zzz"),
    ({"kind": "conv2d", "filters": 4}, ".kernel_size", "is missing; conv2d needs it", "Add kernel_size"),
    (POOL | {"pool_size": 0}, ".pool_size", "is 0; expected", "Use for example"),
    (POOL | {"strides": 0}, ".strides", "is 0; expected a whole number of at least 1, or a pair", "Use for example"),
    (POOL | {"dilation": 1}, ".dilation", "is not a field of max_pool2d; its fields are pool_size,", "Remove dilation"),
    ({"kind": "avg_pool2d", "padding": None}, ".padding", "is None; expected", "Use for example"),
    ({"kind": "dense", "units": -3}, ".units", "is -3; expected a whole number", "Use 1 or more"),
    ({"kind": "dense"}, ".units", "is missing; dense needs it", "Add units"),
    ({"kind": "flatten", "order": "F"}, ".order", "is not a field of flatten; it has no fields", "Remove order"),
    ({"kind": "rescale"}, ".scale", "is missing; rescale needs it", "Add scale"),
    ({"kind": "rescale", "scale": "1/255"}, ".scale", "is '1/255'; expected a finite number", "Use for example 1.0"),
    ({"kind": "rescale", "scale": True}, ".scale", "is True; expected a finite number", "Use for example 1.0"),
    ({"kind": "grayscale", "weights": "lum"}, ".weights", 'is \'lum\'; expected one of "mean", "luma"', 'Use "luma"'),
    ({"kind": "dropout", "rate": 1}, ".rate", "is 1; expected a number from 0 up to, but not including, 1", "0.5"),
    ({"kind": "dropout", "rate": -0.1}, ".rate", "is -0.1; expected", "0.5"),
    ({"kind": "dropout", "rate": "0.5"}, ".rate", "is '0.5'; expected", "0.5"),
    ({"kind": "dropout", "rate": False}, ".rate", "is False; expected", "0.5"),
    ({"kind": "conv2"}, ".kind", "is 'conv2', not a kind of layer; kinds are rescale,", 'Write kind = "conv2d"'),
    (
        {"kind": "conv1d"},
        ".kind",
        "is 'conv1d'",
        'Write kind = "conv2d" with kernel_size (1, n), on input_shape (1, len',
    ),
    ({"kind": "max_pool1d"}, ".kind", "is 'max_pool1d'", 'Write kind = "max_pool2d" with pool_size (1, n), on'),
    ({"kind": "avg_pool1d"}, ".kind", "is 'avg_pool1d'", 'Write kind = "avg_pool2d" with pool_size (1, n), on'),
    ({"kind": "conv3d"}, ".kind", "is 'conv3d'", 'Write kind = "conv2d", and give the frames of a video as images'),
    ({"kind": "Conv2D"}, ".kind", "is 'Conv2D', not a kind of layer", 'Write kind = "conv2d"'),
    ({"kind": "Conv1D"}, ".kind", "is 'Conv1D'", 'Write kind = "conv2d" with kernel_size (1, n), on input_shape'),
    ({"kind": "MaxPool1D"}, ".kind", "is 'MaxPool1D'", 'Write kind = "max_pool2d" with pool_size (1, n), on'),
    ({"kind": "Conv3D"}, ".kind", "is 'Conv3D'", 'Write kind = "conv2d", and give the frames of a video as images'),
    ({"kind": "lstm"}, ".kind", "is 'lstm', not a kind of layer", "Use one of these kinds"),
    ({"kind": 7}, ".kind", "is '7', not a kind of layer", "Use one of these kinds"),
    ({"units": 3}, ".kind", "is missing; kinds are rescale,", 'Add for example kind = "dense"'),
    ("flatten", "", "is 'flatten'; ", "Use for example Flatten()"),
    (None, "", "is None; ", "Use for example Flatten()"),
]
WRONG_FIELDS = [
    ({"version": 2}, "version", "is 2; this cnnkit reads version 1", "Write version = 1, or upgrade cnnkit"),
    ({"version": "1"}, "version", "is '1'; this cnnkit reads version 1", "Write version = 1"),
    ({"version": True}, "version", "is True; this cnnkit reads version 1", "Write version = 1"),
    ({"version": None}, "version", "is None; this cnnkit reads version 1", "Write version = 1"),
    ({"input_shape": [28, 28]}, "input_shape", "is [28, 28]; expected (height, width, channels), or (features,)", "28"),
    ({"input_shape": [28, 0, 1]}, "input_shape", "is [28, 0, 1]; expected", "28"),
    ({"input_shape": [28, 28, 1, 1]}, "input_shape", "is [28, 28, 1, 1]; expected", "28"),
    ({"input_shape": [28.5, 28, 1]}, "input_shape", "is [28.5, 28, 1]; expected", "28"),
    ({"input_shape": 28}, "input_shape", "is 28; expected", "28"),
    ({"input_shape": "28"}, "input_shape", "is '28'; expected", "28"),
    ({"layers": "flatten"}, "layers", "is 'flatten'; expected a list of layers", "[Flatten()"),
    ({"layers": {"kind": "flatten"}}, "layers", "is {'kind': 'flatten'}; expected a list of layers", "[Flatten()"),
    ({"layers": None}, "layers", "is None; expected a list of layers", "[Flatten()"),
    ({"name": 3}, "name", "is 3; ", "Correct name"),
    ({"class_names": []}, "class_names", "is []; expected a list of names, one for each class", "['cat', 'dog']"),
    ({"class_names": "ab"}, "class_names", "is 'ab'; expected a list of names", "['cat', 'dog']"),
    ({"class_names": ["a", 1]}, "class_names", "is ['a', 1]; expected a list of names", "['cat', 'dog']"),
    ({"class_names": ["a", ""]}, "class_names", "is ['a', '']; expected a list of names", "['cat', 'dog']"),
    (
        {"class_names": ["a", "b", "a"]},
        "class_names",
        "expected names that differ",
        "Rename one of the classes called 'a'",
    ),
    (
        {"nmae": "x"},
        "nmae",
        "is not a field of Model; its fields are name, input_shape, layers, class_names",
        "Write name",
    ),
    ({"code": "x"}, "code", "is not a field of Model", "Remove code"),
]
WRONG = [
    *((file_with(layer), f"layers[0]{path}", message, fix) for layer, path, message, fix in WRONG_LAYERS),
    *((file_with() | fields, path, message, fix) for fields, path, message, fix in WRONG_FIELDS),
]
WRONG_IDS = [f"{path}-{number}" for number, (_, path, *_) in enumerate(WRONG)]


@pytest.mark.parametrize(("data", "path", "message", "fix"), WRONG, ids=WRONG_IDS)
def test_a_wrong_value_is_one_problem_with_its_path_value_and_fix(data, path, message, fix):
    (problem,) = problems_of(data)
    assert problem.path == path
    assert message in problem.message
    assert fix in problem.fix


@pytest.mark.parametrize("data", [data for data, *_ in WRONG], ids=WRONG_IDS)
def test_the_schema_refuses_what_cnnkit_refuses(data):
    assert schema_errors(data)


@pytest.mark.parametrize("data", [{"input_shape": [1], "layers": []}, {"version": 1, "layers": []}, [], None])
def test_the_schema_needs_what_a_file_needs(data):
    assert schema_errors(data)
    with pytest.raises(ModelError):
        Model.from_dict(data)


LAYERS_OF_A_KIND = [layer for layer, *_ in WRONG_LAYERS if isinstance(layer, dict) and layer.get("kind") in LAYER_KINDS]


@pytest.mark.parametrize("layer", LAYERS_OF_A_KIND)
def test_python_and_file_raise_the_same_problem(layer):
    (in_file,) = problems_of(file_with(Flatten().model_dump(), layer))
    fields = {name: value for name, value in layer.items() if name != "kind"}
    with pytest.raises(ModelError) as caught:
        LAYER_KINDS[layer["kind"]](**fields)
    (in_python,) = caught.value.problems
    assert in_file.path == f"layers[1].{in_python.path}"
    assert in_file.fix == in_python.fix
    kind, name = layer["kind"], LAYER_KINDS[layer["kind"]].__name__
    assert in_file.message == in_python.message.replace(name, kind)
    assert str(caught.value).startswith(f"{name}: {in_python.path} ")


@pytest.mark.parametrize("fields", [fields for fields, *_ in WRONG_FIELDS])
def test_python_and_file_raise_the_same_error_for_a_model(fields):
    with pytest.raises(ModelError) as caught:
        Model(**file_with() | fields)
    assert caught.value.problems == problems_of(file_with() | fields)


# ---------------------------------------------------------------------------------------------------- files with faults


def test_all_problems_of_a_file_come_at_once_in_order():
    data = {
        "input_shape": [28, 28],
        "layers": [
            {"kind": "conv2d", "filters": 0, "kernel_size": [3, 3, 3], "pading": "same"},
            {"kind": "max_pool2d", "strides": 0},
            {"kind": "flaten"},
            {"kind": "dense", "use_bias": 1},
        ],
        "class_names": ["a", "a"],
        "autor": "x",
    }
    assert paths_of(data) == [
        "version",
        "input_shape",
        "layers[0].filters",
        "layers[0].kernel_size",
        "layers[0].pading",
        "layers[1].strides",
        "layers[2].kind",
        "layers[3].units",
        "layers[3].use_bias",
        "class_names",
        "autor",
    ]
    with pytest.raises(ModelError, match=r"^model has 11 problems:\n  1\. version is missing; a model file says which"):
        Model.from_json(json.dumps(data))


def test_a_field_that_is_called_like_a_kind_has_the_right_path():
    assert paths_of(file_with({"kind": "dense", "units": 1, "dense": 2})) == ["layers[0].dense"]
    assert paths_of(file_with(conv2d=1)) == ["conv2d"]


def test_a_file_without_a_version_is_refused_though_nothing_else_is_wrong():
    (problem,) = problems_of({"input_shape": [4], "layers": []})
    assert str(problem) == "version is missing; a model file says which format it has. Add version = 1 at the top."


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400])
@pytest.mark.parametrize(("kind", "field"), [("rescale", "scale"), ("dropout", "rate")])
def test_numbers_that_are_not_finite_are_refused(number, kind, field):
    text = json.dumps(file_with({"kind": kind, field: 0.5})).replace("0.5", number)
    with pytest.raises(ModelError, match=rf"layers\[0\].{field} is .*; expected a (finite )?number"):
        Model.from_json(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, "nan", 10**400])
def test_numbers_that_are_not_finite_are_refused_in_python_too(value):
    with pytest.raises(ModelError, match=r"Rescale: offset is .*; expected a finite number"):
        Rescale(scale=1.0, offset=value)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (Model.from_json, '{"version": 1,', r"model: is not JSON: .*line 1 column 15.*Correct the JSON at that place"),
        (Model.from_json, b"{\xff}", r"model: is not JSON: 'utf-8' codec can't decode"),
        (Model.from_json, "", r"model: is not JSON: Expecting value"),
        (Model.from_json, "[" * 100_000, r"model: is not JSON: maximum recursion depth"),
        (Model.from_json, '{"version": ' + "1" * 5000 + "}", r"model: is not JSON: Exceeds the limit"),
        (Model.from_json, "[]", r"model: is a list; expected a table with version, input_shape and layers"),
        (Model.from_toml, "version = =", r"model: is not TOML: .*line 1.*Correct the TOML at that place"),
        (Model.from_toml, "a = " + "[" * 100_000, r"model: is not TOML: maximum recursion depth"),
    ],
)
def test_text_that_is_no_model_file_is_refused(read, text, message):
    with pytest.raises(ModelError, match=message):
        read(text)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(sorted(LAYER_KINDS)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "filters", "layers", "padding", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(plain, plain, plain)
def test_whatever_stands_in_a_file_it_is_a_model_or_a_model_error(shape, one, other):
    for data in (shape, {"version": 1, "input_shape": shape, "layers": [one, other]}, file_with(one, other)):
        try:
            model = Model.from_dict(data)
        except ModelError:
            continue  # as it should; anything else that is raised fails the test
        assert Model.from_json(model.to_json()) == model


def test_a_long_value_is_cut_in_the_message():
    (problem,) = problems_of(file_with(name=["x"] * 100))
    assert "..." in problem.message
    assert len(problem.message) < 120


# -------------------------------------------------------------------------------------------------------- in Python


def test_models_are_equal_hashable_and_picklable():
    again = Model.from_json(MODEL.to_json())
    assert again == MODEL
    assert hash(again) == hash(MODEL)
    assert pickle.loads(pickle.dumps(MODEL)) == MODEL  # noqa: S301 - our own bytes
    assert MODEL.prefix(2) != MODEL
    assert len({Flatten(), MODEL.layers[3], ReLU()}) == 2


def test_models_and_layers_do_not_change():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        MODEL.name = "other"
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        MODEL.layers[1].filters = 3
    with pytest.raises(AttributeError):
        MODEL.layers.append(Flatten())


def test_a_model_error_can_be_pickled():
    with pytest.raises(ModelError) as caught:
        Model(input_shape=(1, 2), layers=[])
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert again.problems == caught.value.problems
    assert str(again) == str(caught.value)


def test_fields_are_given_by_name():
    with pytest.raises(TypeError, match=r"^Dense takes its fields by name: Dense\(units=..., activation=...,"):
        Dense(10)


def test_a_title_says_how_a_model_is_called():
    assert MODEL.title == "model 'seed'"
    assert Model(input_shape=(1,), layers=[ReLU()]).title == "model"


# ----------------------------------------------------------------------------------------------------------- prefixes


def test_a_prefix_has_the_layers_up_to_and_with_n():
    assert [len(MODEL.prefix(n).layers) for n in range(6)] == [1, 2, 3, 4, 5, 6]
    prefix = MODEL.prefix(2)
    assert prefix.layers == MODEL.layers[:3]
    assert (prefix.name, prefix.input_shape, prefix.version) == ("seed", (28, 28, 1), 1)
    assert prefix.plan().output_shape == (14, 14, 8)


def test_only_the_whole_model_keeps_its_class_names():
    assert MODEL.prefix(5) == MODEL
    assert MODEL.prefix(4).class_names is None


@pytest.mark.parametrize("n", [-1, 6, 100])
def test_a_prefix_that_is_none_is_refused(n):
    with pytest.raises(ModelError, match=rf"^model 'seed': layers has no layer {n}. Use a number from 0 to 5.$"):
        MODEL.prefix(n)


@pytest.mark.parametrize(
    ("activation", "fix"),
    [
        ("softmax", "Softmax is a layer of its own: add it as the last one"),
        ("linear", "Leave it out"),
        ("rleu", 'Use "relu"'),
        ("swish", "Use one of them"),
    ],
)
def test_an_activation_that_there_is_not_gets_advice_that_helps(activation, fix):
    with pytest.raises(ModelError) as caught:
        Dense(units=3, activation=activation)
    assert caught.value.problems[0].fix == fix


def test_what_is_no_layer_is_called_so():
    with pytest.raises(ModelError) as caught:
        Model(input_shape=(2,), layers=[Flatten, "dense"])
    assert [str(problem) for problem in caught.value.problems] == [
        "layers[0] is the class Flatten; expected a layer. Write Flatten(), with its fields between the parentheses.",
        "layers[1] is 'dense'; expected a layer. Use for example Flatten().",
    ]
