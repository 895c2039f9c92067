"""That measurements are made and reported; never how fast anything is, which a busy machine would decide."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from typer.testing import CliRunner

import cnnkit
from cnnkit import BackendNotFound, BackendOptionError
from cnnkit.bench import Timing, measure_import, measure_seed, measuring
from cnnkit.bench.contestant import Contestant
from cnnkit.bench.torch_peer import torch_contestants
from cnnkit.cli.app import app

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
    seconds = measure_import(rounds=1)
    assert list(seconds) == ["numpy", "cnnkit", "cnnkit and all of its names"]
    assert all(0 < value < 60 for value in seconds.values())


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


@pytest.fixture
def bench(monkeypatch):
    """A function that runs `cnnkit bench` on few images, the imports already timed."""
    monkeypatch.setattr("cnnkit.cli.bench.measure_import", lambda: {"numpy": 0.1, "cnnkit": 0.25})

    def run(*arguments):
        done = CliRunner().invoke(app, ["bench", "--images", "32", "--rounds", "1", *arguments])
        assert done.exit_code == 0
        return done.stdout

    return run


def test_the_command_prints_one_object(bench):
    report = json.loads(bench("--json", "--backend", "numpy"))
    assert [timing["name"] for timing in report["seed_numpy"]] == ["seed loops", "numpy", *PEERS]
    for timing in report["seed_numpy"]:
        assert timing["train"] > 0
        assert timing["predict"] > 0
    assert report["import_seconds"] == {"numpy": 0.1, "cnnkit": 0.25}
    assert report["versions"] == {"cnnkit": cnnkit.__version__, "numpy": np.__version__}


def test_the_command_prints_a_table_for_people(bench):
    lines = bench().splitlines()
    loops = next(line for line in lines if line.startswith("seed loops"))
    assert loops.split()[3:5] == loops.split()[6:8] == ["1", "x"]
    assert any(line.startswith("numpy ") for line in lines)
    assert "import: numpy 100 ms (1.0 x), cnnkit 250 ms (2.5 x)" in lines
