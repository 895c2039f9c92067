"""What the plugin of cupy says of a computer, with drivers and distributions made up; nothing here needs CuPy."""

import importlib.metadata
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cnnkit import BackendOptionError, Conv2D, Dense, Flatten, Model, Softmax
from cnnkit_cupy import driver, plugin
from cnnkit_cupy.driver import Driver

TWO = Driver((13, 0), ("NVIDIA H100", "NVIDIA L4"))


@pytest.fixture
def computer(monkeypatch):
    """A function that sets what is installed, by distribution and version, and what the driver says."""

    def set_up(installed, driver_says=TWO):
        def version(name):
            if name not in installed:
                raise importlib.metadata.PackageNotFoundError(name)
            return installed[name]

        spec = SimpleNamespace(origin="/somewhere/cupy/__init__.py") if installed else None
        monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: {"cupy": spec}[name])
        monkeypatch.setattr(plugin.importlib.metadata, "version", version)
        monkeypatch.setattr(driver, "look", lambda: driver_says)

    return set_up


WHEEL = {"cupy-cuda13x": "14.2.0"}


def test_without_cupy_it_is_missing_and_both_extras_are_named(computer):
    computer({})
    answer = plugin.cnnkit_probe(None)
    assert (answer.state, answer.reason) == ("missing-dependency", "needs CuPy, which is not installed")
    assert "'cnnkit[cuda13]'" in answer.fix
    assert "'cnnkit[cuda12]'" in answer.fix


def test_two_wheels_at_once_are_a_conflict_that_names_both(computer):
    computer({"cupy-cuda12x": "14.2.0", "cupy-cuda13x": "14.1.0"})
    answer = plugin.cnnkit_probe(None)
    assert answer.state == "conflict"
    assert answer.reason == "cupy-cuda12x and cupy-cuda13x are installed together, and overwrite each other"
    assert "python -m pip uninstall cupy-cuda12x cupy-cuda13x" in answer.fix
    assert answer.versions == {"cupy-cuda12x": "14.2.0", "cupy-cuda13x": "14.1.0"}


def test_without_a_gpu_the_drivers_reason_is_given_and_another_backend(computer):
    computer(WHEEL, Driver(reason="NVIDIA's driver is installed, but sees no GPU"))
    answer = plugin.cnnkit_probe(None)
    assert (answer.state, answer.reason) == ("no-device", "NVIDIA's driver is installed, but sees no GPU")
    assert "numpy-batched" in answer.fix
    assert answer.devices == ()


def test_a_driver_that_is_too_old_for_the_wheel_is_no_device(computer):
    computer(WHEEL, Driver((12, 4), ("NVIDIA L4",)))
    answer = plugin.cnnkit_probe(None)
    assert answer.state == "no-device"
    assert answer.reason == "the driver runs CUDA 12.4, and cupy-cuda13x is built for CUDA 13"
    assert "Update the driver, or install CuPy for CUDA 12" in answer.fix


@pytest.mark.parametrize("installed", [WHEEL, {"cupy-cuda12x": "14.2.0"}, {"cupy": "14.2.0"}])
@pytest.mark.parametrize("device", [None, "gpu", "gpu:0", "gpu:1"])
def test_with_gpus_it_is_ready_on_each_of_them(computer, installed, device):
    computer(installed)
    answer = plugin.cnnkit_probe(device)
    assert answer.state == "ready"
    assert answer.devices == ("gpu", "gpu:0", "gpu:1")
    assert answer.versions == installed | {"CUDA driver": "13.0"}


@pytest.mark.parametrize("device", ["cpu", "gpu:2", "gpu:01", "cuda:0", "", 0])
def test_any_other_device_is_refused_and_those_there_are_are_named(computer, device):
    computer(WHEEL)
    answer = plugin.cnnkit_probe(device)
    assert answer.state == "no-device"
    assert answer.reason == f"has no device {device!r}: gpu:0 is a NVIDIA H100, gpu:1 is a NVIDIA L4"
    assert answer.devices == ("gpu", "gpu:0", "gpu:1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": 1}, r"no option 'memory'; its options are memory_limit, cudnn, graphs"),
        ({"memory_limit": "much"}, r"backend 'cupy': memory_limit is 'much'; expected a number of bytes"),
        ({"memory_limit": 0}, r"memory_limit is 0"),
        ({"cudnn": "yes"}, r"cudnn is 'yes'; expected True, False, or None"),
        ({"cudnn": 1}, r"cudnn is 1; expected True, False, or None"),
        ({"graphs": None}, r"graphs is None; expected True or False"),
    ],
)
def test_wrong_options_are_told_before_cupy_is_looked_for(options, words):
    with pytest.raises(BackendOptionError, match=words):
        plugin.cnnkit_create_backend(None, "float32", options)
    model = Model(input_shape=(2,), layers=[Dense(units=2), Softmax()])
    with pytest.raises(BackendOptionError, match=words):
        plugin.cnnkit_rehearse(model.plan(), None, "float32", options)


