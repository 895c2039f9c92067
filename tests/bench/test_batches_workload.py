"""The task that all contestants get: the same numbers everywhere, from which there is something to be learned."""

import json
from pathlib import Path

import numpy as np
import pytest

import cnnkit
from cnnkit import Adam, Conv2D, Dense, Dropout, MaxPool2D, Model, fit
from cnnkit.bench.batches import MODELS, Workload, backend_learner
from cnnkit.cli import common

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "four-convolutions.toml"


def test_the_same_workload_is_made_in_another_process(small):
    again = Workload.from_dict(json.loads(json.dumps(small.to_dict())))
    assert again == small
    for name in ("images", "labels", "order"):
        np.testing.assert_array_equal(getattr(again, name), getattr(small, name), err_msg=name)
    assert again.parameters.keys() == small.parameters.keys()
    for name, array in small.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], array)


def test_another_seed_gives_other_numbers(small):
    other = Workload(small.model, small.count, small.batch_size, seed=1)
    for name in ("images", "labels", "order"):
        assert (getattr(other, name) != getattr(small, name)).any()


def test_images_are_bytes_of_ten_classes_visited_once_an_epoch(small):
    assert small.images.dtype == np.uint8
    assert small.images.shape == (128, 7, 6, 3)
    assert small.images.max() - small.images.min() > 200
    assert sorted(set(small.labels)) == list(range(10))
    assert sorted(small.order) == list(range(128))
    assert list(small.order) != sorted(small.order)


def test_an_epoch_and_a_fit_do_the_same(small):
    by_epoch = backend_learner.make(small, "numpy", "epoch", {})
    by_fit = backend_learner.make(small, "numpy", "fit", {})
    losses = [[learner.train() for _ in range(2)] for learner in (by_epoch, by_fit)]
    assert losses[0] == pytest.approx(losses[1])
    assert losses[0][1] < losses[0][0]
    for name, array in by_epoch.parameters().items():
        assert (array != small.parameters[name]).any()
        np.testing.assert_array_equal(by_fit.parameters()[name], array)
    np.testing.assert_allclose(by_epoch.predict(), by_fit.predict(), atol=1e-6)


def test_a_backend_without_an_option_threads_takes_part_and_it_is_said(small, monkeypatch):
    def without_threads(name, **options):
        if "threads" in options:
            raise cnnkit.BackendOptionError("there is no option threads")
        return cnnkit.get_backend(name, **options)

    assert backend_learner.make(small, "numpy", "epoch", {}).remarks == []
    monkeypatch.setattr(backend_learner, "get_backend", without_threads)
    learner = backend_learner.make(small, "numpy", "epoch", {})
    assert learner.remarks == ["numpy has no option threads; only the environment asked for 1"]


def test_a_wrong_option_is_not_taken_for_a_missing_one(small):
    with pytest.raises(cnnkit.BackendOptionError, match="wings"):
        backend_learner.make(small, "numpy", "epoch", {"wings": 2})


# ------------------------------------------------------------------------------------------------------------- models

# Worked out by hand: (kernel pixels * channels + 1) * filters of each convolution, (features + 1) * units of each Dense.
PARAMETERS = {
    "a": 10 * 16 + (13 * 13 * 16 + 1) * 10,
    "b": 10 * 32 + 289 * 64 + (5 * 5 * 64 + 1) * 128 + 129 * 10,
    "c": 28 * 32 + 289 * 64 + 577 * 64 + (4 * 4 * 64 + 1) * 64 + 65 * 10,
    "d": 28 * 32 + 289 * 32 + 289 * 64 + 577 * 64 + (6 * 6 * 64 + 1) * 512 + 513 * 10,
    "seed-tf": 10 * 32 + 289 * 64 + (7 * 7 * 64 + 1) * 64 + 65 * 10,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_has_the_layers_that_its_description_says(name):
    model = MODELS[name]()
    assert sum(spec.size for spec in model.plan().parameters) == PARAMETERS[name]
    assert model.input_shape == ((32, 32, 3) if name in "cd" else (28, 28, 1))
    kinds = [type(layer) for layer in model.layers]
    convolutions, pools = {"a": (1, 1), "b": (2, 2), "c": (3, 2), "d": (4, 2), "seed-tf": (2, 2)}[name]
    assert (kinds.count(Conv2D), kinds.count(MaxPool2D)) == (convolutions, pools)
    assert kinds.count(Dropout) == (name == "seed-tf")
    hidden = [layer for layer in model.layers if isinstance(layer, (Conv2D, Dense))][:-1]
    assert {layer.activation for layer in hidden} == {"relu"}


def test_these_are_all_models():
    assert set(MODELS) == set(PARAMETERS)


def test_the_example_of_four_convolutions_is_model_d_and_trains():
    assert Model.from_toml(EXAMPLE.read_text(encoding="utf-8")) == MODELS["d"]()
    preset = common.find_model(str(EXAMPLE))
    assert (preset.optimizer, preset.batch_size) == (Adam(learning_rate=0.001), 64)
    work = Workload(preset.model, count=24, batch_size=8)
    run = fit(
        preset.model, cnnkit.Dataset(work.images, work.labels), optimizer=preset.optimizer, batch_size=8, epochs=6
    )
    assert run.history[-1].running_loss < run.history[0].running_loss - 0.1
