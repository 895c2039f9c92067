"""Convolutions on cuDNN: a handle on the device, algorithms that give the same bits each time, and the three passes.

Nothing here knows CuPy: memory is the caller's, and pointers and streams are whole numbers. `cudnn_descriptors` says how
arrays are laid out, the kernel among them, and what cuDNN cannot do; `cudnn_library` where cuDNN is.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from ctypes import byref, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from typing import final

from cnnkit.errors import BackendError
from cnnkit.plan import Conv2DOp
from cnnkit_cupy.cudnn_descriptors import PASSES, ROUTES, Descriptors, Pass
from cnnkit_cupy.cudnn_library import CUDNN_DETERMINISTIC, CUDNN_STATUS_SUCCESS, Library, Performance


@dataclass(frozen=True)
class Algorithm:
    """What cuDNN runs for one pass: its number among those of the pass, its math type, and the bytes of workspace it needs."""

    number: int
    math_type: int
    workspace: int


@final
class Context:
    """cuDNN's handle on the device that is current when it is made; a `BackendError` where there is none.

    It is for one thread at a time. `close`, or leaving a `with`, gives its memory on the device back.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._handle = c_void_p()
        library.call("cudnnCreate", byref(self._handle))
        self._stream: int | None = None
        self._free = weakref.finalize(self, library.call, "cudnnDestroy", self._handle)
        self._free.atexit = False  # the driver may be gone by then, and takes everything with it

    @property
    def handle(self) -> c_void_p:
        """What cuDNN's functions take; a `BackendError` after `close`, where they would crash."""
        if not self._free.alive:
            raise BackendError("backend 'cupy': this context of cuDNN is closed. Make another one.")
        return self._handle

    def use_stream(self, stream: int) -> None:
        """Let what follows run on the CUDA stream `stream`, 0 being the default one."""
        if stream != self._stream:
            self.library.call("cudnnSetStream", self.handle, stream)
            self._stream = stream

    def close(self) -> None:
        """Free the handle, once what runs on the device has ended. Using it after that is a `BackendError`."""
        self._free()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class Convolution:
    """The operation `op` on batches of `batch` images, in "float32", "tf32" (float32 with rounded factors) or "float64".

    It is described to cuDNN when it is made, which needs no GPU and raises what `Descriptors` raises. Then `choose` picks
    algorithms, and the passes can be run. `descriptors` has the shapes of the arrays.
    """

    def __init__(self, library: Library, op: Conv2DOp, batch: int, precision: str) -> None:
        self.library, self.precision = library, precision
        self.descriptors = Descriptors(library, op, batch, precision)
        self.algorithms: dict[Pass, Algorithm] = {}
        self._context: Context | None = None
        scalar = self.descriptors.arithmetic.scalar
        self._one, self._zero = scalar(1.0), scalar(0.0)

    def close(self) -> None:
        """Free cuDNN's descriptors. Using it after that is a `BackendError`."""
        self.descriptors.close()

    @property
    def workspace(self) -> int:
        """How many bytes of workspace serve each of the passes that `choose` found an algorithm for."""
        return max((algorithm.workspace for algorithm in self.algorithms.values()), default=0)

    # ------------------------------------------------------------------------------------------------ the algorithms

    def choose(
        self,
        context: Context,
        passes: Iterable[Pass] = PASSES,
        *,
        deterministic: bool = True,
        workspace_limit: int | None = None,
    ) -> str:
        """Choose for each of `passes` the algorithm that cuDNN expects to be the fastest on the device of `context`.

        Only those are chosen that sum products, keep to the precision, give the same bits each time, unless `deterministic`
        is False, and need at most `workspace_limit` bytes. Nothing is run, and the same question gets the same answer.

        Returns:
            Why there is none for one of the passes, or nothing: then they can be run, in `context`.
        """
        self._context = context
        self.algorithms.clear()
        for name in passes:
            offered = self._offered(context, name)
            for performance in offered:
                if deterministic and performance.determinism != CUDNN_DETERMINISTIC:
                    continue
                algorithm = self._prepared(context, name, performance)
                if algorithm and (workspace_limit is None or algorithm.workspace <= workspace_limit):
                    self.algorithms[name] = algorithm
                    break
            else:
                self.algorithms.clear()
                return self._why_none(name, len(offered), deterministic, workspace_limit)
        return ""

    def _offered(self, context: Context, name: Pass) -> list[Performance]:
        """What cuDNN offers for a pass, fastest first by its own estimate, less what sums no products."""
        direction = ROUTES[name].direction
        most, count = c_int(), c_int()
        self.library.call(f"cudnnGetConvolution{direction}AlgorithmMaxCount", context.handle, byref(most))
        table = (Performance * most.value)()
        self.descriptors.use_math(name, self.descriptors.arithmetic.asked)  # not what was chosen before
        heuristics = f"cudnnGetConvolution{direction}Algorithm_v7"
        if not self.library.offers(
            heuristics, context.handle, *self.descriptors.of(name), most.value, byref(count), table
        ):
            return []
        offered = [one for one in table[: count.value] if one.status == CUDNN_STATUS_SUCCESS]
        return [one for one in offered if one.algo in ROUTES[name].algorithms]

    def _prepared(self, context: Context, name: Pass, offered: Performance) -> Algorithm | None:
        """The algorithm, its math type set, with the workspace that it needs then; None where cuDNN lacks it so.

        An offer may come with a math type that the precision forbids: its workspace says whether there is one without.
        """
        arithmetic = self.descriptors.arithmetic
        math_type = offered.mathType if offered.mathType in arithmetic.allowed else arithmetic.asked
        self.descriptors.use_math(name, math_type)
        size = c_size_t()
        ask = f"cudnnGetConvolution{ROUTES[name].direction}WorkspaceSize"
        if not self.library.offers(ask, context.handle, *self.descriptors.of(name), offered.algo, byref(size)):
            return None
        return Algorithm(offered.algo, math_type, size.value)

    def _why_none(self, name: Pass, offered: int, deterministic: bool, workspace_limit: int | None) -> str:
        wanted = [f"computes in {self.precision}"]
        wanted += ["gives the same bits each time"] if deterministic else []
        wanted += [f"needs at most {workspace_limit} bytes of workspace"] if workspace_limit is not None else []
        return f"of {offered} algorithms without transform that cuDNN offers for {name}, none {' and '.join(wanted)}"

    # ---------------------------------------------------------------------------------------------------- the passes

    def forward(self, x: int, w: int, y: int, workspace: int, stream: int) -> None:
        """Write y, the cross-correlation of x with w, without bias. Every array is given by its address on the device.

        `workspace` is that of at least `self.workspace` bytes, and `stream` the CUDA stream. Nothing is waited for.
        """
        self._run("forward", {"x": x, "w": w, "y": y}, workspace, stream)

    def backward_data(self, w: int, dy: int, dx: int, workspace: int, stream: int) -> None:
        """Write dx, the gradient of the images, as in `forward`."""
        self._run("backward_data", {"w": w, "y": dy, "x": dx}, workspace, stream)

    def backward_filter(self, x: int, dy: int, dw: int, workspace: int, stream: int) -> None:
        """Write dw, the gradient of the kernel with its filters first, summed over the batch, as in `forward`."""
        self._run("backward_filter", {"x": x, "y": dy, "w": dw}, workspace, stream)

    def _run(self, name: Pass, arrays: Mapping[str, int], workspace: int, stream: int) -> None:
        algorithm, context = self.algorithms.get(name), self._context
        if algorithm is None or context is None:
            raise BackendError(f"backend 'cupy': cuDNN has no algorithm for {name} yet. Call choose() for it first.")
        first, second, convolution, output = self.descriptors.of(name)
        one, other = (arrays[key] for key in ROUTES[name].inputs)
        context.use_stream(stream)
        self.library.call(
            f"cudnnConvolution{ROUTES[name].direction}",
            context.handle,
            byref(self._one),
            first,
            one,
            second,
            other,
            convolution,
            algorithm.number,
            workspace,
            algorithm.workspace,
            byref(self._zero),
            output,
            arrays[ROUTES[name].output],
        )
