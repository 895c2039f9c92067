"""The suite on trial: every broken backend turns red at the cases meant for it, and the one it is made from passes all."""

import pytest
from mutants import MUTANTS, TOO_LITTLE_RAN
from mutants.matrix import GROUPS, PAGE, staleness
from mutants.right import right
from mutants.trying import is_meant, reasons, remembering, verdict_on

from cnnkit.conformance.catalogue import all_cases
from cnnkit.conformance.judging import judge
from cnnkit.conformance.subject import Subject

BY_CASE = [mutant for mutant in MUTANTS if TOO_LITTLE_RAN not in mutant.meant]
AS_A_WHOLE = [mutant for mutant in MUTANTS if TOO_LITTLE_RAN in mutant.meant]


@pytest.fixture(scope="module", autouse=True)
def _each_question_once():
    with remembering():
        yield


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_backend_that_mutants_are_made_from_passes_every_case(precision):
    tried = [(case, judge(case, right(precision), precision)) for case in all_cases() if precision in case.precisions]
    assert [(case.id, verdict.message) for case, verdict in tried if verdict.outcome != "passed"] == []


def test_no_case_claims_a_feature_that_it_does_not_ask_for():
    """A backend that refuses the feature would pass it, and seem to have what it lacks."""
    claimed_only = {}
    for case in all_cases():
        subject = Subject(right("float32"), "float32")
        case.body(subject)
        claimed_only[case.id] = case.features - subject.features - {"training"}
    assert {name: features for name, features in claimed_only.items() if features} == {}


@pytest.mark.parametrize("mutant", BY_CASE, ids=str)
def test_a_mutant_turns_every_case_red_that_is_meant_for_it(mutant):
    meant = [case for case in all_cases() if is_meant(mutant, case.id) and mutant.precision in case.precisions]
    assert meant, f"no case is called {mutant.meant}"
    assert [case.id for case in meant if verdict_on(mutant, case).outcome != "failed"] == []


@pytest.mark.parametrize("mutant", AS_A_WHOLE, ids=str)
def test_a_run_that_refuses_what_is_essential_is_red_though_no_case_fails(mutant):
    tried = [(case, verdict_on(mutant, case)) for case in all_cases() if mutant.precision in case.precisions]
    assert {verdict.outcome for _, verdict in tried} <= {"passed", "refused"}
    assert "Too little ran" in " ".join(reasons(mutant, tried))


def test_mutants_are_called_apart():
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 60
    assert {mutant.group for mutant in MUTANTS} == set(GROUPS)


def test_the_kill_matrix_lists_the_mutants_that_there_are():
    assert staleness(PAGE.read_text(encoding="utf-8")) == [], "run: python tests/conformance/mutants/matrix.py"


def test_no_mutant_of_the_kill_matrix_survives():
    page = PAGE.read_text(encoding="utf-8")
    assert "SURVIVED" not in page
    assert "not meant" not in page
