"""The ledger: what it may say, what it makes of results, and how it is rewritten."""

import os
import tomllib
from datetime import date, timedelta

import pytest

from cnnkit.conformance import ledger
from cnnkit.conformance.case import Case
from cnnkit.conformance.report import CaseResult
from cnnkit.errors import OptionError

TODAY = date.today()  # noqa: DTZ011 - the ledger too goes by the calendar on the wall
CASES = [
    Case("conv.one", "One is one", "inference", frozenset({"conv2d"}), print),
    Case("conv.two", "Two is two", "training", frozenset({"conv2d", "training", "optimizer.adamw"}), print),
]
ENTRY = {
    "case": '"conv.one[float32]"',
    "kind": '"fails"',
    "stage": '"compare"',
    "error": "5200.0",
    "reason": '"The engine adds one"',
    "issue": '"https://example.org/1"',
    "expiry": "2999-12-31",
}
REFUSAL = {"kind": '"refuses"', "stage": None, "error": None}


def entry(**changes):
    """An entry in TOML; None leaves a key out."""
    fields = {key: value for key, value in {**ENTRY, **changes}.items() if value is not None}
    return "\n[[deviation]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items())


@pytest.fixture
def read(tmp_path):
    """A function that reads a ledger of these texts."""

    def make(*texts, top="version = 1\n"):
        path = tmp_path / "conformance.toml"
        path.write_text(top + "".join(texts), encoding="utf-8")
        return ledger.read(path, CASES)

    return make


def result(name="conv.one[float32]", **fields):
    case_id, _, precision = name.removesuffix("]").partition("[")
    [case] = [case for case in CASES if case.id == case_id]
    known = {"claim": case.claim, "level": case.level, "features": tuple(sorted(case.features))}
    return CaseResult.model_validate({"id": case_id, "precision": precision, "outcome": "failed", **known, **fields})


WRONG = {"stage": "compare", "units": 5000.0, "message": "output[0] is 2; expected 1"}
REFUSED = {
    "stage": "refuse",
    "error": "UnsupportedModel",
    "feature": "conv2d",
    "message": "layers[0] needs conv2d: no kernel",
}


# --------------------------------------------------------------------------------------------------- what it may say


def test_a_plugin_without_a_ledger_has_nothing_to_say_and_no_problem():
    found = ledger.read(None, CASES)
    assert (found.level, found.deviations, found.problems) == (None, (), ())
    assert found.apply(result(**WRONG)) == (result(**WRONG), "")


