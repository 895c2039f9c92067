"""The report as JUnit XML, which every CI system reads: a test suite for each area, a test case for each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from cnnkit.conformance.report import CaseResult, Report
from cnnkit.conformance.reports.digest import by_area, clipped, printable, repro_command, units_in_words

MESSAGE_LIMIT = 500


def to_junit(report: Report) -> str:
    """One XML document. What was refused, deviates as its ledger says or did not run is skipped, with the reason.

    A report that is red although no case failed has one test case more, `verdict`, which fails: no reader of the
    document may take it for green.
    """
    tier = "" if report.tier == "run" else f", tier {report.tier} only"
    root = ET.Element("testsuites", name=f"cnnkit conformance {report.suite}{tier}: {report.backend}")
    suites = [_suite(report, area, cases) for area, cases in by_area(report.cases).items()]
    if report.red and not report.failures:
        suites.append(_verdict_suite(report))
    root.extend(suites)
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.set("time", f"{report.seconds:.3f}")
    _keep_to_xml(root)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(report: Report, area: str, cases: Sequence[CaseResult]) -> ET.Element:
    failed = sum(case.outcome == "failed" for case in cases)
    skipped = sum(case.outcome not in ("passed", "failed") for case in cases)
    suite = _bare_suite(report, area, len(cases), failed, skipped, sum(case.seconds for case in cases))
    suite.extend(_testcase(report, area, case) for case in cases)
    return suite


def _bare_suite(report: Report, name: str, tests: int, failures: int, skipped: int, seconds: float) -> ET.Element:
    counts = {"tests": str(tests), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    suite = ET.Element("testsuite", {"name": name, **counts, "time": f"{seconds:.3f}", "timestamp": report.started})
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(report).items():
        ET.SubElement(properties, "property", name=key, value=value)
    return suite


def _properties(report: Report) -> Mapping[str, str]:
    said = {
        "suite": report.suite,
        "backend": report.backend,
        "distribution": report.distribution,
        "tier": report.tier,
        "level": report.level,
        "precision": ", ".join(report.precisions),
        "device": report.device or "",
        "probed": report.probed,
        "kernels": ", ".join(report.kernels),
        "compiled_for": ", ".join(report.compiled_for),
        "seed": str(report.seed),
        "only": ", ".join(report.only),
        "platform": report.platform,
        "ledger": report.ledger or "",
        "verdict": report.verdict,
        "reasons": " ".join(report.reasons),
        **{f"option.{name}": value for name, value in report.options.items()},
        **{f"version.{name}": value for name, value in report.versions.items()},
    }
    return {name: value for name, value in said.items() if value}


def _testcase(report: Report, area: str, case: CaseResult) -> ET.Element:
    element = ET.Element("testcase", name=case.name, classname=f"{_place(report)}.{area}", time=f"{case.seconds:.3f}")
    if case.outcome == "failed":
        said = clipped(case.message.partition("\n")[0], MESSAGE_LIMIT) or case.claim
        failure = ET.SubElement(element, "failure", type=case.stage or "compare", message=said)
        failure.text = _account(report, case)
    elif case.outcome != "passed":
        ET.SubElement(element, "skipped", type=case.outcome, message=_why_skipped(case))
    return element


def _place(report: Report) -> str:
    """What stands in front of an area, so that a reader of several documents takes no plan for a run."""
    return f"conformance.{report.backend}" if report.tier == "run" else f"conformance-{report.tier}.{report.backend}"


def _account(report: Report, case: CaseResult) -> str:
    units = units_in_words(case.units)
    command = repro_command(report, case)
    parts = [
        f"Claim: {case.claim}",
        case.message,
        f"Error: {units} units" if units else "",
        f"To repeat it: {command}" if command else "",
        case.traceback.rstrip(),
    ]
    return "\n".join(part for part in parts if part)


def _why_skipped(case: CaseResult) -> str:
    said = {"refused": "Refused", "deviates": "Deviates, as its ledger declares", "not-run": "Did not run"}
    parts = [
        case.reason,
        case.message,
        f"({case.issue})" if case.issue else "",
        f"Until {case.expiry}" if case.expiry else "",
    ]
    why = " ".join(part for part in parts if part)
    return clipped(f"{said[case.outcome]}{f': {why}' if why else ''}", MESSAGE_LIMIT)


def _verdict_suite(report: Report) -> ET.Element:
    suite = _bare_suite(report, "verdict", 1, 1, 0, 0.0)
    element = ET.SubElement(suite, "testcase", name="verdict", classname=_place(report), time="0.000")
    failure = ET.SubElement(
        element, "failure", type="verdict", message=clipped(" ".join(report.reasons), MESSAGE_LIMIT)
    )
    failure.text = "\n".join(report.reasons)
    return suite


def _keep_to_xml(root: ET.Element) -> None:
    """Take out the characters that no XML document may hold; engines print them."""
    for element in root.iter():
        element.text = printable(element.text) if element.text else element.text
        for name, value in element.items():
            element.set(name, printable(value))
