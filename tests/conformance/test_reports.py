"""The forms of a report: what they say, that they agree, and that nothing an engine says gets out of hand."""

import hashlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cnnkit.conformance.report import CaseResult, Report
from cnnkit.conformance.reports import report_schema, to_badge, to_html, to_json, to_junit, to_markdown
from cnnkit.conformance.reports.style import DARK, LIGHT, STATES, STYLE

SCHEMA_FILE = Path(__file__).parent.parent.parent / "docs" / "reference" / "conformance-report.schema.json"
FORMS = {"json": to_json, "junit": to_junit, "html": to_html, "markdown": to_markdown, "badge": to_badge}
HOSTILE = (
    """<script>alert('1')</script> " onload="x" & | `x` ``` @everyone \x1b[31mred\x1b[0m \x00\x08\ufffe ]]> <!-- """
)
SHOWN = """<script>alert('1')</script> " onload="x" & | `x` ``` @everyone red """


def case(name="dense.forward.wide", outcome="passed", **fields):
    given = {"precision": "float32", "claim": f"The claim of {name}", "level": "inference", "features": ("dense",)}
    return CaseResult(id=name, outcome=outcome, **(given | fields))


FAILED = case(
    "conv2d.forward.same",
    "failed",
    stage="compare",
    units=5210.4,
    message="output[0, 1] is 2; expected 3 (5,210 units)\nsecond line",
    error="ValueError",
    traceback="Traceback (most recent call last): deep inside",
    repro="my failures/conv2d.json",
    features=("conv2d", "conv2d.padding"),
    seconds=0.25,
)
REFUSED = case(
    "conv2d.forward.holes",
    "refused",
    stage="refuse",
    message="layers[0].dilation needs conv2d.dilation: no kernel",
    features=("conv2d", "conv2d.dilation"),
)
DEVIATES = case(
    "v06.max-pool.ties",
    "deviates",
    stage="compare",
    units=math.inf,
    message="output[0] is nan; expected 1",
    reason="All of a tie win",
    issue="https://example.org/engine/issues/7",
    expiry=date(2027, 1, 31),
    features=("pool.max",),
)
LEFT_OUT = case("network.small", "not-run", level="training", features=("dense", "training"))
PASSED = [
    case(units=1.25, seconds=0.5),
    case(precision="float64", units=0.5, seconds=0.125),
    case("dense.forward.deep", units=2.0, features=("conv2d", "dense")),
]
ALL = (*PASSED, FAILED, REFUSED, DEVIATES, LEFT_OUT)


def report_of(cases=ALL, **fields):
    given = {
        "suite": "1.0",
        "backend": "acme",
        "distribution": "acme-engine 2.3",
        "level": "training",
        "precisions": ("float32", "float64"),
        "seconds": 75.0,
        "started": "2026-11-24T12:00:00+00:00",
        "versions": {"cnnkit": "0.1.0", "numpy": "2.3.1"},
        "verdict": "red" if any(one.outcome == "failed" for one in cases) else "green",
        "reasons": ("1 of 7 cases failed.",) if any(one.outcome == "failed" for one in cases) else (),
        "seed": 17,
    }
    return Report(cases=cases, **(given | fields))


PART = {"verdict": "partial", "only": ("dense.*", "conv2d.*")}
"""The fields of a report on a part of the suite."""


PLAN = {
    "tier": "plan",
    "verdict": "plan",
    "platform": "Linux-6",
    "probed": "no-device: finds no GPU",
    "kernels": ("im2col", "softmax"),
    "compiled_for": ("sm_75", "sm_90"),
}
"""The fields of a report on the tier plan, on a machine without the device."""


def hostile_report(outcome="failed"):
    """One in which every text that comes from outside is as bad as it can be."""
    said = dict.fromkeys(["id", "claim", "message", "error", "traceback", "repro", "reason", "issue"], HOSTILE)
    bad = CaseResult(
        precision="float32", level="training", features=(HOSTILE,), outcome=outcome, units=math.inf, stage="run", **said
    )
    return report_of(
        (bad, *PASSED),
        **dict.fromkeys(["suite", "backend", "distribution", "device", "started", "platform", "ledger"], HOSTILE),
        reasons=(HOSTILE,),
        options={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
    )


# ------------------------------------------------------------------------------------------------------------ all forms


@pytest.mark.parametrize("form", FORMS)
def test_a_report_that_was_written_and_read_gives_the_same_text(form):
    report = hostile_report()
    assert FORMS[form](Report.model_validate_json(to_json(report))) == FORMS[form](report)


def test_the_text_is_the_same_in_every_process():
    """No set and no hash decides about an order."""
    program = (
        "import sys, hashlib; from cnnkit.conformance import reports; from cnnkit.conformance.report import Report\n"
        "report = Report.model_validate_json(sys.stdin.buffer.read())\n"
        "for form in ['json', 'junit', 'html', 'markdown', 'badge']:\n"
        "    print(hashlib.sha256(getattr(reports, 'to_' + form)(report).encode()).hexdigest())"
    )
    report = report_of([case(f"a{n % 7}.b{n}", units=1.5**n, features=(f"f{n % 5}", "dense")) for n in range(40)])
    found = subprocess.run(
        [sys.executable, "-c", program],
        input=to_json(report).encode(),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "4711"},
    ).stdout.decode()
    assert found.split() == [hashlib.sha256(make(report).encode()).hexdigest() for make in FORMS.values()]


