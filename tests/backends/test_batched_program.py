"""Programs of `numpy-batched`: a batch in slices is the batch, and slices of many sizes share memory without a trace."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from batched import backend, predictor, trainer
from networks import CLASSIFIERS, batch, classifier, random_parameters
from networks import predictor as plain_predictor
from networks import trainer as plain_trainer

from cnnkit import (
    SGD,
    Adam,
    AdamW,
    AvgPool2D,
    Conv2D,
    CosineDecay,
    DataError,
    Dense,
    Dropout,
    EpochTotals,
    Flatten,
    MaxPool2D,
    Model,
    Optimizer,
    Rescale,
    Softmax,
    fresh_state,
)
from cnnkit.state import same_state

# Every kind of memory that a layer fills once and counts on afterwards: borders of 0 and of minus infinity, on the way
# there and on the way back, and ones next to the inputs.
BORDERS = Model(
    input_shape=(7, 6, 2),
    layers=[
        Conv2D(filters=3, kernel_size=3, padding="same", activation="tanh"),
        MaxPool2D(pool_size=3, strides=1, padding="same"),
        Conv2D(filters=4, kernel_size=2, padding=((1, 0), (0, 1)), activation="tanh"),
        AvgPool2D(pool_size=3, strides=2, padding=((1, 1), (2, 0))),
        Flatten(),
        Dense(units=5, activation="tanh"),
        Dense(units=3),
        Softmax(),
    ],
)
DEEP, DROPOUT = CLASSIFIERS["deep"], CLASSIFIERS["dropout first"]
PLAIN = classifier(Conv2D(filters=2, kernel_size=2, activation="relu"), MaxPool2D(pool_size=2))
MODELS = {"borders": BORDERS, "deep": DEEP, "dropout first": DROPOUT, "plain": PLAIN}


def assert_same_gradients(one, other):
    """To the bit."""
    assert one[0] == other[0]
    for name, gradient in other[1].items():
        np.testing.assert_array_equal(one[1][name], gradient, err_msg=name)


def assert_close_gradients(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-13)
    assert one[1].keys() == other[1].keys()
    for name, gradient in other[1].items():
        np.testing.assert_allclose(one[1][name], gradient, rtol=1e-10, atol=1e-14, err_msg=name)


# -------------------------------------------------------------------------------------------------------------- slices


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 64, 65, 100])
@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_any_size_has_the_gradient_that_the_numpy_backend_gives(name, count):
    """Which works image by image in blocks of its own, with the same dropout masks."""
    model = MODELS[name]
    images, labels = batch(model, count)
    made = trainer(model, threads=2, seed=5).gradients(images, labels)
    assert_close_gradients(made, plain_trainer(model, seed=5).gradients(images, labels))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_kind_of_layer_answers_as_the_numpy_backend(name):
    model = CLASSIFIERS[name]
    images, labels = batch(model, 40)
    assert_close_gradients(trainer(model).gradients(images, labels), plain_trainer(model).gradients(images, labels))
    parameters = random_parameters(model.plan())
    np.testing.assert_allclose(
        predictor(model, parameters).predict(images), plain_predictor(model, parameters).predict(images), atol=1e-14
    )


@pytest.mark.parametrize("name", ["borders", "plain"])
def test_the_gradient_of_a_batch_in_slices_is_the_mean_over_its_images(name):
    model, count = MODELS[name], 70
    images, labels = batch(model, count)
    program = trainer(model, threads=2)
    single = [program.gradients(images[i : i + 1], labels[i : i + 1]) for i in range(count)]
    mean = {key: np.mean([each[1][key] for each in single], axis=0) for key in single[0][1]}
    assert_close_gradients(program.gradients(images, labels), (np.mean([each[0] for each in single]), mean))


@pytest.mark.parametrize("name", MODELS)
def test_smaller_slices_for_less_memory_add_up_to_the_same_gradient(name):
    model = MODELS[name]
    optimizer = SGD(learning_rate=0.1)
    images, labels = batch(model, 50)
    expected = trainer(model).gradients(images, labels)
    enough = backend(threads=1).estimate_memory(model.plan(), optimizer, 50).bytes
    notes = set()
    for share in (0.8, 0.5, 0.3):
        limited = {"memory_limit": int(enough * share)}
        estimate = backend(threads=3, **limited).estimate_memory(model.plan(), optimizer, 50)
        assert estimate.bytes <= enough * share
        notes.add(estimate.note)
        assert_close_gradients(trainer(model, threads=3, **limited).gradients(images, labels), expected)
        probabilities = predictor(model, random_parameters(model.plan()), **limited).predict(images)
        np.testing.assert_allclose(probabilities, trainer(model).predict(images), atol=1e-14)
    assert len(notes) == 3


# ------------------------------------------------------------------------------------------------------- shared memory

SIZES = (32, 7, 32, 1, 33, 64, 45, 2)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_slices_that_change_their_size_leave_nothing_to_each_other(name, threads, precision):
    """What a program answers after others is, to the bit, what a new one answers."""
    model = MODELS[name]
    used = trainer(model, threads=threads, precision=precision)
    predicting = predictor(model, random_parameters(model.plan()), threads=threads, precision=precision)
    for turn, count in enumerate(SIZES):
        images, labels = batch(model, count, seed=turn, dtype=np.dtype(precision).type)
        new = trainer(model, threads=threads, precision=precision)
        assert_same_gradients(used.gradients(images, labels), new.gradients(images, labels))
        np.testing.assert_array_equal(predicting.predict(images), new.predict(images))


@pytest.mark.parametrize("threads", [1, 2])
def test_predictions_between_gradients_leave_nothing_in_the_memory_that_they_share(threads):
    used = trainer(BORDERS, threads=threads)
    for turn, count in enumerate(SIZES):
        images, labels = batch(BORDERS, count, seed=turn)
        others, _ = batch(BORDERS, SIZES[-turn], seed=turn + 100)
        new = trainer(BORDERS, threads=threads)
        np.testing.assert_array_equal(used.predict(others), trainer(BORDERS, threads=threads).predict(others))
        assert_same_gradients(used.gradients(images, labels), new.gradients(images, labels))


def test_more_sizes_than_a_program_keeps_in_mind_come_and_go():
    used = trainer(BORDERS)
    everything, labels = batch(BORDERS, 32)
    for count in [*range(1, 30), *range(29, 0, -3)]:
        new = trainer(BORDERS).gradients(everything[:count], labels[:count])
        assert_same_gradients(used.gradients(everything[:count], labels[:count]), new)


@pytest.mark.parametrize("name", MODELS)
def test_nan_in_one_image_stays_in_its_row_and_is_gone_with_the_next_batch(name):
    model = MODELS[name]
    images, labels = batch(model, 40)
    sick = images.copy()
    sick[5] = np.nan
    used, new = trainer(model), trainer(model)
    made, right = used.predict(sick), new.predict(images)
    assert np.isnan(made[5]).all()
    np.testing.assert_array_equal(np.delete(made, 5, axis=0), np.delete(right, 5, axis=0))
    loss, gradients = used.gradients(sick, labels)
    assert math.isnan(loss)
    assert all(np.isnan(gradient).any() for gradient in gradients.values())
    assert_same_gradients(used.gradients(images, labels), new.gradients(images, labels))
    assert_same_gradients(used.gradients(images[:9], labels[:9]), trainer(model).gradients(images[:9], labels[:9]))


def test_a_network_without_layers_to_run_gives_its_images():
    model = Model(input_shape=(3,), layers=[Flatten()])
    images = np.arange(120, dtype=np.float64).reshape(40, 3)
    made = predictor(model, {}, threads=2).predict(images)
    np.testing.assert_array_equal(made, images)
    assert not np.shares_memory(made, images)


# ----------------------------------------------------------------------------------------------- optimizers and epochs


@dataclass(frozen=True)
class Elsewhere(Optimizer):
    """SGD with momentum that makes new parameters, and hands back the gradient's own array as its slot."""

    learning_rate: float = 0.1
    clip_global_norm: float | None = None
    slot_names = ("velocity",)

    def coefficients(self, _step):
        return (self.learning_rate,)

    def apply(self, p, g, slots, coefficients):
        g += 0.9 * slots[0]
        return p - coefficients[0] * g, (g,)


