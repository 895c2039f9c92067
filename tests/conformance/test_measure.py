"""What an error in units is, and what a mismatch says."""

import numpy as np
import pytest

from cnnkit.conformance.measure import Mismatch, Numbers, compare, errors_in_units, roundoff

NAN, INF = float("nan"), float("inf")


def expecting(value, scale):
    return Numbers(np.asarray(value, np.float64), np.asarray(scale, np.float64))


def test_roundoff_is_half_of_the_step_after_one():
    assert roundoff("float32") == 2**-24
    assert roundoff("float64") == 2**-53


def test_an_error_is_counted_in_roundoffs_of_the_scale():
    answer = np.array([1 + 3 * 2**-20])
    assert errors_in_units(answer, expecting([1.0], [4.0]), "float32")[0] == pytest.approx(3 * 16 / 4)


def test_the_worst_place_is_named_with_what_was_given_and_expected():
    answer = np.array([[1.0, 2.0], [3.0, 4.5]])
    with pytest.raises(Mismatch, match=r"the output\[1, 1\] is 4.5; expected 4 \(.* units, 1 of 4 numbers"):
        compare("the output", answer, expecting([[1, 2], [3, 4]], np.ones((2, 2))), "float32")


@pytest.mark.parametrize(("given", "expected"), [(0.0, NAN), (NAN, 0.0), (INF, -INF), (3.4e38, INF), (INF, 1.0)])
def test_nan_and_infinity_must_stand_where_they_are_expected(given, expected):
    with pytest.raises(Mismatch, match="1 of 1 numbers are wrong"):
        compare("x", np.array([given]), expecting([expected], [1.0]), "float32")


@pytest.mark.parametrize("both", [NAN, INF, -INF])
def test_nan_and_infinity_agree_with_themselves(both):
    assert compare("x", np.array([both]), expecting([both], [NAN]), "float32") == 0


def test_a_shape_that_is_only_broadcastable_is_wrong():
    with pytest.raises(Mismatch, match=r"has shape \(1,\); expected \(3,\)"):
        compare("x", np.ones(1), expecting([1, 1, 1], [1, 1, 1]), "float32")


def test_numbers_below_the_normal_ones_may_be_flushed_to_zero_and_no_others():
    assert compare("x", np.array([0.0]), expecting([1e-40], [1e-40]), "float32") < 1
    with pytest.raises(Mismatch):
        compare("x", np.array([0.0]), expecting([1e-30], [1e-30]), "float32")


def test_a_case_that_would_accept_anything_is_an_error_of_the_suite():
    with pytest.raises(AssertionError, match="the case proves nothing"):
        errors_in_units(np.array([1.0]), expecting([1.0], [INF]), "float32")
