"""Needs a chip that no machine has, and rehearses plans without it. It has no dilation, and says so."""

import math

from cnnkit.errors import UnsupportedModel
from cnnkit.plan import Conv2DOp
from cnnkit.plugins import (
    Availability,
    BackendStatus,
    Rehearsal,
    Unsupported,
    hookimpl,
    reject_unknown_options,
    unavailable,
)

REASON, FIX = "finds no chip", "Plug one in"


@hookimpl
def cnnkit_probe(device):
    if device not in (None, "chip"):
        return Availability.no_device(f"has no device {device!r}", "Use device='chip'")
    return Availability.no_device(REASON, FIX)


@hookimpl
def cnnkit_create_backend(options):
    reject_unknown_options("planned", options, known=["streams"])
    raise unavailable(BackendStatus("planned", "no-device", REASON, FIX))


@hookimpl
def cnnkit_supports(plan):
    return refused(plan)


def refused(plan):
    return [
        Unsupported(f"layers[{op.layer}].dilation", "conv2d.dilation", "there is no kernel for it")
        for op in plan.operations
        if isinstance(op, Conv2DOp) and op.dilation != (1, 1)
    ]


@hookimpl
def cnnkit_rehearse(plan, optimizer, precision, options):
    reject_unknown_options("planned", options, known=["streams"])
    for one in refused(plan):
        raise UnsupportedModel("planned", one.path, one.feature, one.reason)
    size = 8 if precision == "float64" else 4
    shapes = [op.output_shape for op in plan.operations]
    copies = 1 if optimizer is None else 2 + len(optimizer.slot_names)
    return Rehearsal(
        shapes=shapes,
        kernels=sorted({type(op).__name__ for op in plan.operations}),
        compiled_for=["chip-1", "chip-2"],
        bytes_fixed=size * copies * sum(spec.size for spec in plan.parameters),
        bytes_per_image=size * sum(map(math.prod, [plan.input_shape, *shapes])),
    )
