"""The drawings of the page, as SVG inside it. Each has its numbers beside it in words, so that none is needed to read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cnnkit.conformance.measure import THRESHOLD
from cnnkit.conformance.report import OUTCOMES, CaseResult, Report
from cnnkit.conformance.reports.digest import (
    WORDS,
    by_area,
    cases_in_words,
    look_of,
    seconds_in_words,
    units_in_words,
    worst,
)
from cnnkit.conformance.reports.markup import e, mark

LEAST_AREA = 20
"""Areas of fewer cases, all of them well, are drawn as one."""

SMALLEST_POWER, LARGEST_POWER = -2, 9
"""Errors are drawn from 10**-2 units to what there is, and to 10**9 at most."""


def outcome_bar(report: Report) -> str:
    """How many cases had each outcome: one bar, and the same in words."""
    counts = report.counts
    total = sum(counts.values()) or 1
    parts, start = [], 0.0
    for outcome in OUTCOMES:
        share = 100 * counts[outcome] / total
        # What is rare is what matters here: it is never too thin to be seen.
        width = max(share, 0.4) if share else 0.0
        parts.append(
            f'<rect class="{look_of(outcome, report)}" x="{min(start, 100 - width):.2f}%" width="{width:.2f}%" height="10"/>'
        )
        start += share
    words = "".join(
        f"<li>{mark(look_of(outcome, report) if counts[outcome] else 'none', f'<b>{counts[outcome]:,}</b> {WORDS[outcome]}', look_of(outcome, report))}</li>"
        for outcome in OUTCOMES
    )
    return f'<svg height="14" aria-hidden="true">{"".join(parts)}</svg>\n<ul class="counts">{words}</ul>'


# -------------------------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True)
class _Scale:
    """A logarithmic scale for errors, to the power of ten `last`."""

    last: int

    @classmethod
    def for_errors(cls, units: Iterable[float]) -> _Scale:
        """One that reaches beyond the threshold, and to the largest of `units` if that is not out of all proportion."""
        largest = max([error for error in units if math.isfinite(error)] + [10 * THRESHOLD])
        return cls(min(LARGEST_POWER, math.ceil(math.log10(largest))))

    def place(self, units: float) -> float:
        """Where an error stands, in per cent of the width. What is too small or large to be drawn stands at the end."""
        power = math.log10(units) if 0 < units < math.inf else math.copysign(math.inf, units - 1)
        return 100 * (min(max(power, SMALLEST_POWER), self.last) - SMALLEST_POWER) / (self.last - SMALLEST_POWER)

    def axis(self) -> str:
        """Some powers of ten, and the threshold instead of 100."""
        named = {0.01: "0.01", 1: "1", THRESHOLD: f"threshold {THRESHOLD:g}", 1e4: "10⁴", 1e6: "10⁶", 1e8: "10⁸"}
        texts = [
            f'<text x="{(at := self.place(units)):.1f}%" y="11" text-anchor="{_anchor(at)}">{said}</text>'
            for units, said in named.items()
            if math.log10(units) <= self.last
        ]
        return f'<svg height="16" aria-hidden="true">{"".join(texts)}</svg>'


def _anchor(place: float) -> str:
    return "start" if place < 2 else "end" if place > 98 else "middle"


def error_bars(cases: Sequence[CaseResult]) -> str:
    """The worst error of each area on a logarithmic scale, a line for each case, and the threshold across all."""
    areas = {
        area: worst(found, len(found))
        for area, found in by_area((case for case in cases if case.units), LEAST_AREA).items()
    }
    if not areas:
        return '<p class="soft">No error was measured.</p>'
    scale = _Scale.for_errors(case.units or 0.0 for case in cases)
    rows = [
        f'<li><span>{e(area)}</span>{_error_bar(scale, found)}<span title="{e(found[0].name)}">'
        f"{mark(found[0].outcome, f'{units_in_words(found[0].units)}')}</span></li>"
        for area, found in sorted(areas.items(), key=lambda item: -(item[1][0].units or 0.0))
    ]
    axis = f'<li aria-hidden="true"><span></span>{scale.axis()}<span class="soft">units</span></li>'
    return "\n".join(['<ul class="bars">', axis, *rows, "</ul>"])


def _error_bar(scale: _Scale, found: Sequence[CaseResult]) -> str:
    top, *others = found
    ends = scale.place(top.units or 0.0)
    # Two cases whose lines would lie on each other are one line.
    places = {f"{scale.place(case.units or 0.0):.1f}" for case in others}
    limit = scale.place(THRESHOLD)
    return (
        f'<svg class="{top.outcome}" height="16" aria-hidden="true"><rect class="track" y="3" width="100%" height="10"/>'
        f'<rect class="bar" y="3" width="{ends:.1f}%" height="10"/>'
        + "".join(f'<rect class="tick" x="{at}%" y="3" width="1" height="10"/>' for at in sorted(places))
        + f'<rect x="{min(ends, 99.5):.1f}%" y="3" width="3" height="10"/>'
        f'<line class="limit" x1="{limit:.1f}%" x2="{limit:.1f}%" y1="0" y2="16"/></svg>'
    )


# ---------------------------------------------------------------------------------------------------------------- time


def time_bars(cases: Sequence[CaseResult]) -> str:
    """How long each area took together, the longest first."""
    areas = {
        area: (sum(case.seconds for case in found), len(found)) for area, found in by_area(cases, LEAST_AREA).items()
    }
    longest = max((seconds for seconds, _ in areas.values()), default=0.0) or 1.0
    rows = [
        f'<li><span>{e(area)}</span><svg height="16" aria-hidden="true"><rect class="time" y="3" '
        f'width="{100 * seconds / longest:.1f}%" height="10"/></svg>'
        f"<span>{seconds_in_words(seconds)} <small class='soft'>{cases_in_words(count)}</small></span></li>"
        for area, (seconds, count) in sorted(areas.items(), key=lambda item: -item[1][0])
    ]
    return f'<ul class="bars">{"".join(rows)}</ul>'
