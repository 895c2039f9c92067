"""The shipped models: they load, they fit the data sets that they are meant for, and they are what the documents say."""

import numpy as np
import pytest

from cnnkit.datasets import Dataset
from cnnkit.errors import OptionError
from cnnkit.model import Conv2D, Dense, Grayscale, MaxPool2D, Softmax
from cnnkit.optimizers import SGD, Adam
from cnnkit.presets import Preset, load_preset, preset_names
from cnnkit.training import fit


def test_the_presets_are_these():
    assert preset_names() == ("mlp-1h", "seed-numpy", "seed-tf")


def counts(name):
    kinds = [type(layer) for layer in load_preset(name).model.layers]
    return kinds.count(Conv2D), kinds.count(MaxPool2D), kinds.count(Dense)


@pytest.mark.parametrize(
    ("name", "layers", "optimizer", "batch_size", "epochs"),
    [
        ("seed-numpy", (1, 1, 1), SGD(learning_rate=0.005), 1, 1),
        ("seed-tf", (2, 2, 2), Adam(learning_rate=0.001), 64, 10),
        ("mlp-1h", (0, 0, 2), Adam(learning_rate=0.001), 64, 5),
    ],
)
def test_a_preset_is_what_the_documents_say(name, layers, optimizer, batch_size, epochs):
    preset = load_preset(name)
    assert counts(name) == layers
    assert (preset.optimizer, preset.batch_size, preset.epochs) == (optimizer, batch_size, epochs)
    assert isinstance(preset.model.layers[-1], Softmax)
    assert preset.name == preset.model.name == name
    assert preset.about.endswith(".")


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (8, 8, 1)])
@pytest.mark.parametrize("name", preset_names())
def test_every_preset_fits_every_known_data_set(name, shape):
    names = ["a", "b", "c", "d"]
    preset = load_preset(name).for_data(shape, 4, names)
    plan = preset.model.plan()
    assert plan.input_shape == shape
    assert plan.classes == 4
    assert preset.model.class_names == tuple(names)
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8)
    run = fit(preset.model, Dataset(images, np.arange(8) % 4, names), optimizer=preset.optimizer, batch_size=4)
    assert np.isfinite(run.history[0].train["loss"])


def test_for_data_makes_another_preset_and_leaves_the_rest():
    preset = load_preset("seed-tf")
    fitted = preset.for_data((8, 9, 1), 3)
    assert isinstance(fitted, Preset)
    assert preset.model.plan().classes == 10
    assert fitted.model.class_names is None
    assert fitted.model.layers[:-2] == preset.model.layers[:-2]
    assert fitted.model.layers[-2] == Dense(units=3)
    assert (fitted.optimizer, fitted.batch_size, fitted.epochs) == (preset.optimizer, preset.batch_size, preset.epochs)


def test_seed_numpy_looks_at_colours_in_grey():
    plan = load_preset("seed-numpy").for_data((32, 32, 3), 10).model.plan()
    grey = next(index for index, layer in enumerate(plan.model.layers) if isinstance(layer, Grayscale))
    assert plan.layer_shapes[grey] == (32, 32, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "seed-tff",
            r"there is no preset 'seed-tff'; presets are mlp-1h, seed-numpy, seed-tf. Did you mean 'seed-tf'\?",
        ),
        ("zzz", r"there is no preset 'zzz'; presets are mlp-1h, seed-numpy, seed-tf\.$"),
        ("../presets/seed-tf", r"there is no preset '../presets/seed-tf'"),
        ("", "there is no preset ''"),
    ],
)
def test_an_unknown_preset_is_refused_with_the_known_ones(name, message):
    with pytest.raises(OptionError, match=message):
        load_preset(name)