def test_a_right_ledger_has_no_problems(read):
    found = read(
        entry(),
        entry(case=None, feature='"optimizer.adamw"', **REFUSAL),
        entry(case=None, feature='"precision.float64"', **REFUSAL),
        entry(case='"conv.two[float64]"', stage='"run"', error='"ValueError"'),
        top='version = 1\nlevel = "training"\n',
    )
    assert found.problems == ()
    assert found.level == "training"
    assert [deviation.subject for deviation in found.deviations] == [
        "conv.one[float32]",
        "feature optimizer.adamw",
        "feature precision.float64",
        "conv.two[float64]",
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"case": '"conv.one"'},
            r"conv\.one: the suite has no such case, and a precision belongs to its name\. Correct",
        ),
        ({"case": '"conv.*[float32]"'}, r"conv\.\*\[float32\]: the suite has no such case"),
        ({"case": None, "feature": '"conv3d"', **REFUSAL}, r"feature conv3d: the suite has no such feature\."),
        ({"case": None}, r"entry 1: it needs either case or feature\. Correct the entry\."),
        ({"feature": '"conv2d"'}, r"entry 1, conv.one\[float32\]: it needs either case or feature"),
        ({"case": None, "feature": '"conv2d"'}, r'entry 1, conv2d: kind = "fails" needs case, stage and error'),
        ({"stage": None}, r'kind = "fails" needs case, stage and error'),
        ({"error": None}, r'kind = "fails" needs case, stage and error'),
        ({"stage": '"run"'}, r"the class of the exception elsewhere"),
        ({"error": "nan"}, r"error is a number of units, 0 or more"),
        ({"error": "-3.0"}, r"error is a number of units, 0 or more"),
        ({"error": "true"}, r"entry 1, conv.one\[float32\]: error input should be a valid number"),
        ({"stage": '"later"'}, r"stage input should be 'load', 'refuse',"),
        ({"kind": '"skip"'}, r"kind input should be 'fails' or 'refuses'"),
        ({"kind": '"refuses"', "error": None}, r'kind = "refuses" has the stage refuse, or none'),
        ({"expiry": '"2999-12-31"'}, r"expiry input should be a valid date"),
        ({"expiry": None}, r"expiry field required"),
        ({"expiry": "2020-01-01"}, r"conv.one\[float32\]: it expired on 2020-01-01\. Repair the backend"),
        ({"reason": '" "'}, r"conv.one\[float32\]: it has no reason\. Write in `reason`"),
        ({"reason": None}, r"entry 1, conv.one\[float32\]: reason field required"),
        ({"issue": '""'}, r"its issue is '', which is no URL\. Write in `issue`"),
        ({"issue": '"see chat"'}, r"its issue is 'see chat', which is no URL"),
        ({"issue": '"ftp://example.org/1"'}, r"which is no URL"),
        ({"patter": '"x"'}, r"entry 1, conv.one\[float32\]: patter is no key of an entry\. Correct the entry\."),
    ],
)
def test_what_is_wrong_in_an_entry_is_one_sentence_with_file_entry_and_fix(read, changes, says):
    [problem] = read(entry(**changes)).problems
    assert problem.startswith(f"{read(entry()).path}: ")
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(problem)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"version is None; expected 1\. Write version = 1 at the top\.$"),
        ("version = 2\n", r"version is 2; expected 1"),
        ("version = true\n", r"version is True; expected 1"),
        ("version = 1.0\n", r"version is 1\.0; expected 1"),
        (f"version = 1\nx = {'[' * 5000}\n", r"cannot be read: .*Repair the file"),
        ("version = 1\nlevel = 'some'\n", r'level is \'some\'; expected "inference" or "training"'),
        ("version = 1\nexpected = []\n", r"unknown key expected\. Remove it"),
        ("version = 1\n[deviation]\n", r"Write each as \[\[deviation\]\]"),
        ("version = 1\ndeviation = [3]\n", r"entry 1: input should be a valid dictionary"),
        ("version =\n", r"cannot be read: Invalid value .*Repair the file"),
        ("version = 1\nversion = 1\n", r"cannot be read: Cannot overwrite a value"),
    ],
)
def test_what_is_wrong_with_the_file_is_a_problem(read, text, says):
    [problem] = read(top=text).problems
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(problem)


def test_a_file_that_is_no_text_or_not_there_is_a_problem(tmp_path):
    path = tmp_path / "conformance.toml"
    assert "there is none. Create it with the line: version = 1." in ledger.read(path, CASES).problems[0]
    path.write_bytes(b"\xff\xfe")
    assert "it cannot be read: " in ledger.read(path, CASES).problems[0]
    with path.open("wb") as file:
        file.truncate(20_000_000)
    assert "it has 20,000,000 bytes, and a ledger at most 10,000,000" in ledger.read(path, CASES).problems[0]


def test_a_folder_or_what_never_ends_is_no_ledger(tmp_path):
    endless = tmp_path / "pipe"
    if hasattr(os, "mkfifo"):
        os.mkfifo(endless)
    else:
        endless.mkdir()
    for path in (tmp_path, endless):
        found = ledger.read(path, CASES)
        assert found.problems == (f"{path}: it cannot be read: it is no regular file. Repair the file.",)
        assert found.damaged


def test_a_case_without_a_name_is_not_taken_for_a_feature(read):
    assert "a case without a name: the suite has no such case" in read(entry(case='""')).problems[0]


def test_two_entries_for_one_case_are_a_problem_and_so_are_two_for_one_feature(read):
    adamw = entry(case=None, feature='"optimizer.adamw"', **REFUSAL)
    assert [problem.partition(".toml: ")[2] for problem in read(entry(), entry(), adamw, adamw).problems] == [
        "conv.one[float32]: it is listed twice. Remove one of the entries.",
        "feature optimizer.adamw: it is listed twice. Remove one of the entries.",
    ]


def test_one_bad_entry_leaves_the_others_in_force(read):
    found = read(entry(oops="1"), entry(case='"conv.one[float64]"'))
    assert [deviation.case for deviation in found.deviations] == ["conv.one[float64]"]


# ---------------------------------------------------------------------------------------------- what becomes of results


