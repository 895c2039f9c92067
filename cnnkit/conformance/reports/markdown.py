"""The report in Markdown, short enough for a README or a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cnnkit.conformance.report import CaseResult, Report
from cnnkit.conformance.reports.digest import (
    STATES,
    SYMBOLS,
    WORST_FIRST,
    caveats,
    clipped,
    counted,
    feature_matrix,
    headline,
    look_of,
    precisions_of,
    printable,
    repro_command,
    seconds_in_words,
    state_of,
    units_in_words,
    whereabouts,
)

MOST_FAILURES = 20
MESSAGE_LIMIT = 600


def to_markdown(report: Report) -> str:
    """The verdict, counts, features by precision, and the first failures."""
    blocks = [f"## Conformance of {_code(report.backend)}: {SYMBOLS[STATES[report.verdict]]} {report.verdict}"]
    blocks.append(_text(f"{headline(report)} {whereabouts(report)}"))
    reasons = [*report.reasons, *caveats(report)]
    blocks += ["\n".join(f"- {_text(reason)}" for reason in reasons)] if reasons else []
    blocks.append(f"**{counted(report.counts)}** in {seconds_in_words(report.seconds)} ({_text(_made_of(report))}).")
    blocks += _features(report)
    blocks += _failures(report)
    return "\n\n".join(blocks) + "\n"


def _made_of(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return ", ".join(part for part in (f"seed {report.seed}", versions) if part)


def _features(report: Report) -> list[str]:
    precisions = precisions_of(report)
    rows = [
        _row(_code(feature), *(_cell(report, found[precision]) for precision in precisions))
        for feature, found in feature_matrix(report).items()
    ]
    head = [_row("feature", *precisions), _row("---", *("---" for _ in precisions))]
    return ["### Features", "\n".join([*head, *rows])] if rows else []


def _cell(report: Report, counts: Mapping[str, int]) -> str:
    state = look_of(state_of(counts), report)
    return SYMBOLS[state] if state == "none" else f"{SYMBOLS[state]} {counted(counts, WORST_FIRST)}"


def _failures(report: Report) -> list[str]:
    failures = report.failures
    if not failures:
        return []
    blocks = ["### Failures", *(_failure(report, case) for case in failures[:MOST_FAILURES])]
    more = len(failures) - MOST_FAILURES
    return [*blocks, f"{more:,} more failed; the JSON report has them all."] if more > 0 else blocks


def _failure(report: Report, case: CaseResult) -> str:
    units = units_in_words(case.units)
    measured = f", {units} units" if units else ""
    lines = [f"**{_code(case.name)}** at the stage {case.stage or 'compare'}{measured}: {_text(case.claim)}"]
    command = repro_command(report, case)
    shown = [clipped(case.message, MESSAGE_LIMIT), *([f"$ {command}"] if command else [])]
    return "\n\n".join([*lines, _block("\n".join(shown))])


# ------------------------------------------------------------------------------------------------------------ escaping


def _text(text: str) -> str:
    """Running text in which nothing is markup, a link or a mention."""
    escaped = re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", printable(text).replace("\n", " "))
    return escaped.replace("@", "@\N{ZERO WIDTH SPACE}")


def _code(text: str) -> str:
    """Text as it is, on one line, fit for a table as well."""
    text = printable(text).replace("\n", " ").replace("|", "\\|")
    fence = _longer_than_in(text, 0)
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _block(text: str) -> str:
    fence = _longer_than_in(printable(text), 2)
    return f"{fence}text\n{printable(text)}\n{fence}"


def _longer_than_in(text: str, least: int) -> str:
    """More backticks than stand together anywhere in `text`."""
    return "`" * (1 + max([least, *(len(run) for run in re.findall("`+", text))]))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
