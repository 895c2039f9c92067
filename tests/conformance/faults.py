"""A right backend, and that backend with one fault planted in it: in a layer, in the gradients or in the optimizer."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

import cnnkit
from cnnkit.backend import Backend, TrainingProgram
from cnnkit.plan import ActivationOp, AvgPool2DOp, Conv2DOp, MaxPool2DOp


def right(precision="float32"):
    """The right backend."""
    return cnnkit.get_backend("numpy", precision=precision)


def same(anything):
    """What is there where nothing is wrong."""
    return anything


def one(_):
    """The factor of right gradients."""
    return 1


@dataclass(frozen=True)
class Faulty(Backend):
    """`operation` rewrites each operation of the plan, `optimizer` the optimizer; gradients are times `factor(images)`."""

    operation: Any = same
    optimizer: Any = same
    factor: Any = one
    precision: str = "float32"

    def compile(self, plan, parameters):
        return right(self.precision).compile(self._rewritten(plan), parameters)

    def compile_training(self, plan, state, optimizer):
        rewritten = self._rewritten(plan), state, self.optimizer(optimizer)
        return FaultyProgram(right(self.precision).compile_training(*rewritten), self.factor)

    def _rewritten(self, plan):
        return replace(plan, operations=tuple(self.operation(op) for op in plan.operations))


class FaultyProgram(TrainingProgram):
    def __init__(self, program, factor):
        self.program, self.factor = program, factor
        self.predict, self.step, self.state = program.predict, program.step, program.state

    predict = step = state = None  # the right program's, set above; here so that the class is not abstract

    def gradients(self, images, labels):
        loss, found = self.program.gradients(images, labels)
        factor = self.factor(images)
        return loss, {name: (array * factor).astype(array.dtype) for name, array in found.items()}


@dataclass(frozen=True)
class Rounding(Backend):
    """Right, but rounds as an engine that works on tiles: by the largest number of an output, not by each."""

    def compile(self, plan, parameters):
        program = right().compile(plan, parameters)
        convolves = any(isinstance(op, Conv2DOp) for op in plan.operations)
        return RoundingProgram(program, 4 * 2**-24 if convolves else 0.0)


@dataclass(frozen=True)
class RoundingProgram(cnnkit.Program):
    program: Any
    noise: float

    def predict(self, images):
        output = self.program.predict(images)
        largest = np.abs(output).max(initial=0.0)
        return output + output.dtype.type(self.noise * largest)


def _wrong_side(op):
    return replace(op, padding=tuple(side[::-1] for side in op.padding)) if isinstance(op, Conv2DOp) else op


def _no_tanh(op):
    is_tanh = isinstance(op, ActivationOp) and op.function == "tanh"
    return replace(op, function="sigmoid") if is_tanh else op


def _mean_for_maximum(op):
    if not isinstance(op, MaxPool2DOp):
        return op
    return AvgPool2DOp(**{field.name: getattr(op, field.name) for field in fields(op)})


def _slower(optimizer):
    return replace(optimizer, learning_rate=0.0999) if optimizer.learning_rate == 0.1 else optimizer


WRONG_SIDE = Faulty(operation=_wrong_side)
NO_TANH = Faulty(operation=_no_tanh)
MEAN_FOR_MAXIMUM = Faulty(operation=_mean_for_maximum)
SLOWER = Faulty(optimizer=_slower)
SUMMED = Faulty(factor=len)
FAULTS = {
    "wrong-side": WRONG_SIDE,
    "no-tanh": NO_TANH,
    "mean-for-maximum": MEAN_FOR_MAXIMUM,
    "slower": SLOWER,
    "summed": SUMMED,
}
