"""The layers of the batched backends on three engines: the array API on NumPy, on its strict referee, and quick NumPy."""

import array_api_strict
import naive
import numpy as np
import pytest
from batched import Loose, Tight, masks_of, there_and_back, worst_units
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CLASSIFIERS, batch, classifier, convolutions, poolings, random_parameters

from cnnkit import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    MaxPool2D,
    Model,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)
from cnnkit_batched import layers, network
from cnnkit_batched.numpy_engine import NumpyEngine
from cnnkit_batched.plain_engine import PlainEngine

STRICTEST = array_api_strict.ArrayAPIStrictFlags(
    boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
)
"""Without what a GPU would have to wait for, and what a library may lack."""

FEW = settings(derandomize=True, deadline=None, max_examples=40)

MODELS = CLASSIFIERS | {
    "relu before a pool": classifier(ReLU(), MaxPool2D(pool_size=2)),
    "relu after a pool": classifier(MaxPool2D(pool_size=(2, 1), strides=1), ReLU()),
    "tanh before a pool": classifier(Tanh(), MaxPool2D(pool_size=2)),
    "two activations": classifier(Conv2D(filters=2, kernel_size=2, activation="relu"), Sigmoid()),
    "pool of an odd image": classifier(MaxPool2D(pool_size=2), input_shape=(8, 7, 2)),
    "pool of pools": classifier(MaxPool2D(pool_size=2), MaxPool2D(pool_size=2), input_shape=(9, 8, 2)),
    "rescale first": Model(
        input_shape=(5, 4, 3),
        layers=[
            Rescale(scale=0.5, offset=-0.25),
            Grayscale(weights="luma"),
            Conv2D(filters=3, kernel_size=(2, 3), dilation=(2, 1), activation="relu"),
            Flatten(),
            Dense(units=3),
            Softmax(),
        ],
    ),
    "rescale inside": classifier(Rescale(scale=2.0, offset=1.0), Grayscale(), Rescale(scale=-0.5)),
    "strides above the kernel": classifier(Conv2D(filters=2, kernel_size=1, strides=(3, 2)), input_shape=(7, 6, 2)),
    "many convolutions": Model(
        input_shape=(11, 10, 2),
        layers=[
            Conv2D(filters=3, kernel_size=3, padding="same", activation="tanh"),
            Conv2D(filters=4, kernel_size=(3, 2), activation="relu"),
            Conv2D(filters=3, kernel_size=2, dilation=(2, 3), padding=((1, 2), (0, 3)), activation="sigmoid"),
            Conv2D(filters=2, kernel_size=3, strides=(2, 3), padding=((0, 1), (2, 0)), use_bias=False),
            AvgPool2D(pool_size=2, strides=1, padding="same"),
            Dropout(rate=0.3),
            Flatten(),
            Dense(units=4),
            Softmax(),
        ],
    ),
}
ALL_MODELS = pytest.mark.parametrize("name", MODELS)
PRECISIONS = pytest.mark.parametrize("precision", ["float32", "float64"])


def plain(precision, xp=np):
    return PlainEngine(xp, np.dtype(precision))


def quick(precision, block=None):
    """The engine on NumPy; `block` numbers at once make blocks and bands of small images too."""
    engine = NumpyEngine(np.dtype(precision))
    if block is not None:
        engine.block = block
    return engine


def given_to(model, precision, count=3):
    return batch(model, count, dtype=np.dtype(precision).type)


def assert_right(passes, model, images, labels, precision):
    """Outputs by loops over pixels, the loss too; and every gradient within the suite's bound on rounding."""
    plan = model.plan()
    parameters = random_parameters(plan, 0, np.dtype(precision))
    unit = float(np.finfo(precision).eps)
    expected = naive.predict(plan, parameters, images)
    assert passes.probabilities.dtype == precision
    if "Dropout" not in {type(layer).__name__ for layer in model.layers}:  # whose masks are in what was learned from
        np.testing.assert_allclose(passes.probabilities, expected, rtol=0, atol=32 * unit)
    loss = naive.loss(plan, parameters, images, labels, masks_of(plan, len(images)))
    assert passes.losses.mean() == pytest.approx(loss, rel=64 * unit)
    worst_units(passes, model, images, labels)


