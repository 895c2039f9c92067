"""`fit`: what it learns, what it tells, when it ends, and what it refuses."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

import cnnkit.history
import cnnkit.running
from cnnkit.checkpoints import load, save
from cnnkit.datasets import Dataset
from cnnkit.errors import DataError, ModelError, NonFiniteLoss, OptionError, UnsupportedModel
from cnnkit.evaluation import evaluate
from cnnkit.history import EarlyStopping, EpochRecord, Progress
from cnnkit.model import Conv2D, Dense, Dropout, Flatten, MaxPool2D, Model, ReLU, Rescale, Softmax
from cnnkit.optimizers import SGD, Adam, CosineDecay, StepDecay, rate_at
from cnnkit.plugins import get_backend
from cnnkit.randomness import epoch_order
from cnnkit.state import initial_state, same_state
from cnnkit.training import fit, iter_fit

MODEL = Model(
    name="tiny",
    input_shape=(6, 5, 1),
    layers=[
        Rescale(scale=1 / 255, offset=-0.5),
        Conv2D(filters=4, kernel_size=(3, 2), activation="relu"),
        MaxPool2D(pool_size=2),
        Flatten(),
        Dropout(rate=0.2),
        Dense(units=3),
        Softmax(),
    ],
)
WITHOUT_RESCALE = Model(input_shape=(6, 5, 1), layers=[Flatten(), Dense(units=3), Softmax()])


def images_of(count, seed=0):
    """uint8 images `(count, 6, 5, 1)` of three classes: noise, and a bright block whose place is the class."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = random.integers(0, 100, (count, 6, 5, 1), dtype=np.uint8)
    for row, label in enumerate(labels):
        images[row, 2 * label : 2 * label + 2, 1:4] += 100
    return images, labels


def data_of(count, seed=0):
    return Dataset(*images_of(count, seed))


def without_seconds(history):
    return [replace(record, seconds_train=0.0, seconds_evaluate=0.0) for record in history]


# ------------------------------------------------------------------------------------------------------- learning


def test_the_loss_falls_and_images_never_seen_are_recognised():
    run = fit(MODEL, data_of(150), epochs=6, batch_size=16, optimizer=Adam(learning_rate=0.01))
    losses = [record.train["loss"] for record in run.history]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.2 * math.log(3)
    assert evaluate(MODEL, run.state.parameters, data_of(90, seed=5)).accuracy > 0.9


def test_twenty_images_of_noise_are_learned_by_heart():
    random = np.random.default_rng(1)
    data = Dataset(random.random((20, 6, 5, 1), dtype=np.float32), random.integers(0, 3, 20))
    model = Model(
        input_shape=(6, 5, 1),
        layers=[Conv2D(filters=8, kernel_size=3), ReLU(), Flatten(), Dense(units=3), Softmax()],
    )
    run = fit(model, data, epochs=60, batch_size=5, optimizer=Adam(learning_rate=0.02))
    assert run.history[-1].train["accuracy"] == 1.0
    assert run.history[0].train["accuracy"] < 1.0


def test_the_same_seed_ends_in_the_same_bits_and_another_seed_does_not():
    data = data_of(70)
    other = fit(MODEL, data, epochs=2, batch_size=8, seed=4)  # an unrelated run before, and one between
    one = fit(MODEL, data, epochs=2, batch_size=8, seed=3)
    np.random.default_rng().random()
    two = fit(MODEL, data, epochs=2, batch_size=8, seed=3, options={"threads": 2})
    assert same_state(one.state, two.state)
    assert without_seconds(one.history) == without_seconds(two.history)
    assert not np.array_equal(one.state.parameters["5.kernel"], other.state.parameters["5.kernel"])


def test_an_option_of_a_backend_that_is_given_as_an_argument_is_told_where_it_goes():
    with pytest.raises(TypeError, match=r"fit\(\) has no argument 'threads'\. .* options=\{'threads': \.\.\.\}"):
        fit(MODEL, data_of(3), threads=2)


