"""The table of known divergences and the cases of the suite name each other."""

import re
from pathlib import Path

import pytest

from cnnkit.conformance.catalogue import all_cases

TABLE = (Path(__file__).parents[2] / "docs" / "reference" / "divergences.md").read_text(encoding="utf-8")
ROWS = {
    match[1]: match[2].rsplit("|", 1)[-1].strip() for match in re.finditer(r"^\| V(\d+) \|(.*)\|$", TABLE, re.MULTILINE)
}
IDS = [case.id for case in all_cases()]


def test_the_rows_are_numbered_from_1_to_51():
    assert sorted(map(int, ROWS)) == list(range(1, 52))


@pytest.mark.parametrize("number", ROWS)
def test_a_row_names_cases_that_there_are_or_says_why_there_are_none(number):
    if ROWS[number].startswith("none: "):
        assert not any(name.startswith(f"v{int(number):02}.") for name in IDS)
        return
    begins = re.findall(r"`([^`]+)`", ROWS[number])
    assert begins[0] == f"v{int(number):02}"
    for begin in begins:
        assert any(name.startswith(begin + ".") or name == begin for name in IDS), begin


def test_every_case_that_is_called_after_a_divergence_has_its_row():
    called = {int(match[1]) for name in IDS if (match := re.match(r"v(\d\d)\.", name))}
    assert called <= {int(number) for number in ROWS}
