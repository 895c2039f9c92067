"""A plan worked out without a GPU: the arrays and launches of its network on paper, and the kernels compiled for every GPU."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Final

import numpy as np

from cnnkit.arrays import Shape
from cnnkit.errors import BackendUnavailable
from cnnkit.optimizers import Optimizer
from cnnkit.plan import ActivationOp, DropoutOp, Plan, SoftmaxOp
from cnnkit.plugins import BackendStatus, Rehearsal
from cnnkit_batched.memory import Loose
from cnnkit_batched.network import Network
from cnnkit_batched.vector import Layout
from cnnkit_cupy import sources
from cnnkit_cupy.engine import MOST_PATCHES, CudaEngine
from cnnkit_cupy.paper import Paper
from cnnkit_cupy.precisions import dtype_outside
from cnnkit_cupy.update import kernels_of

TARGETS: Final = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")
"""Turing, Ampere, Hopper and both Blackwells; what lies between runs the code of the one before."""

COUNTS: Final = (64, 128)
"""The batches whose memory is compared. Smaller ones have sums in fewer parts."""

TAKING_IN: Final = ("gather_images_bytes", "gather_images_reals")
LEARNING: Final = ("gather_labels", "sum_losses")
"""The kernels that programs launch around a network."""


def rehearse(plan: Plan, optimizer: Optimizer | None, precision: str, limit: int | None) -> Rehearsal:
    """What `cnnkit_rehearse` answers. Memory is that of convolutions without cuDNN."""
    if optimizer is not None:
        plan.require_trainable()
    dtype = dtype_outside(precision)
    block = MOST_PATCHES if limit is None else limit // 4 // dtype.itemsize
    paper, layout = Paper(dtype), Layout(plan)
    engine, vector = CudaEngine(paper, block), paper.empty((layout.size,))
    sizes: list[int] = []
    for count in COUNTS:
        loose = Loose(engine)
        gradient = None if optimizer is None else vector
        network = Network(engine, loose, plan, layout, vector, gradient, count)
        sizes.append(loose.bytes)
    each = -(-(sizes[1] - sizes[0]) // (COUNTS[1] - COUNTS[0]))
    vectors = 1 if optimizer is None else 2 + len(optimizer.slot_names)
    fixed = vectors * layout.size * dtype.itemsize + max(0, sizes[0] - COUNTS[0] * each)
    compile_all(dtype.name)
    kernels = paper.kernels | set(TAKING_IN) | (set() if optimizer is None else {*LEARNING, *kernels_of(optimizer)})
    return Rehearsal(shapes_of(network, plan), sorted(kernels), TARGETS, fixed, each)


def shapes_of(network: Network, plan: Plan) -> list[Shape]:
    """The shape of what each operation gives, from the network's arrays."""
    shape: Shape = network.images.shape[1:]
    shapes = []
    for op in plan.operations:
        if isinstance(op, SoftmaxOp):
            shape = network.probabilities.shape[1:]
        elif not isinstance(op, (ActivationOp, DropoutOp)):  # those change no shape, and may be done elsewhere
            shape = network.shapes.get((op.layer, type(op)), shape)
        shapes.append(tuple(shape))
    return shapes


@cache
def compile_all(dtype: str) -> None:
    """Compile all kernels for all targets, which takes seconds and no GPU; what the compiler refuses is an error."""
    cp: Any = importlib.import_module("cupy")
    for target in TARGETS:
        try:
            program = cp.cuda.compiler._NVRTCProgram(sources.source(), "kernels.cu", method="cubin")  # noqa: SLF001 - CuPy's other ways ask for a GPU
            program.compile((*sources.compile_options(np.dtype(dtype)), *sources.ADDED, f"-arch={target}"))
        except (RuntimeError, cp.cuda.compiler.CompileException) as error:
            reason = f"its kernels do not compile for {target}: {' '.join(str(error).split())}"
            fix = "Install NVIDIA's compiler: python -m pip install nvidia-cuda-nvrtc"
            status = BackendStatus("cupy", "broken", reason, fix, error=error)
            raise BackendUnavailable(f"Backend 'cupy': {reason}. {fix}.", status) from error
