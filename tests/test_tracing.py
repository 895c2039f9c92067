"""`trace` shows the step that training takes: held to finite differences, to hand-worked numbers, and to training itself."""

import numpy as np
import pytest

import cnnkit
from cnnkit import (
    AvgPool2D,
    Backend,
    Conv2D,
    DataError,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    MaxPool2D,
    Model,
    ModelError,
    OptionError,
    ReLU,
    Rescale,
    Softmax,
    TrainingNotSupported,
    TrainingState,
    dropout_mask,
    get_backend,
    initial_parameters,
    predict,
    trace,
)
from cnnkit.metrics import cross_entropy
from cnnkit.plugins import backend_names, status

MODEL = Model(
    name="all kinds",
    input_shape=(7, 6, 2),
    layers=[
        Rescale(scale=1 / 128, offset=-1),
        Conv2D(filters=3, kernel_size=(2, 3), strides=(1, 2), padding="same", activation="tanh"),
        MaxPool2D(pool_size=2, strides=1),
        Dropout(rate=0.3),  # not before the pool: between two zeros there is no derivative to compare with
        Conv2D(filters=4, kernel_size=2, dilation=(2, 1), use_bias=False),
        ReLU(),
        AvgPool2D(pool_size=2, padding="same"),
        Grayscale(),
        Flatten(),
        Dropout(rate=0.4),
        Dense(units=5, activation="sigmoid"),
        Dense(units=3),
        Softmax(),
    ],
)
IMAGE = np.random.default_rng(0).integers(0, 256, (7, 6, 2), dtype=np.uint8)
LABEL = 2


def parameters(precision="float64"):
    return {name: array + 0.05 for name, array in initial_parameters(MODEL, 1, precision).items()}


@pytest.fixture(scope="module")
def traced():
    return trace(MODEL, parameters(), IMAGE, LABEL, "numpy", seed=3, step=7, precision="float64")


