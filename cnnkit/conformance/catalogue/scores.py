"""Cases of softmax and of its loss: extreme scores, equal scores, tails, many classes, and the gradient of the scores.

A kernel that holds the scores, over images with a single 1 each, hands every engine exactly these scores; the gradient
of that kernel is the gradient of each score.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnkit.arrays import dtype_of
from cnnkit.conformance.case import Case, drawn_case, question_case
from cnnkit.conformance.catalogue.probes import predict_case
from cnnkit.conformance.measure import Numbers
from cnnkit.conformance.question import Question
from cnnkit.conformance.subject import Subject
from cnnkit.model import Conv2D, Dense, Flatten, Model, Rescale, Softmax

ORDINARY = [[0.0, 1.0, 5.0], [0.5, 0.25, -0.75], [-3.0, 2.0, 2.5], [1.0, 1.0, -1.0]]
EXTREME = [[300.0, -100.0, 500.0], [-300.0, -100.0, -500.0], [1000.0, 0.0, -1000.0], [88.5, 89.0, 710.0]]
HUGE = [[1e30, -1e30, 0.0], [1e30, 1e30, -1e30], [-1e30, -1e30, -1e30], [3e38, -3e38, 0.0]]
CLOSE = [[1e4, 1e4 + 0.5, 1e4 - 0.25], [-4096.0, -4096.5, -4095.0], [70000.0, 70001.0, 69999.5], [0.0, 1e-6, -1e-6]]
TAILS = [[0.0, -20.0, -40.0], [0.0, -17.0, -70.0], [10.0, -6.5, -60.0], [-5.0, 11.0, 80.0]]


def scores_question(scores: Any, labels: Any, precision: str) -> Question:
    """A question about the loss of `scores` `(batch, classes)` and the gradient of each."""
    dtype = dtype_of(precision)
    array = np.asarray(scores, dtype)
    batch, classes = array.shape
    model = Model(input_shape=(batch,), layers=[Dense(units=classes), Softmax()])
    parameters = {"0.kernel": array, "0.bias": np.zeros(classes, dtype)}
    return Question(model, parameters, np.eye(batch, dtype=dtype), "gradients", precision, np.asarray(labels))


def _loss_case(id: str, claim: str, scores: Any, labels: Any) -> Case:  # noqa: A002 - as in Case
    return question_case(id, claim, lambda precision: scores_question(scores, labels, precision))


def _loss_is(id: str, claim: str, scores: Any, labels: Any, loss: float, gradient: Any) -> Case:  # noqa: A002 - as in Case
    """A loss and the gradients of the scores known to the last digit, whatever the size of the scores."""

    def ask(subject: Subject) -> None:
        of_scores = np.asarray(gradient, np.float64)
        expected = {
            "loss": Numbers(np.asarray(loss, np.float64), np.asarray(max(1.0, loss))),
            "gradient of 0.kernel": Numbers(of_scores, np.ones_like(of_scores)),
            "gradient of 0.bias": Numbers(of_scores.sum(0), np.ones(of_scores.shape[1])),
        }
        subject.ask(scores_question(scores, labels, subject.precision), expected)

    features = scores_question(scores, labels, "float32").features
    return Case(id, claim, "training", features, ask)


def _large_batch(size: int) -> Any:
    rng = np.random.default_rng(size)
    return rng.normal(size=(size, 3)).round(3), rng.integers(0, 3, size)


_DIFFERENCES = np.array([0.0, 0.5, -0.25])

CASES: list[Case] = [
    predict_case("softmax.forward.ordinary", "Softmax is exp(z) / sum(exp(z)), row by row", [Softmax()], ORDINARY),
    predict_case(
        "v15.softmax.extreme",
        "Softmax of scores such as 300, -100 and 500 neither overflows nor gives NaN",
        [Softmax()],
        EXTREME,
    ),
    predict_case(
        "v15.softmax.huge", "Softmax of scores of 1e30 and beyond neither overflows nor gives NaN", [Softmax()], HUGE
    ),
    predict_case(
        "v15.softmax.close",
        "Softmax of large scores depends on their differences, and those are kept",
        [Softmax()],
        CLOSE,
    ),
    predict_case("softmax.forward.tails", "Small probabilities are as right as large ones", [Softmax()], TAILS),
    predict_case(
        "softmax.forward.equal",
        "Equal scores have equal probabilities",
        [Softmax()],
        np.full((2, 7), 1.0) * [[3.0], [-200.0]],
    ),
    predict_case(
        "softmax.forward.one-class", "The only class has the probability 1", [Softmax()], [[0.0], [-50.0], [1e30]]
    ),
    predict_case(
        "softmax.forward.two-classes", "Softmax of two scores", [Softmax()], [[0.0, 2.0], [-1.0, -1.5], [50.0, 3.0]]
    ),
    predict_case(
        "softmax.forward.square",
        "Softmax goes over the classes, not over the batch, though there are as many",
        [Softmax()],
        [[0.0, 1.0, 3.0], [2.0, 2.5, -1.0], [-4.0, 0.5, 0.0]],
    ),
    predict_case(
        "softmax.forward.many-classes",
        "Softmax over 1,000 classes, and over more than a block of threads has",
        [Softmax()],
        np.random.default_rng(0).normal(size=(3, 1030)) * 3,
    ),
    predict_case(
        "softmax.forward.behind-rescale",
        "Softmax may stand behind Rescale",
        [Rescale(scale=2.0, offset=-3.0), Softmax()],
        ORDINARY,
    ),
    predict_case(
        "softmax.forward.uint8",
        "Softmax of uint8 scores does not wrap around when the maximum is taken off",
        [Softmax()],
        np.array([[1, 3, 2], [255, 254, 0], [0, 0, 5]], np.uint8),
    ),
    drawn_case(
        "v17.softmax.once.predict",
        "Predicting, softmax is applied once, to the scores of a dense layer",
        [Conv2D(filters=2, kernel_size=2), Flatten(), Dense(units=5), Softmax()],
        (4, 5, 2),
        batch=3,
    ),
    # ---------------------------------------------------------------------------------------------- loss and gradient
    _loss_case(
        "v17.softmax.once.loss",
        "The loss is taken of the scores: softmax is not applied to probabilities again",
        ORDINARY,
        [0, 1, 2, 0],
    ),
    _loss_case(
        "loss.gradient.each-label", "The gradient of a score is (probability - truth) / batch", ORDINARY, [2, 0, 1, 1]
    ),
    _loss_case("loss.gradient.square", "As many images as classes, each with its own label", ORDINARY[:3], [2, 0, 1]),
    _loss_case("loss.gradient.one-image", "The loss of one image is its own", ORDINARY[:1], [1]),
    _loss_case(
        "loss.gradient.one-label", "Images of one class alone have their loss and gradient", ORDINARY, [1, 1, 1, 1]
    ),
    _loss_case(
        "loss.gradient.two-classes", "Two classes have a score each", [[0.0, 2.0], [-1.0, -1.5], [5.0, 3.0]], [0, 1, 1]
    ),
    _loss_is(
        "loss.gradient.one-class",
        "With a single class there is neither loss nor gradient",
        [[3.0], [-7.0]],
        [0, 0],
        0.0,
        [[0.0], [0.0]],
    ),
    _loss_is(
        "v16.loss.extreme",
        "Scores of 300, -100 and 500 cost 200, 600 and 0: nothing is clipped",
        [[300.0, -100.0, 500.0]] * 3,
        [0, 1, 2],
        800 / 3,
        np.array([[-1, 0, 1], [0, -1, 1], [0, 0, 0]]) / 3,
    ),
    _loss_is(
        "v16.loss.extreme.150",
        "Scores of 300, -100 and 500 cost 200, and of 0 and 100 cost 100: 150 in the mean",
        [[300.0, -100.0, 500.0], [0.0, 100.0, -100.0]],
        [0, 0],
        150.0,
        np.array([[-1, 0, 1], [-1, 1, 0]]) / 2,
    ),
    _loss_is(
        "v16.loss.huge",
        "A score of 2**100 below another costs 2**100",
        [[2.0**100, 0.0, -(2.0**100)], [0.0, 0.0, 2.0**100]],
        [1, 2],
        2.0**99,
        np.array([[1, -1, 0], [0, 0, 0]]) / 2,
    ),
    _loss_is(
        "v16.loss.huge.equal",
        "Equal scores cost log(classes), however large they are",
        [[1e30, 1e30, 1e30, 1e30], [-1e30, -1e30, -1e30, -1e30]],
        [1, 3],
        np.log(4),
        (np.full((2, 4), 0.25) - np.eye(4)[[1, 3]]) / 2,
    ),
    _loss_is(
        "v16.loss.tail",
        "A label of probability exp(-40) costs 40, not what a clipped probability would",
        [[0.0, -40.0], [20.0, -20.0]],
        [1, 1],
        40.0,
        np.array([[1, -1], [1, -1]]) / 2,
    ),
    _loss_is(
        "v16.loss.close",
        "The loss of large scores depends on small differences, which are kept",
        [[4096.0, 4096.5, 4095.75]] * 3,
        [0, 1, 2],
        float(np.log(np.exp(_DIFFERENCES).sum()) - _DIFFERENCES.mean()),
        (np.exp(_DIFFERENCES) / np.exp(_DIFFERENCES).sum() - np.eye(3)) / 3,
    ),
    _loss_case("v16.loss.small", "A loss near 0 is not 0", [[0.0, 9.0], [6.0, 0.0], [-4.0, 4.0]], [1, 0, 1]),
    _loss_case(
        "v16.gradient.tails",
        "The gradient of an unlikely score is its small probability, not 0 and not clipped",
        TAILS,
        [0, 0, 0, 2],
    ),
    *(
        _loss_case(
            f"v20.loss.mean.{size}",
            f"The loss of {size} images is their mean, not their sum, and so is its gradient",
            *_large_batch(size),
        )
        for size in (2, 7, 64, 100)
    ),
    *(
        _loss_case(
            f"v19.labels.narrow.{dtype}",
            f"Labels of {dtype} find their scores among more than that type can count",
            _large_batch(100)[0],
            _large_batch(100)[1].astype(dtype),
        )
        for dtype in ("uint8", "int8")
    ),
    question_case(
        "loss.gradient.many-classes",
        "Among 1,030 classes each score has its gradient",
        lambda precision: scores_question(
            np.random.default_rng(0).normal(size=(3, 1030)).round(3), [0, 1029, 512], precision
        ),
    ),
]
