"""Where a loss stops being a number: the step and the layer that the error names are the right ones."""

import math

import numpy as np
import pytest

import cnnkit.history
import cnnkit.running
from cnnkit.datasets import Dataset
from cnnkit.diagnosis import explain_non_finite
from cnnkit.errors import NonFiniteLoss
from cnnkit.model import Conv2D, Dense, Dropout, Flatten, Model, Rescale, Softmax
from cnnkit.optimizers import SGD, StepDecay
from cnnkit.plugins import get_backend
from cnnkit.randomness import epoch_order
from cnnkit.state import initial_state, same_state
from cnnkit.training import fit

MODEL = Model(
    name="tiny",
    input_shape=(6, 5, 1),
    layers=[
        Conv2D(filters=2, kernel_size=3, activation="relu"),
        Dropout(rate=0.2),
        Flatten(),
        Dense(units=3),
        Softmax(),
    ],
)


LINEAR = Model(
    name="linear",
    input_shape=(6, 5, 1),
    layers=[Rescale(scale=100.0), Flatten(), Dense(units=4), Dense(units=3), Softmax()],
)


def data_of(count, dtype=np.float32):
    random = np.random.default_rng(2)
    return Dataset(random.random((count, 6, 5, 1)).astype(dtype), np.arange(count) % 3)


def first_bad_step(model, data, optimizer, batch_size, epochs=5):
    """The step whose loss is the first that is not finite, by a loop of its own, and its epoch's rows."""
    program = get_backend("numpy").compile_training(model.plan(), initial_state(model, optimizer), optimizer)
    step = 0
    for epoch in range(epochs):
        order = epoch_order(0, epoch, len(data))
        for first in range(0, len(data), batch_size):
            rows = order[first : first + batch_size]
            if not math.isfinite(float(program.step(data.images[rows], data.labels[rows]))):
                return step
            step += 1
    return None


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(cnnkit.running, "PIECE_IMAGES", 12)


def failure(model, data, tmp_path=None, **settings):
    with pytest.raises(NonFiniteLoss) as raised:
        fit(model, data, batch_size=4, epochs=5, out=tmp_path, **settings)
    return raised.value


# A rate that grows by the step lets the loss overflow at another step for every value, in the second epoch too.
@pytest.mark.parametrize("growth", [30.0, 300.0, 1e10])
def test_a_rate_too_large_is_found_at_the_step_at_which_a_plain_loop_finds_it(growth):
    data = data_of(30)
    optimizer = SGD(learning_rate=StepDecay(1e-3, every=1, factor=growth))
    error = failure(MODEL, data, optimizer=optimizer)
    expected = first_bad_step(MODEL, data, optimizer, batch_size=4)
    assert expected is not None
    assert expected > 1
    assert error.step == expected
    assert f"became nan at step {expected}." in str(error) or f"became inf at step {expected}." in str(error)
    assert f"Try a lower learning rate (it was {1e-3 * growth**expected:g}), or clip" in str(error)


def test_the_steps_differ_for_those_rates_and_some_lie_in_a_later_epoch():
    steps = [
        first_bad_step(MODEL, data_of(30), SGD(learning_rate=StepDecay(1e-3, every=1, factor=growth)), 4)
        for growth in (30.0, 300.0, 1e10)
    ]
    assert len(set(steps)) == 3
    assert max(steps) >= 24  # an epoch has 8 steps


@pytest.mark.parametrize(("count", "epoch_ends"), [(30, False), (4, True)])
def test_parameters_that_an_update_broke_are_named_with_their_layer(count, epoch_ends):
    data, optimizer = data_of(count), SGD(learning_rate=3e38)
    error = failure(LINEAR, data, optimizer=optimizer)
    program = get_backend("numpy").compile_training(LINEAR.plan(), initial_state(LINEAR, optimizer), optimizer)
    rows = epoch_order(0, 0, count)[:4]
    assert math.isfinite(float(program.step(data.images[rows], data.labels[rows])))
    broken = [name for name, array in program.state().parameters.items() if not np.isfinite(array).all()]
    assert broken[0].startswith("2.")
    if epoch_ends:  # there is no second step whose loss could be NaN
        assert error.step == 0
        assert error.where == f"layers[2] (Dense): the step left its parameter '{broken[0]}' not finite"
        assert str(error).startswith("the parameters of model 'linear' became NaN or infinite at step 0.")
    else:
        assert error.step == 1
        assert error.where == f"layers[2] (Dense): the step before left its parameter '{broken[0]}' not finite"
        assert str(error).startswith("the loss of model 'linear' became nan at step 1.")
    assert f"It began in {error.where}. Try a lower learning rate (it was 3e+38), or clip" in str(error)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("image", [0, 17, 29])
def test_a_bad_image_is_named_with_the_step_that_met_it(value, image):
    data = data_of(30)
    data.images[image, 3, 2, 0] = value
    error = failure(MODEL, data, optimizer=SGD(learning_rate=0.01))
    assert error.where == f"the images: image {image} of the training set holds NaN or infinity"
    assert error.step == int(np.flatnonzero(epoch_order(0, 0, 30) == image)[0]) // 4


