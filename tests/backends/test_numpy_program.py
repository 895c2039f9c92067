"""Programs of the NumPy backend: optimizers, state, epochs, and what they accept."""

import math
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pytest
from networks import CLASSIFIERS, batch, predictor, random_parameters, trainer

from cnnkit import (
    SGD,
    Adam,
    AdamW,
    Conv2D,
    CosineDecay,
    DataError,
    Dense,
    EpochTotals,
    Flatten,
    MaxPool2D,
    Model,
    ModelError,
    Optimizer,
    Sigmoid,
    Softmax,
    StepDecay,
    fresh_state,
    get_backend,
    initial_state,
)
from cnnkit.state import same_state
from cnnkit_numpy.backend import NumpyBackend

MODEL = CLASSIFIERS["deep"]
PLAIN = CLASSIFIERS["max pool"]

# --------------------------------------------------------------------------------------------------------- optimizers


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


def test_an_optimizer_may_hand_back_the_array_of_the_gradient():
    """The next step writes another gradient into that array: a program that had kept it would lose its slot."""
    mine, same = trainer(MODEL, Elsewhere()), trainer(MODEL, SGD(0.1, momentum=0.9))
    for step in range(3):
        images, labels = batch(MODEL, 5, seed=step)
        mine.step(images, labels)
        same.step(images, labels)
    for name, right in same.state().slots["velocity"].items():
        np.testing.assert_allclose(mine.state().slots["velocity"][name], right, rtol=1e-9, atol=1e-12)


# Each formula once more, one parameter at a time, from the docstrings of cnnkit.optimizers; t counts steps from 1.


def sgd(p, g, slots, t, rate=0.1, momentum=0.0, nesterov=False, decay=0.0):
    g = g + decay * p
    v = momentum * slots["velocity"] + g
    return p - rate(t) * (g + momentum * v if nesterov else v), {"velocity": v}


def adam(p, g, slots, t, rate, beta_1=0.9, beta_2=0.999, epsilon=1e-8, decoupled=0.0):
    p = p - rate(t) * decoupled * p
    m = beta_1 * slots["m"] + (1 - beta_1) * g
    v = beta_2 * slots["v"] + (1 - beta_2) * g**2
    m_hat, v_hat = m / (1 - beta_1**t), v / (1 - beta_2**t)
    return p - rate(t) * m_hat / (np.sqrt(v_hat) + epsilon), {"m": m, "v": v}


def constant(rate):
    return lambda _t: rate


