"""Cases of epochs, which are steps in an order, and of dropout, whose masks are those of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cnnkit.backend import EpochTotals
from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.material import (
    Body,
    check_epoch,
    check_gradients,
    check_output,
    check_state,
    check_steps,
    check_totals,
    in_order,
    start,
    trial,
    went_on,
)
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.conformance.subject import Subject
from cnnkit.model import AvgPool2D, Conv2D, Dense, Dropout, Flatten, Layer, Rescale, Softmax
from cnnkit.optimizers import SGD, Adam, AdamW

MOMENTUM = SGD(learning_rate=0.05, momentum=0.8)


# ---------------------------------------------------------------------------------------------------------------- epochs


def _epoch(order: Any, batch_size: int, dtype: Any = np.int64) -> Body:
    def body(subject: Subject, question: Question) -> None:
        check_epoch(subject, start(subject, question), question, np.array(order, dtype), batch_size)

    return body


ORDERS: dict[str, tuple[str, Sequence[int], int]] = {
    "in-order": ("An epoch takes whole batches in order", range(6), 2),
    "permuted": ("An epoch follows the order, not the data", (4, 1, 5, 0, 3, 2), 2),
    "subset": ("An epoch leaves out what is not in the order", (5, 2, 1), 2),
    "repeated": ("An epoch comes back to images as often as the order does", (3, 3, 0, 3, 5, 0), 2),
    "longer": ("An order may be longer than the data", (0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0), 3),
    "one-by-one": ("A batch may be one image", (2, 0, 4), 1),
    "whole": ("A batch may be the whole order", (4, 1, 5, 0, 3, 2), 6),
    "one-place": ("An order may be one image", (3,), 4),
}

ORDER_CASES = [
    trial(f"v32.epoch.{name}", said, _epoch(order, size), optimizer=MOMENTUM, batch=6)
    for name, (said, order, size) in ORDERS.items()
] + [
    trial(
        "v32.epoch.int32",
        "An order may be of int32",
        _epoch((4, 1, 5, 0, 3, 2), 4, np.int32),
        optimizer=MOMENTUM,
        batch=6,
    )
]

PARTIAL_CASES = [
    trial(
        f"v20.epoch.{name}",
        said,
        _epoch(order, size),
        optimizer=MOMENTUM,
        batch=7,
    )
    for name, said, order, size in (
        (
            "last-batch",
            "The last batch, smaller than the others, is learned and counted as the images that it has",
            range(7),
            3,
        ),
        ("last-batch-of-two", "A last batch of 2 behind one of 5 weighs 2 of 7 in the loss", (6, 2, 0, 1, 5, 3, 4), 5),
        ("smaller-than-batch", "An order smaller than a batch is a batch", (6, 2, 0), 64),
    )
] + [
    trial(
        "v20.epoch.adam",
        "Each batch of an epoch is one step of Adam, the last one too",
        _epoch((6, 2, 0, 1, 5, 3, 4), 3),
        optimizer=Adam(learning_rate=0.005),
        batch=7,
    ),
    *(
        trial(
            f"v20.epoch.betas.{name}",
            "An epoch decays moments by the betas that were asked for",
            _epoch((6, 2, 0, 1, 5, 3, 4), 3),
            optimizer=optimizer,
            batch=7,
            step=2,
        )
        for name, optimizer in {
            "adam": Adam(learning_rate=0.01, beta_1=0.6, beta_2=0.8, epsilon=0.01),
            "adamw": AdamW(learning_rate=0.01, beta_1=0.7, beta_2=0.9, epsilon=0.01, weight_decay=0.1),
        }.items()
    ),
    trial(
        "v20.epoch.bytes",
        "An epoch of uint8 images is one of their steps",
        _epoch((6, 2, 0, 1, 5, 3, 4), 3),
        (
            Rescale(scale=1 / 255),
            Conv2D(filters=3, kernel_size=2, activation="tanh"),
            Flatten(),
            Dense(units=4),
            Softmax(),
        ),
        (4, 5, 2),
        optimizer=MOMENTUM,
        batch=7,
        images="uint8",
    ),
]


def _empty(subject: Subject, question: Question) -> None:
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    before = program.state()
    totals = program.epoch(question.images, question.labels, np.array([], np.int64), 2)
    subject.expect(totals.count == 0 and float(totals.loss_sum) == 0, f"an epoch of nothing gives {totals}")
    subject.same_states("the states before and after an epoch of nothing", program.state(), before)


def _in_pieces(subject: Subject, question: Question) -> None:
    """As `fit` does: the same arrays for every piece, each of whole batches but for the last."""
    order = np.array([6, 2, 0, 1, 5, 3, 4])
    right = expected_answer(in_order(question, order, 2)).numbers
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    pieces = (order[:2], order[2:6], order[6:])
    totals = [program.epoch(question.images, question.labels, piece, 2) for piece in pieces]
    whole = EpochTotals(sum(float(each.loss_sum) for each in totals), sum(each.count for each in totals))
    check_totals(subject, whole, in_order(question, order, 2), right["losses"], "of all pieces: ")
    check_state(subject, program.state(), right, "after all pieces: ")


def _other_data(subject: Subject, question: Question) -> None:
    """Data that an engine keeps for the next piece must not be taken for other data of the same shape."""
    order = np.array([2, 0, 1])
    program = start(subject, question)
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    check_epoch(subject, program, question, order, 2, "in the first epoch: ")
    others = {
        "other images": replace(question, images=-question.images),
        "other labels": replace(question, labels=(question.labels + 1) % 4),
        "the first images again": question,
        "fewer images": replace(question, images=question.images[1:], labels=question.labels[1:]),
    }
    for what, other in others.items():
        check_epoch(subject, program, went_on(program, other), order, 2, f"in an epoch of {what}: ")


def _reused_memory(subject: Subject, question: Question) -> None:
    """New arrays in the place of old ones that are gone: equal addresses, other numbers."""
    order = np.array([2, 0, 1])
    program = start(subject, question)
    for turn in range(4):
        factor = (-1) ** turn * (1 + turn // 2 * 0.25)
        asked = went_on(program, question)
        asked = replace(asked, images=(question.images * factor).astype(question.images.dtype))
        check_epoch(subject, program, asked, order, 2, f"in epoch {turn + 1}, of new arrays: ")
        del asked


def _between(subject: Subject, question: Question) -> None:
    """Steps, gradients and predictions of other images between two epochs."""
    order = np.array([2, 0, 1])
    program = start(subject, question)
    check_epoch(subject, program, question, order, 2, "in the first epoch: ")
    other = replace(went_on(program, question), images=-question.images, batch_size=2)
    check_output(subject, program, other, "the output after an epoch")
    check_gradients(subject, program, other, "after an epoch: ")
    check_steps(subject, program, other, "steps after an epoch: ")
    check_epoch(subject, program, went_on(program, question), order, 2, "in the second epoch: ")


def _strided_data(subject: Subject, question: Question) -> None:
    """Images, labels and order that lie in memory as views do, and may not be written."""
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    placed = replace(question, images=np.asfortranarray(question.images), labels=np.repeat(question.labels, 2)[::2])
    order = np.array([4, 0, 3, 0, 1, 0])[::2]
    for array in (placed.images, placed.labels, order):
        assert array is not None  # noqa: S101 - as above
        array.flags.writeable = False
    check_epoch(subject, start(subject, placed), placed, order, 2)


CONDUCT_CASES = [
    trial(
        "conduct.epoch.empty",
        "An epoch of nothing has no loss, counts nothing and changes nothing",
        _empty,
        optimizer=MOMENTUM,
        batch=3,
    ),
    trial(
        "conduct.epoch.pieces",
        "Consecutive pieces of an order make the epoch of the whole",
        _in_pieces,
        optimizer=MOMENTUM,
        batch=7,
    ),
    trial(
        "conduct.epoch.other-data",
        "An epoch learns from the arrays of this call, whatever came before",
        _other_data,
        optimizer=SGD(learning_rate=0.1),
        batch=4,
    ),
    trial(
        "conduct.epoch.reused-memory",
        "An epoch learns from new arrays where old ones lay",
        _reused_memory,
        optimizer=SGD(learning_rate=0.1),
        batch=3,
    ),
    trial(
        "conduct.epoch.between",
        "Epochs, steps, gradients and predictions may come in any order",
        _between,
        optimizer=MOMENTUM,
        batch=3,
    ),
    trial("v48.epoch.views", "An epoch takes views that are read-only", _strided_data, optimizer=MOMENTUM, batch=5),
]


# --------------------------------------------------------------------------------------------------------------- dropout

DROPNET: tuple[Layer, ...] = (Dense(units=8, activation="tanh"), Dropout(rate=0.4), Dense(units=4), Softmax())


def _steps(subject: Subject, question: Question) -> None:
    check_steps(subject, start(subject, question), question)


def _learns(subject: Subject, question: Question) -> None:
    check_gradients(subject, start(subject, question), question)


def _predicts(subject: Subject, question: Question) -> None:
    check_output(subject, subject.compile(question.model, question.parameters), question)


def _off(subject: Subject, question: Question) -> None:
    """Before, between and after what draws masks."""
    assert question.labels is not None  # noqa: S101 - questions that learn have labels
    program = start(subject, question)
    check_output(subject, program, question, "the output of a training program")
    program.gradients(question.images, question.labels)
    check_output(subject, program, question, "the output after gradients")
    program.step(question.images, question.labels)
    now = replace(question, parameters=program.state().parameters)
    check_output(subject, program, now, "the output after a step")
    program.epoch(question.images, question.labels, np.arange(len(question.images)), 2)
    now = replace(question, parameters=program.state().parameters)
    check_output(subject, program, now, "the output after an epoch")


def _mask_of_next_step(subject: Subject, question: Question) -> None:
    """Gradients, gradients again, then the step that they spoke of; and so on."""
    program = start(subject, question)
    asked = question
    for _ in range(3):
        for call in ("first", "second"):
            check_gradients(subject, program, asked, f"in the {call} call before step {asked.step}: ")
        check_steps(subject, program, asked, f"in step {asked.step}, after gradients: ")
        asked = went_on(program, asked)


DROPOUT_CASES = [
    trial("v43.dropout.predict", "A program that predicts drops nothing", _predicts, DROPNET, (5,), batch=3),
    trial(
        "v43.dropout.off",
        "A training program drops nothing when it predicts, whatever it did before",
        _off,
        DROPNET,
        (5,),
        optimizer=MOMENTUM,
        batch=5,
    ),
    trial(
        "v31.dropout.mask",
        "The first mask is that of step 0 and the seed",
        _learns,
        DROPNET,
        (5,),
        optimizer=MOMENTUM,
        batch=3,
    ),
    trial(
        "v31.dropout.seed",
        "Another seed draws other masks",
        _learns,
        DROPNET,
        (5,),
        optimizer=MOMENTUM,
        batch=3,
        run_seed=11,
    ),
    trial(
        "v31.dropout.resumed",
        "After 7 steps the mask is that of step 7",
        _learns,
        DROPNET,
        (5,),
        optimizer=MOMENTUM,
        batch=3,
        step=7,
    ),
    trial(
        "v31.dropout.steps",
        "Every step draws a mask of its own",
        _steps,
        DROPNET,
        (5,),
        optimizer=MOMENTUM,
        batch=3,
        epochs=3,
    ),
    trial(
        "v31.dropout.steps-resumed",
        "A resumed run goes on with the masks of its steps",
        _steps,
        DROPNET,
        (5,),
        optimizer=Adam(learning_rate=0.05),
        batch=3,
        epochs=3,
        step=7,
        run_seed=3,
    ),
    trial(
        "v31.dropout.next-step",
        "Gradients use the mask of the step that comes next, and do not use it up",
        _mask_of_next_step,
        DROPNET,
        (5,),
        optimizer=MOMENTUM,
        batch=3,
    ),
    trial(
        "v31.dropout.two-layers",
        "Two dropout layers of one shape have masks of their own",
        _learns,
        (
            Dense(units=6, activation="tanh"),
            Dropout(rate=0.5),
            Dense(units=6),
            Dropout(rate=0.5),
            Dense(units=3),
            Softmax(),
        ),
        (5,),
        optimizer=MOMENTUM,
        batch=3,
    ),
    trial(
        "v31.dropout.in-a-row",
        "Dropout behind dropout draws twice",
        _learns,
        (Dense(units=8), Dropout(rate=0.3), Dropout(rate=0.5), Dense(units=3), Softmax()),
        (5,),
        optimizer=MOMENTUM,
        batch=3,
    ),
    trial(
        "v31.dropout.image",
        "The mask of an image has its shape: each channel is dropped by itself",
        _learns,
        (
            Conv2D(filters=3, kernel_size=2),
            Dropout(rate=0.5),
            AvgPool2D(pool_size=2),
            Flatten(),
            Dense(units=3),
            Softmax(),
        ),
        (5, 6, 2),
        optimizer=MOMENTUM,
        batch=3,
    ),
    trial(
        "v31.dropout.input",
        "Pixels are dropped when dropout comes first",
        _learns,
        (Dropout(rate=0.5), Flatten(), Dense(units=4), Softmax()),
        (3, 4, 2),
        optimizer=MOMENTUM,
        batch=3,
    ),
    trial(
        "v31.dropout.scores",
        "Scores are dropped when dropout comes before the softmax",
        _learns,
        (Dense(units=5), Dropout(rate=0.5), Softmax()),
        (4,),
        optimizer=MOMENTUM,
        batch=3,
    ),
    *(
        trial(
            f"v31.dropout.rate-{name}",
            f"At a rate of {rate:g}, what is kept is divided by {1 - rate:g}",
            _learns,
            (Dense(units=20), Dropout(rate=rate), Dense(units=3), Softmax()),
            (5,),
            optimizer=MOMENTUM,
            batch=4,
        )
        for name, rate in {"zero": 0.0, "tenth": 0.1, "nine-tenths": 0.9}.items()
    ),
    *(
        trial(
            f"v31.dropout.epoch{suffix}",
            f"An epoch {said} draws the masks of its steps, that of the last, smaller batch too",
            _epoch((4, 1, 5, 0, 3, 2, 6), 3),
            DROPNET,
            (5,),
            optimizer=MOMENTUM,
            batch=7,
            step=step,
            run_seed=2,
        )
        for suffix, said, step in (("", "from the beginning", 0), ("-resumed", "from step 5", 5))
    ),
]

CASES: list[Case] = [*ORDER_CASES, *PARTIAL_CASES, *CONDUCT_CASES, *DROPOUT_CASES]
