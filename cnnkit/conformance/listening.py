"""Which plans the cases of tier `run` compile, found by trying each on a backend that only listens.

So that tier `plan` speaks of the same models, and a case that is added to one tier is in the other as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnnkit.arrays import Array, Images, Labels, Parameters
from cnnkit.backend import Backend, TrainingProgram
from cnnkit.conformance.case import Case
from cnnkit.conformance.measure import Numbers
from cnnkit.conformance.question import Question
from cnnkit.conformance.subject import Subject
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.state import TrainingState


@dataclass(frozen=True)
class Heard:
    """Something that a case compiles, for training if there is an optimizer, and the first case that does."""

    plan: Plan
    optimizer: Optimizer | None
    case: str


def heard_in(cases: Iterable[Case]) -> list[Heard]:
    """What the cases compile, each plan with each optimizer once, in the order in which it is first heard."""
    found: dict[tuple[Plan, Optimizer | None], Heard] = {}
    for case in cases:

        def listen(plan: Plan, optimizer: Optimizer | None, name: str = case.id) -> None:
            found.setdefault((plan, optimizer), Heard(plan, optimizer, name))

        case.body(_Patient(_Listening(listen)))
    return list(found.values())


class _Patient(Subject):
    """A subject that is content with any answer."""

    def ask(self, question: Question, expected: dict[str, Numbers] | None = None) -> None:  # noqa: ARG002 - see above
        """Answer, and compare with nothing."""
        self.answer(question)

    def compare(self, what: str, answer: Any, expected: Numbers) -> None:
        """Be content."""

    def same(self, what: str, one: Any, other: Any) -> None:
        """Be content."""

    def expect(self, condition: bool, message: str) -> None:
        """Be content."""

    def raises(self, what: str, kind: type[Exception], call: Callable[[], object]) -> Exception:  # noqa: ARG002 - see above
        """Return an error of the `kind`, whether `call` raises one or only a backend would."""
        try:
            call()
        except kind as error:
            return error
        return kind.__new__(kind)  # some cannot be made without saying what is wrong


class _Listening(Backend):
    """Hands on what it is to compile, and answers with zeros."""

    def __init__(self, listen: Callable[[Plan, Optimizer | None], None]) -> None:
        self.listen = listen

    def compile(self, plan: Plan, parameters: Parameters) -> TrainingProgram:
        self.listen(plan, None)
        return _Zeros(plan, TrainingState(parameters, {}, 0, 0))

    def compile_training(self, plan: Plan, state: TrainingState, optimizer: Optimizer) -> TrainingProgram:
        plan.require_trainable()
        self.listen(plan, optimizer)
        return _Zeros(plan, state)


class _Zeros(TrainingProgram):
    def __init__(self, plan: Plan, where: TrainingState) -> None:
        self.plan, self.where = plan, _copied(where)

    def predict(self, images: Images) -> Array:
        return np.zeros((len(images), *self.plan.output_shape), np.float32)

    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:  # noqa: ARG002 - zeros
        return 0.0, {name: np.zeros_like(array) for name, array in self.where.parameters.items()}

    def step(self, images: Images, labels: Labels) -> float:  # noqa: ARG002 - zeros
        self.where = replace(self.where, step=self.where.step + 1)
        return 0.0

    def state(self) -> TrainingState:
        return _copied(self.where)


def _copied(state: TrainingState) -> TrainingState:
    """A state whose dictionaries are its own: cases empty those that they hand over and get."""
    slots = {slot: dict(arrays) for slot, arrays in state.slots.items()}
    return replace(state, parameters=dict(state.parameters), slots=slots)
