"""What we write, loaded by Keras and TensorFlow where there is no cnnkit; what Keras writes, read here.

What is right is what the oracle of the conformance suite says, within its threshold.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cnnkit import (
    AvgPool2D,
    BackendError,
    CnnkitError,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    MaxPool2D,
    Model,
    OptionError,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)
from cnnkit.conformance.measure import compare
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.exchange import export_model, import_model

sys.path.append(str(Path(__file__).parents[2] / "exchange"))
from models import MODELS, classifier, parameters_of, random_model

CASES = MODELS | {f"random {seed}": random_model(seed) for seed in range(24)}

EVERYTHING = Model(
    name="everything",
    input_shape=(13, 11, 3),
    class_names=("a", "b", "c"),
    layers=[
        Rescale(scale=1 / 255, offset=-0.5),
        Conv2D(filters=4, kernel_size=(3, 2), padding=((1, 2), (0, 1)), activation="relu"),
        Conv2D(filters=3, kernel_size=2, padding="same", strides=2, dilation=2, use_bias=False),
        MaxPool2D(pool_size=(3, 2), strides=(2, 1), padding=((2, 0), (0, 1))),
        AvgPool2D(pool_size=2, strides=1, padding=((1, 0), (0, 1))),
        Grayscale(),
        Tanh(),
        Sigmoid(),
        ReLU(),
        Flatten(),
        Dropout(rate=0.3),
        Dense(units=7, activation="tanh"),
        Dense(units=3),
        Softmax(),
    ],
)

ALONE = """
import sys
for name in ("cnnkit", "cnnkit_tensorflow", "cnnkit_numpy"):
    sys.modules[name] = None  # importing it is an error
