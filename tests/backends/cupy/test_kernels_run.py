"""The CUDA kernels compute what they should, run on the CPU: their source is proved here, not the GPU."""

import os
import subprocess
import sys
from pathlib import Path

import host_kernels
import numpy as np
import pytest
from host_kernels import HostKernels, build
from kernel_checks import CHECKS, MODES, Runner

SANITIZED = Path(__file__).parent / "host" / "under_sanitizers.py"
DTYPES = ("float32", "float64")


@pytest.fixture(scope="module")
def library(lacking, tmp_path_factory):
    """A function that compiles the kernels, once for each way."""
    if host_kernels.compiler() is None:
        lacking("g++, which compiles the CUDA kernels for the CPU, is not installed")
    folder = tmp_path_factory.mktemp("kernels")
    return lambda dtype, **options: build(folder, dtype, **options)


@pytest.fixture
def sanitized(lacking, library):
    """A function that runs checks in a process under AddressSanitizer and returns that process when it has ended."""

    def run(dtype, *checks):
        runtime = subprocess.run(
            [host_kernels.compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        if not Path(runtime).is_absolute():
            lacking("libasan, the library of g++'s AddressSanitizer, is not installed")
        path = os.pathsep.join(sys.path)
        # Python frees little at its end, which is no leak of ours; and the library must come before all others.
        environment = os.environ | {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": path}
        command = [sys.executable, str(SANITIZED), str(library(dtype, sanitize=True)), dtype, *checks]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    return run


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CHECKS)
def test_kernels_compute_what_numpy_does_in_float64(library, name, dtype, mode):
    CHECKS[name](Runner(HostKernels(library(dtype), dtype), dtype, mode))


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_touch_nothing_but_their_arrays(sanitized, dtype):
    done = sanitized(dtype)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(CHECKS)


@pytest.mark.parametrize("check", ["--write-beyond", "--read-beyond", "--read-before"])
def test_the_sanitizer_sees_a_single_step_beyond_an_array(sanitized, check):
    done = sanitized("float32", check)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert "ERROR" in done.stderr


@pytest.fixture(scope="module")
def kernels(library):
    return HostKernels(library("float32"), "float32")


def test_lanes_that_are_not_there_are_an_error(kernels):
    scores = np.zeros((1, 3), np.float32)
    with pytest.raises(RuntimeError, match="softmax: a shuffle with lanes that are not there"):
        kernels.launch("softmax", (1,), (16, 1), (scores, scores, 1, 3))


def test_a_block_with_too_many_threads_is_an_error(kernels):
    x = np.zeros(3, np.float32)
    with pytest.raises(RuntimeError, match="rescale: more threads in a block"):
        kernels.launch("rescale", (1,), (512,), (x, x, 3, 1.0, 0.0))


def test_an_array_of_another_type_is_an_error(kernels):
    x = np.zeros(3)
    with pytest.raises(AssertionError, match="rescale: x is float64; expected float32"):
        kernels("rescale", x, x, 3, 1.0, 0.0)
