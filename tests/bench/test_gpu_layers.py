"""Single layers as contestants have them: each gives, forward and back, what the formulas in float64 give. No GPU runs here.

The backend's layers run on the stand-in for CuPy, their kernels compiled for the CPU; PyTorch's on its CPU.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cnnkit.bench.batches import PEERS
from cnnkit.bench.gpu.models import LAYERS, LayerTask
from cnnkit.plan import Conv2DOp, MaxPool2DOp

BACKENDS = Path(__file__).parent.parent / "backends"
BATCH = 3


def formulas(task):
    """All results of a layer in float64, and for each the sum of the absolute values of what was added up."""
    op, relu = task.plan.operations[0], len(task.plan.operations) > 1
    x, dy = task.x.astype(np.float64), task.dy.astype(np.float64)
    if isinstance(op, MaxPool2DOp):
        batch, height, width, channels = x.shape
        windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        y = windows.max((2, 4))
        won = windows == y[:, :, np.newaxis, :, np.newaxis]
        assert (won.sum((2, 4)) == 1).all()  # no ties, which would need a rule
        return {"output": y, "input": (won * dy[:, :, np.newaxis, :, np.newaxis]).reshape(x.shape)}
    kernel, bias = (array.astype(np.float64) for array in task.parameters.values())
    affine, back = (convolution, convolution_back) if isinstance(op, Conv2DOp) else (dense, dense_back)
    y = affine(x, kernel) + bias
    if relu:
        y, dy = np.maximum(y, 0), dy * (y > 0)
    dx, dkernel = back(x, kernel, dy)
    found = {"output": y, "kernel": dkernel, "bias": dy.reshape(-1, dy.shape[-1]).sum(0)}
    return {**found, "input": dx} if task.input_gradient else found


def dense(x, kernel):
    return x @ kernel


def dense_back(x, kernel, dy):
    return dy @ kernel.T, x.T @ dy


def taps(x):
    """For each place of a 3 x 3 window, where it lies in images with a border of one pixel."""
    for row, col in np.ndindex(3, 3):
        yield (row, col), (slice(None), slice(row, row + x.shape[1]), slice(col, col + x.shape[2]))


def convolution(x, kernel):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(padded[tap] @ kernel[place] for place, tap in taps(x))


def convolution_back(x, kernel, dy):
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    dpadded, dkernel = np.zeros_like(padded), np.zeros_like(kernel)
    for place, tap in taps(x):
        dpadded[tap] += dy @ kernel[place].T
        dkernel[place] = np.tensordot(padded[tap], dy, ((0, 1, 2), (0, 1, 2)))
    return dpadded[:, 1:-1, 1:-1], dkernel


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """The backend on the stand-in for CuPy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BACKENDS))
        host = pytest.importorskip("host_kernels")
        if host.compiler() is None:
            pytest.skip("g++ is not installed: apt-get install g++")
        from cupy_by_numpy import Gpu

        from cnnkit_cupy.backend import CupyBackend
        from cnnkit_cupy.card import Card

        library = host.build(tmp_path_factory.getbasetemp().parent / "kernels", np.float32)
        gpu = Gpu({"float32": host.HostKernels(library, np.float32)})
        yield CupyBackend(Card(gpu.cp, 0, "float32", None, gpu.blas, None)), gpu
    sys.modules.pop("cupy_by_numpy", None)


@pytest.fixture(params=["cupy", "torch"])
def layer_calls(request):
    """A function: the calls of a layer by each contestant."""
    if request.param == "cupy":
        backend, _ = request.getfixturevalue("stand_in")
        from cnnkit_cupy.bench import layer_calls as made

        return lambda task: made(backend, task)
    if not PEERS["torch"].installed:
        pytest.skip("PyTorch is not installed: 'cnnkit[peers]'")
    from cnnkit.bench.gpu import torch_side

    return lambda task: torch_side.layer(task, device="cpu", precision="float32", graph=False)


@pytest.mark.parametrize("name", LAYERS)
def test_results_are_those_of_the_formulas_however_often_it_goes_there_and_back(layer_calls, name):
    task = LayerTask(name, BATCH)
    calls, expected = layer_calls(task), formulas(task)
    for _ in range(3):
        calls.forward()
        calls.backward()
        calls.backward()
        found = calls.results()
        assert set(found) == set(expected)
        for what, array in found.items():
            assert array.dtype == np.float32
            assert array.shape == expected[what].shape
            np.testing.assert_allclose(array, expected[what], rtol=1e-4, atol=1e-4 * abs(expected[what]).max())


def test_a_layer_on_the_gpu_waits_for_nothing_and_uploads_nothing_once_it_is_made(stand_in):
    from cnnkit_cupy.bench import layer_calls

    backend, gpu = stand_in
    calls = layer_calls(backend, LayerTask("conv 64, from 32", BATCH))
    assert calls.stream == gpu.cp_stream.ptr
    waits, uploads = len(gpu.waits), len(gpu.uploads)
    calls.forward()
    calls.backward()
    assert (len(gpu.waits), len(gpu.uploads)) == (waits, uploads)
    assert {"im2col", "bias_activation", "bias_gradient"} <= set(gpu.launches)


def test_a_layer_gives_its_memory_back(stand_in):
    import gc

    from cnnkit_cupy.bench import layer_calls

    backend, gpu = stand_in
    gc.collect()
    before = gpu.taken
    calls = layer_calls(backend, LayerTask("dense 512", BATCH))
    assert gpu.taken > before
    del calls
    gc.collect()
    gpu.run()
    assert gpu.taken == before


def test_the_module_of_layers_is_found_beside_the_plugin(monkeypatch):
    from cnnkit.bench.gpu import backend_side

    monkeypatch.setattr(backend_side.plugins, "status", lambda _: SimpleNamespace(module="cnnkit_cupy.plugin"))
    assert backend_side.layer_module("cupy") == "cnnkit_cupy.bench"
    monkeypatch.setattr(backend_side.plugins, "status", lambda _: SimpleNamespace(module="cnnkit_numpy.plugin"))
    assert backend_side.layer_module("numpy") is None