def test_no_form_of_a_report_on_a_part_is_green_or_red():
    """Nothing in it may pass for the whole, and nothing has failed."""
    report = report_of((*PASSED, LEFT_OUT), **PART)
    texts = {form: make(report) for form, make in FORMS.items()}
    assert json.loads(texts["json"])["verdict"] == "partial"
    assert json.loads(texts["json"])["only"] == ["dense.*", "conv2d.*"]
    root = junit(report)
    assert (root.get("failures"), root.get("skipped"), root.get("tests")) == ("0", "1", "4")
    assert root.find("testsuite/properties/property[@name='verdict']").get("value") == "partial"
    assert root.find("testsuite/properties/property[@name='only']").get("value") == "dense.*, conv2d.*"
    said = "acme was tried in a part of the conformance suite 1.0 at the level training in float32 and float64."
    caveat = "Only dense.* and conv2d.* of the suite was selected, which makes no backend green."
    assert said in texts["html"]
    assert (
        '<span class="partly"><span aria-hidden="true">◐</span>&nbsp;<strong>Partial.</strong></span>' in texts["html"]
    )
    assert "<title>partial: acme" in texts["html"]
    assert f"<li>{caveat}</li>" in texts["html"]
    assert texts["markdown"].startswith(f"## Conformance of `acme`: ◐ partial\n\n{said}")
    assert caveat.replace("*", r"\*") in texts["markdown"]
    assert f"<title>{said}" in texts["badge"]
    assert not re.search("#1f7a3d|#b3261e", texts["badge"])


