"""`CNNClassifier` is what scikit-learn expects of a classifier, and what cnnkit makes of the same data."""

import importlib
import math
import pickle
import pickletools
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import cnnkit
from cnnkit import SGD, Adam, Conv2D, DataError, Dense, Flatten, Model, OptionError, Rescale, Softmax
from cnnkit.errors import BackendNotFound, BackendOptionError, MissingDependency
from cnnkit.plugins import backend_names, status
from cnnkit.sklearn import CNNClassifier
from cnnkit.state import same_state

X, Y = load_digits(return_X_y=True)
X, Y = X[:300], Y[:300]
IMAGES = X.reshape(-1, 8, 8, 1)
BYTES = (X * 15).astype(np.uint8)
FEW = np.array([[0.0, 1.0], [1.0, 0.0], [0.1, 0.9], [0.8, 0.2]])


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch):
    monkeypatch.delenv("CNNKIT_BACKEND", raising=False)


def quick(**settings):
    return CNNClassifier(**{"backend": "numpy-batched", "epochs": 2, "random_state": 0} | settings)


def small_model(filters=2, shape=(8, 8, 1), units=10):
    layers = [Conv2D(filters=filters, kernel_size=3), Flatten(), Dense(units=units), Softmax()]
    return Model(name=f"with {filters} filters", input_shape=shape, layers=layers)


# ------------------------------------------------------------------------------------------- what scikit-learn expects


@parametrize_with_checks([CNNClassifier(), CNNClassifier(backend="numpy-batched")])
def test_it_is_a_classifier_to_scikit_learn(estimator, check):
    check(estimator)


def test_in_a_pipeline_its_defaults_read_most_digits_of_a_held_out_half():
    train, test, wanted, truth = train_test_split(*load_digits(return_X_y=True), test_size=0.5, random_state=0)
    pipeline = make_pipeline(StandardScaler(), CNNClassifier(random_state=0)).fit(train, wanted)
    assert pipeline.score(test, truth) > 0.95


@pytest.mark.parametrize("backend", backend_names())
def test_on_each_backend_it_learns_and_every_other_one_predicts_the_same(backend):
    state = status(backend).state
    if state != "ready":
        pytest.skip(f"backend '{backend}' is {state}")
    fitted = quick(backend=backend, epochs=10).fit(X, Y)
    assert fitted.score(X, Y) > 0.9
    own = fitted.predict_proba(X)
    assert np.allclose(own, fitted.set_params(backend="numpy").predict_proba(X), atol=1e-4)


def test_a_search_goes_over_models_optimizers_and_epochs_in_two_processes_as_in_one():
    grid = {"c__model": [small_model(2), "mlp-1h"], "c__optimizer": [SGD(0.0), Adam(0.01)], "c__epochs": [1, 8]}
    pipeline = make_pipeline(StandardScaler(), quick())
    pipeline.steps[-1] = ("c", pipeline[-1])
    one, two = (GridSearchCV(pipeline, grid, cv=2, n_jobs=n, error_score="raise").fit(X, Y) for n in (1, 2))
    assert one.best_params_["c__epochs"] == 8
    assert one.best_params_["c__optimizer"] == Adam(0.01)
    assert one.best_score_ > 0.8
    assert np.array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])
    assert len(set(one.cv_results_["mean_test_score"])) > 4  # the models and the epochs make a difference


def test_cross_validation_scores_each_fold():
    scores = cross_val_score(quick(epochs=10), X, Y, cv=3)
    assert scores.shape == (3,)
    assert scores.min() > 0.8


def test_a_fitted_one_pickles_without_an_engine_and_predicts_the_same():
    fitted = quick(model=small_model(), optimizer=Adam(0.01)).fit(X, Y)
    written = pickle.dumps(fitted)
    named = {str(argument) for opcode, argument, _ in pickletools.genops(written) if opcode.name.endswith("UNICODE")}
    assert "cnnkit.sklearn" in named
    assert [name for name in named if name.startswith(("cnnkit_", "threading", "_thread"))] == []
    assert np.array_equal(pickle.loads(written).predict_proba(X), fitted.predict_proba(X))  # noqa: S301 - our own


def test_a_clone_has_an_equal_model_and_nothing_of_what_was_fitted():
    fitted = quick(model=small_model(), optimizer=SGD(0.1)).fit(X, Y)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "state_")


