"""Every layer against numbers that were worked out by hand, forward and backward."""

import math

import numpy as np
import pytest
from networks import classifier, input_gradient, output, predictor, trainer

from cnnkit import (
    SGD,
    Adam,
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
    dropout_mask,
    fresh_state,
)
from cnnkit_numpy.backend import NumpyBackend

BOTH = pytest.mark.parametrize("precision", ["float32", "float64"])
NAN, INF = math.nan, math.inf


def grey(rows):
    """Rows of numbers as an image (height, width, 1)."""
    return np.array(rows, float)[..., np.newaxis]


def plane(image):
    """An image (height, width, 1) as rows of numbers."""
    return image[..., 0].tolist()


# -------------------------------------------------------------------------------------------------------- convolution

COUNTING = grey([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
SQUARE_4 = grey([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])
LADDER = [[1, 10], [100, 1000]]  # its digits tell which pixel met which weight


@BOTH
@pytest.mark.parametrize(
    ("image", "kernel", "options", "expected"),
    [
        pytest.param(COUNTING, [[1, 2], [3, 4]], {}, [[44, 54, 64], [84, 94, 104]], id="not flipped"),
        pytest.param(COUNTING, [[1, 0, -1]], {}, [[-2, -2], [-2, -2], [-2, -2]], id="one row"),
        pytest.param(COUNTING, [[1], [2], [3]], {}, [[38, 44, 50, 56]], id="one column"),
        pytest.param(COUNTING, [[1, 2], [3, 4]], {"strides": (1, 2)}, [[44, 64], [84, 104]], id="strides"),
        pytest.param(COUNTING, [[1, 2], [3, 4]], {"strides": (2, 3)}, [[44]], id="strides leave a border"),
        pytest.param(COUNTING, [[3]], {"strides": (2, 3)}, [[3, 12], [27, 36]], id="strides larger than the kernel"),
        pytest.param(
            COUNTING,
            COUNTING[..., 0] * 0 + [[1], [10], [100]],
            {},
            [[10 + 260 + 4200]],
            id="kernel as large as the image",
        ),
        pytest.param(
            grey([[1, 2], [3, 4]]), LADDER, {"padding": "same"}, [[4321, 402], [43, 4]], id="same: odd pixel after"
        ),
        pytest.param(
            SQUARE_4,
            [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
            {"padding": "same", "strides": 2},
            [[54, 45], [72, 54]],
            id="same with strides: odd pixel after",
        ),
        pytest.param(
            grey([[1, 2], [3, 4]]),
            LADDER,
            {"padding": ((1, 0), (0, 2))},
            [[2100, 200, 0], [4321, 402, 0]],
            id="padding on two sides",
        ),
        pytest.param(COUNTING, LADDER, {"dilation": (2, 3)}, [[12_000 + 900 + 40 + 1]], id="dilation"),
        pytest.param(
            COUNTING,
            LADDER,
            {"dilation": (1, 2), "strides": (1, 1), "padding": ((0, 0), (0, 1))},
            [[7531, 8642, 703], [11_000 + 900 + 70 + 5, 12_000 + 1000 + 80 + 6, 1100 + 7]],
            id="dilation with padding",
        ),
        pytest.param(grey([[7]]), [[3]], {}, [[21]], id="one pixel"),
    ],
)
def test_convolution(image, kernel, options, expected, precision):
    kernel = np.array(kernel, float)
    layer = Conv2D(filters=1, kernel_size=kernel.shape, use_bias=False, **options)
    made = output([layer], image.astype(precision), {"0.kernel": kernel[..., np.newaxis, np.newaxis]}, precision)
    assert made.dtype == precision
    assert plane(made) == expected


@BOTH
def test_convolution_adds_up_channels_and_has_one_kernel_and_one_bias_a_filter(precision):
    image = np.array([[[1, 2, 3], [4, 5, 6]]], precision)  # 1 x 2 pixels, 3 channels
    kernel = np.zeros((1, 2, 3, 2))
    kernel[0, :, :, 0] = [[1, 10, 100], [1000, 10_000, 100_000]]
    kernel[0, :, :, 1] = [[1, 0, 0], [0, 0, -1]]
    parameters = {"0.kernel": kernel, "0.bias": np.array([0.5, 100])}
    made = output([Conv2D(filters=2, kernel_size=(1, 2))], image, parameters, precision)
    assert made.tolist() == [[[654321.5, 1 - 6 + 100]]]


@pytest.mark.parametrize(
    ("options", "dy", "expected"),
    [
        ({}, [[1, 0, 0], [0, 0, 0]], [[1, 10, 0, 0], [100, 1000, 0, 0], [0, 0, 0, 0]]),
        ({}, [[1, 2, 0], [0, 0, 0]], [[1, 12, 20, 0], [100, 1200, 2000, 0], [0, 0, 0, 0]]),
        ({"strides": (2, 2)}, [[1, 2]], [[1, 10, 2, 20], [100, 1000, 200, 2000], [0, 0, 0, 0]]),
        ({"strides": (1, 3)}, [[1], [2]], [[1, 10, 0, 0], [102, 1020, 0, 0], [200, 2000, 0, 0]]),
        ({"dilation": (2, 3)}, [[5]], [[5, 0, 0, 50], [0, 0, 0, 0], [500, 0, 0, 5000]]),
        ({"padding": ((1, 0), (0, 0)), "strides": 2}, [[1, 0], [0, 0]], [[100, 1000, 0, 0], [0] * 4, [0] * 4]),
    ],
    ids=["one output", "overlapping patches", "no overlap, unused row", "unused column", "dilation", "padding"],
)
def test_gradient_of_a_convolutions_input(options, dy, expected):
    kernel = np.array(LADDER, float)[..., np.newaxis, np.newaxis]
    layer = Conv2D(filters=1, kernel_size=2, use_bias=False, **options)
    gradient = input_gradient([layer], COUNTING, grey(dy), {"0.kernel": kernel})
    np.testing.assert_allclose(gradient, grey(expected), rtol=1e-13)


# ------------------------------------------------------------------------------------------------------------ pooling

MIXED = grey([[1, 9, 2, 8], [3, 4, 7, 5], [6, 0, -1, -2]])
NEGATIVE = grey([[-1, -2, -3], [-4, -5, -6], [-7, -8, -9]])


@BOTH
@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        pytest.param(MIXED, {}, [[9, 8]], id="moves by its size, the odd row is unused"),
        pytest.param(MIXED, {"strides": 1}, [[9, 9, 8], [6, 7, 7]], id="overlapping"),
        pytest.param(MIXED, {"pool_size": (3, 1)}, [[6, 9, 7, 8]], id="not square"),
        pytest.param(
            MIXED, {"pool_size": 1, "strides": (2, 3)}, [[1, 8], [6, -2]], id="strides larger than the window"
        ),
        pytest.param(NEGATIVE, {"padding": "same"}, [[-1, -3], [-7, -9]], id="same: padding is no 0"),
        pytest.param(NEGATIVE, {"padding": ((1, 1), (1, 0))}, [[-1, -2], [-4, -5]], id="padding is no 0"),
        pytest.param(grey([[-INF, -INF], [-INF, -3]]), {}, [[-3]], id="minus infinity is a number"),
        pytest.param(grey([[-INF, -INF], [-INF, -INF]]), {}, [[-INF]], id="nothing but minus infinity"),
        pytest.param(grey([[-INF]]), {"padding": ((1, 0), (0, 1))}, [[-INF]], id="padding is minus infinity"),
        pytest.param(grey([[1, INF], [2, 3]]), {}, [[INF]], id="infinity"),
    ],
)
def test_max_pooling(image, options, expected, precision):
    made = output([MaxPool2D(**options)], image.astype(precision), precision=precision)
    assert plane(made) == expected


@BOTH
@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        pytest.param(MIXED, {}, [[4.25, 5.5]], id="moves by its size, the odd row is unused"),
        pytest.param(MIXED, {"strides": 1}, [[4.25, 5.5, 5.5], [3.25, 2.5, 2.25]], id="overlapping"),
        pytest.param(MIXED, {"pool_size": (1, 4)}, [[5], [4.75], [0.75]], id="not square"),
        pytest.param(
            MIXED, {"pool_size": 1, "strides": (2, 3)}, [[1, 8], [6, -2]], id="strides larger than the window"
        ),
        pytest.param(NEGATIVE, {"padding": "same"}, [[-3, -4.5], [-7.5, -9]], id="same: padding is not counted"),
        pytest.param(NEGATIVE, {"padding": ((1, 1), (1, 0))}, [[-1, -2.5], [-5.5, -7]], id="padding is not counted"),
    ],
)
def test_average_pooling(image, options, expected, precision):
    made = output([AvgPool2D(**options)], image.astype(precision), precision=precision)
    assert plane(made) == expected