PLAN_SAYS = (
    "acme passes the tier plan of the conformance suite 1.0 at the level training in float32 and float64. Plan only: "
    "nothing was run. Tier plan on Linux-6, 2026-11-24 12:00:00 UTC. The probe said there: no-device: finds no GPU. "
    "Compiled for sm_75 and sm_90: 2 kernels."
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_plan_says_that_it_is_one_and_where_and_when_it_was_made(form):
    text = FORMS[form](report_of(PASSED, **PLAN))
    assert not re.search("(?i)green|#1f7a3d", text.replace(STYLE, ""))
    for words in {
        "json": ['"tier": "plan"', '"verdict": "plan"', "no-device: finds no GPU", "Linux-6", "2026-11-24T12:00:00"],
        "junit": ["tier plan only", "conformance-plan.acme.dense", "finds no GPU", "Linux-6", "2026-11-24T12:00:00"],
        "html": [
            "<strong>Plan.</strong>",
            PLAN_SAYS.partition(" Tier")[0],
            PLAN_SAYS.partition("run. ")[2],
            "sm_75, sm_90",
        ],
        "markdown": ["## Conformance of `acme`: ◇ plan", PLAN_SAYS.replace("_", "\\_")],
        "badge": ["plan only, not run", PLAN_SAYS],
    }[form]:
        assert words in text


@pytest.mark.parametrize("form", FORMS)
def test_what_passes_in_a_plan_does_not_look_as_what_was_run_and_passed(form):
    planned = [one.model_copy(update={"units": None}) for one in PASSED]  # nothing is computed, nothing measured
    text = FORMS[form](report_of(planned, **PLAN)).replace(STYLE, "")
    assert "✓" not in text
    assert 'class="passed"' not in text
    text = FORMS[form](report_of(PASSED)).replace(STYLE, "")
    assert "◇" not in text
    assert "plan" not in text.replace("planned", "")


@pytest.mark.parametrize("form", FORMS)
def test_a_plan_for_a_device_does_not_say_that_anything_was_on_it(form):
    text = FORMS[form](report_of(PASSED, **PLAN, device="cuda:0", device_given=True))
    assert "on cuda:0" not in text
    assert form in ("json", "junit") or "for cuda:0" in text or "cuda:0: planned for, not run on" in text


def test_a_failure_of_a_plan_is_repeated_by_the_tier_plan():
    report = report_of([case(outcome="failed", stage="compare")], tier="plan", device="cuda:0", device_given=True)
    command = "cnnkit conformance acme --only dense.forward.wide --precision float32 --tier plan --device cuda:0"
    assert f"$ {command}" in to_markdown(report)
    assert f"To repeat it: {command}" in to_junit(report)
    assert f"$ {command}" in to_html(report)


def test_a_report_from_before_there_were_tiers_is_one_of_the_tier_run():
    later = ("tier", "probed", "kernels", "compiled_for")
    old = {name: value for name, value in json.loads(to_json(report_of(PASSED))).items() if name not in later}
    Draft202012Validator(report_schema()).validate(old)
    assert Report.model_validate(old) == report_of(PASSED)
    assert Report.model_validate(old).tier == "run"


@pytest.mark.parametrize("fields", [{"tier": "plan", "verdict": "green"}, {"tier": "run", "verdict": "plan"}])
def test_no_plan_is_green_and_no_run_is_a_plan(fields):
    with pytest.raises(pydantic.ValidationError, match="which no report of the tier"):
        report_of(PASSED, **fields)
    assert not report_of(PASSED, **PLAN).green
    assert report_of(PASSED, **PLAN).planned


def test_the_command_that_repeats_a_failure_names_the_device_only_where_it_was_asked_for():
    for asked, said in ((False, ""), (True, " --device cuda:0")):
        text = to_markdown(report_of(device="cuda:0", device_given=asked, options={"threads": "2"}))
        assert f"$ cnnkit repro 'my failures/conv2d.json' --backend acme{said} --set threads=2\n" in text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cases", [(), (LEFT_OUT,), (REFUSED,)])
def test_a_report_in_which_nothing_passed_can_be_shown(form, cases):
    assert "acme" in FORMS[form](report_of(cases, verdict="red", reasons=("Too little ran.",)))


@pytest.mark.parametrize(
    ("units", "said"),
    [
        (0.0, "0 units"),
        (0.001, "< 0.01 units"),
        (0.0456, "0.05 units"),
        (3.0, "3.0 units"),
        (128.4, "128 units"),
        (5210.4, "5,210 units"),
        (2.04e12, "2.0e+12 units"),
        (math.inf, "not finite"),
    ],
)
def test_an_error_is_written_with_the_digits_that_mean_something(units, said):
    text = Page(to_html(report_of([case(outcome="failed", stage="compare", units=units)]))).texts("article")[0]
    assert f"error {said} · " in text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.00043, "0.4 ms"),
        (0.0354, "35 ms"),
        (0.9996, "1.00 s"),
        (12.345, "12.35 s"),
        (59.6, "1 min 0 s"),
        (125.4, "2 min 5 s"),
    ],
)
def test_a_time_is_written_in_the_unit_that_suits_it(seconds, said):
    assert f" in {said} (" in to_markdown(report_of(seconds=seconds))


# ----------------------------------------------------------------------------------------------------------------- JSON


def test_json_round_trips_infinite_errors_included_and_is_strict():
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = to_json(report_of())
    assert json.loads(text, parse_constant=refuse)["cases"][5]["units"] == "Infinity"
    assert Report.model_validate_json(text) == report_of()


def test_json_has_the_counts():
    assert json.loads(to_json(report_of()))["counts"] == {
        "passed": 3,
        "failed": 1,
        "refused": 1,
        "deviates": 1,
        "not-run": 1,
    }


def test_the_published_schema_is_a_schema_and_that_of_the_code():
    Draft202012Validator.check_schema(report_schema())
    assert SCHEMA_FILE.read_text() == json.dumps(report_schema(), indent=2) + "\n"


@pytest.mark.parametrize("make", [report_of, hostile_report])
def test_what_is_written_is_what_the_schema_says(make):
    assert list(Draft202012Validator(report_schema()).iter_errors(json.loads(to_json(make())))) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(format=2),
        lambda data: data.update(verdict="amber"),
        lambda data: data.update(unknown=1),
        lambda data: data.pop("counts"),
        lambda data: data.pop("reasons"),
        lambda data: data["counts"].pop("failed"),
        lambda data: data["counts"].update(skipped=1),
        lambda data: data["cases"][0].update(outcome="skipped"),
        lambda data: data["cases"][0].update(units="NaN"),
        lambda data: data["cases"][0].update(units=-1),
        lambda data: data["cases"][0].pop("claim"),
        lambda data: data["cases"][0].update(expiry="soon", extra=1),
    ],
)
def test_the_schema_refuses_what_is_no_report(change):
    data = json.loads(to_json(report_of()))
    change(data)
    assert list(Draft202012Validator(report_schema()).iter_errors(data))


