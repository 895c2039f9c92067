"""How good a classifier is: every figure from one confusion matrix over the whole set, never averaged over batches.

With `c[i, j]` the number of images of class `i` that were taken for class `j`:

    precision of k = c[k, k] / sum of column k          right ones among those that were taken for k
    recall of k    = c[k, k] / sum of row k             right ones among those that are k
    f1 of k        = 2 c[k, k] / (column k + row k)     their harmonic mean
    accuracy       = sum of c[k, k] / sum of all

A macro average is the plain mean over all classes, absent ones included; a weighted average weighs each class by its
number of images. Weighted recall is the accuracy, always, and macro recall is where every class has as many images.
Micro averages are not offered: with one label an image, micro precision, recall and F1 all are the accuracy.

Where a figure would be 0 / 0, because a class never occurs or is never predicted, it counts as 0.0 and stands in
`Metrics.undefined`. This is scikit-learn's `zero_division=0` with `labels=range(classes)`. Over no images at all every
figure is NaN.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Labels, check_labels
from cnnkit.errors import DataError, TrainingError
from cnnkit.tables import html_table, html_text, text_table


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Count the pairs: `(classes, classes)`, rows the true class, columns the predicted one.

    `labels` and `predicted` are `(n,)`, whole numbers from 0 to classes - 1; anything else is a `DataError`. Matrices
    of parts of a set add up to the matrix of the set.
    """
    labels = check_labels(labels, len(labels), classes)
    try:
        predicted = check_labels(predicted, len(labels), classes)
    except DataError as error:
        raise DataError(f"the predicted classes are no labels: {error}") from None
    pairs = labels.astype(np.int64) * classes + predicted.astype(np.int64)  # (n,)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


# ------------------------------------------------------------------------------------------------------------ metrics


@dataclass(frozen=True)
class Averages:
    """Precision, recall and F1, averaged over the classes."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassMetrics:
    """The figures of one class; `support` is its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Undefined:
    """One figure that would be 0 / 0: `metric` is `precision`, `recall` or `f1`."""

    metric: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.metric} of {self.name} ({self.reason})"


