"""The oracle gives the answers worked out by hand, to the last digits of float64."""

import pytest

from cnnkit.conformance.catalogue.literals import LITERALS
from cnnkit.conformance.question import expected_answer


@pytest.mark.parametrize("literal", LITERALS, ids=lambda literal: literal.id)
def test_the_oracle_agrees_with_the_answer_worked_out_by_hand(literal):
    found = expected_answer(literal.question("float64")).numbers
    right = literal.expected()
    assert found.keys() == right.keys()
    for what, numbers in right.items():
        assert found[what].shape == numbers.shape, what
        assert found[what].value == pytest.approx(numbers.value, rel=1e-14, abs=1e-13), what