# ---------------------------------------------------------------------------------------------------------------- JUnit


def junit(report):
    return ET.fromstring(to_junit(report))  # noqa: S314 - our own text


def element_of(root, name):
    (found,) = (one for one in root.iter("testcase") if one.get("name") == name)
    return found


def test_junit_has_a_suite_for_each_area_and_a_test_case_for_each_case():
    root = junit(report_of())
    names = {suite.get("name"): [one.get("name") for one in suite.iter("testcase")] for suite in root}
    assert names == {
        "dense": ["dense.forward.wide[float32]", "dense.forward.wide[float64]", "dense.forward.deep[float32]"],
        "conv2d": ["conv2d.forward.same[float32]", "conv2d.forward.holes[float32]"],
        "max-pool": ["v06.max-pool.ties[float32]"],
        "network": ["network.small[float32]"],
    }


@pytest.mark.parametrize("verdict", ["red", "green"])
def test_the_counts_of_junit_are_those_of_its_elements(verdict):
    root = junit(report_of(ALL if verdict == "red" else PASSED))
    for element in [root, *root]:
        assert int(element.get("tests")) == len(list(element.iter("testcase")))
        assert int(element.get("failures")) == len(list(element.iter("failure")))
        assert int(element.get("skipped")) == len(list(element.iter("skipped")))
        assert element.get("errors") == "0"
    assert [root.get(key) for key in ("tests", "failures", "skipped")] == (
        ["7", "1", "3"] if verdict == "red" else ["3", "0", "0"]
    )


def test_a_failure_in_junit_has_its_stage_the_first_line_and_all_that_is_known():
    found = element_of(junit(report_of()), FAILED.name)
    failure = found.find("failure")
    assert found.get("time") == "0.250"
    assert failure.get("type") == "compare"
    assert failure.get("message") == "output[0, 1] is 2; expected 3 (5,210 units)"
    for part in (FAILED.claim, "second line", "5,210 units", "deep inside"):
        assert part in failure.text
    assert "cnnkit repro 'my failures/conv2d.json' --backend acme" in failure.text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (REFUSED.name, ["Refused", "no kernel"]),
        (DEVIATES.name, ["Deviates", "All of a tie win", "https://example.org/engine/issues/7", "2027-01-31"]),
        (LEFT_OUT.name, ["Did not run"]),
    ],
)
def test_what_neither_passed_nor_failed_is_skipped_in_junit_with_its_reason(name, words):
    found = element_of(junit(report_of()), name)
    assert found.find("failure") is None
    assert all(word in found.find("skipped").get("message") for word in words)


def test_junit_says_on_what_it_ran():
    root = junit(report_of(device="cuda:0", options={"threads": "2"}))
    for suite in root:
        said = {one.get("name"): one.get("value") for one in suite.iter("property")}
        assert (
            said.items()
            >= {
                "device": "cuda:0",
                "precision": "float32, float64",
                "seed": "17",
                "version.numpy": "2.3.1",
                "option.threads": "2",
                "suite": "1.0",
                "level": "training",
                "verdict": "red",
            }.items()
        )


def test_a_red_report_without_a_failed_case_fails_in_junit_too():
    root = junit(report_of(PASSED, verdict="red", reasons=("Too little ran.", "The ledger has expired.")))
    assert root.get("failures") == "1"
    assert root.find(".//failure").get("message") == "Too little ran. The ledger has expired."


def test_a_long_message_is_cut_in_the_attribute_and_whole_in_the_text():
    root = junit(report_of([case(outcome="failed", message="x" * 9000, stage="run")]))
    failure = root.find(".//failure")
    assert len(failure.get("message")) < 600
    assert "(8,500 more characters)" in failure.get("message")
    assert "x" * 9000 in failure.text


anything = st.text(st.characters(codec=None), max_size=30)


@settings(max_examples=60, deadline=None)
@given(anything, anything, anything)
def test_junit_and_badge_are_xml_whatever_an_engine_says(name, message, device):
    cases = [case(name, "failed", message=message, traceback=message), case(name, "refused", message=message)]
    report = report_of(cases, device=device, reasons=(message,))
    assert len(list(junit(report).iter("testcase"))) == 2
    ET.fromstring(to_badge(report))  # noqa: S314 - our own text


# ----------------------------------------------------------------------------------------------------------------- HTML

VOID = {"meta", "wbr", "rect", "line"}


