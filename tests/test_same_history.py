"""The model of seed-tf, trained from one seed, has one history, whichever backend computes it."""

import importlib.util
import os
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import cnnkit
from cnnkit.conformance.measure import THRESHOLD, roundoff
from cnnkit.conformance.question import Question, expected_answer
from cnnkit.randomness import epoch_order

CLASSES, COUNT, BATCH, EPOCHS, SEED = 4, 60, 6, 5, 0
HELD_OUT = 40
BACKENDS = ("numpy", "numpy-batched", "tensorflow")


@cache
def bars(count=COUNT, seed=0):
    """Small grey images as bytes, each with a bar in noise, whose height tells the class."""
    labels = np.arange(count) % CLASSES
    images = np.random.default_rng(seed).integers(0, 180, (count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 75
    return cnnkit.Dataset(images.astype(np.uint8), labels)


def preset():
    return cnnkit.load_preset("seed-tf").for_data((8, 8, 1), CLASSES)


def is_there(module):
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None  # a folder of tests may look like a package of that name


@cache
def history(backend, precision):
    """What `fit` writes down of 50 steps."""
    if backend == "tensorflow" and not is_there("tensorflow"):
        if os.environ.get("CNNKIT_REQUIRE_TENSORFLOW") == "1":
            pytest.fail("CNNKIT_REQUIRE_TENSORFLOW=1, but TensorFlow is not installed")
        pytest.skip("TensorFlow is not installed: python -m pip install 'cnnkit[tensorflow]'")
    model, optimizer = preset().model, preset().optimizer
    train, held_out = bars(), bars(HELD_OUT, 1)
    run = cnnkit.fit(
        model, train, held_out, backend, optimizer, BATCH, EPOCHS, SEED, precision=precision, train_metrics=True
    )
    return run.history


@cache
def right(precision):
    """The mean loss of each epoch while it learns, and how far rounding may move it by the conformance suite's rule.

    Which is: the oracle trains in float64, and again with one unit of noise in every gradient and one rounding in every
    parameter; 128 times as far as that moves a loss is a right program's to go.
    """
    model, optimizer, data = preset().model, preset().optimizer, bars()
    start = cnnkit.initial_state(model, optimizer, SEED, precision)
    order = np.concatenate([epoch_order(SEED, epoch, COUNT) for epoch in range(EPOCHS)])
    question = Question(
        model,
        start.parameters,
        data.images[order],
        ask="run",
        precision=precision,
        labels=data.labels[order],
        optimizer=optimizer,
        slots=start.slots,
        seed=SEED,
        batch_size=BATCH,
    )
    losses = expected_answer(question).numbers["losses"]
    bound = THRESHOLD * roundoff(precision) * losses.scale
    return losses.value.reshape(EPOCHS, -1).mean(axis=1), bound.reshape(EPOCHS, -1)


EVERY = pytest.mark.parametrize("backend", BACKENDS)
PRECISIONS = pytest.mark.parametrize("precision", ["float32", "float64"])


@PRECISIONS
@EVERY
def test_the_running_loss_of_every_epoch_is_right_by_the_suites_rule(backend, precision):
    expected, bound = right(precision)
    made = np.array([record.running_loss for record in history(backend, precision)])
    assert (abs(made - expected) <= bound.mean(axis=1)).all()
    assert made[-1] < 0.95 * made[0]  # it learns, or the rest says little


@PRECISIONS
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_the_history_is_that_of_the_numpy_backend(backend, precision):
    """Accuracy, precision, recall and F1 are equal; a loss differs by less than two right programs may."""
    _, bound = right(precision)
    reference = history("numpy", precision)
    for record, other, within in zip(history(backend, precision), reference, bound, strict=True):
        for part in ("train", "validation"):
            made, expected = dict(getattr(record, part)), dict(getattr(other, part))
            assert abs(made.pop("loss") - expected.pop("loss")) <= 2 * within.max()
            assert made == expected
        assert abs(record.running_loss - other.running_loss) <= 2 * within.mean()
        said = replace(record, seconds_train=0, seconds_evaluate=0, running_loss=0, train=None, validation=None)
        assert said == replace(other, seconds_train=0, seconds_evaluate=0, running_loss=0, train=None, validation=None)