@pytest.mark.parametrize("layer", [MaxPool2D(), AvgPool2D()], ids=["max", "average"])
def test_pooling_keeps_channels_apart(layer):
    image = np.stack([np.full((2, 2), 3.0), np.full((2, 2), -7.0), np.full((2, 2), 0.5)], axis=-1)
    assert output([layer], image).tolist() == [[[3.0, -7.0, 0.5]]]


@pytest.mark.parametrize(
    ("image", "options", "dy", "expected"),
    [
        ([[1, 9], [3, 4]], {}, [[5]], [[0, 5], [0, 0]]),
        ([[7, 7], [7, 7]], {}, [[5]], [[5, 0], [0, 0]]),
        ([[1, 7], [7, 7]], {}, [[5]], [[0, 5], [0, 0]]),
        ([[1, 2], [7, 7]], {}, [[5]], [[0, 0], [5, 0]]),
        ([[-4, -4], [-4, -4]], {"padding": ((1, 1), (1, 1))}, [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ([[7] * 3] * 3, {"strides": 1}, [[1, 2], [3, 4]], [[1, 2, 0], [3, 4, 0], [0, 0, 0]]),
        ([[0, 0, 0], [0, 9, 0], [0, 0, 0]], {"strides": 1}, [[1, 2], [3, 4]], [[0, 0, 0], [0, 10, 0], [0, 0, 0]]),
        ([[7] * 5] * 3, {}, [[1, 2]], [[1, 0, 2, 0, 0], [0] * 5, [0] * 5]),
        ([[1, 2, 3], [4, 5, 6]], {"pool_size": 1, "strides": (1, 2)}, [[1, 2], [3, 4]], [[1, 0, 2], [3, 0, 4]]),
    ],
    ids=[
        "to the maximum",
        "constant: to the first",
        "tie in the row: to the first",
        "tie below: to the left",
        "never to padding",
        "constant, overlapping",
        "one maximum of four windows gets all four",
        "unused border gets 0",
        "gaps between windows get 0",
    ],
)
def test_gradient_of_max_pooling(image, options, dy, expected):
    gradient = input_gradient([MaxPool2D(**options)], grey(image), grey(dy))
    np.testing.assert_allclose(gradient, grey(expected), rtol=1e-13)


@pytest.mark.parametrize(
    ("shape", "options", "dy", "expected"),
    [
        ((2, 2), {}, [[8]], [[2, 2], [2, 2]]),
        ((3, 3), {"strides": 1}, [[4, 8], [12, 16]], [[1, 3, 2], [4, 10, 6], [3, 7, 4]]),
        ((3, 3), {"padding": "same"}, [[4, 6], [8, 5]], [[1, 1, 3], [1, 1, 3], [4, 4, 5]]),
        ((3, 5), {}, [[4, 8]], [[1, 1, 2, 2, 0], [1, 1, 2, 2, 0], [0] * 5]),
    ],
    ids=["shared equally", "overlapping", "padding takes no share", "unused border gets 0"],
)
def test_gradient_of_average_pooling(shape, options, dy, expected):
    gradient = input_gradient([AvgPool2D(**options)], np.ones((*shape, 1)), grey(dy))
    np.testing.assert_allclose(gradient, grey(expected), rtol=1e-13)


# ---------------------------------------------------------------------------------------- dense, flatten, preprocessing


@BOTH
def test_dense_is_inputs_times_kernel_plus_bias(precision):
    kernel = np.array([[1, 10], [100, 1000], [-1, 0]], float)  # (features, units)
    parameters = {"0.kernel": kernel, "0.bias": np.array([0.5, -0.5])}
    made = output([Dense(units=2)], np.array([1, 2, 3], precision), parameters, precision)
    assert made.tolist() == [1 + 200 - 3 + 0.5, 10 + 2000 - 0.5]
    without = output([Dense(units=2, use_bias=False)], np.array([1, 2, 3], precision), {"0.kernel": kernel}, precision)
    assert without.tolist() == [198, 2010]


def test_gradients_of_dense_and_softmax_by_hand():
    """Scores (ln 3, 0): probabilities 3/4 and 1/4."""
    parameters = {"0.kernel": np.array([[math.log(3), 0.0], [0.0, 0.0]]), "0.bias": np.zeros(2)}
    model = Model(input_shape=(2,), layers=[Dense(units=2), Softmax()])
    optimizer = SGD(learning_rate=0.1)
    program = NumpyBackend("float64").compile_training(model.plan(), fresh_state(parameters, optimizer), optimizer)
    loss, gradients = program.gradients(np.array([[1.0, 2.0]]), np.array([1]))
    assert loss == pytest.approx(math.log(4), rel=1e-15)
    np.testing.assert_allclose(gradients["0.bias"], [0.75, -0.75], rtol=1e-15)
    np.testing.assert_allclose(gradients["0.kernel"], [[0.75, -0.75], [1.5, -1.5]], rtol=1e-15)


def test_flatten_is_row_major_over_height_width_channels():
    image = np.arange(12.0).reshape(2, 3, 2)
    assert output([Flatten()], image).tolist() == list(range(12))
    by_hand = [image[h, w, c] for h in range(2) for w in range(3) for c in range(2)]
    assert output([Flatten()], image).tolist() == by_hand


@BOTH
def test_rescale_multiplies_then_adds(precision):
    image = np.array([[[0, 51, 255]]], np.uint8)
    made = output([Rescale(scale=2.0, offset=-1.0)], image, precision=precision)
    assert made.tolist() == [[[-1.0, 101.0, 509.0]]]
    assert output([Rescale(scale=0.5)], image, precision=precision).tolist() == [[[0.0, 25.5, 127.5]]]


@BOTH
def test_grey_is_the_mean_of_the_channels_and_never_overflows(precision):
    image = np.array([[[255, 255, 255], [255, 0, 0], [3, 6, 9]]], np.uint8)
    made = output([Grayscale()], image, precision=precision)
    np.testing.assert_allclose(made, [[[255.0], [85.0], [6.0]]], rtol=3e-7)


@BOTH
def test_luma_weighs_red_green_and_blue(precision):
    image = np.array([[[255, 255, 255], [100, 0, 0], [0, 100, 0], [0, 0, 100]]], np.uint8)
    made = output([Grayscale(weights="luma")], image, precision=precision)
    np.testing.assert_allclose(made, [[[255.0], [29.9], [58.7], [11.4]]], rtol=3e-7)


def test_gradients_of_rescale_and_grey():
    image = np.ones((1, 2, 3))
    np.testing.assert_allclose(
        input_gradient([Rescale(scale=-2, offset=9)], image, image * 3), np.full((1, 2, 3), -6), rtol=1e-13
    )
    luma = input_gradient([Grayscale(weights="luma")], image, grey([[1, 10]]))
    np.testing.assert_allclose(luma, [[[0.299, 0.587, 0.114], [2.99, 5.87, 1.14]]], rtol=1e-13)


# -------------------------------------------------------------------------------------------------------- activations


@BOTH
@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (ReLU(), [0.0, 0.0, 0.0, 0.5, 3.0]),
        (Tanh(), [math.tanh(-3), math.tanh(-0.5), 0.0, math.tanh(0.5), math.tanh(3)]),
        (
            Sigmoid(),
            [1 / (1 + math.exp(3)), 1 / (1 + math.exp(0.5)), 0.5, 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-3))],
        ),
    ],
    ids=["relu", "tanh", "sigmoid"],
)
def test_activations(layer, expected, precision):
    made = output([layer], np.array([-3, -0.5, 0, 0.5, 3], precision), precision=precision)
    np.testing.assert_allclose(made, expected, atol=2 * np.finfo(precision).eps, rtol=0)


