"""The adapter from kernels to a backend. Expected numbers are worked out by hand; the suite judges real kernels elsewhere."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from cnnkit import (
    SGD,
    Adam,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Model,
    ReLU,
    Rescale,
    Softmax,
    dropout_mask,
    fresh_state,
)
from cnnkit.errors import BackendError, DataError, ModelError, TrainingNotSupported, UnsupportedModel
from cnnkit.layerwise import Kernels, LayerwiseBackend
from cnnkit.plan import ActivationOp, DenseOp, FlattenOp, RescaleOp, SoftmaxOp
from cnnkit.plugins import Unsupported

# ------------------------------------------------------------------------------------------------- kernels to compose


def flatten(_, x):
    return x.reshape(len(x), -1), lambda dy: (dy.reshape(x.shape),)


def rescale(op, x):
    return x * op.scale, lambda dy: (dy * op.scale,)


def dense(op, x, kernel, bias=None):  # noqa: ARG001 - every kernel is called alike
    y = x @ kernel if bias is None else x @ kernel + bias
    return y, lambda dy: (dy @ kernel.T, x.T @ dy, *([] if bias is None else [dy.sum(0)]))


def relu(_, x):
    return np.maximum(x, 0), lambda dy: (np.where(x > 0, dy, 0),)


def softmax(_, x):
    weights = np.exp(x - x.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True), None


def cross_entropy(scores, labels):
    found, _ = softmax(None, scores)
    picked = np.arange(len(labels)), labels
    loss = -np.log(found[picked]).mean()
    found[picked] -= 1
    return loss, found / len(labels)


ALL = {RescaleOp: rescale, FlattenOp: flatten, DenseOp: dense, ActivationOp: relu, SoftmaxOp: softmax}
INFERENCE = {kind: lambda *given, kernel=kernel: kernel(*given)[0] for kind, kernel in ALL.items()}


def training_backend(precision="float32", **kernels):
    by_operation = ALL | {kind: kernel for kind in ALL for name, kernel in kernels.items() if kind.__name__ == name}
    return LayerwiseBackend("mine", Kernels(by_operation, cross_entropy), precision)


TWO = Model(input_shape=(2,), layers=[Dense(units=2), Softmax()])
ZEROS = {"0.kernel": np.zeros((2, 2), np.float32), "0.bias": np.zeros(2, np.float32)}
IMAGE, LABEL = np.array([[1, 2]], np.float32), np.array([0])
# With all scores 0 both probabilities are 1/2, so that d_scores is [-1/2, 1/2].
GRADIENT = {"0.kernel": [[-0.5, 0.5], [-1, 1]], "0.bias": [-0.5, 0.5]}


def learner(model=TWO, parameters=ZEROS, optimizer=None, **kernels):
    optimizer = optimizer or SGD(learning_rate=1.0)
    return training_backend(**kernels).compile_training(model.plan(), fresh_state(parameters, optimizer), optimizer)


def same(found, expected):
    assert {name: array.tolist() for name, array in found.items()} == expected


# ------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "kernels", [Kernels(INFERENCE), Kernels(ALL, cross_entropy)], ids=["kernels that predict", "kernels that train"]
)
def test_a_program_runs_the_kernels_one_after_the_other(kernels):
    model = Model(input_shape=(1, 2, 1), layers=[Rescale(scale=2.0), Flatten(), Dense(units=2, activation="relu")])
    parameters = {"2.kernel": np.array([[1, -1], [10, 1]], np.float32), "2.bias": np.array([0.5, -1], np.float32)}
    program = LayerwiseBackend("mine", kernels).compile(model.plan(), parameters)
    found = program.predict(np.array([[[[1], [3]]], [[[0], [0]]]], np.uint8))
    assert found.tolist() == [[62.5, 3], [0.5, 0]]  # 2 * 1 + 6 * 10 + 0.5; -2 + 6 - 1; biases through relu


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_everything_is_in_the_precision(precision):
    backend = training_backend(precision)
    state = fresh_state(ZEROS, Adam(learning_rate=0.1))
    program = backend.compile_training(TWO.plan(), state, Adam(learning_rate=0.1))
    program.step(IMAGE, LABEL)
    arrays = [program.predict(IMAGE), *program.gradients(IMAGE, LABEL)[1].values()]
    arrays += [*program.state().parameters.values(), *program.state().slots["v"].values()]
    assert {array.dtype.name for array in arrays} == {precision}
    assert backend.compile(TWO.plan(), ZEROS).predict(IMAGE).dtype == precision


def test_gradients_are_those_worked_out_by_hand_and_change_nothing():
    program = learner()
    for _ in range(2):
        loss, found = program.gradients(IMAGE, LABEL)
        assert loss == pytest.approx(np.log(2))
        same(found, GRADIENT)
    assert program.state().step == 0


def test_a_step_goes_down_the_gradient_and_counts():
    program = learner()
    assert program.step(IMAGE, LABEL) == pytest.approx(np.log(2))
    same(program.state().parameters, {"0.kernel": [[0.5, -0.5], [1, -1]], "0.bias": [0.5, -0.5]})
    assert program.state().step == 1


def test_a_dense_layer_without_bias_has_one_gradient():
    model = Model(input_shape=(2,), layers=[Dense(units=2, use_bias=False), Softmax()])
    _, found = learner(model, {"0.kernel": ZEROS["0.kernel"]}).gradients(IMAGE, LABEL)
    same(found, {"0.kernel": GRADIENT["0.kernel"]})


def test_training_goes_on_from_the_slots_and_the_step_of_a_state():
    optimizer = Adam(learning_rate=1.0, beta_1=0.5, beta_2=0.75)
    begin = replace(fresh_state(ZEROS, optimizer), step=6)
    begin.slots["m"]["0.bias"][:] = 4
    begin.slots["v"]["0.bias"][:] = 8
    program = training_backend().compile_training(TWO.plan(), begin, optimizer)
    program.step(IMAGE, LABEL)
    state = program.state()
    assert state.step == 7
    assert state.slots["m"]["0.bias"].tolist() == [1.75, 2.25]  # 4 / 2 -+ 1/4
    assert state.slots["v"]["0.bias"].tolist() == [6.0625, 6.0625]  # 8 * 3/4 + 1/16
    assert begin.slots["m"]["0.bias"].tolist() == [4, 4]


@pytest.mark.parametrize("size", [1.0, 1e25], ids=["small", "whose square float32 cannot hold"])
def test_clipping_gives_all_gradients_together_the_norm_of_the_limit(size):
    program = learner(optimizer=SGD(learning_rate=1.0, clip_global_norm=0.25))
    program.step(IMAGE * np.float32(size), LABEL)
    arrays = program.state().parameters.values()
    assert sum(np.square(array, dtype=np.float64).sum() for array in arrays) == pytest.approx(0.25**2)


def test_nothing_is_clipped_below_the_limit():
    program = learner(optimizer=SGD(learning_rate=1.0, clip_global_norm=1.8))  # the norm is the root of 3
    program.step(IMAGE, LABEL)
    assert program.state().parameters["0.bias"].tolist() == [0.5, -0.5]


def test_nan_and_infinity_are_results_and_no_warnings():
    program = training_backend().compile(TWO.plan(), ZEROS)
    assert np.isnan(program.predict(np.array([[np.inf, 1]], np.float32))).all()
    loss, found = learner().gradients(np.array([[np.nan, 1]], np.float32), LABEL)
    assert np.isnan(loss)
    assert np.isnan(found["0.bias"]).all()


# ------------------------------------------------------------------------------------------------------------- dropout

DROPPING = Model(input_shape=(2,), layers=[Rescale(scale=1.0), Dropout(rate=0.5), Dense(units=2), Softmax()])
ZEROS_AT_2 = {"2.kernel": ZEROS["0.kernel"], "2.bias": ZEROS["0.bias"]}
EIGHT = np.arange(1, 17, dtype=np.float32).reshape(8, 2) / 16


def test_dropout_does_nothing_when_predicting():
    kernel = np.eye(2, dtype=np.float32)
    parameters = {"2.kernel": kernel, "2.bias": ZEROS["0.bias"]}
    model = Model(input_shape=(2,), layers=DROPPING.layers[:-1])
    assert training_backend().compile(model.plan(), parameters).predict(EIGHT).tolist() == EIGHT.tolist()


def test_gradients_and_step_use_the_mask_of_the_step_that_comes_next():
    program = learner(DROPPING, ZEROS_AT_2)
    labels = np.zeros(8, int)
    for step in range(3):
        mask = dropout_mask(0, step, 1, (8, 2), 0.5)
        before = program.state().parameters
        probabilities = np.exp((EIGHT * mask) @ before["2.kernel"] + before["2.bias"])
        probabilities /= probabilities.sum(1, keepdims=True)
        expected = (EIGHT * mask).T @ (probabilities - [1, 0]) / 8
        np.testing.assert_allclose(program.gradients(EIGHT, labels)[1]["2.kernel"], expected, rtol=1e-4, atol=1e-6)
        program.step(EIGHT, labels)
        moved = before["2.kernel"] - program.state().parameters["2.kernel"]
        np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-5)


def test_the_way_back_goes_through_the_same_mask():
    layers = [Dense(units=2), Dropout(rate=0.5), Dense(units=2), Softmax()]
    parameters = {"0.kernel": np.eye(2, dtype=np.float32), "0.bias": np.ones(2, np.float32)}
    parameters |= {"2.kernel": np.eye(2, dtype=np.float32) * 4, "2.bias": np.zeros(2, np.float32)}
    _, found = learner(Model(input_shape=(2,), layers=layers), parameters).gradients(EIGHT, np.zeros(8, int))
    mask = dropout_mask(0, 0, 1, (8, 2), 0.5)
    scores = 4 * (EIGHT + 1) * mask
    probabilities = np.exp(scores - scores.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = (4 * (probabilities - [1, 0]) / 8 * mask).sum(0)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found["0.bias"], expected, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------- what may be changed


def test_a_kernel_that_overwrites_what_it_gets_reaches_nobody_elses_arrays():
    def vandal(_, x, kernel, bias):
        y = x @ kernel + bias
        for array in (x, kernel, bias):
            array.fill(99)
        return y, None

    images, parameters = IMAGE.copy(), {name: array.copy() for name, array in ZEROS.items()}
    training_backend(DenseOp=vandal).compile(TWO.plan(), parameters).predict(images)
    assert images.tolist() == IMAGE.tolist()
    assert all(not array.any() for array in parameters.values())


@pytest.mark.parametrize(
    "images",
    [np.asfortranarray(EIGHT), EIGHT[::-1][::-1], np.repeat(EIGHT, 2, axis=0)[::2], EIGHT.view()],
    ids=["fortran order", "negative strides", "strides", "read-only"],
)
def test_an_engine_is_given_fresh_arrays_in_c_order_whatever_came_in(images):
    images.flags.writeable = False
    seen = []

    def to_engine(array):
        seen.append(array)
        return array

    backend = LayerwiseBackend("mine", Kernels(INFERENCE, to_engine=to_engine))
    backend.compile(TWO.plan(), ZEROS).predict(images)
    assert len(seen) == 3
    assert all(type(array) is np.ndarray and array.flags.c_contiguous and array.flags.writeable for array in seen)
    assert not any(np.shares_memory(array, images) for array in seen)
    assert seen[-1].tolist() == EIGHT.tolist()


def test_what_comes_out_is_a_copy():
    kept = {}

    def identity(_, x):
        return kept.setdefault("x", x), None

    model = Model(input_shape=(2,), layers=[ReLU()])
    program = training_backend(ActivationOp=identity).compile(model.plan(), {})
    found = program.predict(IMAGE)
    assert not np.shares_memory(found, kept["x"])
    assert found.flags.writeable


def test_gradients_are_copies():
    kept = []

    def keeping(_, x, kernel, bias):
        def pullback(dy):
            kept.extend([dy @ kernel.T, x.T @ dy, dy.sum(0)])
            return tuple(kept)

        return x @ kernel + bias, pullback

    _, found = learner(DenseOp=keeping).gradients(IMAGE, LABEL)
    assert not any(np.shares_memory(one, other) for one in found.values() for other in kept)


def test_a_state_is_a_copy_that_later_steps_do_not_change():
    program = learner(optimizer=SGD(learning_rate=1.0, momentum=0.5))
    before = program.state()
    program.step(IMAGE, LABEL)
    assert not before.parameters["0.bias"].any()
    assert not before.slots["velocity"]["0.bias"].any()
    assert before.step == 0


class Foreign:
    """An array of another engine: no NumPy protocol, only what the adapter says that it needs."""

    __array__ = None
    __array_ufunc__ = None

    def __init__(self, array):
        self.inside = array

    @property
    def shape(self):
        return self.inside.shape

    def _with(self, other, function):
        return Foreign(function(self.inside, other.inside if isinstance(other, Foreign) else other))

    def __add__(self, other):
        return self._with(other, np.add)

    def __sub__(self, other):
        return self._with(other, np.subtract)

    def __mul__(self, other):
        return self._with(other, np.multiply)

    def __truediv__(self, other):
        return self._with(other, np.divide)

    def __pow__(self, other):
        return self._with(other, np.power)

    __radd__, __rmul__ = __add__, __mul__


def foreign(kernel):
    def run(op, *arrays):
        y, pullback = kernel(op, *(array.inside for array in arrays))
        return Foreign(y), pullback and (lambda dy: tuple(map(Foreign, pullback(dy.inside))))

    return run


def test_an_engine_of_immutable_arrays_trains_as_numpy_does_with_clipping_and_dropout():
    def foreign_loss(scores, labels):
        loss, d_scores = cross_entropy(scores.inside, labels)
        return loss, Foreign(d_scores)

    kernels = Kernels(
        {kind: foreign(kernel) for kind, kernel in ALL.items()}, foreign_loss, Foreign, lambda array: array.inside
    )
    optimizer = Adam(learning_rate=0.1, clip_global_norm=0.5)
    results = []
    for backend in (LayerwiseBackend("foreign", kernels), training_backend()):
        program = backend.compile_training(DROPPING.plan(), fresh_state(ZEROS_AT_2, optimizer), optimizer)
        for _ in range(3):
            program.step(EIGHT, np.arange(8) % 2)
        results.append({name: array.tolist() for name, array in program.state().parameters.items()})
    assert results[0] == results[1]
    assert np.any(results[0]["2.kernel"])


# ------------------------------------------------------------------------------------------------ mistakes of callers


def test_a_batch_of_0_has_0_rows_and_calls_no_kernel():
    def never(*_):
        raise AssertionError("called")

    program = training_backend(DenseOp=never).compile(TWO.plan(), ZEROS)
    assert program.predict(np.zeros((0, 2), np.float32)).shape == (0, 2)


@pytest.mark.parametrize("what", ["gradients", "step"])
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((0, 2), np.float32), np.array([], int), "0 images, which have no mean loss"),
        (np.zeros((1, 3), np.float32), LABEL, "images have shape"),
        (np.zeros((1, 2), np.float64), LABEL, "images are float64"),
        (IMAGE, np.array([2]), "labels.0. is 2"),
        (IMAGE, np.array([0, 1]), "labels have shape"),
    ],
    ids=["no image", "shape", "dtype", "label", "count"],
)
def test_a_wrong_batch_is_an_error_that_changes_nothing(what, images, labels, message):
    program = learner()
    with pytest.raises(DataError, match=message):
        getattr(program, what)(images, labels)
    assert program.state().step == 0
    assert not program.state().parameters["0.bias"].any()


def test_predict_refuses_images_of_another_shape():
    with pytest.raises(DataError, match="images have shape"):
        training_backend().compile(TWO.plan(), ZEROS).predict(np.zeros((1, 3), np.float32))


def test_parameters_and_slots_that_do_not_fit_are_errors():
    with pytest.raises(DataError, match=r"lack 0\.bias"):
        training_backend().compile(TWO.plan(), {"0.kernel": ZEROS["0.kernel"]})
    with pytest.raises(DataError, match="Adam keeps m, v"):
        training_backend().compile_training(TWO.plan(), fresh_state(ZEROS, SGD(learning_rate=1.0)), Adam())


def test_a_model_that_is_no_classifier_is_not_trained():
    model = Model(input_shape=(2,), layers=[Dense(units=2)])
    with pytest.raises(ModelError, match="ends in Softmax"):
        learner(model)


# ------------------------------------------------------------------------------------------------------------ refusals


POOLING = Model(
    input_shape=(2, 2, 1), layers=[Rescale(scale=1.0), MaxPool2D(pool_size=2), Flatten(), Dropout(rate=0.5)]
)


def test_an_operation_without_kernel_is_refused_by_its_path_but_dropout_needs_none():
    kernels = Kernels(INFERENCE)
    missing = Unsupported("layers[1]", "pool.max", "the backend has no kernel for MaxPool2DOp")
    assert kernels.missing(POOLING.plan()) == [missing]
    with pytest.raises(
        UnsupportedModel, match=r"'mine' does not support pool\.max, which layers\[1\] needs"
    ) as refused:
        LayerwiseBackend("mine", kernels).compile(POOLING.plan(), {})
    assert refused.value.path == "layers[1]"


@pytest.mark.parametrize("what", ["predict", "train"])
def test_what_the_backend_refuses_beyond_that_is_refused_too(what):
    def supports(plan):
        return [Unsupported("layers[0]", "a dense layer of 2 units", "there is a fault")] if plan.classes == 2 else []

    backend = LayerwiseBackend("mine", Kernels(ALL, cross_entropy), supports=supports)
    optimizer = SGD(learning_rate=1.0)
    begin = {"predict": (ZEROS,), "train": (fresh_state(ZEROS, optimizer), optimizer)}[what]
    compiled = {"predict": backend.compile, "train": backend.compile_training}[what]
    with pytest.raises(UnsupportedModel, match=r"a dense layer of 2 units, which layers\[0\] needs: there is a fault"):
        compiled(TWO.plan(), *begin)


def test_kernels_without_ways_back_do_not_train():
    backend = LayerwiseBackend("mine", Kernels(INFERENCE))
    with pytest.raises(TrainingNotSupported, match="'mine' only predicts"):
        backend.compile_training(TWO.plan(), fresh_state(ZEROS, SGD(learning_rate=1.0)), SGD(learning_rate=1.0))


# --------------------------------------------------------------------------------------------------- wrong kernels


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda _, x, w, b: x @ w + b, r"DenseOp \(layers\[0\]\) returned a ndarray of shape \(1, 2\); expected \(y, "),
        (lambda _, x, w, b: (x, w, b), "returned a tuple of 3; expected"),
        (
            lambda _, x, w, b: ((x @ w + b)[0], None),
            r"an output that is a ndarray of shape \(2,\); expected .*\(1, 2\)",
        ),
        (lambda _, x, w, b: (1.0, None), r"an output that is a float; expected shape \(1, 2\)"),  # noqa: ARG005
    ],
    ids=["no way back", "three things", "shape", "no array"],
)
def test_a_kernel_that_returns_something_else_is_named(kernel, message):
    program = learner(DenseOp=kernel)
    with pytest.raises(BackendError, match=message):
        program.predict(IMAGE)
    with pytest.raises(BackendError, match=message):
        program.step(IMAGE, LABEL)


@pytest.mark.parametrize(
    ("pullback", "message"),
    [
        (lambda dy: dy, r"way back of the kernel for DenseOp \(layers\[0\]\) returned a ndarray of shape \(1, 2\);"),
        (
            lambda dy: (dy,),
            r"a tuple of 1; expected a tuple of 3: \(dx, gradient of the kernel, gradient of the bias\)",
        ),
        (lambda dy: (dy, dy, dy[0]), r"a gradient that is a ndarray of shape \(1, 2\); expected shape \(2, 2\)"),
    ],
    ids=["no tuple", "too few", "shape"],
)
def test_a_way_back_that_returns_something_else_is_named(pullback, message):
    program = learner(DenseOp=lambda _, x, w, b: (x @ w + b, pullback))
    with pytest.raises(BackendError, match=message):
        program.gradients(IMAGE, LABEL)


def test_a_kernel_that_only_predicts_may_not_return_a_way_back():
    backend = LayerwiseBackend("mine", Kernels(ALL))
    with pytest.raises(BackendError, match="an output that is a tuple of 2"):
        backend.compile(TWO.plan(), ZEROS).predict(IMAGE)


def test_no_way_back_is_taken_before_the_first_layer_that_learns():
    def one_way(op, x):
        def pullback(_):
            raise AssertionError("nobody needs this gradient")

        return rescale(op, x)[0], pullback

    _, found = learner(DROPPING, ZEROS_AT_2, RescaleOp=one_way).gradients(EIGHT, np.zeros(8, int))
    assert found["2.kernel"].any()


# ------------------------------------------------------------------------------------------------------------- threads


def test_steps_from_several_threads_are_taken_one_after_the_other():
    def slow(*given):
        found = dense(*given)
        time.sleep(0.002)  # so that others would come in between
        return found

    alone, together = learner(), learner(DenseOp=slow)
    for _ in range(12):
        alone.step(IMAGE, LABEL)
    threads = [threading.Thread(target=lambda: [together.step(IMAGE, LABEL) for _ in range(3)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together.state().step == 12
    for name, array in alone.state().parameters.items():
        assert together.state().parameters[name].tolist() == array.tolist()
