"""What pytest's summary says of tests that need a GPU: how many were not run, in one line, and never that they passed."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def summary():
    """A function: the lines for reports by outcome, each of which is (needs a GPU, for how many tests it stands)."""
    spec = importlib.util.spec_from_file_location("conftest_of_all_tests", TESTS / "conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)

    def lines(**stats):
        written = []

        def report(needs, count):
            properties = [] if count == 1 else [("tests", count)]
            return SimpleNamespace(keywords={"gpu": 1} if needs else {"other": 1}, user_properties=properties)

        given = {outcome: [report(*each) for each in reports] for outcome, reports in stats.items()}
        warnings = {"warnings": [SimpleNamespace(message="no report at all")]}
        conftest.pytest_terminal_summary(SimpleNamespace(stats=given | warnings, write_line=written.append))
        return written

    return lines


def test_without_a_gpu_one_line_counts_all_that_was_not_run(summary):
    reports = [(True, 1), (True, 3420), (False, 1)]
    assert summary(skipped=reports, passed=[(False, 1)]) == [
        "No GPU ran anything here: 3,421 tests that need one were not run."
    ]


def test_with_a_gpu_what_ran_and_what_did_not_are_counted_apart(summary):
    line = "3 tests ran on a GPU: 2 tests that need one were not run."
    assert summary(passed=[(True, 1)] * 2, failed=[(True, 1)], skipped=[(True, 1)] * 2) == [line]


def test_where_nothing_was_left_out_or_nothing_needs_a_gpu_there_is_nothing_to_say(summary):
    assert summary(passed=[(True, 1)], skipped=[(False, 1)]) == []


@pytest.mark.parametrize("how", [[], ["-n", "1"]])
def test_the_line_is_in_the_summary_of_a_whole_run_too(how):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *how, "-k", "all-cases", "gpu"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    if " deselected" in done.stdout and "1 skipped" not in done.stdout:
        pytest.skip("there is a GPU here")
    found = re.findall(
        r"^No GPU ran anything here: ([\d,]+) tests that need one were not run\.$", done.stdout, re.MULTILINE
    )
    assert len(found) == 1, done.stdout
    assert int(found[0].replace(",", "")) > 3000
