"""The state of training: everything that a backend needs to go on where another one stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnnkit.arrays import Array, Parameters
from cnnkit.errors import DataError
from cnnkit.model import Model
from cnnkit.optimizers import Optimizer
from cnnkit.parameters import check_parameters, initial_parameters
from cnnkit.plan import Plan


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Parameters, optimizer slots, the number of steps done, and the seed of the run.

    `slots[slot][name]` belongs to the parameter `name` and has its shape, for every slot in the optimizer's
    `slot_names`: `state.slots["velocity"]["1.kernel"]`. A state taken from one backend continues on any other.
    """

    parameters: Parameters
    slots: Mapping[str, Parameters]
    step: int
    seed: int

    def __repr__(self) -> str:
        """Short: the arrays would fill pages."""
        count = sum(array.size for array in self.parameters.values())
        return f"TrainingState({count:,} parameters, slots {_names(self.slots)}, step {self.step}, seed {self.seed})"


def initial_state(model: Model, optimizer: Optimizer, seed: int = 0, precision: str = "float32") -> TrainingState:
    """The state in which training begins: parameters drawn from `seed`, every slot zero, no step done."""
    return fresh_state(initial_parameters(model, seed, precision), optimizer, seed)


def fresh_state(parameters: Parameters, optimizer: Optimizer, seed: int = 0) -> TrainingState:
    """A state that begins at `parameters`, which are copied: every slot zero, no step done."""
    slots = {slot: {name: np.zeros_like(array) for name, array in parameters.items()} for slot in optimizer.slot_names}
    return TrainingState({name: array.copy() for name, array in parameters.items()}, slots, 0, seed)


def check_state(plan: Plan, state: TrainingState, optimizer: Optimizer) -> None:
    """Raise `DataError` unless `state` has what `plan` and `optimizer` need."""
    check_parameters(plan, state.parameters)
    if set(state.slots) != set(optimizer.slot_names):
        raise DataError(
            f"the state has slots {_names(state.slots)}, but {type(optimizer).__name__} keeps "
            f"{_names(optimizer.slot_names)}. Continue with the optimizer that made the state, or begin a new one with "
            "cnnkit.fresh_state(state.parameters, optimizer)."
        )
    for name in ("step", "seed"):
        value = getattr(state, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise DataError(f"the state has {name} {value!r}; expected a whole number of at least 0.")
    for slot in optimizer.slot_names:
        check_parameters(plan, state.slots[slot])


def same_state(one: TrainingState, other: TrainingState) -> bool:
    """Whether two states are equal to the last bit, NaN being equal to itself."""
    return (
        (one.step, one.seed) == (other.step, other.seed)
        and _same(one.parameters, other.parameters)
        and one.slots.keys() == other.slots.keys()
        and all(_same(one.slots[slot], other.slots[slot]) for slot in one.slots)
    )


def _same(one: Parameters, other: Parameters) -> bool:
    return one.keys() == other.keys() and all(_same_bits(one[name], other[name]) for name in one)


def _same_bits(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _names(names: Mapping[str, Parameters] | tuple[str, ...]) -> str:
    return ", ".join(sorted(names)) or "none"
