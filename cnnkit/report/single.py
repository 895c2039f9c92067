"""The report of one run, made from its folder alone."""

from __future__ import annotations

import shlex

from cnnkit.report import circumstances, results
from cnnkit.report.circumstances import optimizer_in_words
from cnnkit.report.document import Document, Mono, Words
from cnnkit.report.folder import FinishedRun
from cnnkit.report.pictures import HOW_TO_GET_THEM, Studio
from cnnkit.report.words import counted, mib, rate, seconds, share, signed

PARTS = (
    results.results,
    results.learning,
    results.classes,
    results.mistakes,
    circumstances.model,
    circumstances.costs,
    circumstances.settings,
    circumstances.again,
)
"""The sections, in the order in which a reader asks for them."""


def run_document(run: FinishedRun, studio: Studio) -> Document:
    """Everything there is to say about a run."""
    took, peak = run.result["seconds"], run.result["memory"]["peak_mib"]
    optimizer = optimizer_in_words(run.result["optimizer"]).partition(", ")
    subtitle = (
        f"Trained by the backend {run.result['backend']} on {counted(run.result['images']['train'], 'image')} for "
        f"{counted(len(run.history), 'epoch')} in {seconds(took['train'])}, with {optimizer[0]} in batches of "
        f"{run.result['batch_size']}, seed {run.result['seed']}."
    )
    facts = [
        ("Test accuracy", share(run.test.accuracy)),
        ("Training accuracy", share(run.train.accuracy)),
        ("Gap", signed(run.gap)),
        ("Test F1, macro", share(run.test.f1)),
        ("Training, s / 1000 images", rate(took["train_per_1000"])),
        ("Test, s / 1000 images", rate(took["test_per_1000"])),
        *([] if peak is None else [("Peak memory", mib(peak))]),
    ]
    return Document(
        kind="Report of a run",
        headline=results.headline(run),
        subtitle=subtitle,
        facts=facts,
        sections=[part(run, studio) for part in PARTS],
        warnings=_warnings(run),
        notes=without_pictures(studio, f"cnnkit report {shlex.quote(run.place)}"),
    )


def _warnings(run: FinishedRun) -> list[Words]:
    now, told = run.epochs_written, len(run.history)
    resume = Mono(f"cnnkit train --resume {shlex.quote(run.place)}")
    if now != told:
        said = f"The run has gone on to {counted(now, 'epoch')} and is not finished; this is the report of its first {told}. "
        return [(said, "Finish it with ", resume, ".")]
    state = run.checkpoint.state
    if state is not None and state.step not in {record.steps for record in run.history}:
        said = f" is a model after {counted(state.step, 'step')}, which no epoch here ended with: what is shown of its kernels"
        return [(Mono("model.safetensors"), said, " may be that of another run.")]
    return []


def without_pictures(studio: Studio, command: str) -> list[Words]:
    """How to get the pictures, where there are none."""
    if not studio.missing:
        return []
    said = "This report is without pictures, since matplotlib is not installed; every number is in its tables. "
    return [(said, "For the pictures: ", Mono(HOW_TO_GET_THEM), ", then ", Mono(command), ".")]
