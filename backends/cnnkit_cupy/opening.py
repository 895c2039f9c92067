"""From a device's name and options to a backend that has been tried: kernels, a product, cuDNN, before anybody relies on it."""

from __future__ import annotations

import importlib
import math
from typing import Any, Final

import numpy as np

from cnnkit.errors import BackendError, BackendOptionError, BackendUnavailable
from cnnkit.model import Conv2D, Model
from cnnkit.plan import Conv2DOp
from cnnkit.plugins import BackendStatus
from cnnkit_cupy import cublas, cudnn_library
from cnnkit_cupy.backend import CupyBackend
from cnnkit_cupy.card import Card
from cnnkit_cupy.cudnn import Context, Convolution
from cnnkit_cupy.precisions import TF32
from cnnkit_cupy.room import Room

TOOLKIT: Final = "python -m pip install 'cnnkit[cuda{0}]'"
"""The extra brings CuPy with all libraries of CUDA that it uses."""


def open_backend(
    device: str | None, number: int, precision: str, limit: int | None, cudnn: bool | None, *, graphs: bool
) -> CupyBackend:
    """The backend on GPU `number`, which the caller calls `device`.

    Raises `BackendUnavailable` where it cannot be had, and `BackendOptionError` for a precision that the GPU has not.
    """
    cp = _cupy()
    count = cp.cuda.runtime.getDeviceCount() if cp.cuda.is_available() else 0
    if not 0 <= number < count:
        how_many = f"{count} GPU{'s' if count > 1 else ''}, numbered from 0" if count else "no GPU"
        raise unavailable(
            "no-device",
            f"CuPy {cp.__version__} sees {how_many}, so there is no {device or 'gpu'!r}",
            "Check the driver with nvidia-smi and the environment variable CUDA_VISIBLE_DEVICES",
        )
    cuda = cp.cuda.runtime.runtimeGetVersion() // 1000
    capability = cp.cuda.Device(number).compute_capability
    if precision == TF32 and int(capability) < 80:
        raise BackendOptionError(
            f"backend 'cupy': precision is 'tf32', which came with compute capability 8.0, and that of GPU {number} is "
            f"{capability[:-1]}.{capability[-1]}. Use precision='float32'."
        )
    try:
        blas = cublas.load(cuda)
    except BackendError as error:
        raise unavailable(
            "missing-dependency", str(error), f"Install it with: {TOOLKIT.format(cuda)}", error
        ) from error
    library = _cudnn(cuda, wanted=cudnn)
    try:
        card = Card(cp, number, precision, limit, blas, library)
        try_cudnn(card, required=bool(cudnn))
        try_out(card)  # last, so that nothing that failed before has broken the GPU
    except (BackendError, RuntimeError, cp.cuda.compiler.CompileException, OSError, ImportError) as error:
        # Those of our libraries, of CuPy and its compiler, and of files that are not there.
        reason, fix = _explained(error, cuda)
        raise unavailable("broken", reason, fix, error) from error
    return CupyBackend(card, graphs)


def _cupy() -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        fix = "Install it again: python -m pip install --force-reinstall 'cnnkit[cuda13]', or [cuda12]"
        raise unavailable("broken", f"CuPy does not load: {error}", fix, error) from error


def _cudnn(cuda: int, *, wanted: bool | None) -> cudnn_library.Library | None:
    """CuDNN, if it is wanted, and there, or has to be."""
    if wanted is False:
        return None
    search = cudnn_library.load(cuda)
    if wanted and search.library is None:
        raise unavailable("missing-dependency", f"was asked for cuDNN, but {search.reason}", search.fix)
    return search.library


