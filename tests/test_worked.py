"""A convolution and a pooling worked out by hand, and held to what the backends compute."""

import numpy as np
import pytest

from cnnkit import (
    Conv2D,
    DataError,
    Dense,
    Flatten,
    MaxPool2D,
    Model,
    OptionError,
    Rescale,
    Softmax,
    get_backend,
    predict,
)
from cnnkit import initial_parameters as initial
from cnnkit.worked import as_text, explain_convolution, explain_max_pooling

EDGES = Model(input_shape=(3, 4, 1), layers=[Conv2D(filters=2, kernel_size=(2, 3), padding="same", activation="relu")])
KERNEL = np.zeros((2, 3, 1, 2), np.float32)
KERNEL[..., 0, 1] = [[1, 0, -2], [3, 0.5, 0]]
PARAMETERS = {"0.kernel": KERNEL, "0.bias": np.array([0, 0.25], np.float32)}
IMAGE = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)


def test_a_value_worked_out_by_hand():
    worked = explain_convolution(EDGES, PARAMETERS, IMAGE, "numpy", filter=1, at=(2, 0))
    # row 2 is the last, so the lower half of the patch is padding; so is its left column
    assert worked.top_left == (2, -1)
    assert worked.patch[..., 0].tolist() == [[0, 8, 9], [0, 0, 0]]
    assert worked.inside.tolist() == [[False, True, True], [False] * 3]
    assert worked.products[..., 0].tolist() == [[0, 0, -18], [0, 0, 0]]
    assert (worked.sums.tolist(), worked.bias, worked.value, worked.activated) == ([-18], 0.25, -17.75, 0)
    assert worked.backend_value == -17.75
    assert worked.result.shape == (3, 4)


def test_it_prints_as_a_table():
    text = str(explain_convolution(EDGES, PARAMETERS, IMAGE, "numpy", filter=1, at=(1, 3)))
    assert text == (
        "layers[0] (Conv2D), filter 1: the value at row 1, column 3 of the feature map\n"
        "\n"
        "patch                kernel                  products\n"
        " 6.0   7.0   (0)      1.00   0.00  -2.00      6.0   0.0   (0)\n"
        "10.0  11.0   (0)      3.00   0.50   0.00     30.0   5.5   (0)\n"
        "\n"
        "sum of the products           41.500\n"
        "bias                           0.250\n"
        "value                         41.750\n"
        "as the backend has it         41.750\n"
        "after relu                    41.750\n"
        "(0) is padding."
    )


LAYERS = {
    "valid": Conv2D(filters=3, kernel_size=(2, 3)),
    "strided": Conv2D(filters=3, kernel_size=3, strides=(2, 3), padding=((2, 1), (0, 2)), activation="tanh"),
    "dilated": Conv2D(filters=3, kernel_size=(3, 2), dilation=(2, 3), padding="same", use_bias=False),
}


