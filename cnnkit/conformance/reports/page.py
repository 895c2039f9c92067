"""The report as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from cnnkit.conformance.report import Report
from cnnkit.conformance.reports import sections
from cnnkit.conformance.reports.digest import STATES, caveats, headline, whereabouts
from cnnkit.conformance.reports.figures import outcome_bar
from cnnkit.conformance.reports.markup import e, mark
from cnnkit.conformance.reports.style import STYLE

_PARTS = {
    "ran": "What ran",
    "failures": "Failures",
    "features": "Features",
    "errors": "Errors",
    "timings": "Timings",
    "exceptions": "Refusals and deviations",
    "cases": "All cases",
}


def to_html(report: Report) -> str:
    """The whole page. Whatever the backend said is escaped, and nothing on the page may run or be fetched."""
    sentence = headline(report)
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="generator" content="cnnkit conformance {e(report.suite)}">
<title>{e(report.verdict)}: {e(report.backend)}, conformance {e(report.suite)}</title>
<style>
{STYLE}
</style>
</head>
<body>
<header>
<h1>Conformance report of {e(report.backend)}</h1>
<p class="verdict">{mark(STATES[report.verdict], f"<strong>{report.verdict.capitalize()}.</strong>")} {e(sentence)}</p>
<p class="soft">{e(whereabouts(report))}</p>
{_reasons(report)}
{outcome_bar(report)}
<nav aria-label="Contents">{"".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in _PARTS.items())}</nav>
</header>
<main>
{sections.ran(report)}
{sections.failures(report)}
{sections.features(report)}
{sections.errors(report)}
{sections.timings(report)}
{sections.exceptions(report)}
{sections.everything(report)}
</main>
</body>
</html>
"""


def _reasons(report: Report) -> str:
    """Why it is red, and what another verdict does not say."""
    said = [*report.reasons, *caveats(report)]
    return f'<ul class="reasons">{"".join(f"<li>{e(reason)}</li>" for reason in said)}</ul>' if said else ""
