import math

import numpy as np
import pytest

from cnnkit.errors import DataError, OptionError
from cnnkit.model import Conv2D, Dense, Flatten, Model, ReLU, Softmax
from cnnkit.parameters import check_parameters, initial_parameters

MODEL = Model(
    input_shape=(6, 5, 2),
    layers=[Conv2D(filters=3, kernel_size=(3, 2)), ReLU(), Flatten(), Dense(units=4, use_bias=False), Softmax()],
)

# A kernel of 5 x 4 x 10 x 50 = 10,000 numbers, and a dense one of 200 x 50; both have these fans:
FANS = {"conv": (5 * 4 * 10, 5 * 4 * 50), "dense": (200, 50)}


def kernel(kind, initializer, seed=0):
    if kind == "conv":
        layers = [Conv2D(filters=50, kernel_size=(5, 4), kernel_initializer=initializer)]
        return initial_parameters(Model(input_shape=(5, 4, 10), layers=layers), seed, "float64")["0.kernel"]
    layers = [Dense(units=50, kernel_initializer=initializer)]
    return initial_parameters(Model(input_shape=(200,), layers=layers), seed, "float64")["0.kernel"]


# ------------------------------------------------------------------------------------------------------- initial values


def test_parameters_are_named_by_the_index_of_their_layer_and_shaped_by_the_plan():
    parameters = initial_parameters(MODEL)
    assert {name: array.shape for name, array in parameters.items()} == {
        "0.kernel": (3, 2, 2, 3),
        "0.bias": (3,),
        "3.kernel": (48, 4),
    }
    assert {array.dtype for array in parameters.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", ["conv", "dense"])
@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        ("glorot_uniform", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
        ("glorot_normal", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
        ("he_uniform", lambda fan_in, _: 2 / fan_in),
        ("he_normal", lambda fan_in, _: 2 / fan_in),
    ],
)
def test_the_variance_is_that_of_the_formula(kind, initializer, variance):
    values = kernel(kind, initializer)
    sigma = math.sqrt(variance(*FANS[kind]))
    assert values.size == 10_000
    assert values.mean() == pytest.approx(0, abs=5 * sigma / 100)  # five standard errors
    assert values.std() == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("kind", ["conv", "dense"])
@pytest.mark.parametrize("initializer", ["glorot_uniform", "he_uniform"])
def test_uniform_values_fill_their_bounds_evenly(kind, initializer):
    fan_in, fan_out = FANS[kind]
    limit = math.sqrt(6 / (fan_in + fan_out)) if initializer == "glorot_uniform" else math.sqrt(6 / fan_in)
    values = kernel(kind, initializer) / limit
    assert 0.99 < values.max() <= 1
    assert -1 <= values.min() < -0.99
    assert np.histogram(values, bins=4, range=(-1, 1))[0] == pytest.approx(2500, abs=220)  # five standard deviations


@pytest.mark.parametrize("initializer", ["glorot_normal", "he_normal"])
def test_normal_values_are_normal_and_not_cut_off(initializer):
    values = kernel("dense", initializer)
    values /= values.std()
    assert abs(values).max() > 3
    for bound, inside in ((1, 0.6827), (2, 0.9545)):
        assert (abs(values) < bound).mean() == pytest.approx(inside, abs=0.02)


def test_every_bias_is_zero():
    assert not initial_parameters(MODEL, seed=5)["0.bias"].any()


def test_single_precision_is_double_precision_rounded():
    single, double = initial_parameters(MODEL, 1, "float32"), initial_parameters(MODEL, 1, "float64")
    for name, array in double.items():
        assert array.dtype == np.float64
        assert single[name].tobytes() == array.astype(np.float32).tobytes()
    assert any((array != single[name]).any() for name, array in double.items())


def test_the_same_seed_gives_the_same_values_and_another_gives_others():
    first, again, other = (initial_parameters(MODEL, seed)["0.kernel"] for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert not np.isin(first, other).any()
    first[:] = 0
    assert again.any()


def test_the_values_of_a_layer_do_not_depend_on_the_other_layers():
    alone = Model(input_shape=(6, 5, 2), layers=[Conv2D(filters=3, kernel_size=(3, 2))])
    assert initial_parameters(alone)["0.kernel"].tobytes() == initial_parameters(MODEL)["0.kernel"].tobytes()


def test_equal_layers_at_different_places_have_different_values():
    twins = Model(input_shape=(5,), layers=[Dense(units=5), Dense(units=5)])
    parameters = initial_parameters(twins)
    assert not np.isin(parameters["0.kernel"], parameters["1.kernel"]).any()


def test_the_values_come_from_the_documented_stream_and_formula():
    """A later release of cnnkit must begin an old run at the same point."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([7, 1, 0, 0, 3])))
    limit = math.sqrt(6 / (48 + 4))
    expected = generator.uniform(-limit, limit, (48, 4)).astype(np.float32)
    assert initial_parameters(MODEL, seed=7)["3.kernel"].tobytes() == expected.tobytes()


def test_a_precision_or_seed_that_is_none_is_refused():
    with pytest.raises(OptionError, match="precision is 'half'"):
        initial_parameters(MODEL, precision="half")
    with pytest.raises(OptionError, match="seed is -1"):
        initial_parameters(MODEL, seed=-1)


# --------------------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_of_the_model_pass(dtype):
    parameters = {name: array.astype(dtype) for name, array in initial_parameters(MODEL).items()}
    check_parameters(MODEL.plan(), dict(reversed(parameters.items())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.bias": None}, r"^parameters lack 0.bias; model needs 0.kernel, 0.bias, 3.kernel. Use the parameters that"),
        ({"9.bias": np.zeros(1)}, r"^parameters have 9.bias too many; model needs"),
        ({"0.bias": None, "0.biases": np.zeros(3)}, r"^parameters lack 0.bias and have 0.biases too many;"),
        (
            {"3.kernel": np.zeros((4, 48))},
            r"parameter '3.kernel' is float64 of shape \(4, 48\); model needs floating-point numbers of shape \(48, 4\)",
        ),
        ({"0.bias": np.zeros(3, int)}, r"parameter '0.bias' is int64 of shape \(3,\); model needs floating-point"),
        ({"0.bias": np.zeros(3, complex)}, r"parameter '0.bias' is complex128"),
    ],
)
def test_other_parameters_are_refused(change, message):
    parameters = initial_parameters(MODEL) | change
    with pytest.raises(DataError, match=message):
        check_parameters(MODEL.plan(), {name: array for name, array in parameters.items() if array is not None})


def test_a_model_without_parameters_needs_none():
    plan = Model(name="bare", input_shape=(2,), layers=[ReLU()]).plan()
    check_parameters(plan, {})
    with pytest.raises(DataError, match=r"have x too many; model 'bare' needs none"):
        check_parameters(plan, {"x": np.zeros(1)})


def test_lists_in_place_of_arrays_are_refused_with_a_sentence():
    model = Model(input_shape=(2,), layers=[Dense(units=1, use_bias=False)])
    with pytest.raises(DataError, match=r"parameter '0.kernel' is a list; model needs floating-point numbers"):
        check_parameters(model.plan(), {"0.kernel": [[1.0], [2.0]]})