def test_an_activation_of_a_layer_is_the_layer_and_then_the_activation():
    parameters = {"0.kernel": np.array([[1.0, -1.0]]), "0.bias": np.zeros(2)}
    assert output([Dense(units=2, activation="relu")], np.array([2.0]), parameters).tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("layer", "slopes"),
    [
        (ReLU(), [0.0, 0.0, 1.0]),
        (Tanh(), [1 - math.tanh(1) ** 2, 1.0, 1 - math.tanh(2) ** 2]),
        (Sigmoid(), [math.e / (1 + math.e) ** 2, 0.25, math.exp(2) / (1 + math.exp(2)) ** 2]),
    ],
    ids=["relu, 0 at 0", "tanh", "sigmoid"],
)
def test_slopes_of_activations_at_minus_1_0_and_2(layer, slopes):
    dy = np.array([3.0, 5.0, 7.0])
    gradient = input_gradient([layer], grey([[-1, 0, 2]]), grey([dy]))
    np.testing.assert_allclose(gradient[0, :, 0], np.array(slopes) * dy, rtol=1e-12)


@pytest.mark.parametrize("extreme", [1e4, -1e4, 1e30, INF, -INF])
def test_sigmoid_and_tanh_saturate_without_overflow(extreme):
    image = np.array([extreme], np.float32)
    assert output([Sigmoid()], image, precision="float32") == (extreme > 0)
    assert output([Tanh()], image, precision="float32") == np.sign(extreme)


