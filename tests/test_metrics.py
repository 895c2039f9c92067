import json
import math
import pickle
from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.metrics import confusion_matrix as sklearn_confusion

from cnnkit.errors import DataError, TrainingError
from cnnkit.metrics import Metrics, Undefined, confusion_matrix, cross_entropy, predicted_classes

# Ten images of four classes. `dog` never occurs, `owl` is never predicted:
#                 taken for  cat  dog  owl  pig
CONFUSION = np.array([[3, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 3]])
NAMES = ("cat", "dog", "owl", "pig")


# ---------------------------------------------------------------------------------------------------- the matrix


def test_rows_of_the_confusion_matrix_are_true_and_columns_predicted():
    found = confusion_matrix(np.array([0, 0, 2, 1]), np.array([1, 0, 2, 1]), 4)
    assert found.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert found.dtype == np.int64


def test_small_integer_types_do_not_overflow():
    labels = np.array([255, 254], np.uint8)
    found = confusion_matrix(labels, labels.astype(np.int16), 256)
    assert np.argwhere(found).tolist() == [[254, 254], [255, 255]]


def test_the_matrices_of_parts_add_up_to_the_matrix_of_the_whole():
    labels, predicted = np.random.default_rng(0).integers(0, 5, (2, 40))
    parts = [confusion_matrix(labels[at : at + 7], predicted[at : at + 7], 5) for at in range(0, 40, 7)]
    assert np.array_equal(sum(parts), confusion_matrix(labels, predicted, 5))


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([0, 3], [0, 0], r"^labels\[1\] is 3, but the model has 3 classes"),
        ([0, 1], [0, -1], r"predicted classes are no labels: labels\[1\] is -1"),
        ([0, 1], [0], r"predicted classes are no labels: labels have shape \(1,\)"),
        ([0, 1], [0.0, 1.0], r"predicted classes are no labels: labels are float64"),
    ],
)
def test_labels_and_predictions_that_are_no_classes_are_refused(labels, predicted, message):
    with pytest.raises(DataError, match=message):
        confusion_matrix(np.array(labels), np.array(predicted), 3)


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((2, 3), int), np.zeros(4, int), np.zeros((0, 0), int), np.zeros((2, 2)), -np.eye(2, dtype=int)],
)
def test_what_is_no_confusion_matrix_is_refused(matrix):
    with pytest.raises(DataError, match="expected counts of at least 0, one row and one column for each class"):
        Metrics(matrix)


def test_metrics_keep_their_own_matrix():
    mine = CONFUSION.copy()
    metrics = Metrics(mine)
    mine[:] = 0
    assert metrics.count == 10
    with pytest.raises(ValueError, match="read-only"):
        metrics.confusion[0, 0] = 7


def test_a_wrong_number_of_names_is_refused():
    with pytest.raises(DataError, match="there are 3 class names for 4 classes"):
        Metrics(CONFUSION, class_names=NAMES[:3])


# ---------------------------------------------------------------------------------------------- figures, by hand


def test_every_figure_of_a_small_matrix_worked_out_by_hand():
    metrics = Metrics(CONFUSION, loss=0.25, class_names=NAMES)
    assert metrics.count == 10
    assert metrics.accuracy == pytest.approx(6 / 10)
    # cat: 3 of 5 taken for cat, 3 of 4 cats, 2 * 3 / (5 + 4); pig: 3 of 3, 3 of 4, 2 * 3 / (3 + 4)
    by_hand = [(3 / 5, 3 / 4, 6 / 9, 4), (0, 0, 0, 0), (0, 0, 0, 2), (1, 3 / 4, 6 / 7, 4)]
    for record, name, figures in zip(metrics.per_class, NAMES, by_hand, strict=True):
        assert record.name == name
        assert (record.precision, record.recall, record.f1, record.support) == pytest.approx(figures)
    assert metrics.precision == metrics.macro.precision == pytest.approx(8 / 5 / 4)
    assert metrics.recall == metrics.macro.recall == pytest.approx(6 / 4 / 4)
    assert metrics.f1 == metrics.macro.f1 == pytest.approx((2 / 3 + 6 / 7) / 4)
    assert metrics.weighted.precision == pytest.approx((4 * 3 / 5 + 4 * 1) / 10)
    assert metrics.weighted.recall == pytest.approx(6 / 10)
    assert metrics.weighted.f1 == pytest.approx((4 * 2 / 3 + 4 * 6 / 7) / 10)
    assert metrics.absent == ("dog",)


