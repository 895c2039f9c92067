"""The backend `cupy`: whole batches on one GPU, float32, float64 or tf32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from cnnkit.arrays import Parameters
from cnnkit.backend import Backend, MemoryEstimate
from cnnkit.errors import OutOfMemory
from cnnkit.optimizers import Optimizer
from cnnkit.parameters import check_parameters
from cnnkit.plan import Plan
from cnnkit.state import TrainingState, check_state
from cnnkit_cupy.card import Card
from cnnkit_cupy.networks import Sizes
from cnnkit_cupy.program import CupyProgram, CupyTrainingProgram
from cnnkit_cupy.words import amount


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
        """On the GPU. Batches that do not fit are cut into slices."""
        card, learns = self.card, optimizer is not None
        with card.use():
            sizes = Sizes(plan, card.dtype, card.block, card.convolution)
            vectors = 1 if optimizer is None else 3 + len(optimizer.slot_names)
            fixed = vectors * sizes.layout.size * card.dtype.itemsize
            limit, _ = card.cp.cuda.Device(card.number).mem_info if card.limit is None else (card.limit, None)
            images = sizes.most(batch_size, limit - fixed, learns=learns)
            if images == 0:
                least = fixed + sizes.measured(1, learns=learns).bytes
                raise OutOfMemory(
                    f"backend 'cupy': {plan.model.title} takes {amount(least)} to {'train' if learns else 'predict'} one "
                    f"image at a time, and {amount(limit)} are there. Give it more, or use a smaller model.",
                    asked=least,
                    free=limit,
                )
            taken = fixed + sizes.measured(images, learns=learns).bytes
            return MemoryEstimate(taken, f"on GPU {card.number}, {images} images at a time")
