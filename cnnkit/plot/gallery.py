"""Images with their classes: those of a data set, and those that a model took for something else."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Shape, times, whole_number
from cnnkit.datasets import Dataset
from cnnkit.errors import DataError, OptionError
from cnnkit.evaluation import require_dataset
from cnnkit.mistakes import Mistakes
from cnnkit.plot.grid import Grid, tiles_of
from cnnkit.plot.picture import Picture, picture
from cnnkit.plot.words import counted, listed, percent, short

MOST_ROWS: Final = 12
"""Classes up to which each has a row of its own."""
COLUMNS: Final = 10
MOST_IMAGES: Final = 100
"""Shown where nobody says how many."""


@picture
def images(data: Dataset, *, count: int | None = None, columns: int | None = None) -> Picture:
    """Images of a data set with their classes.

    Up to 12 classes have a row each, with the first `columns` (10) images of the class; of more classes one image each
    is shown, up to 100. With `count`, so many images are shown instead, `columns` in a row: the first of every class,
    then the second of every class, and so on. One channel is shown as grey, three as red, green and blue, any other
    number by its mean. Values are shown from 0 to 255 for uint8, else from 0 to 1 where all lie there, else from the
    lowest to the highest; pixels that are NaN or infinite are orange.

    Raises `OptionError` for data `(n, features)` and for counts below 1, `DataError` for data without images.
    """
    require_dataset("data", data)
    _require_pixels(data.image_shape)
    if len(data) == 0:
        raise DataError("the data set has 0 images, so there is nothing to show. Give data with images.")
    wide = COLUMNS if columns is None else whole_number("columns", columns)
    if count is None and data.classes <= MOST_ROWS:
        rows = [np.flatnonzero(data.labels == label)[:wide] for label in range(data.classes)]
        names = [_name(data, label) for label in range(data.classes)]
        grid = Grid(max(map(len, rows)), len(rows), data.image_shape, names=names)
        for row in (row for row, places in enumerate(rows) if not len(places)):
            grid.remark(row, "no images")
        cells = [(row, column) for row, places in enumerate(rows) for column in range(len(places))]
        chosen = np.concatenate(rows)
    else:
        chosen = _in_turns(data.labels, None if count is None else whole_number("count", count))
        wide = min(wide, len(chosen))
        grid = Grid(wide, -(-len(chosen) // wide), data.image_shape, lines=1)
        cells = [divmod(number, wide) for number in range(len(chosen))]
        for (row, column), label in zip(cells, data.labels[chosen].tolist(), strict=True):
            grid.caption(row, column, [short(_name(data, label), grid.letters)])
    tiles, scale = tiles_of(data.images[chosen])
    for (row, column), tile in zip(cells, tiles, strict=True):
        grid.show(row, column, tile)
    grid.made.alt = _words(data, chosen, scale)
    return grid.made


@picture
def mistakes(mistakes: Mistakes) -> Picture:
    """Images that were given a wrong class, the surest mistake first, each with both classes and the probability.

    Without any mistakes the picture says so. Raises `OptionError` for images that are `(k, features)`.
    """
    head = f"{counted(mistakes.total, 'mistake')} on {counted(mistakes.judged, 'image')}"
    if len(mistakes) == 0:
        made = Picture(4, 1)
        made.text(0.5, 0.5, f"{head}.", ha="center", va="center")
        made.alt = f"{head}."
        return made
    _require_pixels(mistakes.images.shape[1:])
    captions = [
        (f"true {mistakes.name(true)}", f"said {mistakes.name(said)}", percent(probability))
        for true, said, probability in zip(
            mistakes.labels.tolist(), mistakes.predicted.tolist(), mistakes.probabilities.tolist(), strict=True
        )
    ]
    if len(captions) < mistakes.total:
        head += f", the surest {len(captions)}"
    wide = min(len(captions), 4 if len(captions) <= 16 else 6)
    brief = all(len(", ".join(caption)) <= len("true 4, said 9, > 99.9 %") for caption in captions)
    rows, shape = -(-len(captions) // wide), mistakes.images.shape[1:3]
    grid = Grid(wide, rows, shape, size=1.5, lines=1 if brief else 3, title=head)
    tiles, scale = tiles_of(mistakes.images)
    for number, (caption, tile) in enumerate(zip(captions, tiles, strict=True)):
        row, column = divmod(number, wide)
        grid.show(row, column, tile)
        grid.caption(row, column, [", ".join(caption)] if brief else [short(part, grid.letters) for part in caption])
    grid.made.alt = f"{head}: {'; '.join(', '.join(caption) for caption in captions)}. Shown with {scale}."
    return grid.made


def _require_pixels(shape: Shape) -> None:
    if len(shape) != 3:
        raise OptionError(
            f"the data are rows of {shape[0]} features, which are no images. Give data (n, height, width, channels)."
        )


def _name(data: Dataset, label: int) -> str:
    return data.class_names[label] if data.class_names else str(label)


def _in_turns(labels: NDArray[np.int64], count: int | None) -> NDArray[np.int64]:
    """The places of `count` images: the first of every class, then the second; None is the first of each, up to 100."""
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = min(len(places), MOST_IMAGES) if count is None else count
    turns = chain.from_iterable(zip_longest(*(found[:most] for found in places)))
    return np.array([place for place in turns if place is not None][:most])


def _words(data: Dataset, chosen: NDArray[np.int64], scale: str) -> str:
    labels, counts = np.unique(data.labels[chosen], return_counts=True)
    each = [f"{_name(data, label)} ({number})" for label, number in zip(labels.tolist(), counts.tolist(), strict=True)]
    missing = data.classes - len(np.unique(data.labels))
    return (
        f"{len(chosen):,} of {counted(len(data), 'image')} of a data set with "
        f"{counted(data.classes, 'class', 'classes')}: {listed(each, MOST_ROWS)}. "
        f"They are {times(data.image_shape)}, {scale}."
        + (f" There are no images of {counted(missing, 'class', 'classes')}." if missing else "")
    )