def test_exactly_the_figures_that_are_nothing_by_nothing_are_called_undefined():
    # `dog` was predicted, so its F1 is 0 / 2; `owl` has images, so its F1 is 0 / 2 as well.
    assert Metrics(CONFUSION, class_names=NAMES).undefined == (
        Undefined("recall", "dog", "no images"),
        Undefined("precision", "owl", "never predicted"),
    )
    assert Metrics(np.diag([2, 0])).undefined == (
        Undefined("precision", "1", "never predicted"),
        Undefined("recall", "1", "no images"),
        Undefined("f1", "1", "no images and never predicted"),
    )
    assert Metrics(np.ones((3, 3), int)).undefined == ()


def test_over_no_images_every_figure_is_nan_and_json_says_null():
    metrics = Metrics(np.zeros((2, 2), int))
    figures = [metrics.accuracy, metrics.precision, metrics.recall, metrics.f1]
    figures += [metrics.weighted.precision, metrics.weighted.recall, metrics.weighted.f1]
    figures += [value for record in metrics.per_class for value in (record.precision, record.recall, record.f1)]
    assert len(figures) == 13
    assert all(map(math.isnan, figures))
    assert metrics.count == 0
    assert metrics.absent == ("0", "1")
    data = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert data["accuracy"] is data["f1"] is data["weighted"]["recall"] is data["per_class"][1]["f1"] is None
    assert "accuracy nan on 0 images" in str(metrics)


