"""The measuring on a card, with contestants on a CPU: rounds, who is out and why, and what the time allows."""

import numpy as np
import pytest

from cnnkit.bench.gpu.budget import Deadline
from cnnkit.bench.gpu.layer_table import measure_layer
from cnnkit.bench.gpu.models import LayerTask
from cnnkit.bench.gpu.rounds import processes
from cnnkit.bench.gpu.step_table import measure_inference, measure_training

LONG = Deadline(1e12)


@pytest.fixture
def here(contestants):
    """A function: contestants in this process, by their ways, with one log."""
    assert contestants
    import gpu_contestants as made_up

    def begin(*ways):
        log = []
        return [made_up.Here(made_up.contestant(way), log) for way in ways], log

    return begin


def ticking(moments, total):
    """A deadline after `total` seconds on a clock that says one moment after the other, the last one for good."""
    said = iter(moments)
    last = [0.0]

    def clock():
        last[0] = next(said, last[0])
        return last[0]

    return Deadline(total, clock)


def test_rounds_go_through_all_contestants_after_a_warm_up(here, small):
    asked, log = here("honest", "prints")
    cells, whole = measure_training(small, asked, 2, LONG)
    assert whole
    both = ["honest", "prints"]
    assert [way for way, what, _ in log if what == "train"] == [*both, *both, *both]
    assert [len(cell.rounds) for cell in cells] == [2, 2]
    for cell in cells:
        assert (cell.batch, cell.images, cell.problems) == (8, 128, ())
        assert cell.seconds_50k == pytest.approx(np.median(cell.rounds) * 50_000 / 128)
        assert cell.first_s not in cell.rounds
        assert cell.device_mib >= 0
    assert [what for _, what, _ in log][-2:] == ["drop", "drop"]


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("skips", "not the same work as cupy, honest, float32: in the first epoch its"),
        ("other labels", "not the same work as cupy, honest, float32: after the first epoch its parameters are"),
        ("no memory", "MemoryError: the card is full"),
    ],
)
def test_who_does_not_do_the_work_is_out_and_the_others_go_on(here, small, way, said):
    asked, log = here("honest", way, "prints")
    cells, _ = measure_training(small, asked, 1, LONG)
    assert [bool(cell.problems) for cell in cells] == [False, True, False]
    assert cells[1].problems[0].startswith(said)
    assert cells[1].seconds_50k is None
    assert (way, "drop", "") in log  # it must not keep the card's memory from the others


def test_rounds_end_for_all_together_when_the_time_is_up(here, small):
    asked, _ = here("honest", "prints")
    # each round takes 4 of 10 seconds: two of them, and a third would end too late
    cells, whole = measure_training(small, asked, 5, ticking([0, 4, 4, 4, 8, 8], 10.0))
    assert not whole
    assert [len(cell.rounds) for cell in cells] == [2, 2]
    assert [cell.problems for cell in cells] == [(), ()]  # both were trained the same number of times


def test_there_is_one_round_however_late_it_is(here, small):
    cells, whole = measure_training(small, here("honest")[0], 3, Deadline(0.0))
    assert (len(cells[0].rounds), whole) == (1, False)


def test_predictions_are_held_to_the_default_backend(here, small):
    asked, log = here("honest", "scores", "predicts half")
    cells, whole = measure_inference(small, asked, 2, LONG)
    assert whole
    assert not any(what == "train" for _, what, _ in log)
    assert [bool(cell.problems) for cell in cells] == [False, True, True]
    assert "off what its parameters give" in cells[1].problems[0]
    assert "its predictions have shape" in cells[2].problems[0]
    assert len(cells[0].rounds) == 2


def test_a_layer_is_measured_both_ways_in_rounds_through_all(here):
    asked, log = here("honest", "also honest")
    cells, whole = measure_layer(LayerTask("dense 512", 4), asked, 2, LONG)
    assert whole
    once = [(way, go) for way in ("honest", "also honest") for go in ("forward", "backward")]
    assert [(way, go) for way, what, go in log if what == "measure"] == [*once, *once]
    for cell in cells:
        assert (cell.layer, cell.batch, cell.problems) == ("dense 512", 4, ())
        assert cell.forward_rounds == cell.backward_rounds == (100.0, 100.0)
        assert (cell.forward_us, cell.backward_us) == (100.0, 100.0)


def test_a_layer_with_other_results_or_none_does_not_count(here):
    (_, wrong), _ = measure_layer(LayerTask("dense 10", 4), here("honest", "wrong")[0], 1, LONG)
    assert wrong.problems[0].startswith("not the same work as cupy, honest, float32: its kernel is ")
    assert wrong.forward_us is None
    (absent,), _ = measure_layer(LayerTask("pool 2, of 32", 4), here("honest")[0], 1, LONG)
    assert absent.problems == ("NotImplementedError: there are only dense layers here",)


def test_all_processes_end_whatever_happens(here):
    asked, _ = here("honest", "prints")
    left = iter(asked)

    def stopped():
        with processes([it.contestant for it in asked], lambda _: next(left)) as begun:
            assert begun == asked
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [it.closed for it in asked] == [True, True]