def test_fit_changes_neither_model_nor_data_and_ends_where_a_loop_over_step_ends():
    data = data_of(23)
    images, labels = data.images.copy(), data.labels.copy()
    optimizer = SGD(learning_rate=0.1, momentum=0.9)
    run = fit(MODEL, data, epochs=3, batch_size=5, seed=2, optimizer=optimizer)
    start = initial_state(MODEL, optimizer, seed=2)
    program = get_backend("numpy").compile_training(MODEL.plan(), start, optimizer)
    for epoch in range(3):
        order = epoch_order(2, epoch, 23)
        for first in range(0, 23, 5):
            rows = order[first : first + 5]
            program.step(images[rows], labels[rows])
    assert same_state(run.state, program.state())
    assert run.state.step == 15
    assert np.array_equal(data.images, images)


def test_a_piece_of_another_size_changes_no_bit(monkeypatch):
    data = data_of(90)
    one = fit(MODEL, data, epochs=2, batch_size=8)
    monkeypatch.setattr(cnnkit.running, "PIECE_IMAGES", 20)
    pieces = []
    two = fit(MODEL, data, epochs=2, batch_size=8, callbacks=[pieces.append])
    assert [event.done for event in pieces if isinstance(event, Progress)] == [16, 32, 48, 64, 80, 90] * 2
    assert same_state(one.state, two.state)


@pytest.mark.parametrize("batch_size", [7, 10, 64])
def test_the_running_loss_weighs_every_image_alike(batch_size, monkeypatch):
    monkeypatch.setattr(cnnkit.running, "PIECE_IMAGES", 14)
    data, told = data_of(24), {}
    optimizer = SGD(learning_rate=0.3)

    def note(event):
        if isinstance(event, Progress):
            told[event.done] = event.running_loss

    run = fit(MODEL, data, batch_size=batch_size, seed=1, optimizer=optimizer, precision="float64", callbacks=[note])
    start = initial_state(MODEL, optimizer, 1, "float64")
    program = get_backend("numpy", precision="float64").compile_training(MODEL.plan(), start, optimizer)
    order, total, means = epoch_order(1, 0, 24), 0.0, {}
    for first in range(0, 24, batch_size):
        rows = order[first : first + batch_size]
        total += len(rows) * float(program.step(data.images[rows], data.labels[rows]))
        means[first + len(rows)] = total / (first + len(rows))
    assert told == pytest.approx({done: means[done] for done in told}, rel=1e-12)
    assert run.history[0].running_loss == pytest.approx(total / 24, rel=1e-12)


def test_float64_trains_in_float64():
    floats = Dataset(np.float32(images_of(30)[0]) / 255, images_of(30)[1])
    model = Model(input_shape=(6, 5, 1), layers=[Flatten(), Dense(units=3), Softmax()])
    single = fit(model, floats, epochs=3, batch_size=4, precision="float32")
    double = fit(model, floats, epochs=3, batch_size=4, precision="float64")
    made = fit(model, floats, epochs=3, batch_size=4, backend=get_backend("numpy", precision="float64"))
    assert {array.dtype.name for array in single.state.parameters.values()} == {"float32"}
    assert {array.dtype.name for array in double.state.parameters.values()} == {"float64"}
    assert same_state(double.state, made.state)
    difference = np.abs(double.state.parameters["1.kernel"] - single.state.parameters["1.kernel"]).max()
    assert 0 < difference < 1e-5


def test_one_hot_labels_train_to_the_same_bits_as_whole_numbers():
    images, labels = images_of(40)
    numbers = fit(MODEL, Dataset(images, labels), batch_size=8)
    one_hot = fit(MODEL, Dataset(images, np.eye(3, dtype=np.float32)[labels]), batch_size=8)
    assert same_state(numbers.state, one_hot.state)


