"""The first half of a run's report: how good the model is, how it learned, and what it takes for what."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from cnnkit.history import EpochRecord
from cnnkit.metrics import Metrics
from cnnkit.report.document import Block, Cell, Mono, Paragraph, Ref, Section, Table, Words
from cnnkit.report.folder import FinishedRun
from cnnkit.report.pictures import Studio
from cnnkit.report.words import NOTHING, counted, difference, listed, percent, seconds, share, signed

MOST_COLUMNS: Final = 30
"""Classes up to which the confusion matrix is a table; of more, its largest mistakes are."""
MOST_MIXED_UP: Final = 10
MOST_NAMES: Final = 8


def headline(run: FinishedRun) -> str:
    """What came of it, in one sentence."""
    test = run.test
    right = int(test.confusion.trace())
    if right == test.count:
        return f"{run.model_name} classifies all {test.count:,} test images of {run.dataset_name} correctly."
    return (
        f"{run.model_name} classifies {percent(test.accuracy)} of {counted(test.count, 'test image')} of "
        f"{run.dataset_name} correctly."
    )


# ------------------------------------------------------------------------------------------------------------- results


def results(run: FinishedRun, _: Studio) -> Section:
    """The table of figures, and how to take them."""
    rows = [
        [name, *map(share, (metrics.accuracy, *averages, _loss(metrics)))]
        for name, metrics, averages in (
            ("Training, macro average", run.train, _averages(run.train, "macro")),
            ("Training, weighted average", run.train, _averages(run.train, "weighted")),
            ("Test, macro average", run.test, _averages(run.test, "macro")),
            ("Test, weighted average", run.test, _averages(run.test, "weighted")),
        )
    ]
    caption = (
        "Accuracy, precision, recall and F1 of the trained model. A macro average counts every class alike, a weighted "
        "one by its number of images; weighted recall is the accuracy. The loss is the mean cross-entropy."
    )
    head = ["Images", "Accuracy", "Precision", "Recall", "F1", "Loss"]
    blocks: list[Block] = [Table("results", caption, head, rows), Paragraph(_doubt(run)), Paragraph(_gap(run))]
    blocks += [Paragraph(words) for words in _undefined(run.test)]
    return Section("results", "Results", blocks)


def _averages(metrics: Metrics, kind: str) -> tuple[float, float, float]:
    found = metrics.macro if kind == "macro" else metrics.weighted
    return found.precision, found.recall, found.f1


def _loss(metrics: Metrics) -> float | None:
    return None if metrics.loss is None or math.isnan(metrics.loss) else metrics.loss


def _doubt(run: FinishedRun) -> str:
    low, high = wilson(run.test.accuracy, run.test.count)
    support = run.test.confusion.sum(axis=1)
    often = int(support.argmax())
    return (
        f"With {counted(run.test.count, 'test image')} the accuracy on images like these lies between {share(low)} and "
        f"{share(high)} (95 % interval of Wilson). Always to say {run.test.per_class[often].name!r}, the most frequent "
        f"class, would be right for {percent(int(support[often]) / run.test.count)}."
    )


def wilson(rate: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate seen in `count` trials: Wilson, JASA 22 (1927), equation of page 212, z = 1.96.

    Unlike rate ± 2 standard errors it stays within 0 and 1, and has a width where the rate is 0 or 1.
    """
    z = 1.959964
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _gap(run: FinishedRun) -> Words:
    gap = run.gap
    told = f"The gap, training minus test accuracy, is {signed(gap)}. "
    if gap <= 0:
        return told + "What was learned holds for images that the model has not seen."
    return told + (
        "The larger it is, the more of what the model knows holds for its training images alone. Against a large gap "
        "help more images, a smaller model, dropout, or stopping early."
    )


def _undefined(metrics: Metrics) -> list[str]:
    """What is 0 / 0 among the figures of the test images, by reason."""
    said = []
    for reason, words in (
        ("never predicted", "No test image was taken for {}; that precision is undefined and counts as 0."),
        ("no images", "There is no test image of {}; that recall is undefined and counts as 0."),
    ):
        names = [figure.name for figure in metrics.undefined if figure.reason == reason]
        if names:
            shown = names if len(names) <= MOST_NAMES else [*names[:MOST_NAMES], f"{len(names) - MOST_NAMES:,} more"]
            said.append(words.format(listed(shown)))
    return said