def test_it_is_shown_with_its_model_as_text_and_as_a_page():
    classifier = quick(model=small_model(5))
    assert "with 5 filters" in repr(classifier)
    assert "with 5 filters" in classifier._repr_html_()


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_before_fit_it_says_that_it_is_not_fitted(method):
    with pytest.raises(NotFittedError, match="CNNClassifier instance is not fitted yet"):
        getattr(quick(), method)(X)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # NumPy's, on the way to the error
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("data", [X, IMAGES], ids=["rows", "images"])
def test_numbers_that_float32_cannot_hold_are_refused_in_fit_and_in_predict(data, value):
    fitted = quick().fit(data, Y)
    spoilt = data.copy()
    spoilt[7, 3] = value
    for call in (
        lambda: fitted.predict(spoilt),
        lambda: quick().fit(spoilt, Y),
        lambda: quick().partial_fit(spoilt, Y, Y),
    ):
        with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
            call()


def test_without_scikit_learn_the_command_that_installs_it_is_given(monkeypatch):
    monkeypatch.delitem(sys.modules, "cnnkit.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(MissingDependency, match=r"CNNClassifier needs scikit-learn.*pip install 'cnnkit\[data\]'"):
        importlib.import_module("cnnkit.sklearn")


def test_an_older_scikit_learn_is_not_called_absent_and_the_extra_asks_for_the_one_that_is_needed(monkeypatch):
    monkeypatch.delitem(sys.modules, "cnnkit.sklearn")
    monkeypatch.delattr("sklearn.utils.validation.validate_data")
    with pytest.raises(MissingDependency) as refusal:
        importlib.import_module("cnnkit.sklearn")
    needed = re.search(r"scikit-learn>=[0-9.]+", str(refusal.value))
    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert needed[0] in extras["data"]


# ------------------------------------------------------------------------------------------------ the same as cnnkit's


def test_it_ends_in_the_same_bits_as_cnnkit_fit_from_the_same_seed():
    model = small_model()
    fitted = quick(model=model, optimizer=SGD(0.01), batch_size=7, epochs=3, random_state=5).fit(IMAGES, Y)
    data = cnnkit.Dataset(IMAGES.astype(np.float32), Y)
    run = cnnkit.fit(model, data, None, "numpy-batched", SGD(0.01), batch_size=7, epochs=3, seed=5)
    assert same_state(fitted.state_, run.state)
    assert [record.running_loss for record in fitted.history_] == [record.running_loss for record in run.history]
    expected = cnnkit.predict(model, run.state.parameters, data.images, "numpy-batched")
    assert np.array_equal(fitted.predict_proba(IMAGES), expected)
    assert np.array_equal(fitted.predict(IMAGES), expected.argmax(axis=1))


@pytest.mark.parametrize("name", ["mlp-1h", "seed-numpy"])
def test_a_preset_brings_its_layers_and_its_way_of_training(name):
    preset = cnnkit.load_preset(name).for_data((8, 8, 1), 10, [str(digit) for digit in range(10)])
    fitted = CNNClassifier(model=name, image_shape=(8, 8, 1), backend="numpy-batched", random_state=3).fit(BYTES, Y)
    data = cnnkit.Dataset(BYTES.reshape(-1, 8, 8, 1), Y)
    run = cnnkit.fit(
        preset.model, data, None, "numpy-batched", preset.optimizer, preset.batch_size, preset.epochs, seed=3
    )
    assert fitted.model_ == preset.model
    assert same_state(fitted.state_, run.state)
    assert fitted.n_iter_ == preset.epochs


def test_what_is_asked_for_goes_before_what_the_preset_says():
    fitted = quick(model="seed-numpy", image_shape=(8, 8, 1), optimizer=Adam(), batch_size=100, epochs=3).fit(BYTES, Y)
    assert fitted.state_.step == 9
    assert set(fitted.state_.slots) == {"m", "v"}


def test_without_a_model_rows_get_a_hidden_layer_and_images_convolutions():
    rows, images = quick(epochs=1).fit(X, Y).model_, quick(epochs=1).fit(IMAGES, Y).model_
    assert [layer.kind for layer in rows.layers] == ["flatten", "dense", "dense", "softmax"]
    assert sum(isinstance(layer, Conv2D) for layer in images.layers) == 2
    assert (rows.input_shape, images.input_shape) == ((64,), (8, 8, 1))


def test_bytes_are_rescaled_by_the_model_and_other_numbers_are_not():
    of_bytes, of_numbers = quick(epochs=1).fit(BYTES, Y), quick(epochs=1).fit(BYTES.astype(int), Y)
    assert [layer for layer in of_bytes.model_.layers if isinstance(layer, Rescale)] == [Rescale(scale=1 / 255)]
    assert [layer for layer in of_numbers.model_.layers if isinstance(layer, Rescale)] == []
    assert np.array_equal(of_bytes.predict_proba(BYTES), of_bytes.predict_proba(BYTES.astype(int)))  # the same numbers


def test_rows_with_an_image_shape_are_the_images_written_out():
    as_images, as_rows = quick().fit(IMAGES, Y), quick(image_shape=(8, 8, 1)).fit(X, Y)
    assert same_state(as_images.state_, as_rows.state_)
    assert np.array_equal(as_images.predict_proba(IMAGES), as_rows.predict_proba(X))
    assert same_state(quick(model=small_model()).fit(X, Y).state_, quick(model=small_model()).fit(IMAGES, Y).state_)


def test_only_rows_of_features_have_a_number_of_features():
    classifier = quick(epochs=1).fit(X, Y)
    assert classifier.n_features_in_ == 64
    assert not hasattr(classifier.fit(IMAGES, Y), "n_features_in_")


def test_the_precision_is_that_of_the_parameters_and_of_the_answer():
    fitted = quick(precision="float64").fit(X, Y)
    assert {array.dtype.name for array in fitted.state_.parameters.values()} == {"float64"}
    assert fitted.predict_proba(X).dtype == np.float64
    assert quick().fit(X, Y).predict_proba(X).dtype == np.float32


def test_in_float64_no_number_of_x_is_rounded():
    thirds = X / 3
    fitted = quick(precision="float64", optimizer=Adam()).fit(thirds, Y)
    data = cnnkit.Dataset(thirds, Y)
    on = {"batch_size": 32, "epochs": 2, "seed": 0, "precision": "float64"}
    assert same_state(fitted.state_, cnnkit.fit(fitted.model_, data, None, "numpy-batched", Adam(), **on).state)


# ------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "labels",
    [np.array(["wren", "owl", "wren", "owl"]), np.array([True, False, True, False]), np.array([7, -2, 7, -2])],
    ids=["texts", "truths", "numbers"],
)
def test_labels_of_any_kind_come_back_and_name_the_classes(labels):
    fitted = quick(epochs=200, optimizer=Adam(0.01)).fit(FEW, labels)
    assert np.array_equal(fitted.predict(FEW), labels)
    assert fitted.classes_.tolist() == sorted(set(labels.tolist()))
    assert fitted.model_.class_names == tuple(str(label) for label in fitted.classes_)
    assert np.array_equal(fitted.predict_proba(FEW)[:, 1] > 0.5, labels == fitted.classes_[1])


