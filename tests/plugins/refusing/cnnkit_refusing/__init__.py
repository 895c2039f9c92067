"""Refuses dilation when it compiles, and has not said so beforehand. Everything else is done by the numpy backend."""

from dataclasses import dataclass

from cnnkit.backend import Backend
from cnnkit.errors import UnsupportedModel
from cnnkit.plan import Conv2DOp
from cnnkit.plugins import Availability, get_backend, hookimpl


def refuse_dilation(plan):
    for op in plan.operations:
        if isinstance(op, Conv2DOp) and op.dilation != (1, 1):
            raise UnsupportedModel("refusing", f"layers[{op.layer}].dilation", "conv2d.dilation", "there is no kernel")


@dataclass(frozen=True)
class RefusingBackend(Backend):
    inner: Backend

    def compile(self, plan, parameters):
        refuse_dilation(plan)
        return self.inner.compile(plan, parameters)

    def compile_training(self, plan, state, optimizer):
        refuse_dilation(plan)
        return self.inner.compile_training(plan, state, optimizer)


@hookimpl
def cnnkit_probe():
    return Availability.ready(["cpu"])


@hookimpl
def cnnkit_create_backend(precision):
    return RefusingBackend(get_backend("numpy", None, precision))