# ------------------------------------------------------------------------------------------------- softmax and the loss


def of_scores(scores, label, precision="float32"):
    """Probabilities and loss of a model whose scores are its input."""
    count = len(scores)
    model = Model(input_shape=(count,), layers=[Dense(units=count), Softmax()])
    parameters = {"0.kernel": np.eye(count), "0.bias": np.zeros(count)}
    optimizer = SGD(learning_rate=0.1)
    state = fresh_state(parameters, optimizer)
    program = NumpyBackend(precision).compile_training(model.plan(), state, optimizer)
    images = np.array([scores], precision)
    loss, gradients = program.gradients(images, np.array([label]))
    return program.predict(images)[0], loss, gradients["0.bias"]


@BOTH
def test_softmax_by_hand(precision):
    scores = [0.0, math.log(2), math.log(5)]
    probabilities, loss, gradient = of_scores(scores, 1, precision)
    tolerance = 4 * np.finfo(precision).eps
    np.testing.assert_allclose(probabilities, [1 / 8, 2 / 8, 5 / 8], rtol=tolerance)
    np.testing.assert_allclose(gradient, [1 / 8, -6 / 8, 5 / 8], rtol=tolerance)
    assert loss == pytest.approx(math.log(4), rel=float(tolerance))


@BOTH
@pytest.mark.parametrize("scores", [[1e4, -1e4, 0], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4], [1e4, 9999, 9998]])
def test_softmax_of_huge_scores_sums_to_one(scores, precision):
    probabilities = output([Softmax()], np.array(scores, precision), precision=precision)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert probabilities[0] == probabilities.max()