OPTIMIZERS = {
    "sgd": (SGD(0.2), sgd, {"rate": constant(0.2)}),
    "sgd momentum": (SGD(0.2, momentum=0.9), sgd, {"rate": constant(0.2), "momentum": 0.9}),
    "sgd nesterov": (
        SGD(0.2, momentum=0.8, nesterov=True),
        sgd,
        {"rate": constant(0.2), "momentum": 0.8, "nesterov": True},
    ),
    "sgd decay": (
        SGD(0.2, momentum=0.5, weight_decay=0.1),
        sgd,
        {"rate": constant(0.2), "momentum": 0.5, "decay": 0.1},
    ),
    "sgd step decay": (
        SGD(StepDecay(0.2, every=2, factor=0.25), momentum=0.9),
        sgd,
        {"rate": lambda t: 0.2 if t <= 2 else 0.05, "momentum": 0.9},
    ),
    "adam": (Adam(0.01), adam, {"rate": constant(0.01)}),
    "adam epsilon": (
        Adam(0.01, beta_1=0.8, beta_2=0.9, epsilon=0.5),
        adam,
        {"rate": constant(0.01), "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.5},
    ),
    "adam cosine": (
        Adam(CosineDecay(0.01, steps=2)),
        adam,
        {"rate": lambda t: 0.01 * (1 + math.cos(math.pi * min(t - 1, 2) / 2)) / 2},
    ),
    "adamw": (AdamW(0.01, weight_decay=0.3), adam, {"rate": constant(0.01), "decoupled": 0.3}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps_follow_the_formula(name):
    optimizer, formula, options = OPTIMIZERS[name]
    program = trainer(MODEL, optimizer)
    expected = {key: array.copy() for key, array in program.state().parameters.items()}
    slots = {key: dict.fromkeys(("velocity", "m", "v"), np.zeros_like(array)) for key, array in expected.items()}
    for t in (1, 2, 3):
        images, labels = batch(MODEL, 4, seed=t)
        loss, gradients = program.gradients(images, labels)
        assert float(program.step(images, labels)) == loss
        for key, gradient in gradients.items():
            expected[key], slots[key] = formula(expected[key], gradient, slots[key], t, **options)
        state = program.state()
        assert state.step == t
        assert tuple(state.slots) == optimizer.slot_names
        for key, array in expected.items():
            np.testing.assert_allclose(state.parameters[key], array, rtol=1e-12, atol=1e-15, err_msg=key)
            for slot in optimizer.slot_names:
                np.testing.assert_allclose(state.slots[slot][key], slots[key][slot], rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradients_are_clipped_by_their_norm_over_all_parameters(momentum):
    images, labels = batch(PLAIN, 9)
    before = trainer(PLAIN).state().parameters
    _, gradients = trainer(PLAIN).gradients(images, labels)
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
    program = trainer(PLAIN, SGD(0.5, momentum=momentum, clip_global_norm=norm / 4))
    program.step(images, labels)
    for name, array in program.state().parameters.items():
        np.testing.assert_allclose(array, before[name] - 0.5 * gradients[name] / 4, rtol=1e-12, atol=1e-15)


def test_a_norm_below_the_limit_changes_no_bit():
    images, labels = batch(PLAIN, 9)
    free, limited = trainer(PLAIN, SGD(0.5)), trainer(PLAIN, SGD(0.5, clip_global_norm=1e6))
    free.step(images, labels)
    limited.step(images, labels)
    assert same_state(free.state(), limited.state())


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), Adam(0.01)], ids=["sgd", "adam"])
def test_a_state_goes_on_in_a_new_program_as_if_nothing_was(optimizer):
    """Slots, step and seed all count: momentum, bias correction and dropout masks depend on them."""
    images, labels = batch(MODEL, 9)
    whole = trainer(MODEL, optimizer, seed=3)
    for _ in range(4):
        whole.step(images, labels)
    half = trainer(MODEL, optimizer, seed=3)
    half.step(images, labels)
    half.step(images, labels)
    rest = NumpyBackend("float64").compile_training(MODEL.plan(), half.state(), optimizer)
    rest.step(images, labels)
    rest.step(images, labels)
    assert same_state(whole.state(), rest.state())


# -------------------------------------------------------------------------------------------------------------- state


def test_state_is_a_copy():
    program = trainer(PLAIN, Adam(0.01))
    images, labels = batch(PLAIN, 3)
    program.step(images, labels)
    state = program.state()
    kept = deepcopy(state)
    program.step(images, labels)
    assert same_state(state, kept), "a later step changed it"
    now = program.state()
    kept, probabilities = deepcopy(now), program.predict(images)
    for arrays in (now.parameters, *now.slots.values()):
        for array in arrays.values():
            array[...] = 7
    assert same_state(program.state(), kept), "writing to it changed the program"
    np.testing.assert_array_equal(program.predict(images), probabilities)


def test_compiling_copies_parameters_and_slots():
    parameters = random_parameters(PLAIN.plan())
    optimizer = SGD(0.1, momentum=0.9)
    state = fresh_state(parameters, optimizer)
    images, labels = batch(PLAIN, 3)
    program = predictor(PLAIN, parameters)
    training = NumpyBackend("float64").compile_training(PLAIN.plan(), state, optimizer)
    probabilities, loss = program.predict(images), training.gradients(images, labels)[0]
    kept = {name: array.copy() for name, array in state.parameters.items()}
    training.step(images, labels)
    for name, array in state.parameters.items():
        np.testing.assert_array_equal(array, kept[name])
        assert not state.slots["velocity"][name].any()
    for array in (*parameters.values(), *state.parameters.values(), *state.slots["velocity"].values()):
        array[...] = np.nan
    np.testing.assert_array_equal(program.predict(images), probabilities)
    assert training.gradients(images, labels)[0] < loss


def test_parameters_may_be_read_only_and_of_any_strides():
    parameters = random_parameters(PLAIN.plan())
    strange = {name: np.asfortranarray(array[::-1])[::-1] for name, array in parameters.items()}
    for array in strange.values():
        array.flags.writeable = False
    images, _ = batch(PLAIN, 3)
    np.testing.assert_array_equal(
        predictor(PLAIN, strange).predict(images), predictor(PLAIN, parameters).predict(images)
    )


def test_gradients_change_nothing_and_two_calls_are_equal():
    program = trainer(MODEL, Adam(0.01))
    images, labels = batch(MODEL, 9)
    before = program.state()
    one_loss, one = program.gradients(images, labels)
    other_loss, other = program.gradients(images, labels)
    assert same_state(before, program.state())
    assert one_loss == other_loss
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
        assert not np.shares_memory(one[name], other[name])


def test_gradients_handed_out_are_not_changed_by_later_calls():
    program = trainer(PLAIN)
    images, labels = batch(PLAIN, 9)
    _, gradients = program.gradients(images, labels)
    kept = {name: array.copy() for name, array in gradients.items()}
    program.step(images[::-1], labels)
    program.predict(images)
    for name, array in gradients.items():
        np.testing.assert_array_equal(array, kept[name])
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_predicting_twice_is_equal_and_leaves_the_state_alone():
    program = trainer(MODEL)
    images, _ = batch(MODEL, 5)
    before = program.state()
    np.testing.assert_array_equal(program.predict(images), program.predict(images))
    assert same_state(before, program.state())


def test_a_training_program_predicts_with_the_newest_parameters():
    program = trainer(MODEL)
    images, labels = batch(MODEL, 5)
    before = program.predict(images)
    program.step(images, labels)
    after = program.predict(images)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, predictor(MODEL, program.state().parameters).predict(images))


