"""How a backend is opened and tried out, and what is said where that fails; on a stand-in for CuPy."""

import numpy as np
import pytest
from cupy_by_numpy import EVERYWHERE, Array, Cudnn

from cnnkit import BackendError, BackendOptionError, BackendUnavailable
from cnnkit_cupy import opening, plugin
from cnnkit_cupy.cudnn_library import Library, Search


@pytest.fixture
def computer(stand_in, monkeypatch):
    """A function that sets up a computer with GPUs; what it returns can be spoilt before a backend is created."""

    def set_up(cudnn=True, **how):
        gpu = stand_in.gpu(**how)
        found = (
            Search(Library(Cudnn(gpu, offers=EVERYWHERE), "NumPy")) if cudnn else Search(None, "cuDNN is away", "Look")
        )
        monkeypatch.setattr(opening, "_cupy", lambda: gpu.cp)
        monkeypatch.setattr(opening.cublas, "load", lambda cuda: {13: gpu.blas}[cuda])
        monkeypatch.setattr(opening.cudnn_library, "load", lambda cuda: {13: found}[cuda])
        return gpu

    return set_up


def create(device=None, precision="float32", **options):
    return plugin.cnnkit_create_backend(device, precision, options)


@pytest.mark.parametrize(("device", "number"), [(None, 0), ("gpu", 0), ("gpu:0", 0), ("gpu:1", 1)])
def test_a_backend_is_tried_out_with_a_kernel_and_a_product(computer, device, number):
    gpu = computer(count=2)
    backend = create(device)
    assert backend.card.number == number
    assert gpu.launches == ["rescale"]
    assert gpu.waits == ["get"] * 5  # three of them for cuDNN
    assert backend.graphs
    assert not create(device, graphs=False).graphs


@pytest.mark.parametrize("device", ["gpu:2", "cpu"])
def test_a_gpu_that_is_not_there_is_no_other(computer, device):
    computer(count=2)
    with pytest.raises(
        BackendUnavailable, match=r"CuPy 14\.2\.0 sees 2 GPUs, numbered from 0, so there is no"
    ) as caught:
        create(device)
    assert caught.value.status.state == "no-device"
    computer(count=0)
    with pytest.raises(BackendUnavailable, match=r"sees no GPU, so there is no 'gpu'\. Check the driver"):
        create()


def test_the_memory_limit_is_in_bytes_whatever_it_was_written_in(computer):
    computer()
    assert create(memory_limit="4 GB").card.limit == 4 * 10**9
    assert create().card.limit is None


@pytest.mark.parametrize(
    ("there", "wanted", "used"), [(True, None, True), (True, True, True), (True, False, False), (False, None, False)]
)
def test_cudnn_is_used_if_it_is_there_unless_it_is_not_wanted(computer, there, wanted, used):
    gpu = computer(cudnn=there)
    create(cudnn=wanted)
    assert (there and "cudnnCreate" in gpu.cudnn.calls) is used


def test_cudnn_that_is_demanded_and_missing_is_an_error_with_its_fix(computer):
    computer(cudnn=False)
    with pytest.raises(BackendUnavailable, match=r"was asked for cuDNN, but cuDNN is away\. Look\.") as caught:
        create(cudnn=True)
    assert caught.value.status.state == "missing-dependency"


def test_cublas_that_is_missing_is_an_error_with_its_fix(computer, monkeypatch):
    computer()

    def load(_):
        raise BackendError("needs cuBLAS, which CuPy alone does not bring along: no such file")

    monkeypatch.setattr(opening.cublas, "load", load)
    words = r"missing-dependency.*needs cuBLAS.* Install it with: python -m pip install 'cnnkit\[cuda13\]'"
    with pytest.raises(BackendUnavailable, match=words) as caught:
        create()
    assert isinstance(caught.value.__cause__, BackendError)


