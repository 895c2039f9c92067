"""Predicts as the numpy backend does, and does not train."""

from dataclasses import dataclass
from pathlib import Path

from cnnkit.backend import Backend
from cnnkit.plugins import Availability, get_backend, hookimpl


@dataclass(frozen=True)
class PredictingBackend(Backend):
    inner: Backend

    def compile(self, plan, parameters):
        return self.inner.compile(plan, parameters)


@hookimpl
def cnnkit_probe():
    return Availability.ready(["cpu"])


@hookimpl
def cnnkit_create_backend(precision):
    return PredictingBackend(get_backend("numpy", None, precision))


@hookimpl
def cnnkit_deviations():
    return Path(__file__).with_name("conformance.toml")