def try_out(card: Card) -> None:
    """Run a kernel of ours, one of CuPy's, which takes CUDA's headers to compile, and a product; a `BackendError` if wrong."""
    with card.use():
        room = Room(card)
        numbers = np.arange(1.0, 5.0, dtype=card.dtype)
        x, y = room.upload(numbers), room.empty((4,))
        room.kernel("rescale", x, y, 4, 2.0, 1.0)()
        turned, product = room.empty((2, 2)), room.empty((2, 2))
        room.assign(x.reshape(2, 2).T, turned)()
        room.product(turned, x.reshape(2, 2), product)()
        of_kernel, of_product = y.get(), product.get()
    expected = numbers.reshape(2, 2).T @ numbers.reshape(2, 2)  # small whole numbers: exact in every precision
    if not (np.array_equal(of_kernel, 2 * numbers + 1) and np.array_equal(of_product, expected)):
        raise BackendError(
            f"backend 'cupy': GPU {card.number} gives {of_kernel.tolist()} for {(2 * numbers + 1).tolist()} and "
            f"{of_product.tolist()} for {expected.tolist()}. Check the GPU and its driver."
        )


def try_cudnn(card: Card, *, required: bool) -> None:
    """Try cuDNN out, if the card has it: where it does not work, the card does without, or it is a `BackendError`."""
    if card.context is None:
        return
    try:
        failure = _failure_of(card, card.context)
    except BackendError as error:
        failure = str(error).removeprefix("backend 'cupy': ")
    if failure and required:
        raise BackendError(f"backend 'cupy': {failure}")
    if failure:
        card.do_without_cudnn(failure)


def _failure_of(card: Card, context: Context) -> str:
    """Run the three passes of a small convolution on cuDNN. Returns what is wrong with their numbers, or nothing."""
    (op,) = Model(input_shape=(6, 6, 4), layers=[Conv2D(filters=4, kernel_size=3)]).plan().operations
    assert isinstance(op, Conv2DOp)  # noqa: S101 - the only layer is one
    with card.use():
        convolution, room = Convolution(context.library, op, 2, card.precision), Room(card)
        if convolution.choose(context, workspace_limit=card.block * card.dtype.itemsize):
            return ""  # not in this precision, say, of which layers have their remarks
        described = convolution.descriptors
        shapes = (described.x_shape, described.w_shape, described.y_shape)
        given = [room.upload(np.ones(shape, card.dtype)) for shape in shapes]
        made = [room.empty(shape) for shape in shapes]
        workspace = room.empty((max(1, convolution.workspace),), np.uint8)
        x, w, dy, dx, dw, y, space = map(room.address, (*given, *made, workspace))
        convolution.forward(x, w, y, space, room.stream)
        convolution.backward_data(w, dy, dx, space, room.stream)
        convolution.backward_filter(x, dy, dw, space, room.stream)
        sums = [float(array.get().sum()) for array in made]
    expected = math.prod((*described.y_shape, *described.w_shape[1:]))  # each pass sums so many products of ones
    return "" if sums == [expected] * 3 else f"cuDNN sums {expected} ones up to {sums} in the passes of a convolution"


def _explained(error: Exception, cuda: int) -> tuple[str, str]:
    """Reason and fix for what came of trying a GPU out."""
    text = " ".join(str(error).split())
    if any(word in text.lower() for word in ("header", "nvrtc", "could not open source file", "cuda root")):
        return f"its kernels do not compile: {text}", f"Install CUDA's compiler and headers: {TOOLKIT.format(cuda)}"
    if "cudnn" in text.lower():
        return f"cuDNN does not work: {text}", "Use cudnn=False, or install cuDNN again"
    if "cublas" in text.lower():
        return f"a product does not run: {text}", f"Install cuBLAS again: {TOOLKIT.format(cuda)}"
    return f"the GPU does not run a kernel and a product: {text}", "Check it with nvidia-smi, and the driver's version"


def unavailable(state: Any, reason: str, fix: str, error: Exception | None = None) -> BackendUnavailable:
    """The error that says why there is no backend, and what to do."""
    status = BackendStatus("cupy", state, reason.removesuffix("."), fix, error=error)
    return BackendUnavailable(f"Backend 'cupy' is not ready ({state}): {status.reason}. {fix}.", status)
