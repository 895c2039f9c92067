"""What cnnkit learns of the backend before ONNX Runtime is imported, and how it is created."""

import importlib.util
import subprocess
import sys
import tomllib

import cnnkit
import onnx
import onnxruntime
import pytest
from cnnkit import SGD, Dense, Model, Softmax, plugins
from cnnkit.errors import BackendOptionError, BackendUnavailable, OptionError, TrainingNotSupported, UnsupportedModel

from cnnkit_onnxruntime import plugin


def test_the_listing_shows_the_backend_as_ready_with_the_versions_of_its_packages():
    found = cnnkit.backends()["onnxruntime"]
    assert (found.state, found.devices, found.distribution) == ("ready", ("cpu",), "cnnkit-onnxruntime")
    assert found.versions == {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}


def test_asking_about_the_backend_imports_neither_onnx_runtime_nor_onnx():
    code = (
        "import sys; from cnnkit import plugins, Model, Flatten;"
        "assert plugins.status('onnxruntime').ready; assert plugins.deviations('onnxruntime').is_file();"
        "plan = Model(input_shape=(2,), layers=[Flatten()]).plan();"
        "assert plugins.unsupported('onnxruntime', plan, None, 'float32') == [];"
        "assert 'cnnkit_onnxruntime.plugin' in sys.modules and not {'onnxruntime', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("package", "name"), [("onnxruntime", "ONNX Runtime"), ("onnx", "onnx")])
def test_without_a_package_the_probe_names_the_command_that_installs_it(package, name, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == package else find_spec(asked))
    found = plugin.cnnkit_probe(device=None)
    assert (found.state, found.fix) == ("missing-dependency", f"Install it with: python -m pip install {package}")
    assert found.reason == f"needs {name}, which is not installed"


def test_another_device_is_refused_and_not_replaced():
    with pytest.raises(BackendUnavailable, match=r"no-device.*runs on the CPU, not on 'cuda'"):
        cnnkit.get_backend("onnxruntime", device="cuda")


def test_the_ledger_has_no_deviation():
    ledger = tomllib.loads(plugins.deviations("onnxruntime").read_text())
    assert ledger == {"version": 1, "level": "inference"}


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2"])
def test_a_wrong_number_of_threads_is_refused(threads):
    with pytest.raises(BackendOptionError, match=rf"threads is {threads!r}; expected a whole number of at least 1"):
        cnnkit.get_backend("onnxruntime", threads=threads)


def test_an_unknown_option_is_refused_with_those_that_are_known():
    with pytest.raises(OptionError, match="threads"):
        cnnkit.get_backend("onnxruntime", thread=2)


def test_more_parameters_than_a_file_of_onnx_holds_are_refused_beforehand():
    model = Model(input_shape=(20_000,), layers=[Dense(units=26_000), Softmax()])  # 2.08 GB in float32
    for precision, refuses in (("float32", False), ("float64", True)):
        backend = cnnkit.get_backend("onnxruntime", precision=precision)
        if refuses:
            with pytest.raises(UnsupportedModel, match=r"layers\[0\](?s:.*)4,160,208,000 bytes of parameters"):
                plugins.require_support(backend, model.plan())
        else:
            plugins.require_support(backend, model.plan())


def test_it_says_that_it_does_not_train():
    model, rule = Model(input_shape=(2,), layers=[Dense(units=2), Softmax()]), SGD(learning_rate=0.1)
    with pytest.raises(TrainingNotSupported):
        cnnkit.get_backend("onnxruntime").compile_training(model.plan(), cnnkit.initial_state(model, rule), rule)