# ------------------------------------------------------------------------------------------------------------ learning


def learning(run: FinishedRun, studio: Studio) -> Section:
    """The curves, and the history as a table."""
    history = run.history
    blocks: list[Block] = [Paragraph(str(run.result["message"]))]
    if len(history) > 1:
        caption = (
            "Loss and accuracy after each epoch. The loss while learning is the mean over an epoch in which the weights "
            "were changing; the other lines are measured with the weights of its end."
        )
        blocks += studio.figure("curves", caption, lambda plot: plot.learning_curves(history), dark=True)
    else:
        blocks.append(Paragraph("One epoch makes no curve. With more epochs there is one here.", "soft"))
    blocks.append(_history(run))
    return Section("learning", "Learning", blocks)


def _history(run: FinishedRun) -> Table:
    history = run.history
    columns: list[tuple[str, list[str | Cell]]] = [
        ("Epoch", [str(record.epoch) for record in history]),
        ("Loss while learning", [share(record.running_loss) for record in history]),
    ]
    for part in ("train", "validation"):
        if any(getattr(record, part) is not None for record in history):
            name = {"train": "Training", "validation": "Validation"}[part]
            columns += [
                (f"{name} {metric}", [share(_of(record, part, metric)) for record in history])
                for metric in ("loss", "accuracy")
            ]
    gaps = [difference(_of(record, "train", "accuracy"), _of(record, "validation", "accuracy")) for record in history]
    if any(gap is not None for gap in gaps):
        columns.append(("Gap", [signed(gap) for gap in gaps]))
    columns += [
        ("Learning rate", [f"{record.learning_rate:g}" for record in history]),
        ("Training took", [seconds(record.seconds_train) for record in history]),
    ]
    if any(record.train is not None or record.validation is not None for record in history):
        columns.append(("Judging took", [seconds(record.seconds_evaluate) for record in history]))
    if any(record.best for record in history):
        best = max(record.epoch for record in history if record.best)
        columns.append(("Weights", [Cell("best", strong=True) if r.epoch == best else "" for r in history]))
    caption = "Every epoch, with the wall time that it took."
    if any(gap is not None for gap in gaps):
        caption += " The gap is training minus validation accuracy: where it grows, the model begins to overfit."
    head = [name for name, _ in columns]
    return Table("history", caption, head, [list(row) for row in zip(*(cells for _, cells in columns), strict=True)])


def _of(record: EpochRecord, part: str, metric: str) -> float | None:
    figures = getattr(record, part)
    return None if figures is None else figures[metric]


# ------------------------------------------------------------------------------------------------------------- classes


def classes(run: FinishedRun, studio: Studio) -> Section:
    """Every class, and which is taken for which."""
    test = run.test
    rows = [
        [record.name, share(record.precision), share(record.recall), share(record.f1), f"{record.support:,}"]
        for record in test.per_class
    ]
    caption = (
        "Each class on the test images. Precision: of the images that were taken for the class, the share that are. "
        "Recall: of the images of the class, the share that were found. F1: their harmonic mean."
    )
    head = ["Class", "Precision", "Recall", "F1", "Images"]
    blocks: list[Block] = [Paragraph(_weakest(test)), Table("classes", caption, head, rows)]
    blocks += _matrix(test)
    if len(test.per_class) > MOST_COLUMNS:
        caption = "The whole confusion matrix as a picture. The shade is the share of a row."
        blocks += studio.figure("matrix-picture", caption, lambda plot: plot.confusion_matrix(test))
    return Section("classes", "Classes", blocks)


def _weakest(metrics: Metrics) -> Words:
    present = [record for record in metrics.per_class if record.support]
    worst = min(present, key=lambda record: record.f1)
    if worst.f1 == 1:
        return "Every test image was given its class."
    pairs = mixed_up(metrics)[:3]
    said = [f"{true} for {taken} ({counted(count, 'image')})" for true, taken, count in pairs]
    return (
        f"The weakest class is {worst.name}, with an F1 of {share(worst.f1)}. Most often mistaken, in ",
        Ref("matrix"),
        f": {listed(said)}.",
    )