def test_a_failure_as_the_ledger_says_deviates_with_the_words_of_the_ledger(read):
    found, problem = read(entry()).apply(result(**WRONG))
    assert problem == ""
    assert (found.outcome, found.reason, found.issue) == ("deviates", "The engine adds one", "https://example.org/1")
    assert (found.expiry, found.message, found.units) == (date(2999, 12, 31), WRONG["message"], 5000.0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"outcome": "passed"}, "it passes. Remove the entry."),
        (WRONG | {"units": 10401.0}, "its error is 10,401 units, more than twice the 5,200 of the entry."),
        (WRONG | {"units": float("inf")}, "its error is inf units, more than twice the 5,200 of the entry."),
        ({"stage": "run", "error": "ValueError"}, "it fails at the stage run, not compare."),
        ({"stage": "crash", "error": "SIGSEGV"}, "it fails at the stage crash, not compare."),
        ({"stage": "refuse", "outcome": "refused"}, 'it is refused, and no longer fails. Write kind = "refuses".'),
    ],
)
def test_a_deviation_that_does_something_else_is_a_problem_and_stays_what_it_is(read, fields, says):
    found, problem = read(entry()).apply(result(**fields))
    assert found == result(**fields)
    assert f"conformance.toml: conv.one[float32]: {says}"[:-1] in problem


def test_up_to_twice_the_error_is_the_same_deviation_and_so_is_less(read):
    for units in (10400.0, 130.0):
        assert read(entry()).apply(result(**WRONG | {"units": units}))[0].outcome == "deviates"


def test_an_entry_with_a_small_number_holds_up_to_twice_the_threshold(read):
    found = read(entry(error="0.0"))
    assert found.apply(result(**WRONG | {"units": 255.0}))[0].outcome == "deviates"
    assert found.apply(result(**WRONG | {"units": 257.0}))[0].outcome == "failed"


def test_a_number_excuses_nothing_that_has_no_size(read):
    """An entry for an error of rounding must not hide an answer of the wrong shape."""
    kept, problem = read(entry()).apply(result(**WRONG | {"units": None}))
    assert kept.outcome == "failed"
    assert "it fails with unmeasured, not with an error of a number of units. Repair the backend" in problem
    kept, problem = read(entry()).apply(result(**WRONG | {"units": None, "error": "TypeError"}))
    assert kept.outcome == "failed"
    assert "it fails with TypeError, not with an error" in problem


def test_what_has_no_size_has_an_entry_of_its_own(read):
    found = read(entry(error='"unmeasured"'))
    assert found.problems == ()
    assert found.apply(result(**WRONG | {"units": None}))[0].outcome == "deviates"
    kept, problem = found.apply(result(**WRONG))
    assert kept.outcome == "failed"
    assert "it fails with an error of 5,000 units, not unmeasured." in problem


def test_an_infinite_error_may_be_expected(read):
    found = read(entry(error="inf"))
    assert found.problems == ()
    assert found.apply(result(**WRONG | {"units": float("inf")}))[0].outcome == "deviates"


def test_another_class_of_exception_is_another_failure(read):
    found = read(entry(stage='"run"', error='"ValueError"'))
    assert found.apply(result(stage="run", error="ValueError"))[0].outcome == "deviates"
    kept, problem = found.apply(result(stage="run", error="KeyError"))
    assert kept.outcome == "failed"
    assert "it fails with KeyError, not ValueError. Repair the backend" in problem


def test_an_entry_is_for_one_precision(read):
    other = result("conv.one[float64]", **WRONG)
    assert read(entry()).apply(other) == (other, "")


def test_an_expired_entry_excuses_nothing(read):
    for found in (read(entry(expiry="2020-01-01")), read(entry(expiry="2020-01-01", **REFUSAL))):
        kept, _ = found.apply(result(**(REFUSED if "refuses" in str(found.deviations) else WRONG)))
        assert kept.outcome == "failed"


def test_an_entry_holds_on_its_last_day(read):
    assert read(entry(expiry=TODAY.isoformat())).problems == ()
    assert len(read(entry(expiry=(TODAY - timedelta(days=1)).isoformat())).problems) == 1


@pytest.mark.parametrize(
    "changes", [REFUSAL, {"case": None, "feature": '"conv2d"', **REFUSAL}], ids=["by case", "by feature"]
)
def test_a_refusal_that_the_ledger_lists_is_declared(read, changes):
    found, problem = read(entry(**changes)).apply(result(**REFUSED))
    assert (found.outcome, found.reason, problem) == ("refused", "The engine adds one", "")


def test_a_refusal_of_a_case_is_not_one_of_its_features_nor_the_other_way_round(read):
    adamw = read(entry(case=None, feature='"optimizer.adamw"', **REFUSAL))
    of_adamw = REFUSED | {"feature": "optimizer.adamw"}
    assert adamw.apply(result(**of_adamw))[0].outcome == "failed"
    assert adamw.apply(result("conv.two[float32]", **of_adamw))[0].outcome == "refused"


