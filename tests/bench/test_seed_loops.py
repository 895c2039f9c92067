"""The loops of the seed, written before the backend, and the backend: two ways to the same numbers."""

import numpy as np
import pytest

from cnnkit import SGD, get_backend, initial_state, load_preset
from cnnkit.bench.seed_loops import SeedLoops

RATE = 0.02


@pytest.fixture
def pair():
    """The preset in the loops and in the backend, from the same parameters, biases not zero."""
    model = load_preset("seed-numpy").for_data((12, 11, 1), 4).model
    optimizer = SGD(RATE)
    state = initial_state(model, optimizer, seed=3)
    generator = np.random.default_rng(0)
    for name, array in state.parameters.items():
        if name.endswith("bias"):
            array[...] = generator.normal(scale=0.1, size=array.shape)
    program = get_backend("numpy").compile_training(model.plan(), state, optimizer)
    return SeedLoops(state.parameters, RATE), program


@pytest.fixture
def pixels():
    """Noise, and one image full of ties."""
    images = np.random.default_rng(1).integers(0, 256, (3, 12, 11, 1), dtype=np.uint8)
    images[1] = 200
    return images


def named(kernels, biases, weights, offsets):
    """What the loops hold, in cnnkit's names and shapes."""
    return {
        "2.kernel": kernels.transpose(1, 2, 0)[:, :, np.newaxis, :],
        "2.bias": biases,
        "5.kernel": weights,
        "5.bias": offsets,
    }


def test_probabilities_agree(pair, pixels):
    loops, program = pair
    np.testing.assert_allclose(program.predict(pixels), [loops.forward(image) for image in pixels], rtol=0, atol=1e-6)


def test_losses_and_gradients_agree(pair, pixels):
    loops, program = pair
    for index, label in enumerate((2, 0, 3)):
        image = pixels[index : index + 1]
        loss, gradients = program.gradients(image, np.array([label]))
        loops_loss, loops_gradients = loops.gradients(image[0], label)
        assert loss == pytest.approx(loops_loss, abs=1e-6)
        expected = named(**loops_gradients)
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            assert abs(gradient).max() > 1e-3
            np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=2e-5, err_msg=name)


def test_three_steps_agree(pair, pixels):
    loops, program = pair
    for index, label in enumerate((2, 0, 3)):
        loops_loss = loops.step(pixels[index], label)
        assert float(program.step(pixels[index : index + 1], np.array([label]))) == pytest.approx(loops_loss, abs=1e-5)
    expected = named(loops.kernels, loops.biases, loops.weights, loops.offsets)
    for name, array in program.state().parameters.items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=2e-6, err_msg=name)


def test_the_loops_copy_their_parameters():
    model = load_preset("seed-numpy").for_data((8, 8, 1), 3).model
    parameters = initial_state(model, SGD(RATE)).parameters
    kept = {name: array.copy() for name, array in parameters.items()}
    SeedLoops(parameters, RATE).step(np.full((8, 8, 1), 90, np.uint8), 1)
    for name, array in parameters.items():
        np.testing.assert_array_equal(array, kept[name])
