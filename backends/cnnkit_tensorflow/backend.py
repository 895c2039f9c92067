"""The TensorFlow backend: whole models as graphs, float32 or float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from cnnkit.arrays import Parameters
from cnnkit.backend import Backend, TrainingProgram
from cnnkit.optimizers import Optimizer
from cnnkit.parameters import check_parameters
from cnnkit.plan import Plan
from cnnkit.state import TrainingState, check_state
from cnnkit_tensorflow.distributed import TeamTrainingProgram
from cnnkit_tensorflow.distributed_team import Team
from cnnkit_tensorflow.program import Place, TensorFlowProgram, TensorFlowTrainingProgram


@final
@dataclass
class TensorFlowBackend(Backend):
    """Runs every model that a plan can describe, on `device`, which has TensorFlow's name, such as "/GPU:0". It trains with `team`, where there is one."""

    precision: str = "float32"
    device: str = "/CPU:0"
    xla: bool = False
    team: Team | None = None
    leads: bool = True

    def compile(self, plan: Plan, parameters: Parameters) -> TensorFlowProgram:
        check_parameters(plan, parameters)
        return TensorFlowProgram(plan, parameters, self._place)

    def compile_training(self, plan: Plan, state: TrainingState, optimizer: Optimizer) -> TrainingProgram:
        plan.require_trainable()
        check_state(plan, state, optimizer)
        if self.team is not None:
            return TeamTrainingProgram(plan, state, optimizer, self._place, self.team)
        return TensorFlowTrainingProgram(plan, state, optimizer, self._place)

    @property
    def _place(self) -> Place:
        return Place(self.device, self.precision, self.xla)
