"""`cnnkit train` in a process that trains with others as one and does not lead them: it leaves the run folder alone."""

import json
from pathlib import Path

import pytest

from cnnkit.errors import BackendError


@pytest.fixture
def following(monkeypatch):
    """From here on no backend leads."""
    return lambda: monkeypatch.setattr("cnnkit.backend.Backend.leads", False)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_it_makes_no_folder_and_says_of_none(cnnkit, model_file, npz, following):
    following()
    done = cnnkit("train", model_file, npz, "--out", "run")
    assert done.code == 0, done.err
    assert "Precision, recall and F1 are macro averages." in done.out
    assert "The run is in" not in done.out
    assert json.loads(cnnkit("train", model_file, npz, "--json").out)["out"] is None
    assert not Path("run").exists()
    assert not Path("runs").exists()


def test_it_may_come_when_another_has_begun(cnnkit, model_file, npz, following):
    cnnkit("train", model_file, npz, "--out", "run")
    before = contents("run")
    following()
    assert cnnkit("train", model_file, npz, "--out", "run").code == 0
    assert contents("run") == before


def test_it_resumes_with_more_epochs_and_leaves_that_to_the_one_that_leads(cnnkit, model_file, npz, following):
    cnnkit("train", model_file, npz, "--out", "run", "--epochs", "1")
    before = contents("run")
    following()
    done = cnnkit("train", "--resume", "run", "--epochs", "3", "--json")
    assert json.loads(done.out)["epochs"] == 3
    assert contents("run") == before


def test_a_backend_that_cannot_go_on_is_told_with_the_command_that_resumes(cnnkit, model_file, npz, monkeypatch):
    cnnkit("train", model_file, npz, "--out", "run", "--epochs", "1")

    def lose(*_):
        raise BackendError("a worker is lost")

    monkeypatch.setattr("cnnkit_numpy.backend.NumpyBackend.compile_training", lose)
    done = cnnkit("train", "--resume", "run", "--epochs", "2")
    assert done.code == 1
    assert "go on with the run: cnnkit train --resume run" in " ".join(done.err.split())
    assert "error: a worker is lost" in done.err
    done = cnnkit("train", model_file, npz, "--out", "new")
    assert "go on with the run" not in done.err
