"""A backend as a contestant on the card, through the contract; and layer by layer where it offers that.

The contract has no single layers. A backend whose plugin is `package.plugin` takes part in the table of layers with a module
`package.bench`, whose `layer_calls(backend, task)` returns `LayerCalls` for the backend that `get_backend` made.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, final

from cnnkit import plugins
from cnnkit.arrays import Array, Parameters
from cnnkit.backend import Backend
from cnnkit.bench.batches.learner import Learner, predict_in_parts
from cnnkit.bench.batches.workload import Workload
from cnnkit.bench.gpu.contestant import LayerCalls
from cnnkit.bench.gpu.models import LayerTask
from cnnkit.errors import BackendError
from cnnkit.plugins import get_backend, require_support
from cnnkit.state import initial_state


def make(workload: Workload, backend: str, device: str, precision: str, options: Mapping[str, Any]) -> Learner:
    """The learner of `backend`."""
    return _ByContract(workload, get_backend(backend, device=device, precision=precision, **options))


def layer(task: LayerTask, backend: str, device: str, precision: str, options: Mapping[str, Any]) -> LayerCalls:
    """One layer of `backend`; a `BackendError` where it does not offer that."""
    name = layer_module(backend)
    if name is None:
        raise BackendError(
            f"backend '{backend}' has no module for single layers; only whole steps of it can be measured."
        )
    made = get_backend(backend, device=device, precision=precision, **options)
    calls: LayerCalls = importlib.import_module(name).layer_calls(made, task)
    return calls


def layer_module(backend: str) -> str | None:
    """The name of the module that gives single layers of `backend`; None where there is none."""
    name = f"{plugins.status(backend).module.rpartition('.')[0]}.bench"
    return name if importlib.util.find_spec(name) is not None else None


@final
class _ByContract(Learner):
    """One training program, whose `epoch` gets the whole order, and whose `predict` gets a batch at a time."""

    def __init__(self, workload: Workload, backend: Backend) -> None:
        super().__init__(workload)
        self.name = backend.selection.name if backend.selection else ""
        plan, optimizer = workload.model.plan(), workload.optimizer
        require_support(backend, plan)
        state = initial_state(workload.model, optimizer, workload.seed)
        self.program = backend.compile_training(plan, state, optimizer)

    @property
    def versions(self) -> Mapping[str, str]:
        found = plugins.status(self.name)
        return {**found.versions, found.distribution: found.distribution_version}

    @property
    def draws_masks(self) -> bool:
        return False

    def train(self) -> float:
        task = self.workload
        totals = self.program.epoch(task.images, task.labels, task.order, task.batch_size)
        return totals.loss_sum / totals.count

    def predict(self) -> Array:
        return predict_in_parts(self.program.predict, self.workload.images, self.workload.batch_size)

    def parameters(self) -> Parameters:
        return self.program.state().parameters