@pytest.mark.parametrize(
    "schedule",
    [StepDecay(0.1, every=3, factor=0.5), CosineDecay(0.1, steps=9)],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_learning_rate_schedule_acts_at_every_step(schedule):
    data = data_of(20)
    run = fit(MODEL, data, epochs=2, batch_size=4, optimizer=SGD(learning_rate=schedule))
    program = get_backend("numpy")
    state = initial_state(MODEL, SGD(learning_rate=0.1), 0)
    for epoch in range(2):
        order = epoch_order(0, epoch, 20)
        for first in range(0, 20, 4):
            optimizer = SGD(learning_rate=rate_at(schedule, state.step))
            step = program.compile_training(MODEL.plan(), state, optimizer)
            step.step(data.images[order[first : first + 4]], data.labels[order[first : first + 4]])
            state = step.state()
    assert same_state(run.state, state)
    assert [record.learning_rate for record in run.history] == [rate_at(schedule, 4), rate_at(schedule, 9)]


def test_clipping_bounds_the_step_of_all_parameters_together():
    data = data_of(12)
    optimizer = SGD(learning_rate=1.0, clip_global_norm=0.01)
    run = fit(MODEL, data, batch_size=12, optimizer=optimizer)
    before = initial_state(MODEL, optimizer).parameters
    moved = math.sqrt(sum(float(((run.state.parameters[name] - before[name]) ** 2).sum()) for name in before))
    assert moved == pytest.approx(0.01, rel=1e-4)


# -------------------------------------------------------------------------------------------------------- what is told


def test_events_come_in_order_and_every_callback_gets_them_all(monkeypatch):
    monkeypatch.setattr(cnnkit.running, "PIECE_IMAGES", 16)
    one, two = [], []
    run = fit(MODEL, data_of(40), epochs=2, batch_size=8, callbacks=[one.append, two.append])
    assert one == two
    assert [type(event).__name__ for event in one] == ["Progress", "Progress", "Progress", "EpochRecord"] * 2
    pieces = [event for event in one if isinstance(event, Progress)]
    assert [(event.epoch, event.done) for event in pieces] == [(1, 16), (1, 32), (1, 40), (2, 16), (2, 32), (2, 40)]
    assert {(event.epochs, event.count) for event in pieces} == {(2, 40)}
    assert pieces[2].running_loss == one[3].running_loss
    assert tuple(event for event in one if isinstance(event, EpochRecord)) == run.history
    assert [record.steps for record in run.history] == [5, 10]


def test_the_history_holds_what_evaluate_finds_with_the_weights_of_each_epoch():
    data, validation = data_of(36), data_of(21, seed=9)
    events = iter_fit(MODEL, data, validation, epochs=2, batch_size=8)
    seen = 0
    for event in events:
        if isinstance(event, EpochRecord):
            seen += 1
            # A run of as many epochs ends with the weights of that epoch.
            state = fit(MODEL, data, epochs=event.epoch, batch_size=8, train_metrics=False).state
            for figures, part in ((event.train, data), (event.validation, validation)):
                metrics = evaluate(MODEL, state.parameters, part)
                assert figures == {name: getattr(metrics, name) for name in cnnkit.history.METRICS}
    assert seen == 2


def test_train_metrics_are_left_out_where_not_asked_for():
    run = fit(MODEL, data_of(20), validation=0.25, train_metrics=False)
    assert run.history[0].train is None
    assert run.history[0].validation is not None


def test_iter_fit_can_be_left_by_break_and_returns_the_run_at_its_end():
    events = iter_fit(MODEL, data_of(20), epochs=50)
    for event in events:
        if isinstance(event, EpochRecord) and event.epoch == 2:
            break
    events.close()
    whole = iter_fit(MODEL, data_of(20), epochs=2)
    while True:
        try:
            next(whole)
        except StopIteration as end:
            run = end.value
            break
    assert len(run.history) == 2
    assert run.backend == "numpy"
    assert run.message == "Trained 2 epochs; the weights are those of the last."


def test_an_error_in_a_callback_comes_out_as_it_is():
    def fail(event):
        raise ZeroDivisionError(f"mine, at {event.done}")

    with pytest.raises(ZeroDivisionError, match="mine, at 10"):
        fit(MODEL, data_of(10), callbacks=[fail])


# -------------------------------------------------------------------------------------------------------- validation


def test_a_validation_fraction_is_stratified_seeded_and_never_trained_on(monkeypatch):
    images, labels = images_of(60)
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    images[:, 0, 0, 0] = np.arange(60)  # every image can be told from the others
    seen = []

    def watched(model, parameters, data, *_, **__):
        seen.append(data)
        return evaluate(model, parameters, data)

    monkeypatch.setattr(cnnkit.running, "evaluate", watched)
    for seed in (0, 0, 1):
        fit(MODEL, Dataset(images, labels), validation=0.2, seed=seed)
    train, held_out, train_again, held_out_again, _, other = seen
    numbers = [set(data.images[:, 0, 0, 0].tolist()) for data in (train, held_out)]
    assert numbers[0] | numbers[1] == set(range(60))
    assert not numbers[0] & numbers[1]
    assert np.bincount(held_out.labels).tolist() == [6, 4, 2]
    assert np.array_equal(held_out.images, held_out_again.images)
    assert np.array_equal(train.images, train_again.images)
    assert not np.array_equal(held_out.images, other.images)


def test_a_validation_set_changes_no_bit_of_the_training():
    data = data_of(30)
    with_it = fit(MODEL, data, data_of(12, seed=3), epochs=2)
    assert same_state(with_it.state, fit(MODEL, data, epochs=2).state)


# ----------------------------------------------------------------------------------------------------- early stopping


def noisy(count, seed):
    """Labels that have nothing to do with the images, so that the validation loss soon rises."""
    random = np.random.default_rng(seed)
    return Dataset(random.integers(0, 256, (count, 6, 5, 1), dtype=np.uint8), random.integers(0, 3, count))


def states_by_epoch(data, epochs, **settings):
    return [fit(MODEL, data, epochs=number, train_metrics=False, **settings).state for number in range(1, epochs + 1)]


@pytest.mark.parametrize(
    ("monitor", "part", "metric", "sign"),
    [
        (None, "validation", "loss", -1),
        ("validation.accuracy", "validation", "accuracy", 1),
        ("train.f1", "train", "f1", 1),
        ("train.loss", "train", "loss", -1),
    ],
)
def test_early_stopping_ends_on_the_best_weights(monitor, part, metric, sign):
    data, validation = noisy(40, 1), noisy(30, 2)
    settings = {"batch_size": 8, "optimizer": Adam(learning_rate=0.03)}
    stopping = EarlyStopping(patience=2, monitor=monitor)
    run = fit(MODEL, data, validation, epochs=14, early_stopping=stopping, **settings)
    values = [sign * getattr(record, part)[metric] for record in run.history]
    best = int(np.argmax(values))  # the first of the best
    assert run.best_epoch == best + 1
    assert [number for number, record in enumerate(run.history) if record.best] == [
        number for number, value in enumerate(values) if value > max(values[:number], default=-math.inf)
    ]
    assert same_state(run.state, states_by_epoch(data, best + 1, **settings)[-1])
    assert run.stopped_early == (len(run.history) < 14)
    assert len(run.history) == (best + 3 if run.stopped_early else 14)
    assert f"those of epoch {best + 1}." in run.message


def test_early_stopping_waits_for_patience_epochs_and_says_so():
    settings = {"batch_size": 8, "optimizer": Adam(learning_rate=0.05)}
    lengths = {}
    for patience in (1, 3):
        run = fit(MODEL, noisy(40, 1), noisy(30, 2), epochs=30, early_stopping=EarlyStopping(patience), **settings)
        assert run.stopped_early
        lengths[patience] = len(run.history) - run.best_epoch
        assert run.message == (
            f"Ended after epoch {len(run.history)} (no better validation.loss for {patience} epochs); the weights are "
            f"the best ones, those of epoch {run.best_epoch}."
        )
    assert lengths == {1: 1, 3: 3}


def test_min_delta_is_what_counts_as_better():
    run = fit(MODEL, data_of(60), epochs=8, batch_size=16, early_stopping=EarlyStopping(2, min_delta=10.0))
    assert run.best_epoch == 1  # no loss of about log(3) falls by 10
    assert len(run.history) == 3
    assert run.history[2].train["loss"] < run.history[0].train["loss"]


def test_a_run_that_is_not_stopped_ends_on_the_best_weights_too():
    settings = {"batch_size": 8, "optimizer": Adam(learning_rate=0.05)}
    run = fit(MODEL, noisy(40, 1), noisy(30, 2), epochs=6, early_stopping=EarlyStopping(50), **settings)
    assert not run.stopped_early
    assert 1 <= run.best_epoch < 6
    assert same_state(run.state, states_by_epoch(noisy(40, 1), run.best_epoch, **settings)[-1])
    assert "Ended after epoch 6 (all done)" in run.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "patience is 0; expected a whole number of at least 1"),
        ({"patience": True}, "patience is True; expected a whole number"),
        ({"min_delta": -0.1}, r"min_delta is -0.1; expected a number of at least 0"),
        ({"min_delta": math.nan}, "min_delta is nan; expected a number"),
        ({"monitor": "loss"}, r"monitor is 'loss'; expected one of train.loss, train.accuracy"),
    ],
)
def test_early_stopping_checks_its_values(arguments, message):
    with pytest.raises(OptionError, match=message):
        EarlyStopping(**arguments)


