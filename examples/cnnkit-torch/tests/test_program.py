"""What the conformance suite does not ask: shapes on which kernels of PyTorch fail, byte order, alignment."""

import cnnkit
import numpy as np
import pytest
import torch
from cnnkit import Adam, AvgPool2D, Conv2D, Dense, Flatten, MaxPool2D, Model, ReLU, Softmax
from cnnkit.plan import ActivationOp, MaxPool2DOp

from cnnkit_torch.network import quicker
from cnnkit_torch.steps import border_of
from cnnkit_torch.vector import ALIGNMENT, Layout


def drawn(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def gradients(name, layers, images, labels, precision):
    model = Model(input_shape=images.shape[1:], layers=[*layers, Flatten(), Dense(units=3), Softmax()])
    state = cnnkit.initial_state(model, Adam(), precision=precision)
    backend = cnnkit.get_backend(name, precision=precision)
    return backend.compile_training(model.plan(), state, Adam()).gradients(images, labels)[1]


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((11, 4, 1), Conv2D(filters=48, kernel_size=(3, 2), strides=(1, 3), dilation=(3, 1))),
        ((5, 6, 32), Conv2D(filters=2, kernel_size=5, strides=(4, 3))),
        ((8, 1, 32), Conv2D(filters=32, kernel_size=(5, 2), strides=(3, 4), dilation=(1, 2), padding=((2, 2), (3, 3)))),
        ((14, 1, 2), Conv2D(filters=1, kernel_size=(5, 2), strides=(2, 2), dilation=(3, 2), padding=((1, 1), (3, 3)))),
        ((4, 12, 2), Conv2D(filters=4, kernel_size=5, strides=(4, 2), padding=((2, 2), (1, 1)))),
    ],
    ids=str,
)
def test_a_stride_that_leaves_one_window_in_a_row_is_harmless(shape, layer):
    # oneDNN 3.12 reads beyond the row in such shapes: wrong numbers, or the process ends.
    layers = [Conv2D(filters=shape[2], kernel_size=1), layer]
    images, labels = drawn((8, *shape)), np.arange(8) % 3
    found, right = (gradients(*who, layers, images, labels, *rest) for who, rest in CONTESTANTS)
    for name, gradient in right.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-3, atol=1e-5)


CONTESTANTS = ((("torch",), ("float32",)), (("numpy",), ("float64",)))


def test_a_border_ends_where_the_last_window_does():
    [operation] = Model(input_shape=(7, 9, 1), layers=[MaxPool2D(pool_size=(2, 4), strides=(3, 4))]).plan().operations
    # Windows of rows 0-1, 3-4 (row 5 and 6 hold no third one) and of columns 0-3, 4-7.
    assert border_of(operation, (2, 4)) == [0, -1, 0, -2]


def test_relu_comes_after_the_pooling_that_follows_it():
    layers = [Conv2D(filters=2, kernel_size=2, activation="relu"), MaxPool2D(), ReLU(), AvgPool2D(), Flatten()]
    operations = Model(input_shape=(12, 12, 1), layers=layers).plan().operations
    pooled, activated = quicker(operations)[1:3]
    assert isinstance(pooled, MaxPool2DOp)
    assert isinstance(activated, ActivationOp)
    assert activated.input_shape == pooled.output_shape
    assert [type(op) for op in quicker(operations)[3:]] == [type(op) for op in operations[3:]]


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "|u1"])
def test_images_in_either_byte_order_are_read_alike(dtype):
    images = np.arange(24).reshape(2, 3, 4, 1).astype(dtype)
    program = cnnkit.get_backend("torch").compile(Model(input_shape=(3, 4, 1), layers=[Flatten()]).plan(), {})
    assert program.predict(images).tolist() == np.arange(24.0).reshape(2, 12).tolist()


def test_every_parameter_is_aligned_and_what_lies_between_stays_zero():
    model = Model(input_shape=(4, 4, 1), layers=[Conv2D(filters=3, kernel_size=2), Flatten(), Dense(units=5)])
    layout = Layout(model.plan(), np.dtype(np.float32))
    ones = {spec.name: np.ones(spec.shape, np.float32) for spec in model.plan().parameters}
    vector = layout.pack(ones)
    assert all(place.start % ALIGNMENT == 0 for place in layout.places.values())
    assert float(vector.sum()) == sum(array.size for array in ones.values()) < layout.size


def test_a_kernel_lies_in_memory_as_pytorch_wants_it():
    model = Model(input_shape=(4, 4, 3), layers=[Conv2D(filters=5, kernel_size=2)])
    layout = Layout(model.plan(), np.dtype(np.float32))
    kernel = drawn((2, 2, 3, 5))
    vector = layout.pack({"0.kernel": kernel, "0.bias": drawn(5)})
    weight = layout.views(vector)["0.kernel"].permute(3, 2, 0, 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(weight.numpy(), kernel.transpose(3, 2, 0, 1))
    assert np.array_equal(layout.unpack(vector)["0.kernel"], kernel)
