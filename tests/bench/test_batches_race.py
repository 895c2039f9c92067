"""That contestants run apart from each other, that all do the same work, and that whoever does not is found out."""

import re
import sys

import numpy as np
import pytest

from cnnkit.bench.batches import Race, backend_entries, race, sentences

WAYS = (
    "honest",
    "skips",
    "other labels",
    "stops",
    "scores",
    "predicts once",
    "predicts half",
    "dies",
    "raises",
    "memory",
    "prints",
    "background",
)
ROUNDS = 2


@pytest.fixture(scope="module")
def outcomes(contestants, small):
    """What became of each contestant in one race of all of them, by name; `numpy` ran first, as epochs and as fits."""
    entries = [*backend_entries(["numpy"]), *map(contestants, WAYS)]
    return {outcome.entry.title: outcome for outcome in race(small, entries, ROUNDS)}


@pytest.mark.parametrize("name", ["numpy, epoch", "numpy, fit", "honest", "memory", "prints", "background"])
def test_who_does_the_work_is_measured_in_every_round(outcomes, name):
    outcome = outcomes[name]
    assert outcome.problems == []
    assert len(outcome.train) == len(outcome.predict) == ROUNDS
    assert min(outcome.train + outcome.predict) > 0
    assert outcome.first_epoch > 0
    assert outcome.first_predict > 0
    assert outcome.versions["numpy"]
    assert len(outcome.losses) == ROUNDS + 1
    assert outcome.losses[-1] < outcome.losses[0]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "skips",
            r"not the same work as numpy, epoch: in the first epoch its 1.kernel moved by \d\.\d+, not by \d\.\d+",
        ),
        (
            "other labels",
            r"not the same work as numpy, epoch: after the first epoch its parameters are \d+% of the way off",
        ),
        ("stops", "not the same work as numpy, epoch: in all epochs its 1.kernel moved by"),
        ("scores", r"a probability that it predicts is \S+ off what its parameters give"),
        ("predicts once", r"a probability that it predicts is \S+ off what its parameters give"),
        ("predicts half", r"its predictions have shape \(64, 10\), not \(128, 10\)"),
        ("dies", "its process was ended by SIGKILL when it was to train"),
        ("raises", "ValueError: there is no predicting here"),
    ],
)
def test_who_cheats_or_fails_does_not_count_and_the_reason_is_said(outcomes, small, name, problem):
    assert re.match(problem, outcomes[name].problems[0])
    table = Race("small", small, list(outcomes.values()))
    assert table.microseconds(outcomes[name], "train") is None
    assert any(line.startswith(f"{name} does not count: ") for line in sentences(table))


def test_what_a_failed_contestant_printed_or_raised_is_kept(outcomes):
    assert "the engine's last words" in outcomes["dies"].log
    assert 'raise ValueError("there is no predicting here")' in outcomes["raises"].log


@pytest.mark.skipif(sys.platform == "win32", reason="Python does not tell the peak of memory on Windows")
def test_each_contestant_has_a_peak_of_its_own(outcomes):
    assert outcomes["memory"].peak_mib > outcomes["honest"].peak_mib + 290
    assert outcomes["prints"].peak_mib < outcomes["honest"].peak_mib + 100  # it began after the large one


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak may be that of the process that began it")
def test_a_peak_is_not_that_of_the_process_that_runs_the_race(contestants, small):
    held = np.ones(500 << 20, np.uint8)
    (outcome,) = race(small, [contestants("honest")], rounds=1)
    assert outcome.peak_mib < held.nbytes / 2**20


def test_who_works_while_others_do_is_found_out(outcomes, small):
    assert outcomes["honest"].idle_cores < 0.02
    assert outcomes["background"].idle_cores > 0.1
    said = sentences(Race("small", small, list(outcomes.values())))
    assert any(line.startswith("background worked on") and "spoils the figures" in line for line in said)
    assert not any(line.startswith("honest") for line in said)


def test_without_a_sound_base_nobody_is_compared_with_it(contestants, small):
    outcomes = race(small, [contestants("raises"), contestants("honest")], rounds=1)
    assert [bool(outcome.problems) for outcome in outcomes] == [True, False]
    compared = Race("small", small, outcomes)
    assert compared.ratio(outcomes[1], "train") is None
    assert compared.microseconds(outcomes[1], "train") > 0


def test_progress_is_told(contestants, small):
    told = []
    race(small, [contestants("honest")], rounds=2, told=told.append)
    assert told == ["honest: first epoch", "round 1 of 2", "round 2 of 2"]