def test_a_model_that_names_its_classes_in_another_order_than_the_labels_is_refused():
    layers = [Dense(units=2), Softmax()]
    first, second = (Model(input_shape=(2,), layers=layers, class_names=names) for names in (["b", "a"], ["a", "b"]))
    with pytest.raises(DataError, match=r"y has the labels a, b, in this order, but .* names its classes b, a\. Give"):
        quick(model=first).fit(FEW, ["a", "b", "a", "b"])
    assert quick(model=second).fit(FEW, ["a", "b", "a", "b"]).model_.class_names == ("a", "b")
    assert quick(model=first).fit(FEW, [0, 1, 0, 1]).model_.class_names == ("b", "a")


def test_labels_that_have_no_order_are_refused():
    with pytest.raises(DataError, match=r"y has labels that cannot be put in order: .*NoneType"):
        quick().fit(FEW, np.array(["owl", None, "owl", None], dtype=object))


@pytest.mark.parametrize("labels", [["owl", None], ["owl", 1]], ids=["None", "numbers"])
def test_partial_fit_refuses_the_same_labels_as_fit(labels):
    labels = np.array(labels, dtype=object)
    for call in (
        lambda: quick().fit(FEW, np.tile(labels, 2)),
        lambda: quick().partial_fit(FEW, ["owl", "wren"] * 2, classes=labels),
    ):
        with pytest.raises(
            DataError, match=r"^(y|classes) has labels that .*[^.]\. Give texts only, or numbers only\.$"
        ):
            call()


def test_a_class_without_a_name_leaves_the_model_without_names():
    assert quick().fit(FEW, np.array(["", "owl", "", "owl"])).model_.class_names is None


