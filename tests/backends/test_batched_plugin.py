import os
import subprocess
import sys
import textwrap
import tomllib

import numpy as np
import pytest

import cnnkit
from cnnkit import BackendOptionError, BackendUnavailable, Dense, Model, OptionError
from cnnkit_batched import plugin
from cnnkit_batched.backend import BatchedBackend

NAME = "numpy-batched"


def in_a_process_of_its_own(code):
    """What lines of Python print in a fresh interpreter."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()


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
        cnnkit.get_backend(NAME, device="gpu")


def test_a_probe_imports_no_more_of_the_backend_than_the_plugin():
    code = """
        import sys
        import cnnkit
        print(cnnkit.backends()["numpy-batched"].state, *sorted(name for name in sys.modules if name.startswith(("cnnkit_batched", "cupy"))))
    """
    assert in_a_process_of_its_own(code) == ["ready", "cnnkit_batched", "cnnkit_batched.plugin"]


def test_the_backend_needs_nothing_but_numpy():
    """No other library of the array API, and nothing that computes for a peer."""
    code = """
        import sys
        import numpy as np
        import cnnkit
        model = cnnkit.Model(input_shape=(2,), layers=[cnnkit.Dense(units=2), cnnkit.Softmax()])
        cnnkit.get_backend("numpy-batched").compile(model.plan(), cnnkit.initial_parameters(model)).predict(np.ones((1, 2)))
        print(*[name for name in ("array_api_strict", "cupy", "scipy", "tensorflow", "torch") if name in sys.modules])
    """
    assert in_a_process_of_its_own(code.replace("np.ones((1, 2))", "np.ones((1, 2), np.float32)")) == []


def test_precision_and_threads_reach_the_backend():
    assert cnnkit.get_backend(NAME, threads=1) == BatchedBackend("float32", 1)
    assert cnnkit.get_backend(NAME, device="cpu", precision="float64", threads=3) == BatchedBackend("float64", 3)


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system does not say which cores a process may use"
)
def test_threads_are_by_default_as_many_as_the_process_may_use_cores():
    code = """
        import os
        import cnnkit
        cores = sorted(os.sched_getaffinity(0))
        print(len(cores), cnnkit.get_backend("numpy-batched").threads)
        os.sched_setaffinity(0, cores[:1])
        print(1, cnnkit.get_backend("numpy-batched").threads, cnnkit.get_backend("numpy-batched", threads=None).threads)
    """
    cores, default, one, *of_one = in_a_process_of_its_own(code)
    assert default == cores
    assert of_one == [one, one]


def test_the_precision_is_that_of_the_outputs():
    plan = Model(input_shape=(2,), layers=[Dense(units=1, use_bias=False)]).plan()
    for precision in ("float32", "float64"):
        program = cnnkit.get_backend(NAME, precision=precision).compile(plan, {"0.kernel": np.ones((2, 1))})
        assert program.predict(np.ones((1, 2), np.uint8)).dtype == precision
    with pytest.raises(OptionError, match="precision is 'float16'"):
        cnnkit.get_backend(NAME, precision="float16")


def test_an_unknown_option_lists_the_known():
    with pytest.raises(BackendOptionError, match=r"thread.*threads"):
        cnnkit.get_backend(NAME, thread=2)


@pytest.mark.parametrize("threads", [0, -1, True, "2", 1.0, 257])
def test_threads_are_a_whole_number_from_1_to_256(threads):
    with pytest.raises(
        BackendOptionError, match=f"threads is {threads!r}; expected a whole number from 1 to 256, or None"
    ):
        cnnkit.get_backend(NAME, threads=threads)


def test_the_ledger_is_empty():
    ledger = tomllib.loads(plugin.cnnkit_deviations().read_text())
    assert ledger == {"version": 1, "level": "training"}
    assert cnnkit.plugins.deviations(NAME) == plugin.cnnkit_deviations()
