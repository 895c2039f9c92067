"""Images from files, by Pillow: folders with one subfolder a class, and the pictures that `cnnkit predict` is given."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Shape
from cnnkit.datasets.dataset import Dataset
from cnnkit.errors import DataError, MissingDependency, OptionError
from cnnkit.randomness import stream

if TYPE_CHECKING:
    from PIL.Image import Image

_Mode = Literal["L", "RGB"]


def load_folder(path: str | os.PathLike[str], image_size: tuple[int, int] | None = None) -> Dataset:
    """The images of a folder that has one subfolder a class; the classes are called as the subfolders, in sorted order.

    uint8 `(n, height, width, channels)`: 1 channel where every image is grey, else 3 (RGB). Transparency is laid on
    black, a rotation noted in EXIF is carried out, an animation gives its first frame. All images must have one size,
    unless `image_size`, `(height, width)`, resizes them (bilinear, antialiased). Files that begin with a dot and
    Thumbs.db are ignored.

    Folders are sorted by class, so the images are shuffled once, always alike: the first n are of every class.

    Raises `DataError` for anything that is no such folder, with the path of the file or folder that is wrong.
    """
    classes = _class_folders(Path(path))
    (data,) = _load_parts([classes], tuple(classes), image_size)
    return data


def load_train_test(path: Path, image_size: tuple[int, int] | None = None) -> tuple[Dataset, Dataset]:
    """As `load_folder` for `path/train` and `path/test`, both with the classes of `train`. Nothing else is read."""
    train, test = _class_folders(path / "train"), _class_folders(path / "test")
    for name in test:
        if name not in train:
            raise DataError(
                f"{path / 'test' / name} is a class that {path / 'train'} does not have; it has {', '.join(train)}. "
                "Give both the same class folders."
            )
    first, second = _load_parts([train, test], tuple(train), image_size)
    return first, second


def image_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that `paths` stand for: a file for itself, a folder for all files in and below it, in sorted order."""
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = image_files(_entries(path))
            if not inside:
                raise DataError(f"{path} has no images in it. Give image files, or a folder of them.")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"{path} does not exist. Give image files, or a folder of them.")
    return files


def read_images(paths: Sequence[str | os.PathLike[str]], image_shape: Shape) -> NDArray[np.uint8]:
    """The images of `image_files(paths)`, in its order, made to fit a model: uint8 `(n, *image_shape)`.

    With 1 channel, colours become grey by luma (ITU-R 601: 0.299 R + 0.587 G + 0.114 B); with 3, grey is repeated. An
    image of another size is resized (bilinear, antialiased, not keeping its proportions). Raises `DataError` for a
    file that cannot be read, and for an `image_shape` that is not `(height, width, 1)` or `(height, width, 3)`.
    """
    if len(image_shape) != 3 or image_shape[2] not in (1, 3):
        raise DataError(
            f"the model takes {tuple(image_shape)}; image files give (height, width, 1) or (height, width, 3). "
            "Give it arrays in Python, with cnnkit.predict."
        )
    height, width, channels = image_shape
    files = image_files(paths)
    images = np.empty((len(files), height, width, channels), dtype=np.uint8)
    for image, file in zip(images, files, strict=True):
        image[:] = _read(file, "L" if channels == 1 else "RGB", (height, width)).reshape(image_shape)
    return images


def _load_parts(
    parts: Sequence[Mapping[str, Sequence[Path]]], names: tuple[str, ...], image_size: tuple[int, int] | None
) -> list[Dataset]:
    """A data set for each of `parts` (files by class), all with images of one shape, each shuffled."""
    files = [file for part in parts for group in part.values() for file in group]
    images = _read_alike(files, image_size)
    data, start = [], 0
    for part in parts:
        labels = np.concatenate([np.full(len(group), names.index(name)) for name, group in part.items()])
        order = stream(0, "shuffle").permutation(len(labels))
        data.append(Dataset(images[start : start + len(labels)][order], labels[order], names))
        start += len(labels)
    return data


