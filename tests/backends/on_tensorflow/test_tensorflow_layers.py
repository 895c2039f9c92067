"""Traps of TensorFlow that the conformance suite does not spring at every size."""

import numpy as np
import pytest

from cnnkit import (
    SGD,
    Conv2D,
    Dense,
    Flatten,
    MaxPool2D,
    Model,
    Softmax,
    initial_parameters,
    initial_state,
)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2D(filters=16, kernel_size=3, padding="same"), (8, 8, 16)),
        (Conv2D(filters=3, kernel_size=2), (5, 6, 2)),
        (Dense(units=64), (64,)),
        (Dense(units=3), (5,)),
    ],
    ids=["conv16", "conv3", "dense64", "dense3"],
)
def test_nan_survives_an_activation_that_tensorflow_would_join_to_its_layer(
    make_backend, layer, shape, activation, precision
):
    model = Model(input_shape=shape, layers=[layer.model_copy(update={"activation": activation})])
    parameters = initial_parameters(model, precision=precision)
    parameters["0.bias"][1] = np.nan
    output = make_backend(precision).compile(model.plan(), parameters).predict(np.ones((3, *shape), precision))
    assert np.isnan(output[..., 1]).all()
    assert np.isfinite(np.delete(output, 1, -1)).all()


def test_the_gradient_of_a_strided_kernel_of_one_pixel_stays_within_its_memory(in_a_process_of_its_own):
    """oneDNN's own ends the process, mostly at the first of these."""
    lines = in_a_process_of_its_own(
        """
        import numpy as np
        from cnnkit import SGD, Conv2D, Dense, Flatten, Model, Softmax, initial_state
        from cnnkit_tensorflow import plugin
        backend = plugin.cnnkit_create_backend(None, "float32", {})
        for channels in (2, 9, 15):
            for strides in ((2, 1), (1, 3), (2, 2)):
                layers = [Conv2D(filters=9, kernel_size=1, strides=strides), Flatten(), Dense(units=2), Softmax()]
                model = Model(input_shape=(10, 8, channels), layers=layers)
                program = backend.compile_training(model.plan(), initial_state(model, SGD(0.1)), SGD(0.1))
                for _ in range(200):
                    program.gradients(np.ones((5, 10, 8, channels), np.float32), np.zeros(5, np.int64))
        print("alive")
        """
    )
    assert lines == ["alive"]


def test_a_kernel_that_stands_at_one_place_of_each_row_strides_past_no_row(in_a_process_of_its_own):
    """oneDNN's own begins all rows but the first in the wrong place; fresh memory is filled with 0x5a, so it shows."""
    lines = in_a_process_of_its_own(
        """
        import numpy as np
        from cnnkit import Conv2D, Model
        from cnnkit_tensorflow import plugin
        backend = plugin.cnnkit_create_backend(None, "float32", {})
        for width, kernel, strides, padding in ((3, 3, 2, 0), (5, 3, 4, 0), (6, 5, 3, 0), (1, 5, 4, 2)):
            paddings = ((0, 0), (padding, padding))
            layer = Conv2D(filters=2, kernel_size=(2, kernel), strides=(1, strides), padding=paddings, use_bias=False)
            images = np.random.default_rng(0).uniform(1, 2, (3, 5, width, 1)).astype(np.float32)
            model = Model(input_shape=(5, width, 1), layers=[layer])
            output = backend.compile(model.plan(), {"0.kernel": np.ones((2, kernel, 1, 2), np.float32)}).predict(images)
            rows = images[:, :, : kernel - padding, 0].sum(2)
            right = (rows[:, :-1] + rows[:, 1:])[:, :, np.newaxis, np.newaxis]
            print(output.shape, np.allclose(output, right))
        """,
        MALLOC_PERTURB_="165",
    )
    assert lines == ["(3, 4, 1, 2) True"] * 4