def test_watching_a_validation_set_that_is_not_there_is_refused_before_the_first_step():
    events = iter_fit(MODEL, data_of(10), early_stopping=EarlyStopping(monitor="validation.f1"))
    with pytest.raises(OptionError, match=r"watches validation.f1, but there is no validation set. Give one."):
        next(events)


# ------------------------------------------------------------------------------------------------------------ warnings


def test_raw_pixels_are_warned_of_once_at_the_line_that_calls_fit():
    with pytest.warns(UserWarning, match=r"raw pixels from 0 to 255.*Put Rescale\(scale=1 / 255\) first") as caught:
        fit(WITHOUT_RESCALE, data_of(12), validation=0.25, epochs=2, batch_size=4, optimizer=SGD(learning_rate=1e-6))
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("what", ["rescaled", "floats", "rescaled later"])
def test_nobody_is_warned_without_need(what):
    data = data_of(12)
    layers = [Flatten(), Dense(units=3), Softmax()]
    if what == "floats":
        data = Dataset(np.float32(data.images), data.labels)
    else:
        layers.insert(0 if what == "rescaled" else 1, Rescale(scale=1 / 255))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(Model(input_shape=(6, 5, 1), layers=layers), data, optimizer=SGD(learning_rate=1e-6))


# ------------------------------------------------------------------------------------------------------------ refusals


