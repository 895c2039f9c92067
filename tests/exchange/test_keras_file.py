"""The format `keras` without Keras: what comes back is what was written, and what Keras cannot say is not written."""

import io
import json
import sys
import zipfile

import h5py
import numpy as np
import pytest
from models import MODELS, classifier, parameters_of, random_model

from cnnkit import AvgPool2D, Conv2D, Flatten, Grayscale, MaxPool2D, Model, ModelError, OptionError
from cnnkit.exchange import export_model, import_model


def same_bits(one, other):
    return list(one) == list(other) and all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_and_its_parameters_come_back_exactly(name, tmp_path):
    model, parameters = MODELS[name], parameters_of(MODELS[name])
    found, numbers = import_model(export_model(model, parameters, tmp_path / "model.keras"))
    assert found == model
    assert same_bits(numbers, parameters)


@pytest.mark.parametrize("seed", range(40))
def test_random_models_come_back_as_the_same_computation_from_the_layers_alone(seed, tmp_path):
    model, parameters = random_model(seed), parameters_of(random_model(seed), seed)
    path = export_model(model, parameters, tmp_path / "model.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != "metadata.json"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    found, numbers = import_model(path)
    assert found.plan().operations == model.plan().operations
    assert found.input_shape == model.input_shape
    assert same_bits(numbers, parameters)


def test_the_same_model_makes_the_same_bytes(tmp_path):
    model = MODELS["names"]
    one, other = (export_model(model, parameters_of(model), tmp_path / f"{n}.keras").read_bytes() for n in "ab")
    assert one == other
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_name_that_keras_would_not_open_is_refused_before_anything_is_written(tmp_path):
    model = classifier()
    with pytest.raises(OptionError, match=r"only files whose names end in \.keras.* Name it mine\.keras\."):
        export_model(model, parameters_of(model), tmp_path / "mine", "keras")
    assert list(tmp_path.iterdir()) == []


def test_neither_keras_nor_tensorflow_is_imported(tmp_path):
    before = set(sys.modules)
    model = MODELS["conv"]
    import_model(export_model(model, parameters_of(model), tmp_path / "model.keras"))
    assert {name.partition(".")[0] for name in set(sys.modules) - before} & {"keras", "tensorflow"} == set()


def test_a_layer_and_its_arrays_stand_where_keras_looks(tmp_path):
    layers = [Conv2D(filters=2, kernel_size=(3, 2), padding=((1, 2), (0, 1))), Conv2D(filters=1, kernel_size=1)]
    model = classifier(*layers)
    parameters = parameters_of(model)
    with zipfile.ZipFile(export_model(model, parameters, tmp_path / "model.keras")) as archive:
        assert set(archive.namelist()) == {"metadata.json", "config.json", "model.weights.h5"}
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    kinds = ["InputLayer", "ZeroPadding2D", "Conv2D", "Conv2D", "Flatten", "Dense", "Softmax"]
    assert [layer["class_name"] for layer in layers] == kinds
    assert layers[1]["config"]["padding"] == [[1, 2], [0, 1]]
    assert layers[2]["config"]["padding"] == "valid"
    for place, name in {
        "layers/conv2d/vars/0": "0.kernel",
        "layers/conv2d/vars/1": "0.bias",
        "layers/conv2d_1/vars/0": "1.kernel",
        "layers/dense/vars/1": "3.bias",
    }.items():
        np.testing.assert_array_equal(weights[place][()], parameters[name])


@pytest.mark.parametrize(
    ("padding", "kind", "said"),
    [
        (((0, 0), (0, 0)), Conv2D, "valid"),
        (((1, 1), (1, 1)), Conv2D, "same"),
        (((0, 2), (1, 1)), Conv2D, None),
        (((1, 1), (1, 1)), MaxPool2D, "same"),
        (((0, 0), (0, 0)), AvgPool2D, "valid"),
    ],
)
def test_numbers_of_padding_that_have_a_name_are_written_by_it(padding, kind, said, tmp_path):
    what = {"filters": 1, "kernel_size": 3} if kind is Conv2D else {"pool_size": 3, "strides": 1}
    model = classifier(kind(padding=padding, **what))
    with zipfile.ZipFile(export_model(model, parameters_of(model), tmp_path / "model.keras")) as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    assert layers[1]["config"]["padding"] == (said or [list(side) for side in padding])
    assert layers[1]["class_name"] == {Conv2D: "Conv2D", MaxPool2D: "MaxPooling2D", AvgPool2D: "AveragePooling2D"}[
        kind
    ] or (said is None and layers[1]["class_name"] == "ZeroPadding2D")


@pytest.mark.parametrize(("padding", "said"), [("same", "same"), (((1, 2), (1, 2)), "same"), (((0, 1), (0, 1)), None)])
def test_the_name_of_a_dilated_padding_counts_the_holes(padding, said, tmp_path):
    model = classifier(Conv2D(filters=1, kernel_size=2, dilation=3, padding=padding))
    with zipfile.ZipFile(export_model(model, parameters_of(model), tmp_path / "model.keras")) as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    assert layers[1]["config"]["padding"] == (said or [list(side) for side in padding])


def test_everything_that_keras_cannot_say_is_refused_at_once_with_its_place_and_reason(tmp_path):
    model = classifier(
        Conv2D(filters=1, kernel_size=2, strides=(1, 2), dilation=(2, 1)),
        MaxPool2D(pool_size=3, strides=1, padding=((2, 0), (1, 1))),
        AvgPool2D(pool_size=2, strides=1, padding=((1, 0), (1, 0))),
        name="odd",
    )
    with pytest.raises(ModelError) as refused:
        export_model(model, parameters_of(model), tmp_path / "model.keras")
    assert [problem.path for problem in refused.value.problems] == [
        "layers[0].dilation",
        "layers[1].padding",
        "layers[2].padding",
    ]
    for said in ("model 'odd'", "strides of (1, 2)", "MaxPooling2D of Keras knows only", "would count as pixels"):
        assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ grayscale, or not


def changed(path, change):
    """The file at `path` after `change(layers)` of its configuration, without our own notes."""
    with zipfile.ZipFile(path) as archive:
        config, weights = json.loads(archive.read("config.json")), archive.read("model.weights.h5")
    change(config["config"]["layers"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return path


@pytest.mark.parametrize("weights", ["mean", "luma"])
def test_a_frozen_kernel_of_those_weights_is_a_grayscale_and_one_that_learns_is_not(weights, tmp_path):
    model = classifier(Grayscale(weights=weights))
    path = export_model(model, parameters_of(model), tmp_path / "model.keras")
    assert import_model(changed(path, lambda _: None))[0].layers[0] == Grayscale(weights=weights)
    learns = import_model(changed(path, lambda layers: layers[1]["config"].update(trainable=True)))
    assert isinstance(learns[0].layers[0], Conv2D)
    assert learns[1]["0.kernel"].shape == (1, 1, 3, 1)


@pytest.mark.parametrize(
    "layer",
    [
        Conv2D(filters=1, kernel_size=1, use_bias=False, strides=2),
        Conv2D(filters=1, kernel_size=1, use_bias=False, activation="relu"),
        Conv2D(filters=1, kernel_size=1),
        Conv2D(filters=2, kernel_size=1, use_bias=False),
        Conv2D(filters=1, kernel_size=1, use_bias=False, padding=((1, 0), (0, 0))),
    ],
    ids=["strides", "activation", "bias", "filters", "padding"],
)
def test_a_frozen_convolution_that_does_more_than_weigh_stays_one(layer, tmp_path):
    model = classifier(layer)
    parameters = parameters_of(model)
    parameters["0.kernel"][:] = np.float32(1 / 3)
    path = export_model(model, parameters, tmp_path / "model.keras")

    def freeze(layers):
        for one in layers:
            one["config"]["trainable"] = False

    found, numbers = import_model(changed(path, freeze))
    assert found.plan().operations == model.plan().operations
    assert same_bits(numbers, parameters)


def test_a_frozen_convolution_of_other_weights_stays_one(tmp_path):
    model = MODELS["conv that looks like a grayscale"]
    path = export_model(model, parameters_of(model), tmp_path / "model.keras")
    found, _ = import_model(changed(path, lambda layers: layers[1]["config"].update(trainable=False)))
    assert isinstance(found.layers[0], Conv2D)


# ---------------------------------------------------------------------------------------------------- our own notes


def with_notes(path, notes):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["metadata.json"] = json.dumps(notes).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"model": MODELS["conv strides"].to_dict()}, r"metadata\.json: cnnkit\.model describes another computation"),
        ({"model": {**MODELS["conv"].to_dict(), "version": 2}}, r"metadata\.json: version is 2; this cnnkit reads"),
        (
            {"model": classifier(Conv2D(filters=1, kernel_size=99)).to_dict()},
            r"metadata\.json(?s:.*)layers\[0\]\.kernel_size",
        ),
        ({"model": {**MODELS["conv"].to_dict(), "input_shape": [9, 9, 3]}}, r"describes another computation"),
        ({}, r"metadata\.json: is a NoneType"),
        ([], r"metadata\.json: is a NoneType"),
    ],
)
def test_notes_that_do_not_fit_the_layers_are_an_error(notes, message, tmp_path):
    path = export_model(MODELS["conv"], parameters_of(MODELS["conv"]), tmp_path / "model.keras")
    with pytest.raises(ModelError, match=message):
        import_model(with_notes(path, {"cnnkit": notes}))


@pytest.mark.parametrize("notes", [{"keras_version": "3.9.0", "date_saved": "today"}, [], None])
def test_notes_of_others_are_left_aside(notes, tmp_path):
    path = export_model(MODELS["conv"], parameters_of(MODELS["conv"]), tmp_path / "model.keras")
    assert import_model(with_notes(path, notes))[0].plan().operations == MODELS["conv"].plan().operations


def test_a_model_without_a_name_gets_one_that_keras_takes_and_keeps_none(tmp_path):
    for name, written in ((None, "cnnkit"), ("a/b: c", "a_b__c")):
        model = Model(input_shape=(2, 2, 1), layers=[Flatten()], name=name)
        path = export_model(model, {}, tmp_path / "model.keras", overwrite=True)
        with zipfile.ZipFile(path) as archive:
            assert json.loads(archive.read("config.json"))["config"]["name"] == written
        assert import_model(path)[0].name == name
