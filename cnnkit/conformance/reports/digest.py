"""What all readable forms of a report say alike: its headline, counts in words, features, areas, worst and slowest."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Literal, TypeAlias

from cnnkit.conformance.report import MAIN_PRECISION, OUTCOMES, CaseResult, Report
from cnnkit.conformance.selection import area_of, replay_command

State: TypeAlias = Literal["passed", "planned", "failed", "deviates", "partly", "refused", "not-run", "none"]
"""What became of a group of cases; `partly` passed and partly was refused or left out.

`planned` is what passes in the tier `plan`: nothing was computed, and it never looks as what was.
"""

SYMBOLS: Final[Mapping[State, str]] = {
    "passed": "✓",
    "planned": "◇",
    "failed": "✗",
    "deviates": "≠",
    "partly": "◐",
    "refused": "⊘",
    "not-run": "○",
    "none": "·",
}

STATES: Final[Mapping[str, State]] = {"green": "passed", "red": "failed", "partial": "partly", "plan": "planned"}
"""What each verdict looks like."""

WORST_FIRST: Final = ("failed", "deviates", "passed", "refused", "not-run")
"""The order beside a symbol: the first of them that there is, is what the symbol says."""

WORDS: Final = {
    "passed": "passed",
    "failed": "failed",
    "refused": "refused",
    "deviates": "deviating",
    "not-run": "not run",
}

_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_UNPRINTABLE = re.compile("[^\t\n -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """What an engine said, without terminal colours and without characters that XML and HTML forbid."""
    return _UNPRINTABLE.sub("", _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def clipped(text: str, limit: int) -> str:
    """At most the first `limit` characters, and how many are missing."""
    text = printable(text).strip()
    return text if len(text) <= limit else f"{text[:limit].rstrip()} … ({len(text) - limit:,} more characters)"


# -------------------------------------------------------------------------------------------------------------- words


def claimed(report: Report) -> list[str]:
    """The precisions in which anything passed: a precision that is refused as a whole is not vouched for."""
    return [
        name
        for name in precisions_of(report)
        if any(c.precision == name and c.outcome == "passed" for c in report.cases)
    ]


def headline(report: Report) -> str:
    """The verdict as a sentence that hides neither level nor precision nor device."""
    precisions = listed(precisions_of(report) if report.red else claimed(report))
    passes = {"red": "does not pass", "partial": "was tried in a part of"}.get(report.verdict, "passes")
    asked = f"at the level {report.level} in {precisions or 'no precision'}{only_in_words(report)}"
    device = report.device
    if report.tier == "plan":
        meant = f" for {device}" if device else ""
        return (
            f"{report.backend} {passes} the tier plan of the conformance suite {report.suite} {asked}{meant}. "
            "Plan only: nothing was run."
        )
    return f"{report.backend} {passes} the conformance suite {report.suite} {asked}{f' on {device}' if device else ''}."


def whereabouts(report: Report) -> str:
    """Which tier ran, where and when, as a sentence; what was only planned names no device that it ran on."""
    when = f", {began(report)}"
    if report.tier == "run":
        places = ", ".join(filter(None, [report.device, report.platform]))
        return f"Tier run{f' on {places}' if places else ''}{when}."
    here = f" on {report.platform}" if report.platform else ""
    probed = f" The probe said there: {report.probed}." if report.probed else ""
    return f"Tier plan{here}{when}.{probed}{compiled(report)}"


def compiled(report: Report) -> str:
    """What was compiled without the device, and for what, as a sentence after another; nothing if nothing was."""
    if not report.kernels:
        return ""
    kernels = f"{len(report.kernels):,} kernel{'' if len(report.kernels) == 1 else 's'}"
    return f" Compiled for {listed(report.compiled_for)}: {kernels}."


def only_in_words(report: Report) -> str:
    """` only` after the precisions of a report in which all is well if the main one is not among them."""
    return " only" if (report.green or report.planned) and MAIN_PRECISION not in claimed(report) else ""


def caveats(report: Report) -> list[str]:
    """What the verdict does not say of cases that neither passed nor failed, one sentence each."""
    counts = report.counts
    part = (
        [f"Only {listed(report.only)} of the suite was selected, which makes no backend green."] if report.only else []
    )
    said = {
        "refused": ("was refused, as its plugin or ledger declares", "were refused, as its plugin or ledger declares"),
        "deviates": ("deviates, as its ledger declares", "deviate, as its ledger declares"),
        "not-run": ("did not run", "did not run"),
    }
    return part + [
        f"{counts[outcome]:,} of {cases_in_words(len(report.cases))} {verbs[counts[outcome] != 1]}."
        for outcome, verbs in said.items()
        if counts[outcome]
    ]


def counted(counts: Mapping[str, int], order: Iterable[str] = OUTCOMES) -> str:
    """`812 passed, 3 failed`: what there is."""
    return ", ".join(f"{counts[name]:,} {WORDS[name]}" for name in order if counts.get(name)) or "no cases"


def cases_in_words(count: int) -> str:
    """`1 case`, `2,000 cases`."""
    return f"{count:,} case{'' if count == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """`float32`, `float32 and float64`."""
    *most, last = list(names) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def units_in_words(units: float | None) -> str:
    """`0.73`, `4.0`, `5,210`, `1.2e+09`, `not finite`; nothing where nothing was measured."""
    if units is None:
        return ""
    if math.isinf(units):
        return "not finite"
    if units >= 1e7:
        return f"{units:.1e}"
    if units >= 100 or not units:
        return f"{units:,.0f}"
    return f"{units:.1f}" if units >= 1 else f"{units:.2f}" if units >= 0.01 else "< 0.01"


def seconds_in_words(seconds: float) -> str:
    """`35 ms`, `1.25 s`, `2 min 5 s`."""
    if round(seconds) >= 60:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    return f"{seconds:.2f} s" if seconds >= 0.9995 else f"{1000 * seconds:.{0 if seconds >= 0.01 else 1}f} ms"


def began(report: Report) -> str:
    """`2026-11-24 11:40:02 UTC`, or whatever the report says if that is no date."""
    try:
        moment = datetime.fromisoformat(report.started)
    except ValueError:
        return report.started
    return f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname() or ''}".strip()


def began_on(report: Report) -> str:
    """`2026-11-24`, or nothing if the report has no such date."""
    try:
        return f"{datetime.fromisoformat(report.started):%Y-%m-%d}"
    except ValueError:
        return ""


def repro_command(report: Report, case: CaseResult) -> str:
    """The command line that repeats a failure; empty where no file was saved of one that takes a file."""
    if case.repro is None and report.tier == "run":
        return ""
    device = report.device if report.device_given else None
    return replay_command(
        report.backend, case, level=report.level, device=device, options=report.options, tier=report.tier
    )


# ------------------------------------------------------------------------------------------------------------- groups


def by_area(cases: Iterable[CaseResult], least: int = 0) -> dict[str, list[CaseResult]]:
    """The cases of each area, in the order in which they ran.

    Areas of fewer than `least` cases, none of which failed, are the last area together: `others`.
    """
    areas: dict[str, list[CaseResult]] = {}
    for case in cases:
        areas.setdefault(area_of(case.id), []).append(case)
    small = [area for area, found in areas.items() if len(found) < least and all(c.outcome != "failed" for c in found)]
    if len(small) > 1:
        areas["others"] = [case for area in small for case in areas.pop(area)]
    return areas


def precisions_of(report: Report) -> list[str]:
    """The precisions that were asked for, and any other that a case is in."""
    return list(dict.fromkeys([*report.precisions, *(case.precision for case in report.cases)]))


def feature_matrix(report: Report) -> dict[str, dict[str, Counter[str]]]:
    """How many cases that need each feature had each outcome, in each precision."""
    precisions = precisions_of(report)
    names = sorted({feature for case in report.cases for feature in case.features})
    matrix = {name: {precision: Counter[str]() for precision in precisions} for name in names}
    for case in report.cases:
        for feature in case.features:
            matrix[feature][case.precision][case.outcome] += 1
    return matrix


def look_of(state: State, report: Report) -> State:
    """What a state looks like in this report: what passes in the tier `plan` was planned."""
    return "planned" if state == "passed" and report.tier == "plan" else state


def state_of(counts: Mapping[str, int]) -> State:
    """What became of a group of cases, in one word; the worst is said first."""
    there = {outcome for outcome, count in counts.items() if count}
    if not there:
        return "none"
    if "failed" in there:
        return "failed"
    if "deviates" in there:
        return "deviates"
    if "passed" in there:
        return "passed" if there == {"passed"} else "partly"
    return "refused" if "refused" in there else "not-run"


def worst(cases: Iterable[CaseResult], count: int) -> list[CaseResult]:
    """The cases with the largest errors, the largest first."""
    measured = [case for case in cases if case.units is not None]
    return sorted(measured, key=lambda case: (-(case.units or 0.0), case.name))[:count]


def slowest(cases: Iterable[CaseResult], count: int) -> list[CaseResult]:
    """The cases that took longest, the longest first."""
    ran = [case for case in cases if case.outcome != "not-run"]
    return sorted(ran, key=lambda case: (-case.seconds, case.name))[:count]
