"""The step of an optimizer over all parameters, as calls of kernels; what changes from step to step stands on the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import numpy as np

from cnnkit.optimizers import SGD, Adam, AdamW, Optimizer, rate_at
from cnnkit_batched.engine import A, Calls
from cnnkit_cupy import sources
from cnnkit_cupy.room import Room

UPDATES: Final[Mapping[type[Optimizer], str]] = {SGD: "update_sgd", Adam: "update_adam", AdamW: "update_adamw"}
"""The kernels of cnnkit's own optimizers. A subclass of one may compute something else."""


def kernels_of(optimizer: Optimizer) -> tuple[str, ...]:
    """The kernels that make a step; none for an optimizer that is not one of cnnkit's own."""
    if type(optimizer) not in UPDATES:
        return ()
    clipping = () if optimizer.clip_global_norm is None else ("square_sum", "clip_factor")
    return "step_coefficients", *clipping, UPDATES[type(optimizer)]


@final
class Update:
    """The step that comes next, `steps` counted from 0, along gradients in `gradient`."""

    def __init__(self, room: Room, optimizer: Optimizer, vector: A, slots: tuple[A, ...]) -> None:
        self.room, self.optimizer, self.vector, self.slots = room, optimizer, vector, slots
        self.is_known = type(optimizer) in UPDATES
        self.step, self.rate = room.zeros((1,), np.int64), room.zeros((1,), np.float64)
        self.coefficients, self.factor = room.zeros((3,), np.float64), room.zeros((1,), np.float64)
        self.shares = sources.shares_of_vector(vector.size)
        self.partial = room.empty((self.shares,), np.float64)
        self.step_there: int | None = None
        self.rate_there: float | None = None

    def prepare(self, steps: int) -> None:
        """Bring the numbers on the GPU to where step `steps` begins, if they are not there already.

        The kernel counts the step on the GPU; until `done` is called it is unknown whether it has.
        """
        if not self.is_known:
            return
        rate = rate_at(self.optimizer.learning_rate, steps)
        if rate != self.rate_there:
            self.rate_there = None
            self.room.copy(self.room.upload(np.array([rate])), self.rate)()
            self.rate_there = rate
        if steps != self.step_there:
            self.room.copy(self.room.upload(np.array([steps], np.int64)), self.step)()
        self.step_there = None

    def done(self, steps: int) -> None:
        """The step has been made, and `steps` is the next one."""
        self.step_there = steps

    def calls(self, gradient: A) -> Calls:
        """The step along `gradient`; none for an optimizer that is not one of cnnkit's own, which `apply` is for."""
        if not self.is_known:
            return []
        kernel, optimizer = self.room.kernel, self.optimizer
        betas = (optimizer.beta_1, optimizer.beta_2) if isinstance(optimizer, (Adam, AdamW)) else (0.0, 0.0)
        decay = optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0
        count, factor = self.vector.size, None
        calls = [kernel("step_coefficients", self.step, self.rate, self.coefficients, *betas, decay)]
        if optimizer.clip_global_norm is not None:
            factor = self.factor
            calls += [
                kernel("square_sum", gradient, self.partial, count),
                kernel("clip_factor", self.partial, factor, self.shares, optimizer.clip_global_norm),
            ]
        common = (count, self.coefficients, factor)
        arrays, name = (self.vector, gradient), UPDATES[type(optimizer)]
        if isinstance(optimizer, SGD):
            velocity = self.slots[0] if self.slots else None
            numbers = (optimizer.momentum, int(optimizer.nesterov), optimizer.weight_decay)
            return [*calls, kernel(name, *arrays, velocity, *common, *numbers)]
        assert isinstance(optimizer, (Adam, AdamW))  # noqa: S101 - the others that are known
        return [*calls, kernel(name, *arrays, *self.slots, *common, *betas, optimizer.epsilon)]

    def apply(self, gradient: A, steps: int) -> None:
        """The step of an optimizer of somebody else's, in its own arithmetic. With a limit of the norm the host waits for it."""
        if self.is_known:
            return
        with self.room.allocating():
            if self.optimizer.clip_global_norm is not None:
                squares = gradient.astype(np.float64)
                squares *= squares
                gradient *= self.optimizer.clip_factor(float(squares.sum()))
            coefficients = self.optimizer.coefficients(steps)
            vector, slots = self.optimizer.apply(self.vector, gradient, self.slots, coefficients)
            for target, source in zip((self.vector, *self.slots), (vector, *slots), strict=True):
                if source is not target:  # an optimizer that does not work in place
                    target[...] = source