@PRECISIONS
@ALL_MODELS
def test_the_same_lines_give_the_same_bits_on_numpy_and_on_the_strict_array_api(name, precision):
    model = MODELS[name]
    images, labels = given_to(model, precision)
    on_numpy = there_and_back(plain(precision), model, images, labels)
    with STRICTEST:
        on_strict = there_and_back(plain(precision, array_api_strict), model, images, labels)
    for one, other in zip(on_numpy.arrays(), on_strict.arrays(), strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


@PRECISIONS
@ALL_MODELS
def test_the_plain_engine_is_within_rounding_of_loops_over_pixels(name, precision):
    model = MODELS[name]
    images, labels = given_to(model, precision)
    passes = there_and_back(plain(precision), model, images, labels)
    assert_right(passes, model, images, labels, precision)


@PRECISIONS
@ALL_MODELS
def test_the_numpy_engine_is_within_rounding_of_loops_over_pixels(name, precision):
    model = MODELS[name]
    images, labels = given_to(model, precision)
    passes = there_and_back(quick(precision), model, images, labels, arena=Tight)
    assert_right(passes, model, images, labels, precision)


def sandwich(inner):
    """The layers of `inner` between two with parameters, and what they are given."""
    first = Conv2D(filters=inner.input_shape[2], kernel_size=1, activation="tanh")
    return Model(input_shape=inner.input_shape, layers=[first, *inner.layers, Flatten(), Dense(units=3), Softmax()])


def assert_close(one, other):
    """As close as float64 leaves two orders of adding up numbers near 1."""
    for mine, others in zip(one.arrays(), other.arrays(), strict=True):
        np.testing.assert_allclose(mine, others, rtol=1e-11, atol=1e-12)


@FEW
@given(st.one_of(convolutions(), poolings()), st.integers(0, 9))
def test_random_layers_give_the_same_bits_on_numpy_and_on_the_strict_array_api(inner, seed):
    model = sandwich(inner)
    images, labels = batch(model, 2, seed)
    on_numpy = there_and_back(plain("float64"), model, images, labels, seed=seed)
    with STRICTEST:
        on_strict = there_and_back(plain("float64", array_api_strict), model, images, labels, seed=seed)
    for one, other in zip(on_numpy.arrays(), on_strict.arrays(), strict=True):
        assert one.tobytes() == other.tobytes()


@settings(FEW, max_examples=120)
@given(
    st.one_of(convolutions(), poolings()),
    st.integers(1, 4),
    st.sampled_from([None, 1, 30, 150, 600, 0]),
    st.sampled_from([Loose, Tight]),
    st.integers(0, 9),
)
def test_random_layers_on_the_numpy_engine_are_those_on_the_plain_one(inner, count, block, arena, seed):
    """In blocks of images and in bands of rows, whatever fits into `block` numbers; 0 is no limit."""
    model = sandwich(inner)
    images, labels = batch(model, count, seed)
    expected = there_and_back(plain("float64"), model, images, labels, seed=seed)
    assert_close(there_and_back(quick("float64", block), model, images, labels, arena=arena, seed=seed), expected)


@pytest.mark.parametrize("block", [1, 100, 400, 3000, 0])
@pytest.mark.parametrize("name", ["many convolutions", "deep", "relu before a pool", "rescale first"])
def test_blocks_of_any_size_compute_what_one_block_computes(name, block):
    model = MODELS[name]
    images, labels = given_to(model, "float64", 5)
    expected = there_and_back(plain("float64"), model, images, labels)
    assert_close(there_and_back(quick("float64", block), model, images, labels, arena=Tight), expected)


@pytest.mark.parametrize("engine", [plain, quick])
def test_the_input_gradient_by_a_turned_convolution_is_that_by_scattering(monkeypatch, engine):
    """Which of both is taken is a matter of speed: the count of turned kernels shows that both were."""
    turned = []
    kind = type(engine("float64"))
    turn = kind.turn
    monkeypatch.setattr(kind, "turn", lambda self, *given: turned.append(1) or turn(self, *given))
    found, counts = [], []
    model = Model(
        input_shape=(12, 11, 2),
        layers=[
            Conv2D(filters=3, kernel_size=(3, 2), activation="tanh"),
            Conv2D(filters=5, kernel_size=(2, 4), padding=((1, 0), (0, 3)), activation="tanh"),
            Conv2D(filters=4, kernel_size=(3, 2), dilation=(2, 3), padding="same", activation="tanh"),
            Conv2D(filters=2, kernel_size=1, activation="tanh"),
            Flatten(),
            Dense(units=3),
            Softmax(),
        ],
    )
    images, labels = given_to(model, "float64", 4)
    for most in (0.0, 100.0):
        monkeypatch.setattr(layers, "MOST_EXTRA", most)
        turned.clear()
        passes = there_and_back(engine("float64"), model, images, labels)
        worst_units(passes, model, images, labels)
        found.append(passes)
        counts.append(len(turned))
    assert counts == [0, 3]
    assert_close(*found)


@pytest.mark.parametrize("engine", [plain, quick])
def test_nothing_turns_back_into_what_has_no_parameters(monkeypatch, engine):
    """The first layer that learns is the last that a gradient reaches: the gradient of the images is not worked out."""
    kind = type(engine("float64"))
    made = []
    for name in ("turn", "scatter", "spread"):
        method = getattr(kind, name)
        monkeypatch.setattr(
            kind, name, lambda self, *given, name=name, method=method: made.append(name) or method(self, *given)
        )
    first = [AvgPool2D(pool_size=2, strides=1), Conv2D(filters=3, kernel_size=3, padding="same")]
    model = Model(input_shape=(6, 6, 1), layers=[*first, Flatten(), Dense(units=3), Softmax()])
    images, labels = given_to(model, "float64")
    worst_units(there_and_back(engine("float64"), model, images, labels), model, images, labels)
    assert made == []


@pytest.mark.parametrize("engine", [plain, quick])
@pytest.mark.parametrize(
    "pool",
    [
        MaxPool2D(pool_size=2),
        MaxPool2D(pool_size=3, strides=1, padding="same"),
        MaxPool2D(pool_size=(2, 3), strides=(3, 2), padding=((1, 0), (2, 1))),
    ],
    ids=str,
)
def test_relu_and_a_maximum_change_places_without_changing_a_number(monkeypatch, engine, pool):
    """Half of what the convolution gives is negative: there ReLU makes ties, and other pixels win."""
    convolution = Conv2D(filters=3, kernel_size=2, activation="relu")
    layers_of_it = [convolution, pool, Flatten(), Dense(units=3), Softmax()]
    model = Model(input_shape=(9, 8, 2), layers=layers_of_it)
    images, labels = given_to(model, "float32", 5)
    monkeypatch.setattr(layers, "can_pool", lambda *_: False)  # which sums in another order
    shorter = there_and_back(engine("float32"), model, images, labels)
    monkeypatch.setattr(network, "simplified", list)
    as_written = there_and_back(engine("float32"), model, images, labels)
    for one, other in zip(shorter.arrays(), as_written.arrays(), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    assert np.count_nonzero(shorter.vector) > 0


POOLS = {
    "2 x 2": MaxPool2D(pool_size=2),
    "uneven, apart": MaxPool2D(pool_size=(3, 2), strides=(4, 3)),
    "one pixel": MaxPool2D(pool_size=1, strides=2),
}


@pytest.mark.parametrize("engine", [plain, quick])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("pool", POOLS)
def test_pools_by_place_are_the_pools_after_the_convolution(monkeypatch, engine, pool, padding):
    """Sizes leave pixels that no pool sees; a second convolution asks for the gradient of the first one's pools."""
    image = [Conv2D(filters=3, kernel_size=2, padding=padding, activation="relu"), POOLS[pool]]
    image += [Conv2D(filters=2, kernel_size=2, padding=padding, dilation=1), POOLS["2 x 2"]]
    model = Model(input_shape=(19, 15, 2), layers=[*image, Flatten(), Dense(units=3), Softmax()])
    images, labels = given_to(model, "float64", 5)
    by_place = there_and_back(engine("float64"), model, images, labels)
    asked = []
    monkeypatch.setattr(layers, "can_pool", lambda *given: asked.append(given))  # None: no
    apart = there_and_back(engine("float64"), model, images, labels)
    assert len(asked) == 2
    for one, other in zip(by_place.arrays(), apart.arrays(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("conv", "pool"),
    [
        (Conv2D(filters=3, kernel_size=2), MaxPool2D(pool_size=3, strides=2)),
        (Conv2D(filters=3, kernel_size=2), MaxPool2D(pool_size=2, padding="same", strides=3)),
        (Conv2D(filters=3, kernel_size=2, strides=2), MaxPool2D(pool_size=2)),
    ],
    ids=["overlapping", "with a border", "after strides, whose way back needs all patches"],
)
def test_other_pools_are_not_worked_out_by_place(monkeypatch, conv, pool):
    made = []
    monkeypatch.setattr(layers, "pooled_convolution", lambda *given: made.append(given))
    first = Conv2D(filters=2, kernel_size=1)
    model = Model(input_shape=(11, 11, 2), layers=[first, conv, pool, Flatten(), Dense(units=3), Softmax()])
    images, labels = given_to(model, "float64", 3)
    worst_units(there_and_back(quick("float64"), model, images, labels), model, images, labels)
    assert made == []
