"""examples/permuted_pixels.py: neighbourhood is worth much to the convolution and nothing to the dense network."""

import numpy as np
import pytest

import cnnkit
from cnnkit import Dataset


@pytest.fixture
def script(example):
    return example("permuted_pixels")


def dashes(count, seed, channels=1):
    """Images 12 x 12 with one dash of 4 pixels somewhere: lying (class 0) or standing (class 1)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 12, 12, channels), dtype=np.uint8)
    labels = rng.integers(0, 2, count)
    for image, label in zip(images, labels, strict=True):
        long, short = rng.integers(0, 9), rng.integers(0, 12)
        image[(slice(long, long + 4), short) if label else (short, slice(long, long + 4))] = 255
    return Dataset(images, labels)


@pytest.fixture
def file(tmp_path):
    train, test = dashes(600, 0), dashes(300, 1)
    path = tmp_path / "dashes.npz"
    np.savez(path, x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels)
    return str(path)


def test_the_convolution_loses_by_the_permutation_what_the_dense_network_never_had(script, file, printed, tmp_path):
    script.main(["--dataset", file, "--epochs", "12", "--seeds", "0,1", "--out", str(tmp_path)])
    text, [[_, convolutional, dense]] = printed()
    before, after = (float(cell.split(" ± ")[0]) for cell in convolutional[2:4])
    assert before > 0.95
    assert after < before - 0.15
    assert float(convolutional[4]) == pytest.approx(before - after, abs=1e-4)
    flat = [float(cell.split(" ± ")[0]) for cell in dense[2:4]]
    assert abs(flat[0] - flat[1]) < 0.08
    assert max(flat) < before - 0.15
    assert float(text.partition("differ by ")[2].partition(" at most")[0]) < 1e-5
    assert (tmp_path / "permuted_pixels.png").exists()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_two_networks_have_about_as_many_parameters(script, channels):
    data = Dataset(np.zeros((10, 8, 8, channels), np.uint8), np.arange(10))
    convolutional, dense = (model.summary() for model in script.alike(data))
    features, classes = 64 * channels, 10
    assert abs(dense.parameters - convolutional.parameters) <= (features + 1 + classes) / 2  # half of what a unit costs
    assert [layer.kind for layer in dense.layers if layer.parameters] == ["dense", "dense"]


@pytest.mark.parametrize("channels", [1, 3])
def test_all_images_are_permuted_alike_and_each_pixel_keeps_its_channels(script, channels):
    data = dashes(5, 0, channels)
    order = np.random.default_rng(1).permutation(144)
    moved = script.permuted(data, order).images
    for image, was in zip(moved, data.images, strict=True):
        for place in range(144):
            assert (image[place // 12, place % 12] == was[order[place] // 12, order[place] % 12]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dense_network_with_its_rows_permuted_alike_is_the_same_function(script, channels):
    data = dashes(50, 0, channels)
    _, dense = script.alike(data)
    parameters = cnnkit.initial_parameters(dense, seed=1)
    assert script.same_function(dense, parameters, data, np.random.default_rng(1).permutation(144), "numpy") < 1e-6