class Page(HTMLParser):
    """The elements of a page with their attributes and text, in order; unbalanced tags are an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(len(self.found))
        self.found.append([tag, dict(attrs), ""])
        assert len(dict(attrs)) == len(attrs)

    def handle_startendtag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.found[self.open.pop()][0] == tag

    def handle_data(self, data):
        for index in self.open:
            self.found[index][2] += data

    def all(self, tag, **wanted):
        return [
            (attributes, " ".join(text.split()))
            for name, attributes, text in self.found
            if name == tag and attributes.items() >= wanted.items()
        ]

    def texts(self, tag, **wanted):
        return [text for _, text in self.all(tag, **wanted)]


@pytest.mark.parametrize("make", [report_of, hostile_report])
def test_nothing_on_the_page_runs_or_is_fetched(make):
    text = to_html(make())
    page = Page(text)
    assert {name for name, _, _ in page.found}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "embed", "base"}
    )
    attributes = [pair for _, found, _ in page.found for pair in found.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name in ("src", "srcset", "xlink:href")]
    issues = [DEVIATES.issue] if make is report_of else []
    assert [value for name, value in attributes if name == "href" and not value.startswith("#")] == issues
    assert not re.search(r"url\(|@import|expression\(", text)
    assert "default-src 'none'" in page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0][0]["content"]


@pytest.mark.parametrize("outcome", ["failed", "refused", "deviates", "not-run"])
def test_what_comes_from_outside_is_shown_as_it_is_and_not_as_markup(outcome):
    text = to_html(hostile_report(outcome))
    assert "<script" not in text
    assert 'onload="' not in text
    page = Page(text)
    shown = " ".join(SHOWN.split())
    assert shown in page.texts("h1")[0]
    assert shown in page.texts("p", **{"class": "verdict"})[0]
    assert shown in page.texts("body")[0]
    if outcome == "failed":
        (failure,) = page.texts("article")
        # The case, the claim, the class of the error, the message, the command and the traceback.
        assert failure.count("<script>alert('1')</script>") == 5
        assert "<script>alert('\"'\"'1'\"'\"')</script>" in failure


@pytest.mark.parametrize(
    "issue", ["javascript:alert(1)", "data:text/html,x", "//example.org", "http://[", "nowhere", "https:nowhere"]
)
def test_only_an_address_of_the_web_becomes_a_link(issue):
    page = Page(to_html(report_of([*PASSED, DEVIATES.model_copy(update={"issue": issue})])))
    assert issue not in [attributes["href"] for attributes, _ in page.all("a")]
    assert issue in page.texts("section", id="exceptions")[0]


def test_the_verdict_stands_first_with_its_reasons():
    page = Page(to_html(report_of(device="cuda:0", reasons=("1 of 7 cases failed.", "The ledger has expired."))))
    assert page.texts("p")[0] == (
        "✗ Red. acme does not pass the conformance suite 1.0 at the level training in float32 and float64 on cuda:0."
    )
    (reasons,) = page.texts("ul", **{"class": "reasons"})
    assert reasons == (
        "1 of 7 cases failed.The ledger has expired.1 of 7 cases was refused, as its plugin or ledger declares."
        "1 of 7 cases deviates, as its ledger declares.1 of 7 cases did not run."
    )


def test_a_green_verdict_claims_no_precision_in_which_nothing_passed():
    refused = REFUSED.model_copy(update={"precision": "float64"})
    report = report_of([PASSED[0], refused])
    sentence = "acme passes the conformance suite 1.0 at the level training in float32."
    assert Page(to_html(report)).texts("p")[0] == f"✓ Green. {sentence}"
    assert sentence in to_markdown(report)
    assert "training float32 · 1 passed + 1 refused" in to_badge(report)


def test_a_red_verdict_names_every_precision_that_was_tried():
    refused = REFUSED.model_copy(update={"precision": "float64"})
    sentence = "acme does not pass the conformance suite 1.0 at the level training in float32 and float64."
    assert sentence in to_markdown(report_of([PASSED[0], FAILED, refused]))


def test_a_precision_that_only_a_case_names_is_not_hidden():
    report = report_of(PASSED, precisions=("float32",))
    assert "| `dense` | ✓ 2 passed | ✓ 1 passed |" in to_markdown(report)
    assert badge_of(report)[1] == "training float32 float64 · 3 passed · 2026-11-24"


def test_one_failure_among_very_many_can_be_seen_in_the_bar():
    page = Page(to_html(report_of([FAILED, *(case(f"a.n{number}") for number in range(999))])))
    ((bar, _),) = page.all("rect", **{"class": "failed"})
    assert float(bar["width"].rstrip("%")) >= 0.4
    assert float(bar["x"].rstrip("%")) + float(bar["width"].rstrip("%")) <= 100


def test_the_page_counts_every_outcome():
    page = Page(to_html(report_of()))
    assert page.texts("ul", **{"class": "counts"}) == ["✓ 3 passed✗ 1 failed⊘ 1 refused≠ 1 deviating○ 1 not run"]


def test_a_failure_is_shown_with_all_that_is_known_and_its_traceback_folded():
    page = Page(to_html(report_of()))
    (failure,) = page.texts("article")
    assert failure.startswith("✗ conv2d.forward.same[float32] The claim of conv2d.forward.same.")
    assert "stage compare · error 5,210 units · ValueError · 250 ms" in failure
    assert "output[0, 1] is 2; expected 3 (5,210 units) second line" in failure
    assert "$ cnnkit repro 'my failures/conv2d.json' --backend acme" in failure
    folded = [text for attributes, text in page.all("details") if "open" not in attributes]
    assert "Traceback Traceback (most recent call last): deep inside" in folded


def test_every_failure_is_on_the_page_however_many_there_are():
    cases = [case(f"dense.forward.n{number}", "failed", stage="run") for number in range(100)]
    page = Page(to_html(report_of(cases)))
    assert len(page.all("article")) == 100
    assert page.texts("h2", id="failures-title") == ["Failures (100)"]


def test_a_long_message_is_cut_on_the_page():
    text = to_html(report_of([case(outcome="failed", message="x" * 9000, traceback="y" * 90_000, stage="run")]))
    assert text.count("x" * 100) == text.count("x" * 4000) * 40 == 40
    assert "(5,000 more characters)" in text
    assert "(70,000 more characters)" in text


def test_small_areas_in_which_all_is_well_are_drawn_as_one():
    cases = [*(case(f"large.n{number}", units=3.0, seconds=1.0) for number in range(20)), case("a.b", units=2.0)]
    small = [case("c.d", units=5.0), FAILED]
    page = Page(to_html(report_of([*cases, *small])))
    errors, times = page.texts("ul", **{"class": "bars"})
    assert [word for word in ("conv2d", "others", "large", "a", "c") if re.search(rf"\b{word}\b", errors)] == [
        "conv2d",
        "others",
        "large",
    ]
    assert "others✓ 5.0" in errors
    assert "others0.0 ms 2 cases" in times


def rows_of(page, kind):
    """The cells of the rows of the first table of this kind."""
    text = next(found for name, attributes, found in page.found if name == "table" and attributes["class"] == kind)
    return [line.strip() for line in text.split("\n") if line.strip()]


def test_the_matrix_counts_the_outcomes_for_each_feature_in_each_precision():
    rows = rows_of(Page(to_html(report_of())), "matrix")
    assert rows[1:] == [
        "Featurefloat32float64",
        "conv2d✗\xa01 failed, 1 passed, 1 refused·\xa0none",
        "conv2d.dilation⊘\xa01 refused·\xa0none",
        "conv2d.padding✗\xa01 failed·\xa0none",
        "dense◐\xa02 passed, 1 not run✓\xa01 passed",
        "pool.max≠\xa01 deviating·\xa0none",
        "training○\xa01 not run·\xa0none",
    ]


def test_the_worst_errors_come_first_and_are_at_most_20():
    cases = [case(f"a{number % 3}.n{number}", units=float(number)) for number in range(30)]
    rows = rows_of(Page(to_html(report_of([*cases, DEVIATES]))), "")
    assert rows[2].startswith("v06.max-pool.ties[float32]not finite")
    assert rows[3].startswith("a2.n29[float32]29.0")
    assert rows[:2] == ["The 20 cases with the largest errors", "CaseUnitsOutcome"]


def bar_ends(report):
    """Where the bars of the areas end, in per cent, and the threshold."""
    page = Page(to_html(report))
    ends = [float(found["width"].rstrip("%")) for found, _ in page.all("rect", **{"class": "bar"})]
    (limit,) = {found["x1"] for found, _ in page.all("line", **{"class": "limit"})}
    return ends, float(limit.rstrip("%"))


def test_a_bar_passes_the_threshold_exactly_where_an_error_does():
    errors = {"a.b": 127.0, "c.d": 129.0, "e.f": math.inf}
    ends, limit = bar_ends(report_of([case(name, "failed", units=units) for name, units in errors.items()]))
    assert ends[0] == 100
    assert ends[1] >= limit >= ends[2] > 0


def test_the_scale_of_errors_is_logarithmic():
    powers = (-4, -1, 0, 1, 2, 9, 30)
    ends, _ = bar_ends(report_of([case(f"a{power}.b", "failed", units=10.0**power) for power in powers]))
    assert ends[:2] == [100, 100], "what is out of all proportion does not squeeze the rest"
    assert ends[-1] == 0
    assert ends[2] - ends[3] == pytest.approx(ends[4] - ends[5], abs=0.11)


def test_the_slowest_cases_come_first():
    cases = [case(f"a{number % 3}.n{number}", seconds=float(number)) for number in range(30)]
    section = Page(to_html(report_of(cases))).texts("section", id="timings")[0]
    assert "a2.n29[float32]29.00 s a1.n28[float32]28.00 s" in section
    assert "a1.n10[float32]" in section
    assert "a0.n9[float32]" not in section


def test_refusals_for_the_same_reason_are_one_row_and_deviations_show_issue_and_expiry():
    again = REFUSED.model_copy(
        update={"id": "conv2d.holes", "message": "layers[7].dilation needs conv2d.dilation: no kernel"}
    )
    page = Page(to_html(report_of([*PASSED, REFUSED, again, DEVIATES])))
    text = page.texts("section", id="exceptions")[0]
    assert "conv2d.dilation: no kernelno date2 cases conv2d.forward.holes[float32]conv2d.holes[float32]" in text
    assert "All of a tie winhttps://example.org/engine/issues/72027-01-31v06.max-pool.ties[float32]" in text


def test_every_case_is_in_the_table_of_all_cases_in_each_precision():
    rows = rows_of(Page(to_html(report_of())), "all")
    assert (
        "dense.forward.wideThe claim of dense.forward.wide✓\xa0passed1.2 units, 500 ms✓\xa0passed0.50 units, 125 ms"
        in rows
    )
    assert len(rows) == 2 + len({one.id for one in ALL})


def test_what_ran_is_said():
    page = Page(to_html(report_of(device="cuda:0", options={"threads": "2"}, ledger="/a/conformance.toml")))
    text = page.texts("section", id="ran")[0]
    for words in [
        "acme-engine 2.3",
        "Devicecuda:0",
        "threads=2",
        "Seed17",
        "1 min 15 s",
        "/a/conformance.toml",
        "numpy2.3.1",
    ]:
        assert words in text
    assert "2026-11-24 12:00:00 UTC" in text


@pytest.mark.parametrize("make", [report_of, lambda: report_of(PASSED), hostile_report])
def test_the_page_can_be_read_without_seeing_it(make):
    page = Page(to_html(make()))
    assert page.found[0] == ["html", {"lang": "en"}, page.found[0][2]]
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(page.texts("caption"))
    assert all(attributes.get("scope") in ("row", "col") for attributes, _ in page.all("th"))
    ids = [attributes["id"] for _, attributes, _ in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"][1:] for attributes, _ in page.all("a") if attributes["href"].startswith("#")} <= set(ids)
    assert {attributes["aria-labelledby"] for attributes, _ in page.all("section")} == {
        attributes["id"] for attributes, _ in page.all("h2")
    }
    levels = [int(name[1]) for name, _, _ in page.found if re.fullmatch("h[1-6]", name)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(attributes["aria-hidden"] == "true" for attributes, _ in page.all("svg"))


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    """As WCAG 2 defines it."""
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("behind", ["paper", "shade"])
@pytest.mark.parametrize("name", ["ink", "soft", "link", *STATES])
def test_text_stands_out_from_what_is_behind_it(colours, behind, name):
    assert contrast(colours[name], colours[behind]) >= 4.5


# ------------------------------------------------------------------------------------------------------------- Markdown


def test_markdown_has_verdict_reasons_counts_matrix_and_failures():
    text = to_markdown(report_of())
    assert text.startswith("## Conformance of `acme`: ✗ red\n")
    assert "- 1 of 7 cases failed.\n" in text
    assert "- 1 of 7 cases was refused, as its plugin or ledger declares.\n" in text
    assert "**3 passed, 1 failed, 1 refused, 1 deviating, 1 not run** in 1 min 15 s" in text
    assert (
        "| feature | float32 | float64 |\n| --- | --- | --- |\n| `conv2d` | ✗ 1 failed, 1 passed, 1 refused | · |\n"
        in text
    )
    assert "| `dense` | ◐ 2 passed, 1 not run | ✓ 1 passed |\n" in text
    assert (
        "**`conv2d.forward.same[float32]`** at the stage compare, 5,210 units: The claim of conv2d.forward.same\n"
        in text
    )
    assert (
        "```text\noutput[0, 1] is 2; expected 3 (5,210 units)\nsecond line\n$ cnnkit repro 'my failures/conv2d.json'"
        in text
    )


def test_markdown_of_a_green_report_has_no_failures():
    text = to_markdown(report_of(PASSED))
    assert text.startswith("## Conformance of `acme`: ✓ green\n")
    assert "ailure" not in text


def test_a_message_cannot_end_its_block_in_markdown():
    text = to_markdown(report_of([case(outcome="failed", message="before\n```\n# after", stage="run")]))
    assert text.endswith("\n\n````text\nbefore\n```\n# after\n````\n")


def test_markdown_stays_short_and_says_what_it_leaves_out():
    cases = [case(f"dense.n{number}", "failed", stage="run", message="x" * 9000) for number in range(500)]
    text = to_markdown(report_of(cases))
    assert text.count("```text") == 20
    assert "480 more failed" in text
    assert len(text) < 30_000


def test_nothing_said_is_markup_in_markdown():
    text = to_markdown(hostile_report())
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert outside.count("# ") == 1 + 2
    spans = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", outside.replace("\\`", ""))
    assert not re.search(r"(?<!\\)<|@(?!\u200b)", spans)
    (row,) = [line for line in text.splitlines() if line.startswith("| ") and "script" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == 4


# ---------------------------------------------------------------------------------------------------------------- badge


def badge_of(report):
    """The title, the label for screen readers, and the two texts of the badge."""
    root = ET.fromstring(to_badge(report))  # noqa: S314 - our own text
    space = "{http://www.w3.org/2000/svg}"
    left, right = (text.text for text in root.iter(f"{space}text"))
    assert left == "conformance"
    assert root.get("aria-label") == f"conformance: {right}"
    return root.find(f"{space}title").text, right


@pytest.mark.parametrize(
    ("cases", "fields", "said"),
    [
        (PASSED, {}, "training float32 float64 · 3 passed"),
        (PASSED, {"device": "cuda:0", "level": "inference"}, "inference float32 float64 · cuda:0 · 3 passed"),
        ((*PASSED, REFUSED, DEVIATES), {}, "training float32 float64 · 3 passed + 1 refused + 1 deviating"),
        ((*PASSED, LEFT_OUT), {}, "training float32 float64 · 3 passed + 1 not run"),
        (ALL, {}, "red · 1 failed · training"),
        (ALL, {"device": "cuda:0"}, "red · 1 failed · training · cuda:0"),
        ((*PASSED, LEFT_OUT), PART, "partial · training float32 float64 · 3 passed + 1 not run"),
        (PASSED[1:2], {}, "training float64 only · 1 passed"),
        (PASSED, {"verdict": "red"}, "red · too little ran · training"),
        ((*PASSED, LEFT_OUT), {"verdict": "red"}, "red · 1 not run · training"),
        (PASSED, {"verdict": "red", "ledger_problems": ("x", "y")}, "red · 2 wrong in the ledger · training"),
        (PASSED, PLAN, "plan only, not run · training float32 float64"),
        (PASSED, PLAN | {"device": "cuda:0", "device_given": True}, "plan only, not run · training float32 float64"),
        ((*PASSED, REFUSED), PLAN, "plan only, not run · training float32 float64 · 1 refused"),
        ((*PASSED, LEFT_OUT), PLAN | PART, "partial · plan only, not run · training float32 float64 · 1 not run"),
        (ALL, PLAN | {"verdict": "red"}, "red · 1 failed · plan only, not run · training"),
    ],
)
def test_the_badge_says_the_verdict_and_hides_nothing(cases, fields, said):
    assert badge_of(report_of(cases, **fields))[1] == f"{said} · 2026-11-24"


def test_the_title_of_the_badge_names_backend_suite_tier_place_and_time():
    title, _ = badge_of(report_of((*PASSED, REFUSED), suite="1.7", device="cuda:0", platform="Linux-6"))
    assert title == (
        "acme passes the conformance suite 1.7 at the level training in float32 and float64 on cuda:0. "
        "Tier run on cuda:0, Linux-6, 2026-11-24 12:00:00 UTC. Of 4 cases: 3 passed, 1 refused."
    )


def test_a_badge_without_a_date_says_none():
    assert badge_of(report_of(PASSED, started="yesterday"))[1] == "training float32 float64 · 3 passed"


@pytest.mark.parametrize(("cases", "fields"), [(ALL, {}), (PASSED, {}), (PASSED, PART), (PASSED, PLAN)])
def test_the_badge_is_white_on_colours_that_it_stands_out_from(cases, fields):
    text = to_badge(report_of(cases, **fields))
    assert '<g fill="#fff"' in text
    colours = re.findall(r'<path [^>]*fill="(#\w{6})"', text)
    assert len(colours) == 2
    assert all(contrast(colour, "#ffffff") >= 4.5 for colour in colours)


def test_green_and_red_have_colours_of_their_own():
    assert "#1f7a3d" in to_badge(report_of(PASSED))
    assert "#1f7a3d" not in to_badge(report_of())
