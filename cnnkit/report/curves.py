"""The learning curves of several runs in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.ticker import MaxNLocator

from cnnkit.plot.picture import LINES, MARKERS, SERIES, Picture, picture
from cnnkit.plot.words import AS_WRITTEN, short
from cnnkit.report.words import share

TITLES = {"loss": "Loss while learning", "accuracy": "Accuracy"}


@picture
def run_curves(names: Sequence[str], runs: Sequence[Mapping[str, Sequence[float]]], part: str) -> Picture:
    """A line for each run: `loss` by epoch, and `accuracy` on the `part` images where runs have it."""
    panels = list(runs[0])
    made = Picture(8 if len(panels) == 2 else 4.8, 3.2 + 0.17 * -(-len(runs) // 3))
    for axes, panel in zip(made.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for at, (name, lines) in enumerate(zip(names, runs, strict=True)):
            around = at // len(SERIES)  # four colours, four lines: sixteen runs before two look alike
            axes.plot(
                range(1, len(lines[panel]) + 1),
                lines[panel],
                color=SERIES[at % len(SERIES)],
                linestyle=LINES[(at + around) % len(LINES)],
                marker=MARKERS[(at + around) % len(MARKERS)],
                markersize=4,
                label=short(name, 30),
            )
        axes.set_title(TITLES[panel] + (f", {part} images" if panel == "accuracy" else ""))
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
    handles, labels = axes.get_legend_handles_labels()
    legend = made.legend(handles, labels, loc="outside lower center", ncols=min(3, len(runs)))
    for text in legend.get_texts():
        text.set(**AS_WRITTEN)
    made.alt = _in_words(names, runs, part)
    return made


def _in_words(names: Sequence[str], runs: Sequence[Mapping[str, Sequence[float]]], part: str) -> str:
    said = []
    for name, lines in zip(names, runs, strict=True):
        told = [
            f"{'loss' if panel == 'loss' else f'accuracy on {part} images'} from {share(figures[0])} to {share(figures[-1])}"
            for panel, figures in lines.items()
        ]
        epochs = len(lines["loss"])
        said.append(f"{name}, {epochs} epoch{'' if epochs == 1 else 's'}: {', '.join(told)}")
    return f"Learning curves of {len(runs)} runs. {'; '.join(said)}."