OPTIMIZERS = {
    "sgd": SGD(0.2),
    "nesterov": SGD(CosineDecay(0.2, steps=3), momentum=0.8, nesterov=True, weight_decay=0.1),
    "adam": Adam(0.01),
    "adamw": AdamW(0.01, weight_decay=0.3),
    "clipped sgd": SGD(0.2, momentum=0.9, clip_global_norm=0.05),
    "clipped adam": Adam(0.01, clip_global_norm=0.05),
    "not in place": Elsewhere(),
    "clipped, not in place": Elsewhere(clip_global_norm=0.05),
}

# So many parameters that they are updated in several pieces.
WIDE = Model(
    input_shape=(90,),
    layers=[Dense(units=900, activation="tanh"), Dropout(rate=0.2), Dense(units=3, use_bias=False), Softmax()],
)


@pytest.mark.parametrize("model", [DEEP, WIDE], ids=["deep", "wide"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_where_it_goes_on_the_numpy_backend(name, model):
    optimizer = OPTIMIZERS[name]
    mine, other = trainer(model, optimizer, threads=2, seed=3), plain_trainer(model, optimizer, seed=3)
    for step in range(4):
        images, labels = batch(model, 37, seed=step)
        assert mine.step(images, labels) == pytest.approx(other.step(images, labels), rel=1e-12)
    state, right = mine.state(), other.state()
    assert state.step == right.step == 4
    for group, expected in (("parameters", right.parameters), *right.slots.items()):
        arrays = state.parameters if group == "parameters" else state.slots[group]
        for key, array in expected.items():
            np.testing.assert_allclose(arrays[key], array, rtol=1e-9, atol=1e-12, err_msg=f"{group} {key}")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("count", "batch_size"), [(90, 40), (90, 90), (90, 100), (7, 1), (66, 33), (0, 4)])
def test_an_epoch_is_a_loop_over_steps_to_the_last_bit(count, batch_size, threads):
    images, labels = batch(DEEP, 95, dtype=np.float32)
    order = np.random.default_rng(0).permutation(95)[:count]
    by_step = trainer(DEEP, Adam(0.01), precision="float32")
    by_epoch = trainer(DEEP, Adam(0.01), precision="float32", threads=threads)
    loss_sum = 0.0
    for start in range(0, count, batch_size):
        rows = order[start : start + batch_size]
        loss_sum += float(by_step.step(images[rows], labels[rows])) * len(rows)
    assert by_epoch.epoch(images, labels, order, batch_size) == EpochTotals(loss_sum, count)
    assert same_state(by_step.state(), by_epoch.state())


@pytest.mark.parametrize("optimizer", [Adam(0.01), Elsewhere()], ids=["adam", "elsewhere"])
def test_a_state_goes_on_in_a_new_program_as_if_nothing_was(optimizer):
    images, labels = batch(DEEP, 50)
    whole, half = trainer(DEEP, optimizer, seed=3), trainer(DEEP, optimizer, seed=3)
    for _ in range(4):
        whole.step(images, labels)
    half.step(images, labels)
    half.step(images, labels)
    rest = backend().compile_training(DEEP.plan(), half.state(), optimizer)
    rest.step(images, labels)
    rest.step(images, labels)
    assert same_state(whole.state(), rest.state())


def test_states_and_gradients_are_copies_and_so_is_what_a_program_was_made_of():
    optimizer = SGD(0.1, momentum=0.9)
    start = fresh_state(random_parameters(DEEP.plan()), optimizer)
    images, labels = batch(DEEP, 40)
    program = backend().compile_training(DEEP.plan(), start, optimizer)
    _, gradients = program.gradients(images, labels)
    state, probabilities = program.state(), program.predict(images)
    kept = [array.copy() for array in (*gradients.values(), *state.parameters.values(), probabilities)]
    program.step(images, labels)
    program.predict(images[::-1])
    for array, before in zip((*gradients.values(), *state.parameters.values(), probabilities), kept, strict=True):
        np.testing.assert_array_equal(array, before)
    now = program.gradients(images, labels)
    for arrays in (start.parameters, start.slots["velocity"], state.parameters, gradients):
        for array in arrays.values():
            array[...] = 7
    assert_same_gradients(program.gradients(images, labels), now)


def test_parameters_may_be_read_only_and_of_any_strides():
    parameters = random_parameters(DEEP.plan())
    strange = {name: np.asfortranarray(array[::-1])[::-1] for name, array in parameters.items()}
    for array in strange.values():
        array.flags.writeable = False
    images, _ = batch(DEEP, 3)
    np.testing.assert_array_equal(predictor(DEEP, strange).predict(images), predictor(DEEP, parameters).predict(images))


# -------------------------------------------------------------------------------------------------------------- images

PIXELS = {
    "as they are": (),
    "scaled": (Rescale(scale=1 / 255),),
    "scaled and moved": (Rescale(scale=1 / 127.5, offset=-1),),
    "moved": (Rescale(scale=1, offset=-100.5),),
}


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        ("uint8", "float32"),
        ("float32", "float32"),
        ("uint8", "float64"),
        ("float32", "float64"),
        ("float64", "float64"),
    ],
)
@pytest.mark.parametrize("how", ["as it is", "fortran order", "backwards", "gaps", "read-only"])
@pytest.mark.parametrize("first", PIXELS)
def test_images_of_any_type_and_strides_are_read_and_not_changed(first, how, dtype, precision):
    layers = [*PIXELS[first], Conv2D(filters=2, kernel_size=2), Flatten(), Dense(units=3), Softmax()]
    model = Model(input_shape=(4, 5, 2), layers=layers)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 4, 5, 2))
    images, labels = pixels.astype(dtype), np.arange(40) % 3
    if how == "fortran order":
        images = np.asfortranarray(images)
    elif how == "backwards":
        images = images[::-1, ::-1].copy()[::-1, ::-1]
    elif how == "gaps":
        images = np.repeat(images, 2, axis=2)[:, :, ::2]
    images.flags.writeable = False
    order = np.random.default_rng(1).permutation(40)
    odd, usual = (trainer(model, precision=precision) for _ in range(2))
    clean = pixels.astype(precision)
    np.testing.assert_array_equal(odd.predict(images), usual.predict(clean))
    assert_same_gradients(odd.gradients(images, labels), usual.gradients(clean, labels))
    odd.epoch(images, labels, order, 34)
    usual.epoch(clean, labels, order, 34)
    assert same_state(odd.state(), usual.state())
    np.testing.assert_array_equal(images, pixels)