def with_names(names):
    return Model(input_shape=(6, 5, 1), layers=MODEL.layers, class_names=names)


@pytest.mark.parametrize(
    ("model", "data", "settings", "error", "message"),
    [
        (
            Model(input_shape=(5, 5, 1), layers=[Flatten(), Dense(units=3), Softmax()]),
            data_of(6),
            {},
            DataError,
            r"images of the data are \(6, 5, 1\), but model has input_shape \(5, 5, 1\)",
        ),
        (
            Model(input_shape=(6, 5, 1), layers=[Rescale(scale=0.1), Flatten(), Dense(units=2), Softmax()]),
            data_of(6),
            {},
            DataError,
            "the data has 3 classes, but model tells 2 apart. Give its last Dense layer 3 units",
        ),
        (
            with_names(["a", "b", "c"]),
            Dataset(*images_of(6), class_names=["a", "c", "b"]),
            {},
            DataError,
            "names its classes a, c, b; model names them a, b, c",
        ),
        (MODEL, data_of(6), {"validation": data_of(6).take([])}, DataError, "has 0 images; training and validation"),
        (MODEL, data_of(6).take([]), {}, DataError, "has 0 images; training and validation need at least one each"),
        (MODEL, data_of(6), {"validation": 1.5}, OptionError, "fraction is 1.5; expected a number between 0 and 1"),
        (MODEL, data_of(1), {"validation": 0.5}, DataError, "nothing to split: the data set has 1 image"),
        (
            MODEL.prefix(4),
            data_of(6),
            {},
            ModelError,
            r"layers\[4\] is Dropout; a model that is trained .* ends in Softmax",
        ),
        (
            Model(input_shape=(3,), layers=[Softmax()]),
            Dataset(np.eye(3), np.arange(3)),
            {},
            ModelError,
            "no parameters, so there is nothing to train",
        ),
        (MODEL, data_of(6), {"batch_size": 0}, OptionError, "batch_size is 0; expected a whole number of at least 1"),
        (MODEL, data_of(6), {"epochs": 2.0}, OptionError, r"epochs is 2.0; expected a whole number of at least 1"),
        (MODEL, data_of(6), {"epochs": True}, OptionError, "epochs is True; expected a whole number"),
        (MODEL, data_of(6), {"seed": -1}, OptionError, "seed is -1; expected a whole number of at least 0"),
        (MODEL, data_of(6), {"precision": "half"}, OptionError, "precision is 'half'; expected 'float32' or 'float64'"),
        (MODEL, data_of(6), {"resume": True}, OptionError, "resume is True without out; name the folder"),
        (
            "seed-tf",
            data_of(6),
            {},
            OptionError,
            r"model is str 'seed-tf'; expected a cnnkit.Model.*load_preset\(name\)",
        ),
        (
            MODEL,
            images_of(6),
            {},
            DataError,
            r"data is tuple; expected a data set. Give cnnkit.Dataset\(images, labels\)",
        ),
        (MODEL, data_of(6), {"validation": images_of(6)}, DataError, "validation is tuple; expected a data set"),
        (
            MODEL,
            data_of(6),
            {"optimizer": "adam"},
            OptionError,
            r"optimizer is 'adam'; expected for example cnnkit\.Adam",
        ),
        (
            MODEL,
            data_of(6),
            {"optimizer": Adam},
            OptionError,
            r"optimizer is <class .*; expected for example cnnkit\.Adam",
        ),
        (
            MODEL,
            data_of(6),
            {"early_stopping": 3},
            OptionError,
            r"early_stopping is 3; .* cnnkit\.EarlyStopping\(patience",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_what_cannot_be_trained_is_refused(model, data, settings, error, message):
    with pytest.raises(error, match=message):
        fit(model, data, **settings)


def test_a_validation_set_is_held_to_the_model_as_the_training_set_is():
    four = Dataset(np.zeros((4, 6, 5, 1), np.uint8), np.arange(4))
    with pytest.raises(DataError, match="the data has 4 classes, but model 'tiny' tells 3 apart"):
        fit(MODEL, data_of(6), four)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "gpu:0"}, "device='gpu:0' came along with a NumpyBackend, which is already made"),
        ({"options": {"threads": 2}}, "threads=2 came along with a NumpyBackend"),
        ({"precision": "float64"}, "precision is 'float64', but the backend was made in float32"),
    ],
)
def test_what_a_ready_made_backend_would_ignore_is_refused(settings, message):
    with pytest.raises(OptionError, match=message):
        fit(MODEL, data_of(6), backend=get_backend("numpy"), **settings)


