"""Formats by name, and what holds for all of them, shown on a little format of somebody else's."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models import MODELS, parameters_of

from cnnkit.errors import CnnkitError, DataError, MissingDependency, ModelError, OptionError
from cnnkit.exchange import export_model, formats, how_to_load, import_model

MODEL = MODELS["conv"]
PARAMETERS = parameters_of(MODEL)


@pytest.fixture
def install(tmp_path, on_path):
    """A function that installs a module of somebody else's as a format."""

    def put(name, code, module="somebodys_format", distribution="somebody"):
        folder = tmp_path / f"{distribution}-site"
        information = folder / f"{distribution}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[cnnkit.formats]\n{name} = {module}\n")
        (folder / f"{module}.py").write_text(code)
        on_path(folder)

    return put


TEXT_FORMAT = """
import numpy
from cnnkit import Model

def write(model, parameters, path):
    assert [array.dtype.name for array in parameters.values()] == ["float32"] * len(parameters)
    assert all(array.flags.c_contiguous for array in parameters.values())
    path.write_text(model.to_json())

def read(path):
    model = Model.from_json(path.read_text())
    return model, {spec.name: numpy.ones(spec.shape, "float32") for spec in model.plan().parameters}
"""


def test_a_format_of_somebody_elses_is_listed_written_and_read(install, tmp_path):
    install("text", TEXT_FORMAT)
    assert formats() == ("keras", "onnx", "savedmodel", "text")
    parameters = {name: np.asfortranarray(array) for name, array in parameters_of(MODEL, precision="float64").items()}
    export_model(MODEL, parameters, tmp_path / "model.text")
    path = export_model(
        MODEL, {name: np.asfortranarray(array) for name, array in PARAMETERS.items()}, tmp_path / "f32.text"
    )
    model, parameters = import_model(path)
    assert model == MODEL
    assert all((array == 1).all() for array in parameters.values())
    assert how_to_load(path) is None


def test_the_format_may_be_said_where_the_name_does_not_say_it(install, tmp_path):
    install("text", TEXT_FORMAT)
    path = export_model(MODEL, PARAMETERS, str(tmp_path / "model.keras"), "text")
    assert import_model(path, "text")[0] == MODEL


def test_a_line_that_loads_a_file_has_its_path_quoted():
    assert how_to_load("it's.keras") == """model = keras.saving.load_model("it's.keras")"""