@BOTH
@pytest.mark.parametrize(
    ("scores", "label", "expected"),
    [
        ([300, -100], 1, 400.0),
        ([300, -100, 500], 0, 200.0),
        ([300, -100, 500], 1, 600.0),
        ([300, -100, 500], 2, 0.0),
        ([1e4, -1e4], 1, 2e4),
    ],
)
def test_the_loss_comes_from_scores_and_not_from_clipped_probabilities(scores, label, expected, precision):
    probabilities, loss, gradient = of_scores(scores, label, precision)
    assert loss == expected
    wanted = np.zeros(len(scores))
    wanted[label] -= 1
    wanted[np.argmax(scores)] += 1
    np.testing.assert_allclose(gradient, wanted, atol=1e-80)
    np.testing.assert_allclose(probabilities, np.arange(len(scores)) == np.argmax(scores), atol=1e-80)


def test_two_class_softmax_with_a_zero_is_the_sigmoid():
    for score in (-20.0, -1.0, 0.0, 0.3, 15.0):
        probabilities = output([Softmax()], np.array([score, 0.0]))
        assert probabilities[0] == pytest.approx(1 / (1 + math.exp(-score)), rel=1e-14)
        assert output([Sigmoid()], np.array([score]))[0] == pytest.approx(probabilities[0], abs=1e-15)