@pytest.mark.parametrize("backend", ["numpy", "numpy-batched"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_values_all_over_a_map_are_what_the_backend_computes(layer, backend):
    first = Conv2D(filters=5, kernel_size=2, activation="sigmoid")
    model = Model(input_shape=(8, 9, 3), layers=[Rescale(scale=1 / 255), first, layer, Flatten(), Dense(units=2)])
    parameters = {name: array + 0.1 for name, array in initial(model, 4).items()}
    image = np.random.default_rng(1).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    height, width, _ = model.plan().layer_shapes[2]
    final = predict(model.prefix(2), parameters, image[np.newaxis], backend)[0]
    engine = get_backend(backend)
    for row in (0, height // 2, height - 1):
        for column in (0, width // 2, width - 1):
            worked = explain_convolution(model, parameters, image, engine, layer=2, filter=2, at=(row, column))
            assert worked.value == pytest.approx(worked.backend_value, rel=1e-5, abs=1e-5)
            assert worked.activated == pytest.approx(final[row, column, 2], rel=1e-5, abs=1e-5)


def test_a_colour_convolution_is_the_sum_of_one_for_each_channel():
    model = Model(input_shape=(5, 6, 3), layers=[Conv2D(filters=2, kernel_size=3)])
    parameters = initial(model, 2)
    image = np.random.default_rng(2).normal(size=(5, 6, 3)).astype(np.float32)
    worked = explain_convolution(model, parameters, image, filter=1, at=(1, 2))
    grey = Model(input_shape=(5, 6, 1), layers=[Conv2D(filters=2, kernel_size=3)])
    parts = [
        explain_convolution(
            grey,
            {**parameters, "0.kernel": parameters["0.kernel"][:, :, channel : channel + 1]},
            image[:, :, channel : channel + 1],
            filter=1,
            at=(1, 2),
        ).value
        for channel in range(3)
    ]
    np.testing.assert_allclose(worked.sums, parts, rtol=1e-12)
    assert worked.value == pytest.approx(sum(parts), rel=1e-12)


def test_without_a_place_the_highest_value_is_worked_out_and_nan_is_not_high():
    kernel = np.ones((1, 1, 1, 1), np.float32)
    model = Model(input_shape=(2, 3, 1), layers=[Conv2D(filters=1, kernel_size=1, use_bias=False, activation="relu")])
    image = np.array([[np.nan, -3, -2], [-1, -1, -5]], np.float32)[..., np.newaxis]
    worked = explain_convolution(model, {"0.kernel": kernel}, image)
    assert (worked.at, worked.value, worked.activated, worked.bias) == ((1, 0), -1, 0, None)


def test_of_many_channels_those_with_the_largest_sums_are_written_out():
    model = Model(input_shape=(1, 1, 6), layers=[Conv2D(filters=1, kernel_size=1)])
    parameters = {"0.kernel": np.ones((1, 1, 6, 1), np.float32), "0.bias": np.zeros(1, np.float32)}
    worked = explain_convolution(model, parameters, np.array([[[1, -7, 2, 6, -3, 5]]], np.float32))
    assert worked.shown == [1, 3, 4, 5]
    text = str(worked)
    assert "2 more channels" in text
    assert [line.split()[-1] for line in text.splitlines()[-9:]][:7] == [
        "-7.0000", "6.0000", "-3.0000", "5.0000", "3.0000", "4.0000", "0.0000",
    ]  # fmt: skip


def test_what_cannot_be_is_refused_in_a_sentence():
    with pytest.raises(
        OptionError, match=r"at is \(3, 0\); the feature maps of layers\[0\] have rows 0 to 2 and columns 0"
    ):
        explain_convolution(EDGES, PARAMETERS, IMAGE, at=(3, 0))
    for place in ((-1, 0), 5, (0, 1, 2), "no"):
        with pytest.raises(OptionError, match=r"Give a row and a column"):
            explain_convolution(EDGES, PARAMETERS, IMAGE, at=place)
    with pytest.raises(OptionError, match=r"filter is 2; layers\[0\] has filters 0 to 1"):
        explain_convolution(EDGES, PARAMETERS, IMAGE, filter=2)
    with pytest.raises(DataError, match=r"the image has shape \(3, 4\), but model takes 3 x 4 x 1\. Give one image"):
        explain_convolution(EDGES, PARAMETERS, IMAGE[..., 0])
    with pytest.raises(OptionError, match=r"has no MaxPool2D layer"):
        explain_max_pooling(EDGES, PARAMETERS, IMAGE)
    pool = Model(input_shape=(3, 4, 1), layers=[MaxPool2D()])
    with pytest.raises(OptionError, match=r"channel is 1; layers\[0\] has channels 0 to 0"):
        explain_max_pooling(pool, {}, IMAGE, channel=1)


# ------------------------------------------------------------------------------------------------------------ pooling


def pooled(values, layer):
    image = np.array(values, np.float32)[..., np.newaxis]
    return explain_max_pooling(Model(input_shape=image.shape, layers=[layer]), {}, image, "numpy")


def test_the_first_maximum_of_each_window_is_chosen():
    worked = pooled([[1, 5, 2, 2], [5, 0, 2, 3], [7, 7, 0, 0], [7, 7, 0, 0]], MaxPool2D(pool_size=2))
    assert worked.result.tolist() == [[5, 3], [7, 0]]
    assert worked.chosen.tolist() == [[[0, 1], [1, 3]], [[2, 0], [2, 2]]]


def test_padding_is_never_chosen_and_windows_may_overlap():
    layer = MaxPool2D(pool_size=(2, 3), strides=(1, 2), padding=((1, 0), (2, 1)))
    worked = pooled([[-9, -4, -5], [-6, -8, -7]], layer)
    assert worked.result.tolist() == [[-9, -4], [-6, -4]]
    assert worked.chosen.tolist() == [[[0, 0], [0, 1]], [[1, 0], [0, 1]]]


def test_the_maximum_of_a_window_with_nan_is_the_nan():
    worked = pooled([[9, 1, 2, 3], [8, np.nan, 4, 5]], MaxPool2D(pool_size=2))
    assert worked.chosen.tolist() == [[[1, 1], [1, 3]]]


@pytest.mark.parametrize("padding", ["valid", "same", ((0, 1), (1, 0))])
def test_the_chosen_cells_hold_what_the_backend_returns(padding):
    model = Model(
        input_shape=(7, 8, 1),
        layers=[
            Conv2D(filters=3, kernel_size=2),
            MaxPool2D(pool_size=(3, 2), strides=(2, 1), padding=padding),
            Flatten(),
            Dense(units=2),
            Softmax(),
        ],
    )
    image = np.random.default_rng(0).normal(size=(7, 8, 1)).astype(np.float32)
    worked = explain_max_pooling(model, initial(model), image, "numpy-batched", channel=2)
    np.testing.assert_array_equal(worked.source[worked.chosen[..., 0], worked.chosen[..., 1]], worked.result)
    assert worked.result.shape == model.plan().layer_shapes[1][:2]


# ------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.1234, -1.0], ["0.12", "-1.00"]),
        ([123.4, -0.2, 0], ["123", "0", "0"]),
        ([0.00123, -0.0000001], ["0.00123", "0.00000"]),
        ([1e-7, -2e-7], ["1.00e-07", "-2.00e-07"]),
        ([3e8], ["3.00e+08"]),
        ([0.0, -0.0], ["0", "0"]),
        ([np.nan, np.inf, 1.5], ["nan", "inf", "1.50"]),
        ([np.nan], ["nan"]),
    ],
)
def test_numbers_have_three_digits_of_the_largest_and_no_negative_zero(values, texts):
    assert as_text(np.array(values)).tolist() == texts
