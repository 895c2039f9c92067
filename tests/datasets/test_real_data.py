"""MNIST and CIFAR-10 themselves, from the folder that CNNKIT_DATA_DIR names."""

import numpy as np
import pytest

from cnnkit.datasets import load_dataset

pytestmark = pytest.mark.data


def test_mnist_has_the_published_counts(real_data_dir):
    train, test = load_dataset("mnist", real_data_dir)
    assert (train.images.shape, train.images.dtype) == ((60000, 28, 28, 1), np.uint8)
    assert (test.images.shape, test.images.dtype) == ((10000, 28, 28, 1), np.uint8)
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert train.images.mean() == pytest.approx(33.3184, abs=1e-4)


def test_cifar10_has_the_published_counts(real_data_dir):
    train, test = load_dataset("cifar10", real_data_dir)
    assert (train.images.shape, train.images.dtype) == ((50000, 32, 32, 3), np.uint8)
    assert (test.images.shape, test.images.dtype) == ((10000, 32, 32, 3), np.uint8)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    # Red, green, blue, in this order; a JPEG copy of the data differs by less than 0.2.
    assert train.images.mean(axis=(0, 1, 2)) == pytest.approx([125.31, 122.95, 113.87], abs=0.2)


def test_mnist_splits_with_every_digit_in_its_share(real_data_dir):
    train, _ = load_dataset("mnist", real_data_dir)
    rest, part = train.split(0.1, seed=0)
    assert (len(rest), len(part)) == (54000, 6000)
    assert np.abs(np.bincount(part.labels) - np.bincount(train.labels) / 10).max() < 1
