"""Backends on the stand-in for CuPy. No GPU code runs in the tests of this folder, and pytest's output says so."""

from dataclasses import dataclass

import host_kernels
import pytest
from cupy_by_numpy import Cudnn, Gpu
from host_kernels import HostKernels, build

from cnnkit_cupy.backend import CupyBackend
from cnnkit_cupy.card import Card
from cnnkit_cupy.cudnn_library import Library

DTYPES = ("float32", "float64")
SAID = "tests/backends/cupy/on_stand_in: no GPU code ran; CuPy was a stand-in on NumPy, and its kernels ran on the CPU."

RAN = pytest.StashKey[bool]()


@dataclass(frozen=True)
class StandIn:
    """Makes backends: `gpu` is what they run on, `kernels` are the kernels of both dtypes."""

    kernels: dict

    def gpu(self, **how):
        return Gpu(self.kernels, **how)

    def __call__(self, precision="float64", *, limit=None, cudnn=None, graphs=True, **how):
        gpu = self.gpu(**how)
        library = None if cudnn is None else Library(Cudnn(gpu, offers=cudnn), "NumPy")
        backend = CupyBackend(Card(gpu.cp, 0, precision, limit, gpu.blas, library), graphs)
        gpu.waits.clear()
        return backend, gpu


@pytest.fixture(scope="session")
def stand_in(lacking, tmp_path_factory, request):
    """A function that makes a backend and the GPU that it believes to run on."""
    if host_kernels.compiler() is None:
        lacking("g++, which compiles the CUDA kernels for the CPU, is not installed")
    folder = tmp_path_factory.getbasetemp() / "kernels"
    request.config.stash[RAN] = True
    return StandIn({dtype: HostKernels(build(folder, dtype), dtype) for dtype in DTYPES})


def pytest_terminal_summary(terminalreporter, config):
    if config.stash.get(RAN, False):
        terminalreporter.write_line(SAID)
