"""A backend as a contestant, through the contract as `fit` drives it (`epoch`), or through `fit` itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from cnnkit import plugins
from cnnkit.arrays import Array, Parameters
from cnnkit.backend import Backend
from cnnkit.bench.batches.learner import Learner, predict_in_parts
from cnnkit.bench.batches.workload import Workload
from cnnkit.datasets import Dataset
from cnnkit.errors import BackendOptionError
from cnnkit.evaluation import BATCH_SIZE, predict
from cnnkit.plugins import get_backend, naming_alternatives, require_support
from cnnkit.state import initial_state
from cnnkit.training import fit


def make(workload: Workload, backend: str, way: str, options: Mapping[str, Any]) -> Learner:
    """The learner of `backend`; `way` is "epoch" or "fit"."""
    return (_ByFit if way == "fit" else _ByEpoch)(workload, backend, options)


class _BackendLearner(Learner):
    def __init__(self, workload: Workload, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(workload)
        self.name = name
        self.backend, self._remarks = _with_threads(name, workload.threads, options)

    @property
    def versions(self) -> Mapping[str, str]:
        found = plugins.status(self.name)
        return {**found.versions, found.distribution: found.distribution_version}

    @property
    def draws_masks(self) -> bool:
        return False

    @property
    def remarks(self) -> Sequence[str]:
        return self._remarks


def _with_threads(name: str, threads: int, options: Mapping[str, Any]) -> tuple[Backend, list[str]]:
    if "threads" in options:
        return get_backend(name, **options), []
    try:
        return get_backend(name, threads=threads, **options), []
    except BackendOptionError:
        # It has no such option, or another option is wrong, which comes out here. Its engine may still read the
        # environment of the process, and the report says on how many cores it ran.
        return get_backend(name, **options), [f"{name} has no option threads; only the environment asked for {threads}"]


@final
class _ByEpoch(_BackendLearner):
    """One training program, whose `epoch` gets the whole order."""

    def __init__(self, workload: Workload, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(workload, name, options)
        plan, optimizer = workload.model.plan(), workload.optimizer
        require_support(self.backend, plan)
        with naming_alternatives(self.backend, plan):
            state = initial_state(workload.model, optimizer, workload.seed)
            self.program = self.backend.compile_training(plan, state, optimizer)

    def train(self) -> float:
        task = self.workload
        totals = self.program.epoch(task.images, task.labels, task.order, task.batch_size)
        return totals.loss_sum / totals.count

    def predict(self) -> Array:
        return predict_in_parts(self.program.predict, self.workload.images, BATCH_SIZE)

    def parameters(self) -> Parameters:
        return self.program.state().parameters


@final
class _ByFit(_BackendLearner):
    """`cnnkit.fit` for one epoch after the other, each going on where the last ended, and `cnnkit.predict`."""

    def __init__(self, workload: Workload, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(workload, name, options)
        self.data = Dataset(workload.images, workload.labels)
        self.state = initial_state(workload.model, workload.optimizer, workload.seed)

    def train(self) -> float:
        task = self.workload
        run = fit(
            task.model,
            self.data,
            backend=self.backend,
            optimizer=task.optimizer,
            batch_size=task.batch_size,
            seed=task.seed,
            initial=self.state,
            train_metrics=False,
        )
        self.state = run.state
        return run.history[-1].running_loss

    def predict(self) -> Array:
        return predict(self.workload.model, self.state.parameters, self.workload.images, backend=self.backend)

    def parameters(self) -> Parameters:
        return self.state.parameters
