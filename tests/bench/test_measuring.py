"""That measurements are made and reported; never how fast anything is, which a busy machine would decide."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from cnnkit import BackendNotFound, BackendOptionError
from cnnkit.bench import Timing, measure_import, measure_seed, measuring
from cnnkit.bench.contestant import Contestant
from cnnkit.bench.torch_peer import torch_contestants

PEERS = ["torch"] if find_spec("torch") else []


def test_every_contestant_is_timed():
    timings, remark = measure_seed(["numpy"], images=32, rounds=1)
    assert [timing.name for timing in timings] == ["seed loops", "numpy", *PEERS]
    for timing in timings:
        assert timing.train > 0
        assert timing.predict > 0
    assert "PyTorch" in remark


def test_options_reach_the_backend():
    with pytest.raises(BackendOptionError, match="threads is 0"):
        measure_seed(["numpy"], images=32, rounds=1, options={"threads": 0})
    with pytest.raises(BackendNotFound, match="No backend is called 'nowhere'"):
        measure_seed(["nowhere"], images=32, rounds=1)


def test_importing_numpy_and_cnnkit_takes_time():
    numpy_seconds, cnnkit_seconds = measure_import(rounds=1)
    assert 0 < numpy_seconds < 60
    assert 0 < cnnkit_seconds < 60


@pytest.mark.skipif(bool(PEERS), reason="PyTorch is installed here")
def test_without_pytorch_the_report_says_how_to_get_it():
    contestants, remark = torch_contestants({}, None, None, learning_rate=0.1)
    assert contestants == {}
    assert "pip install 'cnnkit[peers]'" in remark


def test_the_best_round_counts_in_microseconds_an_image(monkeypatch):
    nothing = Contestant(train=dict, predict=dict, count=4)
    # Three rounds; each times the loops, the backend and the peer, training first.
    spent = iter([9.0, 9.0, 9.0, 9.0, 8.0, 4.0, 9.0, 9.0, 9.0, 9.0, 2.0, 5.0, 9.0, 9.0, 9.0, 9.0, 4.0, 6.0])
    monkeypatch.setattr(measuring, "_seconds", lambda _work: next(spent))
    monkeypatch.setattr(measuring, "torch_contestants", lambda *_, **__: ({"peer": nothing}, "a peer"))
    timings, remark = measure_seed(["numpy"], images=32, rounds=3)
    assert timings[-1] == Timing("peer", train=2e6 / 4, predict=4e6 / 4)
    assert remark == "a peer"


def test_the_command_prints_one_object():
    done = subprocess.run(
        [sys.executable, "-m", "cnnkit", "bench", "--images", "32", "--rounds", "1", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout)
    assert [timing["name"] for timing in report["seed_numpy"]] == ["seed loops", "numpy", *PEERS]
    for timing in report["seed_numpy"]:
        assert timing["train"] > 0
        assert timing["predict"] > 0
    assert report["import_seconds"].keys() == {"numpy", "cnnkit"}
    assert report["versions"].keys() == {"cnnkit", "numpy"}
