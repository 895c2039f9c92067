"""Small networks, and the ways in which cases of conduct and training put them on trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Parameters, dtype_of
from cnnkit.backend import EpochTotals
from cnnkit.conformance.case import Case
from cnnkit.conformance.measure import Numbers
from cnnkit.conformance.question import Question, draw, expected_answer, state_answer
from cnnkit.conformance.subject import Subject, Watched, WatchedTraining
from cnnkit.features import features_of
from cnnkit.model import Conv2D, Dense, Flatten, Layer, MaxPool2D, Model, ReLU, Softmax
from cnnkit.optimizers import Optimizer
from cnnkit.state import TrainingState

BOTH = ("float32", "float64")

CONVNET: tuple[Layer, ...] = (
    Conv2D(filters=3, kernel_size=(2, 3), padding="same"),
    MaxPool2D(pool_size=(3, 2), strides=(2, 1)),
    ReLU(),
    Flatten(),
    Dense(units=4),
    Softmax(),
)
"""With decisions: for questions without training, whose margins are easily found."""
CONVNET_SHAPE = (5, 6, 2)

TANHNET: tuple[Layer, ...] = (
    Conv2D(filters=3, kernel_size=(2, 3), activation="tanh"),
    Flatten(),
    Dense(units=4),
    Softmax(),
)
"""Without decisions: for several steps of training."""
TANHNET_SHAPE = (4, 5, 2)

Body = Callable[[Subject, Question], None]


def trial(
    id: str,  # noqa: A002 - as the field of Case
    claim: str,
    body: Body,
    layers: tuple[Layer, ...] | None = None,
    input_shape: tuple[int, ...] | None = None,
    *,
    trains: bool = False,
    run_seed: int = 0,
    precisions: tuple[str, ...] = BOTH,
    **options: Any,
) -> Case:
    """A case that judges a backend by `body(subject, question)`, the question drawn with `options`.

    Without an optimizer the question asks to predict, or with `trains` for gradients; with one it asks for steps.
    `run_seed` is the seed of the run, from which masks are drawn; the option `seed` that of the question's numbers.
    """
    optimizer = options.get("optimizer")
    trains = trains or optimizer is not None
    layers = layers or (TANHNET if optimizer is not None else CONVNET)
    input_shape = input_shape or (TANHNET_SHAPE if optimizer is not None else CONVNET_SHAPE)
    ask = options.pop("ask", "steps" if optimizer is not None else "gradients" if trains else "predict")
    features = features_of(Model(input_shape=input_shape, layers=layers).plan(), optimizer)

    def try_it(subject: Subject) -> None:
        question = draw(list(layers), input_shape, precision=subject.precision, ask=ask, **options)
        body(subject, replace(question, seed=run_seed))

    return Case(
        id,
        claim,
        "training" if trains else "inference",
        features | {"training"} if trains else features,
        try_it,
        precisions,
    )


# ------------------------------------------------------------------------------------------------------- what is right


def right_output(question: Question) -> Numbers:
    """What a program should predict for the images of `question`."""
    return expected_answer(replace(question, ask="predict")).numbers["output"]


def check_output(subject: Subject, program: Watched, question: Question, what: str = "the output") -> None:
    """Demand that `program` predicts rightly."""
    subject.compare(what, program.predict(question.images), right_output(question))


def check_gradients(subject: Subject, program: WatchedTraining, question: Question, before: str = "") -> None:
    """Demand that `program` answers with the right loss and gradients."""
    right = expected_answer(replace(question, ask="gradients")).numbers
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    loss, found = program.gradients(question.images, question.labels)
    subject.compare(f"{before}the loss", loss, right["loss"])
    for name, gradient in found.items():
        subject.compare(f"{before}the gradient of {name}", gradient, right[f"gradient of {name}"])


def take_steps(program: WatchedTraining, question: Question) -> list[float]:
    """Take the steps of `question`; the losses."""
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    return [float(program.step(question.images[rows], question.labels[rows])) for rows in question.batches()]


def check_state(subject: Subject, state: TrainingState, right: Mapping[str, Numbers], before: str = "") -> None:
    """Demand that the arrays of `state` are those of `right`, an expected answer to a question of steps."""
    wanted = {name for name in right if name != "losses"}
    arrays = state_answer(state)
    subject.expect(arrays.keys() == wanted, f"{before}the state has {sorted(arrays)}; expected {sorted(wanted)}")
    for name, array in arrays.items():
        subject.compare(f"{before}{name}", array, right[name])


def check_steps(subject: Subject, program: WatchedTraining, question: Question, before: str = "") -> None:
    """Take the steps of `question` and demand that losses, state and step count are right."""
    right = expected_answer(replace(question, ask="steps")).numbers
    losses = take_steps(program, question)
    subject.compare(f"{before}the losses", np.array(losses), right["losses"])
    state = program.state()
    done = question.step + len(losses)
    subject.expect(state.step == done, f"{before}the state has step {state.step}; expected {done}")
    check_state(subject, state, right, before)


def start(subject: Subject, question: Question) -> WatchedTraining:
    """A program that is about to take the steps of `question`."""
    assert question.optimizer is not None  # noqa: S101 - questions that train have an optimizer
    return subject.train(question.model, question.state, question.optimizer)


def went_on(program: WatchedTraining, question: Question) -> Question:
    """The question that starts where the program stands."""
    state = program.state()
    return replace(question, parameters=state.parameters, slots=state.slots, step=state.step)


# -------------------------------------------------------------------------------------------------------------- epochs


def in_order(question: Question, order: Sequence[int] | NDArray[Any], batch_size: int) -> Question:
    """The steps that an epoch takes, as a question of steps."""
    places = np.asarray(order, np.int64)
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    return replace(
        question, images=question.images[places], labels=question.labels[places], batch_size=batch_size, epochs=1
    )


def check_totals(subject: Subject, totals: EpochTotals, steps: Question, losses: Numbers, before: str = "") -> None:
    """Demand that an epoch's totals are those of `steps`, whose right losses are given."""
    counts = np.array([rows.stop - rows.start for rows in steps.batches()])
    subject.expect(totals.count == counts.sum(), f"{before}count is {totals.count}; expected {counts.sum()}")
    total = Numbers((losses.value * counts).sum(), (losses.scale * counts).sum())
    subject.compare(f"{before}loss_sum", float(totals.loss_sum), total)


