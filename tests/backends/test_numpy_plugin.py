import tomllib

import numpy as np
import pytest

import cnnkit
from cnnkit import BackendOptionError, BackendUnavailable, Dense, Model, OptionError
from cnnkit_numpy import plugin
from cnnkit_numpy.backend import NumpyBackend


@pytest.mark.parametrize("device", [None, "cpu"])
def test_the_probe_is_ready_on_the_cpu_and_says_which_numpy(device):
    answer = plugin.cnnkit_probe(device)
    assert answer.state == "ready"
    assert list(answer.devices) == ["cpu"]
    assert answer.versions == {"numpy": np.__version__}


def test_the_probe_has_no_other_device():
    answer = plugin.cnnkit_probe("gpu")
    assert answer.state == "no-device"
    assert "'gpu'" in answer.reason
    assert "device='cpu'" in answer.fix


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(BackendUnavailable, match="runs on the CPU, not on 'gpu'"):
        cnnkit.get_backend("numpy", device="gpu")


def test_precision_and_threads_reach_the_backend():
    assert cnnkit.get_backend("numpy") == NumpyBackend("float32", 1)
    assert cnnkit.get_backend("numpy", device="cpu", precision="float64", threads=3) == NumpyBackend("float64", 3)


def test_the_precision_is_that_of_the_outputs():
    plan = Model(input_shape=(2,), layers=[Dense(units=1, use_bias=False)]).plan()
    for precision in ("float32", "float64"):
        program = cnnkit.get_backend("numpy", precision=precision).compile(plan, {"0.kernel": np.ones((2, 1))})
        assert program.predict(np.ones((1, 2), np.uint8)).dtype == precision
    with pytest.raises(OptionError, match="precision is 'float16'"):
        cnnkit.get_backend("numpy", precision="float16")


def test_an_unknown_option_lists_the_known():
    with pytest.raises(BackendOptionError, match=r"thread.*threads"):
        cnnkit.get_backend("numpy", thread=2)


@pytest.mark.parametrize("threads", [0, -1, True, "2", 1.0, None])
def test_threads_are_a_whole_number_of_at_least_1(threads):
    with pytest.raises(BackendOptionError, match=f"threads is {threads!r}; expected a whole number of at least 1"):
        cnnkit.get_backend("numpy", threads=threads)


def test_the_ledger_is_empty():
    ledger = tomllib.loads(plugin.cnnkit_deviations().read_text())
    assert ledger == {"version": 1, "level": "training"}
    assert cnnkit.plugins.deviations("numpy") == plugin.cnnkit_deviations()