def test_a_layer_that_overflows_is_named():
    layers = [
        Conv2D(filters=2, kernel_size=3, activation="relu"),
        Rescale(scale=1e38),
        Flatten(),
        Rescale(scale=1e38),
        Dense(units=3),
        Softmax(),
    ]
    data = data_of(30)
    error = failure(Model(input_shape=(6, 5, 1), layers=layers), data, optimizer=SGD(learning_rate=0.01))
    assert error.step == 0
    assert error.where.startswith("layers[3] (Rescale): its output for image ")
    assert error.where.endswith("of the training set is not finite, though its input is")
    named = int(error.where.split("image ")[1].split()[0])
    assert named in epoch_order(0, 0, 30)[:4]


def test_a_layer_that_overflows_for_one_image_names_that_image():
    data = data_of(30)
    data.images[19] = 1e38
    layers = [Rescale(scale=10.0), *MODEL.layers]
    error = failure(Model(input_shape=(6, 5, 1), layers=layers), data, optimizer=SGD(learning_rate=0.0))
    assert error.where == (
        "layers[0] (Rescale): its output for image 19 of the training set is not finite, though its input is"
    )
    assert error.step == int(np.flatnonzero(epoch_order(0, 0, 30) == 19)[0]) // 4


def test_the_step_is_counted_over_the_whole_run_also_after_resuming(tmp_path):
    data = data_of(30)
    optimizer = SGD(learning_rate=StepDecay(1e-3, every=1, factor=300.0))
    expected = first_bad_step(MODEL, data, optimizer, batch_size=4)
    assert expected > 16  # beyond the two epochs that are resumed from
    fit(MODEL, data, batch_size=4, epochs=2, optimizer=optimizer, out=tmp_path)
    error = failure(MODEL, data, tmp_path, optimizer=optimizer, resume=True)
    assert error.step == expected


def test_a_diagnosis_changes_nothing_of_what_is_saved(tmp_path):
    data = data_of(30)
    optimizer = SGD(learning_rate=StepDecay(1e-3, every=1, factor=300.0))
    good = fit(MODEL, data, batch_size=4, epochs=2, optimizer=optimizer)
    failure(MODEL, data, tmp_path, optimizer=optimizer)
    saved = cnnkit.running.checkpoints.load(tmp_path / "checkpoint.safetensors")
    assert saved.progress["position"]["epoch"] == 2
    assert same_state(saved.state, good.state)


def test_an_error_that_does_not_come_again_is_said_to_be_one():
    data, optimizer = data_of(8), SGD(learning_rate=0.01)
    start, plan = initial_state(MODEL, optimizer), MODEL.plan()
    error = explain_non_finite(get_backend("numpy"), plan, start, optimizer, data, np.arange(8), 4)
    assert error.where == "an update that did not go wrong when it was repeated"
    assert error.step == 1


@pytest.mark.parametrize("name", ["training set", "validation set"])
def test_scores_that_are_nan_only_when_a_set_is_judged_are_explained_too(name):
    data = data_of(4)
    held_out = Dataset(data_of(300).images.copy(), data_of(300).labels)
    if name == "validation set":
        held_out.images[290] = 2e38
        settings = {"optimizer": SGD(learning_rate=0.01), "train_metrics": True}
        layers, image = [Rescale(scale=10.0), *LINEAR.layers[1:]], 290
    else:  # the one step of the epoch leaves finite parameters that are too large to compute with
        settings = {"optimizer": SGD(learning_rate=1e30)}
        layers, image = LINEAR.layers, 0
    model = Model(name="judged", input_shape=(6, 5, 1), layers=layers)
    error = failure(model, data, validation=held_out, **settings)
    assert error.step == 0
    assert f"the scores of model 'judged' for the {name} became NaN at step 0. It began in layers[" in str(error)
    assert f"its output for image {image} of the {name} is not finite, though its input is" in error.where
    assert error.where.startswith("layers[0] (Rescale)" if name == "validation set" else "layers[3] (Dense)")


def test_a_run_resumed_in_the_middle_of_an_epoch_repeats_only_what_came_after(tmp_path):
    def stop(_event):
        raise KeyboardInterrupt

    data, order = data_of(30), epoch_order(0, 0, 30)
    data.images[order[26]] = math.nan
    with pytest.raises(KeyboardInterrupt, match=r"after 12 of 30 images\. Saved in"):
        fit(MODEL, data, batch_size=4, epochs=5, optimizer=SGD(learning_rate=0.01), out=tmp_path, callbacks=[stop])
    error = failure(MODEL, data, tmp_path, optimizer=SGD(learning_rate=0.01), resume=True)
    assert error.step == 6  # images 24 to 27 of the order
    assert error.where == f"the images: image {order[26]} of the training set holds NaN or infinity"
