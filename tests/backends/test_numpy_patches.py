import doctest
import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import output

from cnnkit import Conv2D, DataError, Model
from cnnkit_numpy import patches


def test_the_example_in_the_docstring_is_true():
    module = importlib.import_module("cnnkit_numpy.patches")
    results = doctest.testmod(module)
    assert results.attempted >= 3
    assert results.failed == 0


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_there_is_one_patch_for_each_output_value_in_row_major_order(kernel, room, strides):
    height, width = kernel[0] + room[0], kernel[1] + room[1]
    layer = Conv2D(filters=1, kernel_size=kernel, strides=strides)
    rows, cols, _ = Model(input_shape=(height, width, 1), layers=[layer]).plan().output_shape
    places = [(row, col) for _, row, col in patches(np.zeros((height, width)), kernel, strides)]
    assert places == [(row, col) for row in range(rows) for col in range(cols)]


def test_patch_times_kernel_summed_is_the_convolution():
    generator = np.random.default_rng(0)
    image, kernel = generator.normal(size=(6, 5, 2)), generator.normal(size=(3, 2, 2, 1))
    layer = Conv2D(filters=1, kernel_size=(3, 2), strides=(2, 1), use_bias=False)
    made = output([layer], image, {"0.kernel": kernel})
    for patch, row, col in patches(image, (3, 2), (2, 1)):
        assert made[row, col, 0] == pytest.approx(np.sum(patch * kernel[..., 0]), rel=1e-12)


def test_strides_are_1_unless_said_otherwise_and_one_number_means_both():
    image = np.arange(12).reshape(3, 4)
    assert len(list(patches(image, 2))) == 6
    assert [patch.ravel().tolist() for patch, _, _ in patches(image, 2, 2)] == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_patches_are_views_with_all_channels():
    image = np.zeros((3, 3, 2))
    for patch, _, _ in patches(image, 3):
        assert patch.shape == (3, 3, 2)
        patch[:] = 7
    assert (image == 7).all()


@pytest.mark.parametrize("shape", [(3,), (2, 5), (5, 2), (1, 3, 3, 1), ()])
def test_what_is_no_image_or_smaller_than_the_kernel_is_refused(shape):
    with pytest.raises(DataError, match=r"the image has shape .* of at least 3 x 3, the kernel's size. Use a smaller"):
        next(patches(np.zeros(shape), 3))