def test_two_programs_of_one_backend_know_nothing_of_each_other():
    backend, plan, optimizer = NumpyBackend("float64"), MODEL.plan(), Adam(0.01)
    images, labels = batch(MODEL, 9)
    alone = trainer(MODEL, optimizer)
    for _ in range(3):
        alone.step(images, labels)
    start = fresh_state(random_parameters(plan), optimizer)
    one, other = (backend.compile_training(plan, start, optimizer) for _ in range(2))
    for step in range(3):
        one.step(images, labels)
        other.step(images[:step], labels[:step]) if step else other.gradients(images[4:], labels[4:])
        other.predict(images[3:])
    assert same_state(one.state(), alone.state())


# -------------------------------------------------------------------------------------------------------------- epoch


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("count", "batch_size"), [(20, 9), (20, 20), (20, 64), (7, 1), (18, 9), (0, 4)])
def test_an_epoch_is_a_loop_over_steps_to_the_last_bit(count, batch_size, threads):
    images, labels = batch(MODEL, 25, dtype=np.float32)
    order = np.random.default_rng(0).permutation(25)[:count]
    by_step = trainer(MODEL, Adam(0.01), precision="float32")
    by_epoch = trainer(MODEL, Adam(0.01), precision="float32", threads=threads)
    loss_sum = 0.0
    for start in range(0, count, batch_size):
        rows = order[start : start + batch_size]
        loss_sum += float(by_step.step(images[rows], labels[rows])) * len(rows)
    assert by_epoch.epoch(images, labels, order, batch_size) == EpochTotals(loss_sum, count)
    assert same_state(by_step.state(), by_epoch.state())
    assert by_epoch.state().step == math.ceil(count / batch_size)