def test_kernels_that_do_not_compile_are_an_error_with_its_fix(computer, monkeypatch):
    gpu = computer()

    def module(code, options):  # noqa: ARG001 - as CuPy's
        raise gpu.cp.cuda.compiler.CompileException('catastrophic error: could not open source file "cuda_fp16.h"')

    monkeypatch.setattr(gpu.cp, "RawModule", module)
    words = r"its kernels do not compile: .*cuda_fp16\.h.*Install CUDA's compiler and headers"
    with pytest.raises(BackendUnavailable, match=words) as caught:
        create()
    assert caught.value.status.state == "broken"
    assert isinstance(caught.value.status.error, gpu.cp.cuda.compiler.CompileException)


@pytest.mark.parametrize(
    "said", ['could not open source file "cuda_fp16.h"', "Failed to auto-detect CUDA root directory"]
)
def test_headers_of_cuda_that_are_missing_show_when_a_backend_is_created(computer, monkeypatch, said):
    """A kernel of CuPy's needs them, ours do not."""
    gpu = computer()

    def compile_and_copy(*_):
        raise gpu.cp.cuda.compiler.CompileException(said)

    monkeypatch.setattr(Array, "__setitem__", compile_and_copy)
    with pytest.raises(BackendUnavailable, match=r"its kernels do not compile: .*Install CUDA's compiler and headers"):
        create()
    assert gpu.launches == ["rescale"]


def test_a_product_that_fails_is_an_error_with_its_fix(computer):
    gpu = computer()
    gpu.blas.cublasSgemm_v2.body = lambda *_: 13
    with pytest.raises(BackendUnavailable, match=r"a product does not run: .*EXECUTION_FAILED.*Install cuBLAS again"):
        create()


def test_a_cudnn_that_fails_is_an_error_that_says_how_to_do_without(computer):
    gpu = computer()
    gpu.cudnn.failing = 0  # cudnnCreate
    with pytest.raises(
        BackendUnavailable, match=r"cuDNN does not work: .*cudnnCreate of .*Use cudnn=False, or install"
    ):
        create()
    create(cudnn=False)


def does_not_support(*_):
    return 3001


def writes_nothing(*_):
    return 0


@pytest.mark.parametrize(
    ("direction", "way", "words"),
    [
        ("Forward", does_not_support, "cudnnConvolutionForward of cuDNN 9.28.1 failed"),
        ("BackwardData", writes_nothing, "cuDNN sums 4608 ones"),
    ],
)
def test_a_cudnn_that_does_not_run_is_done_without_unless_it_was_demanded(computer, direction, way, words):
    gpu = computer()
    getattr(gpu.cudnn, f"cudnnConvolution{direction}").body = way
    backend = create()
    (remark,) = backend.card.remarks
    assert remark.startswith(f"convolutions run without cuDNN: {words}")
    assert backend.card.context is None
    with pytest.raises(BackendUnavailable, match=rf"cuDNN does not work: backend 'cupy': {words}.*Use cudnn=False"):
        create(cudnn=True)


@pytest.mark.parametrize("spoilt", ["rescale", "product"])
def test_a_gpu_that_computes_wrong_is_an_error(computer, monkeypatch, spoilt):
    gpu = computer()
    if spoilt == "product":
        gpu.blas.cublasSgemm_v2.body = lambda *_: 0
    else:
        monkeypatch.setattr(gpu, "kernels", {name: Idle() for name in gpu.kernels})
    with pytest.raises(BackendUnavailable, match=r"GPU 0 gives .*nan.* for .*Check the GPU and its driver"):
        create()


class Idle:
    def launch(self, *_):
        """Write nothing."""


@pytest.mark.parametrize(("capability", "refused"), [("75", True), ("80", False), ("90", False), ("120", False)])
def test_tf32_needs_a_gpu_that_has_it(computer, capability, refused):
    gpu = computer(capability=capability)
    if refused:
        with pytest.raises(BackendOptionError, match=r"compute capability 8\.0, and that of GPU 0 is 7\.5\. Use"):
            create(precision="tf32")
    else:
        assert create(precision="tf32").card.dtype == np.float32
        assert list(gpu.blas.math.values()) == [3]
    create()