# ------------------------------------------------------------------------------------------------------------- dropout


def test_dropout_multiplies_by_the_hosts_mask_in_training_and_by_nothing_in_prediction():
    """Without kernels the scores are the biases, so the loss reads the mask of the layer before."""
    model = Model(input_shape=(4,), layers=[Dropout(rate=0.5), Dense(units=2), Softmax()])
    weights = np.array([1.0, 10.0, 100.0, 1000.0])
    parameters = {"1.kernel": np.stack([np.zeros(4), weights], axis=1), "1.bias": np.zeros(2)}
    optimizer = SGD(learning_rate=0.0)
    program = NumpyBackend("float64").compile_training(
        model.plan(), fresh_state(parameters, optimizer, seed=5), optimizer
    )
    ones, label = np.ones((1, 4)), np.array([0])
    seen = set()
    for step in range(4):
        mask = dropout_mask(5, step, 0, (1, 4), 0.5, np.float64)
        score = float(weights @ mask[0])  # doubled digits where a value was kept
        expected = math.log1p(math.exp(-score)) + score
        assert program.gradients(ones, label)[0] == pytest.approx(expected, rel=1e-14)
        assert float(program.step(ones, label)) == pytest.approx(expected, rel=1e-14)
        seen.add(score)
    assert len(seen) > 1
    probability = output([Dropout(rate=0.5)], np.array([1.0, 2.0]))
    assert probability.tolist() == [1.0, 2.0]


def test_prediction_of_a_training_program_uses_no_mask_and_training_goes_on_as_if_nothing_was():
    model = classifier(Dropout(rate=0.5))
    interrupted, other = trainer(model), trainer(model)
    images = np.random.default_rng(0).normal(size=(9, *model.input_shape))
    labels = np.arange(9) % 3
    for _ in range(2):
        expected = predictor(model, other.state().parameters).predict(images)
        np.testing.assert_array_equal(interrupted.predict(images), expected)
        np.testing.assert_array_equal(interrupted.predict(images), expected)
        assert float(interrupted.step(images, labels)) == float(other.step(images, labels))


# ------------------------------------------------------------------------------------------------- NaN and infinities


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("rest", [-1.0, INF])
@pytest.mark.parametrize("options", [{}, {"strides": 1}, {"padding": ((0, 1), (0, 1))}], ids=str)
@pytest.mark.parametrize("pooling", [MaxPool2D, AvgPool2D])
def test_a_nan_at_any_place_of_a_window_comes_out(pooling, options, rest, place):
    image = np.full((2, 2, 3), rest, np.float32)
    image[(*place, 1)] = NAN
    made = output([pooling(**options)], image, precision="float32")
    assert np.isnan(made[0, 0]).tolist() == [False, True, False]


