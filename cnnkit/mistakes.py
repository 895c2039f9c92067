"""The images that a classifier takes for something else, the surest of its mistakes first."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Images, Parameters, whole_number
from cnnkit.datasets import Dataset
from cnnkit.datasets.archives import read_npz
from cnnkit.errors import CheckpointError, DataError
from cnnkit.evaluation import BackendChoice, check_fits, predict, require_dataset, require_model
from cnnkit.files import write_whole
from cnnkit.metrics import predicted_classes
from cnnkit.model import Model

_ROWS: Final = ("images", "labels", "predicted", "probabilities", "indices")
"""The fields with one entry an image."""
_ARRAYS: Final = (*_ROWS, "total", "judged", "class_names")
"""Those of a file. All are always there, so that none can get lost unnoticed: no names are an empty array."""
_IMAGE_DTYPES: Final = ("uint8", "float32", "float64")


@dataclass(frozen=True, eq=False)
class Mistakes:
    """Some of the images that were given a wrong class, the one with the highest probability for it first.

    `k` may be 0: a model without mistakes has an empty list of them.
    """

    images: Images
    """`(k, height, width, channels)` or `(k, features)`, as they are in the data set."""
    labels: NDArray[np.int64]
    """The true class of each, `(k,)`."""
    predicted: NDArray[np.int64]
    """The class that each was given, `(k,)`."""
    probabilities: NDArray[np.float64]
    """The probability that the model gave to that wrong class, `(k,)`."""
    indices: NDArray[np.int64]
    """The place of each in the data set, `(k,)`."""
    class_names: tuple[str, ...] | None
    total: int
    """How many mistakes there were in all; `k` of them are here."""
    judged: int
    """How many images were judged."""

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Mistakes({len(self)} of {self.total} among {self.judged} images)"

    def name(self, number: int) -> str:
        """What the class `number` is called: its name, or else the number."""
        return self.class_names[number] if self.class_names else str(number)

    def limit(self, count: int) -> Mistakes:
        """The first `count` of them, or all where there are fewer; `total` stays the number of all mistakes."""
        count = whole_number("count", count)
        rows = {name: getattr(self, name)[:count] for name in _ROWS}
        return replace(self, **rows)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an .npz file of plain arrays, whole or not at all, and return its path.

        Raises `CheckpointError` where it cannot be written.
        """
        path = Path(path)
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays["class_names"] = np.array(self.class_names or (), np.str_)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        try:
            write_whole(path, buffer.getvalue())
        except OSError as error:
            raise CheckpointError(
                f"cannot save {path}: {error.strerror or error}. Free space, or choose another place."
            ) from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Mistakes:
        """Read what `save` wrote. Raises `CheckpointError` for a file that is missing, damaged or something else."""
        path = Path(path)
        try:
            arrays = read_npz(path, [_ARRAYS])
        except DataError as error:
            raise CheckpointError(f"{error} Mistakes are read from what Mistakes.save wrote.") from error
        wrong = _what_is_wrong(arrays)
        if wrong:
            raise CheckpointError(f"{path} is damaged: {wrong}. Use another copy of the file.")
        names = tuple(arrays.pop("class_names").tolist()) or None
        total, judged = int(arrays.pop("total")), int(arrays.pop("judged"))
        return cls(**arrays, class_names=names, total=total, judged=judged)


def worst_mistakes(
    model: Model,
    parameters: Parameters,
    data: Dataset,
    backend: BackendChoice = None,
    *,
    count: int = 16,
    **settings: Any,
) -> Mistakes:
    """The `count` images of `data` that the model is most sure to be something else, in one pass over the data.

    Of images with the same probability the one that stands first in the data comes first. The predicted class is the
    one with the highest score, the lowest index at a tie, as in `evaluate`, so that `total` is the number of images off
    the diagonal of its confusion matrix. `settings` are those of `predict`, as are the errors; a score that is NaN is a
    `TrainingError`, since it predicts nothing.
    """
    require_model(model)
    require_dataset("data", data)
    count = whole_number("count", count)
    classes = model.plan().classes
    check_fits(model, data)
    scores: Array = np.asarray(data.images, np.float64)  # the model is Softmax alone: its input is the scores
    if len(model.layers) > 1:
        scores = predict(model.prefix(len(model.layers) - 2), parameters, data.images, backend, **settings)
    predicted = predicted_classes(scores)  # (n,)
    wrong = np.flatnonzero(predicted != data.labels)  # (total,)
    probabilities = _highest_probabilities(scores[wrong])  # (total,)
    worst = np.argsort(-probabilities, kind="stable")[:count]
    indices = wrong[worst]
    names = model.class_names or data.class_names
    return Mistakes(
        images=data.images[indices],
        labels=data.labels[indices],
        predicted=predicted[indices],
        probabilities=probabilities[worst],
        indices=indices,
        class_names=tuple(names) if names and len(names) == classes else None,
        total=len(wrong),
        judged=len(data),
    )


def _highest_probabilities(scores: Array) -> NDArray[np.float64]:
    """The largest softmax of each row of `(n, classes)`: 1 / sum over j of exp(s_j - s_max), in float64."""
    scores = np.asarray(scores, np.float64)
    with np.errstate(invalid="ignore"):  # an infinite score gives NaN, as IEEE arithmetic says
        below = scores - scores.max(axis=1, keepdims=True)
    largest: NDArray[np.float64] = 1 / np.exp(below).sum(axis=1)
    return largest


def _what_is_wrong(arrays: dict[str, NDArray[Any]]) -> str | None:
    """What `Mistakes.save` would not have written, or None."""
    images, total, judged = (arrays[name] for name in ("images", "total", "judged"))
    if images.dtype.name not in _IMAGE_DTYPES or images.ndim not in (2, 4):
        return f"its images are {images.dtype} of shape {images.shape}"
    for name in ("total", "judged", "labels", "predicted", "indices", "probabilities"):
        array = arrays[name]
        kind, shape = "f" if name == "probabilities" else "i", () if name in ("total", "judged") else images.shape[:1]
        if array.dtype.kind != kind or array.shape != shape:
            return f"its {name} are {array.dtype} of shape {array.shape} for {len(images)} images"
    if not len(images) <= total <= judged:
        return f"it holds {len(images)} of {total} mistakes among {judged} images"
    names = arrays["class_names"]
    if names.dtype.kind != "U" or names.ndim != 1:
        return f"its class_names are {names.dtype} of shape {names.shape}"
    classes = len(names) or np.inf
    for name, end in (("labels", classes), ("predicted", classes), ("indices", int(judged))):
        array = arrays[name]
        if len(array) and not (array.min() >= 0 and array.max() < end):
            return f"its {name} are from {array.min()} to {array.max()}"
    return None
