"""Predicting and judging: what the backend computes is batched, scored and named rightly."""

import math

import numpy as np
import pytest

from cnnkit.datasets import Dataset
from cnnkit.errors import BackendNotFound, DataError, ModelError, OptionError, TrainingError, UnsupportedModel
from cnnkit.evaluation import classify, evaluate, predict
from cnnkit.layerwise import Kernels, LayerwiseBackend
from cnnkit.model import Conv2D, Dense, Flatten, Model, Rescale, Softmax
from cnnkit.optimizers import SGD
from cnnkit.parameters import initial_parameters
from cnnkit.plugins import get_backend
from cnnkit.state import initial_state

MODEL = Model(
    input_shape=(5, 4, 2),
    layers=[Rescale(scale=1 / 255), Conv2D(filters=3, kernel_size=2), Flatten(), Dense(units=3), Softmax()],
)
PARAMETERS = initial_parameters(MODEL, seed=4)
SOFTMAX = Model(input_shape=(3,), layers=[Softmax()])
"""Its input is the scores, so that every figure can be worked out by hand."""


def pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 5, 4, 2), dtype=np.uint8)


def labels_of(count):
    return np.arange(count) % 3


# -------------------------------------------------------------------------------------------------------------- predict


def test_predict_is_what_the_program_predicts():
    images = pixels(20)
    program = get_backend("numpy").compile(MODEL.plan(), PARAMETERS)
    found = predict(MODEL, PARAMETERS, images)
    assert found.dtype == np.float32
    assert np.array_equal(found, program.predict(images))
    assert found.flags.writeable
    assert found.sum(axis=1) == pytest.approx(np.ones(20), rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_the_batch_size_changes_neither_predictions_nor_figures(batch_size):
    images = pixels(20)
    assert np.array_equal(predict(MODEL, PARAMETERS, images, batch_size=batch_size), predict(MODEL, PARAMETERS, images))
    one = evaluate(MODEL, PARAMETERS, Dataset(images, labels_of(20)), batch_size=batch_size)
    whole = evaluate(MODEL, PARAMETERS, Dataset(images, labels_of(20)))
    assert one.to_dict() == whole.to_dict()


def test_the_program_never_sees_more_than_a_batch_at_once(monkeypatch):
    backend, sizes = get_backend("numpy"), []
    compiled = backend.compile

    def watching(plan, parameters):
        program = compiled(plan, parameters)
        inner = program.predict
        monkeypatch.setattr(program, "predict", lambda images: sizes.append(len(images)) or inner(images))
        return program

    monkeypatch.setattr(backend, "compile", watching)
    predict(MODEL, PARAMETERS, pixels(17), backend, batch_size=8)
    evaluate(MODEL, PARAMETERS, Dataset(pixels(17), labels_of(17)), backend, batch_size=8)
    assert sizes == [8, 8, 1, 8, 8, 1]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_no_images_give_no_rows_of_the_right_shape(precision):
    found = predict(MODEL, PARAMETERS, pixels(0), precision=precision)
    assert found.shape == (0, 3)
    assert found.dtype == np.dtype(precision)
    assert classify(MODEL, PARAMETERS, pixels(0)) == []


def test_no_images_give_figures_that_are_nan():
    metrics = evaluate(MODEL, PARAMETERS, Dataset(pixels(3), labels_of(3)).take([]))
    assert math.isnan(metrics.loss)
    assert math.isnan(metrics.accuracy)
    assert metrics.count == 0


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_images_of_every_allowed_type_are_predicted_in_the_precision_asked_for(dtype, precision):
    images = pixels(6).astype(dtype)
    before = images.copy()
    found = predict(MODEL, PARAMETERS, images, precision=precision)
    assert found.dtype == np.dtype(precision)
    assert found == pytest.approx(predict(MODEL, PARAMETERS, pixels(6)), rel=1e-4)
    assert np.array_equal(images, before)
    labels = labels_of(6)
    expected = -np.log(found[np.arange(6), labels].astype(np.float64)).mean()
    assert evaluate(MODEL, PARAMETERS, Dataset(images, labels), precision=precision).loss == pytest.approx(
        expected, 1e-5
    )


def test_a_model_that_is_no_classifier_predicts_its_last_layer():
    features = MODEL.prefix(1)
    own = {name: PARAMETERS[name] for name in ("1.kernel", "1.bias")}
    found = predict(features, own, pixels(4))
    assert found.shape == (4, 4, 3, 3)
    kernel, image = PARAMETERS["1.kernel"].astype(float), pixels(4)[2] / 255
    expected = (image[1:3, 2:4, :, np.newaxis] * kernel).sum(axis=(0, 1, 2)) + PARAMETERS["1.bias"]
    assert found[2, 1, 2] == pytest.approx(expected, rel=1e-5)


def test_a_backend_is_taken_by_name_by_chain_and_as_it_is(monkeypatch):
    images = pixels(3)
    expected = predict(MODEL, PARAMETERS, images)
    for backend in ("numpy", ["there-is-none", "numpy"], get_backend("numpy")):
        assert np.array_equal(predict(MODEL, PARAMETERS, images, backend), expected)
    monkeypatch.setenv("CNNKIT_BACKEND", "there-is-none")
    with pytest.raises(BackendNotFound, match="No backend is called 'there-is-none'"):
        predict(MODEL, PARAMETERS, images)


# ------------------------------------------------------------------------------------------------------------- evaluate


def test_the_loss_is_the_mean_cross_entropy_of_the_scores():
    scores = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, math.log(2.0), 0.0]], np.float64)
    metrics = evaluate(SOFTMAX, {}, Dataset(scores, [2, 0, 0]), precision="float64")
    by_hand = [math.log(3), math.log(1 + 2 * math.exp(-1)), math.log(4)]
    assert metrics.loss == pytest.approx(sum(by_hand) / 3, rel=1e-15)
    assert metrics.confusion.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]  # at a tie, the lowest class