def test_an_epoch_in_pieces_is_the_epoch():
    images, labels = batch(MODEL, 20)
    order = np.random.default_rng(0).permutation(20)
    whole, pieces = trainer(MODEL), trainer(MODEL)
    totals = whole.epoch(images, labels, order, 4)
    parts = [pieces.epoch(images, labels, piece, 4) for piece in (order[:8], order[8:])]
    assert sum(part.count for part in parts) == totals.count == 20
    assert sum(part.loss_sum for part in parts) == pytest.approx(totals.loss_sum, rel=1e-14)
    assert same_state(whole.state(), pieces.state())


def test_the_last_smaller_batch_is_a_mean_over_its_own_images():
    images, labels = batch(PLAIN, 5)
    frozen = trainer(PLAIN, SGD(learning_rate=0.0))
    totals = frozen.epoch(images, labels, np.arange(5), 4)
    losses = [frozen.gradients(images[i : i + 1], labels[i : i + 1])[0] for i in range(5)]
    assert totals.loss_sum == pytest.approx(sum(losses), rel=1e-13)


def test_training_makes_the_loss_of_a_tiny_set_vanish():
    images, labels = batch(PLAIN, 6)
    program = trainer(PLAIN, Adam(0.03))
    for _ in range(150):
        loss = program.step(images, labels)
    assert float(loss) < 0.05
    assert (program.predict(images).argmax(axis=1) == labels).all()


# ------------------------------------------------------------------------------------------------------------- inputs


def strange(images, how):
    if how == "fortran order":
        return np.asfortranarray(images)
    if how == "negative strides":
        return images[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    if how == "gaps":
        wide = np.repeat(images, 2, axis=2)
        return wide[:, :, ::2]
    read_only = images.copy()
    read_only.flags.writeable = False
    return read_only


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("how", ["fortran order", "negative strides", "gaps", "read-only"])
def test_images_of_any_strides_give_the_same_bits_and_are_not_changed(how, dtype):
    images = np.random.default_rng(0).integers(0, 256, (9, *MODEL.input_shape)).astype(dtype)
    labels = np.arange(9) % 3
    labels.flags.writeable = False
    odd = strange(images, how)
    precision = "float64" if dtype == "float64" else "float32"
    one, other = trainer(MODEL, precision=precision), trainer(MODEL, precision=precision)
    np.testing.assert_array_equal(one.predict(images), other.predict(odd))
    for name, gradient in one.gradients(images, labels)[1].items():
        np.testing.assert_array_equal(gradient, other.gradients(odd, labels)[1][name])
    one.step(images, labels)
    other.step(odd, labels)
    one.epoch(images, labels, np.arange(9)[::-1], 4)
    other.epoch(odd, labels, np.arange(9)[::-1], 4)
    assert same_state(one.state(), other.state())
    np.testing.assert_array_equal(odd, images)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_whole_numbers_give_the_same_bits_in_every_type(dtype, precision):
    numbers = np.random.default_rng(0).integers(0, 256, (3, *PLAIN.input_shape))
    program = trainer(PLAIN, precision=precision)
    made = program.predict(numbers.astype(dtype))
    assert made.dtype == precision
    np.testing.assert_array_equal(made, program.predict(numbers.astype(precision)))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64"])
def test_labels_may_be_integers_of_any_type(dtype):
    images, labels = batch(PLAIN, 9)
    expected, _ = trainer(PLAIN).gradients(images, labels)
    assert trainer(PLAIN).gradients(images, labels.astype(dtype))[0] == expected


@pytest.mark.parametrize("make", [trainer, lambda model: predictor(model, random_parameters(model.plan()))])
def test_outputs_are_fresh_and_writable(make):
    program = make(PLAIN)
    images, _ = batch(PLAIN, 3)
    first = program.predict(images)
    kept = first.copy()
    second = program.predict(images[::-1])
    np.testing.assert_array_equal(first, kept)
    assert not np.shares_memory(first, second)
    first[...] = 7
    np.testing.assert_array_equal(program.predict(images), kept)


def test_a_model_that_changes_nothing_still_returns_a_fresh_array():
    images = np.ones((2, 3), np.float32)
    model = Model(input_shape=(3,), layers=[Flatten()])
    made = predictor(model, {}, precision="float32").predict(images)
    assert not np.shares_memory(made, images)
    np.testing.assert_array_equal(made, images)


@pytest.mark.parametrize("threads", [1, 2])
def test_no_images_give_no_rows(threads):
    images, _ = batch(PLAIN, 0)
    for program in (
        trainer(PLAIN, threads=threads),
        predictor(PLAIN, random_parameters(PLAIN.plan()), threads=threads),
    ):
        made = program.predict(images)
        assert made.shape == (0, 3)
        assert made.dtype == np.float64


CALLS = pytest.mark.parametrize(
    "call",
    [
        lambda program, images, labels: program.step(images, labels),
        lambda program, images, labels: program.gradients(images, labels),
        lambda program, images, labels: program.epoch(images, labels, np.arange(len(images)), 2),
    ],
    ids=["step", "gradients", "epoch"],
)


@CALLS
def test_a_batch_without_images_has_no_loss(call):
    images, labels = batch(PLAIN, 0)
    with pytest.raises(DataError, match=r"the batch has 0 images, which have no mean loss. Give at least one"):
        call(trainer(PLAIN), images, labels)


@CALLS
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3], r"labels\[2\] is 3, but the model has 3 classes"),
        ([0, -1, 2], r"labels\[1\] is -1, but labels are numbered 0 to 2"),
        ([0.0, 1.0, 2.0], "labels are float64; expected whole numbers"),
        ([0, 1], r"labels have shape \(2,\), but there are 3 images"),
        ([[0], [1], [2]], r"labels have shape \(3, 1\), but there are 3 images"),
    ],
)
def test_wrong_labels_are_refused_and_change_nothing(call, labels, message):
    program = trainer(PLAIN)
    images, _ = batch(PLAIN, 3)
    before = program.state()
    with pytest.raises(DataError, match=message):
        call(program, images, np.array(labels))
    assert same_state(before, program.state())


