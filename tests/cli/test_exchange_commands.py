"""`cnnkit export` and `cnnkit import`."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from cnnkit import Flatten, Model, checkpoints, initial_parameters
from cnnkit.exchange import export_model, import_model


@pytest.fixture
def run(cnnkit, model_file, npz):
    """What training printed; the trained model is in the run folder `runs/one`."""
    return cnnkit("train", model_file, npz, "--out", "runs/one", "--json").json


def same(one, other):
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


# --------------------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("what", ["runs/one", "runs/one/model.safetensors", "runs/one/"])
def test_a_trained_model_is_written_beside_one_with_its_name(what, cnnkit, run):
    done = cnnkit("export", what, "--format", "keras")
    name = "model.keras" if what.endswith("tensors") else "one.keras"
    assert done.code == 0
    assert done.err == ""
    assert f"Wrote {name}: model 'own' of 6 layers, 475 parameters." in done.out
    assert f"keras.saving.load_model('{name}')" in done.out
    checkpoint = checkpoints.load(Path(run["out"]) / "model.safetensors")
    model, parameters = import_model(name)
    assert model == checkpoint.model
    assert model.class_names == ("top", "[middle]", ":bottom:")
    assert same(parameters, checkpoint.parameters)


def test_the_place_says_the_format_and_what_is_there_is_kept(cnnkit, run):
    Path("sub").mkdir()
    assert cnnkit("export", run["out"], "--out", "sub/mine.keras").code == 0
    before = Path("sub/mine.keras").read_bytes()
    done = cnnkit("export", run["out"], "--out", "sub/mine.keras")
    assert done.code == 2
    assert "sub/mine.keras is there already" in done.err
    assert "--force" in done.err
    Path("sub/mine.keras").write_text("another")
    assert cnnkit("export", run["out"], "--out", "sub/mine.keras", "--force").code == 0
    assert Path("sub/mine.keras").read_bytes() == before


@pytest.mark.parametrize("what", ["own.toml", "mlp-1h"])
def test_a_model_that_has_learned_nothing_needs_a_seed(what, cnnkit, model_file):
    assert model_file == "own.toml"
    done = cnnkit("export", what, "--format", "keras")
    assert done.code == 2
    assert f"{what} is a model that has learned nothing" in done.err
    assert list(Path().glob("*.keras")) == []
    assert cnnkit("export", what, "--format", "keras", "--seed", 3).code == 0
    (path,) = Path().glob("*.keras")
    model, parameters = import_model(path)
    assert same(parameters, initial_parameters(model, 3))


def test_learned_numbers_and_a_seed_contradict_each_other(cnnkit, run):
    done = cnnkit("export", run["out"], "--format", "keras", "--seed", 0)
    assert (done.code, "--seed would draw others" in done.err) == (2, True)


def test_a_folder_called_like_a_preset_is_pointed_at(cnnkit, run):
    Path(run["out"]).rename("seed-tf")
    done = cnnkit("export", "seed-tf", "--format", "keras")
    assert done.code == 2
    assert "The folder of that name is ./seed-tf." in done.err
    assert cnnkit("export", "./seed-tf", "--format", "keras").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["runs/two", "--format", "keras"], 2, "there is no run folder, checkpoint or preset runs/two"),
        (["missing.toml", "--format", "keras"], 2, "missing.toml cannot be read"),
        (["."], 2, "export needs a format"),
        ([".", "--format", "keras"], 1, "holds no run"),
        (["runs/one", "--format", "onyx"], 2, "there is no format 'onyx'; formats are keras, onnx, savedmodel"),
        (["runs/one", "--out", "one"], 2, "does not say in which format"),
        (["runs/one", "--out", "no/one.keras"], 2, "there is no folder no"),
        (["runs/one", "--out", f"{'x' * 300}.keras"], 1, "cannot be written: File name too long"),
        (["x" * 300, "--format", "keras"], 2, "there is no run folder, checkpoint or preset xxx"),
        (["npz", "--format", "keras"], 1, "is not a checkpoint"),
    ],
)
def test_what_cannot_be_exported_is_said(arguments, code, message, cnnkit, run, npz):
    assert run["out"] == "runs/one"
    done = cnnkit("export", *(str(npz) if argument == "npz" else argument for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert not Path("one.keras").exists()


def test_what_keras_cannot_say_is_named_before_anything_is_written(cnnkit):
    text = 'version = 1\ninput_shape = [9, 9, 1]\nlayers = [{ kind = "conv2d", filters = 1, kernel_size = 2, strides = 2, dilation = 2 }]\n'
    Path("odd.toml").write_text(text)
    done = cnnkit("export", "odd.toml", "--seed", 0, "--format", "keras")
    assert done.code == 2
    assert "layers[0].dilation is 2 with strides of 2" in done.err
    assert sorted(path.name for path in Path().iterdir()) == ["odd.toml"]


def test_float64_is_said_to_be_rounded(cnnkit):
    model = Model(input_shape=(2,), layers=[{"kind": "dense", "units": 2}])
    checkpoints.save("double.safetensors", model, initial_parameters(model, precision="float64"))
    done = cnnkit("export", "double.safetensors", "--format", "keras")
    assert done.code == 0
    assert "the numbers are float64, and were rounded to float32" in done.err


def test_json_of_both_commands(cnnkit, run):
    told = {"model": "own", "layers": 6, "parameters": 475}
    assert cnnkit("export", run["out"], "--format", "keras", "--json").json == {
        "path": "one.keras",
        "format": "keras",
        **told,
    }
    assert cnnkit("import", "one.keras", "--json").json == {"path": "one.safetensors", **told}


# --------------------------------------------------------------------------------------------------------------- import


def test_what_was_imported_is_judged_as_the_run_was(cnnkit, run, npz):
    cnnkit("export", run["out"], "--format", "keras")
    done = cnnkit("import", "one.keras", "--out", "back again.safetensors")
    assert (done.code, done.err) == (0, "")
    assert "Wrote back again.safetensors: model 'own' of 6 layers, 475 parameters." in done.out
    assert "cnnkit predict 'back again.safetensors' IMAGE..." in done.out
    (command,) = re.findall(r"cnnkit (evaluate .*)", done.out)
    found = cnnkit(*shlex.split(command.replace("DATASET", str(npz))), "--json").json
    assert {name: found[name] for name in run["test"]} == run["test"]


def test_an_imported_checkpoint_replaces_another_only_by_force(cnnkit, run):
    cnnkit("export", run["out"], "--format", "keras")
    Path("one.safetensors").write_text("mine")
    done = cnnkit("import", "one.keras")
    assert (done.code, "one.safetensors is there already" in done.err) == (2, True)
    assert Path("one.safetensors").read_text() == "mine"
    assert cnnkit("import", "one.keras", "--force").code == 0
    assert checkpoints.load("one.safetensors").model.name == "own"


def test_a_model_that_is_no_classifier_is_not_sent_to_be_judged(cnnkit):
    export_model(Model(input_shape=(2, 2, 1), layers=[Flatten()]), {}, "flat.keras")
    done = cnnkit("import", "flat.keras")
    assert done.code == 0
    assert "evaluate" not in done.out
    assert "cnnkit.load('flat.safetensors')" in done.out


@pytest.mark.parametrize(
    ("name", "data", "code", "message"),
    [
        ("none.keras", None, 1, "cannot read none.keras: there is no such file"),
        (f"{'x' * 300}.keras", None, 1, "cannot read xxx"),
        ("text.keras", b"text", 1, "text.keras cannot be imported: it is no zip archive"),
        ("model.h5", b"", 2, "does not say in which format it is. Give --format"),
        ("old.savedmodel", b"", 2, "the format 'savedmodel' is only written"),
    ],
)
def test_what_cannot_be_imported_is_said_and_nothing_is_written(name, data, code, message, cnnkit):
    if data is not None:
        Path(name).write_bytes(data)
    done = cnnkit("import", name)
    assert done.code == code
    assert message in done.err
    assert list(Path().glob("*.safetensors")) == []
