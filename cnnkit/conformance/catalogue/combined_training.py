"""Cases of combinations in training: dropout, epochs, schedules, clipping and states, each with another one of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.layouts import LAYOUTS
from cnnkit.conformance.catalogue.material import (
    Body,
    check_gradients,
    check_output,
    check_state,
    check_steps,
    draw_slots,
    start,
    take_steps,
    trial,
)
from cnnkit.conformance.catalogue.probes import drawn_gradient_case
from cnnkit.conformance.measure import Numbers
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.conformance.subject import Subject
from cnnkit.model import (
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    Model,
    Rescale,
    Softmax,
    Tanh,
)
from cnnkit.optimizers import SGD, Adam, AdamW, Optimizer, StepDecay
from cnnkit.state import fresh_state

# --------------------------------------------------------------------------------------------------------------- dropout


ENDING: list[Layer] = [Flatten(), Dense(units=3), Softmax()]
DROPNET = (Dense(units=9, activation="tanh"), Dropout(rate=0.4), Dense(units=4), Softmax())


def _dropout(rate: float, *behind: Layer) -> list[Layer]:
    return [Conv2D(filters=3, kernel_size=2), Dropout(rate=rate), *behind, *ENDING]


def _far_along(subject: Subject, question: Question) -> None:
    """A float64 does not hold this seed, nor a float32 or a signed number of 32 bits this step."""
    asked = replace(question, seed=2**63 + 2**11 + 1, step=2**31 + 2**24 + 1)
    program = start(subject, asked)
    check_steps(subject, program, asked)
    subject.expect(program.state().seed == asked.seed, f"the state has another seed than {asked.seed}")


DROPOUT_CASES = [
    drawn_gradient_case(
        "v31.dropout.batch-of-11",
        "The mask of a batch is one drawing, whatever engines make of 11 images",
        _dropout(0.4),
        (4, 5, 2),
        batch=11,
    ),
    drawn_gradient_case(
        "v31.dropout.max-pool",
        "Max pooling behind dropout sees what dropout leaves",
        _dropout(0.4, MaxPool2D(pool_size=(2, 3), strides=1)),
        (5, 7, 2),
    ),
    drawn_gradient_case(
        "v31.dropout.rate-0.95",
        "At a rate of 0.95 what is left counts twenty times",
        _dropout(0.95),
        (7, 8, 2),
        batch=4,
    ),
    trial(
        "state.far-along",
        "Seeds up to 64 bits and steps beyond 31 are carried whole, and dropout is drawn from them",
        _far_along,
        DROPNET,
        (5,),
        optimizer=SGD(learning_rate=0.3),
        batch=3,
    ),
]

# ----------------------------------------------------------------------------------------------- epochs over any memory


def _epoch_from(lay: Callable[[Any], Any], *, labels_too: bool) -> Body:
    def body(subject: Subject, question: Question) -> None:
        asked = replace(question, images=lay(question.images))
        assert asked.labels is not None  # noqa: S101 - questions that learn have labels
        right = expected_answer(asked).numbers
        labels = lay(asked.labels) if labels_too else asked.labels
        program = start(subject, asked)
        program.epoch(asked.images, labels, np.arange(len(asked.images)), 2)
        check_state(subject, program.state(), right)

    return body


EPOCH_CASES = [
    trial(
        f"v48.epoch.{name}",
        f"An epoch goes through images {said}",
        _epoch_from(lay, labels_too=name in ("backwards", "gaps", "read-only")),
        optimizer=SGD(learning_rate=0.3, momentum=0.8),
        batch=4,
        batch_size=2,
    )
    for name, (said, lay) in LAYOUTS.items()
] + [
    trial(
        "v39.epoch.bytes-as-they-are",
        "An epoch takes uint8 images as the numbers that they are, unless the model rescales them",
        _epoch_from(lambda images: images, labels_too=False),
        (Dense(units=4), Softmax()),
        (5,),
        optimizer=SGD(learning_rate=0.1, momentum=0.8),
        batch=4,
        batch_size=2,
        images=np.array([[0, 1, 3, 2, 0], [1, 0, 0, 4, 1], [2, 2, 1, 0, 5], [3, 0, 2, 1, 1]], np.uint8),
    )
]

# ------------------------------------------------------------------------------------------------------------ optimizers


def _sized(size: float) -> Body:
    """Steps on images whose pixels are near `size`, and so are the gradients; kernels are small where those are large."""

    def body(subject: Subject, question: Question) -> None:
        dtype, shrunk = question.images.dtype, max(size, 1.0)
        parameters = {name: (array / shrunk).astype(dtype) for name, array in question.parameters.items()}
        asked = replace(question, images=(question.images * size).astype(dtype), parameters=parameters)
        check_steps(subject, start(subject, asked), asked)

    return body


def _steps(subject: Subject, question: Question) -> None:
    check_steps(subject, start(subject, question), question)


HALVED = StepDecay(0.3, every=2, factor=0.5)
SCHEDULED: dict[str, Optimizer] = {
    "sgd": SGD(learning_rate=HALVED),
    "momentum": SGD(learning_rate=HALVED, momentum=0.8, weight_decay=0.1, clip_global_norm=0.3),
    "nesterov": SGD(learning_rate=HALVED, momentum=0.8, nesterov=True, clip_global_norm=0.3),
    "adam": Adam(learning_rate=HALVED, epsilon=0.01, clip_global_norm=0.3),
    "adamw": AdamW(learning_rate=HALVED, epsilon=0.01, weight_decay=0.2, clip_global_norm=0.3),
}


def _in_pieces(subject: Subject, question: Question) -> None:
    """Masks are those of the steps of the run, whichever call of `epoch` takes them."""
    asked = replace(question, seed=5, step=3)
    assert asked.labels is not None  # noqa: S101 - questions that learn have labels
    right = expected_answer(asked).numbers
    program = start(subject, asked)
    order = np.arange(len(asked.images))
    sums = [
        program.epoch(asked.images, asked.labels, order[rows], 2).loss_sum
        for rows in (np.s_[:4], np.s_[4:6], np.s_[6:])
    ]
    losses = right["losses"]
    for number, (found, steps) in enumerate(zip(sums, (np.s_[:2], np.s_[2:3], np.s_[3:]), strict=True)):
        total = Numbers(2 * losses.value[steps].sum(), 2 * losses.scale[steps].sum())
        subject.compare(f"loss_sum of piece {number}", float(found), total)
    check_state(subject, program.state(), right)


def _not_finite(subject: Subject, question: Question) -> None:
    """A step whose loss is NaN is one as others are: masks and rates go on from the next."""
    images = question.images.copy()
    images[0, 0] = np.nan
    asked = replace(question, images=images, step=3)
    assert asked.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, asked)
    loss = float(program.step(asked.images, asked.labels))
    state = program.state()
    subject.expect(np.isnan(loss), f"the loss of NaN is {loss}; expected NaN")
    subject.expect(state.step == 4, f"after a step from step 3 whose loss is NaN, the state has step {state.step}")


def _slots_in_another_order(subject: Subject, question: Question) -> None:
    """Slots that are not zero, and their arrays, in orders that are not the optimizer's and not the model's."""

    def last_layer_first(arrays: Mapping[str, Any]) -> dict[str, Any]:
        names = sorted(arrays, key=lambda name: (-int(name.split(".")[0]), "bias" in name))
        return {name: arrays[name] for name in names}

    assert question.optimizer is not None  # noqa: S101 - the case has one
    asked = replace(question, slots=draw_slots(question.model, question.optimizer, question.precision), step=3)
    slots = {slot: last_layer_first(arrays) for slot, arrays in reversed(list(asked.slots.items()))}
    other = replace(asked.state, slots=slots)
    check_steps(subject, subject.train(asked.model, other, question.optimizer), asked)


def _other_numbers(subject: Subject, question: Question) -> None:
    """Models that differ in one number, one after the other on the same parameters."""
    assert question.optimizer is not None  # noqa: S101 - the case has one
    state = fresh_state(question.parameters, question.optimizer)
    for scale, offset, rate in ((0.5, 0.25, 0.4), (-0.25, 0.25, 0.4), (0.5, -1.0, 0.4), (0.5, 0.25, 0.6)):
        layers = [Rescale(scale=scale, offset=offset), *question.model.layers[1:3], Dropout(rate=rate)]
        model = Model(input_shape=question.model.input_shape, layers=[*layers, *question.model.layers[4:]])
        now, before = replace(question, model=model), f"with scale {scale}, offset {offset} and rate {rate}: "
        check_output(subject, subject.compile(model, question.parameters), now, f"{before}the output")
        check_gradients(subject, subject.train(model, state, question.optimizer), now, before)


OPTIMIZER_CASES = [
    trial(
        "conduct.state.order.slots",
        "Slots that are not zero belong to whom their names say, in whatever order they come",
        _slots_in_another_order,
        (*[Dense(units=4, activation="tanh")] * 3, Dense(units=4), Softmax()),
        (4,),
        optimizer=Adam(learning_rate=0.05),
        batch=3,
    ),
    trial(
        "conduct.leak.numbers",
        "A model that differs in one number from another one is computed with its own",
        _other_numbers,
        (Rescale(scale=0.5), Dense(units=7), Tanh(), Dropout(rate=0.4), Dense(units=4), Softmax()),
        (5,),
        optimizer=SGD(learning_rate=0.3),
        batch=3,
    ),
    *(
        trial(
            f"v32.epoch.in-pieces.{name}",
            "An epoch in three pieces takes its steps with the masks, rates and limits that they have",
            _in_pieces,
            DROPNET,
            (5,),
            optimizer=optimizer,
            batch=10,
            batch_size=2,
        )
        for name, optimizer in SCHEDULED.items()
    ),
    trial(
        "v36.step.counted",
        "A step whose loss is NaN is counted",
        _not_finite,
        (Dense(units=4), Softmax()),
        (5,),
        optimizer=Adam(),
        batch=3,
    ),
    *(
        trial(
            f"optimizer.combined.step-decay.{name}",
            "A rate that is halved every other step goes with all else that the optimizer does",
            _steps,
            optimizer=optimizer,
            batch=6,
            batch_size=1,
        )
        for name, optimizer in SCHEDULED.items()
    ),
    *(
        trial(
            f"optimizer.combined.large-gradients.{name}",
            "Gradients near 1e8 and their squares are kept",
            _sized(1e8),
            (Dense(units=4, use_bias=False), Softmax()),
            (5,),
            optimizer=optimizer,
            batch=3,
        )
        for name, optimizer in {
            "adam": Adam(learning_rate=1e-9),
            "momentum": SGD(learning_rate=1e-17, momentum=0.8),
        }.items()
    ),
    trial(
        "v24.clip.small-norm",
        "Gradients with a norm near 1e-5 are clipped to 1e-6, and nothing is added to their norm",
        _sized(1e-5),
        (Dense(units=4, use_bias=False), Softmax()),
        (5,),
        optimizer=SGD(learning_rate=1e4, momentum=0.8, clip_global_norm=1e-6),
        batch=3,
    ),
    trial(
        "v24.clip.squares-overflow",
        "Gradients near 1e20, whose squares no float32 holds, are clipped to 1e18",
        _sized(1e20),
        (Dense(units=4, use_bias=False), Softmax()),
        (5,),
        optimizer=SGD(learning_rate=2e-38, momentum=0.8, clip_global_norm=1e18),
        batch=3,
    ),
    trial(
        "v24.clip.squares-underflow",
        "Gradients near 1e-25, whose squares no float32 holds, are clipped to 1e-27",
        _sized(1e-25),
        (Dense(units=4, use_bias=False), Softmax()),
        (5,),
        optimizer=SGD(learning_rate=1e26, momentum=0.8, clip_global_norm=1e-27),
        batch=3,
    ),
]

# --------------------------------------------------------------------------------------------------------------- conduct


def _long_epoch(batch_size: int) -> Body:
    def body(subject: Subject, question: Question) -> None:
        program = start(subject, question)
        assert question.labels is not None  # noqa: S101 - questions that learn have labels
        totals = program.epoch(question.images, question.labels, np.arange(len(question.images)), batch_size)
        subject.expect(totals.count == len(question.images), f"count is {totals.count}")
        check_state(subject, program.state(), expected_answer(replace(question, batch_size=batch_size)).numbers)

    return body


def _other_batch_sizes(subject: Subject, question: Question) -> None:
    """A batch that is smaller than it may be, and two whole ones, in two calls."""
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    program.epoch(question.images, question.labels, np.arange(2), 4)
    program.epoch(question.images, question.labels, np.arange(2, 6), 2)
    check_state(subject, program.state(), expected_answer(replace(question, batch_size=2)).numbers)


def _filled_anew(subject: Subject, question: Question) -> None:
    """Arrays that another program has seen, with other numbers in them."""
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    images, labels = question.images.copy(), question.labels.copy()
    for factor in (1, -2):
        images[:] = question.images * factor
        labels[:] = question.labels if factor == 1 else question.labels[::-1]
        asked = replace(question, images=images, labels=labels)
        program = start(subject, asked)
        check_gradients(subject, program, asked, f"with factor {factor}: ")
        images[:] = question.images * factor * 3
        check_gradients(subject, program, asked, f"with factor {factor * 3}: ")
        program.epoch(images, labels, np.arange(len(images)), 2)
        check_state(subject, program.state(), expected_answer(asked).numbers, f"with factor {factor * 3}: ")


def _in_another_thread(subject: Subject, question: Question) -> None:
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    labels = question.labels
    program = start(subject, question)
    with ThreadPoolExecutor(1) as other:
        other.submit(program.epoch, question.images, labels, np.arange(len(question.images)), 2).result()
        state = other.submit(program.state).result()
    check_state(subject, state, expected_answer(question).numbers)


def _no_images(subject: Subject, question: Question) -> None:
    program = start(subject, question)
    program.predict(question.images[:0])
    check_steps(subject, program, question)


def _world() -> dict[str, str]:
    return {
        "NumPy's handling of floating-point errors": repr(np.geterr()),
        "NumPy's random numbers": repr(np.random.get_state()),  # noqa: NPY002 - the global state is what is asked about
        "NumPy's print options": repr(np.get_printoptions()),
        "Python's random numbers": repr(random.getstate()),
    }


def _leaves_the_world_alone(subject: Subject, question: Question) -> None:
    # settings that nobody else has: an engine that changed them once and for all shows as well
    with np.errstate(over="print", divide="print", under="ignore"), np.printoptions(precision=5):
        before = _world()
        program = start(subject, question)
        take_steps(program, question)
        subject.compile(question.model, question.parameters).predict(question.images)
        program.state()
        after = _world()
    for what, was in before.items():
        subject.expect(was == after[what], f"a program has changed {what}")


def _two_equal_runs(subject: Subject, question: Question) -> None:
    one, other = start(subject, question), start(subject, question)
    subject.same("the losses of two runs from one state", take_steps(one, question), take_steps(other, question))
    subject.same_states("two runs from one state", one.state(), other.state())


CONDUCT_CASES = [
    *(
        trial(
            f"v32.epoch.long.batches-of-{size}",
            f"An epoch of 110 images in batches of {size} takes all of its steps, and whole ones",
            _long_epoch(size),
            (Dense(units=4), Softmax()),
            (5,),
            optimizer=SGD(learning_rate=0.3, momentum=0.5),
            batch=110,
        )
        for size in (4, 70)
    ),
    trial(
        "v32.epoch.batch-sizes",
        "Two calls of epoch may have batches of different sizes",
        _other_batch_sizes,
        optimizer=Adam(learning_rate=0.05),
        batch=6,
    ),
    trial(
        "v48.buffer.gradients-and-epoch",
        "Arrays may be filled anew after gradients, and for another program's epoch",
        _filled_anew,
        optimizer=SGD(learning_rate=0.1, momentum=0.8),
        batch=4,
        batch_size=2,
    ),
    trial(
        "conduct.threads.epoch",
        "A program made in one thread runs an epoch in another one, which reads its state",
        _in_another_thread,
        optimizer=SGD(learning_rate=0.3, momentum=0.8),
        batch=4,
        batch_size=2,
    ),
    trial(
        "v35.two-runs",
        "Two runs from one state end in equal states, to the last bit",
        _two_equal_runs,
        optimizer=Adam(learning_rate=0.05),
        batch=5,
        batch_size=1,
    ),
    trial(
        "v49.batch.0.training",
        "A program that trains predicts no images too, and goes on training",
        _no_images,
        optimizer=SGD(learning_rate=0.3),
        batch=3,
    ),
    trial(
        "v47.world",
        "Programs leave NumPy's settings alone, and the random numbers of NumPy and Python",
        _leaves_the_world_alone,
        DROPNET,
        (5,),
        optimizer=SGD(learning_rate=0.3),
        batch=3,
    ),
]

CASES: list[Case] = [*DROPOUT_CASES, *EPOCH_CASES, *OPTIMIZER_CASES, *CONDUCT_CASES]
