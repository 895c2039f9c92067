"""The conformance suite on the device, as part of a run on a card."""

from __future__ import annotations

from typing import Final

from cnnkit import conformance
from cnnkit.bench.gpu.budget import Deadline
from cnnkit.bench.gpu.results import Conformance
from cnnkit.bench.gpu.rounds import Told
from cnnkit.conformance import CaseResult, Report

MARGIN: Final = 5.0
"""Seconds that are left for the last case and the report."""
EVERY: Final = 200
"""After so many cases the progress is told."""


def judge(backend: str, device: str, deadline: Deadline, told: Told) -> tuple[Conformance, bool]:
    """The verdict of the tier `run`, in float32 and float64; and whether there was time for all cases."""

    def progress(number: int, count: int, _: CaseResult) -> None:
        if number % EVERY == 0 or number == count:
            told(f"conformance: {number} of {count} cases")

    report = conformance.run(
        backend, device=device, budget=max(1.0, deadline.left - MARGIN), progress=progress, tier="run"
    )
    return summary(report, device), report.counts["not-run"] == 0


def summary(report: Report, device: str) -> Conformance:
    """What goes into the report of a run on a card. The whole of it is what `cnnkit conformance` writes."""
    assert report.verdict != "plan"  # noqa: S101 - no report of the tier `run` has that verdict
    return Conformance(
        tier="run",
        device=report.device or device,
        suite=report.suite,
        verdict=report.verdict,
        level=report.level,
        precisions=report.precisions,
        counts=report.counts,
        seconds=report.seconds,
        reasons=report.reasons,
        failures=tuple(case.name for case in report.failures),
    )
