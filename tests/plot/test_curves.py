"""Learning curves show what the history holds, whatever it holds."""

import math

import pytest

from cnnkit import EpochRecord, OptionError
from cnnkit.plot import learning_curves

NAN, INFINITY = math.nan, math.inf


def record(epoch, running, train=None, validation=None, *, best=False):
    """`train` and `validation` are (loss, accuracy)."""
    parts = [
        None if part is None else {"loss": part[0], "accuracy": part[1], "precision": 0.0, "recall": 0.0, "f1": 0.0}
        for part in (train, validation)
    ]
    return EpochRecord(epoch, 10, 0.01, running, *parts, 1.0, 0.5, best)


OVERFITTING = [
    record(1, 2.0, (1.8, 0.40), (1.9, 0.45), best=True),
    record(2, 1.0, (0.9, 0.80), (1.2, 0.70), best=True),
    record(3, 0.5, (0.4, 0.95), (1.5, 0.75)),
]


def lines(panel):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines}


def test_each_line_has_the_figures_of_its_part(legible):
    made = learning_curves(OVERFITTING)
    loss, accuracy = map(lines, made.axes)
    assert loss["while learning"] == ([1, 2, 3], [2.0, 1.0, 0.5])
    assert loss["train"] == ([1, 2, 3], [1.8, 0.9, 0.4])
    assert loss["validation"] == ([1, 2, 3], [1.9, 1.2, 1.5])
    assert accuracy["train"] == ([1, 2, 3], [0.40, 0.80, 0.95])
    assert accuracy["validation"] == ([1, 2, 3], [0.45, 0.70, 0.75])
    assert {"while learning", "train", "validation", "epoch 2: best weights"} <= set(legible(made))


def test_the_words_give_the_gap_between_train_and_validation():
    alt = learning_curves(OVERFITTING).alt
    assert "train minus validation accuracy, in percentage points: -5.0 after epoch 1, +20.0 after epoch 3." in alt
    assert "Loss validation: 1.9 after epoch 1, 1.5 after epoch 3, lowest 1.2 after epoch 2." in alt
    assert "Accuracy train: 0.4000 after epoch 1, 0.9500 after epoch 3." in alt


def test_the_last_epoch_that_early_stopping_held_to_be_the_best_is_marked():
    made = learning_curves(OVERFITTING)
    assert "Epoch 2 is marked: best weights." in made.alt
    for panel in made.axes:
        assert lines(panel)["epoch 2: best weights"][0] == [2, 2]


def test_without_early_stopping_the_lowest_validation_loss_is_marked():
    history = [record(1, 2.0, None, (NAN, 0.1)), record(2, 1.0, None, (0.5, 0.6)), record(3, 0.9, None, (0.7, 0.9))]
    assert "Epoch 2 is marked: lowest validation loss." in learning_curves(history).alt
    assert "is marked" not in learning_curves([record(1, 2.0, (1.0, 0.5))]).alt


def test_one_epoch_is_a_point_that_can_be_seen(legible):
    made = learning_curves([record(1, 0.5)])
    (panel,) = made.axes  # nothing was judged, so there is no accuracy
    (line,) = panel.lines
    assert line.get_marker() != "None"
    assert line.get_markersize() > 2
    low, high = panel.get_ylim()
    assert low == 0
    assert high > 0.5
    assert "1" in legible(made)
    assert made.alt == "Learning curves of 1 epoch. Loss while learning: 0.5 after epoch 1."


def test_figures_that_are_no_numbers_leave_a_gap_and_are_told(legible):
    history = [
        record(1, 0.5, (0.4, 0.9), (0.5, 0.8)),
        record(2, NAN, (INFINITY, NAN), (NAN, 0.1)),
        record(3, 0.6, (0.7, 0.9), (0.8, 0.7)),
    ]
    made = learning_curves(history)
    assert math.isnan(lines(made.axes[0])["train"][1][1])
    assert (
        "Loss train: 0.4 after epoch 1, 0.7 after epoch 3; not a finite number in 1 epoch, the first of them epoch 2"
        in (made.alt)
    )
    legible(made)


def test_a_history_of_nothing_but_nan_is_drawn(legible):
    made = learning_curves([record(1, NAN, (NAN, NAN)), record(2, INFINITY, (NAN, NAN))])
    assert "Loss while learning: not a finite number in any epoch." in made.alt
    assert legible(made).count("no finite numbers") == 2


def test_an_epoch_that_was_not_judged_leaves_a_gap():
    made = learning_curves([record(1, 2.0), record(2, 1.0, (0.9, 0.8))])
    assert math.isnan(lines(made.axes[0])["train"][1][0])
    assert "Loss train: 0.9 after epoch 2" in made.alt


def test_many_epochs_are_lines_without_markers(legible):
    made = learning_curves([record(epoch, 1 / epoch, (1 / epoch, 0.5), (2 / epoch, 0.4)) for epoch in range(1, 101)])
    assert made.axes[0].lines[0].get_markersize() == 0
    legible(made)


def test_the_lines_differ_without_colour():
    made = learning_curves(OVERFITTING)
    styles = [(line.get_linestyle(), line.get_marker()) for line in made.axes[0].lines[:3]]
    assert len({style for style, _ in styles}) == len({marker for _, marker in styles}) == 3


def test_a_history_without_epochs_is_refused():
    with pytest.raises(OptionError, match="the history has no epochs"):
        learning_curves([])
