"""The PyTorch backend: float32 or float64 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from cnnkit.arrays import Parameters, dtype_of
from cnnkit.backend import Backend
from cnnkit.optimizers import Optimizer
from cnnkit.parameters import check_parameters
from cnnkit.plan import Plan
from cnnkit.state import TrainingState, check_state

from cnnkit_torch.program import TorchProgram, TorchTrainingProgram


@final
@dataclass
class TorchBackend(Backend):
    """Runs every model that a plan can describe. `threads` is None for as many as PyTorch is set to."""

    precision: str = "float32"
    threads: int | None = None

    def compile(self, plan: Plan, parameters: Parameters) -> TorchProgram:
        check_parameters(plan, parameters)
        return TorchProgram(plan, parameters, dtype_of(self.precision), self.threads)

    def compile_training(self, plan: Plan, state: TrainingState, optimizer: Optimizer) -> TorchTrainingProgram:
        plan.require_trainable()
        check_state(plan, state, optimizer)
        return TorchTrainingProgram(plan, state, optimizer, dtype_of(self.precision), self.threads)
