"""The process of a contestant on a card, with a driver that is made up: what it measures, what memory it counts."""

import sys
from pathlib import Path

import numpy as np
import pytest

from cnnkit.bench.batches import backend_learner
from cnnkit.bench.batches.agreement import wrong_predictions
from cnnkit.bench.batches.process import Failed
from cnnkit.bench.gpu import backend_side
from cnnkit.bench.gpu.contestant import Contestant
from cnnkit.bench.gpu.models import LayerTask
from cnnkit.bench.gpu.remote import START, Remote
from cnnkit.bench.gpu.worker import Worker
from cnnkit.errors import BackendError, BackendOptionError, BackendUnavailable


@pytest.fixture
def made_up(contestants, monkeypatch):
    """The module of the contestants that are made up."""
    assert contestants
    import gpu_contestants

    monkeypatch.setitem(gpu_contestants.STATE, "taken", 0)
    monkeypatch.setitem(gpu_contestants.STATE, "released", 0)
    return gpu_contestants


@pytest.fixture
def worker(made_up):
    return Worker(made_up, made_up.Driver())


def test_memory_is_what_the_requests_of_this_process_have_taken(worker, made_up, small):
    made_up.STATE["taken"] = 50 << 20  # others were there before
    ready = worker.answer({"ask": "prepare", "workload": small.to_dict(), "options": {"mib": 100}})
    assert ready["device_mib"] == 50.0  # 100 taken, and 50 given back by `release`
    made_up.STATE["taken"] += 300 << 20  # another process, in between
    assert worker.answer({"ask": "train"})["device_mib"] == 50.0


def test_the_images_are_drawn_once_for_all_batch_sizes(worker, small, monkeypatch):
    data = small.to_dict()
    worker.answer({"ask": "prepare", "workload": data, "options": {}})
    first = worker.workload
    monkeypatch.setattr(np.random, "default_rng", None)
    worker._with_images(type(small).from_dict(data | {"batch_size": 32}))
    monkeypatch.undo()
    worker.answer({"ask": "prepare", "workload": data | {"batch_size": 32}, "options": {}})
    assert worker.workload.batch_size == worker.learner.workload.batch_size == 32
    assert worker.workload.images is first.images
    assert first.batch_size == 8
    worker.answer({"ask": "prepare", "workload": data | {"seed": 1}, "options": {}})
    assert not np.array_equal(worker.workload.images, first.images)


def test_the_clock_starts_when_the_card_is_at_rest(worker, small):
    worker.answer({"ask": "prepare", "workload": small.to_dict(), "options": {}})
    for what in ("train", "predict"):
        worker.driver.asked.clear()
        assert worker.answer({"ask": what})["seconds"] > 0
        assert worker.driver.asked == ["wait"]


def test_what_it_shows_is_what_it_has_learned(worker, small, tmp_path):
    worker.answer({"ask": "prepare", "workload": small.to_dict(), "options": {}})
    worker.answer({"ask": "train"})
    worker.answer({"ask": "show", "path": str(tmp_path / "one.npz")})
    worker.answer({"ask": "predict"})
    worker.answer({"ask": "show", "path": str(tmp_path / "two.npz")})
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert set(two) - set(one) == {"predictions"}
    assert two["predictions"].shape == (small.count, 10)
    moved = [np.abs(one[f"parameter {name}"] - array).max() for name, array in small.parameters.items()]
    assert len(moved) == 6
    assert min(moved) > 0


def test_a_layer_is_measured_on_its_stream_by_so_many_calls_that_an_event_does_not_count(worker):
    task = LayerTask("dense 10", 4)
    answer = worker.answer({"ask": "layer", "task": task.to_dict(), "options": {}})
    assert set(answer["results"]) == {"output", "kernel", "bias", "input"}
    worker.driver.asked.clear()
    assert worker.answer({"ask": "measure", "way": "backward"})["microseconds"] == 100.0
    assert worker.driver.asked == ["wait", (5, 3), (5, 200)]  # 20,000 microseconds by 100


