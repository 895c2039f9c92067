"""Cases of programs in company: beside each other, in turn, and in threads."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from cnnkit.arrays import Array, Images
from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.material import (
    CONVNET,
    CONVNET_SHAPE,
    check_output,
    check_state,
    check_steps,
    copied,
    right_output,
    start,
    take_steps,
    trial,
)
from cnnkit.conformance.question import Question, draw_parameters, expected_answer
from cnnkit.conformance.subject import Subject, Watched, WatchedTraining
from cnnkit.model import Conv2D, Dense, Dropout, Model, Softmax
from cnnkit.optimizers import SGD, Adam

MOMENTUM = SGD(learning_rate=0.3, momentum=0.9)


# ----------------------------------------------------------------------------------------- programs that know of each other


def _others(question: Question, attempt: int = 1000) -> Question:
    """The same question with other parameters and images."""
    rng = np.random.default_rng(attempt)
    parameters = draw_parameters(question.model, rng, question.precision)
    return replace(question, parameters=parameters, images=-question.images)


def _two_programs(subject: Subject, question: Question) -> None:
    one, other = question, _others(question)
    first = subject.compile(one.model, one.parameters)
    check_output(subject, first, one, "the output of the first program")
    second = subject.compile(Model.from_dict(other.model.to_dict()), other.parameters)
    check_output(subject, second, other, "the output of a second program with other parameters")
    check_output(subject, first, one, "the output of the first program after the second was made")
    check_output(subject, second, replace(other, images=one.images), "the output of the second program")


def _parameters_changed_in_place(subject: Subject, question: Question) -> None:
    parameters = copied(question.parameters)
    first = subject.compile(question.model, parameters)
    check_output(subject, first, question)
    other = _others(question)
    for name, array in parameters.items():
        array[...] = other.parameters[name]
    second = subject.compile(question.model, parameters)
    check_output(subject, second, other, "the output of a program made from the same arrays with new numbers")
    check_output(subject, first, question, "the output of the program made before")


def _two_plans(subject: Subject, question: Question) -> None:
    """Parameters of the same names and shapes, which these models do not use alike."""
    layers = list(question.model.layers)
    convolution = layers[0]
    assert isinstance(convolution, Conv2D)  # noqa: S101 - it is in the model of the case
    programs = []
    for other in (
        convolution,
        convolution.model_copy(update={"activation": "relu"}),
        convolution.model_copy(update={"activation": "sigmoid"}),
        convolution.model_copy(update={"padding": ((1, 1), (2, 0))}),
        convolution.model_copy(update={"strides": (1, 2), "padding": ((1, 1), (2, 0))}),
    ):
        prefix = replace(question, model=Model(input_shape=question.model.input_shape, layers=[other]))
        prefix = replace(prefix, parameters={n: a for n, a in question.parameters.items() if n.startswith("0.")})
        programs.append((subject.compile(prefix.model, prefix.parameters), prefix))
    for program, asked in [*programs, *reversed(programs)]:
        check_output(subject, program, asked, f"the output with {asked.model.layers[0]}")


def _interleaved(subject: Subject, question: Question) -> None:
    pair = [question, replace(_others(question), seed=question.seed + 1)]
    programs = [start(subject, asked) for asked in pair]
    losses: list[list[float]] = [[], []]
    for rows in question.batches():
        for number, (program, asked) in enumerate(zip(programs, pair, strict=True)):
            assert asked.labels is not None  # noqa: S101 - questions that learn have labels
            losses[number].append(float(program.step(asked.images[rows], asked.labels[rows])))
    for number, (program, asked) in enumerate(zip(programs, pair, strict=True)):
        right = expected_answer(asked).numbers
        before = f"of two programs that step in turn, number {number + 1}: "
        subject.compare(f"{before}the losses", np.array(losses[number]), right["losses"])
        check_state(subject, program.state(), right, before)


def _other_optimizers(subject: Subject, question: Question) -> None:
    for optimizer in (SGD(learning_rate=0.5), SGD(learning_rate=0.05), SGD(learning_rate=0.05, momentum=0.5), Adam()):
        asked = replace(question, optimizer=optimizer)
        check_steps(subject, start(subject, asked), asked, f"with {optimizer}: ")


def _training_beside_predicting(subject: Subject, question: Question) -> None:
    state = question.state
    predicting = subject.compile(question.model, state.parameters)
    training = start(subject, question)
    check_output(subject, predicting, question, "the output before training")
    take_steps(training, question)
    check_output(subject, predicting, question, "the output of a program beside one that has trained")
    late = subject.compile(question.model, state.parameters)
    check_output(subject, late, question, "the output of a program made after another has trained")


LEAK_CASES = [
    trial("conduct.leak.parameters", "Two programs of one plan keep their own parameters", _two_programs),
    trial(
        "conduct.leak.same-arrays",
        "Parameters changed in place make another program when compiled again",
        _parameters_changed_in_place,
    ),
    trial(
        "conduct.leak.plans",
        "The same parameters in another model are computed as that model says",
        _two_plans,
        CONVNET[:1],
        CONVNET_SHAPE,
    ),
    trial(
        "conduct.leak.optimizers",
        "A plan that is compiled again trains with the optimizer of this time",
        _other_optimizers,
        optimizer=SGD(learning_rate=0.5),
        batch_size=1,
    ),
    trial(
        "conduct.leak.training",
        "Training a program leaves others with the same parameters alone",
        _training_beside_predicting,
        optimizer=MOMENTUM,
        batch_size=1,
    ),
    trial(
        "conduct.interleaved.training",
        "Two programs that step in turn end where each would alone",
        _interleaved,
        (Dense(units=6, activation="tanh"), Dropout(rate=0.4), Dense(units=4), Softmax()),
        (5,),
        optimizer=Adam(learning_rate=0.1),
        batch=6,
        batch_size=2,
    ),
]


# -------------------------------------------------------------------------------------------------------------- threads


@contextmanager
def _restless() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual, so that what can go wrong does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _at_once(*work: Callable[[], Any]) -> list[Any]:
    """The answers of all `work`, each in a thread of its own, begun together."""
    barrier = threading.Barrier(len(work))

    def begin(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with _restless(), ThreadPoolExecutor(len(work)) as pool:
        return [future.result() for future in [pool.submit(begin, call) for call in work]]


ROUNDS = 400  # a third of it lets a program without any lock through, one time in ten
SECONDS = 1.0  # enough for engines to which a call is dear


def _repeated(call: Callable[[], Any], rounds: int = ROUNDS) -> Iterator[Any]:
    end = time.monotonic() + SECONDS
    for _ in range(rounds):
        yield call()
        if time.monotonic() > end:
            return


def _predict_at_once(subject: Subject, what: str, pairs: list[tuple[Watched, Question]]) -> None:
    def predict(program: Watched, images: Images) -> list[Array]:
        return list(_repeated(lambda: program.predict(images)))

    answers = _at_once(*(partial(predict, program, asked.images) for program, asked in pairs))
    for (_, asked), outputs in zip(pairs, answers, strict=True):
        right = right_output(asked)
        for output in outputs:
            subject.compare(what, output, right)


def _one_program_in_threads(subject: Subject, question: Question) -> None:
    program = subject.compile(question.model, question.parameters)
    # One of the others has as many images, and so fits into the same buffers.
    questions = [
        replace(question, images=images) for images in (question.images, -question.images, question.images[1:])
    ]
    for asked in questions:
        program.predict(asked.images)
    what = "an output, while other threads predict with the same program,"
    _predict_at_once(subject, what, [(program, asked) for asked in questions])


def _two_programs_two_threads(subject: Subject, question: Question) -> None:
    pairs = [(subject.compile(asked.model, asked.parameters), asked) for asked in (question, _others(question))]
    _predict_at_once(subject, "an output, while another program runs in another thread,", pairs)


def _training_in_two_threads(subject: Subject, question: Question) -> None:
    asked = [question, _others(question)]
    programs = [start(subject, each) for each in asked]

    def learn(program: WatchedTraining, each: Question) -> tuple[list[Any], list[float]]:
        assert each.labels is not None  # noqa: S101 - questions that learn have labels
        images, labels = each.images, each.labels
        return list(_repeated(lambda: program.gradients(images, labels), 100)), take_steps(program, each)

    work = [partial(learn, program, each) for program, each in zip(programs, asked, strict=True)]
    before = "while another program trains in another thread: "
    for program, each, (gradients, losses) in zip(programs, asked, _at_once(*work), strict=True):
        right = expected_answer(replace(each, ask="gradients")).numbers
        for loss, found in gradients:
            subject.compare(f"{before}the loss", loss, right["loss"])
            for name, array in found.items():
                subject.compare(f"{before}the gradient of {name}", array, right[f"gradient of {name}"])
        right = expected_answer(each).numbers
        subject.compare(f"{before}the losses", np.array(losses), right["losses"])
        check_state(subject, program.state(), right, before)


def _made_elsewhere(subject: Subject, question: Question) -> None:
    """A program that is made in one thread and used in another that has ended before the main one goes on."""
    with ThreadPoolExecutor(1) as pool:
        program = pool.submit(start, subject, question).result()
    check_steps(subject, program, question, "made in another thread: ")


def _globals_left_alone(subject: Subject, question: Question) -> None:
    def settings() -> tuple[Any, ...]:
        return str(np.random.get_state()), random.getstate(), np.geterr(), np.get_printoptions()  # noqa: NPY002 - the point

    def run() -> None:
        program = start(subject, question)
        take_steps(program, question)
        program.predict(question.images)

    run()  # whatever a first run sets up is done
    np.random.random()  # noqa: NPY002 - so that a generator that is seeded again in each run is seen
    random.random()  # noqa: S311 - as above
    before = settings()
    run()
    names = ("NumPy's global random generator", "Python's random generator", "NumPy's error settings", "print options")
    for name, one, other in zip(names, before, settings(), strict=True):
        subject.expect(one == other, f"training changes {name}")


THREAD_CASES = [
    trial(
        "conduct.threads.one-program", "A program predicts in three threads at once", _one_program_in_threads, batch=5
    ),
    trial(
        "conduct.threads.two-programs",
        "Two programs predict in two threads at once",
        _two_programs_two_threads,
        batch=5,
    ),
    trial(
        "conduct.threads.training",
        "Two programs train in two threads at once",
        _training_in_two_threads,
        optimizer=MOMENTUM,
        batch=4,
        batch_size=2,
        epochs=2,
    ),
    trial(
        "conduct.threads.made-elsewhere",
        "A program may be made in one thread and used in another",
        _made_elsewhere,
        optimizer=MOMENTUM,
        batch_size=1,
    ),
    trial(
        "v47.globals",
        "Running a model leaves the settings and generators of the process as they were",
        _globals_left_alone,
        (Dense(units=6, activation="tanh"), Dropout(rate=0.4), Dense(units=4), Softmax()),
        (5,),
        optimizer=MOMENTUM,
    ),
]

CASES: list[Case] = [*LEAK_CASES, *THREAD_CASES]