@pytest.mark.parametrize("shape", [(5, 4, 2), (3, 4, 5, 2), (3, 5, 4, 1), (3, 40)])
def test_images_of_the_wrong_shape_are_refused(shape):
    images, labels = np.zeros(shape), np.zeros(shape[0], int)
    program = trainer(PLAIN)
    for call in (
        lambda: program.predict(images),
        lambda: program.step(images, labels),
        lambda: program.gradients(images, labels),
        lambda: program.epoch(images, labels, np.arange(3), 2),
        lambda: predictor(PLAIN, random_parameters(PLAIN.plan())).predict(images),
    ):
        with pytest.raises(DataError, match="but the model takes 5 x 4 x 2 for each image"):
            call()


@pytest.mark.parametrize(("dtype", "precision"), [("float64", "float32"), ("int64", "float32"), ("float16", "float64")])
def test_images_of_the_wrong_type_are_refused(dtype, precision):
    images = np.zeros((2, *PLAIN.input_shape), dtype)
    with pytest.raises(DataError, match=f"images are {dtype}, but a program in {precision} precision takes"):
        trainer(PLAIN, precision=precision).predict(images)
    with pytest.raises(DataError, match=f"images are {dtype}"):
        trainer(PLAIN, precision=precision).step(images, np.zeros(2, int))


def test_parameters_and_states_of_another_model_are_refused():
    plan = PLAIN.plan()
    parameters = random_parameters(plan)
    optimizer = Adam(0.01)
    with pytest.raises(DataError, match=r"parameters lack 0\.bias"):
        predictor(PLAIN, {name: array for name, array in parameters.items() if name != "0.bias"})
    with pytest.raises(DataError, match=r"'0\.bias' is float64 of shape \(4,\)"):
        predictor(PLAIN, {**parameters, "0.bias": np.zeros(4)})
    state = initial_state(PLAIN, SGD(0.1, momentum=0.9))
    with pytest.raises(DataError, match="the state has slots velocity, but Adam keeps m, v"):
        NumpyBackend().compile_training(plan, state, optimizer)


