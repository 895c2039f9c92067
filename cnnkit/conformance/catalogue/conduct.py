"""Cases of conduct: what a program may not do to arrays and to itself, whatever it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.layouts import read_only
from cnnkit.conformance.catalogue.material import (
    CONVNET,
    CONVNET_SHAPE,
    Body,
    check_epoch,
    check_gradients,
    check_output,
    check_state,
    check_steps,
    copied,
    copied_state,
    right_output,
    start,
    take_steps,
    trial,
    went_on,
)
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.conformance.subject import Subject
from cnnkit.model import Conv2D, Dense, Dropout, Flatten, Layer, MaxPool2D, ReLU, Rescale, Sigmoid, Softmax, Tanh
from cnnkit.optimizers import SGD, Adam

MOMENTUM = SGD(learning_rate=0.3, momentum=0.9)


# ------------------------------------------------------------------------------------- what was handed over stays as it is


def _predicts(subject: Subject, question: Question) -> None:
    check_output(subject, subject.compile(question.model, question.parameters), question)


def _learns(subject: Subject, question: Question) -> None:
    check_gradients(subject, start(subject, question), question)


FIRST_LAYERS: dict[str, tuple[Layer, ...]] = {
    "flatten": (Flatten(),),
    "rescale": (Rescale(scale=0.5, offset=0.25),),
    "relu": (ReLU(),),
    "tanh": (Tanh(),),
    "sigmoid": (Sigmoid(),),
    "dropout": (Dropout(rate=0.5),),
    "softmax": (Flatten(), Softmax()),
    "identity": (Rescale(scale=1.0),),
    "window-of-one": (MaxPool2D(pool_size=1),),
}

UNTOUCHED_CASES = [
    trial(
        f"v48.untouched.{name}",
        f"{' and '.join(type(layer).__name__ for layer in layers)}, alone, leaves the images as they were and returns an array of its own",
        _predicts,
        layers,
        (3, 4, 2),
    )
    for name, layers in FIRST_LAYERS.items()
] + [
    trial(
        f"v48.untouched.{name}.training",
        f"Training leaves the images as they were where {type(layers[0]).__name__} comes first",
        _learns,
        (*layers, Flatten(), Dense(units=3), Softmax()),
        (3, 4, 2),
        optimizer=MOMENTUM,
    )
    for name, layers in FIRST_LAYERS.items()
    if name in ("rescale", "relu", "tanh", "sigmoid", "dropout")
]


# ------------------------------------------------------------------------------------------------------------ fresh answers


def _fresh_output(subject: Subject, question: Question) -> None:
    learns = question.optimizer is not None
    program = start(subject, question) if learns else subject.compile(question.model, question.parameters)
    first = program.predict(question.images)
    kept = first.copy()
    second = program.predict(question.images)
    subject.expect(not np.shares_memory(first, second), "two outputs share memory")
    second.fill(9)
    subject.same("an output, and itself after a later one was written into,", first, kept)
    program.predict(question.images[:1])
    program.predict(-question.images)
    subject.same("an output, and itself after later predictions,", first, kept)
    check_output(subject, program, question, "the output after an earlier one was written into")


def _fresh_gradients(subject: Subject, question: Question) -> None:
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    _, first = program.gradients(question.images, question.labels)
    kept = copied(first)
    _, second = program.gradients(-question.images, question.labels)
    for name, array in first.items():
        subject.expect(not np.shares_memory(array, second[name]), f"two gradients of {name} share memory")
        subject.same(f"the gradient of {name}, and itself after a later one,", array, kept[name])
        array.fill(9)
        second[name].fill(9)
    check_steps(subject, program, question, "after the arrays of gradients were written into: ")


def _fresh_state(subject: Subject, question: Question) -> None:
    program = start(subject, question)
    before = program.state()
    kept = copied_state(before)
    first = take_steps(program, question)
    subject.same_states("a state, and itself after later steps", before, kept)
    middle = program.state()
    kept = copied_state(middle)
    for arrays in (
        program.state().parameters,
        *program.state().slots.values(),
        before.parameters,
        *before.slots.values(),
    ):
        for array in arrays.values():
            array.fill(9)
    subject.same_states("a state, and itself after another was written into", middle, kept)
    right = expected_answer(question).numbers
    subject.compare("the losses", np.array(first), right["losses"])
    check_state(subject, program.state(), right, "after states were written into: ")
    again = replace(question, parameters=middle.parameters, slots=middle.slots, step=middle.step)
    check_steps(subject, program, again, "after states were written into: ")


FRESH_CASES = [
    trial("v48.fresh.output", "Each prediction is an array of its own", _fresh_output, batch=3),
    trial(
        "v48.fresh.output-in-training",
        "Each prediction of a program that trains is an array of its own",
        _fresh_output,
        optimizer=MOMENTUM,
        batch=3,
    ),
    trial(
        "v48.fresh.gradients",
        "Gradients are copies: writing into them changes nothing",
        _fresh_gradients,
        optimizer=MOMENTUM,
    ),
    trial(
        "v48.fresh.state",
        "A state is a copy: later steps do not change it, nor it the program",
        _fresh_state,
        optimizer=MOMENTUM,
        batch_size=1,
    ),
]


# ------------------------------------------------------------------------------------- copies of what programs begin with


def _overwrite(question: Question) -> tuple[Question, Callable[[], None]]:
    """The question with parameters and slots of its own, and what overwrites and deletes them."""
    own = copied_state(question.state) if question.optimizer is not None else None
    parameters = dict(own.parameters) if own is not None else copied(question.parameters)
    slots = {slot: dict(arrays) for slot, arrays in own.slots.items()} if own is not None else {}

    def overwrite() -> None:
        for arrays in (parameters, *slots.values()):
            for array in arrays.values():
                array.fill(9)
            arrays.clear()

    return replace(question, parameters=parameters, slots=slots), overwrite


def _copies_parameters(subject: Subject, question: Question) -> None:
    own, overwrite = _overwrite(question)
    program = subject.compile(own.model, own.parameters)
    overwrite()
    check_output(subject, program, question, "the output after the parameters were overwritten")


def _copies_parameters_later(subject: Subject, question: Question) -> None:
    own, overwrite = _overwrite(question)
    program = subject.compile(own.model, own.parameters)
    check_output(subject, program, question)
    overwrite()
    check_output(subject, program, question, "the output after the parameters were overwritten")


def _copies_state(subject: Subject, question: Question) -> None:
    own, overwrite = _overwrite(question)
    program = start(subject, own)
    overwrite()
    check_output(subject, program, question, "the output after the state was overwritten")
    check_steps(subject, program, question, "after the state was overwritten: ")


def _leaves_state(subject: Subject, question: Question) -> None:
    state = question.state
    kept = copied_state(state)
    assert question.optimizer is not None  # noqa: S101 - the case has one
    program = subject.train(question.model, state, question.optimizer)
    take_steps(program, question)
    subject.same_states("the state that training began with, and itself after it", state, kept)


def _another_mapping(subject: Subject, question: Question) -> None:
    arrays = {name: np.asfortranarray(array) for name, array in reversed(list(question.parameters.items()))}
    for array in arrays.values():
        array.flags.writeable = False
    check_output(subject, subject.compile(question.model, MappingProxyType(arrays)), question)


def _swapped_layers(subject: Subject, question: Question) -> None:
    """Layers of the same shapes, their parameters in an order that is not theirs: names say which is whose."""

    def backwards(name: str) -> tuple[int, bool]:
        return -int(name.split(".", maxsplit=1)[0]), "bias" in name

    for order in (sorted(question.parameters), sorted(question.parameters, key=backwards)):
        arrays = {name: question.parameters[name] for name in order}
        what = f"the output with the parameters in the order {', '.join(order[:3])}..."
        check_output(subject, subject.compile(question.model, arrays), question, what)


def _swapped_state(subject: Subject, question: Question) -> None:
    def swapped(arrays: Any) -> Any:
        return {
            name: arrays[name] for name in sorted(arrays, key=lambda name: (-int(name.split(".")[0]), "bias" in name))
        }

    state = question.state
    other = replace(
        state,
        parameters=swapped(state.parameters),
        slots={slot: swapped(arrays) for slot, arrays in reversed(list(state.slots.items()))},
    )
    assert question.optimizer is not None  # noqa: S101 - the case has one
    check_steps(subject, subject.train(question.model, other, question.optimizer), question)


def _another_mapping_of_state(subject: Subject, question: Question) -> None:
    def other(arrays: Any) -> Any:
        return MappingProxyType({name: read_only(array) for name, array in reversed(list(arrays.items()))})

    state = question.state
    slots = MappingProxyType({slot: other(arrays) for slot, arrays in reversed(list(state.slots.items()))})
    mapped = replace(state, parameters=other(state.parameters), slots=slots)
    assert question.optimizer is not None  # noqa: S101 - the case has one
    check_steps(subject, subject.train(question.model, mapped, question.optimizer), question)


def _other_precision(subject: Subject, question: Question) -> None:
    """Parameters that both precisions hold exactly."""
    other = np.float64 if subject.precision == "float32" else np.float32
    rounded = {name: array.astype(np.float32) for name, array in question.parameters.items()}
    program = subject.compile(question.model, {name: array.astype(other) for name, array in rounded.items()})
    check_output(subject, program, replace(question, parameters=rounded))


ELEVEN_LAYERS: tuple[Layer, ...] = (*(Dense(units=3, activation="tanh") for _ in range(10)), Dense(units=3), Softmax())

COPY_CASES = [
    trial(
        "conduct.copy.parameters",
        "Parameters are copied when they are compiled, not when the program first runs",
        _copies_parameters,
    ),
    trial(
        "conduct.copy.parameters-later",
        "Parameters that change after a prediction do not change the program",
        _copies_parameters_later,
    ),
    trial(
        "conduct.copy.state",
        "The state is copied when training is compiled",
        _copies_state,
        optimizer=Adam(learning_rate=0.1),
        batch_size=1,
    ),
    trial(
        "conduct.copy.state-left-alone",
        "Training does not write into the state that it began with",
        _leaves_state,
        optimizer=MOMENTUM,
        batch_size=1,
    ),
    trial(
        "conduct.parameters.mapping",
        "Parameters may come in any mapping, order of names and memory layout",
        _another_mapping,
    ),
    trial(
        "conduct.state.mapping",
        "A state may come in any mapping, order of names and memory layout",
        _another_mapping_of_state,
        optimizer=Adam(learning_rate=0.1),
    ),
    trial(
        "conduct.parameters.order",
        "Parameters belong to layers by their names, 10 behind 9, in whatever order they come",
        _swapped_layers,
        ELEVEN_LAYERS,
        (3,),
    ),
    trial(
        "conduct.state.order",
        "The arrays of a state belong to layers by their names, in whatever order they come",
        _swapped_state,
        ELEVEN_LAYERS,
        (3,),
        optimizer=MOMENTUM,
        batch_size=1,
    ),
    trial("conduct.parameters.precision", "Parameters of the other precision are converted", _other_precision),
]


# ------------------------------------------------------------------------------------------------------ the same again


def _equal_predictions(subject: Subject, question: Question) -> None:
    program = subject.compile(question.model, question.parameters)
    first = program.predict(question.images)
    subject.same("two predictions in a row", program.predict(question.images), first)
    program.predict(-question.images[:1])
    subject.same("a prediction, and itself after one of another batch,", program.predict(question.images), first)


def _equal_gradients(subject: Subject, question: Question) -> None:
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    before = program.state()
    loss, first = program.gradients(question.images, question.labels)
    program.gradients(-question.images[:1], question.labels[:1])
    for _ in range(3):
        again, found = program.gradients(question.images, question.labels)
        subject.same("the losses of two calls of gradients", again, loss)
        for name, array in found.items():
            subject.same(f"the gradients of {name} of two calls", array, first[name])
    subject.same_states("the states before and after gradients", program.state(), before)


def _predicting_changes_nothing(subject: Subject, question: Question) -> None:
    program = start(subject, question)
    before = program.state()
    first = program.predict(question.images)
    subject.same("two predictions in a row", program.predict(question.images), first)
    subject.same_states("the states before and after predict", program.state(), before)
    check_steps(subject, program, question, "after predictions: ")


def _predicts_between_steps(subject: Subject, question: Question) -> None:
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    check_output(subject, program, question, "the output before the first step")
    for rows in question.batches():
        program.step(question.images[rows], question.labels[rows])
        now = replace(question, parameters=program.state().parameters)
        check_output(subject, program, now, "the output after a step")
    right = expected_answer(question).numbers
    check_state(subject, program.state(), right, "with predictions between the steps: ")


def _reused_for_predictions(subject: Subject, question: Question) -> None:
    """One array, filled anew for each call, as readers of large data do: what is kept by its address is stale."""
    program = subject.compile(question.model, question.parameters)
    buffer = question.images.copy()
    for factor in (1, -1, 0.5):
        asked = replace(question, images=(question.images * factor).astype(buffer.dtype))
        buffer[...] = asked.images
        output = program.predict(buffer)
        buffer.fill(9)
        subject.compare("the output for an array that is filled anew for each call", output, right_output(asked))


def _reused_for_training(subject: Subject, question: Question) -> None:
    """One array for images and one for labels, filled anew; the losses are read when all is done."""
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    right = expected_answer(question).numbers
    program = start(subject, question)
    size = question.batch_size or len(question.images)
    images, labels = question.images[:size].copy(), question.labels[:size].copy()
    foretold, losses = [], []
    for rows in question.batches():
        images[...], labels[...] = question.images[rows], question.labels[rows]
        foretold.append(program.program.gradients(images, labels)[0])
        losses.append(program.program.step(images, labels))
        images.fill(9)
        labels.fill(0)
    subject.compare("the losses of gradients, read after all steps,", np.array(foretold, float), right["losses"])
    subject.compare("the losses, read after all steps,", np.array([float(loss) for loss in losses]), right["losses"])
    check_state(subject, program.state(), right, "after steps on arrays that are filled anew for each: ")


def _same_images_other_labels(subject: Subject, question: Question) -> None:
    """The images of the call before, with other labels, in every order of calls: labels belong to the call."""
    order = np.arange(len(question.images))
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    for turn in range(2):
        for call in ("gradients", "step", "gradients", "epoch", "step"):
            labels = np.roll(question.labels, 1) if turn else question.labels
            asked = went_on(program, replace(question, labels=labels))
            before = f"in turn {turn + 1}: "
            program.gradients(asked.images, (labels + 1) % 4)
            if call == "gradients":
                check_gradients(subject, program, asked, before)
            elif call == "step":
                check_steps(subject, program, asked, before)
            else:
                check_epoch(subject, program, asked, order, 4, before)


def _same_labels_other_images(subject: Subject, question: Question) -> None:
    """The labels of the call before, with other images."""
    program = start(subject, question)
    for factor in (1, -1, 0.5):
        asked = replace(question, images=(question.images * factor).astype(question.images.dtype))
        for check in (check_gradients, check_steps):
            check(subject, program, went_on(program, asked), f"with images times {factor}: ")


AGAIN_CASES = [
    trial(
        "conduct.twice.other-labels",
        "The same images with other labels are learned with those",
        _same_images_other_labels,
        optimizer=SGD(learning_rate=0.1),
        batch=4,
    ),
    trial(
        "conduct.twice.other-images",
        "Other images with the same labels are learned as what they are",
        _same_labels_other_images,
        optimizer=SGD(learning_rate=0.1),
        batch=4,
    ),
    trial("v48.buffer.predict", "An array may be filled anew after each prediction", _reused_for_predictions, batch=3),
    trial(
        "v48.buffer.step",
        "Arrays may be filled anew after each step, and losses be read at the end",
        _reused_for_training,
        optimizer=MOMENTUM,
        batch=6,
        batch_size=2,
    ),
    trial(
        "conduct.twice.predict", "The same images give the same output, to the last bit", _equal_predictions, batch=5
    ),
    trial(
        "v35.conduct.twice.gradients",
        "The same batch gives the same gradients, to the last bit, and changes nothing",
        _equal_gradients,
        ask="gradients",
        optimizer=MOMENTUM,
        layers=CONVNET,
        input_shape=CONVNET_SHAPE,
        batch=5,
    ),
    trial(
        "v07.conduct.twice.overlapping-windows",
        "Gradients of overlapping windows of max pooling are added up in a fixed order",
        _equal_gradients,
        (Conv2D(filters=4, kernel_size=1), MaxPool2D(pool_size=3, strides=1), Flatten(), Dense(units=3), Softmax()),
        (7, 8, 2),
        ask="gradients",
        optimizer=MOMENTUM,
    ),
    trial(
        "v43.predict.changes-nothing",
        "Predicting twice gives the same and leaves the state, dropout's masks included, as it was",
        _predicting_changes_nothing,
        (Dense(units=6, activation="tanh"), Dropout(rate=0.4), Dense(units=4), Softmax()),
        (5,),
        optimizer=MOMENTUM,
        batch=4,
        batch_size=2,
    ),
    trial(
        "conduct.predict.between-steps",
        "Predictions between steps see the parameters of the moment",
        _predicts_between_steps,
        optimizer=Adam(learning_rate=0.1),
        batch_size=1,
    ),
]


# -------------------------------------------------------------------------------------------------------------- batches


def _large(subject: Subject, question: Question) -> None:
    check_output(subject, subject.compile(question.model, question.parameters), question)


def _sizes_change(subject: Subject, question: Question) -> None:
    """Batches larger and smaller than the one before; some engines compile for a shape."""
    program = subject.compile(question.model, question.parameters)
    right = right_output(question)
    for count in (3, 7, 0, 1, 7, 2):
        output = program.predict(question.images[:count])
        subject.compare(f"the output of {count} images after other batches", output, right[:count])


def _batch_sizes_change_in_training(subject: Subject, question: Question) -> None:
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    for count in (3, 5, 1, 4):
        asked = replace(question, images=question.images[:count], labels=question.labels[:count])
        check_gradients(subject, program, asked, f"with {count} images after other batches: ")


def _image_types(dtype: type[Any]) -> Body:
    def body(subject: Subject, question: Question) -> None:
        program = subject.compile(question.model, question.parameters)
        check_output(subject, program, question)
        values = np.random.default_rng(3).integers(0, 2, question.images.shape)
        other = replace(question, images=values.astype(dtype))
        check_output(subject, program, other, f"the output for {np.dtype(dtype)} images")
        check_output(subject, program, question, f"the output after {np.dtype(dtype)} images")

    return body


def _float32_in_float64(subject: Subject, question: Question) -> None:
    single = replace(question, images=question.images.astype(np.float32))
    check_steps(subject, start(subject, single), single)


PRIME = 1031  # more than inner batches of 1,024 hold, and no multiple of any

BATCH_CASES = [
    trial(
        "conduct.batch.large",
        f"{PRIME} images, which no inner batch divides, all get their output",
        _large,
        (Conv2D(filters=3, kernel_size=2, activation="tanh"), Flatten(), Dense(units=3), Softmax()),
        (3, 4, 1),
        batch=PRIME,
    ),
    trial(
        "conduct.batch.large-gradients",
        "The loss and the gradient are means over 131 images, which no inner batch divides",
        _learns,
        (Conv2D(filters=3, kernel_size=2, activation="tanh"), Flatten(), Dense(units=3), Softmax()),
        (3, 4, 1),
        optimizer=MOMENTUM,
        batch=131,
    ),
    trial("conduct.batch.sizes", "Batches of different sizes follow each other", _sizes_change, batch=7),
    trial(
        "conduct.batch.sizes-training",
        "Training batches of different sizes follow each other",
        _batch_sizes_change_in_training,
        optimizer=MOMENTUM,
        batch=5,
    ),
    trial("conduct.images.bytes-after-floats", "A program takes uint8 images after floats", _image_types(np.uint8)),
    trial(
        "conduct.images.float32",
        "A float64 program takes float32 images",
        _image_types(np.float32),
        precisions=("float64",),
    ),
    trial(
        "conduct.images.float32-training",
        "A float64 program trains on float32 images",
        _float32_in_float64,
        optimizer=MOMENTUM,
        batch_size=1,
        precisions=("float64",),
    ),
]

CASES: list[Case] = [
    *UNTOUCHED_CASES,
    *FRESH_CASES,
    *COPY_CASES,
    *AGAIN_CASES,
    *BATCH_CASES,
]