def _read_alike(files: Sequence[Path], image_size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """All `files` in one array `(n, height, width, channels)`."""
    _check_image_size(image_size)
    arrays = [_read(file, None, image_size) for file in files]
    for file, array in zip(files, arrays, strict=True):
        if array.shape[:2] != arrays[0].shape[:2]:
            (height, width), (other_height, other_width) = arrays[0].shape[:2], array.shape[:2]
            raise DataError(
                f"images differ in size: {files[0]} is {height} x {width} (height x width), {file} is "
                f"{other_height} x {other_width}. Resize them to one size, or give image_size=(height, width), on the command line --image-size."
            )
    channels = max(array.shape[2] for array in arrays)
    images = np.empty((len(arrays), *arrays[0].shape[:2], channels), dtype=np.uint8)
    for image, array in zip(images, arrays, strict=True):
        image[:] = array  # a grey image is repeated over the three channels
    return images


def _read(file: Path, mode: _Mode | None, image_size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """One image as `(height, width, 1 or 3)`; `mode` None leaves it grey or coloured as it is."""
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise MissingDependency("Reading image files", "Pillow", "data") from error
    with _decoding(file), PIL.Image.open(file) as image:
        if _has_deep_pixels(image):
            raise DataError(
                f"{file} has more than 8 bits a channel; expected 8. Save it with 8, and scale it yourself."
            )
        target = mode or ("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
        upright = PIL.ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            black = PIL.Image.new("RGBA", upright.size, (0, 0, 0, 255))
            upright = PIL.Image.alpha_composite(black, upright.convert("RGBA"))
        flat = upright.convert(target)
        if image_size is not None and flat.size != image_size[::-1]:
            flat = flat.resize(image_size[::-1], PIL.Image.Resampling.BILINEAR)
        array = np.array(flat)
    return array.reshape(*array.shape[:2], -1)  # (height, width, 1 or 3)


@contextmanager
def _decoding(file: Path) -> Iterator[None]:
    """Turn what Pillow's decoders raise at a file that is damaged, or no image, into a `DataError` with its path."""
    import PIL.Image

    try:
        yield
    except DataError:
        raise
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        struct.error,
        PIL.Image.DecompressionBombError,
    ) as error:
        raise DataError(f"{file} cannot be read as an image: {error}. Replace it, or take it away.") from error


def _has_deep_pixels(image: Image) -> bool:
    """Whether Pillow would cut pixels down to 8 bits (16-bit RGB), or keep more (16-bit grey, 32 bits, floats)."""
    return image.mode[0] in "IF" or any(re.search(r";16[BLN]", str(tile)) for tile in getattr(image, "tile", ()))


def _class_folders(path: Path) -> dict[str, list[Path]]:
    """The files of each class of a folder, both sorted by name."""
    classes: dict[str, list[Path]] = {}
    for folder in _entries(path):
        if not folder.is_dir():
            raise DataError(f"{folder} is in no class folder. Move it into one, or take it away.")
        files = _entries(folder)
        for file in files:
            if file.is_dir():
                raise DataError(
                    f"{file} is a folder inside the class folder {folder.name!r}; expected images only. Give one folder "
                    "for each class, or train and test with one folder for each class inside."
                )
        if not files:
            raise DataError(f"{folder} has no images in it. Put some there, or take the folder away.")
        classes[folder.name] = files
    if not classes:
        raise DataError(f"{path} has no class folders. Give one folder of images for each class.")
    return classes


def _entries(path: Path) -> list[Path]:
    try:
        found = sorted(path.iterdir())
    except OSError as error:
        raise DataError(f"{path} cannot be listed: {error.strerror}. Give a folder of images by class.") from error
    return [entry for entry in found if not entry.name.startswith(".") and entry.name.lower() != "thumbs.db"]


def _check_image_size(image_size: Any) -> None:
    if image_size is None:
        return
    pair = isinstance(image_size, (tuple, list)) and len(image_size) == 2
    if not pair or not all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in image_size):
        raise OptionError(
            f"image_size is {image_size!r}; expected (height, width) in whole pixels. Use for example (32, 32)."
        )
