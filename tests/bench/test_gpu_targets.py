"""Targets on a card: reached and missed on both sides of each limit, and not judged where figures are missing."""

import pytest

from cnnkit.bench.gpu.results import StepCell
from cnnkit.bench.gpu.targets import judge

H100 = "NVIDIA H100 80GB HBM3"


def cell(library, way, precision, batch, seconds, **fields):
    return StepCell(
        library=library, way=way, precision=precision, batch=batch, images=50_000, rounds=(seconds,), **fields
    )


def steps(own=0.2, rounded=0.15, peer=0.12, small=0.22):
    """Own figures at batch 1024 in float32 and tf32, PyTorch's in tf32, and own ones with a graph at batch 64."""
    return [
        cell("cupy", "graph", "float32", 1024, own),
        cell("cupy", "eager", "tf32", 1024, rounded),
        cell("torch", "graph", "tf32", 1024, peer),
        cell("torch", "graph", "float32", 1024, 0.01),  # not what is compared with
        cell("cupy", "graph", "tf32", 64, small),
        cell("cupy", "eager", "tf32", 64, 0.01),  # nor this
        cell("cupy", "eager", "tf32", 512, 0.01),
    ]


def outcomes(cells, card=H100, quick=False):
    return [target.outcome for target in judge(cells, "cupy", card, quick=quick)]


def test_all_can_be_reached():
    assert outcomes(steps()) == ["reached", "reached", "reached"]


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"own": 0.201, "rounded": 0.201, "peer": 0.2}, 0),
        ({"rounded": 0.151}, 1),
        ({"small": 0.226}, 2),
    ],
)
def test_each_is_missed_just_beyond_its_limit(changed, place):
    found = outcomes(steps(**changed))
    assert [outcome == "missed" for outcome in found] == [at == place for at in range(3)]


def test_the_quicker_of_the_precisions_counts_for_seconds_and_is_named():
    first, second, third = judge(steps(), "cupy", H100, quick=False)
    assert first.said == "cupy, eager, tf32: 0.150 s."
    assert second.said == "cupy, eager, tf32: 0.80 of the speed of torch, graph, tf32 (0.150 s to 0.120 s)."
    assert third.said == "cupy, graph, tf32: 0.220 s, 1.47 times the 0.150 s of cupy, eager, tf32."
    assert judge(steps(own=0.1), "cupy", H100, quick=False)[0].said == "cupy, graph, float32: 0.100 s."


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (lambda it: it.library == "torch", ["reached", "not judged", "reached"]),
        (lambda it: it.batch == 64, ["reached", "reached", "not judged"]),
        (lambda it: it.precision == "tf32" and it.batch == 1024, ["reached", "not judged", "reached"]),
        (lambda it: it.batch == 1024, ["not judged", "not judged", "not judged"]),
        (lambda _: True, ["not judged", "not judged", "not judged"]),
    ],
)
def test_what_was_not_measured_is_not_judged(missing, expected):
    assert outcomes([cell for cell in steps() if not missing(cell)]) == expected


def test_a_figure_that_does_not_count_is_none():
    broken = [cell("cupy", "graph", "tf32", 1024, 0.01, problems=("not the same work",))]
    (first, *_) = judge(broken, "cupy", H100, quick=False)
    assert (first.outcome, first.said) == ("not judged", "There is no figure for training at batch 1024.")


def test_a_quick_run_judges_nothing():
    assert outcomes(steps(), quick=True) == ["not judged"] * 3


def test_another_card_is_named():
    first = judge(steps(), "cupy", "NVIDIA A10", quick=False)[0]
    assert first.said.endswith("It is meant for an H100; this is NVIDIA A10.")