def check_epoch(
    subject: Subject,
    program: WatchedTraining,
    question: Question,
    order: NDArray[Any],
    batch_size: int,
    before: str = "",
) -> None:
    """Run an epoch and demand that sum, count, step and state are those of its steps."""
    steps = in_order(question, order, batch_size)
    right = expected_answer(steps).numbers
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    totals = program.epoch(question.images, question.labels, order, batch_size)
    check_totals(subject, totals, steps, right["losses"], before)
    state = program.state()
    done = question.step + len(list(steps.batches()))
    subject.expect(state.step == done, f"{before}the state has step {state.step}; expected {done}")
    subject.expect(state.seed == question.seed, f"{before}the state has seed {state.seed}; expected {question.seed}")
    check_state(subject, state, right, before)


# ------------------------------------------------------------------------------------------------------------- numbers


def draw_slots(model: Model, optimizer: Optimizer, precision: str, seed: int = 7) -> dict[str, dict[str, Array]]:
    """Slots that are not zero: squares are positive, everything else goes from -0.2 to 0.2."""
    rng = np.random.default_rng(seed)
    dtype = dtype_of(precision)
    return {
        slot: {
            spec.name: (
                rng.uniform(0.01, 0.2, spec.shape) if slot == "v" else rng.uniform(-0.2, 0.2, spec.shape)
            ).astype(dtype)
            for spec in model.plan().parameters
        }
        for slot in optimizer.slot_names
    }


def copied(arrays: Parameters) -> dict[str, Array]:
    """A dict of copies."""
    return {name: array.copy() for name, array in arrays.items()}


def copied_state(state: TrainingState) -> TrainingState:
    """A state whose arrays are nobody else's."""
    slots = {slot: copied(arrays) for slot, arrays in state.slots.items()}
    return TrainingState(copied(state.parameters), slots, state.step, state.seed)
