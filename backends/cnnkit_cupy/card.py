"""A GPU, and what all programs of a backend share on it: one stream, kernels, cuBLAS, cuDNN, and memory up to a limit."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from cnnkit.errors import BackendError
from cnnkit.plan import Conv2DOp
from cnnkit_batched.engine import Call
from cnnkit_cupy import sources
from cnnkit_cupy.cublas import Blas
from cnnkit_cupy.cudnn import Context, Convolution
from cnnkit_cupy.cudnn_descriptors import Pass, why_unsupported
from cnnkit_cupy.cudnn_library import Library
from cnnkit_cupy.precisions import dtype_outside

if TYPE_CHECKING:
    from cnnkit_cupy.room import Room

WORKSPACE: Final = {9: 32 << 20, 10: 32 << 20}
"""Bytes of workspace that cuBLAS likes, by the major compute capability; 8 MiB for any other."""

PART_FOR_PATCHES: Final = 4
"""The patches of a convolution are worked through in blocks of at most one part in so many of the memory."""

LEFT_ALONE: Final = 256 << 20
"""Bytes for what CUDA and its libraries take themselves: kernels as they are loaded, graphs."""

MOST_CONVOLUTIONS: Final = 256
"""So many answers of cuDNN are kept."""


@final
class Card:
    """GPU number `number` for programs in `precision`. `cp` is CuPy, `blas` and `cudnn` are the libraries.

    Its programs take turns: they use one stream, and enter with `use`.
    """

    def __init__(
        self, cp: Any, number: int, precision: str, limit: int | None, blas: Any, cudnn: Library | None
    ) -> None:
        self.cp, self.number, self.precision, self.dtype = cp, number, precision, dtype_outside(precision)
        self.lock, self.process = threading.RLock(), os.getpid()
        self.rooms: weakref.WeakSet[Room] = weakref.WeakSet()
        self.remarks: list[str] = []
        """What is not as one might expect, such as a convolution that cuDNN does not do."""
        self._functions: dict[str, Any] = {}
        self._convolutions: dict[tuple[Conv2DOp, int, tuple[Pass, ...]], Convolution | None] = {}
        device = cp.cuda.Device(number)
        with device:
            self.limit: int | None = limit
            budget = limit or device.mem_info[0]
            self.block = budget // PART_FOR_PATCHES // self.dtype.itemsize
            self.stream = cp.cuda.Stream(non_blocking=True)
            self.module = cp.RawModule(code=sources.source(), options=sources.compile_options(self.dtype))
            with self.stream:
                self.blas = Blas(blas, self.dtype, precision)
                wanted = WORKSPACE.get(int(device.compute_capability[:-1]), 8 << 20)
                self.workspace = cp.empty(max(1 << 16, min(wanted, budget // 8)), dtype="uint8")
                self.blas.use(self.stream.ptr, self.workspace)
                self.context = Context(cudnn) if cudnn else None

    @contextmanager
    def use(self) -> Iterator[None]:
        """Be alone on the GPU, which is the current one inside, as is the stream.

        What CUDA itself fails with becomes a `BackendError`; so does a call in a fork, where CUDA does not work.
        """
        if self.process != os.getpid():
            raise BackendError(
                "backend 'cupy' was called in a fork of the process in which it was created, where CUDA does not work. "
                "Start processes afresh, with multiprocessing.get_context('spawn'), or create it only after the fork."
            )
        cuda = self.cp.cuda
        with self.lock:
            try:
                with cuda.Device(self.number), self.stream:
                    yield
            except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
                raise BackendError(
                    f"backend 'cupy': GPU {self.number} failed with {error}. Restart the process, and go on from a checkpoint."
                ) from error

    def kernel(self, name: str, *arguments: Any) -> Call:
        """The launch of a kernel of ours."""
        launch = sources.prepare(name, *arguments)
        if name not in self._functions:
            self._functions[name] = self.module.get_function(name)
        return partial(self._functions[name], launch.grid, launch.block, launch.arguments)

    # --------------------------------------------------------------------------------------------------------- memory

    @property
    def free(self) -> int:
        """How many bytes more its programs may take."""
        free, total = self.cp.cuda.Device(self.number).mem_info
        # What pools hold and do not use is given back where it is wanted.
        free += sum(room.pool.free_bytes() for room in self.rooms) - min(LEFT_ALONE, total // 16)
        if self.limit is not None:
            used = self.workspace.nbytes + sum(room.pool.used_bytes() for room in self.rooms)
            free = min(free, self.limit - used)
        return max(0, int(free))

    # ---------------------------------------------------------------------------------------------------------- cuDNN

    def convolution(self, op: Conv2DOp, batch: int, passes: tuple[Pass, ...]) -> Convolution | None:
        """`op` on cuDNN for `batch` images; None where it does not do that, which a remark explains."""
        if self.context is None:
            return None
        key = op, batch, passes
        if key not in self._convolutions:
            if len(self._convolutions) >= MOST_CONVOLUTIONS:
                self._convolutions.clear()
            self._convolutions[key] = self._on_cudnn(self.context, op, batch, passes)
        return self._convolutions[key]

    def _on_cudnn(self, context: Context, op: Conv2DOp, batch: int, passes: tuple[Pass, ...]) -> Convolution | None:
        reason = why_unsupported(op, batch)
        if not reason:
            try:
                made = Convolution(context.library, op, batch, self.precision)
                reason = made.choose(context, passes, workspace_limit=self.block * self.dtype.itemsize)
            except BackendError as error:  # cuDNN is a quicker way, and nothing has been run on it yet
                reason = str(error).removeprefix("backend 'cupy': ")
            if not reason:
                return made
        self.remark(f"layers[{op.layer}] runs without cuDNN: {reason}")
        return None

    def do_without_cudnn(self, reason: str) -> None:
        """Use cuDNN no more, once what it has been given has ended."""
        with self.use():
            self.stream.synchronize()
        self.context = None
        self._convolutions.clear()
        self.remark(f"convolutions run without cuDNN: {reason}")

    def remark(self, text: str) -> None:
        """Note something, once."""
        if text not in self.remarks:
            self.remarks.append(text)