def test_an_entry_for_a_feature_excuses_no_refusal_of_another_one(read):
    """A backend must not get out of everything that trains with AdamW by a word about AdamW."""
    adamw = read(entry(case=None, feature='"optimizer.adamw"', **REFUSAL))
    for feature in ("conv2d", "AdamW", ""):
        kept, problem = adamw.apply(result("conv.two[float32]", **REFUSED | {"feature": feature}))
        assert (kept.outcome, problem) == ("failed", "")
        assert kept.message.endswith(
            "The ledger's entry for optimizer.adamw excuses only refusals of the feature 'optimizer.adamw', by this "
            "very name"
        )


@pytest.mark.parametrize(
    "changes",
    [{"case": '"conv.two[float32]"'}, {"case": None, "feature": '"optimizer.adamw"'}],
    ids=["case", "feature"],
)
def test_a_backend_that_does_not_train_has_refused_no_model(read, changes):
    failed = result("conv.two[float32]", stage="refuse", error="TrainingNotSupported", feature="optimizer.adamw")
    assert read(entry(**REFUSAL | changes)).apply(failed)[0].outcome == "failed"


def test_an_entry_that_refuses_does_not_excuse_a_wrong_answer(read):
    for changes in (REFUSAL, {"case": None, "feature": '"conv2d"', **REFUSAL}):
        assert read(entry(**changes)).apply(result(**WRONG))[0].outcome == "failed"


def test_a_case_that_is_said_to_be_refused_and_is_not_is_a_problem(read):
    assert "it passes. Remove the entry." in read(entry(**REFUSAL)).apply(result(outcome="passed"))[1]
    assert "it is not refused: it fails at the stage compare." in read(entry(**REFUSAL)).apply(result(**WRONG))[1]


def test_a_backend_that_cannot_be_created_is_excused_by_its_precision_alone(read):
    failed = result(
        "conv.one[float64]", stage="load", error="BackendOptionError", features=("conv2d", "precision.float64")
    )
    by_precision = read(entry(case=None, feature='"precision.float64"', **REFUSAL))
    assert by_precision.apply(failed)[0].outcome == "refused"
    assert read(entry(case=None, feature='"conv2d"', **REFUSAL)).apply(failed)[0].outcome == "failed"
    crashed = failed.model_copy(update={"error": "SIGSEGV"})
    assert by_precision.apply(crashed)[0].outcome == "failed"


ALL = [f"conv.{name}[{precision}]" for name in ("one", "two") for precision in ("float32", "float64")]


@pytest.mark.parametrize("instead", [{"outcome": "passed"}, WRONG, REFUSED | {"feature": "convolution"}])
def test_a_feature_that_nothing_was_refused_for_is_a_problem(read, instead):
    found = read(entry(case=None, feature='"conv2d"', **REFUSAL))
    others = [result(name, outcome="passed") for name in ALL[1:]]
    [problem] = found.unused_features([result(ALL[0], **instead), *others], CASES)
    assert problem.endswith("feature conv2d: no case that needs it was refused for it. Remove the entry.")
    assert found.unused_features([result(ALL[0], **REFUSED), *others], CASES) == []


def test_what_was_not_tried_is_not_unused(read):
    found = read(entry(case=None, feature='"conv2d"', **REFUSAL))
    passed = [result(name, outcome="passed") for name in ALL]
    assert found.unused_features([*passed[:3], result(ALL[3], outcome="not-run")], CASES) == []
    assert found.unused_features([one for one in passed if one.precision == "float32"], CASES) == []
    claims_less = read(entry(case=None, feature='"conv2d"', **REFUSAL), top='version = 1\nlevel = "inference"\n')
    assert len(claims_less.unused_features(passed[:2], CASES)) == 1


def test_a_ledger_that_claims_inference_says_nothing_of_training(read):
    top = 'version = 1\nlevel = "inference"\n'
    [problem] = read(entry(case='"conv.two[float32]"'), top=top).problems
    assert problem.endswith(
        'conv.two[float32]: the level "inference", which the ledger claims, does not have this case. Remove the entry.'
    )
    [problem] = read(entry(case=None, feature='"optimizer.adamw"', **REFUSAL), top=top).problems
    assert problem.endswith(
        'feature optimizer.adamw: no case of the level "inference", which the ledger claims, needs it. Remove the entry.'
    )


# ----------------------------------------------------------------------------------------------------------- updating


def rewritten(found, *results):
    """What an update with these results, taken as the ledger takes them, changes and what the file says then."""
    changes = ledger.update(found, [found.apply(one)[0] for one in results], CASES)
    return changes, tomllib.loads(found.path.read_text(encoding="utf-8"))


