"""The suite as the tests of a plugin's own repository: `cases` and `check`, under pytest and without it."""

import contextlib
import os
import subprocess
import sys
import textwrap
from unittest import SkipTest

import pytest

from cnnkit.conformance import BoundCase, ConformanceFailure, cases, check, suite
from cnnkit.conformance.measure import CaseFault
from cnnkit.conformance.planning import plan_cases
from cnnkit.conformance.selection import suite_cases
from cnnkit.errors import BackendNotFound, OptionError

SQUARE, WIDE = "dense.forward.square", "dense.forward.wide"

FOUR_LINES = """
import pytest
from cnnkit.conformance import cases, check

@pytest.mark.parametrize("case", cases("{name}"), ids=str)
def test_conformance(case):
    check(case)
"""


@pytest.fixture(autouse=True)
def _plugins(plugin_folder, on_path):
    on_path(plugin_folder)
    yield
    for cache in (suite._ledger, suite._backend, suite._plugin):
        cache.cache_clear()
    suite._RECORDED.clear()


def find(name, case_id, **how):
    """The one case whose name is `case_id`."""
    [found] = [case for case in cases(name, **how) if str(case) == case_id]
    return found


def run_pytest(path, plugin_folder, name, *cases):
    """Run the four lines, on the cases of these names only."""
    (path / "test_mine.py").write_text(FOUR_LINES.format(name=name))
    search = os.pathsep.join([str(plugin_folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    wanted = [f"test_mine.py::test_conformance[{case}]" for case in cases]
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *wanted]
    return subprocess.run(
        command, cwd=path, env=os.environ | {"PYTHONPATH": search}, capture_output=True, text=True, check=False
    )


# ------------------------------------------------------------------------------------------------------ what there is


def test_there_is_a_case_for_each_precision_and_two_about_the_whole_run_at_the_end():
    found = cases("loopback")
    names = [str(case) for case in found]
    wanted = [f"{case.id}[{p}]" for p in ("float32", "float64") for case in suite_cases() if p in case.precisions]
    assert names == [*wanted, "suite.ledger", "suite.enough-ran"]
    assert all(isinstance(case, BoundCase) for case in found)


def test_the_level_is_what_the_ledger_claims_unless_another_is_asked_for():
    levels = {case.case.level for case in cases("inference-only", precisions=["float32"])}
    assert levels == {"inference"}
    assert {case.case.level for case in cases("inference-only", "training")} == {"inference", "training"}


def test_neither_pytest_nor_an_engine_is_imported(plugin_folder):
    code = textwrap.dedent("""
        import sys
        import cnnkit.conformance
        found = cnnkit.conformance.cases("loopback")
        cnnkit.conformance.check(found[0]) if "check" in sys.argv else None
        cnnkit.conformance.run
        print(*sorted({"pytest", "_pytest", "cnnkit_numpy"} & set(sys.modules)))
    """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(plugin_folder), os.environ.get("PYTHONPATH", "")])}

    def imported(*arguments):
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert imported() == []
    assert imported("check") == ["cnnkit_numpy"]


def test_wrong_use_is_an_error_when_the_tests_are_collected():
    with pytest.raises(BackendNotFound, match="No backend is called 'loopbach'"):
        cases("loopbach")
    with pytest.raises(OptionError, match="level is 'all'"):
        cases("loopback", "all")


# ----------------------------------------------------------------------------------------------------------- one case


def test_a_case_that_passes_returns():
    check(find("loopback", "dense.forward.square[float32]"))


def test_a_failure_says_claim_stage_finding_units_and_how_to_replay():
    with pytest.raises(AssertionError) as failure:
        check(find("null", "dense.forward.square[float32]", threads=2))
    assert type(failure.value) is ConformanceFailure
    lines = str(failure.value).splitlines()
    assert lines[0] == "backend 'null' does not conform: dense.forward.square[float32]"
    assert lines[1] == "  claim   A dense layer from 5 features to 5 units is x @ kernel + bias"
    assert lines[2] == "  stage   compare (the answer is not right)"
    assert lines[3].startswith("  found   output[")
    assert " is 0; expected " in lines[3]
    assert lines[4].startswith("  units   1 unit is what rounding alone would do, in float32; up to 128 are right, ")
    assert lines[5] == (
        "  replay  cnnkit conformance null --only dense.forward.square --precision float32 --set threads=2"
    )


def test_an_exception_comes_with_its_traceback():
    with pytest.raises(
        ConformanceFailure, match=r"ZeroDivisionError: four is too many\n(.|\n)*Traceback(.|\n)*_crashing"
    ):
        check(find("crashing", "dense.forward.one-feature[float32]"))


