"""`Dataset`: images with their labels, checked once, so that nothing after it needs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnnkit.arrays import Images, Shape
from cnnkit.errors import DataError, OptionError
from cnnkit.randomness import stream

_IMAGE_DTYPES = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and the class of each. Raises `DataError` for arrays that cannot be that.

    `images` is `(n, height, width, channels)` or `(n, features)`, uint8, float32 or float64, and is kept as it is: not
    copied, not scaled, NaN and infinity included. `labels` is `(n,)`, whole numbers from 0, or one-hot `(n, classes)`;
    either way it is int64 `(n,)` afterwards. `class_names`, one name a class, is a tuple afterwards, or None.
    """

    images: Images
    labels: NDArray[Any]
    class_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        images = _checked_images(self.images)
        names = _checked_names(self.class_names)
        labels = _checked_labels(self.labels, len(images), None if names is None else len(names))
        # A frozen dataclass has no other way to keep what its checks return.
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "class_names", names)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Dataset({len(self)} images {self.image_shape}, {self.images.dtype}, {self.classes} classes)"

    @property
    def image_shape(self) -> Shape:
        """`(height, width, channels)`, or `(features,)`."""
        return self.images.shape[1:]

    @property
    def classes(self) -> int:
        """How many classes there are: as many as `class_names`, or else one more than the highest label; at least 1."""
        if self.class_names is not None:
            return len(self.class_names)
        return int(self.labels.max(initial=0)) + 1

    def take(self, indices: ArrayLike) -> Dataset:
        """The images at `indices`, whole numbers `(k,)` below `len(self)`, in that order, as a copy."""
        places = np.asarray(indices)
        if places.size == 0:
            places = places.astype(np.int64)  # NumPy makes an empty list float64
        if places.ndim != 1 or places.dtype.kind not in "iu":
            raise OptionError(
                f"indices are {places.dtype} of shape {places.shape}; expected whole numbers (k,). "
                "For a mask, give numpy.flatnonzero(mask)."
            )
        wrong = np.flatnonzero((places < 0) | (places >= len(self)))
        if len(wrong):
            raise OptionError(
                f"indices[{wrong[0]}] is {places[wrong[0]]}, but there are {len(self)} images, numbered from 0. "
                "Leave it out."
            )
        return Dataset(self.images[places], self.labels[places], self.class_names)

    def limit(self, count: int) -> Dataset:
        """The first `count` images, or all where there are fewer; a view.

        The first, not a sample: of data that is sorted by class they are all of one class. Take
        `data.split(fraction)[1]` for a sample in which every class keeps its share.
        """
        _check_limit(count)
        return Dataset(self.images[:count], self.labels[:count], self.class_names)

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """`(rest, part)`: two copies, `part` with about `fraction` of the images, drawn at random from `seed`.

        Every class keeps its share, within one image; what rounding leaves over goes to the classes with the largest
        remainders. A class of at least 2 images has at least one on each side, whatever `fraction` is. Both sides
        keep the order of the images. The same seed gives the same split.
        """
        _check_fraction(fraction)
        if len(self) < 2:
            raise DataError(f"there is nothing to split: the data set has {len(self)} image(s). Give at least 2.")
        _, sizes = np.unique(self.labels, return_counts=True)
        counts = _stratified_counts(sizes, float(fraction))
        order = stream(seed, "split").permutation(len(self))
        order = order[np.argsort(self.labels[order], kind="stable")]  # class by class, each at random
        rank = np.arange(len(self)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # place within the class
        chosen = np.zeros(len(self), dtype=bool)
        chosen[order[rank < np.repeat(counts, sizes)]] = True
        return self.take(np.flatnonzero(~chosen)), self.take(np.flatnonzero(chosen))


def _check_limit(count: Any) -> None:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise OptionError(f"limit is {count!r}; expected a whole number of at least 1. Use for example 1000.")


def _check_fraction(fraction: Any) -> None:
    number = isinstance(fraction, (int, float, np.integer, np.floating))
    if not number or not 0 < fraction < 1:
        raise OptionError(f"fraction is {fraction!r}; expected a number between 0 and 1. Use for example 0.2.")


def _stratified_counts(sizes: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """How many images of each class go to the part, by largest remainder.

    Each count is the class's share rounded down or up, never rounded to none or to all of a class of 2 or more.
    """
    shares = sizes * fraction
    divisible = sizes >= 2
    least = np.where(divisible, np.maximum(np.floor(shares), 1), 0).astype(np.int64)
    most = np.where(divisible, np.minimum(np.ceil(shares), sizes - 1), 1).astype(np.int64)
    total = min(max(round(float(sizes.sum() * fraction)), 1), int(sizes.sum()) - 1)  # neither side is empty
    left_over = min(max(total, int(least.sum())), int(most.sum())) - int(least.sum())
    by_remainder = np.argsort(-(shares - least), kind="stable")
    open_classes = by_remainder[(most > least)[by_remainder]]
    least[open_classes[:left_over]] += 1
    return least


def _checked_images(images: Any) -> Images:
    array = _as_array(images, "images")
    if array.dtype not in _IMAGE_DTYPES:
        if array.dtype.kind in "iub":
            fix = 'images.astype("uint8") if they are 0 to 255, images.astype("float32") if not'
        elif array.dtype.kind == "f":
            fix = 'images.astype("float32")'
        else:
            fix = 'an array of numbers, such as images.astype("float32")'
        raise DataError(f"images are {array.dtype}; expected uint8, float32 or float64. Give {fix}.")
    if array.ndim not in (2, 4):
        fix = "Give one row of features, or one (height, width, channels) block, for each image"
        if array.ndim == 3:
            fix = "Add the channel axis: images[..., numpy.newaxis]"
        raise DataError(
            f"images have shape {array.shape}; expected (n, height, width, channels) or (n, features). {fix}."
        )
    if 0 in array.shape[1:]:
        raise DataError(
            f"images have shape {array.shape}: there is nothing in an image. Give at least one value in each."
        )
    return array


def _checked_names(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    listed = () if isinstance(names, str) else tuple(names)
    if not listed or not all(isinstance(name, str) and name for name in listed):
        raise DataError(
            f"class_names is {names!r}; expected a list of names, one for each class, such as ['cat', 'dog']."
        )
    for name in listed:
        if listed.count(name) > 1:
            raise DataError(f"class_names has {name!r} {listed.count(name)} times. Give every class a name of its own.")
    return tuple(str(name) for name in listed)  # NumPy's strings become Python's


def _checked_labels(labels: Any, count: int, classes: int | None) -> NDArray[np.int64]:
    array = _as_array(labels, "labels")
    if array.dtype.kind not in "iufb" or (array.ndim == 1 and array.dtype.kind == "b"):
        raise DataError(
            f"labels are {array.dtype}; expected whole numbers (n,) or one-hot rows (n, classes). "
            'Number the classes from 0: labels.astype("int64").'
        )
    if array.ndim not in (1, 2):
        raise DataError(
            f"labels have shape {array.shape}; expected (n,) or one-hot (n, classes). "
            "Give one whole number for each image."
        )
    if len(array) != count:
        raise DataError(f"there are {count} images but {len(array)} labels. Give one label for each image.")
    if array.ndim == 2:
        return _from_one_hot(array, classes)
    if array.dtype.kind == "f":
        raise DataError(_float_labels(array))
    if count:
        lowest, highest = int(array.min()), int(array.max())
        top = np.iinfo(np.int64).max if classes is None else classes - 1
        if lowest < 0 or highest > top:
            wrong = lowest if lowest < 0 else highest
            where = int(np.flatnonzero(array == wrong)[0])
            known = "0" if classes is None else f"0 to {top}, as class_names has {classes} names"
            fix = "Correct the label" if wrong < 0 or classes is None else "Correct the label, or name its class"
            raise DataError(f"labels[{where}] is {wrong}; expected whole numbers from {known}. {fix}.")
    return array.astype(np.int64, copy=False)


def _float_labels(labels: NDArray[Any]) -> str:
    """What to say of labels `(n,)` that are not whole-number types."""
    missing = np.flatnonzero(~np.isfinite(labels))
    if len(missing):
        return f"labels[{missing[0]}] is {labels[missing[0]]}; expected a whole number. Correct it, or leave that image out."
    broken = np.flatnonzero(labels != np.floor(labels))
    if len(broken):
        return (
            f"labels[{broken[0]}] is {labels[broken[0]]}; expected the number of a class. Give whole numbers: cnnkit "
            "classifies, it does not fit measurements."
        )
    return f'labels are {labels.dtype}; expected whole numbers. Convert them first: labels.astype("int64").'


def _from_one_hot(rows: NDArray[Any], classes: int | None) -> NDArray[np.int64]:
    """`(n, classes)` with one 1 a row -> `(n,)`."""
    if rows.shape[1] < 2:
        raise DataError(
            f"labels have shape {rows.shape}; expected (n,), or one-hot (n, classes) with at least 2 classes. "
            "For class numbers in a column, give labels[:, 0]."
        )
    ones = rows == 1
    bad = np.flatnonzero(~(ones | (rows == 0)).all(axis=1) | (ones.sum(axis=1) != 1))
    if len(bad):
        row = rows[bad[0]]
        shown = np.array2string(row, separator=", ", threshold=12, precision=4)
        raise DataError(
            f"labels[{bad[0]}] is {shown}; expected a one-hot row, with one 1 and else 0. "
            "Give each image one class; soft or several labels are not supported."
        )
    if classes is not None and rows.shape[1] != classes:
        raise DataError(
            f"one-hot labels have {rows.shape[1]} columns, but class_names has {classes} names. Give a name to each column."
        )
    return np.nonzero(ones)[1].astype(np.int64)  # the column of each row's 1


def _as_array(values: Any, what: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:  # ragged lists, and arrays of a device that do not come by themselves
        raise DataError(f"{what} do not make one NumPy array: {error}. Give numbers in one numpy.ndarray.") from error
    if array.dtype.kind == "O":
        raise DataError(
            f"{what} are an array of Python objects, as rows of different shapes make; expected numbers. "
            f"Give every {what[:-1]} the same shape, then numpy.stack them."
        )
    return array
