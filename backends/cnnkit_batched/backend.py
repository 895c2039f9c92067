"""The backend `numpy-batched`: slices of a batch on NumPy, float32 or float64, any number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from cnnkit.arrays import Parameters, dtype_of
from cnnkit.backend import Backend, MemoryEstimate
from cnnkit.optimizers import Optimizer
from cnnkit.parameters import check_parameters
from cnnkit.plan import Plan
from cnnkit.state import TrainingState, check_state
from cnnkit_batched.program import BatchedProgram, BatchedTrainingProgram
from cnnkit_batched.sizing import Sizing, size


@final
@dataclass
class BatchedBackend(Backend):
    """Runs every model that a plan can describe. Results are the same to the last bit for every number of threads."""

    precision: str = "float32"
    threads: int = 1
    memory_limit: int | None = None
    """Bytes that one program may take, beside the images that it is given."""

    def compile(self, plan: Plan, parameters: Parameters) -> BatchedProgram:
        check_parameters(plan, parameters)
        return BatchedProgram(self._size(plan, 0, learns=False), parameters, dtype_of(self.precision))

    def compile_training(self, plan: Plan, state: TrainingState, optimizer: Optimizer) -> BatchedTrainingProgram:
        plan.require_trainable()
        check_state(plan, state, optimizer)
        sizing = self._size(plan, len(optimizer.slot_names), learns=True)
        return BatchedTrainingProgram(sizing, state, optimizer, dtype_of(self.precision))

    def estimate_memory(self, plan: Plan, optimizer: Optimizer | None, batch_size: int) -> MemoryEstimate:  # noqa: ARG002 - slices, not batches, take memory
        slots = len(optimizer.slot_names) if optimizer else 0
        return self._size(plan, slots, learns=optimizer is not None).estimate

    def _size(self, plan: Plan, slots: int, *, learns: bool) -> Sizing:
        return size(plan, dtype_of(self.precision), self.threads, slots, self.memory_limit, learns=learns)
