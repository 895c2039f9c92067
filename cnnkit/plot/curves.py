"""How a run went: loss and accuracy over its epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cnnkit.errors import OptionError
from cnnkit.history import EpochRecord
from cnnkit.plot.picture import INK, LINES, MARKERS, SERIES, SOFT, Picture, picture
from cnnkit.plot.words import counted, with_margin

NAMES: Final = ("while learning", "train", "validation")
"""The lines: the mean over the epoch while weights changed, and both sets as the epoch's end leaves the weights."""


@picture
def learning_curves(history: Sequence[EpochRecord]) -> Picture:
    """Loss and accuracy of each epoch of `history`, such as `run.history`, and the epoch with the best weights.

    The gap between the accuracies of train and validation, which shows overfitting, is shaded and said in the words.
    Figures that are NaN or infinite leave a gap. Raises `OptionError` for a history without epochs.
    """
    history = list(history)
    if not history:
        raise OptionError("the history has no epochs, so there is nothing to draw. Give that of a run of at least one.")
    losses = {NAMES[0]: [record.running_loss for record in history], **_figures(history, "loss")}
    accuracies = _figures(history, "accuracy")
    made = with_margin(Picture(8 if accuracies else 4.5, 3.7))
    panels = list(made.subplots(1, 2 if accuracies else 1, squeeze=False)[0])
    epochs = [record.epoch for record in history]
    _lines(panels[0], epochs, losses, "loss")
    panels[0].set_title("Loss: mean cross-entropy")
    if accuracies:
        _lines(panels[1], epochs, accuracies, "accuracy")
        panels[1].set_title("Accuracy: share of images given their class")
        _shade_gap(panels[1], epochs, accuracies)
    best, why = _best(history)
    if best is not None:
        for panel in panels:
            panel.axvline(best, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), zorder=0, label=f"epoch {best}: {why}")
    entries = [zip(*panel.get_legend_handles_labels(), strict=True) for panel in panels]
    legend = {label: handle for panel in entries for handle, label in panel}  # each once, though both panels have it
    made.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=3 if accuracies else 2)
    made.alt = _words(history, losses, accuracies, best, why)
    return made


def _figures(history: Sequence[EpochRecord], metric: str) -> dict[str, list[float]]:
    """The lines of train and validation, NaN where an epoch was not judged; without those that never were."""
    lines = {}
    for name in NAMES[1:]:
        records = [getattr(record, name) for record in history]
        if any(record is not None for record in records):
            lines[name] = [math.nan if record is None else record[metric] for record in records]
    return lines


def _lines(panel: Axes, epochs: Sequence[int], lines: dict[str, list[float]], what: str) -> None:
    for name, figures in lines.items():
        style = NAMES.index(name)
        panel.plot(
            epochs,
            [figure if math.isfinite(figure) else math.nan for figure in figures],
            color=SERIES[style],
            linestyle=LINES[style],
            marker=MARKERS[style],
            markersize=4 if len(epochs) <= 30 else 0,
            linewidth=1.6,
            label=name,
        )
    panel.set_xlabel("epoch")
    panel.set_ylabel(what)
    around = max(0.5, 0.02 * (epochs[-1] - epochs[0]))
    panel.set_xlim(epochs[0] - 0.5, epochs[-1] + around)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    finite = [figure for figures in lines.values() for figure in figures if math.isfinite(figure)]
    if finite:
        panel.set_ylim(_limits(finite, from_zero=what == "loss"))
    else:
        panel.set_yticks([])
        panel.text(0.5, 0.5, "no finite numbers", transform=panel.transAxes, ha="center", va="center", color=SOFT)
    panel.grid(axis="y")
    panel.set_axisbelow(True)


def _limits(figures: Sequence[float], *, from_zero: bool) -> tuple[float, float]:
    """From 0, or over 0.1 at least, so that the noise of a panel does not fill it."""
    low, high = min(figures), max(figures)
    if from_zero:
        return 0.0, 1.06 * high or 1.0
    low = min(low, high - 0.1)
    around = 0.06 * (high - low)
    return low - around, high + around


def _shade_gap(panel: Axes, epochs: Sequence[int], accuracies: dict[str, list[float]]) -> None:
    if len(accuracies) == 2:
        train, validation = accuracies.values()
        panel.fill_between(
            epochs, train, validation, color=INK, alpha=0.12, linewidth=0, label="gap: train minus validation"
        )


def _best(history: Sequence[EpochRecord]) -> tuple[int | None, str]:
    """The epoch whose weights early stopping keeps; without it, the one with the lowest validation loss."""
    held = [record.epoch for record in history if record.best]
    if held:
        return held[-1], "best weights"
    judged = [(record.validation["loss"], record.epoch) for record in history if record.validation is not None]
    judged = [(loss, epoch) for loss, epoch in judged if math.isfinite(loss)]
    return (min(judged)[1], "lowest validation loss") if judged else (None, "")


# ------------------------------------------------------------------------------------------------------------ in words


def _words(
    history: Sequence[EpochRecord],
    losses: dict[str, list[float]],
    accuracies: dict[str, list[float]],
    best: int | None,
    why: str,
) -> str:
    epochs = [record.epoch for record in history]
    said = [f"Learning curves of {counted(len(history), 'epoch')}."]
    said += [f"Loss {name}: {_course(epochs, figures, '.4g')}." for name, figures in losses.items()]
    said += [f"Accuracy {name}: {_course(epochs, figures, '.4f')}." for name, figures in accuracies.items()]
    if len(accuracies) == 2:
        train, validation = accuracies.values()
        gaps = [100 * (one - other) for one, other in zip(train, validation, strict=True)]
        said.append(f"Gap, train minus validation accuracy, in percentage points: {_course(epochs, gaps, '+.1f')}.")
    if best is not None:
        said.append(f"Epoch {best} is marked: {why}.")
    return " ".join(said)


def _course(epochs: Sequence[int], figures: Sequence[float], form: str) -> str:
    """First and last figure, with what lies beyond both and what is no number."""
    finite = [(figure, epoch) for figure, epoch in zip(figures, epochs, strict=True) if math.isfinite(figure)]
    missing = [epoch for figure, epoch in zip(figures, epochs, strict=True) if not math.isfinite(figure)]
    if not finite:
        return "not a finite number in any epoch"
    (first, began), (last, ended) = finite[0], finite[-1]
    said = f"{first:{form}} after epoch {began}"
    if began != ended:
        said += f", {last:{form}} after epoch {ended}"
        (low, at_low), (high, at_high) = min(finite), max(finite)
        said += f", lowest {low:{form}} after epoch {at_low}" if low < min(first, last) else ""
        said += f", highest {high:{form}} after epoch {at_high}" if high > max(first, last) else ""
    if missing:
        said += f"; not a finite number in {counted(len(missing), 'epoch')}, the first of them epoch {missing[0]}"
    return said
