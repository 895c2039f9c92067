"""The backend `cupy`: whole batches on one GPU, float32, float64 or tf32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from cnnkit.arrays import Parameters
from cnnkit.backend import Backend, MemoryEstimate
from cnnkit.optimizers import Optimizer
from cnnkit.parameters import check_parameters
from cnnkit.plan import Plan
from cnnkit.state import TrainingState, check_state
from cnnkit_cupy.card import Card
from cnnkit_cupy.networks import Sizes
from cnnkit_cupy.program import CupyProgram, CupyTrainingProgram


@final
@dataclass
class CupyBackend(Backend):
    """Runs every model that a plan can describe, on `card`. With `graphs`, steps are recorded and replayed."""

    card: Card
    graphs: bool = True

    def compile(self, plan: Plan, parameters: Parameters) -> CupyProgram:
        check_parameters(plan, parameters)
        return CupyProgram(plan, parameters, self.card)

    def compile_training(self, plan: Plan, state: TrainingState, optimizer: Optimizer) -> CupyTrainingProgram:
        plan.require_trainable()
        check_state(plan, state, optimizer)
        return CupyTrainingProgram(plan, state, optimizer, self.card, graphs=self.graphs)

    def estimate_memory(self, plan: Plan, optimizer: Optimizer | None, batch_size: int) -> MemoryEstimate:
        """On the GPU, for batches that are not cut into slices."""
        with self.card.use():
            sizes = Sizes(plan, self.card.dtype, self.card.block, self.card.convolution)
            vectors = 1 if optimizer is None else 2 + len(optimizer.slot_names)
            fixed = vectors * sizes.layout.size * self.card.dtype.itemsize
            return MemoryEstimate(
                fixed + sizes.measured(batch_size, learns=optimizer is not None).bytes,
                f"on GPU {self.card.number}, {batch_size} images at a time, in slices where that is too much",
            )
