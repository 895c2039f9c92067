"""Several runs side by side: what differs between them first, then what came of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cnnkit.report.circumstances import (
    images_in_words,
    optimizer_in_words,
    options_in_words,
    threads_in_words,
    validation_in_words,
)
from cnnkit.report.document import Block, Cell, Document, Paragraph, Section, Table, Words
from cnnkit.report.folder import FinishedRun
from cnnkit.report.pictures import Studio
from cnnkit.report.single import without_pictures
from cnnkit.report.words import NOTHING, counted, listed, mib, percent, plain, rate, share, signed

MOST_CLASSES: Final = 100
MOST_FACTS: Final = 6


def comparison_document(runs: Sequence[FinishedRun], studio: Studio) -> Document:
    """Everything there is to say about some runs together."""
    names = _names(runs)
    told = [settings(run) for run in runs]
    facts = [(name, share(run.test.accuracy)) for name, run in list(zip(names, runs, strict=True))[:MOST_FACTS]]
    return Document(
        kind="Comparison of runs",
        headline=_headline(names, runs),
        subtitle=f"Test accuracy{f' of the first {MOST_FACTS}' if len(runs) > MOST_FACTS else ''}:",
        facts=facts,
        sections=[
            _differences(names, told),
            _results(names, runs),
            *_spread(names, runs, told),
            *_curves(names, runs, studio),
            *_classes(names, runs),
        ],
        warnings=_warnings(names, runs),
        notes=without_pictures(studio, "cnnkit report RUN RUN"),
        broad=True,
    )


def _headline(names: Sequence[str], runs: Sequence[FinishedRun]) -> str:
    if _judged_differently(runs):
        return f"{len(runs)} runs, not judged on the same images."
    best = max(run.test.accuracy for run in runs)
    first = [name for name, run in zip(names, runs, strict=True) if run.test.accuracy == best]
    said = f"{percent(best)} of {counted(runs[0].test.count, 'test image')} correct."
    if len(first) == len(runs):
        which = "Both" if len(runs) == 2 else f"All {len(runs)}"
        return f"{which} runs are equally good: {said}"
    return f"{listed(first)} {'is' if len(first) == 1 else 'are'} the best of {len(runs)} runs: {said}"


def _names(runs: Sequence[FinishedRun]) -> list[str]:
    """The names of the folders, or their paths where two have the same name."""
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


# --------------------------------------------------------------------------------------------------------- differences


def settings(run: FinishedRun) -> dict[str, str]:
    """Everything that decides what comes of a run, in words; two runs are alike where these are equal."""
    request, result, machine = run.request, run.result, run.machine
    model = run.checkpoint.model
    parameters = sum(array.size for array in run.checkpoint.parameters.values())
    digest = hashlib.sha256(json.dumps(model.to_dict()["layers"], sort_keys=True).encode()).hexdigest()[:6]
    return {
        "Model": run.model_name,
        "Layers": f"{len(model.layers)} layers, {parameters:,} parameters, digest {digest}",
        "Data set": str(result["dataset"]),
        "Images": images_in_words(run),
        "Limit": plain(request["limit"]) or "none",
        "Image size": plain(request.get("image_size")) or "as it is",
        "Validation": validation_in_words(run) or "none",
        "Optimizer": optimizer_in_words(result["optimizer"]),
        "Batch size": plain(result["batch_size"]),
        "Epochs": plain(result["epochs"]),
        "Early stopping": "none" if request["patience"] is None else f"patience {request['patience']}",
        "Seed": plain(result["seed"]),
        "Backend": str(result["backend"]),
        "Device": str(result["device"] or "default"),
        "Precision": str(result.get("rounded") or result["precision"]),
        "Options": options_in_words(result["options"]),
        "Threads": threads_in_words(machine["threads"]) if machine else "unknown",
        "Platform": str(machine.get("platform", "unknown")),
        "Processor": str(machine.get("processor", "unknown")),
        "Processors": plain(machine.get("cpus")) or "unknown",
        **{f"Version of {name}": str(version) for name, version in result["versions"].items()},
    }


def _differences(names: Sequence[str], told: Sequence[Mapping[str, str]]) -> Section:
    keys = list(dict.fromkeys(key for one in told for key in one))
    differing = [key for key in keys if len({one.get(key) for one in told}) > 1]
    same = [key for key in keys if key not in differing]
    blocks: list[Block] = []
    if differing:
        rows: list[list[str | Cell]] = [[key, *(one.get(key, NOTHING) for one in told)] for key in differing]
        columns = frozenset(range(1, len(names) + 1))
        caption = "What is not the same in all runs."
        blocks.append(Table("differences", caption, ["Setting", *names], rows, words=columns))
    else:
        blocks.append(Paragraph("Nothing differs between these runs: the same settings, versions and machine."))
    if same:
        words = "; ".join(f"{key[0].lower()}{key[1:]}: {told[0][key]}" for key in same)
        blocks.append(Paragraph(f"The same in all: {words}.", "soft"))
    return Section("differences", "What differs", blocks)


def _judged_differently(runs: Sequence[FinishedRun]) -> dict[str, list[str]]:
    """What decides which images a run is judged on, where it is not the same in all, by run."""
    judged = {
        "data set": [str(run.result["dataset"]) for run in runs],
        "limit": [plain(run.request["limit"]) or "none" for run in runs],
        "image size": [plain(run.request.get("image_size")) or "as it is" for run in runs],
        "test images": [f"{run.test.count:,}" for run in runs],
    }
    return {name: values for name, values in judged.items() if len(set(values)) > 1}


def _warnings(names: Sequence[str], runs: Sequence[FinishedRun]) -> list[Words]:
    found: list[Words] = []
    differing = _judged_differently(runs)
    if differing:
        said = "; ".join(
            f"{what} " + ", ".join(f"{value} ({name})" for value, name in zip(values, names, strict=True))
            for what, values in differing.items()
        )
        found.append(
            f"These runs were not judged on the same images, so their figures cannot be set side by side: {said}."
        )
    elif len({run.result["images"]["train"] for run in runs}) > 1:
        said = ", ".join(f"{run.result['images']['train']:,} ({name})" for run, name in zip(runs, names, strict=True))
        found.append(f"These runs did not learn from the same number of images: {said}.")
    behind = [name for name, run in zip(names, runs, strict=True) if run.epochs_written != len(run.history)]
    if behind:
        found.append(f"Gone on and not finished again, and told as before: {listed(behind)}.")
    return found


# ------------------------------------------------------------------------------------------------------------- results

_FIGURES: Final[Mapping[str, tuple[Callable[[FinishedRun], float | None], Callable[[float | None], str]]]] = {
    "Test accuracy": (lambda run: run.test.accuracy, share),
    "Precision": (lambda run: run.test.precision, share),
    "Recall": (lambda run: run.test.recall, share),
    "F1": (lambda run: run.test.f1, share),
    "Training accuracy": (lambda run: run.train.accuracy, share),
    "Gap": (lambda run: run.gap, signed),
    "Training, s / 1000 images": (lambda run: run.result["seconds"]["train_per_1000"], rate),
    "Test, s / 1000 images": (lambda run: run.result["seconds"]["test_per_1000"], rate),
    "Peak memory": (lambda run: run.result["memory"]["peak_mib"], mib),
}


def _results(names: Sequence[str], runs: Sequence[FinishedRun]) -> Section:
    best = None if _judged_differently(runs) else max(run.test.accuracy for run in runs)
    rows = []
    for name, run in zip(names, runs, strict=True):
        result = run.result
        about = [run.model_name, run.dataset_name, result["backend"], result["device"] or "default"]
        about += [plain(result[key]) for key in ("seed", "epochs", "batch_size")]
        figures = [form(figure(run)) for figure, form in _FIGURES.values()]
        first = Cell(figures[0], strong=run.test.accuracy == best)
        rows.append([name, *about, first, *figures[1:]])
    caption = (
        "What came of each run. Precision, recall and F1 are macro averages on the test images; the gap is training minus "
        f"test accuracy{'' if best is None else '; the best test accuracy is bold'}."
    )
    head = ["Run", "Model", "Data set", "Backend", "Device", "Seed", "Epochs", "Batch", *_FIGURES]
    return Section(
        "results", "Results", [Table("runs", caption, head, rows, words=frozenset({1, 2, 3, 4}), kind="many")]
    )


def _spread(names: Sequence[str], runs: Sequence[FinishedRun], told: Sequence[Mapping[str, str]]) -> list[Section]:
    """Runs that differ in nothing but the seed, together."""
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for at, one in enumerate(told):
        groups.setdefault(tuple((key, value) for key, value in one.items() if key != "Seed"), []).append(at)
    blocks: list[Block] = []
    for group in groups.values():
        if len({told[at]["Seed"] for at in group}) < 2:
            continue
        rows: list[list[str | Cell]] = []
        for name, (figure, form) in _FIGURES.items():
            values = [value for at in group if (value := figure(runs[at])) is not None]
            if len(values) == len(group):
                rows.append(
                    [
                        name,
                        form(math.fsum(values) / len(values)),
                        (share if form is signed else form)(spread(values)),
                        form(min(values)),
                        form(max(values)),
                    ]
                )
        seeds = [told[at]["Seed"] for at in group]
        caption = (
            f"{listed([names[at] for at in group])}: {counted(len(group), 'run')} that differ in the seed alone ({listed(seeds)}). "
            "The spread is the sample standard deviation."
        )
        blocks.append(
            Table(f"spread-{len(blocks) + 1}", caption, ["Figure", "Mean", "Spread", "Lowest", "Highest"], rows)
        )
    return [Section("spread", "Mean and spread over seeds", blocks)] if blocks else []


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation, with n - 1 below."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


# ------------------------------------------------------------------------------------------------------------ pictures


def _curves(names: Sequence[str], runs: Sequence[FinishedRun], studio: Studio) -> list[Section]:
    if all(len(run.history) == 1 for run in runs):
        return []
    from_all, part = curves_of(runs)
    said = f", and accuracy on the {part} images with the weights of its end" if part else ""
    caption = f"All runs in one picture: the loss while learning, the mean of each epoch{said}."

    def draw(_: Any) -> Any:
        from cnnkit.report.curves import run_curves  # needs matplotlib, as `_` does

        return run_curves(names, from_all, part)

    found = studio.figure("curves", caption, draw, dark=True)
    return [Section("learning", "Learning", found)] if found else []


def curves_of(runs: Sequence[FinishedRun]) -> tuple[list[dict[str, list[float]]], str]:
    """The lines of each run, `loss` and perhaps `accuracy`, and on what the accuracy of all was measured, if it was."""
    part = ""
    for name, word in (("train", "training"), ("validation", "validation")):
        if all(getattr(record, name) is not None for run in runs for record in run.history):
            part, key = word, name
    found = []
    for run in runs:
        lines = {"loss": [record.running_loss for record in run.history]}
        if part:
            lines["accuracy"] = [getattr(record, key)["accuracy"] for record in run.history]
        found.append(lines)
    return found, part


# ------------------------------------------------------------------------------------------------------------- classes


def _classes(names: Sequence[str], runs: Sequence[FinishedRun]) -> list[Section]:
    """F1 of every class in every run, the classes in which runs differ most first."""
    known = {tuple(record.name for record in run.test.per_class) for run in runs}
    if len(known) > 1:
        words = "The runs do not know the same classes, so that there is no table of them."
        return [Section("classes", "Classes", [Paragraph(words)])]
    (classes,) = known
    rows = []
    for at, name in enumerate(classes):
        figures = [run.test.per_class[at].f1 for run in runs]
        last = figures[1] - figures[0] if len(runs) == 2 else max(figures) - min(figures)
        rows.append((abs(last), [name, *map(share, figures), signed(last) if len(runs) == 2 else share(last)]))
    rows.sort(key=lambda row: -row[0])
    shown = [row for _, row in rows[:MOST_CLASSES]]
    some = f" The first {len(shown)} of {len(rows):,} classes." if len(shown) < len(rows) else ""
    caption = f"F1 of each class on the test images. The classes in which the runs differ most come first.{some}"
    last_name = f"{names[1]} minus {names[0]}" if len(runs) == 2 else "Largest difference"
    return [Section("classes", "Classes", [Table("classes", caption, ["Class", *names, last_name], shown)])]