def test_plain_data_holds_every_figure():
    data = json.loads(json.dumps(Metrics(CONFUSION, loss=0.25, class_names=NAMES).to_dict(), allow_nan=False))
    assert data == {
        "count": 10,
        "loss": 0.25,
        "accuracy": 0.6,
        "precision": pytest.approx(0.4),
        "recall": pytest.approx(0.375),
        "f1": pytest.approx(8 / 21),
        "weighted": {
            "precision": pytest.approx(0.64),
            "recall": pytest.approx(0.6),
            "f1": pytest.approx(64 / 105),
        },
        "per_class": [
            {"name": "cat", "precision": 0.6, "recall": 0.75, "f1": pytest.approx(2 / 3), "support": 4},
            {"name": "dog", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
            {"name": "owl", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2},
            {"name": "pig", "precision": 1.0, "recall": 0.75, "f1": pytest.approx(6 / 7), "support": 4},
        ],
        "undefined": [
            {"metric": "recall", "name": "dog", "reason": "no images"},
            {"metric": "precision", "name": "owl", "reason": "never predicted"},
        ],
        "confusion": [[3, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 3]],
    }


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_json_cannot_hold_is_null(loss):
    assert Metrics(CONFUSION, loss=loss).to_dict()["loss"] is None
    assert Metrics(CONFUSION).to_dict()["loss"] is None


def test_printed_metrics_are_a_table():
    assert str(Metrics(CONFUSION, loss=0.25, class_names=NAMES)) == (
        "accuracy 0.6000 on 10 images, loss 0.2500\n"
        "                  precision  recall      f1  images\n"
        "cat                  0.6000  0.7500  0.6667       4\n"
        "dog                  0.0000  0.0000  0.0000       0\n"
        "owl                  0.0000  0.0000  0.0000       2\n"
        "pig                  1.0000  0.7500  0.8571       4\n"
        "macro average        0.4000  0.3750  0.3810      10\n"
        "weighted average     0.6400  0.6000  0.6095      10\n"
        "undefined, counted as 0: recall of dog (no images), precision of owl (never predicted)"
    )


def test_metrics_can_be_pickled():
    metrics = Metrics(CONFUSION, loss=0.5, class_names=NAMES)
    assert metrics.precision  # cached figures travel too
    assert pickle.loads(pickle.dumps(metrics)).to_dict() == metrics.to_dict()  # noqa: S301 - our own bytes


# --------------------------------------------------------------------------------- the same numbers as scikit-learn


@st.composite
def judged(draw):
    """Labels and predictions drawn from a few of the classes, so that some are absent and some never predicted."""
    classes = draw(st.integers(2, 6))  # scikit-learn warns of one class
    some = st.sets(st.integers(0, classes - 1), min_size=1)
    true, taken = sorted(draw(some)), sorted(draw(some))
    drawn = draw(st.lists(st.tuples(st.sampled_from(true), st.sampled_from(taken)), min_size=1, max_size=30))
    labels, predicted = np.array(drawn).T
    return labels, predicted, classes


@settings(deadline=None)
@given(judged())
def test_all_figures_equal_those_of_scikit_learn(drawn):
    labels, predicted, classes = drawn
    every = list(range(classes))
    metrics = Metrics(confusion_matrix(labels, predicted, classes))
    assert np.array_equal(metrics.confusion, sklearn_confusion(labels, predicted, labels=every))
    assert metrics.accuracy == pytest.approx(accuracy_score(labels, predicted), rel=1e-12)
    for average, ours in (("macro", metrics.macro), ("weighted", metrics.weighted)):
        theirs = precision_recall_fscore_support(labels, predicted, labels=every, average=average, zero_division=0)
        assert (ours.precision, ours.recall, ours.f1) == pytest.approx(theirs[:3], rel=1e-12)
    theirs = precision_recall_fscore_support(labels, predicted, labels=every, average=None, zero_division=0)
    ours = [(record.precision, record.recall, record.f1, record.support) for record in metrics.per_class]
    np.testing.assert_allclose(np.transpose(ours), theirs, rtol=1e-12)


@settings(deadline=None)
@given(judged())
def test_micro_averages_would_all_be_the_accuracy_and_so_is_weighted_recall(drawn):
    labels, predicted, classes = drawn
    metrics = Metrics(confusion_matrix(labels, predicted, classes))
    every = list(range(classes))
    micro = precision_recall_fscore_support(labels, predicted, labels=every, average="micro", zero_division=0)[:3]
    assert micro == pytest.approx((metrics.accuracy,) * 3)
    assert metrics.weighted.recall == pytest.approx(metrics.accuracy)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=4, max_size=4))
def test_on_a_balanced_set_macro_recall_is_the_accuracy_and_weighted_is_macro(rows):
    matrix = np.array(rows)
    matrix[:, 0] += 40 - matrix.sum(axis=1)  # 40 images of every class
    metrics = Metrics(matrix)
    assert metrics.recall == pytest.approx(metrics.accuracy)
    assert vars(metrics.weighted) == pytest.approx(vars(metrics.macro))


# ------------------------------------------------------------------------------------------- scores, losses, classes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("scores", "label", "loss"),
    [
        ([300, -100], 1, 400),
        ([300, -100], 0, 0),
        ([500, 500], 0, math.log(2)),
        ([-500, 500, 0], 0, 1000),
        ([0, 0, 0, 0], 3, math.log(4)),
        ([math.log(3), 0], 1, math.log(4)),
        ([1e4, -1e4], 1, 2e4),
        ([40, 0], 0, 4.248354255291589e-18),  # log(1 + e^-40), to which float64's 1 + e^-40 is blind
        ([0, 40, 0], 1, 8.496708510583178e-18),
        ([7], 0, 0),
    ],
)
def test_cross_entropy_of_known_scores(scores, label, loss, dtype):
    found = cross_entropy(np.array([scores], dtype), np.array([label]))
    assert found.dtype == np.float64
    assert found.shape == (1,)
    assert found[0] == pytest.approx(loss, rel=1e-6 if dtype == np.float32 else 1e-14, abs=1e-170)


