import ast
import importlib.util
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import cnnkit
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


@pytest.mark.parametrize(
    "device", ["tpu", "gpu:", "gpu:x", "gpu:-1", "gpu:\u0661", "cpu:0", "/GPU:0", "GPU", "", 0, b"cpu"]
)
def test_another_device_is_refused_with_those_that_there_are(device):
    answer = plugin.cnnkit_probe(device)
    assert answer.state == "no-device"
    assert repr(device) in answer.reason
    assert "device='gpu:1'" in answer.fix


def test_a_gpu_that_tensorflow_does_not_see_is_an_error_and_no_run_on_the_cpu(make_backend):
    with pytest.raises(BackendUnavailable, match=r"sees .*GPU.* so there is no 'gpu:99'") as caught:
        make_backend(device="gpu:99")
    assert caught.value.status.state == "no-device"


@pytest.mark.parametrize("device", ["tpu", "cpu:0", "", 1, ["gpu"]], ids=repr)
def test_who_asks_for_another_device_by_name_is_told_the_same(device):
    with pytest.raises(BackendUnavailable, match=r"\(no-device\): has no device .* Use device='cpu'") as caught:
        cnnkit.get_backend("tensorflow", device=device)
    assert caught.value.status.devices == ("cpu",)


class Gpus:
    """What TensorFlow is asked about GPUs, answered as if there were `count`; each call that changes something is noted."""

    def __init__(self, tf, monkeypatch, count, refusal=None):
        self.calls, self.refusal = [], refusal
        gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU") for number in range(count)]
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: gpus if kind == "GPU" else [])
        monkeypatch.setattr(tf.config.experimental, "set_memory_growth", self.grow)
        monkeypatch.setattr(plugin, "_installed", lambda: ("tensorflow", "2.21.0"))
        for name in ("device", "constant", "init_scope"):  # what a program begins with
            monkeypatch.setattr(tf, name, self.noting(name, getattr(tf, name)))

    def grow(self, gpu, enable):
        self.calls.append((gpu.name[-1], enable))
        if self.refusal is not None:
            raise self.refusal

    def noting(self, name, function):
        def noted(*given, **named):
            self.calls.append(name)
            return function(*given, **named)

        return noted


@pytest.mark.parametrize(
    ("device", "place"), [("gpu", "/GPU:0"), ("gpu:0", "/GPU:0"), ("gpu:1", "/GPU:1"), ("cpu", "/CPU:0")]
)
def test_memory_of_every_gpu_grows_as_needed_from_before_anything_runs(tf, monkeypatch, make_backend, device, place):
    gpus = Gpus(tf, monkeypatch, 2)
    assert make_backend(device=device).device == place
    assert gpus.calls == [("0", True), ("1", True)]


@pytest.mark.parametrize(
    "refusal",
    [
        RuntimeError("Physical devices cannot be modified after being initialized"),
        ValueError("Cannot set memory growth on device when virtual devices configured"),
    ],
    ids=["runs-already", "has-its-limits"],
)
def test_memory_that_others_have_decided_about_is_left_as_it_is(tf, monkeypatch, make_backend, refusal):
    gpus = Gpus(tf, monkeypatch, 2, refusal)
    assert make_backend(device="gpu:1").device == "/GPU:1"
    assert gpus.calls == [("0", True)]


@pytest.mark.parametrize(
    ("count", "device", "seen"),
    [
        (0, "gpu", "sees no GPU"),
        (1, "gpu:1", "sees 1 GPU, numbered from 0"),
        (2, "gpu:99", "sees 2 GPUs, numbered from 0"),
    ],
)
def test_a_gpu_that_is_not_there_is_an_error_that_says_how_many_are(tf, monkeypatch, make_backend, count, device, seen):
    Gpus(tf, monkeypatch, count)
    with pytest.raises(BackendUnavailable, match=rf"TensorFlow {tf.__version__} {seen}, so there is no '{device}'"):
        make_backend(device=device)


@pytest.mark.gpu
def test_tensorflow_leaves_memory_of_a_gpu_to_cupy_and_both_go_on(tf, in_a_process_of_its_own):
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("needs CuPy, which is not installed, and a GPU")
    if not tf.config.get_visible_devices("GPU"):
        pytest.skip(f"needs a GPU: TensorFlow {tf.__version__} sees none")
    lines = in_a_process_of_its_own("""
        import cupy, numpy as np
        import cnnkit
        train, _ = cnnkit.load_dataset("digits")
        model = cnnkit.load_preset("seed-tf").for_data(train.image_shape, train.classes).model
        free_before, _ = cupy.cuda.runtime.memGetInfo()
        losses = []
        for turn in range(2):
            run = cnnkit.fit(model, train, backend="tensorflow", device="gpu", epochs=1)
            losses.append(run.history[0].running_loss)
            free, _ = cupy.cuda.runtime.memGetInfo()
            ones = cupy.ones(free // 2 // 4, cupy.float32)  # half of what is left
            print(free > free_before / 2, int(ones[::1000].sum()) == len(ones[::1000]))
            del ones
        print(np.isclose(*losses, rtol=1e-3))
    """)
    assert lines == ["True True", "True True", "True"]


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2", 1025, 2**31])
def test_threads_are_a_whole_number_that_tensorflow_can_start(make_backend, threads):
    with pytest.raises(BackendOptionError, match=rf"threads is {threads!r}; expected a whole number from 1 to 1024"):
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
