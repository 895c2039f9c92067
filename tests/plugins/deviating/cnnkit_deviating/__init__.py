"""Forgets the bias of one model. Everything else is done by the numpy backend; the ledger says so.

The ledger is the file beside this one, unless the environment variable DEVIATING_LEDGER names another.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnkit.backend import Backend
from cnnkit.plugins import Availability, get_backend, hookimpl


@dataclass(frozen=True)
class DeviatingBackend(Backend):
    inner: Backend

    def compile(self, plan, parameters):
        if len(plan.operations) == 1 and plan.output_shape == (17,) and "0.bias" in parameters:
            parameters = {**parameters, "0.bias": np.zeros_like(parameters["0.bias"])}
        return self.inner.compile(plan, parameters)

    def compile_training(self, plan, state, optimizer):
        return self.inner.compile_training(plan, state, optimizer)


@hookimpl
def cnnkit_probe():
    return Availability.ready(["cpu"])


@hookimpl
def cnnkit_create_backend(precision):
    return DeviatingBackend(get_backend("numpy", None, precision))


@hookimpl
def cnnkit_deviations():
    return Path(os.environ.get("DEVIATING_LEDGER") or Path(__file__).with_name("conformance.toml"))
