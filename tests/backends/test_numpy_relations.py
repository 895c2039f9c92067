"""Facts about convolutions and pooling that need no reference: one way of computing equals another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    CLASSIFIERS,
    batch,
    convolutions,
    input_gradient,
    numbers,
    output,
    poolings,
    predictor,
    random_parameters,
)

from cnnkit import AvgPool2D, Conv2D, Dense, Flatten, Model

FIXED = settings(derandomize=True, deadline=None, max_examples=40)


def close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


@FIXED
@given(convolutions(), st.integers(0, 9))
def test_the_input_gradient_of_a_convolution_is_its_adjoint(model, seed):
    """<conv(x), y> == <x, adjoint(y)> for every x and y; the bias is no part of the linear map."""
    layer = model.layers[0].model_copy(update={"use_bias": False})
    kernel = {"0.kernel": random_parameters(model.plan(), seed)["0.kernel"]}
    x = numbers(model.input_shape, seed)
    made = output([layer], x, kernel)
    y = numbers(made.shape, seed + 1)
    adjoint = input_gradient([layer], x, y, kernel)
    scale = np.vdot(abs(made), abs(y)) + np.vdot(abs(x), abs(adjoint))
    assert abs(np.vdot(made, y) - np.vdot(x, adjoint)) <= 1e-12 * scale


@FIXED
@given(poolings(kinds=(AvgPool2D,)), st.integers(0, 9))
def test_the_input_gradient_of_average_pooling_is_its_adjoint(model, seed):
    x = numbers(model.input_shape, seed)
    made = output(model.layers, x)
    y = numbers(made.shape, seed + 1)
    adjoint = input_gradient(model.layers, x, y)
    scale = np.vdot(abs(made), abs(y)) + np.vdot(abs(x), abs(adjoint))
    assert abs(np.vdot(made, y) - np.vdot(x, adjoint)) <= 1e-12 * scale


@pytest.mark.parametrize("channels", [1, 2, 3, 17])
def test_a_delta_kernel_gives_the_image_back(channels):
    image = numbers((5, 4, channels))
    kernel = np.zeros((3, 3, channels, channels))
    kernel[1, 1] = np.eye(channels)
    layer = Conv2D(filters=channels, kernel_size=3, padding="same", use_bias=False)
    np.testing.assert_array_equal(output([layer], image, {"0.kernel": kernel}), image)


def test_a_1x1_convolution_is_a_dense_layer_at_every_pixel():
    image = numbers((4, 3, 5))
    parameters = {"0.kernel": numbers((5, 6), 1), "0.bias": numbers(6, 2)}
    made = output(
        [Conv2D(filters=6, kernel_size=1)], image, {**parameters, "0.kernel": parameters["0.kernel"][None, None]}
    )
    for row, col in np.ndindex(4, 3):
        close(made[row, col], output([Dense(units=6)], image[row, col], parameters))


def test_a_kernel_as_large_as_the_image_is_a_dense_layer():
    image = numbers((4, 3, 2))
    kernel, bias = numbers((4, 3, 2, 5), 1), numbers(5, 2)
    made = output([Conv2D(filters=5, kernel_size=(4, 3))], image, {"0.kernel": kernel, "0.bias": bias})
    dense = {"1.kernel": kernel.reshape(-1, 5), "1.bias": bias}
    close(made[0, 0], output([Flatten(), Dense(units=5)], image, dense))


def test_a_colour_convolution_is_the_sum_of_three_grey_ones():
    image, kernel = numbers((6, 5, 3)), numbers((3, 2, 3, 4), 1)
    layer = Conv2D(filters=4, kernel_size=(3, 2), use_bias=False)
    parts = [output([layer], image[:, :, c : c + 1], {"0.kernel": kernel[:, :, c : c + 1]}) for c in range(3)]
    close(output([layer], image, {"0.kernel": kernel}), sum(parts))


@pytest.mark.parametrize("strides", [(1, 2), (2, 1), (3, 2), (9, 9)])
def test_strides_pick_from_the_output_without_strides(strides):
    image, kernel = numbers((8, 7, 2)), {"0.kernel": numbers((3, 2, 2, 3), 1)}
    every = output([Conv2D(filters=3, kernel_size=(3, 2), use_bias=False)], image, kernel)
    some = output([Conv2D(filters=3, kernel_size=(3, 2), use_bias=False, strides=strides)], image, kernel)
    close(some, every[:: strides[0], :: strides[1]])


def test_dilation_is_a_kernel_with_zeros_between():
    image, kernel = numbers((9, 8, 2)), numbers((2, 3, 2, 3), 1)
    spread = np.zeros((4, 5, 2, 3))
    spread[::3, ::2] = kernel
    dilated = Conv2D(filters=3, kernel_size=(2, 3), dilation=(3, 2), use_bias=False)
    close(
        output([dilated], image, {"0.kernel": kernel}),
        output([Conv2D(filters=3, kernel_size=(4, 5), use_bias=False)], image, {"0.kernel": spread}),
    )


def test_padding_is_a_border_of_zeros():
    image, kernel = numbers((4, 5, 2)), {"0.kernel": numbers((3, 2, 2, 3), 1)}
    bordered = np.pad(image, ((2, 1), (0, 3), (0, 0)))
    padded = Conv2D(filters=3, kernel_size=(3, 2), padding=((2, 1), (0, 3)), use_bias=False)
    plain = Conv2D(filters=3, kernel_size=(3, 2), use_bias=False)
    close(output([padded], image, kernel), output([plain], bordered, kernel))


def test_average_pooling_is_a_convolution_with_equal_weights():
    image = numbers((6, 7, 1))
    kernel = {"0.kernel": np.full((2, 3, 1, 1), 1 / 6)}
    conv = Conv2D(filters=1, kernel_size=(2, 3), strides=(1, 2), use_bias=False)
    close(output([AvgPool2D(pool_size=(2, 3), strides=(1, 2))], image), output([conv], image, kernel))


def test_a_convolution_is_linear_in_the_image_and_in_the_kernel():
    layer = Conv2D(filters=3, kernel_size=(3, 2), padding="same", use_bias=False)
    x, y = numbers((5, 4, 2)), numbers((5, 4, 2), 1)
    v, w = numbers((3, 2, 2, 3), 2), numbers((3, 2, 2, 3), 3)

    def conv(image, kernel):
        return output([layer], image, {"0.kernel": kernel})

    close(conv(2 * x - 3 * y, v), 2 * conv(x, v) - 3 * conv(y, v))
    close(conv(x, 2 * v - 3 * w), 2 * conv(x, v) - 3 * conv(x, w))


def test_a_convolution_of_a_shifted_image_is_the_shifted_convolution():
    image, kernel = numbers((7, 6, 2)), {"0.kernel": numbers((3, 2, 2, 3), 1)}
    layer = Conv2D(filters=3, kernel_size=(3, 2), use_bias=False)
    close(output([layer], image[1:, 2:], kernel), output([layer], image, kernel)[1:, 2:])


@pytest.mark.parametrize("name", ["deep", "average pool padded", "dense only"])
def test_images_of_a_batch_do_not_know_of_each_other(name):
    model = CLASSIFIERS[name]
    program = predictor(model, random_parameters(model.plan()))
    images, _ = batch(model, 9)
    together = program.predict(images)
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_array_equal(program.predict(images[order]), together[order])
    for index in range(9):
        np.testing.assert_array_equal(program.predict(images[index : index + 1])[0], together[index])


@pytest.mark.parametrize("channels", [1, 2, 3, 17])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_an_image_of_one_pixel_goes_through_every_kind_of_layer(channels, precision):
    layers = [Conv2D(filters=channels, kernel_size=1, strides=3), AvgPool2D(pool_size=1), Flatten(), Dense(units=2)]
    model = Model(input_shape=(1, 1, channels), layers=layers)
    parameters = random_parameters(model.plan())
    pixel = numbers((1, 1, channels))
    hidden = pixel[0, 0] @ parameters["0.kernel"][0, 0] + parameters["0.bias"]
    expected = hidden @ parameters["3.kernel"] + parameters["3.bias"]
    made = predictor(model, parameters, precision=precision).predict(pixel[np.newaxis].astype(precision))
    np.testing.assert_allclose(made[0], expected, rtol=0, atol=1e-13 if precision == "float64" else 1e-5)
