"""`load_dataset`: from a name, an .npz file or a folder of images to a training and a test set."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import numpy as np

from cnnkit.datasets.archives import TRAIN_TEST_KEYS, dataset_from, read_npz
from cnnkit.datasets.dataset import Dataset
from cnnkit.datasets.folders import load_folder, load_train_test
from cnnkit.datasets.sources import SOURCES, load_source
from cnnkit.errors import DataError, DatasetNotFound, MissingDependency, OptionError

_TEST_FRACTION = 0.2
"""How much of data that comes in one piece is kept for the test."""


def dataset_names() -> tuple[str, ...]:
    """The names that `load_dataset` knows."""
    return ("digits", *SOURCES)


def load_dataset(
    name_or_path: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    image_size: tuple[int, int] | None = None,
) -> tuple[Dataset, Dataset]:
    """`(train, test)` of a known data set, an .npz file or a folder of images.

    Names: `digits` (scikit-learn's, needs no network; a fifth of its 1,797 images is for the test, drawn class by class
    with seed 0 whatever `seed` is, so that every run is judged on the same), `mnist`, `fashion-mnist`, `cifar10`. A name stands before a path
    of the same name; write `./mnist` for a folder.

    An .npz file has the arrays `x_train`, `y_train`, `x_test`, `y_test`, or else `images` and `labels`, or `x` and
    `y`; and, where wanted, `class_names`. Grey images may lack the channel axis. A folder has one subfolder of images
    a class, or `train` and `test` with such subfolders (see `load_folder`). What comes in one piece is split by class,
    a fifth for the test, drawn from `seed`.

    Args:
        name_or_path: a name, or a path.
        data_dir: a folder that may hold `mnist.npz`, `fashion-mnist.npz` and `cifar10.npz` with Keras's keys; what it
            holds is used before the cache and the network. By default the one named in CNNKIT_DATA_DIR.
        limit: keep only the first `limit` images of each of the two.
        seed: decides the split of data that comes in one piece; named data sets do not depend on it.
        image_size: `(height, width)` to which the images of a folder are resized; for folders only.

    Raises:
        DatasetNotFound: no such name, file or folder.
        DownloadError: every address of a known data set failed.
        DataError: the file or folder is not what it should be.
        MissingDependency: pooch, scikit-learn or Pillow is needed and not installed.
        OptionError: `limit`, `seed` or `image_size` is out of range.
    """
    path = Path(name_or_path)
    named = name_or_path in dataset_names()  # a Path equals no name
    if image_size is not None and (named or not path.is_dir()):
        raise OptionError(f"image_size is {image_size!r}, but only folders of images are resized. Leave it out.")
    if named:
        train, test = (
            _digits() if name_or_path == "digits" else load_source(SOURCES[str(name_or_path)], _data_dir(data_dir))
        )
    elif path.is_dir():
        if (path / "train").is_dir() and (path / "test").is_dir():
            train, test = load_train_test(path, image_size)
        else:
            train, test = load_folder(path, image_size).split(_TEST_FRACTION, seed)
    elif path.exists():
        train, test = _npz(path, seed)
    else:
        raise DatasetNotFound(_not_found(str(name_or_path)))
    return (train, test) if limit is None else (train.limit(limit), test.limit(limit))


def _data_dir(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The user's folder: as given, or else as CNNKIT_DATA_DIR says when it is asked for."""
    chosen = data_dir or os.environ.get("CNNKIT_DATA_DIR")
    if not chosen:
        return None
    path = Path(chosen).expanduser()
    if not path.is_dir():
        name = "data_dir" if data_dir else "CNNKIT_DATA_DIR"
        raise DataError(
            f"{name} is {path}, which is no folder. Give the folder that holds the .npz files, or leave it out."
        )
    return path


def _digits() -> tuple[Dataset, Dataset]:
    """scikit-learn's 8 x 8 digits, their values 0 to 16 stretched to 0 to 255."""
    try:
        import sklearn.datasets
    except ImportError as error:
        raise MissingDependency("The data set 'digits'", "scikit-learn", "data") from error
    bunch = sklearn.datasets.load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]  # (n, 8, 8, 1)
    return Dataset(images, bunch.target, tuple("0123456789")).split(_TEST_FRACTION, seed=0)


def _npz(path: Path, seed: int) -> tuple[Dataset, Dataset]:
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path} is not an .npz file. Give an .npz file, or a folder of images by class.")
    arrays = read_npz(path, [TRAIN_TEST_KEYS, ("images", "labels"), ("x", "y")], optional=["class_names"])
    names = arrays.pop("class_names", None)
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DataError(
            f"{path}: class_names is {names.dtype} of shape {names.shape}; expected strings (classes,). Correct it."
        )
    class_names = None if names is None else names.tolist()
    keys = tuple(arrays)
    if len(keys) == 2:
        return dataset_from(path, arrays, (keys[0], keys[1]), class_names).split(_TEST_FRACTION, seed)
    train = dataset_from(path, arrays, (keys[0], keys[1]), class_names)
    test = dataset_from(path, arrays, (keys[2], keys[3]), class_names)
    if train.image_shape != test.image_shape:
        raise DataError(
            f"{path}: x_train has images {train.image_shape}, x_test {test.image_shape}. Give both the same shape."
        )
    return train, test


def _not_found(name: str) -> str:
    near = difflib.get_close_matches(name.lower().replace("_", "-"), dataset_names(), n=1)
    meant = f"Did you mean '{near[0]}'? " if near else ""
    return (
        f"there is no data set, .npz file or folder called '{name}'. {meant}Known data sets are "
        f"{', '.join(dataset_names())}; or give the path of an .npz file or a folder of images."
    )