@pytest.mark.parametrize("first", PIXELS)
def test_a_rescaling_before_all_layers_is_that_of_the_numpy_backend(first):
    model = Model(input_shape=(4,), layers=[*PIXELS[first], Dense(units=3), Softmax()])
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 4)).astype(np.uint8), np.arange(40) % 3
    assert_close_gradients(trainer(model).gradients(images, labels), plain_trainer(model).gradients(images, labels))


def test_no_images_give_no_rows_and_have_no_loss():
    images, labels = batch(BORDERS, 0)
    program = trainer(BORDERS, threads=2)
    assert program.predict(images).shape == (0, 3)
    for call in (program.step, program.gradients):
        with pytest.raises(
            DataError, match=r"the batch has 0 images, which have no mean loss\. Give at least one image"
        ):
            call(images, labels)
    assert program.state().step == 0


def test_an_order_or_a_label_that_leads_nowhere_is_refused_before_any_step():
    images, labels = batch(PLAIN, 40)
    program = trainer(PLAIN)
    before = program.state()
    with pytest.raises(DataError, match="order goes from 0 to 40"):
        program.epoch(images, labels, np.arange(41), 8)
    with pytest.raises(DataError, match=r"labels\[3\] is 9, but the model has 3 classes"):
        program.epoch(images, np.where(np.arange(40) == 3, 9, labels), np.arange(40), 2)
    assert same_state(program.state(), before)
