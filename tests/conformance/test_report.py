"""What makes a run red, and what a report holds."""

import math

import pydantic
import pytest

from cnnkit.conformance.report import CaseResult, Report, reasons_for_red
from cnnkit.features import ESSENTIAL


def results(outcome, count=1, *, precision="float32", level="inference", features=ESSENTIAL, **fields):
    """So many cases of one kind."""
    return [
        CaseResult(
            id=f"{level}.{outcome}.{number}",
            precision=precision,
            claim="It holds",
            level=level,
            features=tuple(features),
            outcome=outcome,
            **fields,
        )
        for number in range(count)
    ]


def report_of(cases, **fields):
    given = {"suite": "1.0", "backend": "mine", "level": "training", "precisions": ("float32",), "seconds": 1.0}
    return Report(started="2026-11-24T12:00:00+00:00", versions={}, cases=cases, verdict="green", **(given | fields))


GREEN = [
    *results("passed", 4),
    *results("passed", 2, level="training"),
    *results("passed", 4, precision="float64"),
    *results("passed", 2, level="training", precision="float64"),
]


# ------------------------------------------------------------------------------------------------------- green and red


def test_a_run_in_which_all_passes_is_green():
    assert reasons_for_red(GREEN, ()) == []


def test_refusals_and_deviations_alone_do_not_make_it_red():
    assert reasons_for_red([*GREEN, *results("refused", 3), *results("deviates")], ()) == []


def test_a_run_without_cases_is_red():
    assert reasons_for_red([], ()) == ["Too little ran: no case passed; at least 50% must."]


def test_a_failure_is_counted_by_its_stage():
    failed = [*results("failed", stage="crash"), *results("failed", 2, stage="compare")]
    assert reasons_for_red([*GREEN, *failed], ()) == [
        "3 of 15 cases failed: 2 at the stage compare, 1 at the stage crash."
    ]


def test_a_problem_of_the_ledger_is_a_reason_in_its_own_words():
    assert reasons_for_red(GREEN, ["the ledger has expired."]) == ["the ledger has expired."]


def test_a_case_that_did_not_run_makes_it_red_unless_less_was_asked_for():
    cases = [*GREEN, *results("not-run", 3)]
    assert reasons_for_red(cases, ()) == ["3 of 15 cases did not run."]
    assert reasons_for_red(cases, (), within_budget=True) == []


@pytest.mark.parametrize(("passed", "green"), [(1, False), (2, True)])
@pytest.mark.parametrize("instead", ["refused", "deviates"])
@pytest.mark.parametrize("level", ["inference", "training"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_half_of_each_level_in_each_precision_must_pass(passed, green, instead, level, precision):
    """A level or precision of which next to nothing passed must not hide behind the other one."""
    kind = {"level": level, "precision": precision}
    others = [case for case in GREEN if (case.level, case.precision) != (level, precision)]
    cases = [*others, *results("passed", passed, **kind), *results(instead, 4 - passed, **kind)]
    reasons = reasons_for_red(sorted(cases, key=lambda case: case.precision), ())
    said = f"Too little ran: 1 of 4 {level} cases passed in {precision}; at least 50% must."
    assert reasons == ([] if green else [said])


def test_a_second_precision_may_be_refused_as_a_whole():
    first = [case for case in GREEN if case.precision == "float32"]
    assert reasons_for_red([*first, *results("refused", 9, precision="float64")], ()) == []


def test_float32_may_not_be_refused_as_a_whole_wherever_it_stands():
    """What is not said otherwise is in float32: a green backend runs models in it."""
    found = [*results("refused", 4), *results("passed", 4, precision="float64")]
    for cases in (found, found[::-1]):
        assert reasons_for_red(cases, ()) == [
            "Too little ran: float32, the precision of programs unless another is asked for, is refused.",
            "Too little ran: 0 of 4 inference cases passed in float32; at least 50% must.",
            f"Too little ran: no case passed that needs {', '.join(ESSENTIAL)}.",
        ]


def test_the_order_of_precisions_is_of_no_account():
    first = [case for case in GREEN if case.precision == "float32"]
    cases = [*first, *results("refused", 9, precision="float64")]
    assert reasons_for_red(cases, ()) == reasons_for_red(cases[::-1], ()) == []
    mixed = [*results("passed", 1), *results("refused", 3), *results("failed", 2, precision="float64", stage="run")]
    mixed += results("failed", 2, stage="crash")
    assert reasons_for_red(mixed, ()) == reasons_for_red(mixed[::-1], ())
    assert reasons_for_red(mixed, ())[0] == "4 of 8 cases failed: 2 at the stage crash, 2 at the stage run."


def test_float64_alone_can_be_green():
    assert reasons_for_red([case for case in GREEN if case.precision == "float64"], ()) == []


@pytest.mark.parametrize("feature", ESSENTIAL)
def test_a_case_that_needs_each_essential_feature_must_pass(feature):
    without = [name for name in ESSENTIAL if name != feature]
    cases = [*results("passed", 4, features=without), *results("refused", features=[feature])]
    assert reasons_for_red(cases, ()) == [f"Too little ran: no case passed that needs {feature}."]


def test_what_passed_in_another_precision_shows_no_essential_feature():
    cases = [*results("passed", features=ESSENTIAL[1:]), *results("passed", precision="float64")]
    assert reasons_for_red(cases, ()) == [f"Too little ran: no case passed that needs {ESSENTIAL[0]}."]


def test_a_partial_run_of_the_level_training_must_have_trained():
    cases = [*results("passed", 4), *results("not-run", 9, level="training")]
    assert reasons_for_red(cases, (), within_budget=True) == ["Too little ran: no case passed that trains."]


def test_a_partial_run_must_show_what_is_essential():
    cases = [*results("passed", 4, features=["dense"]), *results("not-run", 9)]
    assert reasons_for_red(cases, (), within_budget=True) == [
        "Too little ran: no case passed that needs conv2d, pool.max, activation.relu, flatten, softmax."
    ]


def test_in_a_partial_run_the_share_is_of_what_was_tried():
    cases = [*results("passed", 2), *results("refused", 3), *results("not-run", 9)]
    assert reasons_for_red(cases, (), within_budget=True) == [
        "Too little ran: 2 of 5 inference cases passed in float32; at least 50% must."
    ]


# ------------------------------------------------------------------------------------------------------------ its data


def test_counts_name_every_outcome_in_one_order():
    report = report_of([*results("not-run", 2), *results("passed", 3)])
    assert list(report.counts.items()) == [
        ("passed", 3),
        ("failed", 0),
        ("refused", 0),
        ("deviates", 0),
        ("not-run", 2),
    ]


def test_infinite_errors_and_halves_of_surrogate_pairs_come_back_from_json():
    (case,) = results("failed", units=math.inf, message="a \ud800 file name")
    back = CaseResult.model_validate_json(case.model_dump_json())
    assert (back.units, back.message) == (math.inf, "a \\ud800 file name")


def test_an_error_is_a_number_of_units_from_0():
    for units in (-1.0, math.nan):
        with pytest.raises(pydantic.ValidationError, match="greater than or equal to 0"):
            results("failed", units=units)


def test_counts_that_are_not_those_of_the_cases_are_refused():
    data = report_of(results("failed")).model_dump(mode="json")
    assert Report.model_validate(data | {"counts": report_of(results("failed")).counts}).counts["failed"] == 1
    with pytest.raises(pydantic.ValidationError, match="not what became of the cases"):
        Report.model_validate(data | {"counts": report_of(results("passed")).counts})