def after(layer, values, bare=False):
    """The loss from the output of `layer` on (with `bare`, from before its activation), one layer at a time."""
    engine = get_backend("numpy", precision="float64")
    layers = list(enumerate(MODEL.layers))[layer + 1 : -1]
    if bare:
        activation = {"tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}[MODEL.layers[layer].activation]
        values = activation(values)
    for index, one in layers:
        if isinstance(one, Dropout):
            values = values * dropout_mask(3, 7, index, (1, *values.shape), one.rate, np.float64)[0]
            continue
        own = {
            f"0.{name}": parameters()[f"{index}.{name}"] for name in ("kernel", "bias") if f"{index}.{name}" in NAMES
        }
        values = predict(Model(input_shape=values.shape, layers=[one]), own, values[np.newaxis], engine)[0]
    return cross_entropy(values[np.newaxis], np.array([LABEL]))[0]


NAMES = [spec.name for spec in MODEL.plan().parameters]


def numerical(loss, values, some):
    """Central differences at the places `some`."""
    found = []
    for place in some:
        step = np.zeros(values.shape)
        step[place] = 1e-6
        found.append((loss(values + step) - loss(values - step)) / 2e-6)
    return found


def places(shape, count=6):
    flat = np.random.default_rng(5).choice(np.prod(shape), min(count, np.prod(shape)), replace=False)
    return [tuple(map(int, np.unravel_index(one, shape))) for one in flat]


@pytest.mark.parametrize("layer", range(12))
def test_gradients_of_outputs_are_those_of_finite_differences(traced, layer):
    values = traced.outputs[layer]
    some = places(values.shape)
    assert traced.gradients[layer].shape == values.shape
    found = [traced.gradients[layer][place] for place in some]
    np.testing.assert_allclose(found, numerical(lambda x: after(layer, x), values, some), rtol=1e-5, atol=1e-9)
    assert np.abs(traced.gradients[layer]).max() > 1e-4


@pytest.mark.parametrize("layer", [1, 10])
def test_so_are_those_of_what_goes_into_an_activation(traced, layer):
    values = traced.before_activation[layer]
    some = places(values.shape)
    found = [traced.gradients_before_activation[layer][place] for place in some]
    np.testing.assert_allclose(
        found, numerical(lambda x: after(layer, x, bare=True), values, some), rtol=1e-5, atol=1e-9
    )


def test_the_loss_follows_from_the_output_of_every_layer_in_training(traced):
    """Had a mask been left out of an output, or put in twice, the loss from there on would be another."""
    for layer in range(12):
        assert after(layer, traced.outputs[layer]) == pytest.approx(traced.loss, rel=1e-12)


def test_there_is_an_array_for_every_layer_and_only_for_what_is_there(traced):
    assert list(traced.outputs) == list(range(13))
    assert list(traced.gradients) == list(range(12))  # the loss is computed from the scores, not from their softmax
    assert list(traced.before_activation) == list(traced.gradients_before_activation) == [1, 10]
    assert list(traced.parameter_gradients) == NAMES
    assert [output.shape for output in traced.outputs.values()] == list(MODEL.plan().layer_shapes)
    assert traced.image.dtype == np.uint8


def test_the_output_of_dropout_is_what_the_mask_of_seed_and_step_leaves(traced):
    mask = dropout_mask(3, 7, 3, (1, 6, 2, 3), 0.3, np.float64)[0]
    np.testing.assert_array_equal(traced.outputs[3], traced.outputs[2] * mask)
    other = trace(MODEL, parameters(), IMAGE, LABEL, "numpy", seed=3, step=8, precision="float64", gradients=False)
    np.testing.assert_array_equal(other.outputs[2], traced.outputs[2])
    assert (other.outputs[3] != traced.outputs[3]).any()


def test_gradients_of_parameters_fit_those_of_outputs(traced):
    """The gradient of a dense kernel is inputs times gradients, that of a bias the gradients summed over places."""
    dense, conv = traced.gradients_before_activation[10], traced.gradients_before_activation[1]
    np.testing.assert_allclose(traced.parameter_gradients["10.kernel"], np.outer(traced.outputs[9], dense), rtol=1e-9)
    np.testing.assert_allclose(traced.parameter_gradients["10.bias"], dense, rtol=1e-9)
    np.testing.assert_allclose(traced.parameter_gradients["1.bias"], conv.sum(axis=(0, 1)), rtol=1e-9)


@pytest.mark.parametrize("backend", [*sorted(set(backend_names()) - {"numpy"}), "loopback"])
def test_another_backend_has_the_same_trace(traced, backend, plugin_folder, on_path):
    on_path(plugin_folder)
    state = status(backend).state
    if state != "ready":
        pytest.skip(f"backend '{backend}' is {state}")
    other = trace(MODEL, parameters("float32"), IMAGE, LABEL, backend, seed=3, step=7)
    assert other.backend == backend
    assert other.loss == pytest.approx(traced.loss, rel=1e-5)
    assert other.arrays.keys() == traced.arrays.keys()
    for name, array in other.arrays.items():
        np.testing.assert_allclose(array, traced.arrays[name], rtol=1e-3, atol=1e-5, err_msg=name)
        assert array.dtype == (np.uint8 if name == "image" else np.float32)


def test_a_dense_model_worked_out_by_hand():
    model = Model(
        input_shape=(2,), layers=[Dense(units=2, use_bias=False, activation="relu"), Dense(units=2), Softmax()]
    )
    given = {
        "0.kernel": np.array([[1, -1], [2, 1]], np.float32),
        "1.kernel": np.array([[1, 0], [0, 1]], np.float32),
        "1.bias": np.array([0, 5], np.float32),
    }
    found = trace(model, given, np.array([1, 2], np.float32), 1)
    # scores 5 and 1 + 5 = 6
    probability = 1 / (1 + np.exp(-1))
    assert found.before_activation[0].tolist() == [5, 1]
    assert found.outputs[1].tolist() == [5, 6]
    assert found.loss == pytest.approx(-np.log(probability), rel=1e-6)
    np.testing.assert_allclose(found.gradients[1], [1 - probability, probability - 1], rtol=1e-5)
    np.testing.assert_allclose(found.gradients[0], [1 - probability, probability - 1], rtol=1e-5)


def test_a_trace_is_of_the_step_that_training_takes_next():
    from cnnkit import SGD

    start = parameters("float32")
    plan, optimizer = MODEL.plan(), SGD(learning_rate=0.5)
    slots = {slot: {name: np.zeros_like(array) for name, array in start.items()} for slot in optimizer.slot_names}
    program = get_backend("numpy").compile_training(plan, TrainingState(start, slots, 7, 3), optimizer)
    found = trace(MODEL, start, IMAGE, LABEL, "numpy", seed=3, step=7)
    loss = float(program.step(IMAGE[np.newaxis], np.array([LABEL])))
    assert found.loss == pytest.approx(loss, rel=1e-6)
    for name, moved in program.state().parameters.items():
        np.testing.assert_allclose(moved, start[name] - 0.5 * found.parameter_gradients[name], rtol=1e-5, atol=1e-7)


class OnlyPredicts(Backend):
    def compile(self, plan, parameters):
        return get_backend("numpy").compile(plan, parameters)


def test_a_backend_that_only_predicts_gives_outputs_and_says_why_it_gives_no_gradients(traced):
    found = trace(MODEL, parameters("float32"), IMAGE, LABEL, OnlyPredicts(), seed=3, step=7)
    assert (found.backend, list(found.outputs)) == ("OnlyPredicts", list(range(13)))
    assert found.loss == pytest.approx(traced.loss, rel=1e-5)
    for name in ("gradients", "gradients_before_activation", "parameter_gradients"):
        with pytest.raises(TrainingNotSupported, match="OnlyPredicts only predicts, it cannot train"):
            getattr(found, name)
    assert "no gradients: OnlyPredicts only predicts" in str(found)
    assert not [name for name in found.arrays if name.startswith("gradient")]


def test_gradients_that_were_not_wanted_say_so():
    found = trace(MODEL, parameters("float32"), IMAGE, LABEL, gradients=False)
    with pytest.raises(TrainingNotSupported, match="Make it with gradients=True"):
        _ = found.gradients


def test_nothing_that_is_given_is_changed():
    given, image = parameters("float32"), IMAGE.copy()
    before = {name: array.copy() for name, array in given.items()}
    found = trace(MODEL, given, image, LABEL)
    found.gradients[1][:] = 9
    np.testing.assert_array_equal(image, IMAGE)
    for name, array in before.items():
        np.testing.assert_array_equal(given[name], array)


# ------------------------------------------------------------------------------------------------------ what it tells


def test_it_prints_a_table_of_everything(traced):
    text = str(traced)
    lines = text.splitlines()
    assert lines[0] == "all kinds, one image of class 2, backend numpy, step 7 of seed 3"
    assert lines[1].split() == ["shape", "min", "mean", "max", "gradient:", "min", "mean", "max"]
    assert [line.split()[0] for line in lines[2:-1]] == [
        "image", "0.output", "1.kernel", "1.bias", "1.before_activation", "1.output", "2.output", "3.output", "4.kernel",
        "4.output", "5.output", "6.output", "7.output", "8.output", "9.output", "10.kernel", "10.bias",
        "10.before_activation", "10.output", "11.kernel", "11.bias", "11.output", "12.output",
    ]  # fmt: skip
    row = next(line for line in lines if line.startswith("1.output")).split()
    values, gradient = traced.outputs[1], traced.gradients[1]
    figures = [values.min(), values.mean(), values.max(), gradient.min(), gradient.mean(), gradient.max()]
    assert row == ["1.output", "Conv2D", "tanh", "7", "x", "3", "x", "3", *(f"{figure:.4g}" for figure in figures)]
    assert lines[-1] == f"loss {traced.loss:.6g}"


def test_plain_data_has_the_figures_of_every_array(traced):
    data = traced.to_dict()
    kernel = traced.parameter_gradients["4.kernel"]
    assert data["arrays"]["gradient/4.kernel"] == {
        "shape": [2, 2, 3, 4],
        "min": kernel.min(),
        "mean": pytest.approx(kernel.mean()),
        "max": kernel.max(),
    }
    assert (data["label"], data["step"], data["not_finite"]) == (2, 7, None)


PLACES = {
    "image": ("image", (3, 2, 1), np.nan),
    "4.kernel": ("4.kernel", (0, 0, 0, 0), np.inf),
    "4.output": ("4.kernel", (0, 0, 0, 0), 1e38),
    "11.output": ("11.bias", (1,), -3e38),
}


@pytest.mark.parametrize("where", PLACES)
def test_it_says_where_numbers_stop_being_finite(where):
    name, place, value = PLACES[where]
    given, image = parameters("float32"), IMAGE.astype(np.float32)
    if name == "image":
        image[place] = value
    else:
        given[name][place] = value
    if where == "4.output":
        given["4.kernel"][:] = value
        given["1.kernel"][:], given["1.bias"][:] = 1, 9
    if where == "11.output":
        given["11.kernel"][:] = -3e38
        given["10.bias"][:] = 50
    with np.errstate(all="ignore"):
        found = trace(MODEL, given, image, LABEL, OnlyPredicts())
    assert found.not_finite == where
    assert f"NaN or infinity begins in {where}" in str(found)


def test_nan_in_a_gradient_alone_is_found_from_the_loss_on():
    model = Model(input_shape=(1,), layers=[Dense(units=1, use_bias=False), Dense(units=2, use_bias=False), Softmax()])
    given = {"0.kernel": np.ones((1, 1), np.float32), "1.kernel": np.array([[3e38, -3e38]], np.float32)}
    found = trace(model, given, np.full(1, 1e-38, np.float32), 1)
    assert np.isfinite(found.loss)
    assert found.not_finite == "gradient/0.output"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"image": IMAGE[np.newaxis]}, DataError, r"the image has shape \(1, 7, 6, 2\), but model 'all kinds' takes"),
        ({"label": 3}, DataError, r"labels\[0\] is 3, but the model has 3 classes"),
        ({"model": MODEL.prefix(11)}, ModelError, "a model that is trained or judged ends in Softmax"),
        ({"parameters": {}}, DataError, "parameters lack 1.kernel"),
        ({"model": "seed-tf"}, OptionError, "expected a cnnkit.Model"),
        ({"precision": "float16"}, OptionError, "float16"),
    ],
)
def test_what_cannot_be_traced_is_refused_in_a_sentence(change, error, said):
    arguments = {"model": MODEL, "parameters": parameters(), "image": IMAGE, "label": LABEL, **change}
    with pytest.raises((error, cnnkit.BackendError), match=said):
        trace(**arguments)


def test_gradients_of_large_maps_are_refused_before_anything_is_computed():
    model = Model(input_shape=(97, 96, 1), layers=[Rescale(scale=1), Flatten(), Dense(units=2), Softmax()])
    given, image = initial_parameters(model), np.ones((97, 96, 1), np.float32)
    with pytest.raises(OptionError, match=r"layers\[0\] is 97 x 96 x 1, and a trace follows gradients .* 9,216 pixels"):
        trace(model, given, image, 0)
    assert trace(model, given, image, 0, gradients=False).outputs[2].shape == (2,)


def test_a_dropout_layer_may_come_first():
    model = Model(input_shape=(4,), layers=[Dropout(rate=0.5), Dense(units=2), Softmax()])
    found = trace(model, initial_parameters(model), np.arange(1, 5, dtype=np.uint8), 0, seed=1)
    mask = dropout_mask(1, 0, 0, (1, 4), 0.5)[0]
    np.testing.assert_array_equal(found.outputs[0], np.arange(1, 5, dtype=np.float32) * mask)
    assert set(mask.tolist()) == {0.0, 2.0}
