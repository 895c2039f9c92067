"""Refuses dilation, and float64 altogether, and says so beforehand. Everything else is done by the numpy backend."""

from cnnkit.errors import BackendOptionError
from cnnkit.plan import Conv2DOp
from cnnkit.plugins import Availability, Unsupported, get_backend, hookimpl


@hookimpl
def cnnkit_probe():
    return Availability.ready(["cpu"])


@hookimpl
def cnnkit_create_backend(precision):
    if precision != "float32":
        raise BackendOptionError(f"Backend 'declared' has no {precision}. Use float32.")
    return get_backend("numpy")


@hookimpl
def cnnkit_supports(plan, precision):
    if precision != "float32":
        return [Unsupported("", "precision.float64", "the hardware has none")]
    return [
        Unsupported(f"layers[{op.layer}].dilation", "conv2d.dilation", "there is no kernel for it")
        for op in plan.operations
        if isinstance(op, Conv2DOp) and op.dilation != (1, 1)
    ]