@pytest.mark.parametrize("classes", [3, 10, 64, 1000])
def test_nan_survives_softmax(make_backend, classes):
    model = Model(input_shape=(classes,), layers=[Softmax()])
    scores = np.zeros((3, classes), np.float32)
    scores[1, classes // 2] = np.nan
    output = make_backend().compile(model.plan(), {}).predict(scores)
    assert np.isnan(output[1]).all()
    assert np.allclose(output[[0, 2]], 1 / classes)


@pytest.mark.parametrize("special", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize("channels", [1, 3, 8, 33])
def test_max_pooling_is_right_beside_what_is_not_finite(make_backend, channels, special):
    model = Model(input_shape=(6, 6, channels), layers=[MaxPool2D(pool_size=(3, 2))])
    images = np.random.default_rng(0).uniform(-1, 1, (36, 6, 6, channels)).astype(np.float32)
    images[np.arange(36), np.arange(36) // 6, np.arange(36) % 6] = special
    images[0] = special
    windows = images.reshape(36, 2, 3, 3, 2, channels)
    output = make_backend().compile(model.plan(), {}).predict(images)
    assert np.array_equal(output, windows.max((2, 4)), equal_nan=True)


def test_the_gradient_of_a_bias_is_summed_up_accurately_over_many_pixels(make_backend):
    # Behind this kernel of zeros all scores are equal, so each pixel has the same gradient and no sum cancels.
    model = Model(
        input_shape=(56, 56, 1), layers=[Conv2D(filters=2, kernel_size=1), Flatten(), Dense(units=2), Softmax()]
    )
    state = initial_state(model, SGD(learning_rate=0.1))
    state.parameters["2.kernel"][:] = np.random.default_rng(0).uniform(0, 1, (56 * 56 * 2, 1)) * [1, -1]
    state.parameters["0.kernel"][:] = 0
    images, labels = np.zeros((32, 56, 56, 1), np.float32), np.zeros(32, int)
    program = make_backend().compile_training(model.plan(), state, SGD(learning_rate=0.1))
    found = program.gradients(images, labels)[1]["0.bias"]
    weights = state.parameters["2.kernel"].astype(np.float64).reshape(56 * 56, 2, 2)
    right = (weights * [-0.5, 0.5]).sum((0, 2))
    assert np.abs(found / right - 1).max() < 16 * 2.0**-24


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Conv2D(filters=1, kernel_size=3), "VALID"),
        (Conv2D(filters=1, kernel_size=3, padding=((0, 0), (0, 0))), "VALID"),
        (Conv2D(filters=1, kernel_size=3, padding="same"), "SAME"),
        (Conv2D(filters=1, kernel_size=(4, 2), padding="same", strides=(3, 2), dilation=(2, 1)), "SAME"),
        (Conv2D(filters=1, kernel_size=3, padding=((1, 1), (1, 1))), "SAME"),
        (Conv2D(filters=1, kernel_size=4, padding=((2, 1), (1, 2))), "EXPLICIT"),
        (Conv2D(filters=1, kernel_size=3, padding=((1, 1), (1, 2))), "EXPLICIT"),
        (Conv2D(filters=1, kernel_size=3, strides=2, padding=((1, 1), (1, 1))), "EXPLICIT"),
    ],
)
def test_padding_goes_by_its_name_only_where_the_numbers_are_those_of_the_name(layer, name):
    from cnnkit_tensorflow.layers import _windows

    [op] = Model(input_shape=(12, 14, 1), layers=[layer]).plan().operations
    assert _windows(op)["padding"] == name


def test_every_parameter_is_aligned_and_what_lies_between_stays_zero(make_backend):
    from cnnkit import Adam

    model = Model(input_shape=(5,), layers=[Dense(units=3), Dense(units=2), Softmax()])
    program = make_backend().compile_training(model.plan(), initial_state(model, Adam()), Adam())
    program.epoch(np.ones((6, 5), np.float32), np.arange(6) % 2, np.arange(6), 2)
    layout = program.graphs.layout
    assert [start * 4 % 64 for start in layout.starts.values()] == [0] * 4  # bytes: TensorFlow's alignment
    vector = program.standing.vector.numpy()
    for view in layout.unpack(vector).values():
        view[...] = 0
    assert not vector.any()