def test_looking_at_formats_imports_none_of_them():
    code = """
import sys
from cnnkit.exchange import formats
formats()
print({"h5py", "tensorflow", "keras", "cnnkit.exchange.keras_file", "onnx", "cnnkit_tensorflow"} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("path", "name", "message"),
    [
        ("model.onyx", None, r"model.onyx does not say in which format.*Give --format: keras, onnx, savedmodel\."),
        ("model", None, "does not say in which format"),
        ("model.keras", "onyx", r"there is no format 'onyx'; formats are keras, onnx, savedmodel\."),
    ],
)
def test_a_format_that_nobody_brings_is_an_error_that_lists_the_known(path, name, message, tmp_path):
    for call in (lambda: export_model(MODEL, PARAMETERS, tmp_path / path, name), lambda: import_model(path, name)):
        with pytest.raises(OptionError, match=message):
            call()


def test_a_format_that_is_only_written_cannot_be_read(install, tmp_path):
    install("deaf", "def write(model, parameters, path): path.touch()")
    path = export_model(MODEL, PARAMETERS, tmp_path / "model.deaf")
    with pytest.raises(OptionError, match=r"format 'deaf' is only written, so .*model\.deaf cannot be imported"):
        import_model(path)


def test_a_format_whose_module_fails_is_named_with_the_reason(install, tmp_path):
    install("broken", "1 / 0")
    with pytest.raises(
        CnnkitError, match="format 'broken' cannot be used: its module somebodys_format fails with Zero"
    ):
        export_model(MODEL, PARAMETERS, tmp_path / "model.broken")


def test_a_format_that_says_what_it_lacks_is_heard(install, tmp_path):
    install("lacking", "from cnnkit.errors import MissingDependency\nraise MissingDependency('It', 'more', 'extra')")
    with pytest.raises(MissingDependency, match="It needs more, which is not installed"):
        export_model(MODEL, PARAMETERS, tmp_path / "model.lacking")


def test_two_formats_of_one_name_are_a_conflict_that_names_both(install, tmp_path):
    install("keras", TEXT_FORMAT)
    with pytest.raises(OptionError, match=r"'keras' is registered by cnnkit\.exchange\.keras_file, somebodys_format\."):
        export_model(MODEL, PARAMETERS, tmp_path / "model.keras")


def test_a_model_that_does_not_fit_what_was_read_is_an_error(install, tmp_path):
    install("text", TEXT_FORMAT.replace("numpy.ones(spec.shape", "numpy.ones((*spec.shape, 1)"))
    path = export_model(MODEL, PARAMETERS, tmp_path / "model.text")
    with pytest.raises(DataError, match=r"parameter '0\.kernel' is float32 of shape"):
        import_model(path)


# -------------------------------------------------------------------------------------------------------- the numbers


def test_parameters_of_another_model_are_refused(tmp_path):
    with pytest.raises(DataError, match="parameters lack"):
        export_model(MODEL, {}, tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


def test_float64_is_rounded_to_the_nearest_float32(tmp_path):
    parameters = parameters_of(MODEL, precision="float64")
    _, found = import_model(export_model(MODEL, parameters, tmp_path / "model.keras"))
    for name, array in parameters.items():
        assert found[name].dtype == np.float32
        assert (np.abs(found[name] - array) <= np.spacing(np.abs(found[name])) / 2).all()


def test_a_number_that_float32_cannot_hold_is_refused_and_infinity_is_not(tmp_path):
    parameters = parameters_of(MODEL, precision="float64")
    parameters["0.bias"][:2] = np.inf, np.nan
    _, found = import_model(export_model(MODEL, parameters, tmp_path / "model.keras"))
    assert np.isposinf(found["0.bias"][0])
    assert np.isnan(found["0.bias"][1])
    parameters["0.kernel"][0, 0, 0, 0] = -1e39
    with pytest.raises(DataError, match=r"parameter '0\.kernel' has numbers up to 1e\+39, which float32 cannot hold"):
        export_model(MODEL, parameters, tmp_path / "large.keras")


@pytest.mark.parametrize("order", ["F", "reversed"])
def test_arrays_with_any_strides_are_written_as_they_read(order, tmp_path):
    parameters = {
        name: np.asfortranarray(array) if order == "F" else array[::-1].copy()[::-1]
        for name, array in PARAMETERS.items()
    }
    _, found = import_model(export_model(MODEL, parameters, tmp_path / "model.keras"))
    assert all(np.array_equal(found[name], array) for name, array in PARAMETERS.items())


# ---------------------------------------------------------------------------------------------------------- the place


def test_what_is_there_is_replaced_only_where_that_is_said(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("mine")
    with pytest.raises(OptionError, match=re.escape(f"{path} is there already.") + ".*overwrite=True"):
        export_model(MODEL, PARAMETERS, path)
    assert path.read_text() == "mine"
    export_model(MODEL, PARAMETERS, path, overwrite=True)
    assert import_model(path)[0] == MODEL


def test_a_link_that_leads_nowhere_is_something_that_is_there(tmp_path):
    path = tmp_path / "model.keras"
    path.symlink_to("nowhere")
    with pytest.raises(OptionError, match="is there already"):
        export_model(MODEL, PARAMETERS, path)


def test_a_folder_that_does_not_exist_is_not_made(tmp_path):
    with pytest.raises(OptionError, match=r"there is no folder .*missing\. Create the folder first"):
        export_model(MODEL, PARAMETERS, tmp_path / "missing" / "model.keras")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_cannot_be_looked_at_is_an_error_of_ours(overwrite, tmp_path):
    with pytest.raises(CnnkitError, match=r"x\.keras cannot be written: File name too long"):
        export_model(MODEL, PARAMETERS, tmp_path / ("x" * 300 + ".keras"), overwrite=overwrite)


def test_a_file_in_the_place_of_a_folder_is_an_error_of_ours(tmp_path):
    (tmp_path / "model.keras").mkdir()
    with pytest.raises(CnnkitError, match=r"model\.keras cannot be written: .*irectory"):
        export_model(MODEL, PARAMETERS, tmp_path / "model.keras")


def test_without_h5py_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependency, match=r"The format 'keras' needs h5py.*cnnkit\[keras\]"):
        export_model(MODEL, PARAMETERS, tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


def test_what_a_format_cannot_say_is_refused_before_anything_is_written(tmp_path):
    from cnnkit import Conv2D, Model

    model = Model(input_shape=(9, 9, 1), layers=[Conv2D(filters=1, kernel_size=2, strides=2, dilation=2)])
    with pytest.raises(ModelError, match=r"layers\[0\]\.dilation is 2 with strides of 2"):
        export_model(model, parameters_of(model), tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []
    assert not Path("model.keras").exists()
