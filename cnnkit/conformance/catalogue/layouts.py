"""Cases of memory: images, parameters, labels and orders however they lie in it, for every method that takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.material import (
    BOTH,
    CONVNET,
    CONVNET_SHAPE,
    TANHNET,
    TANHNET_SHAPE,
    Body,
    check_epoch,
    check_gradients,
    check_output,
    check_steps,
    draw_slots,
    start,
    trial,
)
from cnnkit.conformance.catalogue.mistakes import LABELS
from cnnkit.conformance.question import Question
from cnnkit.conformance.subject import Subject
from cnnkit.model import Dense, Layer, Rescale, Softmax
from cnnkit.optimizers import SGD

MOMENTUM = SGD(learning_rate=0.3, momentum=0.9)


# ------------------------------------------------------------------------------------------------------------- layouts


def _with_gaps(array: Any) -> Any:
    wide = np.full([2 * size + 1 for size in array.shape], 99, array.dtype)
    places = tuple(slice(1, None, 2) for _ in array.shape)
    wide[places] = array
    return wide[places]


def _backwards(array: Any) -> Any:
    turned = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[turned])[turned]


def read_only(array: Any) -> Any:
    """A copy that nobody may write into."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _broadcast(array: Any) -> Any:
    first = array[:1] if array.ndim == 1 else array[:1, ..., :1]
    return np.broadcast_to(first, array.shape)


LAYOUTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "fortran": ("in Fortran order", np.asfortranarray),
    "backwards": ("with negative strides", _backwards),
    "gaps": ("cut out of a larger array with steps", _with_gaps),
    "transposed": ("that are a transposed view", lambda array: np.ascontiguousarray(array.T).T),
    "broadcast": ("with strides of 0", _broadcast),
    "read-only": ("that are read-only", read_only),
    "byte-order": ("in the other byte order", lambda array: array.astype(array.dtype.newbyteorder("S"))),
    "memory-map": ("in a memory map", lambda array: read_only(array).view(np.memmap)),
}


# -------------------------------------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class Kind:
    """What lies in memory: its name in a claim, the model that predicts from it and the one that learns from it."""

    said: str
    predicts: tuple[Layer, ...]
    learns: tuple[Layer, ...]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    images: Any = "uniform"
    precisions: tuple[str, ...] = BOTH


BYTES = Rescale(scale=1 / 255)
DENSENET: tuple[Layer, ...] = (Dense(units=6, activation="tanh"), Dense(units=4), Softmax())
SHAPES, FEATURES = (CONVNET_SHAPE, TANHNET_SHAPE), ((5,), (5,))
SMALL = np.array([[0, 1, 3, 2, 0], [1, 4, 0, 1, 5], [2, 0, 2, 3, 1]], np.uint8)
"""Bytes that a model can take as they are."""
KINDS = {
    "images": Kind("images", CONVNET, TANHNET, SHAPES),
    "bytes": Kind("uint8 images", (BYTES, *CONVNET), (BYTES, *TANHNET), SHAPES, "uint8"),
    "features": Kind("features", DENSENET, DENSENET, FEATURES),
    "byte-features": Kind("uint8 features", DENSENET, DENSENET, FEATURES, SMALL),
    "single": Kind("float32 images, in float64,", CONVNET, TANHNET, SHAPES, precisions=("float64",)),
}


def _predict(subject: Subject, question: Question) -> None:
    check_output(subject, subject.compile(question.model, question.parameters), question)


def _predict_in_training(subject: Subject, question: Question) -> None:
    check_output(subject, start(subject, question), question)


def _gradients(subject: Subject, question: Question) -> None:
    check_gradients(subject, start(subject, question), question)


def _step(subject: Subject, question: Question) -> None:
    check_steps(subject, start(subject, question), question)


def _epoch(subject: Subject, question: Question) -> None:
    check_epoch(subject, start(subject, question), question, np.array([2, 0, 1]), 2)


CALLS: dict[str, tuple[str, Body]] = {
    "predict": ("A program predicts from {}", _predict),
    "predict-in-training": ("A program that trains predicts from {}", _predict_in_training),
    "gradients": ("A program gives the gradients of {}", _gradients),
    "step": ("A step learns from {}", _step),
    "epoch": ("An epoch learns from {}", _epoch),
}


