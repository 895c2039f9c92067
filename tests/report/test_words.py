"""How a report says numbers, and the interval around an accuracy."""

import pytest
from scipy.stats import binomtest

from cnnkit.report import words
from cnnkit.report.results import wilson
from cnnkit.tables import printable


@pytest.mark.parametrize(
    ("value", "said"),
    [(1.0, "100.00 %"), (0.99999, "99.99 %"), (0.0, "0.00 %"), (0.00001, "0.01 %"), (0.97404, "97.40 %")],
)
def test_not_quite_all_is_not_all(value, said):
    assert words.percent(value).replace("\N{NO-BREAK SPACE}", " ") == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.00314159, "0.0031 s"),
        (0.5, "0.50 s"),
        (9.996, "10.00 s"),
        (12.34, "12.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.9, "1 h 0 min"),
        (7260, "2 h 1 min"),
        (None, "\N{EN DASH}"),
    ],
)
def test_times_are_said_in_units_that_fit(value, said):
    assert words.seconds(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(-0.0, "+0.0000"), (0.01234, "+0.0123"), (-0.5, "-0.5000"), (None, "\N{EN DASH}")]
)
def test_a_difference_has_a_sign_and_nought_is_not_negative(value, said):
    assert words.signed(value) == said


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (337, 359), (1, 1), (9894, 10000)])
def test_the_interval_is_that_of_scipy(right, count):
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_what_turns_the_direction_of_text_is_left_out():
    assert printable("a\u202eb\u2066c\u200fd\u061ce\x07f\ud800g") == "abcdefg"
    assert printable("名前 ß\té\n\N{GRINNING FACE}") == "名前 ß\té\n\N{GRINNING FACE}"


def test_a_list_of_names():
    assert [words.listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