import numpy as np
"""


def elsewhere(code, folder):
    """Run Python in `folder` where cnnkit cannot be imported."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-c", ALONE + textwrap.dedent(code)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def images_for(model, seed=3, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shape = (5, *model.input_shape)
    return rng.integers(0, 256, shape, np.uint8) if dtype == np.uint8 else rng.normal(size=shape).astype(dtype)


def right(answer, model, parameters, images):
    """Whether `answer` is what the oracle says; returns its worst error in units of rounding."""
    expected = expected_answer(Question(model, parameters, images))
    return compare("prediction", answer, expected.numbers["output"], "float32")


_kept = {}


@pytest.fixture
def kept(tf, tmp_path_factory):  # noqa: ARG001 - without TensorFlow there is no test, and nothing to keep
    """A function that makes a folder once for all tests."""

    def make(function):
        if function not in _kept:
            folder = tmp_path_factory.mktemp(function.__name__)
            function(folder)
            _kept[function] = folder
        return _kept[function]

    return make


def test_cnnkit_cannot_be_imported_elsewhere(tmp_path):
    code = """
    try:
        import cnnkit
    except ImportError:
        print("no")
    """
    assert elsewhere(code, tmp_path) == "no\n"


# ---------------------------------------------------------------------------------------------------------- to Keras


def all_cases_through_keras(folder):
    """Keras's predictions for each case, in `answers.npz`."""
    numbers = {}
    for place, model in enumerate(CASES.values()):
        export_model(model, parameters_of(model, place), folder / f"{place}.keras")
        numbers[str(place)] = images_for(model)
    np.savez(folder / "images.npz", **numbers)
    code = """
    import keras
    images = np.load("images.npz")
    models = {name: keras.saving.load_model(f"{name}.keras") for name in images}
    np.savez("answers.npz", **{name: model(images[name]).numpy() for name, model in models.items()})
    """
    elsewhere(code, folder)


@pytest.mark.parametrize("name", CASES)
def test_keras_predicts_the_same(name, kept):
    place, model = list(CASES).index(name), CASES[name]
    with np.load(kept(all_cases_through_keras) / "answers.npz") as answers:
        answer = answers[str(place)]
    right(answer, model, parameters_of(model, place), images_for(model))


def test_keras_predicts_the_same_of_bytes_and_trains_on_but_not_the_grayscale(tmp_path):
    model = classifier(Rescale(scale=1 / 255), Grayscale(weights="luma"), Conv2D(filters=2, kernel_size=3))
    parameters, images = parameters_of(model), images_for(model, dtype=np.uint8)
    export_model(model, parameters, tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = """
    import keras
    model, images = keras.saving.load_model("model.keras"), np.load("images.npy")
    np.save("before.npy", model.predict(images, verbose=0))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, np.arange(5) % 3, verbose=0)
    model.save("trained.keras")
    np.save("after.npy", model.predict(images, verbose=0))
    """
    elsewhere(code, tmp_path)
    right(np.load(tmp_path / "before.npy"), model, parameters, images)
    trained, numbers = import_model(tmp_path / "trained.keras")
    assert trained.layers[1] == Grayscale(weights="luma")
    assert list(numbers) == list(parameters)
    assert not np.allclose(numbers["2.kernel"], parameters["2.kernel"])
    right(np.load(tmp_path / "after.npy"), trained, numbers, images)


# -------------------------------------------------------------------------------------------------------- from Keras

KERAS_MODELS = {
    "usual": """[
        keras.Input((28, 28, 1)), L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(2),
        L.Conv2D(5, (3, 2), padding="same", strides=2), L.MaxPooling2D((2, 2)), L.Flatten(), L.Dropout(0.5),
        L.Dense(10, activation="softmax")]""",
    "every layer": """[
        keras.Input((13, 11, 3)), L.Rescaling(1 / 255, offset=-0.5), L.ZeroPadding2D(((1, 2), (0, 1))),
        L.Conv2D(4, (3, 2), activation="tanh", kernel_initializer="he_normal"), L.ZeroPadding2D(2), L.Conv2D(2, 3),
        L.ReLU(), L.AveragePooling2D(2, strides=1, padding="same"), L.MaxPooling2D(3, 2, padding="same"),
        L.Activation("sigmoid"), L.Conv2D(3, 2, dilation_rate=2, padding="same", use_bias=False),
        L.Activation(keras.activations.tanh), L.Flatten(), L.Dropout(0.3), L.Dense(7, activation=keras.activations.relu),
        L.Dense(4, use_bias=False), L.Softmax()]""",
    "global average": """[
        keras.Input((9, 8, 2)), L.Conv2D(6, 3, kernel_regularizer="l2"), L.GlobalAveragePooling2D(),
        L.Dense(3), L.Activation("softmax")]""",
    "global maximum": """[keras.Input((9, 8, 2)), L.GlobalMaxPooling2D(), L.Dense(3, "sigmoid")]""",
    "no channels": """[keras.Input((6, 5)), L.Flatten(), L.Dense(3)]""",
    "dense": """[keras.Input((7,)), L.Dense(5, activation="linear"), L.Dense(2), L.Softmax(axis=-1)]""",
    "built later": """[L.Conv2D(2, 3), L.Flatten(), L.Dense(3)]""",
}


def all_models_of_keras(folder):
    """A file for each model, after a step of training, and Keras's predictions."""
    models = ",\n".join(f"{name!r}: {code}" for name, code in KERAS_MODELS.items())
    code = f"""
    import keras
    L = keras.layers
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    for name, layers in {{{models}}}.items():
        model = keras.Sequential(layers, name=name.replace(" ", "_"))
        if name == "built later":
            model.build((None, 6, 5, 2))
        images = rng.normal(size=(5, *model.input_shape[1:])).astype("float32")
        model.compile("adam", "mse")
        model.fit(images, np.ones(model.compute_output_shape(images.shape)), verbose=0)
        model.save(name + ".keras")
        np.savez(name + ".npz", images=images, answer=model.predict(images, verbose=0))
    """
    elsewhere("\n".join(line.removeprefix("    ") for line in code.split("\n")), folder)


@pytest.mark.parametrize("name", KERAS_MODELS)
def test_a_model_of_keras_predicts_the_same_here(name, kept):
    folder = kept(all_models_of_keras)
    model, parameters = import_model(folder / f"{name}.keras")
    assert model.name == name.replace(" ", "_")
    with np.load(folder / f"{name}.npz") as arrays:
        images = arrays["images"].reshape(-1, *model.input_shape)
        right(arrays["answer"], model, parameters, images)


# -------------------------------------------------------------------------------------------------------- SavedModel

SAVED = {
    "everything": EVERYTHING,
    **{name: MODELS[name] for name in ("dense only", "no classifier", "nothing to learn")},
    **{f"random {seed}": random_model(seed) for seed in (100, 101, 102)},
}


def all_saved_models(folder):
    """Folders and images, and what plain TensorFlow says of them: `answers.npz` and the printed signatures."""
    for name, model in SAVED.items():
        export_model(model, parameters_of(model), folder / name, "savedmodel")
        np.savez(folder / f"{name}.npz", floats=images_for(model), bytes=images_for(model, dtype=np.uint8))
    code = """
    import json
    import pathlib
    import tensorflow as tf
    signatures = {}
    for file in pathlib.Path().glob("*.npz"):
        model, images = tf.saved_model.load(file.stem), np.load(file)
        signatures[file.stem] = {}
        answers = {}
        for name, kind in (("serving_default", "floats"), ("serving_uint8", "bytes")):
            serve = model.signatures[name]
            ((taken, spec),) = serve.structured_input_signature[1].items()
            ((given, answer),) = serve(images=tf.constant(images[kind])).items()
            signatures[file.stem][name] = [taken, spec.dtype.name, spec.shape.as_list(), given]
            answers |= {name: answer, kind: model.predict(tf.constant(images[kind]))}
        answers["none"] = model.predict(tf.zeros([0, *images["floats"].shape[1:]]))
        np.savez(f"answers-{file.stem}", **answers)
    print(json.dumps(signatures))
    """
    (folder / "signatures.json").write_text(elsewhere(code, folder), encoding="utf-8")


@pytest.mark.parametrize("name", SAVED)
def test_tensorflow_predicts_the_same_of_floats_and_of_bytes(name, kept):
    model, folder = SAVED[name], kept(all_saved_models)
    with np.load(folder / f"{name}.npz") as images, np.load(folder / f"answers-{name}.npz") as answers:
        for kind, signature in (("floats", "serving_default"), ("bytes", "serving_uint8")):
            right(answers[kind], model, parameters_of(model), images[kind])
            assert np.array_equal(answers[signature], answers[kind])
        assert answers["none"].shape == (0, *model.plan().output_shape)


@pytest.mark.parametrize(("name", "output"), [("everything", "probabilities"), ("no classifier", "outputs")])
def test_the_signatures_say_what_goes_in_and_what_comes_out(name, output, kept):
    shape = [None, *SAVED[name].input_shape]
    folder = kept(all_saved_models)
    assert json.loads((folder / "signatures.json").read_text(encoding="utf-8"))[name] == {
        "serving_default": ["images", "float32", shape, output],
        "serving_uint8": ["images", "uint8", shape, output],
    }
    assert Model.from_json((folder / name / "assets.extra" / "model.json").read_bytes()) == SAVED[name]


@pytest.fixture
def folder(tmp_path, tf):  # noqa: ARG001 - it makes one
    return export_model(MODELS["dense only"], parameters_of(MODELS["dense only"]), tmp_path / "model.savedmodel")


def test_a_saved_model_that_is_there_is_replaced_only_where_that_is_said(folder):
    model = MODELS["no classifier"]
    with pytest.raises(OptionError, match=r"model\.savedmodel is there already"):
        export_model(model, parameters_of(model), folder)
    export_model(model, parameters_of(model), folder, overwrite=True)
    assert Model.from_json((folder / "assets.extra" / "model.json").read_bytes()) == model
    assert list(folder.parent.iterdir()) == [folder]


def test_an_empty_folder_may_be_filled(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    export_model(MODELS["dense only"], parameters_of(MODELS["dense only"]), folder)
    assert (folder / "saved_model.pb").is_file()
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_what_is_no_saved_model_is_never_replaced(what, folder):
    kept_there = folder / "thesis.txt"
    place = folder.parent / "place.savedmodel"
    if what != "link":
        (folder / "saved_model.pb").unlink()
    kept_there.write_text("years of work")
    match what:
        case "folder":
            folder.rename(place)
            kept_there = place / "thesis.txt"
        case "file":
            kept_there.rename(place)
            kept_there = place
        case "link":
            place.symlink_to(folder)
    with pytest.raises(OptionError, match=r"place\.savedmodel (holds something other than a SavedModel|is no folder)"):
        export_model(MODELS["dense only"], parameters_of(MODELS["dense only"]), place, overwrite=True)
    assert kept_there.read_text() == "years of work"


@pytest.mark.parametrize("at", ["saving", "renaming"])
def test_a_failure_on_the_way_leaves_the_old_one_and_nothing_else(at, folder, monkeypatch, tf):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    rename = Path.rename

    def save(_module, place, _signatures):
        Path(place).mkdir()
        raise OSError(28, "No space left on device")

    def refuse(self, target):
        if self.suffix == ".tmp":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    if at == "saving":
        monkeypatch.setattr(tf.saved_model, "save", save)
    else:
        monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(CnnkitError, match=r"model\.savedmodel cannot be written: No space left on device"):
        export_model(MODELS["conv"], parameters_of(MODELS["conv"]), folder, overwrite=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(("at", "new"), [("aside", False), ("put", True), ("removed", True)])
def test_ctrl_c_right_behind_a_step_leaves_the_old_or_the_new_one_and_nothing_else(at, new, folder, monkeypatch):
    rename, rmtree = Path.rename, shutil.rmtree

    def renamed(self, target):
        rename(self, target)
        if at == {".old": "aside", ".savedmodel": "put"}[Path(target).suffix] and self.suffix != ".old":
            raise KeyboardInterrupt

    def removed(place, ignore_errors=False):
        if at == "removed" and not ignore_errors:
            raise KeyboardInterrupt
        rmtree(place, ignore_errors=ignore_errors)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(shutil, "rmtree", removed)
    with pytest.raises(KeyboardInterrupt):
        export_model(MODELS["conv"], parameters_of(MODELS["conv"]), folder, overwrite=True)
    assert list(folder.parent.iterdir()) == [folder]
    left = Model.from_json((folder / "assets.extra" / "model.json").read_bytes())
    assert left == MODELS["conv" if new else "dense only"]


def test_what_tensorflow_itself_cannot_write_is_an_error_of_ours(folder):
    resource = pytest.importorskip("resource", reason="Windows limits no files")
    before = (folder / "saved_model.pb").read_bytes()
    large = Model(input_shape=(1000,), layers=[Dense(units=1000)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # as a disk that is full after so many bytes
    try:
        with pytest.raises(CnnkitError, match=r"model\.savedmodel cannot be written: File too large\. Choose another"):
            export_model(large, parameters_of(large), folder, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / "saved_model.pb").read_bytes() == before
    assert list(folder.parent.iterdir()) == [folder]


def test_inside_of_a_graph_it_is_an_error_that_says_so(tmp_path, tf):
    with tf.Graph().as_default(), pytest.raises(BackendError, match=r"inside of a tf\.Graph\(\)"):
        export_model(MODELS["dense only"], parameters_of(MODELS["dense only"]), tmp_path / "model.savedmodel")
    assert list(tmp_path.iterdir()) == []


def test_changing_the_parameters_afterwards_changes_nothing(folder, tf):
    model = MODELS["dense only"]
    parameters = parameters_of(model)
    place = export_model(model, parameters, folder, overwrite=True)
    for array in parameters.values():
        array[:] = 0
    images = images_for(model)
    loaded = tf.saved_model.load(str(place))
    right(loaded.predict(images).numpy(), model, parameters_of(model), images)