def test_an_update_keeps_the_words_of_what_is_as_it_was(read):
    found = read(entry(), entry(case='"conv.one[float64]"'), top='version = 1\nlevel = "inference"\n')
    before = tomllib.loads(found.path.read_text(encoding="utf-8"))
    changes, after = rewritten(found, result(**WRONG))
    assert changes == []
    assert after == before


def test_an_update_drops_what_passes_and_what_does_not_exist(read):
    found = read(entry(), entry(case='"conv.nine[float32]"'), entry(case=None, feature='"conv2d"', **REFUSAL))
    changes, after = rewritten(found, *(result(name, outcome="passed") for name in ALL))
    assert after == {"version": 1}
    assert changes == [
        "dropped conv.one[float32]: it passes",
        "dropped conv.nine[float32]: the suite has no such case",
        "dropped feature conv2d: no case was refused for it",
    ]


def test_an_update_adds_what_fails_without_a_reason_so_that_the_run_stays_red(read):
    found = read()
    changes, after = rewritten(
        found,
        result(**WRONG | {"units": 5234.56}),
        result("conv.one[float64]", **REFUSED),
        result("conv.two[float32]", stage="crash", error="SIGSEGV"),
        result("conv.two[float64]", **WRONG | {"units": None}),
    )
    new = {"reason": "", "issue": "", "expiry": TODAY + timedelta(days=90)}
    assert after["deviation"] == [
        {"case": "conv.one[float32]", "kind": "fails", "stage": "compare", "error": 5235.0, **new},
        {"case": "conv.one[float64]", "kind": "refuses", "stage": "refuse", "error": "UnsupportedModel", **new},
        {"case": "conv.two[float32]", "kind": "fails", "stage": "crash", "error": "SIGSEGV", **new},
        {"case": "conv.two[float64]", "kind": "fails", "stage": "compare", "error": "unmeasured", **new},
    ]
    assert len(changes) == 4
    again = ledger.read(found.path, CASES)
    assert len(again.deviations) == 4
    assert sum("it has no reason" in problem for problem in again.problems) == 4
    assert sum("which is no URL" in problem for problem in again.problems) == 4


def test_a_failure_of_another_kind_takes_the_reason_away(read):
    changes, after = rewritten(read(entry()), result(stage="run", error="ValueError"))
    assert [change.partition(":")[0] for change in changes] == ["dropped conv.one[float32]", "added conv.one[float32]"]
    assert (after["deviation"][0]["stage"], after["deviation"][0]["reason"]) == ("run", "")


def test_an_update_leaves_the_date_of_an_expired_entry_to_somebody(read):
    changes, after = rewritten(read(entry(expiry="2020-01-01")), result(**WRONG))
    assert (changes, len(after["deviation"])) == ([], 1)
    assert after["deviation"][0]["expiry"] == date(2020, 1, 1)
    assert after["deviation"][0]["reason"] == "The engine adds one"


def test_an_update_writes_an_infinite_error_that_it_can_read(read):
    found = read()
    rewritten(found, result(**WRONG | {"units": float("inf")}))
    assert ledger.read(found.path, CASES).deviations[0].error == float("inf")


@pytest.mark.parametrize("fields", [{"stage": "load"}, {"stage": "refuse", "error": "TrainingNotSupported"}])
def test_what_was_not_to_be_had_is_no_deviation(read, fields):
    changes, after = rewritten(read(), result(**fields))
    assert (changes, after) == ([], {"version": 1})


def test_there_must_be_a_ledger_to_update_and_nothing_in_it_may_get_lost(read):
    with pytest.raises(
        OptionError, match=r"'mine' has no ledger to update\. Add this hook(.|\n)*def cnnkit_deviations"
    ):
        ledger.require_writable("mine", ledger.read(None, CASES))
    with pytest.raises(OptionError, match=r"would be lost\. .*oops is no key of an entry"):
        ledger.require_writable("mine", read(entry(oops="1")))
    ledger.require_writable("mine", read(entry(expiry="2020-01-01")))


def test_a_ledger_in_which_nothing_changes_keeps_the_comments_of_its_author(read):
    found = read(entry(), "# a note to ourselves\n")
    assert rewritten(found, result(**WRONG))[0] == []
    assert found.path.read_text(encoding="utf-8").endswith("# a note to ourselves\n")


def test_a_ledger_that_is_not_there_yet_is_made(tmp_path):
    found = ledger.read(tmp_path / "conformance.toml", CASES)
    ledger.require_writable("mine", found)
    rewritten(found, result(outcome="passed"))
    assert ledger.read(found.path, CASES).problems == ()
