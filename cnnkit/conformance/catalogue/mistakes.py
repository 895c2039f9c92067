"""Cases of mistakes: what does not fit is refused with the same error on every backend, and nothing is harmed by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from cnnkit.arrays import Array, Images, Labels
from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.material import (
    TANHNET_SHAPE,
    Body,
    check_gradients,
    check_output,
    check_steps,
    copied_state,
    start,
    trial,
)
from cnnkit.conformance.question import Question
from cnnkit.conformance.subject import Subject, WatchedTraining
from cnnkit.errors import DataError, ModelError, OptionError
from cnnkit.model import Conv2D, Dense, Flatten, Model, Softmax
from cnnkit.optimizers import SGD, Adam

MOMENTUM = SGD(learning_rate=0.3, momentum=0.9)

# ---------------------------------------------------------------------------------------------------------------- images

WRONG_IMAGES: dict[str, tuple[str, Callable[[Images], Any]]] = {
    "no-batch": ("without a batch axis", lambda images: images[0]),
    "no-channels": ("without a channel axis", lambda images: images[..., 0]),
    "flat": ("laid out as rows of features", lambda images: images.reshape(len(images), -1)),
    "turned": ("with height and width exchanged", lambda images: images.swapaxes(1, 2)),
    "channels-first": ("with the channels first", lambda images: images.transpose(0, 3, 1, 2)),
    "larger": ("a row too high", lambda images: np.concatenate([images, images[:, :1]], 1)),
    "one-channel": ("with one channel instead of two, which must not be broadcast", lambda images: images[..., :1]),
    "one-pixel": ("of one pixel, which must not be broadcast", lambda images: images[:, :1, :1]),
    "empty": ("of another shape, though there are 0 of them", lambda images: images[:0, 1:]),
    "int64": ("of int64", lambda images: np.ones_like(images, np.int64)),
    "int8": ("of int8", lambda images: np.ones_like(images, np.int8)),
    "bool": ("of bool", lambda images: images > 0),
    "float16": ("of float16", lambda images: images.astype(np.float16)),
    "complex": ("of complex numbers", lambda images: images.astype(np.complex64)),
}


def _said(array: Any) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _predict_from(spoil: Callable[[Images], Any]) -> Body:
    def body(subject: Subject, question: Question) -> None:
        program = subject.compile(question.model, question.parameters)
        wrong = spoil(question.images)
        subject.raises(f"predicting from {_said(wrong)}", DataError, lambda: program.program.predict(wrong))
        check_output(subject, program, question, "the output after a refused batch")

    return body


def _float64_in_float32(images: Images) -> Images:
    return images.astype(np.float64)


IMAGE_CASES = [
    trial(
        f"v46.images.{name}", f"Images {said} are a DataError, and the program goes on", _predict_from(spoil), batch=3
    )
    for name, (said, spoil) in WRONG_IMAGES.items()
] + [
    trial(
        "v46.images.float64",
        "A float32 program refuses float64 images, and goes on",
        _predict_from(_float64_in_float32),
        precisions=("float32",),
    ),
    trial(
        "v46.images.features",
        "A dense model refuses rows with a feature too many",
        _predict_from(lambda images: np.concatenate([images, images], 1)),
        (Dense(units=3), Softmax()),
        (5,),
    ),
]


# ------------------------------------------------------------------------------------------------- batches that are learned

Call = Callable[[WatchedTraining, Images, Any], object]

WAYS_TO_LEARN: dict[str, Call] = {
    "gradients": lambda program, images, labels: program.program.gradients(images, labels),
    "step": lambda program, images, labels: program.program.step(images, labels),
    "epoch": lambda program, images, labels: program.program.epoch(
        images, labels, np.arange(len(images)), max(len(images), 1)
    ),
}
"""Past what watches the calls, which could not count the rows of what is no batch."""


def _learn_wrongly(way: str, spoil: Callable[[Images, Labels], tuple[Any, Any]]) -> Body:
    def body(subject: Subject, question: Question) -> None:
        assert question.labels is not None  # noqa: S101 - questions that learn have labels
        program = start(subject, question)
        before = copied_state(program.state())
        images, labels = spoil(question.images, question.labels)
        what = f"{way} with {_said(images)} and labels {_said(labels)}"
        subject.raises(what, DataError, lambda: WAYS_TO_LEARN[way](program, images, labels))
        subject.same_states("the states before and after a refused batch", program.state(), before)
        check_gradients(subject, program, question, "after a refused batch: ")
        check_steps(subject, program, question, "after a refused batch: ")

    return body


def _with_label(value: int, dtype: type[Any] = np.int64) -> Callable[[Images, Labels], tuple[Images, Labels]]:
    def spoil(images: Images, labels: Labels) -> tuple[Images, Labels]:
        wrong = labels.astype(dtype)
        wrong[1] = value
        return images, wrong

    return spoil


WRONG_LABELS: dict[str, tuple[str, Callable[[Images, Labels], tuple[Any, Any]]]] = {
    "too-large": ("A label that is the number of classes is", _with_label(4)),
    "far-too-large": ("A label of 255 in uint8 is", _with_label(255, np.uint8)),
    "beyond-int32": ("A label that is right only in its last 32 bits is", _with_label(2**32 + 1)),
    "negative": ("A label of -1 is", _with_label(-1)),
    "negative-int8": ("A label of -4 in int8 is", _with_label(-4, np.int8)),
    "floats": ("Labels that are floats are", lambda images, labels: (images, labels.astype(np.float32))),
    "too-few": ("Fewer labels than images are", lambda images, labels: (images, labels[:-1])),
    "too-many": ("More labels than images are", lambda images, labels: (images, np.append(labels, 0))),
    "one-label": ("One label for several images is", lambda images, labels: (images, labels[:1])),
    "one-hot": ("One-hot labels are", lambda images, labels: (images, np.eye(4, dtype=np.int64)[labels])),
    "column": ("Labels in a column are", lambda images, labels: (images, labels[:, np.newaxis])),
}

LABEL_CASES = [
    trial(
        f"v18.labels.{name}.{way}",
        f"{said} a DataError of {way}, and training goes on as if nothing had been",
        _learn_wrongly(way, spoil),
        optimizer=MOMENTUM,
        batch=3,
        batch_size=2,
    )
    for name, (said, spoil) in WRONG_LABELS.items()
    for way in WAYS_TO_LEARN
]


def _spoilt_images(spoil: Callable[[Images], Any]) -> Callable[[Images, Labels], tuple[Any, Any]]:
    return lambda images, labels: (spoil(images), labels)


LEARNED_IMAGE_CASES = [
    trial(
        f"v46.images.{name}.{way}",
        f"Images {WRONG_IMAGES[name][0]} are a DataError of {way}, and training goes on as if nothing had been",
        _learn_wrongly(way, _spoilt_images(WRONG_IMAGES[name][1])),
        optimizer=MOMENTUM,
        batch=3,
        batch_size=2,
    )
    for name in ("turned", "one-channel", "int64")
    for way in WAYS_TO_LEARN
]

EMPTY_CASES = [
    trial(
        f"conduct.empty-batch.{way}",
        f"A batch of 0 images, which has no mean loss, is a DataError of {way}",
        _learn_wrongly(way, lambda images, labels: (images[:0], labels[:0])),
        optimizer=MOMENTUM,
        batch=3,
        batch_size=2,
    )
    for way in ("gradients", "step")
]


# -------------------------------------------------------------------------------------------------------- right labels


def _of(dtype: str) -> Callable[[Labels], Labels]:
    return lambda labels: labels.astype(dtype)


LABELS: dict[str, Callable[[Labels], Labels]] = {
    **{dtype: _of(dtype) for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")},
    "gaps": lambda labels: np.repeat(labels, 2)[::2],
    "backwards": lambda labels: labels[::-1].copy()[::-1],
    "byte-order": lambda labels: labels.astype(labels.dtype.newbyteorder("S")),
    "read-only": lambda labels: np.broadcast_to(labels, labels.shape),
    "equal": lambda labels: np.broadcast_to(labels[:1], labels.shape),
}


def _other_labels(place: Callable[[Labels], Labels]) -> Body:
    def body(subject: Subject, question: Question) -> None:
        assert question.labels is not None  # noqa: S101 - questions that learn have labels
        placed = replace(question, labels=place(question.labels))
        program = start(subject, placed)
        check_gradients(subject, program, placed)
        check_steps(subject, program, placed)

    return body


RIGHT_LABEL_CASES = [
    trial(
        f"v19.labels.{name}",
        f"Labels of {name} are learned" if "int" in name else f"Labels are learned however they lie in memory ({name})",
        _other_labels(place),
        optimizer=MOMENTUM,
        batch=3,
        batch_size=2,
    )
    for name, place in LABELS.items()
]


# --------------------------------------------------------------------------------------------------------------- orders

WRONG_ORDERS: dict[str, tuple[str, Any]] = {
    "too-large": ("A place behind the last image", [0, 3]),
    "negative": ("A place before the first image", [0, -1]),
    "floats": ("An order of floats", [0.0, 1.0]),
    "columns": ("An order of two columns", [[0, 1]]),
}


def _wrong_order(order: Any) -> Body:
    def body(subject: Subject, question: Question) -> None:
        program = start(subject, question)
        before = copied_state(program.state())
        places = np.array(order)
        subject.raises(
            f"epoch with the order {order} for 3 images",
            DataError,
            lambda: program.program.epoch(question.images, question.labels, places, 2),
        )
        subject.same_states("the states before and after a refused epoch", program.state(), before)
        check_steps(subject, program, question, "after a refused epoch: ")

    return body


def _wrong_batch_size(size: int) -> Body:
    def body(subject: Subject, question: Question) -> None:
        program = start(subject, question)
        before = copied_state(program.state())
        subject.raises(
            f"epoch with batch_size={size}",
            OptionError,
            lambda: program.program.epoch(question.images, question.labels, np.arange(3), size),
        )
        subject.same_states("the states before and after a refused epoch", program.state(), before)

    return body


ORDER_CASES = [
    trial(
        f"v46.epoch.order-{name}",
        f"{said} is a DataError of epoch, before anything is learned",
        _wrong_order(order),
        optimizer=MOMENTUM,
        batch=3,
        batch_size=2,
    )
    for name, (said, order) in WRONG_ORDERS.items()
] + [
    trial(
        f"v46.epoch.batch-size-{name}",
        f"A batch_size of {size} is an OptionError of epoch",
        _wrong_batch_size(size),
        optimizer=MOMENTUM,
        batch=3,
    )
    for name, size in {"zero": 0, "negative": -1}.items()
]


# ----------------------------------------------------------------------------------------------- what programs begin with

Arrays = dict[str, Array]


def _without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


WRONG_PARAMETERS: dict[str, tuple[str, Callable[[Arrays], Any]]] = {
    "missing": ("of which one is missing", _without("4.bias")),
    "extra": ("of which one is too many", lambda arrays: {**arrays, "5.bias": arrays["4.bias"]}),
    "transposed": ("with a transposed kernel", lambda arrays: {**arrays, "4.kernel": arrays["4.kernel"].T}),
    "filters-first": (
        "with a kernel whose filters come first",
        lambda arrays: {**arrays, "0.kernel": arrays["0.kernel"].transpose(3, 2, 0, 1)},
    ),
    "short-bias": ("with a bias that is too short", lambda arrays: {**arrays, "4.bias": arrays["4.bias"][:1]}),
    "scalar-bias": (
        "with a single number for a bias, which must not be broadcast",
        lambda arrays: {**arrays, "0.bias": arrays["0.bias"][0]},
    ),
    "integers": ("of whole numbers", lambda arrays: {**arrays, "0.bias": np.ones(3, np.int64)}),
    "lists": ("that are lists", lambda arrays: {**arrays, "0.bias": arrays["0.bias"].tolist()}),
}


def _compile_wrongly(spoil: Callable[[Arrays], Any]) -> Body:
    def body(subject: Subject, question: Question) -> None:
        wrong = spoil(dict(question.parameters))
        subject.raises("compiling with them", DataError, lambda: subject.compile(question.model, wrong))

    return body


def _train_wrongly(spoil: Callable[[Arrays], Any], slot: str | None = None) -> Body:
    def body(subject: Subject, question: Question) -> None:
        state = question.state
        assert question.optimizer is not None  # noqa: S101 - the case has one
        if slot is None:
            wrong = replace(state, parameters=spoil(dict(state.parameters)))
        else:
            wrong = replace(state, slots={**state.slots, slot: spoil(dict(state.slots[slot]))})
        optimizer = question.optimizer
        subject.raises("training from them", DataError, lambda: subject.train(question.model, wrong, optimizer))

    return body


def _wrong_slots(subject: Subject, question: Question) -> None:
    state = question.state
    for what, slots, optimizer in (
        ("no slots for Adam", {}, Adam()),
        ("one slot missing for Adam", {"m": state.slots["m"]}, Adam()),
        ("Adam's slots for SGD", state.slots, SGD(learning_rate=0.1)),
        ("Adam's slots for momentum", state.slots, MOMENTUM),
    ):
        train = partial(subject.train, question.model, replace(state, slots=slots), optimizer)
        subject.raises(f"training with {what}", DataError, train)


def _no_softmax(subject: Subject, question: Question) -> None:
    model = question.model.prefix(len(question.model.layers) - 2)
    assert question.optimizer is not None  # noqa: S101 - the case has one
    optimizer = question.optimizer
    subject.raises(
        "training a model without Softmax", ModelError, lambda: subject.train(model, question.state, optimizer)
    )
    subject.compile(model, question.parameters)


def _nothing_to_learn(subject: Subject, question: Question) -> None:
    model = Model(input_shape=question.model.input_shape, layers=[Flatten(), Softmax()])
    state = replace(question.state, parameters={}, slots={"velocity": {}})
    subject.raises("training a model without parameters", ModelError, lambda: subject.train(model, state, MOMENTUM))


def _without_feature(case: Case, feature: str) -> Case:
    """A case whose model is cut, so that it does not ask for `feature`."""
    return replace(case, features=case.features - {feature})


_LAYERS = (Conv2D(filters=3, kernel_size=(2, 3)), Flatten(), Dense(units=5), Flatten(), Dense(units=4), Softmax())
"""Flattening what is flat changes nothing; it only moves the second dense layer to the place 4."""

BEGIN_CASES = [
    case
    for name, (said, spoil) in WRONG_PARAMETERS.items()
    for case in (
        trial(
            f"v46.parameters.{name}",
            f"Parameters {said} are a DataError when they are compiled",
            _compile_wrongly(spoil),
            _LAYERS,
            (4, 5, 2),
        ),
        trial(
            f"v46.state.{name}",
            f"A state with parameters {said} is a DataError when training is compiled",
            _train_wrongly(spoil),
            _LAYERS,
            (4, 5, 2),
            optimizer=MOMENTUM,
        ),
        trial(
            f"v46.slots.{name}",
            f"A state with slots {said} is a DataError when training is compiled",
            _train_wrongly(spoil, "velocity"),
            _LAYERS,
            (4, 5, 2),
            optimizer=MOMENTUM,
        ),
    )
] + [
    trial(
        "v46.slots.other-optimizer", "The slots of another optimizer are a DataError", _wrong_slots, optimizer=Adam()
    ),
    _without_feature(
        trial(
            "v46.training.no-softmax",
            "Training a model that does not end in Softmax is a ModelError",
            _no_softmax,
            optimizer=MOMENTUM,
        ),
        "softmax",
    ),
    trial(
        "v46.training.no-parameters",
        "Training a model without parameters is a ModelError",
        _nothing_to_learn,
        (Flatten(), Softmax()),
        TANHNET_SHAPE,
        optimizer=MOMENTUM,
    ),
]

CASES: list[Case] = [
    *IMAGE_CASES,
    *LABEL_CASES,
    *LEARNED_IMAGE_CASES,
    *EMPTY_CASES,
    *RIGHT_LABEL_CASES,
    *ORDER_CASES,
    *BEGIN_CASES,
]