def test_what_is_dropped_is_released_too(worker, made_up, small):
    worker.answer({"ask": "prepare", "workload": small.to_dict(), "options": {}})
    before = made_up.STATE["released"]
    assert worker.answer({"ask": "drop"})["device_mib"] == 0.0
    assert made_up.STATE["released"] == before + 1
    assert worker.learner is None


# ------------------------------------------------------------------------------------------------- in a process of its own

START_WITHOUT_A_CARD = (
    START.replace("cnnkit.bench.gpu.remote", "gpu_contestants")
    .replace("import begin;", "import begin_without_a_card as begin;")
    .replace("sys.argv.pop(), index)", "sys.argv.pop())")
)


@pytest.fixture
def remote():
    """A function that begins a process with a driver that is made up."""
    begun = []

    def begin(module):
        begun.append(Remote(Contestant("cupy", "graph", "tf32", module), start=START_WITHOUT_A_CARD))
        return begun[-1]

    yield begin
    for process in begun:
        process.close()


def test_a_process_answers_and_goes_on_after_an_error(remote, made_up, small):
    process = remote(made_up.__name__)
    assert process.start()["name"] == "NVIDIA Imaginary 1"
    with pytest.raises(Failed, match="MemoryError: the card is full"):
        process.ask("prepare", workload=small.to_dict(), options={"way": "no memory"})
    process.ask("prepare", workload=small.to_dict(), options={"way": "prints"})
    assert process.ask("train")["loss"] > 0  # what it prints gets in nobody's way
    assert process.ask("drop")["device_mib"] == 0.0


def test_an_engine_that_cannot_be_imported_leaves_its_last_words(remote, made_up):
    assert made_up
    with pytest.raises(Failed, match="ended itself with exit code 1 when it was to card") as caught:
        remote("no_such_engine").start()
    assert "No module named 'no_such_engine'" in caught.value.log


def test_without_a_driver_the_real_process_says_that_there_is_none(made_up):
    if Path("/dev/nvidiactl").exists() or sys.platform == "win32":
        pytest.skip("there may be a driver here")
    process = Remote(Contestant("cupy", "graph", "tf32", made_up.__name__))
    try:
        with pytest.raises(Failed, match=r"OptionError: (there is no driver for NVIDIA cards|the driver's cu)"):
            process.start()
    finally:
        process.close()


# ------------------------------------------------------------------------------------------ a backend, by the contract


def test_a_backend_learns_and_predicts_by_the_contract(small, monkeypatch):
    made = backend_side.make(small, "numpy", "cpu", "float32", {"threads": 1})
    assert made.name == "numpy"
    assert made.versions.keys() >= {"numpy", "cnnkit"}
    asked, predict = [], made.program.predict
    monkeypatch.setattr(made.program, "predict", lambda images: asked.append(len(images)) or predict(images))
    loss = made.train()
    other = backend_learner.make(small, "numpy", "epoch", {})
    assert loss == other.train()
    for name, array in other.parameters().items():
        assert np.array_equal(made.parameters()[name], array)
    assert wrong_predictions(small, made.parameters(), made.predict()) == []
    assert asked == [8] * 16


def test_a_backend_on_another_device_or_with_another_option_is_refused_and_not_replaced(small):
    with pytest.raises(BackendUnavailable, match="runs on the CPU, not on 'gpu:0'"):
        backend_side.make(small, "numpy", "gpu:0", "float32", {})
    with pytest.raises(BackendOptionError, match="graphs"):
        backend_side.make(small, "numpy", "cpu", "float32", {"graphs": True})


def test_a_backend_without_single_layers_says_so():
    with pytest.raises(BackendError, match="backend 'numpy' has no module for single layers"):
        backend_side.layer(LayerTask("dense 10", 4), "numpy", "cpu", "float32", {})