@pytest.mark.parametrize(
    ("scores", "label", "loss"),
    [
        ([0.0, 1000.0, 0.0], 0, 1000.0),  # clipped probabilities would say 16 or 103
        ([0.0, 3e38, 0.0], 2, float(np.float32(3e38))),
        ([50.0, 0.0, 0.0], 0, 2 * math.exp(-50)),  # and 1 - p would say 0
        ([-1e30, -1e30, -1e30], 1, math.log(3)),
    ],
)
def test_the_loss_comes_by_log_sum_exp_and_never_from_clipped_probabilities(scores, label, loss):
    data = Dataset(np.array([scores], np.float32), [label])
    assert evaluate(SOFTMAX, {}, data).loss == pytest.approx(loss, rel=1e-12)


def test_the_scores_come_from_the_layers_under_the_softmax():
    data = Dataset(pixels(9), labels_of(9))
    scores = predict(MODEL.prefix(3), PARAMETERS, data.images, precision="float64")
    below = scores - scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(below).sum(axis=1)) - below[np.arange(9), data.labels]
    metrics = evaluate(MODEL, PARAMETERS, data, precision="float64")
    assert metrics.loss == pytest.approx(losses.mean(), rel=1e-12)
    assert metrics.accuracy == (scores.argmax(axis=1) == data.labels).mean()


def test_a_score_that_is_nan_is_an_error_and_no_class():
    data = Dataset(np.array([[0, 1, 2], [0, math.nan, 1]], np.float32), [2, 2])
    with pytest.raises(TrainingError, match="row 1 of the scores holds NaN, so there is no predicted class"):
        evaluate(SOFTMAX, {}, data)
    broken = {**PARAMETERS, "3.bias": np.array([0, math.nan, 0], np.float32)}
    with pytest.raises(TrainingError, match="row 0 of the scores holds NaN"):
        evaluate(MODEL, broken, Dataset(pixels(3), labels_of(3)))


@pytest.mark.parametrize(
    ("of_model", "of_data", "expected"),
    [
        (None, None, ["0", "1", "2"]),
        (["a", "b", "c"], None, ["a", "b", "c"]),
        (None, ["x", "y", "z"], ["x", "y", "z"]),
        (["a", "b", "c"], ["a", "b", "c"], ["a", "b", "c"]),
        (None, ["x", "y"], ["0", "1", "2"]),  # two names do not name three outputs
    ],
)
def test_classes_are_called_as_the_model_says_or_else_the_data(of_model, of_data, expected):
    model = Model(input_shape=(3,), layers=[Softmax()], class_names=of_model)
    metrics = evaluate(model, {}, Dataset(np.eye(3)[:2], [0, 1], of_data))
    assert [figures.name for figures in metrics.per_class] == expected


# ------------------------------------------------------------------------------------------------------------- classify


def test_classify_names_the_most_probable_class_and_gives_all_probabilities():
    model = Model(input_shape=(3,), layers=[Softmax()], class_names=["cat", "dog", "owl"])
    answers = classify(model, {}, np.log(np.array([[1, 2, 5], [4, 3, 1]], np.float64)), precision="float64")
    assert [answer.class_name for answer in answers] == ["owl", "cat"]
    assert answers[0].probability == pytest.approx(0.625)
    assert answers[0].probabilities == pytest.approx({"cat": 0.125, "dog": 0.25, "owl": 0.625})
    assert all(sum(answer.probabilities.values()) == pytest.approx(1) for answer in answers)
    assert type(answers[0].probability) is float


def test_classes_without_names_are_called_by_their_numbers():
    (answer,) = classify(SOFTMAX, {}, np.array([[0, 9, 0]], np.float32))
    assert answer.class_name == "1"
    assert list(answer.probabilities) == ["0", "1", "2"]