def mixed_up(metrics: Metrics) -> list[tuple[str, str, int]]:
    """Which class was taken for which other, and how often, the most frequent first."""
    names = [record.name for record in metrics.per_class]
    wrong = metrics.confusion - np.diag(np.diag(metrics.confusion))
    places = [(int(row), int(column)) for row, column in np.argwhere(wrong)]
    places.sort(key=lambda place: (-wrong[place], place))
    return [(names[row], names[column], int(wrong[row, column])) for row, column in places]


def _matrix(metrics: Metrics) -> Iterator[Block]:
    counts = metrics.confusion
    if len(counts) > MOST_COLUMNS:
        found = mixed_up(metrics)
        caption = (
            f"The most frequent mistakes among {len(counts):,} classes. The whole confusion matrix is in metrics.json."
        )
        rows: list[list[str | Cell]] = [[true, taken, f"{count:,}"] for true, taken, count in found[:MOST_MIXED_UP]]
        yield Table("matrix", caption, ["Class", "Taken for", "Images"], rows, words=frozenset({1}))
        return
    names = [record.name for record in metrics.per_class]
    rows = []
    for row, name in enumerate(names):
        total = int(counts[row].sum())
        cells = [
            Cell(f"{count:,}", _shade(count, total), strong=row == column)
            for column, count in enumerate(counts[row].tolist())
        ]
        rows.append([name, *cells])
    caption = "Confusion matrix of the test images: rows are the true classes, columns what they were taken for."
    yield Table("matrix", caption, ["True class", *names], rows, kind="matrix", corner="Taken for")


def _shade(count: int, total: int) -> int:
    """From 0 for none to 9 for all of a row; by the root of the share, so that one mistake in a hundred can be seen."""
    return math.ceil(9 * math.sqrt(count / total)) if count else 0


# ------------------------------------------------------------------------------------------------------------ mistakes


def mistakes(run: FinishedRun, studio: Studio) -> Section:
    """The images that the model was surest about, and wrong."""
    found = run.mistakes
    if found is None:
        words: Words = (
            "There is no ",
            Mono("mistakes.npz"),
            " in the run folder, which ",
            Mono("cnnkit train"),
            " leaves there.",
        )
        return Section("mistakes", "Mistakes", [Paragraph(words)])
    wrong = run.test.count - int(run.test.confusion.trace())
    if (found.total, found.judged) != (wrong, run.test.count):
        said = (
            f" tells of {counted(found.total, 'mistake')} among {counted(found.judged, 'image')}, but the run made {wrong:,} "
            f"among {run.test.count:,}: it is of another run, or of another time in this one, and left out here."
        )
        words = (Mono("mistakes.npz"), said)
        return Section("mistakes", "Mistakes", [Paragraph(words, "warning")])
    if found.total == 0:
        return Section(
            "mistakes", "Mistakes", [Paragraph(f"There are none among {counted(found.judged, 'test image')}.")]
        )
    caption = f"The {counted(len(found), 'mistake')} that the model was surest of, out of {found.total:,}."
    blocks: list[Block] = []
    if found.images.ndim == 4:
        blocks += studio.figure("mistakes-picture", caption, lambda plot: plot.mistakes(found))
    rows: list[list[str | Cell]] = [
        [str(int(index)), found.name(int(label)), found.name(int(taken)), _sure(float(sure))]
        for index, label, taken, sure in zip(
            found.indices, found.labels, found.predicted, found.probabilities, strict=True
        )
    ]
    head = ["Test image", "Class", "Taken for", "Probability"]
    said = caption + " Images are counted from 0, in the order of the test set."
    blocks.append(Table("mistakes", said, head, rows, words=frozenset({1, 2})))
    return Section("mistakes", "Mistakes", blocks)


def _sure(probability: float) -> str:
    return NOTHING if math.isnan(probability) else f"{probability:.4f}"