@settings(deadline=None)
@given(st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=5), st.data())
def test_cross_entropy_is_minus_the_log_of_the_softmax(scores, data):
    label = data.draw(st.integers(0, len(scores) - 1))
    getcontext().prec = 300  # e^-600 has 260 zeros, and a loss may be as small
    exact = [Decimal(score).exp() for score in scores]
    expected = (sum(exact) / exact[label]).ln()
    found = cross_entropy(np.array([scores], np.float32), np.array([label]))[0]
    assert found == pytest.approx(float(expected), rel=1e-13, abs=1e-300)


def test_the_largest_float32_scores_have_a_finite_loss():
    top = np.finfo(np.float32).max
    assert cross_entropy(np.array([[top, -top]]), np.array([1]))[0] == 2 * float(top)


def test_nan_in_a_row_makes_its_loss_nan_and_no_other():
    scores = np.array([[0, math.nan], [math.nan, 0], [0, 0], [math.nan, math.nan]])
    found = cross_entropy(scores, np.array([0, 0, 0, 0]))
    assert np.isnan(found).tolist() == [True, True, False, True]


def test_an_infinite_score_goes_the_way_of_ieee_arithmetic():
    scores = np.array([[0, -math.inf], [0, -math.inf], [0, math.inf]])
    found = cross_entropy(scores, np.array([0, 1, 0]))
    assert found[0] == 0
    assert found[1] == math.inf
    assert math.isnan(found[2])


def test_cross_entropy_changes_nothing_and_takes_no_images_at_all():
    scores = np.array([[1.0, 2.0]])
    scores.flags.writeable = False
    cross_entropy(scores, np.array([0]))
    assert cross_entropy(np.zeros((0, 3)), np.zeros(0, int)).shape == (0,)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros(3), [0], r"scores are float64 of shape \(3,\); expected floating-point numbers of shape \(images"),
        (np.zeros((1, 0)), [0], r"scores are float64 of shape \(1, 0\)"),
        (np.zeros((1, 2), int), [0], r"scores are int64 of shape \(1, 2\)"),
        (np.zeros((1, 2)), [2], r"labels\[0\] is 2, but the model has 2 classes"),
        (np.zeros((2, 2)), [1], r"labels have shape \(1,\), but there are 2 images"),
    ],
)
def test_scores_and_labels_that_do_not_fit_are_refused(scores, labels, message):
    with pytest.raises(DataError, match=message):
        cross_entropy(scores, np.array(labels))


def test_the_predicted_class_has_the_highest_score_and_of_equals_the_lowest_number():
    scores = np.array([[1, 3, 2], [5, 5, 5], [0, 7, 7], [-math.inf, -math.inf, -9], [0, math.inf, 1]], np.float32)
    found = predicted_classes(scores)
    assert found.tolist() == [1, 0, 1, 2, 1]
    assert found.dtype == np.int64
    assert predicted_classes(np.zeros((0, 3))).shape == (0,)


def test_a_row_with_nan_has_no_predicted_class_and_the_first_is_named():
    scores = np.zeros((40, 3))
    scores[17, 2] = scores[30, 0] = math.nan
    with pytest.raises(TrainingError, match=r"^row 17 of the scores holds NaN, so there is no predicted class"):
        predicted_classes(scores)


def test_predicted_classes_need_scores():
    with pytest.raises(DataError, match=r"scores are int64 of shape \(2,\)"):
        predicted_classes(np.array([1, 2]))
