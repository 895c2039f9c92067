"""The parts of the page, in the order in which a reader asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cnnkit.conformance.measure import THRESHOLD
from cnnkit.conformance.report import CaseResult, Report
from cnnkit.conformance.reports.digest import (
    WORDS,
    WORST_FIRST,
    began,
    cases_in_words,
    clipped,
    feature_matrix,
    listed,
    look_of,
    precisions_of,
    repro_command,
    seconds_in_words,
    slowest,
    state_of,
    units_in_words,
    worst,
)
from cnnkit.conformance.reports.figures import error_bars, time_bars
from cnnkit.conformance.reports.markup import e, facts, folded, link, mark, name, section, table

FAILURES_IN_FULL = 40
MESSAGE_LIMIT, TRACEBACK_LIMIT = 4_000, 20_000
MOST = 20

TIERS = {"plan": "plan: what can be proved without the device", "run": "run: everything that computes"}


def ran(report: Report) -> str:
    """What was tried, on what, and how to try it again."""
    options = ", ".join(f"{key}={value}" for key, value in report.options.items())
    asked = facts(
        [
            ("Backend", f"<b>{e(report.backend)}</b>"),
            ("Distribution", e(report.distribution)),
            ("Tier", e(TIERS[report.tier])),
            ("Level", e(report.level)),
            ("Precisions", e(", ".join(report.precisions))),
            ("Device", _device(report)),
            ("Probe", e(report.probed)),
            ("Compiled for", e(", ".join(report.compiled_for))),
            ("Kernels", ", ".join(map(name, report.kernels))),
            ("Options", e(options) or "none"),
            ("Suite", e(report.suite)),
            ("Only", ", ".join(map(name, report.only))),
            ("Seed", e(report.seed)),
            ("Began", f'<time datetime="{e(report.started)}">{e(began(report))}</time>'),
            ("Took", e(seconds_in_words(report.seconds))),
            ("Platform", e(report.platform)),
            ("Ledger", name(report.ledger) if report.ledger else "none"),
        ]
    )
    versions = facts((key, e(value)) for key, value in report.versions.items())
    return section("ran", "What ran", asked, f"<h3>Versions</h3>\n{versions}" if report.versions else "")


def _device(report: Report) -> str:
    said = report.device or "the backend's own choice"
    return e(f"{said}: planned for, not run on" if report.tier == "plan" else said)


# ------------------------------------------------------------------------------------------------------------ failures


def failures(report: Report) -> str:
    """Each failure with all that is known of it; after the first ones, folded."""
    found = report.failures
    if not found:
        return section("failures", "Failures", "<p>No case failed.</p>")
    first, rest = found[:FAILURES_IN_FULL], found[FAILURES_IN_FULL:]
    shown = [_failure(report, case) for case in first]
    if rest:
        inside = "\n".join(_failure(report, case) for case in rest)
        shown.append(folded(f"{len(rest):,} more failures", inside))
    return section("failures", f"Failures ({len(found):,})", *shown)


def _failure(report: Report, case: CaseResult) -> str:
    units = units_in_words(case.units)
    said = [
        f"stage <b>{e(case.stage or 'compare')}</b>",
        f"error <b>{units}{'' if units == 'not finite' else ' units'}</b>" if units else "",
        f"<b>{e(case.error)}</b>" if case.error else "",
        seconds_in_words(case.seconds),
    ]
    command = repro_command(report, case)
    return "\n".join(
        part
        for part in [
            '<article class="failure">',
            f"<h3>{mark('failed', name(case.name))}</h3>",
            f"<p>{e(case.claim)}.</p>" if not case.claim.endswith(".") else f"<p>{e(case.claim)}</p>",
            f'<p class="soft">{" · ".join(word for word in said if word)}</p>',
            f"<pre>{e(clipped(case.message, MESSAGE_LIMIT))}</pre>" if case.message else "",
            f"<pre>$ {e(command)}</pre>" if command else "",
            folded("Traceback", f"<pre>{e(clipped(case.traceback, TRACEBACK_LIMIT))}</pre>") if case.traceback else "",
            "</article>",
        ]
        if part
    )


# ------------------------------------------------------------------------------------------- features, errors, timings


def features(report: Report) -> str:
    """What became of the cases that need each feature, in each precision."""
    precisions = precisions_of(report)
    rows = [
        [name(feature), *(_counted_cell(report, found[precision]) for precision in precisions)]
        for feature, found in feature_matrix(report).items()
    ]
    caption = "Cases that need each feature. A case counts for every feature that it needs."
    caption += " They are planned, and nothing of them was run." if report.tier == "plan" else ""
    return section("features", "Features", table(caption, ["Feature", *map(e, precisions)], rows, "matrix"))


def _counted_cell(report: Report, counts: Mapping[str, int]) -> str:
    words = [f'<span class="whole">{counts[key]:,} {WORDS[key]}</span>' for key in WORST_FIRST if counts[key]]
    return mark(look_of(state_of(counts), report), ", ".join(words) or "none")


def errors(report: Report) -> str:
    """The worst error of each area, and the cases with the largest."""
    rows = [
        [name(case.name), units_in_words(case.units), mark(case.outcome, WORDS[case.outcome])]
        for case in worst(report.cases, MOST)
    ]
    said = (
        "<p>An error is measured in units of what rounding alone would do to the number, u · Σ|w||x|. "
        f"Above {THRESHOLD:g} units a case fails. Each bar ends at the worst case of its area; the lines in it are the others.</p>"
    )
    shown = table(
        f"The {cases_in_words(len(rows))} with the largest errors", ["Case", "Units", "Outcome"], rows, right="1"
    )
    return section("errors", "Errors", said, error_bars(report.cases), shown if rows else "")


def timings(report: Report) -> str:
    """Where the time went."""
    found = slowest(report.cases, MOST)
    rows = [[name(case.name), seconds_in_words(case.seconds)] for case in found]
    shown = table(f"The slowest {cases_in_words(len(rows))}", ["Case", "Time"], rows, right="1")
    spent = sum(case.seconds for case in report.cases)
    said = f"<p>{seconds_in_words(spent)} in cases, {seconds_in_words(report.seconds)} in all.</p>"
    return section("timings", "Timings", said, time_bars(report.cases), shown if rows else "")


# ------------------------------------------------------------------------------------- what neither passed nor failed


def exceptions(report: Report) -> str:
    """Refusals and deviations, those with the same words together; then what did not run."""
    parts = []
    for outcome, title, unsaid in (
        ("refused", "Refused", "No reason is given"),
        ("deviates", "Deviating", "No reason is given"),
        ("not-run", "Not run", "The run ended before them, or left them out"),
    ):
        cases = [case for case in report.cases if case.outcome == outcome]
        if cases:
            parts.append(_grouped(title, cases, unsaid))
    none = "<p>Nothing was refused, nothing is known to deviate, and everything ran.</p>"
    return section("exceptions", "Refusals and deviations", *parts or [none])


def _grouped(title: str, cases: Sequence[CaseResult], unsaid: str) -> str:
    groups: dict[tuple[str, str, str], list[CaseResult]] = {}
    for case in cases:
        # "layers[3] needs conv2d.dilation: ..." is one refusal, wherever the layer stands.
        why = case.reason or case.message.partition(" needs ")[2] or case.message
        groups.setdefault((why, case.issue, str(case.expiry or "")), []).append(case)
    rows = []
    for (why, issue, expiry), found in groups.items():
        followed = f"<small>{link(issue)}</small>" if issue else ""
        names = "".join(f"<li>{name(case.name)}</li>" for case in found)
        which = folded(cases_in_words(len(found)), f"<ul>{names}</ul>") if len(found) > 1 else name(found[0].name)
        reason = e(clipped(why, MESSAGE_LIMIT)) or unsaid
        rows.append([f"{reason}{followed}", f'<span class="whole">{e(expiry) or "no date"}</span>', which])
    return table(f"{title}: {cases_in_words(len(cases))}", ["Reason", "Until", "Case"], rows, "exceptions")


def everything(report: Report) -> str:
    """Every case with its claim and what became of it in each precision, folded."""
    precisions = precisions_of(report)
    results: dict[str, dict[str, CaseResult]] = {}
    for case in report.cases:
        results.setdefault(case.id, {})[case.precision] = case
    rows = [
        [
            f"{name(found)}<small>{e(next(iter(by_precision.values())).claim)}</small>",
            *(_outcome(report, by_precision.get(precision)) for precision in precisions),
        ]
        for found, by_precision in results.items()
    ]
    shown = table("Every case, its worst error in units, and its time", ["Case", *map(e, precisions)], rows, "all")
    said = cases_in_words(len(results))
    return section(
        "cases",
        "All cases",
        folded(f"{said} in {e(listed(precisions))}", shown) if rows else "<p>None.</p>",
    )


def _outcome(report: Report, case: CaseResult | None) -> str:
    if case is None:
        return mark("none", "not asked")
    stage = f" at {e(case.stage)}" if case.outcome in ("failed", "deviates") and case.stage else ""
    units = units_in_words(case.units)
    measured = [f"{units}{'' if units == 'not finite' else ' units'}" if units else "", seconds_in_words(case.seconds)]
    beside = "" if case.outcome == "not-run" else f"<small>{', '.join(part for part in measured if part)}</small>"
    return f"{mark(look_of(case.outcome, report), WORDS[case.outcome] + stage)}{beside}"
