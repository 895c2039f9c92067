"""Cases of states: what one program hands over, another one goes on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from cnnkit.arrays import Array
from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.material import (
    check_output,
    check_state,
    copied_state,
    draw_slots,
    start,
    take_steps,
    trial,
)
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.conformance.subject import Subject
from cnnkit.model import Dense, Dropout, Softmax
from cnnkit.optimizers import SGD, Adam, AdamW, CosineDecay, Optimizer

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(learning_rate=0.3),
    "momentum": SGD(learning_rate=0.3, momentum=0.8),
    "nesterov": SGD(learning_rate=0.3, momentum=0.8, nesterov=True),
    "adam": Adam(learning_rate=0.05),
    "adamw": AdamW(learning_rate=CosineDecay(0.05, steps=6), weight_decay=0.1),
}

DROPNET = (Dense(units=8, activation="tanh"), Dropout(rate=0.4), Dense(units=4), Softmax())


def _with_slots(question: Question) -> Question:
    assert question.optimizer is not None  # noqa: S101 - every case here has one
    slots = draw_slots(question.model, question.optimizer, question.precision)
    return replace(question, slots=slots, step=7, seed=5)


def _round_trip(subject: Subject, question: Question) -> None:
    asked = _with_slots(question)
    given = copied_state(asked.state)
    subject.same_states(
        "a state, and itself from a program that has done nothing,", start(subject, asked).state(), given
    )


def _laid_out(lay: Callable[[Array], Array]) -> Callable[[Subject, Question], None]:
    def body(subject: Subject, question: Question) -> None:
        asked = _with_slots(question)
        given = copied_state(asked.state)
        parameters = {name: lay(array) for name, array in given.parameters.items()}
        slots = {slot: {name: lay(array) for name, array in arrays.items()} for slot, arrays in given.slots.items()}
        program = start(subject, replace(asked, parameters=parameters, slots=slots))
        subject.same_states("a state, and itself from a program that has done nothing,", program.state(), given)
        take_steps(program, asked)
        check_state(subject, program.state(), expected_answer(asked).numbers)

    return body


def _handed_over(subject: Subject, question: Question) -> None:
    """Half of the steps in one program, the others in a second that begins where the first ended."""
    asked = replace(question, seed=5)
    assert asked.labels is not None  # noqa: S101 - questions that learn have labels
    right = expected_answer(asked).numbers
    batches = list(asked.batches())
    first = start(subject, asked)
    losses = [float(first.step(asked.images[rows], asked.labels[rows])) for rows in batches[:2]]
    state = first.state()
    take_steps(first, asked)  # goes on by itself; that must not matter
    second = start(subject, replace(asked, parameters=state.parameters, slots=state.slots, step=state.step))
    losses += [float(second.step(asked.images[rows], asked.labels[rows])) for rows in batches[2:]]
    subject.compare("the losses of a run that was handed over", np.array(losses), right["losses"])
    after = second.state()
    subject.expect(
        (after.step, after.seed) == (len(batches), 5),
        f"after the run was handed over, step and seed are {after.step}, {after.seed}; expected {len(batches)}, 5",
    )
    check_state(subject, after, right, "after the run was handed over: ")


def _two_fits(subject: Subject, question: Question) -> None:
    state = question.state
    right = expected_answer(question).numbers
    assert question.optimizer is not None  # noqa: S101 - every case here has one
    for number in ("first", "second"):
        program = subject.train(question.model, state, question.optimizer)
        losses = take_steps(program, question)
        subject.compare(f"the losses of the {number} run from one state", np.array(losses), right["losses"])
        check_state(subject, program.state(), right, f"after the {number} run from one state: ")


def _predicts_alike(subject: Subject, question: Question) -> None:
    """The parameters of a state, in a program that only predicts."""
    program = start(subject, question)
    take_steps(program, question)
    now = replace(question, parameters=program.state().parameters)
    check_output(subject, program, now, "the output of the program that has trained")
    check_output(subject, subject.compile(now.model, now.parameters), now, "the output of one made of its parameters")


def _extreme(subject: Subject, question: Question) -> None:
    """NaN and infinities are numbers of a state as others are: a broken run can be looked at."""
    asked = _with_slots(question)
    state = copied_state(asked.state)
    for arrays in (state.parameters, *state.slots.values()):
        for array in arrays.values():
            array.flat[:3] = (np.nan, np.inf, -np.inf)
    program = start(subject, replace(asked, parameters=state.parameters, slots=state.slots))
    subject.same_states("a state with NaN and infinities, and itself from a program", program.state(), state)


def _large_seed(subject: Subject, question: Question) -> None:
    asked = replace(question, seed=2**40 + 3, step=70_000)
    right = expected_answer(asked).numbers
    program = start(subject, asked)
    losses = take_steps(program, asked)
    subject.compare("the losses", np.array(losses), right["losses"])
    state = program.state()
    subject.expect(
        (state.seed, state.step) == (asked.seed, asked.step + len(losses)),
        f"seed and step are {state.seed}, {state.step}; expected {asked.seed}, {asked.step + len(losses)}",
    )


def _numpy_numbers(subject: Subject, question: Question) -> None:
    asked = replace(question, step=7, seed=5)
    right = expected_answer(asked).numbers
    assert asked.optimizer is not None  # noqa: S101 - every case here has one
    numbers: dict[str, Any] = {"step": np.int64(7), "seed": np.int64(5)}
    program = subject.train(asked.model, replace(asked.state, **numbers), asked.optimizer)
    losses = take_steps(program, asked)
    subject.compare("the losses", np.array(losses), right["losses"])
    check_state(subject, program.state(), right)


def _plain_numbers(subject: Subject, question: Question) -> None:
    """What checkpoints write: step and seed are whole numbers."""
    program = start(subject, question)
    take_steps(program, question)
    state = program.state()
    for name in ("step", "seed"):
        value = getattr(state, name)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        subject.expect(whole, f"the state's {name} is {value!r}, a {type(value).__name__}; expected a whole number")


CASES: list[Case] = [
    *(
        trial(
            f"state.round-trip.{name}",
            f"A state of {type(optimizer).__name__} comes back as it was given, to the last bit",
            _round_trip,
            optimizer=optimizer,
        )
        for name, optimizer in OPTIMIZERS.items()
    ),
    *(
        trial(
            f"state.handed-over.{name}",
            f"A run of {type(optimizer).__name__} that another program goes on with ends as the unbroken one",
            _handed_over,
            DROPNET,
            (5,),
            optimizer=optimizer,
            batch=4,
            batch_size=1,
        )
        for name, optimizer in OPTIMIZERS.items()
    ),
    *(
        trial(
            f"state.layout.{name}",
            f"The arrays of a state may lie {said}",
            _laid_out(lay),
            optimizer=Adam(learning_rate=0.05),
        )
        for name, said, lay in (
            ("fortran", "in Fortran order", np.asfortranarray),
            ("gaps", "apart from each other", lambda array: np.repeat(array, 2, axis=-1)[..., ::2]),
            ("backwards", "in memory from their ends", lambda array: array[::-1].copy()[::-1]),
            ("byte-order", "in the other byte order", lambda array: array.astype(array.dtype.newbyteorder("S"))),
        )
    ),
    *(
        trial(
            f"v45.two-fits.{name}",
            "Two runs from one state, one after the other, are equal: nothing gathers and nothing is left",
            _two_fits,
            DROPNET,
            (5,),
            optimizer=optimizer,
            batch=4,
            batch_size=2,
        )
        for name, optimizer in OPTIMIZERS.items()
        if name in ("sgd", "adam")
    ),
    trial(
        "state.predict",
        "A program made of a state's parameters predicts as the one that was trained",
        _predicts_alike,
        DROPNET,
        (5,),
        optimizer=Adam(learning_rate=0.1),
        batch=4,
        batch_size=2,
    ),
    trial("state.not-finite", "A state may hold NaN and infinities", _extreme, optimizer=Adam(learning_rate=0.05)),
    trial(
        "state.large-numbers",
        "Seeds beyond 32 bits and steps beyond 16 are carried whole, and dropout is drawn from them",
        _large_seed,
        DROPNET,
        (5,),
        optimizer=Adam(learning_rate=0.05),
        batch=3,
    ),
    trial(
        "state.numpy-numbers",
        "Step and seed may be NumPy's whole numbers, as they come out of files",
        _numpy_numbers,
        DROPNET,
        (5,),
        optimizer=Adam(learning_rate=0.05),
        batch=3,
    ),
    trial("state.whole-numbers", "Step and seed of a state are whole numbers", _plain_numbers, optimizer=Adam()),
]