@BOTH
@pytest.mark.parametrize(
    "layer", [ReLU(), Tanh(), Sigmoid(), Rescale(scale=0.0), Grayscale(), Flatten(), Dropout(rate=0.5)]
)
def test_nan_passes_through_every_layer_without_parameters(layer, precision):
    image = np.array([[[NAN]], [[1.0]]], precision)
    made = output([layer], image, precision=precision).ravel()
    assert np.isnan(made).tolist() == [True, False]


def test_nan_and_infinity_pass_through_layers_with_parameters_as_ieee_says():
    image = np.array([[[NAN]], [[1.0]], [[INF]], [[-INF]]], np.float32)
    made = output([Conv2D(filters=1, kernel_size=1)], image, {"0.kernel": np.ones((1, 1, 1, 1)), "0.bias": np.ones(1)})
    np.testing.assert_array_equal(made.ravel(), [NAN, 2.0, INF, -INF])
    dense = {"0.kernel": np.array([[1.0, 0.0], [-1.0, 0.0]]), "0.bias": np.zeros(2)}
    made = output([Dense(units=2)], np.array([INF, INF], np.float32), dense)
    assert np.isnan(made).all()  # infinity minus infinity, and infinity times 0
    assert np.isnan(output([Softmax()], np.array([NAN, 0.0, 1.0]))).all()
    assert np.isnan(output([Softmax()], np.array([INF, 0.0]))[0])
    assert output([Softmax()], np.array([-INF, 0.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("value", [NAN, INF, -INF, 3e38])
@pytest.mark.parametrize("count", [1, 9, 20])
@pytest.mark.parametrize("threads", [1, 2])
def test_no_warning_escapes_from_training_on_numbers_that_overflow(value, count, threads):
    """Warnings are errors here; batches of 9 and 20 are added up from several pieces."""
    model = classifier(MaxPool2D(), Conv2D(filters=2, kernel_size=1, activation="relu"))
    program = trainer(model, SGD(learning_rate=0.1, clip_global_norm=1.0), precision="float32", threads=threads)
    images = np.full((count, *model.input_shape), value, np.float32)
    images[::2] *= -1
    labels = np.arange(count) % 3
    program.predict(images)
    program.gradients(images, labels)
    program.step(images, labels)
    assert program.state().step == 1


def infinite_gradients(optimizer):
    """A program, and 16 images of which the first eight have the gradient minus infinity, the next eight infinity."""
    model = Model(input_shape=(1,), layers=[Dense(units=1, use_bias=False), Dense(units=2, use_bias=False), Softmax()])
    parameters = {"0.kernel": np.zeros((1, 1)), "1.kernel": np.array([[1e30, -1e30]])}
    program = NumpyBackend("float32").compile_training(model.plan(), fresh_state(parameters, optimizer), optimizer)
    return program, np.repeat([1e30, -1e30], 8).astype(np.float32)[:, np.newaxis], np.zeros(16, int)


def test_no_warning_escapes_where_the_pieces_of_a_batch_meet():
    program, images, labels = infinite_gradients(SGD(learning_rate=0.0))
    assert program.gradients(images[:8], labels[:8])[1]["0.kernel"] == -INF
    assert np.isnan(program.gradients(images, labels)[1]["0.kernel"])


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [(SGD(0.1), INF), (SGD(0.1, clip_global_norm=1.0), NAN), (Adam(0.1), NAN)],
    ids=["sgd", "clipped: infinity times 0", "adam: infinity by infinity"],
)
def test_no_warning_escapes_from_a_step_along_an_infinite_gradient(optimizer, expected):
    program, images, labels = infinite_gradients(optimizer)
    program.step(images[:8], labels[:8])
    np.testing.assert_array_equal(program.state().parameters["0.kernel"], [[expected]])
