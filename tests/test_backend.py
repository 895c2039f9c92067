"""The epoch that every training program has unless it brings its own."""

import numpy as np
import pytest

from cnnkit.backend import TrainingProgram
from cnnkit.errors import DataError, OptionError


class Counting(TrainingProgram):
    """Its loss is the first label of a batch; it remembers the batches."""

    def __init__(self):
        self.batches = []

    def step(self, images, labels):
        self.batches.append(images[:, 0].tolist())
        return float(labels[0])

    def predict(self, images):
        raise NotImplementedError

    gradients = state = predict


IMAGES = np.arange(5.0).reshape(5, 1)
LABELS = np.array([10, 20, 30, 40, 50])


def test_an_epoch_steps_through_the_order_and_weighs_each_loss_by_its_batch():
    program = Counting()
    totals = program.epoch(IMAGES, LABELS, np.array([4, 0, 2]), 2)
    assert program.batches == [[4.0, 0.0], [2.0]]
    assert (totals.loss_sum, totals.count) == (50 * 2 + 30, 3)


@pytest.mark.parametrize(
    ("order", "batch_size", "labels", "error", "message"),
    [
        ([0, 5], 2, LABELS, DataError, "order goes from 0 to 5, but the 5 images"),
        ([0, -1], 2, LABELS, DataError, "order goes from -1 to 0"),
        ([0, 1], 0, LABELS, OptionError, "batch_size is 0"),
        ([0, 1], 2, LABELS[:4], DataError, r"labels have shape \(4,\), but there are 5 images"),
        ([0, 1], 2, np.append(LABELS, 0), DataError, r"labels have shape \(6,\), but there are 5 images"),
    ],
)
def test_an_epoch_that_does_not_fit_is_refused_before_the_first_step(order, batch_size, labels, error, message):
    program = Counting()
    with pytest.raises(error, match=message):
        program.epoch(IMAGES, labels, np.array(order), batch_size)
    assert program.batches == []