def test_a_loss_that_is_no_number_ends_the_run():
    with pytest.raises(NonFiniteLoss, match="Try a lower learning rate"):
        fit(MODEL, data_of(30), epochs=3, batch_size=4, optimizer=SGD(learning_rate=1e30))


def test_a_first_epoch_whose_loss_is_no_number_is_not_held_to_be_the_best(monkeypatch):
    losses = iter([math.nan, 0.9, 0.8])

    def watched(*arguments, **settings):
        return replace(evaluate(*arguments, **settings), loss=next(losses))

    monkeypatch.setattr(cnnkit.running, "evaluate", watched)
    stopping = EarlyStopping(monitor="validation.loss")
    run = fit(MODEL, data_of(20), data_of(5), epochs=3, early_stopping=stopping, train_metrics=False)
    assert run.best_epoch == 3


def test_a_loaded_state_continues_as_if_training_had_never_stopped(tmp_path):
    optimizer = Adam(learning_rate=0.01)
    data = data_of(24)
    first = fit(MODEL, data, optimizer=optimizer, batch_size=8)
    loaded = load(save(tmp_path / "half.safetensors", MODEL, first.state, optimizer=optimizer))
    second = fit(MODEL, data, optimizer=loaded.optimizer, batch_size=8, initial=loaded.state)
    order = epoch_order(0, 0, 24)  # each call begins with the order of epoch 0
    program = get_backend("numpy").compile_training(MODEL.plan(), initial_state(MODEL, optimizer), optimizer)
    for _ in range(2):
        program.epoch(data.images, data.labels, order, 8)
    assert same_state(second.state, program.state())