def test_a_deviation_that_the_ledger_admits_is_skipped_with_its_reason():
    with pytest.raises(
        SkipTest, match=r"fails, as the ledger says: The engine forgets .* https://example.org/deviating"
    ):
        check(find("deviating", "dense.forward.wide[float64]"))


def test_a_declared_refusal_is_skipped_with_its_reason():
    with pytest.raises(SkipTest, match=r"refused, as said beforehand: precision\.float64: the hardware has none"):
        check(find("declared", "dense.forward.wide[float64]"))


def test_a_deviation_that_passes_is_a_failure(tmp_path, monkeypatch):
    text = (
        'version = 1\n[[deviation]]\ncase = "dense.forward.square[float32]"\nkind = "fails"\nstage = "compare"\n'
        'error = 3e5\nreason = "r"\nissue = "https://example.org/1"\nexpiry = 2999-01-01\n'
    )
    path = tmp_path / "conformance.toml"
    path.write_text(text)
    monkeypatch.setenv("DEVIATING_LEDGER", str(path))
    with pytest.raises(ConformanceFailure, match=r"square\[float32\]: it passes\. Remove the entry\."):
        check(find("deviating", "dense.forward.square[float32]"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken-import", "the engine is not set up"),
        ("missing-dependency", "cnnkit_engine_that_nobody_has"),
        ("no-device", "finds no abacus. Plug in an abacus."),
        ("null-create", "its cnnkit_create_backend returned None"),
        ("duplicate", "is registered by cnnkit-duplicate-a"),
    ],
)
def test_a_backend_that_cannot_be_had_fails_every_case_at_load_and_nothing_else(name, says):
    found = cases(name)
    assert len(found) == len(cases("loopback"))
    with pytest.raises(ConformanceFailure, match=r"stage   load \(the backend was not to be had\)") as failure:
        check(found[0])
    assert says in str(failure.value)


def test_a_backend_is_made_once_for_all_cases_of_a_precision():
    for name in ("square", "wide", "deep"):
        check(find("loopback", f"dense.forward.{name}[float32]"))
    assert suite._backend.cache_info().misses == 1


def test_a_case_that_proves_nothing_says_that_the_suite_is_at_fault(monkeypatch):
    def judge(*_):
        raise CaseFault("no seed will do")

    monkeypatch.setattr(suite, "judge", judge)
    says = r"^dense.forward.square\[float32\]: the suite itself is at fault, not backend 'loopback': no seed will do$"
    with pytest.raises(CaseFault, match=says):
        check(find("loopback", "dense.forward.square[float32]"))


# ------------------------------------------------------------------------------------------------------ the whole run


def test_the_ledger_is_a_case_of_its_own(tmp_path, monkeypatch):
    check(find("deviating", "suite.ledger"))
    check(find("loopback", "suite.ledger"))
    suite._ledger.cache_clear()
    path = tmp_path / "conformance.toml"
    path.write_text("version = 1\nskip = ['everything']\n")
    monkeypatch.setenv("DEVIATING_LEDGER", str(path))
    with pytest.raises(ConformanceFailure, match=r"conformance\.toml: it has the unknown key skip\. Remove it\."):
        check(find("deviating", "suite.ledger"))


def test_a_feature_that_the_ledger_refuses_and_the_backend_does_not_is_found_when_all_was_tried(tmp_path, monkeypatch):
    path = tmp_path / "conformance.toml"
    path.write_text(
        'version = 1\n[[deviation]]\nfeature = "conv2d.dilation"\nkind = "refuses"\n'
        'reason = "r"\nissue = "https://example.org/1"\nexpiry = 2999-01-01\n'
    )
    monkeypatch.setenv("DEVIATING_LEDGER", str(path))
    monkeypatch.setattr(suite, "suite_cases", lambda: few)
    monkeypatch.setattr(suite, "cases_of", lambda tier: few)  # noqa: ARG005 - of either tier
    few = [case for case in suite_cases() if "conv2d.dilation" in case.features and case.level == "inference"][:2]
    found = cases("deviating")
    check(found[0])
    check(found[-2])
    for case in found[:-2]:
        check(case)
    with pytest.raises(
        ConformanceFailure, match=r"feature conv2d\.dilation: no case that needs it was refused for it\."
    ):
        check(found[-2])


def test_enough_is_left_to_run_where_nothing_is_refused():
    check(find("loopback", "suite.enough-ran", level="inference", precisions=["float32"]))


def test_too_little_is_left_to_run_where_the_ledger_refuses_what_is_essential(tmp_path, monkeypatch):
    path = tmp_path / "conformance.toml"
    path.write_text(
        'version = 1\n[[deviation]]\nfeature = "pool.max"\nkind = "refuses"\n'
        'reason = "r"\nissue = "https://example.org/1"\nexpiry = 2999-01-01\n'
    )
    monkeypatch.setenv("DEVIATING_LEDGER", str(path))
    check(find("deviating", "suite.ledger"))
    with pytest.raises(ConformanceFailure, match=r"Too little ran: no case passed that needs pool\.max\."):
        check(find("deviating", "suite.enough-ran", level="inference", precisions=["float32"]))