def test_settings_of_predict_reach_it():
    with pytest.raises(OptionError, match="precision is 'half'"):
        classify(SOFTMAX, {}, np.eye(3), precision="half")


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("batch_size", [0, -3, 2.0, True])
@pytest.mark.parametrize("what", [predict, evaluate])
def test_a_batch_size_that_is_none_is_refused(what, batch_size):
    subject = pixels(3) if what is predict else Dataset(pixels(3), labels_of(3))
    with pytest.raises(OptionError, match=f"batch_size is {batch_size}; expected a whole number of at least 1"):
        what(MODEL, PARAMETERS, subject, batch_size=batch_size)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pixels(2)[..., :1], "images have shape .* but the model takes 5 x 4 x 2"),
        (pixels(2)[0], "Add the batch axis"),
        (np.zeros((2, 5, 4, 2), np.int64), "images are int64, but a program in float32 precision takes uint8"),
        (np.zeros((0, 9, 9, 2), np.uint8), "images have shape .* but the model takes 5 x 4 x 2"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, message):
    with pytest.raises(DataError, match=message):
        predict(MODEL, PARAMETERS, images)


def test_parameters_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"3\.kernel"):
        predict(MODEL, {**PARAMETERS, "3.kernel": np.zeros((2, 2), np.float32)}, pixels(1))


def test_a_model_that_is_no_classifier_cannot_be_judged():
    with pytest.raises(ModelError, match=r"layers\[2\] is Flatten; a model that is trained or judged ends in Softmax"):
        evaluate(MODEL.prefix(2), PARAMETERS, Dataset(pixels(3), labels_of(3)))
    with pytest.raises(ModelError, match="ends in Softmax"):
        classify(MODEL.prefix(2), PARAMETERS, pixels(3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            Dataset(np.zeros((1, 4, 5, 2), np.uint8), [0]),
            r"images of the data are \(4, 5, 2\), but model has input_shape",
        ),
        (Dataset(pixels(4), np.arange(4)), "the data has 4 classes, but model tells 3 apart"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused(data, message):
    with pytest.raises(DataError, match=message):
        evaluate(MODEL, PARAMETERS, data)


@pytest.mark.parametrize("what", [predict, evaluate, classify])
def test_what_is_handed_over_for_a_model_its_parameters_or_data_is_told_from_them(what):
    subject = Dataset(pixels(3), labels_of(3)) if what is evaluate else pixels(3)
    state = initial_state(MODEL, SGD(learning_rate=0.1))
    with pytest.raises(
        DataError, match=r"parameters are a TrainingState; expected arrays by name, such as run\.state\."
    ):
        what(MODEL, state, subject)
    with pytest.raises(
        OptionError, match=r"model is str 'seed-tf'; expected a cnnkit\.Model\. Of a preset, take cnnkit"
    ):
        what("seed-tf", PARAMETERS, subject)
    if what is evaluate:
        with pytest.raises(
            DataError, match=r"data is tuple; expected a data set\. Give cnnkit\.Dataset\(images, labels\)"
        ):
            what(MODEL, PARAMETERS, (pixels(3), labels_of(3)))


def test_the_parameters_of_a_whole_model_give_the_feature_maps_of_its_prefix():
    images = pixels(3)
    maps = predict(MODEL.prefix(1), PARAMETERS, images)
    assert maps.shape == (3, 4, 3, 3)
    kernel = PARAMETERS["1.kernel"].astype(np.float64)
    patch = images[2, 1:3, 2:4].astype(np.float64) / 255
    assert maps[2, 1, 2] == pytest.approx((patch[..., np.newaxis] * kernel).sum(axis=(0, 1, 2)), rel=1e-5)


def test_labels_that_begin_at_1_are_suspected():
    with pytest.raises(DataError, match="or number the labels from 0: no image has label 0"):
        evaluate(MODEL, PARAMETERS, Dataset(pixels(6), np.arange(6) % 3 + 1))


# ------------------------------------------------------------------------------------------------------------ refusals

DILATED = Model(
    input_shape=(5, 5, 1), layers=[Conv2D(filters=1, kernel_size=2, dilation=2), Flatten(), Dense(units=3), Softmax()]
)
DILATED_PARAMETERS = initial_parameters(DILATED, seed=0)
DILATED_IMAGES = np.zeros((3, 5, 5, 1), np.float32)


@pytest.mark.usefixtures("few_plugins")
@pytest.mark.parametrize(
    "judge",
    [
        lambda backend: predict(DILATED, DILATED_PARAMETERS, DILATED_IMAGES, backend),
        lambda backend: evaluate(DILATED, DILATED_PARAMETERS, Dataset(DILATED_IMAGES, np.arange(3)), backend),
    ],
    ids=["predict", "evaluate"],
)
def test_a_backend_that_refuses_only_when_it_compiles_is_told_with_those_that_could(judge):
    with pytest.raises(UnsupportedModel, match=r"'refusing' .*there is no kernel\. Backends that could: .*") as refused:
        judge("refusing")
    assert (refused.value.path, refused.value.feature) == ("layers[0].dilation", "conv2d.dilation")
    assert refused.value.alternatives == ("loopback", "numpy")
    assert isinstance(refused.value.__cause__, UnsupportedModel)  # what the backend itself said is not lost


def test_a_backend_made_by_hand_refuses_in_its_own_words():
    mine = LayerwiseBackend("mine", Kernels({}))
    with pytest.raises(UnsupportedModel, match="`cnnkit why MODEL --all` lists the backends that could") as refused:
        predict(DILATED, DILATED_PARAMETERS, DILATED_IMAGES, mine)
    assert refused.value.__cause__ is None
