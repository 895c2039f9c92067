"""Cases of batches: large and single ones for every method that trains, and orders that are long or reach far."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.layouts import CALLS, DENSENET, LAYOUTS, laid
from cnnkit.conformance.catalogue.material import TANHNET, TANHNET_SHAPE, Body, check_epoch, start, trial, went_on
from cnnkit.conformance.question import Question
from cnnkit.conformance.subject import Subject
from cnnkit.model import Dense, Dropout, Layer, Rescale, Softmax
from cnnkit.optimizers import SGD, Adam

MOMENTUM = SGD(learning_rate=0.05, momentum=0.8)

LEARNING: dict[str, Any] = {"optimizer": MOMENTUM}

MODELS: dict[str, tuple[str, tuple[Layer, ...], tuple[int, ...], dict[str, Any]]] = {
    "images": ("images", TANHNET, TANHNET_SHAPE, {}),
    "bytes": ("uint8 images", (Rescale(scale=1 / 255), *TANHNET), TANHNET_SHAPE, {"images": "uint8"}),
    "features": ("rows of features", DENSENET, (5,), {}),
    "dropout": (
        "rows of features, some dropped,",
        (Dense(units=8, activation="tanh"), Dropout(rate=0.4), Dense(units=4), Softmax()),
        (5,),
        {},
    ),
}

SIZE_CASES = [
    trial(
        f"v49.batch.{size}.{call}.{name}",
        CALLS[call][0].format(f"{size} {said}" if size > 1 else f"one of {said}"),
        CALLS[call][1],
        layers,
        shape,
        optimizer=MOMENTUM,
        batch=size,
        **options,
    )
    for name, (said, layers, shape, options) in MODELS.items()
    for size in (1, 64, 130)
    for call in ("predict-in-training", "gradients", "step")
]


LAYOUT_CASES = [
    trial(
        f"v49.batch.{size}.{call}.gaps",
        claim.format(f"{said} cut out of a larger array with steps"),
        laid(LAYOUTS["gaps"][1], body),
        (Rescale(scale=1 / 255), *TANHNET),
        TANHNET_SHAPE,
        images="uint8",
        batch=size,
        **({} if call == "predict" else LEARNING),
    )
    for size, said in ((1, "one uint8 image"), (70, "70 uint8 images"))
    for call, (claim, body) in CALLS.items()
    if call != "epoch"
]


def _epoch(order: NDArray[np.int64], batch_size: int) -> Body:
    def body(subject: Subject, question: Question) -> None:
        check_epoch(subject, start(subject, question), question, order, batch_size)

    return body


def _sizes_change(subject: Subject, question: Question) -> None:
    """Steps on batches larger and smaller than the one before, which engines may compile for a size."""
    program = start(subject, question)
    for first, count in ((0, 3), (3, 33), (36, 1), (37, 20)):
        order = np.arange(first, first + count)
        check_epoch(subject, program, went_on(program, question), order, count, f"after a batch of {count} images: ")


LONG = np.arange(150) * 37 % 140
"""140 images, ten of them twice: neither in order nor a multiple of a batch."""

EPOCH_CASES = [
    trial(
        f"v49.epoch.{size}.{name}",
        f"An epoch learns from 150 {said} in batches of {size}, the last of {150 % size}",
        _epoch(LONG, size),
        layers,
        shape,
        optimizer=MOMENTUM,
        batch=140,
        **options,
    )
    for name, (said, layers, shape, options) in MODELS.items()
    for size in (64, 130)
] + [
    *(
        trial(
            f"v49.epoch.1.{name}",
            f"An epoch learns from {said} one by one",
            _epoch(np.array([2, 0, 1]), 1),
            layers,
            shape,
            optimizer=MOMENTUM,
            batch=3,
            **options,
        )
        for name, (said, layers, shape, options) in MODELS.items()
    ),
    *(
        trial(
            f"v49.epoch.70.gaps.{name}",
            f"An epoch learns in batches of 70 from {said} cut out of a larger array with steps",
            laid(LAYOUTS["gaps"][1], _epoch(LONG, 70)),
            layers,
            shape,
            optimizer=MOMENTUM,
            batch=140,
            **options,
        )
        for name, (said, layers, shape, options) in MODELS.items()
        if name in ("bytes", "dropout")
    ),
    trial(
        "v49.epoch.one-image",
        "An epoch goes through one image again and again",
        _epoch(np.zeros(3, np.int64), 2),
        optimizer=MOMENTUM,
        batch=1,
    ),
    trial(
        "v49.epoch.many-steps",
        "An epoch of 150 images in batches of 7 takes 22 steps",
        _epoch(LONG, 7),
        DENSENET,
        (5,),
        optimizer=Adam(learning_rate=0.001, epsilon=0.01),
        batch=140,
    ),
    trial(
        "v49.epoch.last-of-one",
        "A last batch of one image behind one of 64 is a step too",
        _epoch(LONG[:65], 64),
        optimizer=MOMENTUM,
        batch=140,
    ),
    trial(
        "v49.epoch.sizes",
        "Steps of 3, 33, 1 and 20 images follow each other",
        _sizes_change,
        optimizer=MOMENTUM,
        batch=57,
    ),
    trial(
        "v32.epoch.far-places",
        "An order may go to places behind 65,535",
        _epoch(np.array([69_999, 3, 40_000, 65_537, 33_000]), 2),
        (Dense(units=3), Softmax()),
        (2,),
        optimizer=MOMENTUM,
        batch=70_000,
    ),
]


CASES: list[Case] = [*SIZE_CASES, *LAYOUT_CASES, *EPOCH_CASES]
