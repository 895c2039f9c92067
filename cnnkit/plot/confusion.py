"""Which classes are taken for which: a confusion matrix."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.metrics import Metrics
from cnnkit.plot.picture import COUNTS, GRID, INK, SOFT, Picture, picture
from cnnkit.plot.words import AS_WRITTEN, counted, listed, percent, short, with_margin

MOST_NUMBERS: Final = 20
"""Classes up to which a cell has room for its count."""
MOST_NAMES: Final = 60
"""Classes up to which each has room for its name."""


@picture
def confusion_matrix(metrics: Metrics) -> Picture:
    """The counts of `metrics.confusion`: a row for each true class, a column for each class that was said.

    The shade of a cell is its share of the row, so that a class with few images shows its mistakes as clearly as one
    with many. Up to 20 classes the counts stand in the cells. A class without images has an empty row that says so.
    """
    counts = metrics.confusion
    classes = len(counts)
    true = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        shares = counts / true[:, np.newaxis]  # NaN in the rows of absent classes
    size = min(max(classes * 0.36, 2.2), 8.5)
    made = with_margin(Picture(size + 2.7, size + 1.6))
    axes = made.subplots()
    axes.set_facecolor("#f1f2f4")
    shown = axes.imshow(np.ma.masked_invalid(shares), cmap=COUNTS, vmin=0, vmax=1)
    if classes <= MOST_NUMBERS:
        _write_counts(axes, counts, shares)
    for row in np.flatnonzero(true == 0).tolist() if classes <= MOST_NAMES else ():
        axes.text((classes - 1) / 2, row, "no images", ha="center", va="center", color=SOFT, fontsize=7, style="italic")
    _name_classes(axes, [record.name for record in metrics.per_class])
    axes.set_ylabel("true class")
    axes.set_xlabel("class that was said")
    axes.set_title(
        f"accuracy {metrics.accuracy:.4f} on {counted(metrics.count, 'image')}" if metrics.count else "no images"
    )
    bar = made.colorbar(shown, ax=axes, shrink=0.75, aspect=18, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.ax.set_yticklabels(["0 %", "25 %", "50 %", "75 %", "100 %"])
    bar.set_label("share of the row's images")
    bar.outline.set_visible(False)
    made.alt = _words(metrics)
    return made


def _write_counts(axes: Any, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    digits = len(f"{counts.max()}")
    size = min(8.5, 25 / (0.62 * max(digits, 2)))
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        if np.isnan(share):
            continue
        color = SOFT if count == 0 else "white" if share > 0.67 else INK
        axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=size)


def _name_classes(axes: Any, names: list[str]) -> None:
    classes = len(names)
    axes.tick_params(length=0)
    if classes > MOST_NAMES:
        return
    labels = [short(name, 24) for name in names]
    long = max(map(len, labels)) > 3
    size = 8 if classes <= 25 else 5.5
    axes.set_xticks(range(classes), labels, rotation=90 if long else 0, fontsize=size, **AS_WRITTEN)
    axes.set_yticks(range(classes), labels, fontsize=size, **AS_WRITTEN)
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor", color=GRID, linewidth=0.5)
    axes.spines[:].set_visible(False)


def _words(metrics: Metrics) -> str:
    counts, names = metrics.confusion, [record.name for record in metrics.per_class]
    right = int(counts.trace())
    about = f"{counted(len(counts), 'class', 'classes')}, rows true, columns said"
    said = [f"Confusion matrix of {about}: {right:,} of {counted(metrics.count, 'image')} right."]
    wrong = counts - np.diag(counts.diagonal())
    most = [place for place in np.argsort(-wrong, axis=None, kind="stable")[:3] if wrong.flat[place]]
    if most:
        pairs = [divmod(int(place), len(counts)) for place in most]
        found = [
            f"{names[row]} taken for {names[column]} ({counted(counts[row, column], 'image')})" for row, column in pairs
        ]
        said.append(f"Most often wrong: {', '.join(found)}.")
        worst = min((record for record in metrics.per_class if record.support), key=lambda record: record.recall)
        said.append(f"The class that is found least is {worst.name}, with {percent(worst.recall)} of its images.")
    elif metrics.count:
        said.append("No image is taken for another class.")
    if metrics.absent:
        said.append(f"No images of {listed(metrics.absent)}.")
    return " ".join(said)