def test_of_a_single_class_it_is_certain():
    fitted = quick().fit(FEW, ["owl"] * 4)
    assert fitted.predict([[5.0, 5.0]]).tolist() == ["owl"]
    assert fitted.predict_proba(FEW).tolist() == [[1.0]] * 4


# ----------------------------------------------------------------------------------------------- seeds and stopping


def test_without_a_random_state_two_fits_differ_and_with_one_object_too():
    np.random.seed(1)  # noqa: NPY002 - what scikit-learn draws from where random_state is None
    for state in (None, np.random.RandomState(1)):
        classifier = quick(random_state=state, epochs=1)
        assert not np.array_equal(classifier.fit(X, Y).predict_proba(X), classifier.fit(X, Y).predict_proba(X))
    np.random.seed(1)  # noqa: NPY002 - as above
    of_none = quick(random_state=None, epochs=1).fit(X, Y).predict_proba(X)
    of_one = quick(random_state=np.random.RandomState(1), epochs=1).fit(X, Y).predict_proba(X)
    assert np.array_equal(of_none, of_one)


@pytest.mark.parametrize("fraction", [None, 0.25])
def test_patience_ends_the_run_when_nothing_gets_better(fraction):
    stuck = quick(optimizer=SGD(0.0), epochs=50, patience=3, validation_fraction=fraction).fit(X, Y)
    assert (stuck.n_iter_, len(stuck.history_)) == (4, 4)
    assert [record.epoch for record in stuck.history_ if record.best] == [1]
    assert stuck.state_.step == math.ceil(len(X) * (1 - (fraction or 0)) / 32)
    assert (stuck.history_[0].train is None, stuck.history_[0].validation is None) == (
        fraction is not None,
        fraction is None,
    )


def test_it_prints_a_line_an_epoch_when_asked(capsys):
    quick().fit(X, Y)
    assert capsys.readouterr().out == ""
    fitted = quick(verbose=1, validation_fraction=0.5).fit(X, Y)
    held = fitted.history_[1].validation
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Epoch 1: running loss ")
    assert second == (
        f"Epoch 2: running loss {fitted.history_[1].running_loss:.4f}, "
        f"validation loss {held['loss']:.4f}, accuracy {held['accuracy']:.4f}"
    )


# --------------------------------------------------------------------------------------------------------- partial_fit


def test_the_first_partial_fit_is_a_fit_of_one_epoch_and_the_next_goes_on_from_it():
    classifier = quick(epochs=9).partial_fit(X, Y, classes=range(10))
    first = classifier.state_
    assert same_state(first, quick(epochs=1).fit(X, Y).state_)
    classifier.partial_fit(X, Y)
    data = cnnkit.Dataset(X.astype(np.float32), Y)
    on = {"batch_size": 32, "seed": first.step, "initial": first}
    assert same_state(classifier.state_, cnnkit.fit(classifier.model_, data, None, "numpy-batched", **on).state)
    assert [record.epoch for record in classifier.history_] == [1, 2]
    assert classifier.n_iter_ == 2


def test_partial_fit_learns_classes_that_come_one_after_the_other():
    classifier = quick(optimizer=Adam(0.01)).partial_fit(FEW[:1], ["b"], classes=["b", "c", "a"])
    for _ in range(100):
        classifier.partial_fit(FEW, ["b", "c", "b", "c"])
    assert classifier.predict(FEW).tolist() == ["b", "c", "b", "c"]
    assert classifier.classes_.tolist() == ["a", "b", "c"]