def test_the_probe_imports_no_cupy_and_takes_less_than_a_second():
    code = """
    import sys, time
    begin = time.perf_counter()
    from cnnkit_cupy import plugin
    plugin.cnnkit_probe(None)
    print(time.perf_counter() - begin < 1, "cupy" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[4:] for line in code.split("\n"))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "False"]


# --------------------------------------------------------------------------------------------------------- the driver


def made_up(gpus, cuda=13000, init=0):
    """The driver's library with these GPUs."""

    def write(pointer, value):
        pointer._obj.value = value
        return 0

    return SimpleNamespace(
        cuInit=lambda _: init,
        cuDriverGetVersion=lambda out: write(out, cuda),
        cuDeviceGetCount=lambda out: write(out, len(gpus)),
        cuDeviceGet=write,
        cuDeviceGetName=lambda text, _, device: setattr(text, "value", gpus[device.value]) or 0,
    )


def test_the_driver_tells_its_version_and_the_names_of_its_gpus():
    assert driver.ask(made_up([b"NVIDIA H100", b"NVIDIA L4"], 12080)) == Driver((12, 8), ("NVIDIA H100", "NVIDIA L4"))


@pytest.mark.parametrize(
    ("library", "words"),
    [(made_up([]), "sees no GPU"), (made_up([b"NVIDIA H100"], init=100), "finds no GPU (cuInit fails with 100)")],
)
def test_a_driver_without_gpus_says_why(library, words):
    answer = driver.ask(library)
    assert words in answer.reason
    assert answer.gpus == ()


def test_without_a_driver_there_is_a_reason_too(monkeypatch):
    def no_library(name):
        raise OSError(name)

    monkeypatch.setattr(driver.ctypes, "CDLL", no_library)
    assert driver.look.__wrapped__() == Driver(reason="no driver of NVIDIA is installed")


# ------------------------------------------------------------------------------------------------------- rehearsals


def test_a_rehearsal_knows_shapes_kernels_and_memory(cp, monkeypatch):  # noqa: ARG001 - it is imported
    from cnnkit import Adam
    from cnnkit_cupy import rehearsing

    monkeypatch.setattr(rehearsing, "compile_all", lambda _: None)
    layers = [Conv2D(filters=3, kernel_size=2, activation="relu"), Flatten(), Dense(units=4), Softmax()]
    plan = Model(input_shape=(4, 5, 2), layers=layers).plan()
    rehearsed = plugin.cnnkit_rehearse(plan, Adam(), "float32", {})
    assert rehearsed.shapes == ((3, 4, 3), (3, 4, 3), (36,), (4,), (4,))
    assert {"gather_labels", "im2col", "softmax_cross_entropy", "update_adam"} <= set(rehearsed.kernels)
    assert "update_sgd" not in rehearsed.kernels
    vector = 2 * 2 * 2 * 3 + 3, 36 * 4 + 4
    assert 4 * 4 * sum(vector) <= rehearsed.bytes_fixed < 4 * 4 * (sum(vector) + 32) + 20_000
    columns = 12 * 8
    assert 4 * (40 + 36 + 4 + columns) < rehearsed.bytes_per_image < 3 * 4 * (40 + 36 + 4 + columns)


def test_a_rehearsal_says_what_the_compiler_refuses(cp, monkeypatch):  # noqa: ARG001 - it is imported
    from cnnkit import BackendUnavailable
    from cnnkit_cupy import rehearsing

    monkeypatch.setattr(rehearsing.sources, "source", lambda: "int wrong(")
    monkeypatch.setattr(rehearsing, "TARGETS", ("sm_90",))
    with pytest.raises(BackendUnavailable, match="its kernels do not compile for sm_90: "):
        rehearsing.compile_all.__wrapped__("float32")