@dataclass(frozen=True, eq=False, repr=False)
class Metrics:
    """The figures of a confusion matrix `(classes, classes)`, rows true, columns predicted; prints as a table.

    `loss` is the mean cross-entropy over the same images, where somebody has computed it. Classes are called by their
    numbers where `class_names` is None. Raises `DataError` for a matrix that is not square or not of counts.
    """

    confusion: NDArray[np.int64]
    loss: float | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the matrix, and keep a copy that nobody changes."""
        given = np.asarray(self.confusion)
        square = given.ndim == 2 and given.shape[0] == given.shape[1] > 0
        if not square or given.dtype.kind not in "iu" or given.min() < 0:
            raise DataError(
                f"the confusion matrix is {given.dtype.name} of shape {given.shape}; expected counts of at least 0, one "
                "row and one column for each class. Make it with cnnkit.metrics.confusion_matrix."
            )
        confusion = given.astype(np.int64)
        confusion.flags.writeable = False
        object.__setattr__(self, "confusion", confusion)
        if self.class_names is None:
            return
        object.__setattr__(self, "class_names", tuple(self.class_names))
        if len(self.class_names) != len(confusion):
            raise DataError(
                f"there are {len(self.class_names)} class names for {len(confusion)} classes. Give one name for each."
            )

    @property
    def count(self) -> int:
        """The number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of images that were given their own class."""
        return int(self.confusion.trace()) / self.count if self.count else math.nan

    @property
    def precision(self) -> float:
        """Macro precision."""
        return self.macro.precision

    @property
    def recall(self) -> float:
        """Macro recall."""
        return self.macro.recall

    @property
    def f1(self) -> float:
        """Macro F1: the mean of the classes' F1, not the F1 of the means."""
        return self.macro.f1

    @cached_property
    def macro(self) -> Averages:
        """The plain mean over all classes, absent ones included."""
        return self._averages(np.ones(len(self.confusion)))

    @cached_property
    def weighted(self) -> Averages:
        """The mean over the classes, each weighed by its number of images."""
        return self._averages(self.confusion.sum(axis=1).astype(float))

    def _averages(self, weights: Array) -> Averages:
        figures = self._figures @ weights / weights.sum() if self.count else np.full(3, math.nan)  # (3,)
        return Averages(*figures.tolist())

    @cached_property
    def _figures(self) -> NDArray[np.float64]:
        """Precision, recall and F1 of every class: `(3, classes)`."""
        hits, true, taken = self.confusion.diagonal(), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        tops, bottoms = np.stack([hits, hits, 2 * hits]), np.stack([taken, true, taken + true])
        nothing = 0.0 if self.count else math.nan
        figures = np.full(tops.shape, nothing)
        np.divide(tops, bottoms, out=figures, where=bottoms > 0)
        return figures

    @cached_property
    def per_class(self) -> tuple[ClassMetrics, ...]:
        """One record a class, in the order of the classes."""
        support = self.confusion.sum(axis=1).tolist()
        return tuple(
            ClassMetrics(name, precision, recall, f1, images)
            for name, (precision, recall, f1), images in zip(
                self._names, self._figures.T.tolist(), support, strict=True
            )
        )

    @property
    def _names(self) -> tuple[str, ...]:
        return self.class_names or tuple(str(number) for number in range(len(self.confusion)))

    @property
    def absent(self) -> tuple[str, ...]:
        """The names of the classes of which there was no image."""
        return tuple(record.name for record in self.per_class if not record.support)

    @cached_property
    def undefined(self) -> tuple[Undefined, ...]:
        """The figures that are 0 / 0, class by class."""
        found = []
        for name, true, taken in zip(self._names, self.confusion.sum(axis=1), self.confusion.sum(axis=0), strict=True):
            if not taken:
                found.append(Undefined("precision", name, "never predicted"))
            if not true:
                found.append(Undefined("recall", name, "no images"))
            if not taken and not true:
                found.append(Undefined("f1", name, "no images and never predicted"))
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON, in which a figure that is NaN or infinite is None."""
        return {
            "count": self.count,
            "loss": _plain(self.loss),
            "accuracy": _plain(self.accuracy),
            **_plain(asdict(self.macro)),
            "weighted": _plain(asdict(self.weighted)),
            "per_class": [_plain(asdict(record)) for record in self.per_class],
            "undefined": [asdict(figure) for figure in self.undefined],
            "confusion": self.confusion.tolist(),
        }

    def __str__(self) -> str:
        lines = [self._heading, text_table(FIGURES_HEAD, self._rows, left={0}), *self._remarks]
        return "\n".join(lines)

    __repr__ = __str__

    @property
    def _heading(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4f}"
        return f"accuracy {self.accuracy:.4f} on {self.count:,} image{'' if self.count == 1 else 's'}{loss}"

    @property
    def _rows(self) -> list[list[str]]:
        rows: list[tuple[str, float, float, float, int]] = [
            (record.name, record.precision, record.recall, record.f1, record.support) for record in self.per_class
        ]
        for name, mean in (("macro average", self.macro), ("weighted average", self.weighted)):
            rows.append((name, mean.precision, mean.recall, mean.f1, self.count))
        return [[name, f"{p:.4f}", f"{r:.4f}", f"{f:.4f}", f"{n:,}"] for name, p, r, f, n in rows]

    @property
    def _remarks(self) -> list[str]:
        if not self.undefined or not self.count:
            return []
        return ["undefined, counted as 0: " + ", ".join(map(str, self.undefined))]

    def _repr_html_(self) -> str:
        """The figures of each class, and the confusion matrix as far as it can be read."""
        parts = [html_table(FIGURES_HEAD, self._rows, caption=self._heading, left={0}), *map(html_text, self._remarks)]
        if len(self.confusion) > SHOWN_CLASSES:
            parts.append(html_text(f"The confusion matrix of {len(self.confusion)} classes is in .confusion."))
        else:
            rows = [
                [name, *(f"{count:,}" for count in counts)]
                for name, counts in zip(self._names, self.confusion.tolist(), strict=True)
            ]
            caption = "confusion matrix: a row for each true class, a column for each predicted one"
            parts.append(html_table(["", *self._names], rows, caption=caption, left={0}))
        return f"<div>{''.join(parts)}</div>"


FIGURES_HEAD = ("", "precision", "recall", "f1", "images")
SHOWN_CLASSES = 20
"""Up to so many classes, a notebook shows the confusion matrix."""


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --------------------------------------------------------------------------------------------------- scores and losses


def cross_entropy(scores: Array, labels: Labels) -> NDArray[np.float64]:
    """The loss of every image, `(n,)`, from the scores under the softmax, `(n, classes)`.

    -log(softmax(scores)[label]) = log(sum over j of exp(s_j - s_max)) - (s_label - s_max), computed in float64. The
    largest term of the sum is exactly 1, so `log1p` of the others keeps a loss of 1e-18 as well as one of 400, and a
    finite float32 score never gives infinity. NaN in a row makes its loss NaN. Raises `DataError` for other shapes,
    or a label out of range.
    """
    scores = np.asarray(_check_scores(scores), dtype=np.float64)
    labels = check_labels(labels, len(scores), scores.shape[1])
    images = np.arange(len(scores))
    with np.errstate(invalid="ignore", over="ignore"):  # infinite scores, or float64 ones beyond 8e307, as IEEE says
        below = scores - scores.max(axis=1, keepdims=True)  # (n, classes), the largest 0
        terms = np.exp(below)
        terms[images, scores.argmax(axis=1)] -= 1.0  # 0, or NaN where the row holds NaN
        losses: NDArray[np.float64] = np.log1p(terms.sum(axis=1)) - below[images, labels]  # (n,)
    return losses


def predicted_classes(scores: Array) -> NDArray[np.int64]:
    """The class with the highest score, or the lowest-numbered of several: `(n, classes)` to `(n,)`.

    Raises `TrainingError` for a row with NaN, which has no highest score.
    """
    scores = _check_scores(scores)
    broken = np.isnan(scores).any(axis=1)  # (n,)
    if broken.any():
        row = int(broken.argmax())
        raise TrainingError(
            f"row {row} of the scores holds NaN, so there is no predicted class. The parameters or the images hold NaN: "
            "look at them, and if training made it, use a lower learning rate."
        )
    classes: NDArray[np.int64] = scores.argmax(axis=1).astype(np.int64)
    return classes


def _check_scores(scores: Array) -> Array:
    scores = np.asarray(scores)
    if scores.ndim != 2 or not scores.shape[1] or scores.dtype.kind != "f":
        raise DataError(
            f"scores are {scores.dtype.name} of shape {scores.shape}; expected floating-point numbers of shape "
            "(images, classes). Give what predict returned."
        )
    return scores
