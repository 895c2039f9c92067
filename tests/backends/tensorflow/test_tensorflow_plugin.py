import ast
import importlib.util
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from cnnkit import BackendOptionError, BackendUnavailable
from cnnkit_tensorflow import plugin


@pytest.mark.parametrize("device", [None, "cpu"])
def test_the_probe_is_ready_on_the_cpu_and_says_which_tensorflow(tf, device):
    answer = plugin.cnnkit_probe(device)
    assert answer.state == "ready"
    assert answer.devices == ("cpu",)
    assert list(answer.versions.values()) == [tf.__version__]


@pytest.mark.parametrize("found", [None, ModuleSpec("tensorflow", None, is_package=True)], ids=["nothing", "folder"])
def test_the_probe_names_the_command_that_installs_tensorflow(monkeypatch, found):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "tensorflow" else find(name))
    answer = plugin.cnnkit_probe(None)
    assert (answer.state, answer.reason) == ("missing-dependency", "needs TensorFlow, which is not installed")
    assert "pip install 'cnnkit[tensorflow]'" in answer.fix


def test_a_build_without_gpus_is_the_reason_why_there_is_none(monkeypatch):
    monkeypatch.setattr(plugin, "_installed", lambda: ("tensorflow-cpu", "2.21.0"))
    answer = plugin.cnnkit_probe("gpu:1")
    assert (answer.state, answer.reason) == ("no-device", "runs on tensorflow-cpu, which is built without GPUs")
    monkeypatch.setattr(plugin, "_installed", lambda: ("tensorflow", "2.21.0"))
    assert plugin.cnnkit_probe("gpu:1").state == "ready"  # creating the backend asks TensorFlow itself


@pytest.mark.parametrize("device", ["tpu", "gpu:", "gpu:x", "cpu:0", "GPU", ""])
def test_another_device_is_refused_with_those_that_there_are(device):
    answer = plugin.cnnkit_probe(device)
    assert answer.state == "no-device"
    assert repr(device) in answer.reason
    assert "device='gpu:1'" in answer.fix


def test_a_gpu_that_tensorflow_does_not_see_is_an_error_and_no_run_on_the_cpu(make_backend):
    with pytest.raises(BackendUnavailable, match=r"sees .*GPU.* so there is no 'gpu:99'") as caught:
        make_backend(device="gpu:99")
    assert caught.value.status.state == "no-device"


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2"])
def test_threads_are_a_whole_number_of_at_least_1(make_backend, threads):
    with pytest.raises(BackendOptionError, match=rf"threads is {threads!r}; expected a whole number of at least 1"):
        make_backend(threads=threads)


@pytest.mark.parametrize("option", ["xla", "deterministic"])
def test_a_switch_is_true_or_false(make_backend, option):
    with pytest.raises(BackendOptionError, match=f"{option} is 1; expected True or False"):
        make_backend(**{option: 1})


def test_an_unknown_option_lists_the_known(make_backend):
    with pytest.raises(BackendOptionError, match="its options are threads, xla, deterministic"):
        make_backend(jit=True)


def test_the_ledger_is_empty():
    assert tomllib.loads(plugin.cnnkit_deviations().read_text()) == {"version": 1, "level": "training"}


def test_asking_imports_no_tensorflow(in_a_process_of_its_own):
    lines = in_a_process_of_its_own("""
        import sys
        from cnnkit_tensorflow import plugin
        print(plugin.cnnkit_probe(None).state, plugin.cnnkit_probe("gpu").state in ("ready", "no-device"))
        print([name for name in ("tensorflow", "keras", "cnnkit_tensorflow.backend") if name in sys.modules])
    """)
    assert lines == ["ready True", "[]"]


def test_keras_is_named_in_no_import_and_no_attribute():
    for file in Path(plugin.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [node.attr] if isinstance(node, ast.Attribute) else []
            assert not any("keras" in name.lower() for name in names), f"{file.name}:{node.lineno}"
