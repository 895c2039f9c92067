"""A plugin that works: it hands everything on to the numpy backend, got as anybody gets it."""

from dataclasses import dataclass

from cnnkit.backend import Backend
from cnnkit.plugins import Availability, get_backend, hookimpl, status, unsupported


@dataclass(frozen=True)
class LoopbackBackend(Backend):
    inner: Backend

    def compile(self, plan, parameters):
        return self.inner.compile(plan, parameters)

    def compile_training(self, plan, state, optimizer):
        return self.inner.compile_training(plan, state, optimizer)


@hookimpl
def cnnkit_probe(device):
    inner = status("numpy", device)
    return Availability(inner.state, inner.reason, inner.fix, inner.devices, inner.versions)


@hookimpl
def cnnkit_create_backend(device, precision, options):
    return LoopbackBackend(get_backend("numpy", device, precision, **options))


@hookimpl
def cnnkit_supports(plan, device, precision):
    return unsupported("numpy", plan, device, precision)
