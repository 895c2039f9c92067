"""The file formats of data sets: .npz, IDX (MNIST's own) and CIFAR-10's binary records. None of them runs code."""

from __future__ import annotations

import gzip
import math
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Images
from cnnkit.datasets.dataset import Dataset
from cnnkit.errors import DataError

TRAIN_TEST_KEYS = ("x_train", "y_train", "x_test", "y_test")
"""What Keras calls the four arrays of an .npz file."""

# What the standard library and NumPy raise at damaged files; RuntimeError is zipfile's for an encrypted one.
_DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
# What NumPy raises besides at headers of arrays that nobody wrote.
_HEADERS = (MemoryError, OverflowError, tokenize.TokenError)


def read_npz(path: Path, layouts: Sequence[Sequence[str]], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """The arrays of the first of `layouts` whose keys are all in the file, and those of `optional` that are there.

    Raises `DataError` for a file that is damaged or no .npz, has none of the layouts, or holds Python objects.
    """
    try:
        with path.open("rb") as file, _zip_only(file) as archive:
            for layout in layouts:
                if all(key in archive.files for key in layout):
                    return {key: _array(archive, key) for key in (*layout, *optional) if key in archive.files}
            present = ", ".join(archive.files) or "nothing"
    except (*_DAMAGED, *_HEADERS) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path} holds Python objects, which we do not load because unpickling runs code. "
                "Save arrays of numbers, labels as int64 and class_names as strings."
            ) from error
        raise DataError(
            f"{path} cannot be read: {error}. Write it again with numpy.savez, or copy it again."
        ) from error
    expected = " or ".join(f"({', '.join(layout)})" for layout in layouts)
    raise DataError(
        f"{path} holds {present}; expected the arrays {expected}. Name them so: numpy.savez(path, name=array)."
    )


def _zip_only(file: BinaryIO) -> np.lib.npyio.NpzFile:
    """`file` opened by NumPy, which would take other files, such as pickles and .npy, for something else."""
    if not zipfile.is_zipfile(file):
        raise zipfile.BadZipFile("it is not a zip archive, as an .npz file is, or was cut off")
    file.seek(0)
    archive: np.lib.npyio.NpzFile = np.load(file, allow_pickle=False)
    return archive


def _array(archive: np.lib.npyio.NpzFile, key: str) -> NDArray[Any]:
    array = archive[key]
    if not isinstance(array, np.ndarray):  # NumPy hands out what is no .npy inside the zip as bytes
        raise ValueError(f"{key} in it is not an array")  # noqa: TRY004 # counts as damage, as all else here
    return array


def dataset_from(
    path: Path, arrays: Mapping[str, NDArray[Any]], keys: tuple[str, str], class_names: Sequence[str] | None
) -> Dataset:
    """The data set of two arrays of a file, with the channel axis that grey images often lack there.

    Images `(n, height, width)` become `(n, height, width, 1)`; whole-number labels `(n, 1)` become `(n,)`.
    """
    images, labels = (arrays[key] for key in keys)
    if images.ndim == 3:
        images = images[..., np.newaxis]  # (n, height, width, 1)
    if labels.ndim == 2 and labels.shape[1] == 1 and labels.dtype.kind in "iu":
        labels = labels[:, 0]  # (n,)
    try:
        return Dataset(images, labels, class_names)
    except DataError as error:
        raise DataError(f"{path}, {keys[0]} and {keys[1]}: {error}") from error


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The bytes of a gzipped IDX file, of whatever shape it says; read-only.

    The format (Yann LeCun, "The MNIST database"): two zero bytes, 8 for unsigned bytes, the number of axes, the size
    of each axis as a big-endian 32-bit number, the values in C order.
    """
    try:
        with gzip.open(path) as file:
            data = file.read()
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}. Delete it, so that it is fetched again.") from error
    start = 4 + 4 * data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else math.inf
    if len(data) < start:
        raise DataError(f"{path} is not an IDX file of bytes. Delete it, so that it is fetched again.")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", data[3], offset=4))
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if len(values) != math.prod(shape):
        raise DataError(f"{path} says {shape} but holds {len(values)} bytes. Delete it, so that it is fetched again.")
    return values.reshape(shape)


def read_cifar10(path: Path) -> tuple[Images, NDArray[np.uint8], Images, NDArray[np.uint8]]:
    """x_train, y_train, x_test, y_test of `cifar-10-binary.tar.gz`; images `(n, 32, 32, 3)`.

    A record is a label and 3 x 32 x 32 bytes, channels first (Krizhevsky, "The CIFAR-10 dataset"). Nothing is
    unpacked to the disk: the six members are read by their exact names.
    """
    train = [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)]
    test = "cifar-10-batches-bin/test_batch.bin"
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name in (*train, test) and member.isfile() else None
                if file is not None:
                    found[member.name] = file.read()
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}. Delete it, so that it is fetched again.") from error
    for name in (*train, test):
        if name not in found or len(found[name]) % 3073:
            raise DataError(f"{path} has no whole {name}. Delete it, so that it is fetched again.")
    return (*_cifar_records(b"".join(found[name] for name in train)), *_cifar_records(found[test]))


def _cifar_records(data: bytes) -> tuple[Images, NDArray[np.uint8]]:
    records = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (n, 32, 32, 3)
    return np.ascontiguousarray(images), records[:, 0].copy()
