"""The backend `numpy-batched`: slices of a batch on NumPy, float32 or float64, any number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from cnnkit.arrays import Parameters, dtype_of
from cnnkit.backend import Backend
from cnnkit.optimizers import Optimizer
from cnnkit.parameters import check_parameters
from cnnkit.plan import Plan
from cnnkit.state import TrainingState, check_state
from cnnkit_batched.program import BatchedProgram, BatchedTrainingProgram


@final
@dataclass
class BatchedBackend(Backend):
    """Runs every model that a plan can describe. Results are the same to the last bit for every number of threads."""

    precision: str = "float32"
    threads: int = 1

    def compile(self, plan: Plan, parameters: Parameters) -> BatchedProgram:
        check_parameters(plan, parameters)
        return BatchedProgram(plan, parameters, dtype_of(self.precision), self.threads)

    def compile_training(self, plan: Plan, state: TrainingState, optimizer: Optimizer) -> BatchedTrainingProgram:
        plan.require_trainable()
        check_state(plan, state, optimizer)
        return BatchedTrainingProgram(plan, state, optimizer, dtype_of(self.precision), self.threads)
