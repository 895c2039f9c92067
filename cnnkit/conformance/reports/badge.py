"""The report as a badge for a README: one line of SVG that hides neither tier, level, device, refusals nor age."""

from __future__ import annotations

from html import escape
from typing import Final

from cnnkit.conformance.report import Report
from cnnkit.conformance.reports.digest import (
    WORDS,
    began_on,
    cases_in_words,
    claimed,
    counted,
    headline,
    only_in_words,
    printable,
    whereabouts,
)

LABEL: Final = "conformance"
GREY: Final = "#4a4a4a"
COLOURS: Final = {"green": "#1f7a3d", "red": "#b3261e", "partial": "#6b6b6b", "plan": "#2a5794"}
"""White text on each of them has a contrast of more than 4.5."""

_NARROW, _WIDE = frozenset("fijlrtI.,:;'|!·()[]- "), frozenset("mwMW@%")


def to_badge(report: Report) -> str:
    """An SVG picture, 20 high. Its title says what there is no room for."""
    said = " · ".join(filter(None, _said(report)))
    title = " ".join(
        [headline(report), whereabouts(report), f"Of {cases_in_words(len(report.cases))}: {counted(report.counts)}."]
    )
    left = _width(LABEL) + 12
    end = left + _width(said) + 12
    title, said = escape(printable(title)), escape(printable(said))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{end}" height="20" role="img" aria-label="{LABEL}: {said}">
<title>{title}</title>
<path d="M3 0H{left}V20H3A3 3 0 0 1 0 17V3A3 3 0 0 1 3 0Z" fill="{GREY}"/>
<path d="M{left} 0H{end - 3}A3 3 0 0 1 {end} 3V17A3 3 0 0 1 {end - 3} 20H{left}Z" fill="{COLOURS[report.verdict]}"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="11" aria-hidden="true">
<text x="6" y="14" textLength="{left - 12}" lengthAdjust="spacingAndGlyphs">{LABEL}</text>
<text x="{left + 6}" y="14" textLength="{end - left - 12}" lengthAdjust="spacingAndGlyphs">{said}</text>
</g>
</svg>
"""


def _said(report: Report) -> list[str]:
    """What was asked for, and what came of it."""
    counts = report.counts
    planned = ["plan only, not run"] if report.tier == "plan" else []
    device = [report.device] if report.device and not planned else []
    when = [began_on(report)] if began_on(report) else []
    if report.red:
        return ["red", _why_red(report), *planned, report.level, *device, *when]
    part = ["partial"] if report.partial else []
    said = " ".join([report.level, *claimed(report)]) + only_in_words(report)
    others = [f"{counts[key]} {WORDS[key]}" for key in ("refused", "deviates", "not-run") if counts[key]]
    passed = [] if planned else [f"{counts['passed']} passed"]
    return [*part, *planned, said, *device, " + ".join([*passed, *others]), *when]


def _why_red(report: Report) -> str:
    if report.failures:
        return f"{len(report.failures)} failed"
    if report.ledger_problems:
        return f"{len(report.ledger_problems)} wrong in the ledger"
    return f"{report.counts['not-run']} not run" if report.counts["not-run"] else "too little ran"


def _width(text: str) -> int:
    """About how wide Verdana sets it at a size of 11; the picture then fits the text to exactly this."""
    return round(sum(4.2 if sign in _NARROW else 10.4 if sign in _WIDE else 7.0 for sign in printable(text)))
