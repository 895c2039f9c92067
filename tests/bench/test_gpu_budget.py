"""The time of a run on a card: what each part may take, what is left over for the next, and how people write it."""

import pytest

from cnnkit.bench.gpu.budget import ENDS, Budget, Deadline, read_seconds
from cnnkit.errors import OptionError


class Clock:
    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_all_parts_end_before_the_time_does_in_the_order_of_the_parts():
    assert list(ENDS) == ["conformance", "layers", "steps", "inference"]
    assert list(ENDS.values()) == sorted(ENDS.values())
    assert ENDS["inference"] < 1


def test_what_a_part_leaves_over_is_for_those_after_it(clock):
    budget = Budget(100.0, clock)
    assert budget.deadline("conformance").left == pytest.approx(40.0)
    clock.now += 10  # the suite was quick
    assert budget.deadline("layers").left == pytest.approx(46.0)
    assert budget.spent == 10


def test_a_part_that_took_too_long_leaves_less_but_never_less_than_nothing(clock):
    budget = Budget(100.0, clock)
    clock.now += 50
    assert budget.deadline("layers").left == pytest.approx(6.0)
    clock.now += 45
    assert budget.deadline("steps").left == 0.0


def test_a_deadline_allows_what_ends_in_time(clock):
    deadline = Deadline(1010.0, clock)
    assert deadline.allows(10.0)
    clock.now += 1
    assert not deadline.allows(10.0)


@pytest.mark.parametrize(("text", "seconds"), [("480s", 480), ("480", 480), ("8m", 480), (" 1.5 m ", 90), ("30s", 30)])
def test_seconds_and_minutes_are_read(text, seconds):
    assert read_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "8 hours", "-480s", "29s", "1e3", "nan", "86401s", "1m30s"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(OptionError, match=r"expected seconds or minutes, .* Write for example --budget 480s\."):
        read_seconds(text)
