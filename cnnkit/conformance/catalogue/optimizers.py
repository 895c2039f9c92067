"""Cases of optimizers: each formula of docs/reference/optimizers.md, term by term."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cnnkit.arrays import dtype_of
from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.material import (
    TANHNET,
    TANHNET_SHAPE,
    Body,
    check_gradients,
    check_state,
    check_steps,
    draw_slots,
    start,
    take_steps,
    trial,
)
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.conformance.subject import Subject
from cnnkit.model import Dense, Layer, Softmax
from cnnkit.optimizers import SGD, Adam, AdamW, ConstantRate, CosineDecay, Optimizer, StepDecay

PLAIN = (Dense(units=4, use_bias=False), Softmax())
"""One layer whose gradient is as small as the images are."""


def _steps(subject: Subject, question: Question) -> None:
    check_steps(subject, start(subject, question), question)


def _from_slots(step: int) -> Body:
    """Steps from a state in the middle of training, its slots not zero."""

    def body(subject: Subject, question: Question) -> None:
        assert question.optimizer is not None  # noqa: S101 - every case here has one
        slots = draw_slots(question.model, question.optimizer, subject.precision)
        asked = replace(question, slots=slots, step=step)
        check_steps(subject, start(subject, asked), asked)

    return body


def _updates(name: str, said: str, optimizer: Optimizer, **options: Any) -> list[Case]:
    """One step from a fresh state, three steps, and one step from slots that are not zero."""
    cases = [
        trial(
            f"optimizer.{name}.first",
            f"The first step of {said} is that of its formula",
            _steps,
            optimizer=optimizer,
            **options,
        ),
        trial(
            f"optimizer.{name}.three",
            f"Three steps of {said} are those of its formula",
            _steps,
            optimizer=optimizer,
            batch=4,
            epochs=3,
            **options,
        ),
    ]
    if optimizer.slot_names:
        cases.append(
            trial(
                f"optimizer.{name}.slots",
                f"A step of {said} uses the slots that it was given, and keeps new ones",
                _from_slots(step=3),
                optimizer=optimizer,
                **options,
            )
        )
    return cases


FORMULAS: dict[str, tuple[str, Optimizer]] = {
    "sgd": ("plain SGD", SGD(learning_rate=0.3)),
    "sgd.momentum": ("SGD with momentum", SGD(learning_rate=0.3, momentum=0.8)),
    "sgd.nesterov": ("SGD with Nesterov's momentum", SGD(learning_rate=0.3, momentum=0.8, nesterov=True)),
    "sgd.weight-decay": ("SGD with weight decay", SGD(learning_rate=0.3, weight_decay=0.1)),
    "sgd.momentum-decay": (
        "SGD with momentum and weight decay",
        SGD(learning_rate=0.3, momentum=0.8, weight_decay=0.1),
    ),
    "sgd.everything": (
        "SGD with Nesterov's momentum, weight decay and clipping",
        SGD(learning_rate=0.3, momentum=0.8, nesterov=True, weight_decay=0.1, clip_global_norm=0.2),
    ),
    "adam": ("Adam", Adam(learning_rate=0.05)),
    "adam.betas": ("Adam with other betas", Adam(learning_rate=0.05, beta_1=0.5, beta_2=0.75)),
    "adam.no-betas": ("Adam that remembers nothing", Adam(learning_rate=0.05, beta_1=0.0, beta_2=0.0)),
    "adam.epsilon": ("Adam with a large epsilon", Adam(learning_rate=0.05, epsilon=0.1)),
    "adam.clipped": ("Adam with clipping", Adam(learning_rate=0.05, epsilon=0.1, clip_global_norm=0.05)),
    "adamw": ("AdamW", AdamW(learning_rate=0.05)),
    "adamw.decay": ("AdamW with much decay", AdamW(learning_rate=0.05, weight_decay=0.5, epsilon=0.01)),
    "adamw.no-decay": ("AdamW without decay", AdamW(learning_rate=0.05, weight_decay=0.0)),
    "adamw.betas": ("AdamW with other betas", AdamW(learning_rate=0.05, beta_1=0.5, beta_2=0.75, weight_decay=0.1)),
}

FORMULA_CASES = [case for name, (said, optimizer) in FORMULAS.items() for case in _updates(name, said, optimizer)]


# -------------------------------------------------------------------------------------------------------------- epsilon


def _tiny(size: float, step: int = 0) -> Body:
    """Steps on images whose pixels are about `size`: so are the gradients."""

    def body(subject: Subject, question: Question) -> None:
        assert question.optimizer is not None  # noqa: S101 - every case here has one
        tiny = (question.images * size).astype(dtype_of(subject.precision))
        asked = replace(question, images=tiny, step=step)
        if step:
            slots = draw_slots(question.model, question.optimizer, subject.precision)
            factors = {"m": size, "v": size * size}
            small = {
                slot: {name: (array * factors[slot]).astype(array.dtype) for name, array in arrays.items()}
                for slot, arrays in slots.items()
            }
            asked = replace(asked, slots=small)
        check_steps(subject, start(subject, asked), asked)

    return body


EPSILON_CASES = [
    trial(
        f"v21.{name}.epsilon.{where}",
        f"With gradients near {size:g}, {said}",
        _tiny(size, step),
        PLAIN,
        (5,),
        optimizer=optimizer,
        batch=3,
        epochs=2,
    )
    for name, optimizer in {"adam": Adam(learning_rate=0.1), "adamw": AdamW(learning_rate=0.1)}.items()
    for where, size, step, said in (
        ("tiny", 1e-8, 0, "epsilon is 1e-8 and stands outside the root"),
        ("small", 3e-7, 0, "epsilon is added after the bias correction, not before it"),
        ("late", 1e-8, 40, "epsilon is added after the bias correction at step 41 too"),
        ("smaller", 1e-12, 0, "a step is far smaller than the learning rate, for epsilon outweighs the root"),
    )
] + [
    trial(
        "v21.adam.epsilon.given",
        "The epsilon that is given is the one that is used",
        _tiny(1e-4),
        PLAIN,
        (5,),
        optimizer=Adam(learning_rate=0.1, epsilon=1e-4),
        batch=3,
        epochs=2,
    ),
    *(
        trial(
            f"v21.{name}.late",
            f"Bias correction counts the steps of the state: {step} are done",
            _from_slots(step),
            optimizer=optimizer,
        )
        for step in (1, 1000)
        for name, optimizer in {
            f"adam.step-{step}": Adam(learning_rate=0.05),
            f"adamw.step-{step}": AdamW(learning_rate=0.05, weight_decay=0.1),
        }.items()
    ),
    trial(
        "v21.adam.late.million",
        "After a million steps bias correction is 1",
        _from_slots(1_000_000),
        optimizer=Adam(learning_rate=0.05),
    ),
]


# ------------------------------------------------------------------------------------------------- weight decay, momentum

BLANK_FEATURE = (Dense(units=3), Softmax())


def _without_gradient(subject: Subject, question: Question) -> None:
    """Images of zeros: kernels have no gradient, so whatever moves them is decay or memory."""
    asked = replace(question, images=np.zeros_like(question.images))
    check_steps(subject, start(subject, asked), asked)


def _stays(subject: Subject, question: Question) -> None:
    """Without gradient, decay and memory a kernel stays what it was, to the last bit."""
    program = start(subject, question)
    asked = replace(question, images=np.zeros_like(question.images))
    take_steps(program, asked)
    subject.same(
        "a kernel without gradient, and itself after a step,",
        program.state().parameters["0.kernel"],
        question.parameters["0.kernel"],
    )


DECAY_CASES = [
    trial(
        f"v23.decay.{name}",
        f"{said}",
        _without_gradient,
        BLANK_FEATURE,
        (4,),
        optimizer=optimizer,
        epochs=2,
    )
    for name, said, optimizer in (
        (
            "sgd",
            "Without a gradient, SGD's decay takes learning_rate * weight_decay of a parameter",
            SGD(learning_rate=0.5, weight_decay=0.2),
        ),
        (
            "momentum",
            "Without a gradient, SGD's decay goes through the momentum",
            SGD(learning_rate=0.5, momentum=0.5, weight_decay=0.2),
        ),
        ("adamw", "AdamW's decay is decoupled: it passes by the moments", AdamW(learning_rate=0.5, weight_decay=0.2)),
    )
] + [
    trial(
        f"optimizer.{name}.no-gradient",
        f"Without a gradient, {name} leaves a parameter in place",
        _stays,
        BLANK_FEATURE,
        (4,),
        optimizer=optimizer,
    )
    for name, optimizer in {
        "sgd": SGD(learning_rate=0.5),
        "momentum": SGD(learning_rate=0.5, momentum=0.9),
        "adam": Adam(learning_rate=0.5),
    }.items()
]


def _another_rate(subject: Subject, question: Question) -> None:
    """Two steps, then two more in a new program with a tenth of the learning rate."""
    optimizer = question.optimizer
    assert isinstance(optimizer, SGD) and isinstance(optimizer.learning_rate, float)  # noqa: S101, PT018 - the case's own
    program = start(subject, question)
    take_steps(program, question)
    state = program.state()
    slower = replace(optimizer, learning_rate=optimizer.learning_rate / 10)
    asked = replace(
        question,
        parameters=state.parameters,
        slots=state.slots,
        step=state.step,
        optimizer=slower,
        images=-question.images,
    )
    check_steps(subject, start(subject, asked), asked, "after the learning rate was changed: ")


RATE_CASES = [
    trial(
        f"v22.{name}.another-rate",
        f"A run of {said} that goes on with another learning rate feels it at once, in the whole velocity",
        _another_rate,
        optimizer=optimizer,
        batch_size=1,
    )
    for name, said, optimizer in (
        ("momentum", "momentum", SGD(learning_rate=0.5, momentum=0.8)),
        ("nesterov", "Nesterov's momentum", SGD(learning_rate=0.5, momentum=0.8, nesterov=True)),
    )
] + [
    trial(
        f"v22.{name}.falling-rate",
        f"A learning rate that falls during a run acts on the whole velocity of {said}",
        _steps,
        optimizer=optimizer,
        batch_size=1,
        epochs=2,
    )
    for name, said, optimizer in (
        ("momentum", "momentum", SGD(learning_rate=StepDecay(0.5, every=2, factor=0.1), momentum=0.8)),
        (
            "nesterov",
            "Nesterov's momentum",
            SGD(learning_rate=StepDecay(0.5, every=2, factor=0.1), momentum=0.8, nesterov=True),
        ),
    )
]


# ------------------------------------------------------------------------------------------------------------- clipping


def _clipped(place: str) -> Body:
    """A limit that lies above the norm of all gradients, between it and that of the largest one, or below each."""

    def body(subject: Subject, question: Question) -> None:
        right = expected_answer(replace(question, ask="gradients")).numbers
        norms = [float(np.sqrt((g.value**2).sum())) for name, g in right.items() if name != "loss"]
        whole = float(np.sqrt(np.sum(np.square(norms))))
        limit = {"above": whole * 1.05, "between": (max(norms) + whole) / 2, "below": min(norms) / 2}[place]
        assert question.optimizer is not None  # noqa: S101 - every case here has one
        optimizer = replace(question.optimizer, clip_global_norm=limit)  # type: ignore[type-var] # optimizers are dataclasses
        asked = replace(question, optimizer=optimizer)
        check_steps(subject, start(subject, asked), asked)
        program = start(subject, asked)
        check_gradients(subject, program, asked, "clipping belongs to the step: ")

    return body


CLIP_CASES = [
    trial(f"v24.{name}.{place}", f"{said}, with {type(optimizer).__name__}", _clipped(place), optimizer=optimizer)
    for place, said in (
        ("above", "Gradients whose global norm is below clip_global_norm are not clipped"),
        ("between", "Gradients are clipped by the norm of all of them together, though each alone is below the limit"),
        ("below", "All gradients are multiplied by one factor, small ones and biases too"),
    )
    for name, optimizer in {
        "sgd.clip": SGD(learning_rate=0.5, clip_global_norm=1.0),
        "adam.clip": Adam(learning_rate=0.05, epsilon=0.1, clip_global_norm=1.0),
    }.items()
] + [
    trial(
        "v24.momentum-decay.clip",
        "Gradients are clipped before weight decay and momentum come to them",
        _clipped("below"),
        optimizer=SGD(learning_rate=0.5, momentum=0.8, weight_decay=0.5, clip_global_norm=1.0),
        epochs=2,
    ),
    trial(
        "v24.no-gradient.clip",
        "Clipping gradients that are all 0 leaves them 0",
        _without_gradient,
        (Dense(units=4, use_bias=False), Softmax()),
        (3,),
        optimizer=SGD(learning_rate=0.5, momentum=0.8, clip_global_norm=0.5),
    ),
]


# ------------------------------------------------------------------------------------------------------------ schedules

SCHEDULES: dict[str, tuple[str, int, Any]] = {
    "constant": ("A constant schedule is its rate", 0, ConstantRate(0.3)),
    "step": ("A step decay falls when `every` steps are done, counted from 0", 0, StepDecay(0.5, every=2, factor=0.1)),
    "step.resumed": ("A step decay counts the steps of the state", 5, StepDecay(0.5, every=3, factor=0.1)),
    "cosine": ("A cosine decay begins at its rate and ends at `final`", 0, CosineDecay(0.5, steps=3, final=0.1)),
    "cosine.resumed": ("A cosine decay counts the steps of the state", 6, CosineDecay(0.5, steps=8)),
    "cosine.over": ("A cosine decay stays at `final` when it is over", 10, CosineDecay(0.5, steps=8, final=0.2)),
}


def _resumed(step: int) -> Body:
    def body(subject: Subject, question: Question) -> None:
        asked = replace(question, step=step)
        check_steps(subject, start(subject, asked), asked)

    return body


SCHEDULE_CASES = [
    trial(
        f"optimizer.schedule.{name}.{kind}",
        f"{said}, with {kind}",
        _resumed(step),
        optimizer=optimizer,
        batch=4,
        batch_size=1,
    )
    for name, (said, step, schedule) in SCHEDULES.items()
    for kind, optimizer in {
        "sgd": SGD(learning_rate=schedule),
        "adamw": AdamW(learning_rate=schedule, weight_decay=0.1),
    }.items()
]


# ---------------------------------------------------------------------------------------------------------- what a step is


def _loss_before(subject: Subject, question: Question) -> None:
    """With a learning rate this large, the loss after the step is another."""
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    right = expected_answer(replace(question, ask="gradients")).numbers["loss"]
    program = start(subject, question)
    subject.compare("the loss of the step", float(program.step(question.images, question.labels)), right)


def _repeated(subject: Subject, question: Question) -> None:
    """A batch of one image three times over is one image."""
    three = replace(question, images=np.repeat(question.images[:1], 3, 0), labels=np.repeat(question.labels, 3, 0)[:3])  # type: ignore[arg-type] # questions that learn have labels
    one = replace(question, images=question.images[:1], labels=three.labels[:1])  # type: ignore[index] # as above
    program = start(subject, three)
    take_steps(program, three)
    check_state(subject, program.state(), expected_answer(one).numbers, "after a batch of one image three times: ")


def _names(subject: Subject, question: Question) -> None:
    """Slots by name, and their shapes, which the watched state checks."""
    for optimizer, names in (
        (SGD(learning_rate=0.1), set()),
        (SGD(learning_rate=0.1, momentum=0.9), {"velocity"}),
        (SGD(learning_rate=0.1, momentum=0.9, nesterov=True), {"velocity"}),
        (Adam(), {"m", "v"}),
        (AdamW(), {"m", "v"}),
    ):
        asked = replace(question, optimizer=optimizer)
        program = start(subject, asked)
        take_steps(program, asked)
        found = set(program.state().slots)
        subject.expect(
            found == names, f"{type(optimizer).__name__} has slots {sorted(found)}; expected {sorted(names)}"
        )


def _counts(subject: Subject, question: Question) -> None:
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, replace(question, step=5))
    for done in range(3):
        step = program.state().step
        subject.expect(step == 5 + done, f"after {done} steps from step 5 the state has step {step}")
        program.gradients(question.images, question.labels)
        program.predict(question.images)
        program.step(question.images, question.labels)


_MANY: tuple[Layer, ...] = tuple(Dense(units=3, activation="tanh") for _ in range(11))

STEP_CASES = [
    *(
        trial(
            f"optimizer.step.whole-numbers.{name}",
            f"{type(optimizer).__name__} takes whole numbers for its options",
            _steps,
            optimizer=optimizer,
            epochs=2,
        )
        for name, optimizer in {
            "sgd": SGD(learning_rate=1, weight_decay=1, clip_global_norm=1),
            "adam": Adam(learning_rate=1, epsilon=1, beta_1=0, beta_2=0),
            "adamw": AdamW(learning_rate=1, epsilon=1, weight_decay=1),
        }.items()
    ),
    trial(
        "optimizer.step.loss-before",
        "The loss of a step is the one before it",
        _loss_before,
        optimizer=SGD(learning_rate=5.0),
    ),
    trial(
        "optimizer.step.mean",
        "A step takes the mean gradient of its batch, not the sum",
        _repeated,
        optimizer=SGD(learning_rate=0.5),
    ),
    trial(
        "optimizer.step.slot-names",
        "Slots are called velocity, or m and v, or there are none",
        _names,
        optimizer=Adam(),
    ),
    trial(
        "optimizer.step.count",
        "Steps count, from the step of the state on; predictions and gradients do not",
        _counts,
        optimizer=SGD(learning_rate=0.1),
    ),
    trial(
        "optimizer.step.many-layers",
        "Each of a dozen layers, 10 behind 9, learns from its own gradient and slots",
        _from_slots(step=2),
        (*_MANY, Dense(units=3), Softmax()),
        (3,),
        optimizer=Adam(learning_rate=0.05),
    ),
    trial(
        "optimizer.step.no-rate",
        "With a learning rate of 0 the slots learn and the parameters stay",
        _from_slots(step=2),
        TANHNET,
        TANHNET_SHAPE,
        optimizer=SGD(learning_rate=0.0, momentum=0.9, weight_decay=0.1),
    ),
]

CASES: list[Case] = [
    *FORMULA_CASES,
    *EPSILON_CASES,
    *DECAY_CASES,
    *RATE_CASES,
    *CLIP_CASES,
    *SCHEDULE_CASES,
    *STEP_CASES,
]
