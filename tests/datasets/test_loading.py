"""From a name or a path to a training and a test set."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from cnnkit.datasets import Dataset, dataset_names, load_dataset
from cnnkit.errors import DataError, DatasetNotFound, MissingDependency, OptionError


def keras_arrays(**changes):
    arrays = {
        "x_train": np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28),
        "y_train": np.array([0, 1, 2, 9], np.uint8),
        "x_test": np.ones((2, 28, 28), np.uint8),
        "y_test": np.array([5, 6], np.uint8),
    }
    return arrays | changes


def test_the_known_names_are_these():
    assert dataset_names() == ("digits", "mnist", "fashion-mnist", "cifar10")


# ------------------------------------------------------------------------------------------------------------ digits


def test_digits_are_uint8_images_over_the_whole_range_with_every_class_on_both_sides():
    train, test = load_dataset("digits")
    assert len(train) + len(test) == 1797
    assert len(test) == 359
    assert (train.images.dtype, train.image_shape) == (np.uint8, (8, 8, 1))
    assert train.class_names == test.class_names == tuple("0123456789")
    # 0, 8 and 16 of 16: an image has nothing between two of the 17 steps.
    steps = np.unique(train.images).tolist()
    assert len(steps) == 17
    assert (steps[0], steps[8], steps[16]) == (0, 128, 255)
    assert np.bincount(test.labels).min() >= 34


def test_digits_are_labelled_as_scikit_learn_labels_them():
    import sklearn.datasets

    source = sklearn.datasets.load_digits()
    expected = {image.tobytes(): label for image, label in zip(source.images, source.target, strict=True)}
    for data in load_dataset("digits"):
        for image, label in zip(data.images, data.labels, strict=True):
            original = np.round(image[..., 0] / 255 * 16)
            assert expected[original.tobytes()] == label


@pytest.mark.parametrize("seed", [0, 1])
def test_digits_are_split_with_seed_0_whatever_the_seed_is(seed):
    import sklearn.datasets

    source = sklearn.datasets.load_digits()
    _, expected = Dataset(source.data, source.target).split(0.2, seed=0)
    _, test = load_dataset("digits", seed=seed)
    assert test.labels.tolist() == expected.labels.tolist()


def test_without_scikit_learn_the_command_that_installs_it_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependency, match=r"'digits' needs scikit-learn.*pip install 'cnnkit\[data\]'"):
        load_dataset("digits")


# ------------------------------------------------------------------------------------------------- names and data_dir


@pytest.mark.parametrize("by", ["argument", "text", "environment"])
def test_a_name_is_read_from_the_folder_of_the_user(tmp_path, monkeypatch, by):
    np.savez(tmp_path / "fashion-mnist.npz", **keras_arrays())
    if by == "environment":
        monkeypatch.setenv("CNNKIT_DATA_DIR", str(tmp_path))
    train, test = load_dataset("fashion-mnist", {"argument": tmp_path, "text": str(tmp_path), "environment": None}[by])
    assert train.images[1, 0, 2, 0] == (28 * 28 + 2) % 256
    assert train.labels.tolist() == [0, 1, 2, 9]
    assert test.class_names[5] == "Sandal"


def test_the_argument_stands_before_the_environment(tmp_path, monkeypatch):
    np.savez(tmp_path / "mnist.npz", **keras_arrays())
    monkeypatch.setenv("CNNKIT_DATA_DIR", str(tmp_path / "elsewhere"))
    train, _ = load_dataset("mnist", tmp_path)
    assert len(train) == 4


def test_a_data_dir_that_is_no_folder_is_refused_with_where_it_was_said(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"data_dir is .*none, which is no folder"):
        load_dataset("mnist", tmp_path / "none")
    monkeypatch.setenv("CNNKIT_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"CNNKIT_DATA_DIR is .*none, which is no folder"):
        load_dataset("mnist")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", r"called 'mnits'\. Did you mean 'mnist'\?"),
        ("fashion_mnist", r"Did you mean 'fashion-mnist'\?"),
        ("CIFAR10", r"Did you mean 'cifar10'\?"),
        ("nothing/like/it", r"called 'nothing/like/it'\. Known data sets are digits, mnist, fashion-mnist, cifar10"),
        (Path("mnist"), r"no data set, \.npz file or folder called 'mnist'"),  # a Path is never a name
    ],
)
def test_what_is_neither_name_nor_path_is_not_found(name, message):
    with pytest.raises(DatasetNotFound, match=message):
        load_dataset(name)


# --------------------------------------------------------------------------------------------------------- .npz files


def test_an_npz_with_the_keys_of_keras_is_two_data_sets(tmp_path):
    one_hot = np.eye(3)[[0, 2, 1, 1]]
    np.savez(tmp_path / "my.npz", **keras_arrays(y_train=one_hot, y_test=[[1], [2]]), class_names=["a", "b", "c"])
    train, test = load_dataset(str(tmp_path / "my.npz"))
    assert train.labels.tolist() == [0, 2, 1, 1]
    assert test.labels.tolist() == [1, 2]
    assert train.image_shape == test.image_shape == (28, 28, 1)
    assert train.class_names == test.class_names == ("a", "b", "c")


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y")])
def test_an_npz_of_one_piece_is_split_by_class_from_the_seed(tmp_path, keys):
    images = np.arange(50, dtype=np.float32)[:, np.newaxis]
    np.savez(tmp_path / "my.npz", **dict(zip(keys, (images, np.repeat([0, 1], [40, 10])), strict=True)))
    train, test = load_dataset(tmp_path / "my.npz", seed=3)
    assert np.bincount(train.labels).tolist() == [32, 8]
    assert np.bincount(test.labels).tolist() == [8, 2]
    assert sorted([*train.images[:, 0], *test.images[:, 0]]) == list(range(50))
    (_, again), (_, other) = load_dataset(tmp_path / "my.npz", seed=3), load_dataset(tmp_path / "my.npz", seed=4)
    assert test.images.tolist() == again.images.tolist()
    assert test.images.tolist() != other.images.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((4, 3, 3), np.int64)}, r"my\.npz, x_train and y_train: images are int64"),
        ({"y_test": [0]}, r"my\.npz, x_test and y_test: there are 2 images but 1 labels"),
        ({"x_test": np.zeros((2, 5, 5), np.uint8)}, r"x_train has images \(28, 28, 1\), x_test \(5, 5, 1\)"),
        ({"class_names": [1, 2]}, r"my\.npz: class_names is int64 of shape \(2,\); expected strings \(classes,\)"),
        ({"class_names": ["a", "b"]}, r"y_train: labels\[3\] is 9; expected whole numbers from 0 to 1"),
        ({"class_names": np.array(["a", None])}, r"my\.npz holds Python objects"),
    ],
)
def test_an_npz_with_something_wrong_is_refused_with_the_file_and_the_keys(tmp_path, changes, message):
    np.savez(tmp_path / "my.npz", **keras_arrays(**changes))
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "my.npz")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "my.pkl").write_bytes(b"")
    with pytest.raises(DataError, match=r"my\.pkl is not an \.npz file\. Give an \.npz file, or a folder"):
        load_dataset(tmp_path / "my.pkl")


# ------------------------------------------------------------------------------------------------ folders and options


def test_a_folder_of_classes_is_split_by_class_from_the_seed(tmp_path):
    for value in range(20):
        folder = tmp_path / ("cat" if value < 10 else "dog")
        folder.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.full((2, 3), value, np.uint8)).save(folder / f"{value}.png")
    train, test = load_dataset(tmp_path, seed=1)
    assert np.bincount(train.labels).tolist() == [8, 8]
    assert np.bincount(test.labels).tolist() == [2, 2]
    for data in (train, test):
        assert ((data.images[:, 0, 0, 0] >= 10) == (data.labels == 1)).all()
    _, other = load_dataset(tmp_path, seed=2)
    assert test.images.tolist() != other.images.tolist()
    resized, _ = load_dataset(tmp_path, image_size=(4, 5))
    assert resized.image_shape == (4, 5, 1)


def test_limit_keeps_the_first_of_both(tmp_path):
    np.savez(tmp_path / "my.npz", **keras_arrays())
    train, test = load_dataset(tmp_path / "my.npz", limit=3)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [5, 6])
    train, test = load_dataset(tmp_path / "my.npz", limit=1)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0], [5])
    with pytest.raises(OptionError, match=r"limit is 0; expected"):
        load_dataset(tmp_path / "my.npz", limit=0)


@pytest.mark.parametrize("name", ["digits", "no/such/path"])
def test_image_size_is_refused_for_what_is_no_folder(name):
    with pytest.raises(OptionError, match=r"image_size is \(8, 8\), but only folders of images are resized"):
        load_dataset(name, image_size=(8, 8))


def test_importing_the_module_imports_no_optional_package():
    code = "import sys, cnnkit.datasets; print([name for name in ('pooch', 'sklearn', 'PIL') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