def laid(lay: Callable[[Any], Any], call: Body, kind: str = "images") -> Body:
    """`call` on images that lie in memory as `lay` places them."""

    def body(subject: Subject, question: Question) -> None:
        images = question.images.astype(np.float32) if kind == "single" else question.images
        call(subject, replace(question, images=lay(images)))

    return body


def _is_asked(kind: str, layout: str, call: str) -> bool:
    if kind in ("single", "byte-features"):  # one more way through an engine, not one for each layout
        return layout in ("read-only", "gaps")
    if kind == "images" and call == "epoch":
        return False  # v48.epoch asks
    return not ("byte" in kind and layout == "byte-order")


def _learning(call: str) -> dict[str, Any]:
    return {} if call == "predict" else {"optimizer": MOMENTUM}


IMAGE_CASES = [
    trial(
        f"v48.{name}.{layout}.{call}",
        claim.format(f"{kind.said} {said}"),
        laid(lay, body, name),
        kind.predicts if call == "predict" else kind.learns,
        kind.shapes[call != "predict"],
        images=kind.images,
        batch=3,
        precisions=kind.precisions,
        **_learning(call),
    )
    for name, kind in KINDS.items()
    for layout, (said, lay) in LAYOUTS.items()
    for call, (claim, body) in CALLS.items()
    if _is_asked(name, layout, call)
]


# -------------------------------------------------------------------------------------------------- parameters and states


def _parameters_laid(lay: Callable[[Any], Any]) -> Body:
    def body(subject: Subject, question: Question) -> None:
        parameters = {name: lay(array) for name, array in question.parameters.items()}
        _predict(subject, replace(question, parameters=parameters))

    return body


def _state_laid(lay: Callable[[Any], Any]) -> Body:
    def body(subject: Subject, question: Question) -> None:
        assert question.optimizer is not None  # noqa: S101 - the case has one
        slots = draw_slots(question.model, question.optimizer, question.precision)
        placed = replace(
            question,
            parameters={name: lay(array) for name, array in question.parameters.items()},
            slots={slot: {name: lay(array) for name, array in arrays.items()} for slot, arrays in slots.items()},
        )
        check_steps(subject, start(subject, placed), placed)

    return body


PARAMETER_CASES = [
    case
    for layout, (said, lay) in LAYOUTS.items()
    if layout != "byte-order"
    for case in (
        trial(f"v48.parameters.{layout}", f"Parameters may be arrays {said}", _parameters_laid(lay)),
        trial(
            f"v48.state.{layout}",
            f"Parameters and slots of a state may be arrays {said}",
            _state_laid(lay),
            optimizer=MOMENTUM,
            batch_size=1,
        ),
    )
]


# ------------------------------------------------------------------------------------------------- labels and orders


def _labels_laid(place: Callable[[Any], Any]) -> Body:
    def body(subject: Subject, question: Question) -> None:
        _epoch(subject, replace(question, labels=place(question.labels)))

    return body


def _order_laid(place: Callable[[Any], Any]) -> Body:
    def body(subject: Subject, question: Question) -> None:
        order = place(np.array([2, 0, 4, 1, 2]))
        check_epoch(subject, start(subject, question), question, order, 2)

    return body


LABEL_CASES = [
    trial(
        f"v19.labels.{name}.epoch",
        f"Labels of {name} are learned by an epoch"
        if "int" in name
        else f"An epoch learns labels however they lie in memory ({name})",
        _labels_laid(place),
        optimizer=MOMENTUM,
        batch=3,
    )
    for name, place in LABELS.items()
]

ORDER_CASES = [
    trial(
        f"v48.order.{name}",
        f"An epoch follows an order of int64 however it lies in memory ({name})",
        _order_laid(LABELS[name]),
        optimizer=MOMENTUM,
        batch=5,
    )
    for name in ("gaps", "backwards", "read-only", "equal")
]

CASES: list[Case] = [*IMAGE_CASES, *PARAMETER_CASES, *LABEL_CASES, *ORDER_CASES]