@pytest.mark.parametrize(
    ("layers", "message"),
    [([Flatten(), Dense(units=2)], "ends in Softmax"), ([Flatten(), Softmax()], "nothing to train")],
)
def test_what_cannot_learn_is_not_compiled_for_training(layers, message):
    model = Model(input_shape=(2, 2, 1), layers=layers)
    with pytest.raises(ModelError, match=message):
        NumpyBackend().compile_training(model.plan(), initial_state(model, SGD(0.1)), SGD(0.1))


def test_the_precision_of_a_state_is_that_of_the_program():
    state = initial_state(PLAIN, Adam(0.01))
    program = NumpyBackend("float64").compile_training(PLAIN.plan(), state, Adam(0.01))
    images, labels = batch(PLAIN, 2)
    program.step(images, labels)
    arrays = [*program.state().parameters.values(), *program.state().slots["m"].values()]
    assert {array.dtype.name for array in arrays} == {"float64"}


def test_feature_maps_of_a_prefix_have_the_shape_of_their_layer():
    model = Model(
        input_shape=(6, 5, 1),
        layers=[Conv2D(filters=3, kernel_size=3), MaxPool2D(), Flatten(), Dense(units=2), Softmax()],
    )
    parameters = random_parameters(model.plan())
    images, _ = batch(model, 4)
    maps = predictor(model.prefix(1), {name: parameters[name] for name in ("0.kernel", "0.bias")}).predict(images)
    assert maps.shape == (4, 2, 1, 3)
    scores = maps.reshape(4, -1) @ parameters["3.kernel"] + parameters["3.bias"]
    exponentials = np.exp(scores)
    np.testing.assert_allclose(
        predictor(model, parameters).predict(images), exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-12
    )


def test_an_order_that_leads_nowhere_is_refused_before_any_step():
    model = Model(input_shape=(2,), layers=[Dense(units=2), Softmax()])
    optimizer = SGD(learning_rate=0.1)
    program = get_backend("numpy").compile_training(model.plan(), initial_state(model, optimizer), optimizer)
    images, labels = np.ones((3, 2), np.float32), np.array([0, 1, 0])
    with pytest.raises(DataError, match="order goes from 0 to 3"):
        program.epoch(images, labels, np.array([0, 1, 3]), 1)
    assert program.state().step == 0


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_the_tail_of_the_sigmoid_is_right_to_the_last_digits(precision, tolerance):
    model = Model(input_shape=(4,), layers=[Sigmoid()])
    program = get_backend("numpy", precision=precision).compile(model.plan(), {})
    x = [-60.0, -20.0, 0.0, 20.0]
    expected = [math.exp(value) / (1 + math.exp(value)) for value in x]
    got = program.predict(np.array([x], precision))[0]
    assert got == pytest.approx(expected, rel=tolerance)


def test_the_sigmoid_of_huge_numbers_is_0_or_1_and_of_nan_is_nan():
    model = Model(input_shape=(5,), layers=[Sigmoid()])
    program = get_backend("numpy").compile(model.plan(), {})
    got = program.predict(np.array([[-np.inf, -1e4, 1e4, np.inf, np.nan]], np.float32))[0]
    assert got[:4].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert np.isnan(got[4])


@pytest.mark.parametrize(("scores", "loss"), [([1e30, 1e30, 0.0], math.log(2)), ([-1e30, -1e30, -3e30], math.log(2))])
def test_the_loss_of_huge_equal_scores_is_the_logarithm_of_how_many_there_are(scores, loss):
    model = Model(input_shape=(1,), layers=[Dense(units=3, use_bias=False), Softmax()])
    optimizer = SGD(learning_rate=0.1)
    state = fresh_state({"0.kernel": np.array([scores], np.float32)}, optimizer)
    program = get_backend("numpy").compile_training(model.plan(), state, optimizer)
    found, _ = program.gradients(np.ones((1, 1), np.float32), np.array([0]))
    assert found == pytest.approx(loss, rel=1e-6)