def test_too_little_is_left_to_run_where_the_plugin_refuses_too_much():
    with pytest.raises(ConformanceFailure, match=r"Too little ran: \d+ of \d+ inference cases passed in float64"):
        check(find("declared", "suite.enough-ran", level="inference", precisions=["float64"]))


def test_nothing_ran_where_there_is_no_backend():
    with pytest.raises(ConformanceFailure, match=r"nothing ran in float32: .*the engine is not set up"):
        check(find("broken-import", "suite.enough-ran"))


def test_a_backend_that_only_predicts_is_told_what_to_say():
    [case] = [case for case in cases("inference-only", "training") if str(case) == "dense.gradient.sandwich[float32]"]
    with pytest.raises(
        ConformanceFailure, match=r'advice  Judge it with --level inference, or write level = "inference"'
    ):
        check(case)


def test_what_has_failed_in_this_process_does_not_count_as_passed():
    whole_run = find("null", "suite.enough-ran", level="inference", precisions=["float32"])
    check(whole_run)  # nothing was tried yet, and nothing is refused
    for case in cases("null", "inference", ["float32"])[:-2]:
        with contextlib.suppress(ConformanceFailure):
            check(case)
    with pytest.raises(
        ConformanceFailure, match=r"Too little ran: \d+ of \d+ inference cases passed in float32; at least"
    ):
        check(whole_run)


# ------------------------------------------------------------------------------------------------------- under pytest


def test_four_lines_are_a_test_suite(tmp_path, plugin_folder):
    done = run_pytest(tmp_path, plugin_folder, "deviating", f"{WIDE}[float32]", f"{SQUARE}[float64]", "suite.ledger")
    assert done.returncode == 0, done.stdout
    assert "2 passed, 1 skipped" in done.stdout
    assert "fails, as the ledger says: The engine forgets the bias of a layer with 17 units" in done.stdout


def test_a_failure_under_pytest_is_the_message_and_not_the_insides_of_the_suite(tmp_path, plugin_folder):
    done = run_pytest(tmp_path, plugin_folder, "null", f"{SQUARE}[float32]")
    assert done.returncode == 1
    assert "backend 'null' does not conform: dense.forward.square[float32]" in done.stdout
    assert "def check" not in done.stdout


def test_a_backend_that_cannot_be_loaded_is_collected_all_the_same(tmp_path, plugin_folder):
    done = run_pytest(tmp_path, plugin_folder, "broken-import", f"{SQUARE}[float64]")
    assert "1 failed" in done.stdout
    assert "the engine is not set up" in done.stdout


# ------------------------------------------------------------------------------------------------------------- tier plan


def test_the_tier_plan_is_a_test_suite_too():
    found = cases("planned", precisions=["float32"], tier="plan")
    assert [str(case) for case in found] == [
        *(f"{case.id}[float32]" for case in plan_cases()),
        "suite.ledger",
        "suite.enough-ran",
    ]
    dilated = {f"{case.id}[float32]" for case in plan_cases() if "conv2d.dilation" in case.features}
    for case in found:
        if str(case) in dilated:
            with pytest.raises(SkipTest, match=r"refused, as said beforehand: .*conv2d\.dilation"):
                check(case)
        else:
            check(case)


def test_a_plan_that_fails_is_repeated_in_the_tier_plan():
    with pytest.raises(ConformanceFailure, match="has no hook cnnkit_rehearse") as failure:
        check(find("no-device", "create.options[float32]", tier="plan"))
    command = "cnnkit conformance no-device --only create.options --precision float32 --tier plan"
    assert f"  replay  {command}" in str(failure.value).splitlines()


def test_a_plugin_that_cannot_be_loaded_has_no_plan():
    with pytest.raises(ConformanceFailure, match=r"stage   load (.|\n)*the engine is not set up"):
        check(find("broken-import", "probe.listed[float32]", tier="plan"))


def test_too_little_is_planned_where_there_is_neither_hook_nor_device():
    whole_run = find("no-device", "suite.enough-ran", precisions=["float32"], tier="plan")
    with pytest.raises(ConformanceFailure, match=r"Too little ran: 6 of \d+ inference cases passed in float32"):
        check(whole_run)
    check(find("planned", "suite.enough-ran", precisions=["float32"], tier="plan"))


def test_a_tier_that_there_is_not_is_an_error_when_the_tests_are_collected():
    with pytest.raises(OptionError, match="tier is 'dream'"):
        cases("loopback", tier="dream")