def test_training_can_begin_at_parameters_alone():
    data = data_of(24)
    start = fit(MODEL, data, batch_size=8).state.parameters
    run = fit(MODEL, data, optimizer=SGD(learning_rate=0.0), batch_size=8, initial=start)
    assert {name: array.tolist() for name, array in run.state.parameters.items()} == {
        name: array.tolist() for name, array in start.items()
    }
    assert run.state.step == 3


def test_a_beginning_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match="parameters lack"):
        fit(MODEL, data_of(24), initial={})
    with pytest.raises(DataError, match="the state has slots none, but Adam keeps m, v"):
        fit(MODEL, data_of(24), initial=initial_state(MODEL, SGD(learning_rate=0.1)))
    with pytest.raises(OptionError, match="resume is 'x'; expected True or False"):
        fit(MODEL, data_of(24), resume="x")


def test_numpy_scalars_as_settings_can_be_written_down(tmp_path):
    stopping = EarlyStopping(min_delta=np.float32(0.5))
    run = fit(
        MODEL,
        data_of(24),
        0.25,
        batch_size=np.int64(8),
        seed=np.int64(4),
        early_stopping=stopping,
        out=tmp_path / "run",
    )
    assert run.state.seed == 4
    with pytest.raises(OptionError, match="checkpoint_seconds is None; expected a number of seconds"):
        fit(MODEL, data_of(24), checkpoint_seconds=None)


def test_an_optimizer_that_no_file_can_name_is_refused_before_training_where_a_run_is_written(tmp_path):
    class Own(SGD):
        pass

    told = []
    with pytest.raises(OptionError, match="Own"):
        fit(MODEL, data_of(24), optimizer=Own(learning_rate=0.1), out=tmp_path / "run", callbacks=[told.append])
    assert told == []
    assert fit(MODEL, data_of(24), optimizer=Own(learning_rate=0.1)).state.step == 1


@pytest.mark.usefixtures("few_plugins")
def test_a_backend_that_refuses_only_when_it_compiles_is_told_with_those_that_could():
    dilated = Conv2D(filters=1, kernel_size=2, dilation=2)
    model = Model(input_shape=(6, 5, 1), layers=[Rescale(scale=1 / 255), dilated, Flatten(), Dense(units=3), Softmax()])
    with pytest.raises(
        UnsupportedModel, match=r"there is no kernel\. Backends that could: loopback, numpy\.$"
    ) as refused:
        fit(model, data_of(6), backend="refusing")
    assert (refused.value.path, refused.value.feature) == ("layers[1].dilation", "conv2d.dilation")
    assert isinstance(refused.value.__cause__, UnsupportedModel)