def test_partial_fit_goes_on_from_fit():
    fitted = quick(epochs=1).fit(IMAGES, Y)
    steps = fitted.state_.step
    assert fitted.partial_fit(IMAGES[:32], Y[:32]).state_.step == steps + 1


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: quick().partial_fit(X, Y), OptionError, r"classes is None at the first partial_fit"),
        (
            lambda: quick().partial_fit(X, Y, classes=range(10)).partial_fit(X, Y, classes=[1, 2]),
            OptionError,
            r"classes is \[1, 2\], but was array",
        ),
        (
            lambda: quick().partial_fit(X, Y, classes=range(1, 10)),
            DataError,
            r"y holds 0, which is none of the classes \[1, ",
        ),
        (lambda: quick().partial_fit(X, Y.astype(str), classes=range(10)), DataError, r"y holds '0', which is none"),
        (
            lambda: quick(patience=2).partial_fit(X, Y, classes=Y),
            OptionError,
            r"patience is 2 and.* Leave both at None",
        ),
        (lambda: quick(validation_fraction=0.5).partial_fit(X, Y, Y), OptionError, r"validation_fraction 0.5, but"),
        (lambda: quick().partial_fit(X, Y + 0.5, classes=Y), ValueError, r"Unknown label type: continuous"),
    ],
)
def test_what_partial_fit_cannot_go_on_with_is_said(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"image_shape": (8, 8)}, OptionError, r"image_shape is \(8, 8\); expected \(height, width, channels\)"),
        ({"image_shape": 8}, OptionError, r"image_shape is 8; expected"),
        ({"image_shape": (8, 8, 1.0)}, OptionError, r"image_shape is \(8, 8, 1.0\)"),
        ({"image_shape": (-8, -8, 1)}, OptionError, r"image_shape is \(-8, -8, 1\)"),
        ({"image_shape": (8, 9, 1)}, DataError, r"X has shape \(300, 64\).* expected \(n, 8, 9, 1\) or \(n, 72\)"),
        ({"image_shape": (4, 16, 1), "model": small_model()}, DataError, r"\(4, 16, 1\), but model 'with 2 filters'"),
        ({"model": "seed-tf"}, DataError, r"X has rows of 64 features, but the preset 'seed-tf' takes images"),
        ({"model": "seed"}, OptionError, r"there is no preset 'seed'"),
        ({"model": 3}, OptionError, r"model is 3; expected a cnnkit.Model, the name of a preset, or None"),
        ({"model": small_model(units=12)}, DataError, r"y has 10 classes, but .* tells 12 apart"),
        ({"model": small_model(units=9)}, DataError, r"y has 10 classes, but .* tells 9 apart"),
        ({"optimizer": "adam"}, OptionError, r"optimizer is 'adam'"),
        ({"batch_size": 0}, OptionError, r"batch_size is 0"),
        ({"epochs": 0}, OptionError, r"epochs is 0"),
        ({"patience": 0}, OptionError, r"patience is 0"),
        ({"validation_fraction": 2}, OptionError, r"fraction is 2"),
        ({"random_state": -1}, OptionError, r"seed is -1"),
        ({"backend": "nump"}, BackendNotFound, r"No backend is called 'nump'"),
        ({"device": "tape"}, cnnkit.CnnkitError, r"tape"),
        ({"precision": "float16"}, OptionError, r"precision is 'float16'"),
        ({"options": {"speed": 1}}, BackendOptionError, r"has no option 'speed'"),
        ({"options": "speed"}, OptionError, r"options is 'speed'; expected the backend's own options by name"),
        ({"backend": cnnkit.get_backend("numpy")}, OptionError, r"backend is a NumpyBackend; expected a name"),
    ],
)
def test_a_parameter_that_cannot_be_is_named_in_fit_and_not_before(settings, kind, words):
    classifier = quick(**settings)
    with pytest.raises(kind, match=words):
        classifier.fit(X, Y)


@pytest.mark.parametrize(
    ("fitted_on", "asked", "words"),
    [
        (X, X[:, :60], r"X has 60 features, but CNNClassifier is expecting 64 features as input"),
        (
            X,
            IMAGES,
            r"X has shape \(300, 8, 8, 1\), but the model takes \(64,\) for each row: expected \(n, 64\)\. Give",
        ),
        (IMAGES, X[:, :60], r"X has shape \(300, 60\).* expected \(n, 8, 8, 1\) or \(n, 64\)"),
        (IMAGES, X.reshape(-1, 4, 16, 1), r"X has shape \(300, 4, 16, 1\)"),
        (IMAGES, X.reshape(-1, 8, 8), r"X has shape \(300, 8, 8\);.*Add the channel axis: X\[\.\.\., numpy\.newaxis\]"),
    ],
)
def test_data_that_do_not_fit_what_was_fitted_are_refused_with_what_was_expected(fitted_on, asked, words):
    fitted = quick(epochs=1).fit(fitted_on, Y)
    with pytest.raises(ValueError, match=words):
        fitted.predict(asked)


def test_images_without_labels_or_with_too_few_are_refused():
    with pytest.raises(ValueError, match="requires y to be passed"):
        quick().fit(IMAGES, None)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[300, 3\]"):
        quick().fit(IMAGES, Y[:3])
